"""Photographs of any odd kind as RGB bytes, and what their files and names tell without decoding them."""

import os
import re
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vision.engine.errors import DataError

RGB = NDArray[np.uint8]
"""Shape ``[H, W, 3]``."""

Orientation = Literal["stored", "upright"]

_TAG = 0x0112  # EXIF: orientation
_TURNED = (5, 6, 7, 8)  # its values that swap width and height
_TAIL = 1 << 16  # bytes at the end of a file among which its end mark is looked for
_END = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}


def read_rgb(path: str | Path, orientation: Orientation = "stored") -> RGB:
    """The pixels of an image file.

    Gray images repeat their channel; 16-bit ones keep their high byte, signed, 32-bit and floating-point ones are
    taken for 16 bits where they fit; CMYK, YCbCr and palettes are converted; transparency is dropped.

    Args:
        path: the file.
        orientation: ``stored`` ignores the EXIF orientation, as COCO's annotations and the field's tools do;
            ``upright`` turns the image as a viewer shows it.

    Returns:
        uint8, shape ``[H, W, 3]``.

    Raises:
        DataError: no such file, one that cannot be decoded, or values that do not fit 16 bits; it is named.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with Image.open(path) as image:
            image.load()
            shown = ImageOps.exif_transpose(image) if orientation == "upright" else image
            if shown.mode == "RGB":
                return np.asarray(shown)
            if shown.mode.startswith(("I", "F")):
                return _deep(path, np.asarray(shown))
            return np.asarray(shown.convert("RGB"))
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds
        reason = "not an image Pillow knows" if "cannot identify" in str(error) else error
        raise DataError(f"{path}: cannot be decoded ({reason}); replace or remove it") from error


def _deep(path: Path, values: NDArray[np.generic]) -> RGB:
    """Gray values of more than 8 bits by their high byte of 16."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 65535):  # also where one is NaN
        raise DataError(f"{path}: gray values from {low:g} to {high:g} do not fit 16 bits; convert the image to 8 bits")
    gray = (values.astype(np.uint32) >> 8).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)


def glance(path: Path, orientation: Orientation = "stored") -> tuple[int, int]:
    """Width and height of an image file from its header, and whether the file is whole, without decoding it.

    A JPEG or PNG without its end mark near the end of the file is decoded, to be sure.

    Raises:
        DataError: as :func:`read_rgb`.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with Image.open(path) as image:
            width, height = image.size
            mark = _END.get(image.format or "")
            turned = orientation == "upright" and image.getexif().get(_TAG) in _TURNED
    except Exception as error:
        raise DataError(f"{path}: not an image Pillow knows; replace or remove it") from error
    if mark is not None and mark not in _tail(path):
        read_rgb(path)
    return (height, width) if turned else (width, height)


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
        return file.read()


def number_in(name: str) -> int | None:
    """The number that a file's name ends in, as COCO names its images, or a video's frame; None where there is none.

    Example:
        >>> number_in("val2017/000000000785.jpg"), number_in("COCO_val2014_000000000042.jpg"), number_in("me.png")
        (785, 42, None)
        >>> number_in("dance.mp4#12")
        12
    """
    found = re.search(r"#(\d+)$", name) or re.search(r"(\d+)$", Path(name).stem)
    return int(found[1]) if found else None
