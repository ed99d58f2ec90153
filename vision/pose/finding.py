"""Single-stage post-processing by NumPy: centres in a centre map, poses in heatmaps. Nothing here needs PyTorch.

The functions are those of :mod:`vision.pose.peaks`, which says what they compute, for one image.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

WINDOWS = ((300.0, 7), (200.0, 5))
"""Above which mean side of a map, in cells, a peak is the highest of a window of which side; else 3."""

STRIDE = 4
"""Image pixels from one cell of a map to the next."""


def smoothed(maps: Floats, kernel: int) -> Floats:
    """The mean of maps ``[..., h, w]`` and their average over windows of ``kernel`` cells (zeros beyond the edge)."""
    total, reach = maps, kernel // 2
    for axis in (-1, -2):
        frame = [(0, 0)] * total.ndim
        frame[axis] = (reach, reach)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(total, frame), kernel, axis=axis)
        total = windows.sum(-1, dtype=np.float32)
    mean: Floats = (maps + total / np.float32(kernel**2)) / np.float32(2)
    return mean


def window_of(height: int, width: int) -> int:
    """The side of the window whose highest cell is a peak, in cells."""
    return next((window for above, window in WINDOWS if (height + width) / 2 > above), 3)


def find_centres(
    centres: Floats, most: int = 30, threshold: float = 0.01, kernel: int = 3
) -> tuple[NDArray[np.int64], Floats]:
    """The highest peaks of one centre map ``[h, w]``: cells (row, column) ``[P, 2]`` and probabilities, surest first.

    Args:
        centres: probabilities.
        most: peaks, at most.
        threshold: peaks are above it, after smoothing.
        kernel: side of the smoothing window, cells.
    """
    height, width = centres.shape
    maps = smoothed(centres, kernel)
    side = window_of(height, width)
    highest = np.pad(maps, side // 2, constant_values=-np.inf)
    for axis in (0, 1):
        highest = np.lib.stride_tricks.sliding_window_view(highest, side, axis=axis).max(-1)
    peaks = (maps * (highest == maps)).ravel()
    order = np.argsort(-peaks, kind="stable")[:most]
    order = order[peaks[order] > threshold]
    return np.stack([order // width, order % width], axis=1), peaks[order]


def joint_positions(heatmaps: Floats, kernel: int = 3) -> tuple[Floats, Floats]:
    """The highest point of each heatmap ``[P, K, h, w]``, a quarter of a cell towards its higher neighbour.

    Args:
        heatmaps: probabilities.
        kernel: side of the smoothing window, cells; 1 smooths nothing.

    Returns:
        Positions (x, y) in cells ``[P, K, 2]``, and heights of the smoothed peaks ``[P, K]``.
    """
    maps = smoothed(heatmaps, kernel) if kernel > 1 else heatmaps
    height, width = maps.shape[-2:]
    flat = maps.reshape(*maps.shape[:2], height * width)
    index = flat.argmax(2)
    row, column = index // width, index % width
    shifts = []
    for step, at, last in ((1, column, width - 1), (width, row, height - 1)):
        inside = (at > 0) & (at < last)
        ahead, behind = (np.clip(index + s, 0, height * width - 1)[..., None] for s in (step, -step))
        slope = np.take_along_axis(flat, ahead, 2) - np.take_along_axis(flat, behind, 2)
        shifts.append(0.25 * np.sign(slope[..., 0]) * inside)
    places = np.stack([column + shifts[0], row + shifts[1]], axis=2)
    return places.astype(np.float32), flat.max(2)


def decode_poses(heatmaps: Floats, centre_scores: Floats, kernel: int = 3) -> tuple[Floats, Floats]:
    """Poses from the heatmaps ``[P, K, h, w]`` of people whose centres have these probabilities ``[P]``.

    Returns:
        Joints ``[P, K, 3]``: x and y in pixels of the network's input and score; and scores of poses ``[P]``.
    """
    positions, heights = joint_positions(heatmaps, kernel)
    scores = heights * centre_scores[:, None]
    joints = np.concatenate([positions * STRIDE + np.float32(STRIDE / 2), scores[..., None]], axis=2)
    return joints, scores.mean(axis=1)
