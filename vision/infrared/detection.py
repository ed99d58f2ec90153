"""Regions of a mask or a probability map: what was found, where, how large and how sure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=np.int8)


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
    """The 8-connected regions of a ``[H, W]`` mask."""
    labels, count = ndimage.label(mask, EIGHT_NEIGHBOURS)
    rows, columns = np.nonzero(labels)
    index = labels[rows, columns] - 1
    areas = np.bincount(index, minlength=count)
    sums = np.stack([np.bincount(index, weights=axis, minlength=count) for axis in (rows, columns)], axis=1)
    return Regions(labels, areas, sums / np.maximum(areas, 1)[:, None])


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
    scores = np.atleast_1d(ndimage.maximum(probability, regions.labels, np.arange(1, len(regions) + 1)))
    found = [
        Detection(float(row), float(column), int(area), float(score))
        for (row, column), area, score in zip(regions.centroids, regions.areas, scores, strict=True)
        if area >= min_area
    ]
    return sorted(found, key=lambda detection: -detection.score)
