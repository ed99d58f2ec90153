"""The figures of a pipeline's runs: mean and standard deviation over seeds, as data and as a table."""

from collections.abc import Iterable, Iterator
from statistics import fmean, stdev
from typing import Any

from rich.table import Table


def over_seeds(results: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    """A row for each stage and figure: ``stage``, ``figure``, ``mean``, ``std`` (n - 1; None for one run), ``runs``.

    Args:
        results: stages' names and results; a name comes once for each seed. A figure is any number in a result.

    Example:
        >>> over_seeds([("tem", {"iou": 0.5}), ("tem", {"iou": 0.7})])[0]["mean"]
        0.6
    """
    figures: dict[tuple[str, str], list[float]] = {}
    for stage, result in results:
        for name, value in figures_in(result):
            figures.setdefault((stage, name), []).append(value)
    return [
        {
            "stage": stage,
            "figure": name,
            "mean": fmean(values),
            "std": stdev(values) if len(values) > 1 else None,
            "runs": len(values),
        }
        for (stage, name), values in figures.items()
    ]


def figures_in(result: Any, above: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in a result, by dotted name."""
    if isinstance(result, dict):
        for key, value in result.items():
            yield from figures_in(value, f"{above}.{key}" if above else str(key))
    elif isinstance(result, int | float) and not isinstance(result, bool):
        yield above, float(result)


def summary_table(summary: dict[str, Any]) -> Table:
    """A summary as a table for the terminal: a row for each stage and figure, mean ± standard deviation over seeds."""
    table = Table(title=summary["name"])
    for column in ("stage", "figure", "mean", "std", "runs"):
        table.add_column(column, justify="left" if column in ("stage", "figure") else "right")
    previous = None
    for row in summary["table"]:
        std = "" if row["std"] is None else f"{row['std']:.4g}"
        stage = "" if row["stage"] == previous else row["stage"]
        table.add_row(stage, row["figure"], f"{row['mean']:.4g}", std, str(row["runs"]))
        previous = row["stage"]
    return table
