"""The tables of docs/reliability.md: what was broken on purpose, how many cases of it, and how each ended."""

from collections import Counter
from typing import Any

from benchmarks.figures import Documents, day, machine, short, table

Document = dict[str, Any]


def reliability_block(name: str, documents: Documents) -> str:
    """The tables of one script: ``kills`` say, or ``soak_page`` of ``soak.py page``."""
    document = documents.get(f"reliability_{name}")
    if document is None:
        script, _, what = name.partition("_")
        return f"Not run yet: `{f'python benchmarks/reliability/{script}.py {what}'.strip()}`."
    lines = _slopes(document) if document.get("slopes") else _groups(document)
    failed = [case for case in document["cases"] if not case["held"]]
    if failed:
        lines += ["**Not as it must be:**", ""]
        lines += [
            f"- {_cell(case['group'])}, {_cell(case['case'])}: {_cell(case['end'])}. {_cell(case['said'])}"
            for case in failed
        ]
        lines += [""]
    made = f"`{document['command']}`, {document['seconds'] / 60:.0f} min; {machine(document)}; {day(document['date'])}"
    return "\n".join([*lines, f"{document['note']} {made}; commit {short(document['commit'])}."])


def _groups(document: Document) -> list[str]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for case in document["cases"]:
        groups.setdefault(case["group"], []).append(case)
    if all(len(cases) == 1 for cases in groups.values()):
        rows = [[f"`{c['group']}`", c["case"], c["end"]] for (c,) in groups.values()]
        return table(["task", "what was done", "what came of it"], rows, left=3)
    rows = []
    for name, cases in groups.items():
        ends = Counter(case["end"] for case in cases)
        told = ", ".join(f"{count} {end}" for end, count in ends.most_common())
        rows.append([name, str(len(cases)), str(sum(case["held"] for case in cases)), told])
    total, held = len(document["cases"]), sum(case["held"] for case in document["cases"])
    rows.append(["**all**", f"**{total}**", f"**{held}**", ""])
    return table(["what was broken", "cases", "as it must be", "how they ended"], rows, left=1)


def _slopes(document: Document) -> list[str]:
    rows = [
        [
            row["what"], str(row["samples"]), f"{row['first']:,.1f}", f"{row['last']:,.1f} {row['unit']}",
            f"{row['per_hour']:+.2f} ± {row['margin']:.2f}", f"{row['limit']:g}", row["verdict"],
        ]
        for row in document["slopes"]
    ]  # fmt: skip
    head = ["what", "samples", "line from", "to", "slope an hour, 95 %", "flat up to", "verdict"]
    return table(head, rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
