"""Charts of runs over time, and of the curves their results hold: of one run, or of several laid over each other."""

from collections.abc import Iterable, Sequence
from typing import Any

from vision.report.charts import TONES, Chart, Series, line_chart, smoothed
from vision.report.runs import Run, evaluation_names, group_by_seed

SMOOTH_FROM = 60
"""Losses of more recorded steps than this are smoothed, over a fortieth of them."""

Toned = tuple[Run, str, int]
"""A run, its name in the legend, its colour."""

TRAINING = (("lr", "learning rate"), ("grad_norm", "gradient norm"), ("samples_per_second", "samples per second"))


def training_charts(runs: Sequence[Run]) -> list[Chart]:
    """Loss (with its parts, for one run), learning rate, gradient norm, speed and what else was logged, over steps."""
    toned = [(run, label, tone) for run, label, tone in _toned(runs) if run.train_lines]
    if not toned:
        return []
    charts = [_loss(toned[0][0]) if len(runs) == 1 else _losses(toned)]
    for key, title in TRAINING:
        charts += _over_steps(title, toned, [[line.get(key) for line in run.train_lines] for run, _, _ in toned])
    logged = dict.fromkeys(name for run, _, _ in toned for line in run.train_lines for name in _parts(line))
    for family, names in _families(logged).items():
        if len(runs) == 1 and len(names) > 1:
            charts.append(_together(runs[0], family, names))
            continue
        for name in names:
            values = [[_parts(line).get(name) for line in run.train_lines] for run, _, _ in toned]
            charts += _over_steps(f"{name[1:]} (training)", toned, values)
    return charts


def _families(logged: Iterable[str]) -> dict[str, list[str]]:
    """Names that are noted and no part of the loss, by what stands before a slash: ``_leak/conv1``, ``_leak/conv2``."""
    found: dict[str, list[str]] = {}
    for name in logged:
        if name.startswith("_"):
            found.setdefault(name[1:].partition("/")[0], []).append(name)
    return found


def _together(run: Run, family: str, names: Sequence[str]) -> Chart:
    """A family of noted values of one run in one chart."""
    lines = run.train_lines
    series = [
        Series(name.partition("/")[2] or name[1:], _steps(lines), [_parts(line).get(name) for line in lines], tone)
        for tone, name in enumerate(names)
    ]
    return line_chart(f"{family} (training)", series, "step")


def _parts(line: dict[str, Any]) -> dict[str, float | None]:
    return line.get("losses") or {}


def _over_steps(title: str, toned: Sequence[Toned], values: Sequence[list[float | None]]) -> list[Chart]:
    """A chart of one value of each run's training lines; none where no run has any."""
    if not any(v is not None for run in values for v in run):
        return []
    series = [
        Series(label, _steps(run.train_lines), found, tone)
        for (run, label, tone), found in zip(toned, values, strict=True)
    ]
    return [line_chart(title, series, "step", log_y=None if title == "gradient norm" else False)]


def _loss(run: Run) -> Chart:
    lines = run.train_lines
    steps, total = _steps(lines), [line.get("loss") for line in lines]
    parts = [p for p in dict.fromkeys(name for line in lines for name in _parts(line)) if not p.startswith("_")]
    span = _span(len(lines))
    named = [("loss", total)]
    if len(parts) > 1:
        named += [(name, [_parts(line).get(name) for line in lines]) for name in parts]
    series = [Series("loss", steps, total, 0, faint=True)] if span > 1 else []
    series += [Series(name, steps, smoothed(values, span), tone) for tone, (name, values) in enumerate(named)]
    return line_chart("loss", series, "step", log_y=None, note=_note(span))


def _losses(toned: Sequence[Toned]) -> Chart:
    span = _span(max(len(run.train_lines) for run, _, _ in toned))
    series = [
        Series(label, _steps(run.train_lines), smoothed([line.get("loss") for line in run.train_lines], span), tone)
        for run, label, tone in toned
    ]
    return line_chart("loss", series, "step", log_y=None, note=_note(span))


