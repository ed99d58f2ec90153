"""The font of everything that is written on pictures."""

from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@cache
def font(size: int) -> Font:
    """DejaVu Sans, from matplotlib's files (matplotlib is not imported); without them Pillow's own font.

    Args:
        size: pixels.
    """
    path = _dejavu()
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(str(path), size)


@cache
def _dejavu() -> Path | None:
    try:
        files = distribution("matplotlib")
    except PackageNotFoundError:
        return None
    path = Path(str(files.locate_file("matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf")))
    return path if path.is_file() else None
