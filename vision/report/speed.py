"""Pictures of measured speed: samples a second over the batch, and speed beside accuracy."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#2a6fbb", "#d1642c", "#3b8f5a", "#8a5fb0", "#b8952b", "#4aa3a3", "#a8485e", "#6b6b6b")
MARKS = "osD^vPX*"

Rows = Sequence[Mapping[str, Any]]


def draw(rows: Rows, title: str) -> bytes:
    """A PNG of what was measured.

    On the left samples a second over the batch, a line a thing; on the right, where the accuracy of two or more things
    is known by the same figure, that over their best speed.

    Args:
        rows: of a results file of kind ``speed``.
        title: above both.
    """
    known = comparable(rows)
    figure = Figure(figsize=(11.0 if known else 6.5, 4.5), dpi=110, layout="constrained")
    panels = figure.subplots(1, 2 if known else 1, squeeze=False)[0]
    styles = {name: (COLOURS[i % 8], MARKS[i % 8]) for i, name in enumerate(dict.fromkeys(r["what"] for r in rows))}
    _over_batch(panels[0], rows, styles)
    if known:
        _beside_accuracy(panels[1], known, styles)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", fontsize=8, frameon=False, ncols=2
    )
    figure.suptitle(title, fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def comparable(rows: Rows) -> list[dict[str, Any]]:
    """The fastest row of each thing whose accuracy is known by the figure that most of them have; none of only one."""
    judged = [row for row in rows if row.get("accuracy")]
    kinds = [(row["accuracy"]["figure"], row["accuracy"]["split"]) for row in judged]
    if not kinds:
        return []
    usual = max(dict.fromkeys(kinds), key=kinds.count)
    best: dict[str, dict[str, Any]] = {}
    for row, kind in zip(judged, kinds, strict=True):
        if kind == usual and row["samples_a_second"] > best.get(row["what"], {}).get("samples_a_second", 0):
            best[row["what"]] = dict(row)
    return list(best.values()) if len(best) > 1 else []


def _over_batch(axes: Axes, rows: Rows, styles: Mapping[str, tuple[str, str]]) -> None:
    for what, (colour, mark) in styles.items():
        own = sorted((row["batch"], row["samples_a_second"]) for row in rows if row["what"] == what)
        axes.plot(
            [b for b, _ in own], [s for _, s in own], color=colour, marker=mark, markersize=5, linewidth=1.6, label=what
        )
    batches = sorted({row["batch"] for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("samples in a batch")
    axes.set_ylabel("samples a second")
    _dress(axes)


def _beside_accuracy(axes: Axes, rows: Rows, styles: Mapping[str, tuple[str, str]]) -> None:
    for row in rows:
        colour, mark = styles[row["what"]]
        axes.plot(row["samples_a_second"], row["accuracy"]["value"], mark, color=colour, markersize=7)
    first = rows[0]["accuracy"]
    axes.set_xlabel("samples a second, at the best batch")
    axes.set_ylabel(f"{first['figure']}, {first['split']}")
    axes.margins(0.25)
    _dress(axes)


def _dress(axes: Axes) -> None:
    axes.grid(color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
