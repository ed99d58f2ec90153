"""What the codecs decode, by NumPy: joints and scores from heatmaps and from rows of bins. Nothing here needs PyTorch.

Each function is the ``decode`` (or ``flipped``) of a codec of :mod:`vision.pose.codecs` and :mod:`vision.pose.simcc`,
which say what it computes and where that is from.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]
Sides = Sequence[int]
"""Width and height."""

Found = tuple[Floats, Floats]
"""Joints in pixels of the crop, ``[N, K, 2]``, and scores ``[N, K]``."""


def mirrored_maps(maps: Floats, flip_index: Sequence[int]) -> Floats:
    """Heatmaps ``[N, K, h, w]`` of mirrored crops as those of the crops themselves."""
    return maps[..., ::-1][:, list(flip_index)]


def mirrored_rows(rows: tuple[Floats, Floats], flip_index: Sequence[int]) -> tuple[Floats, Floats]:
    """SimCC's logits of mirrored crops as those of the crops themselves."""
    order = list(flip_index)
    return rows[0][..., ::-1][:, order], rows[1][:, order]


def decode_heatmap(maps: Floats, input_size: Sides) -> Found:
    """As :class:`vision.pose.codecs.QuarterHeatmap` decodes maps ``[N, K, h, w]`` of crops of ``input_size``."""
    peak, score = _peaks(maps)
    around = _neighbours(maps, peak)
    difference = np.stack([around[..., 1, 2] - around[..., 1, 0], around[..., 2, 1] - around[..., 0, 1]], -1)
    inside = (peak > 0) & (peak < _last(maps))
    return _placed(peak + 0.25 * np.sign(difference) * inside, maps, input_size), score


def decode_udp(maps: Floats, input_size: Sides, sigma: float, blur: int) -> Found:
    """As :class:`vision.pose.codecs.UDPHeatmap` of ``sigma`` and ``blur`` decodes maps ``[N, K, h, w]``."""
    peak, score = _peaks(maps)
    last, margin = _last(maps), 2 * sigma
    near = ((peak < margin) | (peak > last - margin)).max(-1)
    centre = np.minimum(np.maximum(peak, 1), last - 1)
    around = np.where(
        near[..., None, None], _neighbours(maps, centre), _neighbours(_blurred(maps, score, blur), centre)
    )
    step = _newton_step(np.log(np.clip(around, np.float32(1e-3), np.float32(50))))
    moved = (centre - peak + step).astype(np.float32)
    taken = (np.abs(step) <= max(blur // 2, 2)).min(-1) & (step != 0).max(-1)
    return _placed(peak + np.where(taken[..., None], moved, 0), maps, input_size), score


def decode_simcc(
    rows: tuple[Floats, Floats], input_size: Sides, bins: Sides, sigma: Sequence[float], beta: float
) -> Found:
    """As :class:`vision.pose.simcc.SimCC` decodes logits ``[N, K, X]`` and ``[N, K, Y]``."""
    pixels, scores = [], []
    for axis, logits in enumerate(rows):
        last = bins[axis] - 1
        pixels.append(_vertex(logits) * np.float32((input_size[axis] - 1) / last))
        grid = np.arange(bins[axis], dtype=np.float32)
        perfect = np.exp(-((grid - np.float32(last // 2)) ** 2) / np.float32(2 * sigma[axis] ** 2))
        scores.append(_highest_share(beta * logits) / _highest_share(beta * perfect))
    return np.stack(pixels, -1).astype(np.float32), np.minimum(np.minimum(*scores), 1).astype(np.float32)


def _peaks(maps: Floats) -> tuple[Integers, Floats]:
    flat = maps.reshape(*maps.shape[:2], -1)
    index = flat.argmax(-1)
    return np.stack([index % maps.shape[-1], index // maps.shape[-1]], -1), flat.max(-1)


def _last(maps: Floats) -> Integers:
    """The last column and row."""
    return np.array(maps.shape[:1:-1]) - 1


def _placed(places: NDArray[Any], maps: Floats, input_size: Sides) -> Floats:
    """Places on the maps as pixels of the crop."""
    steps = (np.array(input_size) - 1) / _last(maps)
    return places.astype(np.float32) * steps.astype(np.float32)


def _neighbours(maps: Floats, centre: Integers) -> Floats:
    """The 3 x 3 pixels around places ``[N, K, 2]``, as ``[N, K, 3, 3]``; borders repeat."""
    around = np.arange(-1, 2)
    columns, rows = (np.clip(centre[..., axis, None] + around, 0, maps.shape[-1 - axis] - 1) for axis in (0, 1))
    sample, joint = np.ogrid[: maps.shape[0], : maps.shape[1]]
    return maps[sample[..., None, None], joint[..., None, None], rows[..., :, None], columns[..., None, :]]


def _blurred(maps: Floats, score: Floats, blur: int) -> Floats:
    """The maps after a Gaussian (zeros beyond them), each brought back to its old peak."""
    if blur == 1:
        return maps
    reach = blur // 2
    places = np.arange(-reach, reach + 1, dtype=np.float32)
    kernel = np.exp(-(places**2) / np.float32(2 * (0.3 * (reach - 1) + 0.8) ** 2))
    kernel = kernel / kernel.sum()
    smooth = maps
    for axis in (-1, -2):
        size = smooth.shape[axis]
        frame = [(0, 0)] * 4
        frame[axis] = (reach, reach)
        padded = np.pad(smooth, frame)
        smooth = np.zeros_like(maps)
        for start, weight in enumerate(kernel):
            window = [slice(None)] * 4
            window[axis] = slice(start, start + size)
            smooth += weight * padded[tuple(window)]
    top = smooth.max((-2, -1))
    return smooth * (score / np.where(top > 0, top, 1))[..., None, None]


def _newton_step(around: Floats) -> Floats:
    """From the middle of 3 x 3 values ``[..., 3, 3]`` to the top of their parabola, x and y; 0 where it has none."""
    eps = np.finfo(around.dtype).eps
    middle, left, right = around[..., 1, 1], around[..., 1, 0], around[..., 1, 2]
    up, down = around[..., 0, 1], around[..., 2, 1]
    dx, dy = (right - left) / 2, (down - up) / 2
    dxx, dyy = right - 2 * middle + left + eps, down - 2 * middle + up + eps
    dxy = (around[..., 2, 2] - right - down + 2 * middle - left - up + around[..., 0, 0]) / 2
    determinant = dxx * dyy - dxy**2
    peaked = (determinant > 0) & (dxx < 0)
    safe = np.where(peaked, determinant, 1)
    step = np.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], -1) / safe[..., None]
    return np.where(peaked[..., None], step, 0)


def _highest_share(logits: Floats) -> NDArray[np.floating]:
    r"""The highest probability of a softmax along the last axis: :math:`1 / \sum_i \exp(z_i - \max z)`."""
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    highest: NDArray[np.floating] = 1 / shares.sum(-1)
    return highest


def _vertex(rows: Floats) -> Floats:
    """Where the parabola through the highest of ``rows`` ``[..., bins]`` and its neighbours has its top."""
    last = rows.shape[-1] - 1
    middle = np.clip(rows.argmax(-1)[..., None], 1, last - 1)
    left, centre, right = (np.take_along_axis(rows, middle + step, -1)[..., 0] for step in (-1, 0, 1))
    curvature = left - 2 * centre + right
    peaked = curvature < 0
    offset = np.where(peaked, (left - right) / (2 * np.where(peaked, curvature, -1)), 0)
    return np.clip(middle[..., 0] + np.clip(offset, -1, 1), 0, last).astype(np.float32)
