"""Line charts as SVG that takes its colours from the page, so that one drawing reads on light and on dark."""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, LogLocator, MaxNLocator, NullFormatter

TONES = 8
"""Colours of lines on a page: the style sheet's ``--s1`` to ``--s8``."""

DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)))
POINTS = 300
"""A line of more points is drawn as the means of this many equal stretches."""

_INK, _GRID, _SERIES = "#b10001", "#b10002", "#a1000{}"
"""Stand-ins that matplotlib draws with; each becomes a variable of the page's style sheet."""


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        label: its name in the legend.
        x: positions, ascending.
        y: values; None where there is none.
        tone: which of the page's colours, from 0; after :data:`TONES` they return with another dash.
        faint: drawn thin and pale, behind the others, and left out of the legend.
        marked: the point to mark, such as the best evaluation.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    tone: int = 0
    faint: bool = False
    marked: tuple[float, float] | None = None

    @property
    def colour(self) -> int:
        """Number of the page's colour, from 1."""
        return self.tone % TONES + 1

    @property
    def dash(self) -> int:
        """Which dash, from 0 (solid)."""
        return self.tone // TONES % len(DASHES)


@dataclass(frozen=True)
class Chart:
    """A drawn chart.

    Attributes:
        title: what it shows.
        svg: the drawing, to stand in a page as it is.
        legend: the lines to name; empty where there is one line only.
        note: a remark below it.
    """

    title: str
    svg: str
    legend: tuple[Series, ...] = ()
    note: str = ""


def smoothed(values: Sequence[float | None], span: float) -> list[float | None]:
    r"""Exponential mean that starts without bias.

    .. math:: m_i = \sum_{j \le i} a^{i-j} v_j \Big/ \sum_{j \le i} a^{i-j}, \qquad a = 1 - 1/s

    Args:
        values: missing ones stay missing and are passed over.
        span: :math:`s \ge 1`, how many values weigh in.

    Example:
        >>> smoothed([1.0, None, 3.0], span=2)
        [1.0, None, 2.3333333333333335]
    """
    keep, total, weight = 1.0 - 1.0 / span, 0.0, 0.0
    means: list[float | None] = []
    for value in values:
        if value is None:
            means.append(None)
            continue
        total, weight = keep * total + value, keep * weight + 1.0
        means.append(total / weight)
    return means


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str = "",
    y_label: str = "",
    log_x: bool = False,
    log_y: bool | None = False,
    note: str = "",
) -> Chart:
    """Draws lines over a common axis.

    Args:
        title: what it shows; also its text for those who cannot see it.
        series: at least one.
        x_label: below the axis.
        y_label: above the axis.
        log_x: a logarithmic axis; only positive positions are then drawn.
        log_y: the same for values; None takes it where values are positive and spread over a factor of 50.
        note: a remark below the chart.
    """
    figure = Figure(figsize=(5.2, 3.0), dpi=72)
    figure.patch.set_alpha(0.0)
    axes = figure.add_axes((0.115, 0.175, 0.865, 0.735 if y_label else 0.795))
    values = [v for s in series for v in s.y if v is not None]
    if log_y is None:
        log_y = bool(values) and min(values) > 0 and max(values) > 50 * min(values)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"{title} {series}", "path.simplify": False}):
        for one in series:
            _draw(axes, one)
        _dress(axes, x_label, y_label, log_x, log_y)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    named = tuple(s for s in series if not s.faint)
    return Chart(title, _as_part_of_page(buffer.getvalue(), title), named if len(named) > 1 else (), note)


def _draw(axes: Axes, series: Series) -> None:
    x, y = _thinned(series)
    axes.plot(
        x,
        y,
        color=_SERIES.format(series.colour),
        linewidth=0.8 if series.faint else 1.8,
        alpha=0.35 if series.faint else 1.0,
        linestyle=DASHES[series.dash],
        marker="o" if len(x) <= 12 and not series.faint else None,
        markersize=3.5,
        zorder=2 if series.faint else 3,
    )
    if series.marked is not None:
        axes.plot(*([v] for v in series.marked), "o", color=_SERIES.format(series.colour), markersize=7, zorder=4)


