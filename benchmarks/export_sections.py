"""The table of docs/deploy.md: trained runs exported in every format and precision, beside PyTorch."""

from typing import Any

from benchmarks.figures import NONE, Documents, day, machine, short, table

Row = dict[str, Any]


def exports_block(name: str, documents: Documents) -> str:
    """A row of each graph of one file of kind ``exports``, what was refused and why, and what made them."""
    document = documents.get(name)
    if document is None:
        return "Not exported yet: `python benchmarks/exports.py RUN...`."
    head = ["run", "as", "graph", "largest", "mean", "cosine", "figure: before, after", "passed", "pixels that differ"]
    lines = table(head, [cells for row in document["rows"] for cells in _cells(row)], left=3)
    refused = [row for row in document["rows"] if not row["passed"]]
    if refused:
        lines += ["Refused:", ""]
        lines += [f"- {_called(row)}, {_way(row)}: {_plain(row['said'])}" for row in refused]
        lines += [""]
    made = f"`{document['command']}`; {machine(document)}, torch {document['machine'].get('torch', NONE)}"
    return "\n".join(
        [*lines, f"{document['note']} {made}; {day(document['date'])}; commit {short(document['commit'])}."]
    )


def _called(row: Row) -> str:
    return f"`{row['run']}`" + "".join(f", `{each}`" for each in row["overrides"])


def _way(row: Row) -> str:
    return f"{row['format']} {row['precision']}"


def _cells(row: Row) -> list[list[str]]:
    """A line of each graph; what holds for the whole export stands in the first."""
    passed = "yes" if row["passed"] else "**no**"
    whole = [_figure(row["metric"]), passed, _drawn(row["drawn"])]
    graphs = [
        [f"`{graph['graph']}`", *(_share(graph[key]) for key in ("largest", "mean")), _cosine(graph["cosine"])]
        for graph in row["graphs"]
    ] or [[NONE] * 4]
    first, *others = graphs
    return [[_called(row), _way(row), *first, *whole], *(["", "", *graph, "", "", ""] for graph in others)]


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.1e}"


def _cosine(value: float | None) -> str:
    """Its distance from 1 says more than nines do."""
    return NONE if value is None else f"1 - {max(1 - value, 0.0):.0e}"


def _figure(metric: dict[str, Any] | None) -> str:
    if metric is None:
        return NONE
    before, after = (metric[when].get(metric["name"]) for when in ("before", "after"))
    return f"{metric['name']} " + ", ".join(NONE if value is None else f"{value:.4g}" for value in (before, after))


def _drawn(drawn: dict[str, Any] | None) -> str:
    if drawn is None or drawn["differ"] is None:
        return NONE
    share = "none" if drawn["differ"] == 0 else f"{drawn['differ']:.2%}"
    return f"{share} of {drawn['pictures']}"


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("_", "\\_")
