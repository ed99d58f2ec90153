"""From maps to numbers: centres of people in a centre map, joints in heatmaps, and poses without repetitions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vision.pose.finding import STRIDE, window_of


def smoothed(maps: Tensor, kernel: int) -> Tensor:
    """The mean of maps ``[N, C, h, w]`` and their average over windows of ``kernel`` cells (zeros beyond the edge)."""
    return (maps + F.avg_pool2d(maps, kernel, 1, (kernel - 1) // 2)) / 2


def find_centres(centres: Tensor, most: int = 30, threshold: float = 0.01, kernel: int = 3) -> tuple[Tensor, ...]:
    """The highest peaks of each centre map.

    A peak is a cell that equals the highest of the window around it, in the smoothed map; the window has 3, 5 or 7
    cells, more on larger maps. Each image has its own, so that images of a batch do not influence each other.

    Args:
        centres: probabilities, shape ``[N, h, w]``.
        most: peaks an image, at most.
        threshold: peaks are above it, after smoothing.
        kernel: side of the smoothing window, cells.

    Returns:
        Cells (row, column) ``[P, 2]``, their images ``[P]`` and probabilities ``[P]``, image by image, surest first.

    Source: the released code, which takes one image at a time.
    """
    height, width = centres.shape[-2:]
    maps = smoothed(centres[:, None], kernel)
    side = window_of(height, width)
    peaks = maps * (F.max_pool2d(maps, side, 1, side // 2) == maps)
    scores, positions = peaks.flatten(1).topk(min(most, height * width), dim=1)
    image, rank = (scores > threshold).nonzero(as_tuple=True)
    position = positions[image, rank]
    coords = torch.stack((position // width, position % width), dim=1)
    return coords, image, scores[image, rank]


def joint_positions(heatmaps: Tensor, kernel: int = 3) -> tuple[Tensor, Tensor]:
    """The highest point of each heatmap, a quarter of a cell towards its higher neighbour.

    Args:
        heatmaps: shape ``[P, K, h, w]``.
        kernel: side of the smoothing window, cells; 1 smooths nothing.

    Returns:
        Positions (x, y) in cells ``[P, K, 2]``, and heights of the smoothed peaks ``[P, K]``. At the border of the map
        there is no shift along that axis, nor between equal neighbours.

    Source: the released code.
    """
    maps = smoothed(heatmaps, kernel) if kernel > 1 else heatmaps
    height, width = maps.shape[-2:]
    flat = maps.flatten(2)
    heights, index = flat.max(dim=2)
    row, column = index // width, index % width
    shifts = []
    for step, at, last in ((1, column, width - 1), (width, row, height - 1)):
        inside = (at > 0) & (at < last)
        ahead, behind = ((index + s).clamp(0, height * width - 1) for s in (step, -step))
        slope = flat.gather(2, ahead[..., None]) - flat.gather(2, behind[..., None])
        shifts.append(0.25 * slope.squeeze(2).sign() * inside)
    return torch.stack((column + shifts[0], row + shifts[1]), dim=2), heights


def decode_poses(heatmaps: Tensor, centre_scores: Tensor, kernel: int = 3) -> tuple[Tensor, Tensor]:
    """Poses from the heatmaps of people.

    Args:
        heatmaps: probabilities, shape ``[P, K, h, w]``.
        centre_scores: probability of each person's centre, shape ``[P]``.
        kernel: side of the smoothing window, cells.

    Returns:
        Joints ``[P, K, 3]``: x and y in pixels of the network's input (cell times 4, plus 2) and score, the peak times
        the centre's probability; and scores of poses ``[P]``, the mean over joints.

    Source: the released code.
    """
    positions, heights = joint_positions(heatmaps, kernel)
    scores = heights * centre_scores[:, None]
    return torch.cat((positions * STRIDE + STRIDE / 2, scores[..., None]), dim=2), scores.mean(dim=1)
