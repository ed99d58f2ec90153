r"""From an image to the crop of one person and back, by the unbiased mapping (UDP).

A crop is described by a centre :math:`c` and side lengths :math:`s` in pixels of the image, and a rotation. Distances
are measured between pixel centres, so a crop of ``W`` pixels spans ``W - 1`` units:

.. math:: x' = \frac{W - 1}{s_x} \Bigl( \cos r \, (x - c_x) - \sin r \, (y - c_y) + \frac{s_x}{2} \Bigr)

and likewise down, with :math:`\sin r \, (x - c_x) + \cos r \, (y - c_y)` and :math:`H - 1, s_y`. Coordinates have their
origin at the centre of the first pixel, x to the right, y down. The same mapping serves every codec (our choice).

Source: Huang et al., "The Devil is in the Details: Delving into Unbiased Data Processing for Human Pose Estimation",
CVPR 2020; padding 1.25 and the aspect as in Xiao et al., "Simple Baselines", ECCV 2018.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from vision.pose.images import RGB

if TYPE_CHECKING:
    from torch import Tensor

Size = tuple[int, int]
"""Width and height of a crop, pixels."""

Vector = NDArray[np.float64]
"""Shape ``[2]``: x and y."""

Matrix = NDArray[np.float64]
"""Shape ``[2, 3]``: an affine map."""

Points = TypeVar("Points", "Tensor", NDArray[np.float32], NDArray[np.float64])

PADDING = 1.25


def centre_and_sides(box: Sequence[float], padding: float = PADDING) -> tuple[Vector, Vector]:
    """The centre of a box and its side lengths times ``padding``.

    Args:
        box: left, top, width and height.
        padding: what the sides are multiplied by.
    """
    left, top, width, height = box
    return np.array([left + width / 2, top + height / 2]), np.array([width, height]) * padding


def with_aspect(sides: Vector, size: Size) -> Vector:
    """Side lengths of the smallest region that covers ``sides`` and has the aspect of ``size``.

    Example:
        >>> with_aspect(np.array([30.0, 100.0]), (192, 256)).tolist()
        [75.0, 100.0]
    """
    aspect = size[0] / size[1]
    width = max(float(sides[0]), float(sides[1]) * aspect)
    return np.array([width, width / aspect])


def region(box: Sequence[float], size: Size, padding: float = PADDING) -> tuple[Vector, Vector]:
    """Centre and sides of the region of a box that a crop of ``size`` shows."""
    centre, sides = centre_and_sides(box, padding)
    return centre, with_aspect(sides, size)


def crop_matrix(centre: Vector, sides: Vector, size: Size, rotation: float = 0.0) -> Matrix:
    """The map from pixels of the image to pixels of the crop.

    Args:
        centre: of the region, pixels of the image.
        sides: of the region, pixels of the image.
        size: of the crop.
        rotation: degrees; the content of a crop turns clockwise as seen with y down.

    Returns:
        Shape ``[2, 3]``.
    """
    factors = (np.array(size, dtype=np.float64) - 1) / sides
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    turn = np.array([[cos, -sin], [sin, cos]])
    offset = sides / 2 - turn @ centre
    return factors[:, None] * np.column_stack([turn, offset])


def inverse(matrix: Matrix) -> Matrix:
    """The affine map that undoes ``matrix``."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def mapped(matrix: Matrix, points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points ``[..., 2]`` taken through an affine map."""
    return np.asarray(points, dtype=np.float64) @ matrix[:, :2].T + matrix[:, 2]


