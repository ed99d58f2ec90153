"""How single-stage networks see a whole image at test time: all of it, enlarged. Nothing here needs PyTorch."""

import math
from dataclasses import dataclass

import numpy as np

from vision.pose.crops import Matrix

MULTIPLE = 64
"""The longer side of a test image is made a multiple of this."""

UNIT = 200.0
"""Pixels that translations are relative to, in the released code's way of telling scales."""


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