def _span(count: int) -> float:
    return count / 40 if count > SMOOTH_FROM else 1.0


def _note(span: float) -> str:
    return f"Exponential mean over {span:.0f} recorded steps." if span > 1 else ""


def evaluation_charts(runs: Sequence[Run]) -> list[Chart]:
    """A chart for each figure measured during training, over steps; the point of the best weights is marked.

    A figure that no run measured more than once has none.
    """
    lines = [line for run in runs for line in run.evaluations]
    splits = list(dict.fromkeys(line["split"] for line in lines))
    metrics = list(dict.fromkeys(name for line in lines for name in line["metrics"]))
    first = {run.primary(name) for run in runs for name in run.results}
    charts = []
    for metric in sorted(metrics, key=lambda name: name not in first):
        series = []
        for run, label, tone in _toned(runs):
            for place, split in enumerate(splits):
                name = label if len(splits) == 1 else split if len(runs) == 1 else f"{label}, {split}"
                one = _figure(run, split, metric, name, place if len(runs) == 1 else tone + TONES * place)
                series += [one] if one else []
        if any(len(set(one.x)) > 1 for one in series):
            charts.append(line_chart(f"{metric} ({splits[0]})" if len(splits) == 1 else metric, series, "step"))
    return charts


def _figure(run: Run, split: str, metric: str, label: str, tone: int) -> Series | None:
    lines = [line for line in run.evaluations if line["split"] == split and metric in line["metrics"]]
    if not lines:
        return None
    best = run.best
    value = best["metrics"].get(metric) if best and best["split"] == split else None
    marked = (best["step"], value) if best and value is not None else None
    return Series(label, _steps(lines), [line["metrics"][metric] for line in lines], tone, marked=marked)


def table_charts(runs: Sequence[Run]) -> list[Chart]:
    """The curves that results hold; the same curve of several runs in one chart."""
    charts = []
    for evaluation in evaluation_names(runs):
        curves = [
            (label, tone, name, table)
            for run, label, tone in _toned(runs)
            for name, table in (run.results.get(evaluation, {}).get("tables") or {}).items()
            if table.get("type") == "curve"
        ]
        for name in dict.fromkeys(name for _, _, name, _ in curves):
            same = [(label, tone, table) for label, tone, of, table in curves if of == name]
            charts.append(_curve(evaluation, name, same))
    return charts


def _curve(evaluation: str, name: str, same: Sequence[tuple[str, int, dict[str, Any]]]) -> Chart:
    first = same[0][2]
    series = [Series(label, table["x"], table["y"], tone) for label, tone, table in same]
    title = f"{first.get('title') or name} ({evaluation})"
    return line_chart(title, series, first.get("x_label", ""), first.get("y_label", ""), bool(first.get("log_x")))


def _toned(runs: Sequence[Run]) -> list[Toned]:
    """Each run with its legend and colour; the seeds of one recipe share both where there are other recipes."""
    groups = group_by_seed(runs)
    if len(groups) in (1, len(runs)):
        return [(run, run.label, place) for place, run in enumerate(runs)]
    found = []
    for tone, group in enumerate(groups):
        name = f"{group.label} ({len(group.runs)} seeds)" if len(group.runs) > 1 else group.label
        found += [(run, name, tone) for run in group.runs]
    return found


def _steps(lines: Sequence[dict[str, Any]]) -> list[float]:
    return [float(line["step"]) for line in lines]


def shared_legend(charts: Sequence[Chart]) -> tuple[Series, ...]:
    """The legend of several charts that all have the same one, to be shown once; empty where they differ."""
    legends = [_names(chart.legend) for chart in charts]
    return charts[0].legend if len(charts) > 1 and legends[0] and legends.count(legends[0]) == len(legends) else ()


def _names(legend: Sequence[Series]) -> list[tuple[str, int]]:
    return list(dict.fromkeys((series.label, series.tone) for series in legend))