def _thinned(series: Series) -> tuple[list[float], list[float]]:
    """At most :data:`POINTS` points, each the mean of a stretch; a stretch without values is a gap."""
    x = np.asarray(series.x, float)
    y = np.array([math.nan if v is None else v for v in series.y], float)
    if len(x) <= POINTS:
        return x.tolist(), y.tolist()
    edges = np.linspace(0, len(x), POINTS + 1).round().astype(int)
    stretches = [slice(a, b) for a, b in pairwise(edges)]
    return [float(x[s].mean()) for s in stretches], [
        float(np.nanmean(y[s])) if np.isfinite(y[s]).any() else math.nan for s in stretches
    ]


def _dress(axes: Axes, x_label: str, y_label: str, log_x: bool, log_y: bool) -> None:
    axes.set_xscale("log" if log_x else "linear")
    axes.set_yscale("log" if log_y else "linear")
    axes.patch.set_alpha(0.0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, labelsize=11, labelcolor=_INK, pad=5)
    axes.margins(x=0.02)
    for axis, logarithmic in ((axes.xaxis, log_x), (axes.yaxis, log_y)):
        whole = axis is axes.xaxis and x_label == "step"
        rounded = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=whole)
        axis.set_major_locator(LogLocator(subs=_subdivisions(*axis.get_view_interval())) if logarithmic else rounded)
        axis.set_major_formatter(_Ticks())
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(x_label, fontsize=11, color=_INK)
    if y_label:
        axes.set_title(y_label, fontsize=11, color=_INK, loc="left")


def _subdivisions(low: float, high: float) -> tuple[float, ...]:
    """Which multiples of powers of ten a logarithmic axis names: few on a long one."""
    decades = math.log10(high / low) if 0 < low < high else 1.0
    return (1.0, 2.0, 5.0) if decades < 1.5 else (1.0, 3.0) if decades < 3 else (1.0,)


class _Ticks(Formatter):
    """Writes the numbers of an axis alike: all with powers of ten where all are small."""

    def __call__(self, value: float, pos: int | None = None) -> str:
        return tick(value)

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        small = max((abs(value) for value in values), default=1.0) < 1e-2
        return [tick(value, scientific_below=1e-2 if small else 1e-3) for value in values]


def tick(value: float, scientific_below: float = 1e-3) -> str:
    """A short number for an axis.

    Args:
        value: the number.
        scientific_below: smaller ones are written with a power of ten.

    Example:
        >>> [tick(v) for v in (0, 0.25, 1500, 20000, 0.00025, -4.0)]
        ['0', '0.25', '1500', '20k', '2.5e-4', '−4']
    """
    size = abs(value)
    if size >= 1e4:
        text = f"{value / 1e6:g}M" if size >= 1e6 else f"{value / 1e3:g}k"
    elif 0 < size < scientific_below:
        mantissa, exponent = f"{value:e}".split("e")
        text = f"{float(mantissa):g}e{int(exponent)}"
    else:
        text = f"{value:.6g}"
    return text if not text.startswith("-") else "−" + text[1:]


def _shorter(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _as_part_of_page(svg: str, title: str) -> str:
    """The drawing in matplotlib's file, in the page's colours and font, without what only a file of its own needs."""
    box = re.search(r'viewBox="([^"]+)"', svg)
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'\sid="[^"]*_\d+"', "", body)
    body = re.sub(r" font-family: [^;\"]*;", "", body)
    body = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", body)
    body = re.sub(r'\stransform="rotate\(-?0 [^"]*"', "", body)
    body = re.sub(r"<[^>]*>", lambda tag: re.sub(r"-?\d+\.\d{3,}", _shorter, tag[0]), body)
    body = body.replace("xlink:href", "href").replace(_INK, "var(--ink-2)").replace(_GRID, "var(--line)")
    body = re.sub(_SERIES.format(r"(\d)"), r"var(--s\1)", body)
    body = re.sub(r"\s*\n\s*", " ", body)
    body = re.sub(r"<g>\s*<path [^>]*opacity: 0\"/>\s*</g>|<g/>|<defs>\s*</defs>", "", body)
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return f'<svg viewBox="{box[1] if box else "0 0 360 216"}" role="img" aria-label="{label}">{body.strip()}'
