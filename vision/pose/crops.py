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
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from vision.pose.images import RGB

Size = tuple[int, int]
"""Width and height of a crop, pixels."""

Vector = NDArray[np.float64]
"""Shape ``[2]``: x and y."""

Matrix = NDArray[np.float64]
"""Shape ``[2, 3]``: an affine map."""

Points = TypeVar("Points", Tensor, NDArray[np.float32], NDArray[np.float64])

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


def warped(image: RGB, matrix: Matrix, size: Size) -> RGB:
    """The crop of an image: bilinear between pixel centres, with black pixels all around the image.

    There is no smoothing before sampling down, as in the field's other implementations.

    Args:
        image: uint8, shape ``[h, w, 3]``.
        matrix: from pixels of the image to pixels of the crop.
        size: of the crop.

    Returns:
        uint8, shape ``[H, W, 3]``, rounded.
    """
    back = inverse(matrix)
    ends = mapped(back, np.array([(x, y) for x in (0, size[0] - 1) for y in (0, size[1] - 1)]))
    shape = np.array(image.shape[1::-1])
    # only the part that the crop shows, with a pixel to spare, is turned into floating point
    first = np.clip(np.floor(ends.min(axis=0)).astype(int) - 1, 0, shape - 1)
    last = np.clip(np.ceil(ends.max(axis=0)).astype(int) + 2, first + 1, shape)
    part = image[first[1] : last[1], first[0] : last[0]]
    sides = last - first
    back[:, 2] -= first
    back *= 2 / sides[:, None]  # grid_sample counts from -1 to 1, from edge to edge
    back[:, 2] += 1 / sides - 1
    to_grid = torch.from_numpy(back).float()
    columns, rows = torch.arange(size[0])[None, :, None], torch.arange(size[1])[:, None, None]
    grid = to_grid[:, 0] * columns + (to_grid[:, 1] * rows + to_grid[:, 2])
    pixels = torch.from_numpy(part.astype(np.float32)).permute(2, 0, 1)[None]
    sampled = grid_sample(pixels, grid[None], padding_mode="zeros", align_corners=False)[0]
    return sampled.round_().to(torch.uint8).permute(1, 2, 0).numpy()


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
    back = torch.clone(keypoints) if isinstance(keypoints, Tensor) else keypoints.copy()
    back[..., :2] = keypoints[..., :2] * factors[:, None] + (centre - sides / 2)[:, None]
    return back


def _like(values: Points, numbers: tuple[int, int]) -> Points:
    if isinstance(values, Tensor):
        return values.new_tensor(numbers)
    return np.array(numbers, dtype=values.dtype)
