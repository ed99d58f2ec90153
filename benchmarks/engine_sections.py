"""The table of docs/deploy.md: networks that were built as engines, and not run."""

from typing import Any

from benchmarks.figures import NONE, Documents, day, short, table

MEBI = 1 << 20


def engines_block(name: str, documents: Documents) -> str:
    """The rows of one file of kind ``engines``, and what made them."""
    document = documents.get(name)
    if document is None:
        return "Not built yet: `python benchmarks/tensorrt_builds.py`."
    lines = table(
        ["network", "graph", "precision", "sizes", "nodes", "layers", "seconds", "MiB"],
        [_cells(row) for row in document["rows"]],
        left=4,
    )
    failed = [row for row in document["rows"] if not row["built"]]
    if failed:
        lines += ["**Not built:**", ""]
        lines += [f"- {_called(row)}, {row['precision']}: {_plain(row['said'])}" for row in failed]
        lines += [""]
    if document["untried"]:
        lines += [f"**Not tried yet:** {'; '.join(document['untried'])}.", ""]
    machine = f"{document['machine']['cpu']}, no GPU"
    made = f"`{document['command']}`; {document['library']} {document['version']}; {machine}; {day(document['date'])}"
    return "\n".join([*lines, f"{document['note']} {made}; commit {short(document['commit'])}."])


def _called(row: dict[str, Any]) -> str:
    form = f", {row['scan_form']}" if row["scan_form"] and row["scan_form"] not in row["network"] else ""
    return f"{row['network']}{form}"


def _cells(row: dict[str, Any]) -> list[str]:
    sizes = ", ".join(f"{letter} {':'.join(map(str, span))}" for letter, span in row["sizes"].items())
    built = (
        [f"{row['layers']:,}", f"{row['seconds']:.3g}", f"{row['bytes'] / MEBI:.3g}"] if row["built"] else [NONE] * 3
    )
    return [_called(row), f"`{row['graph']}`", row["precision"], sizes or "fixed", f"{row['nodes']:,}", *built]


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("_", "\\_")
