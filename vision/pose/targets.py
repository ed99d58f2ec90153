r"""What single-stage networks learn: heatmaps of everyone's joints and centres, and of each person's own.

A joint is a Gaussian of height 1 at its cell, with a radius that follows from its person's box. Letters: ``A``
annotated people of an image, ``K`` joints, ``h w`` cells of a map, which lie 4 pixels of the image apart.

Source: the released code of CID and DHRNet; the radius is CornerNet's, in the form of its first release.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

SMALLEST_AREA = 32.0**2
"""Pixels squared of the box, in the network's input, below which a person has no centre."""

Floats = NDArray[np.floating[Any]]


def gaussian_radius(height: float, width: float, overlap: float = 0.7) -> float:
    r"""How far a corner may move so that the box still overlaps the true one by ``overlap``, about.

    .. math:: r = \min_i \frac{b_i + \sqrt{b_i^2 - 4 a_i c_i}}{2}

    with :math:`(a, b, c) = (1, h + w, hw \frac{1 - o}{1 + o}), (4, 2 (h + w), (1 - o) hw), (4 o, -2 o (h + w),
    (o - 1) hw)`.

    Args:
        height: :math:`h`, cells.
        width: :math:`w`, cells.
        overlap: :math:`o`.

    Source: Law and Deng, CornerNet, ECCV 2018. Deviation: none from the code in use; it does not divide by
    :math:`a_i`, as a root would.

    Example:
        >>> round(gaussian_radius(30, 20), 7)
        6.5812458
    """
    total, area, o = height + width, height * width, overlap
    parts = (
        (1.0, total, area * (1 - o) / (1 + o)),
        (4.0, 2 * total, (1 - o) * area),
        (4 * o, -2 * o * total, (o - 1) * area),
    )
    return min((b + math.sqrt(b * b - 4 * a * c)) / 2 for a, b, c in parts)


def box_radius(corners: Floats, size: int) -> int:
    """The radius of a person's Gaussians, cells.

    Args:
        corners: of the box, possibly turned: top left, top right, bottom left, bottom right; ``[4, 2]``, cells.
        size: cells along a side of the map, to which the corners are confined.
    """
    inside = np.clip(corners, 0, size - 1)
    height, width = (math.dist(inside[0], inside[i]) for i in (2, 1))
    return max(0, int(gaussian_radius(math.ceil(height), math.ceil(width))))


@torch.no_grad()
def gaussians(points: Tensor, radius: Tensor, drawn: Tensor, size: tuple[int, int]) -> Tensor:
    r"""One map a point: a Gaussian of height 1 at the point's cell, cut off beyond the radius.

    .. math:: \exp(-((x - x_0)^2 + (y - y_0)^2) / (2 \sigma^2)), \quad \sigma = (2 r + 1) / 6

    Args:
        points: x and y in cells, ``[..., 2]``; what follows the point is dropped. Points beyond the map have none.
        radius: :math:`r` in whole cells, of the leading shape (it broadcasts).
        drawn: whether a point is drawn, bool, of the leading shape.
        size: rows and columns.

    Returns:
        float32, shape ``[..., h, w]``.
    """
    cells = points.trunc()
    sigma = (2 * radius + 1) / 6

    def along(centre: Tensor, count: int) -> Tensor:
        offset = torch.arange(count, device=points.device) - centre[..., None]
        near = offset.abs() <= radius[..., None]
        return torch.exp(-(offset**2) / (2 * sigma[..., None] ** 2)) * near

    height, width = size
    inside = ((cells >= 0) & (cells < cells.new_tensor([width, height]))).all(-1) & drawn
    rows, columns = along(cells[..., 1], height) * inside[..., None], along(cells[..., 0], width)
    return (rows[..., :, None] * columns[..., None, :]).float()


