"""Regions of a mask or a probability map: what was found, where, how large and how sure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Detection:
    """One detected target.

    Attributes:
        row: centroid row, pixels from the top (sub-pixel).
        col: centroid column, pixels from the left (sub-pixel).
        area: pixels above the threshold.
        score: highest probability in the region.
    """

    row: float
    col: float
    area: int
    score: float


@dataclass(frozen=True)
class Regions:
    """The 8-connected regions of a mask, in label order (by first pixel, row by row).

    Attributes:
        labels: int32 ``[H, W]``; 0 is background, region ``k`` carries ``k + 1``.
        areas: int64 ``[R]``, pixels.
        centroids: float64 ``[R, 2]``, row and column in pixels.
    """

    labels: NDArray[np.int32]
    areas: NDArray[np.int64]
    centroids: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.areas)


def label_regions(mask: NDArray[np.generic]) -> Regions:
    """The 8-connected regions of a ``[H, W]`` mask.

    The runs of a row that touch runs of the row above are joined until nothing changes, all rows at once.
    """
    inside = np.asarray(mask) != 0
    rows, starts, ends = _runs(inside)
    root = _components(len(rows), *_touching(rows, starts, ends, inside.shape[1]))
    _, own = np.unique(root, return_inverse=True)  # roots are first runs, so that this is the order of first pixels
    count = int(own.max()) + 1 if len(own) else 0
    lengths = ends - starts
    labels = np.zeros(inside.shape, dtype=np.int32)
    labels[inside] = np.repeat(own + 1, lengths)
    areas = np.bincount(own, weights=lengths, minlength=count).astype(np.int64)
    sums = [
        np.bincount(own, weights=values, minlength=count)
        for values in (rows * lengths, (starts + ends - 1) * lengths / 2)
    ]
    return Regions(labels, areas, np.stack(sums, axis=1) / np.maximum(areas, 1)[:, None])


Integers = NDArray[np.int64]


def _runs(inside: NDArray[np.bool_]) -> tuple[Integers, Integers, Integers]:
    """Row, first column and column after the last of every run of a row, row by row."""
    height, width = inside.shape
    edges = np.zeros((height, width + 2), dtype=np.int8)
    edges[:, 1:-1] = inside
    steps = np.diff(edges, axis=1)
    rows, starts = np.nonzero(steps == 1)
    return rows, starts, np.nonzero(steps == -1)[1]


def _touching(rows: Integers, starts: Integers, ends: Integers, width: int) -> tuple[Integers, Integers]:
    """The pairs of runs of neighbouring rows that touch, also at corners."""
    wide = width + 3  # so that a run of one row never reaches into the next
    first_of, last_of = rows * wide + starts, rows * wide + ends
    # of the row above: runs that end at or after this one's start, and start at or before its end
    low = np.searchsorted(last_of, (rows - 1) * wide + starts, side="left")
    high = np.searchsorted(first_of, (rows - 1) * wide + ends, side="right")
    count = np.maximum(high - low, 0)
    below = np.repeat(np.arange(len(rows)), count)
    offset = np.arange(len(below)) - np.repeat(np.cumsum(count) - count, count)
    return below, np.repeat(low, count) + offset


def _components(count: int, first: Integers, second: Integers) -> Integers:
    """The lowest node that each of ``count`` nodes is joined to by edges between ``first`` and ``second``."""
    root = np.arange(count)
    while True:
        a, b = root[first], root[second]
        apart = a != b
        if not apart.any():
            return root
        first, second, a, b = first[apart], second[apart], a[apart], b[apart]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(further := root[root], root):
            root = further


def detect(probability: NDArray[np.floating], threshold: float = 0.5, min_area: int = 1) -> list[Detection]:
    """Targets in a probability map: the 8-connected regions above a threshold, surest first.

    Args:
        probability: float, shape ``[H, W]``, in [0, 1].
        threshold: a pixel belongs to a target when its probability is above it.
        min_area: smaller regions are left out, pixels.

    Returns:
        Detections by falling score.

    Example:
        >>> detect(np.array([[0.0, 0.9, 0.0], [0.0, 0.7, 0.0]]))
        [Detection(row=0.5, col=1.0, area=2, score=0.9)]
    """
    regions = label_regions(probability > threshold)
    inside = regions.labels > 0
    scores = np.full(len(regions), -np.inf, dtype=probability.dtype)
    np.maximum.at(scores, regions.labels[inside] - 1, probability[inside])
    found = [
        Detection(float(row), float(column), int(area), float(score))
        for (row, column), area, score in zip(regions.centroids, regions.areas, scores, strict=True)
        if area >= min_area
    ]
    return sorted(found, key=lambda detection: -detection.score)
