"""The files that a command's arguments mean: names, folders of images, globs."""

import glob
from pathlib import Path

from vision.engine.errors import DataError

IMAGES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")


def expand(inputs: list[str]) -> list[Path]:
    """The files that names, folders and globs mean, in order, each once.

    Raises:
        DataError: one of them means no file.
    """
    found: dict[Path, None] = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES)
        else:
            files = [path] if path.is_file() else [Path(p) for p in sorted(glob.glob(given, recursive=True))]
        if not files:
            raise DataError(f"{given}: no such file, and no images there ({', '.join(IMAGES)})")
        found.update(dict.fromkeys(files))
    return list(found)