def centres_of(joints: Floats, labelled: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean of each person's labelled joints, also of those beyond the image: ``[A, K, 2] -> [A, 2]``."""
    counts = np.maximum(labelled.sum(1), 1)
    mean: NDArray[np.float64] = (joints * labelled[..., None]).sum(1) / counts[:, None]
    return mean


def chosen_people(
    centres: Floats, centred: NDArray[np.bool_], areas: Floats, size: int, rng: Generator
) -> tuple[list[int], list[tuple[int, int]]]:
    """Who is trained on as a person of its own, and from which cell.

    In order of area; a centre is moved by -1, 0 or 1 cell each way (not at all where that leaves the map), and someone
    whose cell is taken is left out.

    Args:
        centres: x and y in cells, ``[A, 2]``.
        centred: who has a centre, ``[A]``.
        areas: of the boxes, ``[A]``.
        size: cells along a side of the map.
        rng: draws.

    Returns:
        Positions in ``A``, and the cells as (row, column).
    """
    people: list[int] = []
    cells: dict[tuple[int, int], None] = {}
    for person in np.argsort(areas, kind="stable"):
        x, y = (int(value) for value in centres[person])
        if not centred[person] or not (0 <= x < size and 0 <= y < size):
            continue
        moved = [int(value) for value in np.array([x, y]) + rng.integers(-1, 2, size=2)]
        column, row = moved if all(0 <= value < size for value in moved) else (x, y)
        if (row, column) not in cells:
            people.append(int(person))
            cells[row, column] = None
    return people, list(cells)


@dataclass(frozen=True)
class Annotated:
    """The annotated people of a batch of ``N`` images, in cells, image by image.

    Attributes:
        joints: x and y, ``[A, K, 2]``.
        labelled: which joints are labelled, bool, ``[A, K]``.
        radius: of each person's Gaussians, ``[A]``.
        centres: x and y, ``[A, 2]``.
        centred: who has a centre, bool, ``[A]``.
        image: the image of each, int64, ``[A]``.
        count: N.
        chosen: people that are trained on as persons of their own, int64, ``[P]``.
        coords: their cells, row and column, int64, ``[P, 2]``.
    """

    joints: Tensor
    labelled: Tensor
    radius: Tensor
    centres: Tensor
    centred: Tensor
    image: Tensor
    count: int
    chosen: Tensor
    coords: Tensor

    def limited(self, most: int) -> "Annotated":
        """With at most ``most`` persons of their own, drawn by torch's generator; their order is kept."""
        if len(self.chosen) <= most:
            return self
        kept = torch.randperm(len(self.chosen))[:most].sort().values.to(self.chosen.device)
        return Annotated(
            self.joints, self.labelled, self.radius, self.centres, self.centred, self.image, self.count,
            self.chosen[kept], self.coords[kept],
        )  # fmt: skip


@dataclass(frozen=True)
class Targets:
    """What a batch of ``N`` images and ``P`` people in them is held against.

    Attributes:
        everyone: joints and, last, centres of all people of an image, ``[N, K + 1, h, w]``.
        people: joints of each person, ``[P, K, h, w]``.
        weight: 0 where a joint is not labelled, so that its map does not count; else 1; ``[P, K, 1, 1]``.
        image: the image of each person, ``[P]``.
        coords: the cell each person is seen from, row and column, ``[P, 2]``.
    """

    everyone: Tensor
    people: Tensor
    weight: Tensor
    image: Tensor
    coords: Tensor


@torch.no_grad()
def encode(found: Annotated, size: tuple[int, int]) -> Targets:
    """Heatmaps of a batch, on its device; people of an image share a map by the maximum.

    Args:
        found: the annotated people.
        size: rows and columns of the maps.
    """
    points = torch.cat((found.joints, found.centres[:, None]), dim=1)
    drawn = torch.cat((found.labelled, found.centred[:, None]), dim=1)
    maps = gaussians(points, found.radius[:, None].expand(drawn.shape), drawn, size)
    everyone = maps.new_zeros(found.count, maps.shape[1], *size)
    everyone.scatter_reduce_(0, found.image.view(-1, 1, 1, 1).expand_as(maps), maps, "amax")
    return Targets(
        everyone=everyone,
        people=maps[found.chosen, :-1],
        weight=found.labelled[found.chosen][..., None, None].to(maps.dtype),
        image=found.image[found.chosen],
        coords=found.coords,
    )
