"""Charts: the lines drawn are affine images of the values, and the drawing stands on its own in a page."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from vision.report.charts import POINTS, Series, line_chart, smoothed


def drawn_lines(svg: str) -> list[np.ndarray]:
    """Points of the paths drawn in the colour of a series, in pixels, shape [n, 2]."""
    paths = re.findall(r'<path d="([^"]+)"[^>]*style="fill: none; stroke: var\(--s\d\)', svg)
    return [np.array([[float(v) for v in pair] for pair in re.findall(r"[ML] (\S+) (\S+)", path)]) for path in paths]


def affinity(values: np.ndarray, pixels: np.ndarray) -> float:
    """Largest distance in pixels from the best affine map of values to pixels."""
    design = np.stack([values, np.ones_like(values)], axis=1)
    fitted = design @ np.linalg.lstsq(design, pixels, rcond=None)[0]
    return float(abs(fitted - pixels).max())


@pytest.mark.parametrize(("log_x", "log_y"), [(False, False), (True, False), (False, True), (True, True)])
def test_line_is_affine_in_its_values(log_x: bool, log_y: bool) -> None:
    x, y = np.array([1.0, 3.0, 10.0, 20.0, 90.0]), np.array([0.5, 0.7, 5.0, 2.0, 1.0])
    chart = line_chart("loss", [Series("a", x.tolist(), y.tolist())], log_x=log_x, log_y=log_y)
    (line,) = drawn_lines(chart.svg)
    assert affinity(np.log(x) if log_x else x, line[:, 0]) < 0.02
    assert affinity(np.log(y) if log_y else y, line[:, 1]) < 0.02
    assert line[0, 0] < line[-1, 0]
    assert line[0, 1] > line[2, 1]  # larger values are higher up


def test_a_missing_value_is_a_gap() -> None:
    chart = line_chart("loss", [Series("a", [1, 2, 3, 4, 5], [1.0, 2.0, None, 2.0, 1.0])])
    path = re.search(r'<path d="([^"]+)"[^>]*stroke: var\(--s1\)', chart.svg)
    assert path is not None
    assert path[1].count("M ") == 2


def test_a_long_line_is_drawn_as_means_of_stretches() -> None:
    values = np.random.default_rng(0).normal(size=3 * POINTS)
    chart = line_chart("loss", [Series("a", range(3 * POINTS), values.tolist())])
    (line,) = drawn_lines(chart.svg)
    assert len(line) == POINTS
    assert affinity(values.reshape(POINTS, 3).mean(axis=1), line[:, 1]) < 0.02


@pytest.mark.parametrize(("values", "logarithmic"), [([1.0, 10.0, 100.0], True), ([1.0, 2.0, 4.0], False)])
def test_wide_ranges_become_logarithmic(values: list[float], logarithmic: bool) -> None:
    (line,) = drawn_lines(line_chart("loss", [Series("a", [1, 2, 3], values)], log_y=None).svg)
    assert (affinity(np.arange(3.0), line[:, 1]) < 0.02) == logarithmic


def test_smoothed_is_the_formula() -> None:
    values = [1.0, None, 4.0, 2.0, None, 8.0]
    known = [v for v in values if v is not None]
    keep = 1 - 1 / 5
    expected = iter(
        sum(keep ** (i - j) * known[j] for j in range(i + 1)) / sum(keep ** (i - j) for j in range(i + 1))
        for i in range(len(known))
    )
    for value, mean in zip(values, smoothed(values, span=5), strict=True):
        assert (mean is None) if value is None else math.isclose(mean or 0.0, next(expected))
    assert smoothed(values, span=1) == values


def test_drawing_is_one_well_formed_element() -> None:
    hostile = 'loss <script>alert("1")</script> & more'
    series = [Series(hostile, [1, 2], [1.0, 2.0]), Series("b", [1, 2], [2.0, 1.0], tone=1, marked=(1, 2.0))]
    chart = line_chart(hostile, series, x_label=hostile, y_label=hostile)
    root = ElementTree.fromstring(chart.svg)
    assert root.tag == "svg"
    assert root.get("aria-label") == hostile
    assert "script" not in {element.tag for element in root.iter()}
    assert "http" not in chart.svg
    assert chart.legend == tuple(series)


def test_one_line_needs_no_legend() -> None:
    assert line_chart("loss", [Series("a", [1], [1.0]), Series("b", [1], [1.0], faint=True)]).legend == ()


def test_same_values_same_drawing_other_values_other_ids() -> None:
    def ids(svg: str) -> set[str]:
        return set(re.findall(r' id="([^"]+)"', svg))

    one, again = (line_chart("loss", [Series("a", [1, 2], [1.0, 2.0])]).svg for _ in range(2))
    other = line_chart("loss", [Series("a", [1, 2], [1.0, 3.0])]).svg
    assert one == again
    assert ids(one)
    assert not ids(one) & ids(other)


def test_tones_return_with_another_dash() -> None:
    places = [(Series("a", [], [], tone=tone).colour, Series("a", [], [], tone=tone).dash) for tone in range(24)]
    assert len(set(places)) == 24
    assert {colour for colour, _ in places} == set(range(1, 9))


@pytest.mark.parametrize("values", [[], [None, None], [0.0, 0.0], [1e-12, 1e12], [-1.0, 5.0]])
def test_odd_values_are_drawn(values: list[float | None]) -> None:
    drawn = ElementTree.fromstring(line_chart("loss", [Series("a", range(len(values)), values)], log_y=None).svg)
    assert drawn.tag.endswith("svg") and "nan" not in ElementTree.tostring(drawn, encoding="unicode").lower()


@pytest.mark.parametrize(("largest", "labels"), [(3e-3, {"1e-3", "2e-3", "3e-3"}), (0.4, {"0.2", "0.3", "0.4"})])
def test_numbers_of_an_axis_are_written_alike(largest: float, labels: set[str]) -> None:
    svg = line_chart("lr", [Series("a", [0, 1], [0.0, largest])]).svg
    written = set(re.findall(r">([^<>]+)</text>", svg))
    assert labels <= written
    assert not any(label.startswith("0.00") for label in written)
