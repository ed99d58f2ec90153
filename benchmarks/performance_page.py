"""docs/performance.md and the README's lines about speed, from what was timed side by side; no figure stands here."""

from collections.abc import Iterable
from typing import Any

from benchmarks.figures import NONE, Documents, day, machine, short, table

Row = dict[str, Any]
Document = dict[str, Any]

FLOOR = "floor of "
GPU = "selective_scan_gpu"

INTRODUCTION = """# Performance

<!-- Written by benchmarks/tables.py from benchmarks/results/*.json; change those, then run `make docs`. -->

Every table was made by one run of the script named below it, in which ours and the others took turns on the same
inputs. Ratios mean more than times: another machine, or the same one under load, has other times. *Must* is what a
release has to reach, *stretch* what it would like to. A *floor* is the least time that moving the bytes, or making the
operations, can take at a rate measured in the same run; nothing reaches it: it says how much there is left to gain.

Of scans: N sequences of L steps, D channels with S states each, G groups of channels that share B and C;
[selective_scan.md](selective_scan.md) says how the kernels work.
"""


def performance_page(documents: Documents) -> str:
    """The whole of docs/performance.md."""
    lines = [*INTRODUCTION.splitlines(), ""]
    if GPU not in documents:
        lines += [
            "**No figure here is of a GPU.** The CUDA kernels have been compiled and run on an emulator, never timed;",
            "`benchmarks/selective_scan_gpu.py` does that where there is a GPU.",
            "",
        ]
    for document in comparisons(documents):
        lines += [f"## {document['title']}", "", *_section(document)]
        made = f"`{document['command']}`; {machine(document)}, torch {document['machine'].get('torch', NONE)}"
        lines += [f"{made}; {day(document['date'])}; commit {short(document['commit'])}.", ""]
        lines += [document["note"], ""] if document.get("note") else []
    return "\n".join(lines).rstrip() + "\n"


def comparisons(documents: Documents) -> list[Document]:
    """The documents of what was timed side by side."""
    return [document for document in documents.values() if document["kind"] == "comparison"]


def _section(document: Document) -> list[str]:
    rows: list[Row] = document["rows"]
    if not any(row["against"].startswith(FLOOR) for row in rows):
        return _in_one_table(document)
    lines = ["### Aims", "", *_aims(document)]
    lines += ["### Beside the floors", "", *_floors(document)]
    return [*lines, "### Beside the others", "", *_others(document)]


def _in_one_table(document: Document) -> list[str]:
    unit = document["unit"]
    head = ["what", "against", f"ours, {unit}", f"theirs, {unit}", "measured", "must", "stretch"]
    rows = [
        [row["what"], row["against"], _time(row["ours"]), _time(row["theirs"]), *_with_interval(row, document)]
        for row in document["rows"]
    ]
    errors = [f"{e['what']}: {e['value']:.1e}, at most {e['aim']:.0e} allowed." for e in document.get("errors", [])]
    return [*table(head, rows, left=2), *(line for error in errors for line in (error, ""))]


def timed_block(name: str, documents: Documents) -> str:
    """The table of one document of timings, for another page."""
    if name not in documents:
        return "Not timed yet."
    document = documents[name]
    made = f"{machine(document)}; {day(document['date'])}."
    note = [document["note"], ""] if document.get("note") else []
    return "\n".join([f"**{document['title']}**", "", *_section(document), *note, made])


def _aims(document: Document) -> list[str]:
    """What was asked for, and what was measured."""
    rows = [
        [row["what"], row["against"], *_beside_aims(row, document), reached(row, document)]
        for row in document["rows"]
        if row.get("aim") is not None
    ]
    rows += [
        [each["what"], NONE, f"{each['value']:.1e}", f"{each['aim']:.0e}", NONE, _word(each["value"] <= each["aim"])]
        for each in document.get("errors", [])
    ]
    return table(["what", "against", "measured", "must", "stretch", "reached"], rows, left=2)


def _beside_aims(row: Row, document: Document) -> list[str]:
    """The ratio and its two aims, in the same words."""
    aims = [row.get("aim"), row.get("stretch")]
    wanted = next((aim for aim in aims if aim is not None), row["ratio"])
    return [told(row["ratio"], wanted, document)] + [NONE if a is None else told(a, wanted, document) for a in aims]


def _with_interval(row: Row, document: Document) -> list[str]:
    """The same, and behind the ratio the ends of its interval where one was measured."""
    measured, *aims = _beside_aims(row, document)
    interval = row.get("interval")
    if not interval:
        return [measured, *aims]
    wanted = next((aim for aim in (row.get("aim"), row.get("stretch")) if aim is not None), row["ratio"])
    sign = "×" if "×" in measured else " of"
    ends = sorted((told(end, wanted, document).partition(sign)[0] for end in interval), key=float)
    return [f"{measured} ({ends[0]} to {ends[1]})", *aims]


