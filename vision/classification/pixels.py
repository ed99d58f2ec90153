"""Images as a classifier is shown them: decoded, and brought to its size. Nothing here needs PyTorch."""

import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision.engine.errors import DataError
from vision.engine.exported import Given, as_image

Pixels = NDArray[np.uint8]
"""Shape ``[H, W, C]``, C 1 for grey and 3 for RGB."""

Resize = Literal["stretch", "short_side"]
"""How an image of another size is brought to the network's: both sides to it whatever the aspect; or the short side to
it, and the middle kept."""

_EIGHT_BIT = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"}


def decoded(source: Path | bytes, name: str, channels: int) -> Pixels:
    """The pixels of an encoded image.

    Args:
        source: a file, or the bytes of one.
        name: what an error calls it.
        channels: 1 for grey, 3 for RGB.

    Returns:
        uint8, shape ``[H, W, channels]``.

    Raises:
        DataError: not an image, a damaged one, or one of more than 8 bits.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return pixels_of(image, name, channels)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds
        reason = "not an image Pillow knows" if "cannot identify" in str(error) else error
        raise DataError(
            f"{name}: cannot be decoded ({reason}); replace or remove it, or set data.on_error: skip"
        ) from error


def read_pixels(given: Given, name: str, channels: int) -> Pixels:
    """The pixels of what a user gives: a file, a Pillow image, or uint8 ``[H, W, 3]``.

    Raises:
        DataError: not an image of 8 bits.
    """
    if isinstance(given, str | Path):
        return decoded(Path(given), name, channels)
    return pixels_of(as_image(given, name), name, channels)


def pixels_of(image: Image.Image, name: str, channels: int) -> Pixels:
    """The pixels of an image that is open.

    Raises:
        DataError: one of more than 8 bits.
    """
    if image.mode not in _EIGHT_BIT:
        raise DataError(f"{name}: pixels are of mode '{image.mode}', expected 8 bits; convert the image")
    mode = "L" if channels == 1 else "RGB"
    pixels = np.array(image if image.mode == mode else image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], channels)


def brought_to(pixels: Pixels, size: int, how: Resize) -> Pixels:
    """An image at ``size x size`` pixels, resized by Pillow: bilinear, over all the pixels that one comes from.

    Args:
        pixels: shape ``[H, W, C]``.
        size: rows and columns.
        how: see :data:`Resize`.

    Returns:
        uint8, shape ``[size, size, C]``.

    Example:
        >>> brought_to(np.zeros((20, 40, 3), np.uint8), 10, "short_side").shape
        (10, 10, 3)
    """
    height, width = pixels.shape[:2]
    if how == "stretch":
        return _resized(pixels, size, size)
    short = min(height, width)
    whole = _resized(pixels, int(size * height / short), int(size * width / short))
    top, left = (round((side - size) / 2) for side in whole.shape[:2])
    return whole[top : top + size, left : left + size]


def _resized(pixels: Pixels, height: int, width: int) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    made = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return made.reshape(height, width, pixels.shape[2])


def as_input(pixels: Pixels, mean: Any = None, std: Any = None) -> NDArray[np.float32]:
    r"""What a network takes: :math:`(x / 255 - \mu) / \sigma`, float32 ``[C, H, W]``; without statistics x / 255."""
    image = pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    if mean is not None and std is not None:
        by_channel = [np.asarray(values, np.float32)[:, None, None] for values in (mean, std)]
        image = (image - by_channel[0]) / by_channel[1]
    return image


def as_picture(pixels: Pixels) -> Pixels:
    """The image in three channels, for drawing."""
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
