r"""How single-stage networks see a whole image: a random square of it in training, all of it, enlarged, at test time.

Maps here have no half-pixel term: the middle of the region goes to the middle of the result, :math:`x' = a (x - c) +
r / 2` with :math:`r` the side of the result in pixels. That is the released code's convention, and unlike that of
:mod:`vision.pose.crops`.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Le
from numpy.random import Generator

from vision.engine.errors import ConfigError
from vision.pose.crops import Matrix, Vector

MULTIPLE = 64
"""The longer side of a test image is made a multiple of this."""

UNIT = 200.0
"""Pixels that translations are relative to, in the released code's way of telling scales."""


@dataclass(frozen=True, kw_only=True)
class SingleStageAugmentation:
    """How training squares vary; the defaults are the released recipe.

    Attributes:
        scale: smallest and largest side of the square, relative to the image's ``base`` side.
        base: the image's ``short`` or ``long`` side. With ``long`` and a scale of 1 the square holds the whole image.
        rotation: largest angle, degrees.
        translation: largest shift along each axis, in pixels for a square of 200 pixels.
        flip: probability of the mirror image.

    Raises:
        ConfigError: a range that is upside down or reaches 0.
    """

    scale: tuple[float, float] = (0.75, 1.5)
    base: Literal["short", "long"] = "short"
    rotation: Annotated[float, Ge(0), Le(180)] = 30.0
    translation: Annotated[float, Ge(0)] = 40.0
    flip: Annotated[float, Ge(0), Le(1)] = 0.5

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high:
            raise ConfigError(f"augmentation.scale: got {[low, high]}, expected the smaller first, both above 0")


@dataclass(frozen=True)
class Square:
    """A region to train on.

    Attributes:
        centre: x and y in pixels of the image, ``[2]``.
        side: in pixels of the image.
        rotation: degrees.
        flip: whether its mirror image is taken.
    """

    centre: Vector
    side: float
    rotation: float
    flip: bool

    def matrix(self, size: int) -> Matrix:
        r"""The map from pixels of the image to a square of ``size`` pixels, before any flip.

        .. math:: x' = \frac{size}{side} \begin{pmatrix} \cos r & \sin r \\ -\sin r & \cos r \end{pmatrix} (x - c)
            + \frac{size}{2}
        """
        cos, sin = math.cos(math.radians(self.rotation)), math.sin(math.radians(self.rotation))
        linear = size / self.side * np.array([[cos, sin], [-sin, cos]])
        return np.column_stack([linear, size / 2 - linear @ self.centre])


def random_square(rng: Generator, width: int, height: int, options: SingleStageAugmentation) -> Square:
    """A region around the middle of an image: its side, angle, shift in whole pixels and mirror image are drawn."""
    base = min(width, height) if options.base == "short" else max(width, height)
    side = base * rng.uniform(*options.scale)
    rotation = rng.uniform(-options.rotation, options.rotation)
    reach = int(options.translation * side / UNIT)
    shift = rng.integers(-reach, reach, size=2, endpoint=not reach)
    return Square(np.array([width / 2, height / 2]) + shift, float(side), float(rotation), rng.random() < options.flip)


@dataclass(frozen=True)
class Enlarged:
    """How an image is brought to the network's size at test time, its aspect kept.

    Attributes:
        size: width and height of the network's input, pixels.
        centre: of the image, whole pixels.
        scale: the region's width and height in the image, in units of 200 pixels.
    """

    size: tuple[int, int]
    centre: tuple[int, int]
    scale: tuple[float, float]

    @property
    def matrix(self) -> Matrix:
        """The map from pixels of the image to pixels of the input; what lies beyond the image is black."""
        factor = self.size[0] / (self.scale[0] * UNIT)
        offset = np.array(self.size) / 2 - factor * np.array(self.centre, dtype=np.float64)
        return np.column_stack([factor * np.eye(2), offset])


def enlarged(width: int, height: int, short: int = 512) -> Enlarged:
    """The shorter side becomes ``short``, the longer one a multiple of 64.

    Args:
        width: of the image, pixels.
        height: of the image, pixels.
        short: of the input, pixels; a multiple of 32.

    Source: the released code.

    Example:
        >>> enlarged(640, 427)
        Enlarged(size=(768, 512), centre=(320, 214), scale=(3.2025, 2.135))
    """
    centre = int(width / 2 + 0.5), int(height / 2 + 0.5)
    least, most = sorted((width, height))
    longer = _multiple(short / least * most)
    along, across = longer / short * least / UNIT, least / UNIT
    if width < height:
        return Enlarged((short, longer), centre, (across, along))
    return Enlarged((longer, short), centre, (along, across))


def short_side(short: int, factor: float) -> int:
    """The shorter side of the input for a test at another scale: ``short * factor``, up to a multiple of 64."""
    return _multiple(short * factor)


def _multiple(pixels: float) -> int:
    """The whole pixels of a length, up to a multiple of 64."""
    return math.ceil(int(pixels) / MULTIPLE) * MULTIPLE


Factor = Annotated[float, Gt(0)]
"""A scale of a multi-scale test, relative to the usual size."""
