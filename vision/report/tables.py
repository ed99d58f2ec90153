"""Tables of figures: aligned numbers, mean and deviation over seeds, runs beside each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from vision.report.runs import Group, Run, evaluation_names, group_by_seed

NONE = "–"


@dataclass(frozen=True)
class Row:
    """One row: its name, its cells as text, which of them to emphasise, and whether it sums up those above it."""

    label: str
    cells: tuple[str, ...]
    strong: frozenset[int] = frozenset()
    total: bool = False


@dataclass(frozen=True)
class Table:
    """A table of figures.

    Attributes:
        title: what it shows.
        head: names of the columns, without that of the row names.
        rows: in order.
        note: a remark below it.
        corner: the name of the row names.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""
    corner: str = ""


def number(value: Any, decimals: int | None = None) -> str:
    """One value as text; None and what is not a number as a dash, long ones with thin spaces.

    Args:
        value: a number, text, or None.
        decimals: places after the point; None shows four significant digits.

    Example:
        >>> number(0.123456), number(0.5, 3), number(12345), number(None), number(2.5e-7)
        ('0.1235', '0.500', '12\u202f345', '–', '2.500e-07')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NONE if value is None else str(value)
    if not math.isfinite(value):
        return NONE
    places = decimals_for([value]) if decimals is None else decimals
    size = abs(value)
    comma = "," if size >= 10_000 else ""
    text = format(size, comma if isinstance(value, int) else ".3e" if places > 6 else f"{comma}.{places}f")
    return ("−" if value < 0 else "") + text.replace(",", "\u202f")


def decimals_for(values: Sequence[Any]) -> int:
    """Places after the point that show the largest of the values to four significant digits, at least one.

    Example:
        >>> decimals_for([0.91, 0.5]), decimals_for([45.1, 3.0]), decimals_for([12000.5])
        (4, 2, 1)
    """
    largest = max((abs(v) for v in values if isinstance(v, float) and math.isfinite(v)), default=0.0)
    if largest == 0.0 or 0.01 <= largest <= 1.0:
        return 4
    return max(1, 3 - math.floor(math.log10(largest)))


def aligned(values: Sequence[Any]) -> list[str]:
    """Values of one quantity as text with as many decimals each, to stand in a column or row.

    Example:
        >>> aligned([0.5, None, 0.12345])
        ['0.5000', '–', '0.1235']
    """
    places = decimals_for(values)
    mixed = any(isinstance(v, float) for v in values)
    return [number(float(v) if mixed and isinstance(v, int) else v, places) for v in values]


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    r"""Mean and sample standard deviation, :math:`\sqrt{\sum (v - \bar v)^2 / (n - 1)}`.

    Raises:
        ValueError: fewer than two values.

    Example:
        >>> mean_and_deviation([1.0, 3.0])
        (2.0, 1.4142135623730951)
    """
    if len(values) < 2:
        raise ValueError(f"a deviation of {len(values)} values")
    return fmean(values), stdev(values)


def plus_minus(values: Sequence[Any], places: int | None = None) -> str:
    """``mean ± deviation`` as text; a dash where a value is missing."""
    if any(not isinstance(v, int | float) for v in values):
        return NONE
    mean, deviation = mean_and_deviation([float(v) for v in values])
    places = decimals_for([float(v) for v in values]) if places is None else places
    return f"{number(mean, places)} ± {number(deviation, places)}"


def results_table(run: Run) -> Table:
    """One run's figures: a row a figure, a column an evaluation; what each is judged by is emphasised."""
    names = list(run.results)
    metrics = list(dict.fromkeys(m for name in names for m in run.results[name]["metrics"]))
    primaries = [run.primary(name) for name in names]
    rows = []
    for metric in sorted(metrics, key=lambda m: m not in primaries):
        cells = aligned([run.results[name]["metrics"].get(metric) for name in names])
        label = metric + _of_fewer(run, names, metric)
        rows.append(Row(label, tuple(cells), frozenset(i for i, p in enumerate(primaries) if p == metric)))
    rows.append(Row("samples", tuple(number(run.results[name].get("samples")) for name in names)))
    return Table("Figures", tuple(names), tuple(rows), corner="figure")


def _of_fewer(run: Run, names: Sequence[str], metric: str) -> str:
    """What is put behind a figure's name where it is of fewer samples than its evaluation."""
    counts = {run.samples(n, metric) for n in names if metric in run.results[n].get("counts", {})}
    return f" (of {' or '.join(number(count) for count in sorted(c for c in counts if c))})" if counts else ""


def comparison_tables(runs: Sequence[Run]) -> list[Table]:
    """A table an evaluation: a row a run, a column a figure; below runs over seeds their mean ± deviation.

    Of several recipes the one that is best by the primary figure is emphasised; over seeds it is the mean that counts.
    """
    groups = group_by_seed(runs)
    return [_comparison(name, groups) for name in evaluation_names(runs)]


def _comparison(name: str, groups: Sequence[Group]) -> Table:
    judged = [Group(group.label, tuple(run for run in group.runs if name in run.results)) for group in groups]
    judged = [group for group in judged if group.runs]
    runs = [run for group in judged for run in group.runs]
    primary = runs[0].primary(name)
    metrics = list(dict.fromkeys(metric for run in runs for metric in run.results[name]["metrics"]))
    metrics.sort(key=lambda metric: metric != primary)
    texts = [aligned([run.results[name]["metrics"].get(metric) for run in runs]) for metric in metrics]
    best = _best(judged, name, primary)
    rows: list[Row] = []
    for group in judged:
        strong = frozenset({0} if group.label in best else ())
        several = len(group.runs) > 1
        for run in group.runs:
            place = runs.index(run)
            rows.append(Row(run.label, tuple(column[place] for column in texts), frozenset() if several else strong))
        if several:
            rows.append(_summary(group, name, metrics, strong))
    missing = [run.label for group in groups for run in group.runs if name not in run.results]
    notes = ["± is the sample standard deviation over seeds."] if any(row.total for row in rows) else []
    notes += [f"Not evaluated on {name}: {', '.join(missing)}."] if missing else []
    return Table(name, tuple(metrics), tuple(rows), note=" ".join(notes), corner="run")


def _summary(group: Group, name: str, metrics: Sequence[str], strong: frozenset[int]) -> Row:
    columns = [[run.results[name]["metrics"].get(metric) for run in group.runs] for metric in metrics]
    label = f"{group.label}, {len(group.runs)} seeds"
    return Row(label, tuple(plus_minus(column) for column in columns), strong, total=True)


def _best(judged: Sequence[Group], name: str, primary: str | None) -> set[str]:
    """Labels of the groups with the best primary figure; none unless all are judged by it the same way."""
    runs = [run for group in judged for run in group.runs]
    modes = {run.results[name].get("mode") for run in runs}
    if len(judged) < 2 or modes not in ({"max"}, {"min"}) or any(run.primary(name) != primary for run in runs):
        return set()
    figures = {group.label: [run.results[name]["metrics"].get(primary) for run in group.runs] for group in judged}
    means = {label: fmean(values) for label, values in figures.items() if all(v is not None for v in values)}
    best = (max if modes == {"max"} else min)(means.values(), default=None)
    return {label for label, mean in means.items() if mean == best}
