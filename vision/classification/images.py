"""Labelled images in memory or in files, and what picks some of them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision.classification.pixels import Resize, brought_to, decoded
from vision.engine.errors import DataError

log = logging.getLogger(__name__)

Indices = NDArray[np.int64]
"""Positions of images, ascending."""


def decode(source: Path | bytes, name: str, channels: int) -> Tensor:
    """The pixels of an encoded image, uint8 ``[channels, H, W]``; see :func:`vision.classification.pixels.decoded`.

    Raises:
        DataError: not an image, a damaged one, or one of more than 8 bits.
    """
    return torch.from_numpy(decoded(source, name, channels)).permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class BroughtTo:
    """Brings uint8 images ``[C, H, W]`` to a size, as :func:`vision.classification.pixels.brought_to` does.

    Attributes:
        size: rows and columns.
        how: by stretching, or by the short side.
    """

    size: int
    how: Resize

    def __call__(self, image: Tensor) -> Tensor:
        """Shape ``[C, size, size]``."""
        made = brought_to(image.permute(1, 2, 0).numpy(), self.size, self.how)
        return torch.from_numpy(made.transpose(2, 0, 1).copy())


@dataclass(frozen=True)
class Images:
    """N labelled images of one split.

    Attributes:
        ids: the name of each, unique within the data set.
        labels: int64, shape ``[N]``.
        pixels: all images as one uint8 tensor ``[N, C, H, W]``, or a file or its bytes for each.
        channels: C.
        skipped: names of images that were left out because they cannot be decoded.
    """

    ids: list[str]
    labels: Tensor
    pixels: Tensor | Sequence[Path | bytes]
    channels: int
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> Tensor:
        """Image ``index``: uint8, shape ``[C, H, W]``.

        Raises:
            DataError: the image cannot be decoded.
        """
        if isinstance(self.pixels, Tensor):
            return self.pixels[index]
        source = self.pixels[index]
        name = str(source) if isinstance(source, Path) else self.ids[index]
        return decode(source, name, self.channels)

    def take(self, indices: Indices) -> "Images":
        """The images at ``indices``."""
        if len(indices) == len(self):  # ascending and without repetition, so all of them
            return self
        if isinstance(self.pixels, Tensor):
            pixels: Tensor | Sequence[Path | bytes] = self.pixels[torch.from_numpy(indices)]
        else:
            pixels = [self.pixels[i] for i in indices]
        ids = [self.ids[i] for i in indices]
        return Images(ids, self.labels[torch.from_numpy(indices)], pixels, self.channels, self.skipped)

    def without_corrupt(self) -> "Images":
        """Those that decode; the others are named in the log and in ``skipped``. Decodes every image once."""
        good, bad = [], []
        for index in range(len(self)):
            try:
                self.read(index)
                good.append(index)
            except DataError as error:
                bad.append(self.ids[index])
                log.warning("skipped: %s", str(error).split(";")[0])
        if not bad:
            return self
        log.warning("skipped %d of %d images that cannot be decoded", len(bad), len(self))
        kept = self.take(np.array(good, dtype=np.int64))
        return Images(kept.ids, kept.labels, kept.pixels, kept.channels, (*self.skipped, *bad))


def check_labels(labels: NDArray[Any], classes: int, where: str) -> Tensor:
    """Labels as an int64 tensor ``[N]``.

    Args:
        labels: as read, shape ``[N]``.
        classes: how many classes there are.
        where: the file or data set, for errors.

    Raises:
        DataError: not whole numbers, not one row, or one outside ``[0, classes)``; the first such is named.
    """
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{where}: labels are {labels.dtype} of shape {list(labels.shape)}, expected integers [N]")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise DataError(
            f"{where}: label {labels[wrong[0]]} of image {wrong[0]} is out of range ({len(wrong)} are); "
            f"expected 0 to {classes - 1}: mend the labels, or choose the data set they belong to"
        )
    return torch.from_numpy(labels.astype(np.int64))


def first(labels: Tensor, indices: Indices, limit: int | None, balanced: bool) -> Indices:
    """The first ``limit`` of ``indices``.

    Args:
        labels: of all images, int64, shape ``[N]``.
        indices: ascending positions to choose from.
        limit: how many; None keeps all.
        balanced: go through the classes in turn and take the next of each, so that their counts differ by at most
            one where there are enough; otherwise the first in order, whatever they show.

    Returns:
        Positions, ascending.

    Example:
        >>> first(torch.tensor([0, 0, 0, 1, 1]), np.arange(5), 3, balanced=True).tolist()
        [0, 1, 3]
    """
    if limit is None or limit >= len(indices):
        return indices
    if not balanced:
        return indices[:limit]
    own = labels.numpy()[indices]
    turn = np.empty(len(own), dtype=np.int64)
    for label in np.unique(own):
        members = own == label
        turn[members] = np.arange(members.sum())
    return np.sort(indices[np.lexsort((own, turn))[:limit]])