def told(ratio: float, aim: float, document: Document) -> str:
    """A ratio in words: how many times as fast (of memory: less) where that was aimed at, else as the share it is."""
    faster = 1 / ratio if document["better"] == "lower" else ratio
    is_gain = aim < 1 if document["better"] == "lower" else aim > 1
    word = "less" if str(document.get("unit")).endswith("MB") else "as fast"
    return f"{faster:.3g}× {word}" if is_gain else f"{ratio:.3g} of theirs"


def reached(row: Row, document: Document) -> str:
    """Which of a row's aims its ratio reaches: ``stretch``, ``must`` or ``no``."""
    for name, aim in (("stretch", row.get("stretch")), ("must", row.get("aim"))):
        if aim is not None and (row["ratio"] <= aim if document["better"] == "lower" else row["ratio"] >= aim):
            return name
    return _word(False)


def _word(reaches: bool) -> str:
    return "must" if reaches else "**no**"


def _by_what(rows: Iterable[Row]) -> dict[str, dict[str, Row]]:
    """Rows by what was timed, then by what it was timed against."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row["what"], {})[row["against"]] = row
    return found


def _floors(document: Document) -> list[str]:
    floors = [row for row in document["rows"] if row["against"].startswith(FLOOR)]
    names = list(dict.fromkeys(row["against"] for row in floors))
    rows = []
    for what, against in _by_what(floors).items():
        times = [against[name]["theirs"] if name in against else None for name in names]
        ours = next(iter(against.values()))["ours"]
        highest = max(time for time in times if time is not None)
        cells = [NONE if time is None else _time(time) for time in times]
        rows.append([what, _time(ours), *cells, f"{ours / highest:.2f}"])
    unit = document["unit"]
    return table(["what", f"ours, {unit}", *(f"{name}, {unit}" for name in names), "ours / the larger"], rows)


def _others(document: Document) -> list[str]:
    others = [row for row in document["rows"] if not row["against"].startswith(FLOOR)]
    names = list(dict.fromkeys(row["against"] for row in others))
    rows = []
    for what, against in _by_what(others).items():
        cells = [_gain(against[name], document) if name in against else NONE for name in names]
        rows.append([what, _time(next(iter(against.values()))["ours"]), *cells])
    lines = table(["what", f"ours, {document['unit']}", *names], rows)
    return [*lines, "How many times as fast ours is; below 1, the other is faster.", ""]


def _gain(row: Row, document: Document) -> str:
    return f"{1 / row['ratio'] if document['better'] == 'lower' else row['ratio']:.1f}×"


def _time(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def speed_in_short(documents: Documents) -> str:
    """For the README: of each comparison the aim that is missed furthest, or else met most narrowly.

    What was measured is the span over the shapes that share the aim.
    """
    lines = []
    for document in comparisons(documents):
        groups: dict[tuple[str, str, float], list[Row]] = {}
        for row in document["rows"]:
            if row.get("aim") is not None:
                groups.setdefault((row["what"].partition(",")[0], row["against"], row["aim"]), []).append(row)
        for (_, against, aim), rows in sorted(groups.items(), key=lambda item: _margin(item[1], document))[:1]:
            what = f"{document['title']}: {_common([row['what'] for row in rows])}"
            measured = _span([row["ratio"] for row in rows], aim, document)
            lines.append([what, against, measured, told(aim, aim, document)])
    if not lines:
        return "Nothing has been timed yet."
    return "\n".join(table(["what", "against", "measured", "must"], lines, left=2)).rstrip()


def _margin(rows: list[Row], document: Document) -> float:
    """How far the worst of some rows is beyond its aim, as a ratio; below 1 it misses it."""
    if document["better"] == "lower":
        return min(float(row["aim"] / row["ratio"]) for row in rows)
    return min(float(row["ratio"] / row["aim"]) for row in rows)


def _common(texts: list[str]) -> str:
    """The parts between commas that some texts share, and of other parts the words; without what is in brackets."""
    parts = [text.partition(", (")[0].split(", ") for text in texts]
    shared = []
    for each in zip(*parts, strict=False):
        words = [word for word in each[0].split() if all(word in other.split() for other in each)]
        shared.append(" ".join(words))
    return ", ".join(filter(None, shared)) if len(texts) > 1 else texts[0]


def _span(ratios: list[float], aim: float, document: Document) -> str:
    """The worst and the best of some ratios, in words."""
    worst, best = (max, min) if document["better"] == "lower" else (min, max)
    ends = [told(end(ratios), aim, document) for end in (worst, best)]
    number = ends[0].partition("×" if "×" in ends[0] else " of theirs")[0]
    return ends[0] if ends[0] == ends[1] else f"{number} to {ends[1]}"