def part_and_grid(image: RGB, matrix: Matrix, size: Size) -> tuple[RGB, NDArray[np.float32]]:
    """What a crop is sampled from.

    Args:
        image: uint8, shape ``[h, w, 3]``.
        matrix: from pixels of the image to pixels of the crop.
        size: of the crop.

    Returns:
        The part of the image that the crop shows, with a pixel to spare, and the map from pixels of the crop to places
        in it, ``[2, 3]``, which count from -1 to 1, from edge to edge.
    """
    back = inverse(matrix)
    ends = mapped(back, np.array([(x, y) for x in (0, size[0] - 1) for y in (0, size[1] - 1)]))
    shape = np.array(image.shape[1::-1])
    first = np.clip(np.floor(ends.min(axis=0)).astype(int) - 1, 0, shape - 1)
    last = np.clip(np.ceil(ends.max(axis=0)).astype(int) + 2, first + 1, shape)
    sides = last - first
    back[:, 2] -= first
    back *= 2 / sides[:, None]
    back[:, 2] += 1 / sides - 1
    return image[first[1] : last[1], first[0] : last[0]], back.astype(np.float32)


def upright(image: RGB, matrix: Matrix, size: Size) -> RGB:
    """The crop of an image without rotation: :func:`vision.pose.warping.warped` by NumPy, to the same pixels.

    Where PyTorch rounds half a gray level differently, a value may differ by one.

    Args:
        image: uint8, shape ``[h, w, C]``.
        matrix: from pixels of the image to pixels of the crop.
        size: of the crop.

    Returns:
        uint8, shape ``[H, W, C]``, rounded.

    Raises:
        ValueError: a map that turns.
    """
    if matrix[0, 1] or matrix[1, 0]:
        raise ValueError("the map of an upright crop does not turn")
    part, grid = part_and_grid(image, matrix, size)
    framed = np.pad(part.astype(np.float32), ((1, 1), (1, 1), (0, 0)))  # black all around
    (left, right), (top, bottom) = (
        _between(grid[axis, axis], grid[axis, 2], size[axis], part.shape[1 - axis]) for axis in (0, 1)
    )
    rows = framed[top[0]] * top[1][:, None, None] + framed[bottom[0]] * bottom[1][:, None, None]
    mixed = rows[:, left[0]] * left[1][:, None] + rows[:, right[0]] * right[1][:, None]
    return np.rint(mixed).astype(np.uint8)


_Share = tuple[NDArray[np.int64], NDArray[np.float32]]


def _between(step: np.float32, offset: np.float32, count: int, side: int) -> tuple[_Share, _Share]:
    """The pixels before and after each place along an axis, in a part with a frame of one pixel, and their shares."""
    place = step * np.arange(count, dtype=np.float32) + offset
    place = ((place + np.float32(1)) * np.float32(side) - np.float32(1)) / np.float32(2)
    below = np.floor(place)
    share = place - below
    first = below.astype(np.int64)
    low, high = (np.clip(index, -1, side) + 1 for index in (first, first + 1))
    return (low, np.float32(1) - share), (high, share)


def as_input(crop: RGB, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    r"""A crop as a network takes it: :math:`(x - 255 \mu) / (255 \sigma)`, float32 ``[3, H, W]``."""
    levels = [np.asarray(values, np.float32)[:, None, None] * np.float32(255) for values in (mean, std)]
    return np.ascontiguousarray((crop.transpose(2, 0, 1).astype(np.float32) - levels[0]) / levels[1])


def to_image(keypoints: Points, centre: Points, sides: Points, size: Size) -> Points:
    """Coordinates of crops without rotation, back in their images.

    Args:
        keypoints: shape ``[N, K, 2]`` or ``[N, K, 3]``, pixels of the crop; what follows x and y is kept.
        centre: of the regions, shape ``[N, 2]``, pixels of the images.
        sides: of the regions, shape ``[N, 2]``, pixels of the images.
        size: of the crops.

    Returns:
        The same shape, pixels of the images.
    """
    factors = sides / _like(sides, (size[0] - 1, size[1] - 1))
    back = keypoints.copy() if isinstance(keypoints, np.ndarray) else keypoints.clone()
    back[..., :2] = keypoints[..., :2] * factors[:, None] + (centre - sides / 2)[:, None]
    return back


def _like(values: Points, numbers: tuple[int, int]) -> Points:
    if isinstance(values, np.ndarray):
        return np.array(numbers, dtype=values.dtype)
    return values.new_tensor(numbers)
