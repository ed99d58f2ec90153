"""Drawing on pictures: contours, circles, banners, pictures side by side and in sheets.

A picture is RGB, uint8, shape ``[H, W, 3]``. Every function returns a new picture and leaves its arguments alone.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vision.engine.prediction import Picture
from vision.report.fonts import Font, font

Colour = tuple[int, int, int]

TRUTH: Colour = (46, 196, 114)
FOUND: Colour = (255, 176, 0)
WRONG: Colour = (235, 64, 82)
NEUTRAL: Colour = (88, 96, 110)
"""Colours with one meaning everywhere: the true answer, what the network found, a mistake, anything else."""

PAPER: Colour = (255, 255, 255)
DARK: Colour = (16, 18, 22)


def _require_picture(picture: Picture) -> None:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"expected a picture, uint8 [H, W, 3]; given {picture.dtype} {list(picture.shape)}")


def to_picture(values: NDArray[np.floating] | NDArray[np.uint8]) -> Picture:
    """A grey or colour array as a picture.

    Args:
        values: ``[H, W]``, ``[1, H, W]``, ``[3, H, W]`` or ``[H, W, 3]``; uint8, or float in [0, 1] (clipped).
            A last axis of 3 is taken for colours.

    Raises:
        ValueError: another shape.

    Example:
        >>> to_picture(np.array([[0.0, 1.0]])).tolist()
        [[[0, 0, 0], [255, 255, 255]]]
    """
    array = np.asarray(values)
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] != 3:
        array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise ValueError(f"expected an image of one or three channels; given shape {list(np.shape(values))}")
    if array.dtype != np.uint8:
        array = np.rint(np.clip(np.nan_to_num(array.astype(np.float64)), 0.0, 1.0) * 255.0).astype(np.uint8)
    return np.broadcast_to(array, (*array.shape[:2], 3)).copy()


def enlarge(picture: Picture, smallest_side: int) -> Picture:
    """The picture with every pixel repeated the fewest times that make its shorter side at least ``smallest_side``."""
    _require_picture(picture)
    factor = scale_to(picture.shape[:2], smallest_side)
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def scale_to(size: tuple[int, ...], smallest_side: int) -> int:
    """How often :func:`enlarge` repeats each pixel of a picture of ``size`` (H, W).

    Example:
        >>> scale_to((32, 40), 100), scale_to((512, 512), 100)
        (4, 1)
    """
    return max(1, -(-smallest_side // min(size[:2])))


def outline(picture: Picture, mask: NDArray[np.bool_], colour: Colour, width: int = 1) -> Picture:
    """The contour of a mask, drawn just outside it so that it hides nothing of what it surrounds.

    Args:
        picture: ``[H, W, 3]``.
        mask: boolean, ``[H, W]``.
        colour: of the line.
        width: of the line, pixels.

    Raises:
        ValueError: the mask's shape is not the picture's.
    """
    _require_picture(picture)
    inside = np.asarray(mask).astype(bool)
    if inside.shape != picture.shape[:2]:
        raise ValueError(f"mask of shape {list(inside.shape)} on a picture of {list(picture.shape[:2])}")
    drawn = picture.copy()
    drawn[_grown(inside, width) & ~inside] = colour
    return drawn


def _grown(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """The mask with all pixels that are at most ``by`` rows and columns from it."""
    for axis in (0, 1):
        padded = np.pad(mask, [(by, by) if k == axis else (0, 0) for k in (0, 1)])
        mask = np.lib.stride_tricks.sliding_window_view(padded, 2 * by + 1, axis=axis).max(-1)
    return mask


def circles(
    picture: Picture,
    centres: Sequence[tuple[float, float]],
    colour: Colour,
    scores: Sequence[float] | None = None,
    radius: float = 8.0,
    width: int = 1,
) -> Picture:
    """A circle around each detection, with its score beside it.

    Args:
        picture: ``[H, W, 3]``.
        centres: (row, column) in pixels; (0, 0) is the middle of the first pixel.
        colour: of the circles and scores.
        scores: one a centre, written with two decimals; None writes none.
        radius: pixels.
        width: of the line, pixels.

    Raises:
        ValueError: not as many scores as centres.
    """
    _require_picture(picture)
    if scores is not None and len(scores) != len(centres):
        raise ValueError(f"{len(scores)} scores for {len(centres)} centres")
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    for index, (row, column) in enumerate(centres):
        pen.ellipse((column - radius, row - radius, column + radius, row + radius), outline=colour, width=width)
        if scores is not None:
            _beside(pen, f"{scores[index]:.2f}", (row, column), radius, picture.shape[1], colour)
    return np.asarray(canvas).copy()


def _beside(
    pen: ImageDraw.ImageDraw, text: str, centre: tuple[float, float], radius: float, width: int, colour: Colour
) -> None:
    """Writes on a dark patch beside a circle, on the side where a picture of that ``width`` has room."""
    written = font(max(9, min(14, round(radius))))
    length = pen.textlength(text, font=written)
    right = centre[1] + radius + 5
    left = centre[1] - radius - 5 - length
    place = (right if right + length <= width or left < 0 else left, centre[0])
    box = pen.textbbox(place, text, font=written, anchor="lm")
    pen.rectangle((box[0] - 3, box[1] - 2, box[2] + 2, box[3] + 2), fill=DARK)
    pen.text(place, text, fill=colour, font=written, anchor="lm")


def banner(picture: Picture, text: str, colour: Colour = NEUTRAL) -> Picture:
    """The picture under a band of ``colour`` with ``text`` on it; text that is too long ends in an ellipsis.

    Returns:
        Shape ``[H + h, W, 3]``, where ``h`` grows with the picture's width.
    """
    _require_picture(picture)
    height, width = picture.shape[:2]
    size = max(9, min(20, round(width / 16)))
    canvas = Image.new("RGB", (width, height + round(1.7 * size)), colour)
    canvas.paste(Image.fromarray(picture), (0, canvas.height - height))
    pen, written = ImageDraw.Draw(canvas), font(size)
    dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 130
    pen.text(
        (size * 0.5, round(0.85 * size)),
        _fitted(pen, text, written, width - size),
        fill=PAPER if dark else DARK,
        font=written,
        anchor="lm",
    )
    return np.asarray(canvas).copy()


def _fitted(pen: ImageDraw.ImageDraw, text: str, written: Font, room: float) -> str:
    if pen.textlength(text, font=written) <= room:
        return text
    while text and pen.textlength(text + "…", font=written) > room:
        text = text[:-1]
    return text.rstrip() + "…"


def side_by_side(pictures: Sequence[Picture], titles: Sequence[str] | None = None, gap: int = 4) -> Picture:
    """Pictures in one row, top-aligned on white, each under its title; for truth and prediction.

    Raises:
        ValueError: no pictures, or not as many titles as pictures.
    """
    if not pictures or (titles is not None and len(titles) != len(pictures)):
        raise ValueError(f"{len(titles or ())} titles for {len(pictures)} pictures")
    named = [banner(p, t) for p, t in zip(pictures, titles, strict=True)] if titles else list(pictures)
    return contact_sheet(named, columns=len(named), gap=gap)


def contact_sheet(pictures: Sequence[Picture], columns: int, gap: int = 4) -> Picture:
    """Pictures in rows of ``columns``, in reading order on white; a cell is as large as the largest picture.

    Raises:
        ValueError: no pictures, or ``columns`` below 1.
    """
    if not pictures or columns < 1:
        raise ValueError(f"a contact sheet of {len(pictures)} pictures in {columns} columns")
    for picture in pictures:
        _require_picture(picture)
    height = max(picture.shape[0] for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), PAPER, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet
