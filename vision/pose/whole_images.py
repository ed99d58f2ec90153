r"""How single-stage networks see images in training: random squares. At test time: :mod:`vision.pose.enlarged`.

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
from vision.pose.enlarged import UNIT


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


Factor = Annotated[float, Gt(0)]
"""A scale of a multi-scale test, relative to the usual size."""
