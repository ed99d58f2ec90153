"""Spike rasters as pictures: a block of rows for each layer, a column for each time step."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vision.engine.prediction import Picture
from vision.report.fonts import font

INK, PAPER, FAINT, GREY = (36, 62, 120), (255, 255, 255), (238, 240, 244), (96, 104, 120)
TALL, WIDE, NAMES, GAP = 300, 220, 92, 5
"""Pixels: of all rows, of all columns, of the names, between layers."""
CAPTION, SHORTEST = 14, 88
"""Pixels: of the line below that says how many steps there are, and how wide it is."""
WRITTEN = 10
"""Pixels: of letters."""


def raster_picture(rasters: Mapping[str, NDArray[np.uint8]], until: int | None = None) -> Picture:
    """The spikes of some neurons of each layer.

    Args:
        rasters: by the layer's name, 0 and 1, shape ``[T, K]`` with the same T.
        until: steps that have passed; later ones are left white. None shows all.

    Returns:
        Layers from the top down, the first one first; time from left to right.

    Raises:
        ValueError: no layers, or different numbers of steps.
    """
    steps = {len(raster) for raster in rasters.values()}
    if len(steps) != 1:
        raise ValueError(f"rasters of {sorted(steps)} time steps; expected at least one layer, all of the same T")
    rows = sum(raster.shape[1] for raster in rasters.values())
    cell = max(2, min(8, TALL // max(rows, 1))), max(2, min(24, WIDE // max(steps)))
    height = rows * cell[0] + GAP * (len(rasters) + 1) + CAPTION
    canvas = Image.new("RGB", (NAMES + max(max(steps) * cell[1], SHORTEST) + GAP, height), PAPER)
    pen, top = ImageDraw.Draw(canvas), GAP
    shown = max(steps) if until is None else until
    for name, raster in rasters.items():
        block = np.where(raster.T[:, :, None] > 0, np.array(INK), np.array(FAINT)).astype(np.uint8)
        block[:, shown:] = PAPER
        block = np.kron(block, np.ones((*cell, 1), dtype=np.uint8))
        canvas.paste(Image.fromarray(block), (NAMES, top))
        middle = top + block.shape[0] // 2
        pen.text((NAMES - 6, middle), _short(name), fill=INK, font=font(WRITTEN), anchor="rm")
        top += block.shape[0] + GAP
    count = f"{max(steps)} time steps →" if until is None else f"step {shown} of {max(steps)}"
    pen.text((NAMES, top), count, fill=GREY, font=font(WRITTEN))
    return np.array(canvas)


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"…{name[-13:]}"


def beside(left: Picture, right: Picture) -> Picture:
    """Two pictures in a row, the top edges level, on white."""
    height = max(len(left), len(right))
    padded = [np.pad(p, ((0, height - len(p)), (0, 0), (0, 0)), constant_values=255) for p in (left, right)]
    return np.concatenate(padded, axis=1)
