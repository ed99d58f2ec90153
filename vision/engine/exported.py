"""What a system says of an input where its network is an exported file: the part around the network, by NumPy.

Nothing here needs PyTorch. Each system has a class of this kind in its module ``exported``; the runner
(:mod:`vision.deploy.runner`) chooses among them by ``after["type"]``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision.engine.errors import ConfigError, DataError
from vision.engine.prediction import Picture, Prediction

Given = str | Path | Image.Image | NDArray[Any]
"""What a user gives: a file, a Pillow image, or pixels, uint8 ``[H, W, 3]``."""

Boxes = Sequence[Sequence[float]] | NDArray[Any]
"""Left, top, width and height of each object in pixels, ``[P, 4]``, or with a score after them ``[P, 5]``."""

LARGEST = 1 << 14
"""Pixels of the largest side, and steps of the longest sequence, that a description may ask for."""


def whole(value: Any) -> int:
    """A side in pixels, or a count of steps, of a description.

    Raises:
        ValueError: below 1 or above :data:`LARGEST`; also ``TypeError`` for what is no number.

    Example:
        >>> whole(256)
        256
    """
    found = int(value)
    if not 1 <= found <= LARGEST:
        raise ValueError(f"{found} is not between 1 and {LARGEST}")
    return found


class Run(Protocol):
    """Runs a graph of the exported network."""

    def __call__(self, graph: str, *inputs: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """The outputs of a graph for its inputs, both in the order of the file."""
        ...


class ExportedSystem(ABC):
    """From what a user gives to a prediction.

    Args:
        before: of the file: how an input is made.
        after: of the file: what outputs mean.

    Attributes:
        graphs: names of those that it runs.

    Raises:
        KeyError: a number that is not there; also ``TypeError`` and ``ValueError`` for a wrong one.
    """

    graphs: ClassVar[tuple[str, ...]] = ("model",)

    @abstractmethod
    def __init__(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def read(self, given: Given, name: str) -> Any:
        """What the system looks at, from what a user gives.

        Raises:
            DataError: it cannot be read, or is nothing that this system takes.
        """

    @abstractmethod
    def picture(self, seen: Any) -> Picture:
        """What :meth:`read` gave as a picture, which predictions are drawn on."""

    @abstractmethod
    def predict(self, run: Run, seen: Any, name: str, number: int | None, boxes: Boxes | None) -> Prediction:
        """The prediction for what :meth:`read` gave.

        Args:
            run: the network.
            seen: the input.
            name: of the prediction.
            number: of the image in COCO results; None for the one its name ends in, or 0.
            boxes: where objects are.

        Raises:
            ConfigError: boxes for a network that looks at whole images.
            DataError: boxes that are none, or an input the network cannot take.
        """


def refuse_boxes(boxes: Boxes | None) -> None:
    """Raises a ConfigError where there are boxes, for a network that looks at whole images."""
    if boxes is not None:
        raise ConfigError("this network looks at whole images; leave out the boxes")


def as_image(given: Image.Image | NDArray[Any], name: str) -> Image.Image:
    """A Pillow image of pixels, or the image itself.

    Raises:
        DataError: pixels that are not uint8 ``[H, W, 3]``.
    """
    if isinstance(given, Image.Image):
        return given
    if not isinstance(given, np.ndarray):
        raise DataError(f"{name}: got {type(given).__name__}, expected a file, a Pillow image or uint8 [H, W, 3]")
    if given.dtype != np.uint8 or given.ndim != 3 or given.shape[2] != 3 or 0 in given.shape:
        raise DataError(f"{name}: pixels are {given.dtype} {list(given.shape)}, expected uint8 [H, W, 3]")
    return Image.fromarray(given)


def name_of(given: Any) -> str:
    """What an input is called: its file's path, or ``image``."""
    if isinstance(given, str | Path):
        return str(given)
    return str(getattr(given, "filename", "") or "image") if isinstance(given, Image.Image) else "image"


def checked_boxes(boxes: Boxes | None, picture: Picture, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Boxes ``[P, 4]`` and their scores ``[P]``; without any, one box of the whole picture.

    Raises:
        DataError: another shape, a number that is not finite, or a box without an inside or outside the picture.
    """
    height, width = picture.shape[:2]
    if boxes is None:
        return np.array([[0.0, 0.0, width, height]]), np.ones(1)
    try:
        rows = np.array(boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: boxes are not numbers ({error})") from error
    if not rows.size:
        return np.zeros((0, 4)), np.zeros(0)
    if rows.ndim != 2 or rows.shape[1] not in (4, 5):
        raise DataError(
            f"{name}: boxes of shape {list(rows.shape)}; expected left, top, width, height [P, 4], and scores [P, 5]"
        )
    for position, row in enumerate(rows):
        left, top, across, down = row[:4]
        if not np.isfinite(row).all() or across <= 0 or down <= 0:
            raise DataError(
                f"{name}: box {position} is {row.tolist()}; expected finite numbers, width and height above 0"
            )
        if left >= width or top >= height or left + across <= 0 or top + down <= 0:
            raise DataError(f"{name}: box {position} is {row.tolist()}, outside the picture of {width} x {height}")
    return rows[:, :4], rows[:, 4] if rows.shape[1] == 5 else np.ones(len(rows))
