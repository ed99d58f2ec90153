"""Arrays from npz files, checked, and never unpickled."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision.engine.errors import DataError

Expected = tuple[str, tuple[int | None, ...]]
"""A dtype (``uint8``, or ``integer`` for any) and a shape; None for any length."""


def npz_keys(path: Path) -> set[str]:
    """The names of the arrays in a file, without reading them.

    Raises:
        DataError: not an npz file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: cannot be opened as an npz file: {error}") from error


def read_npz(path: Path, expected: dict[str, Expected]) -> dict[str, NDArray[Any]]:
    """The named arrays of an npz file.

    Args:
        path: the file.
        expected: what each array must be.

    Raises:
        DataError: no such file, damaged, an array missing or of another dtype or shape.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; check data.root")
    missing = sorted(set(expected) - npz_keys(path))
    if missing:
        raise DataError(f"{path}: has no array '{missing[0]}'; expected {', '.join(expected)}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in expected}
    except (ValueError, OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: damaged, or holds Python objects: {error}") from error
    for name, (dtype, shape) in expected.items():
        array = arrays[name]
        fits = np.issubdtype(array.dtype, np.integer) if dtype == "integer" else array.dtype == dtype
        sizes = len(shape) == array.ndim and all(w in (None, s) for w, s in zip(shape, array.shape, strict=True))
        if not (fits and sizes):
            wanted = [size or "N" for size in shape]
            raise DataError(f"{path}: '{name}' is {array.dtype} {list(array.shape)}, expected {dtype} {wanted}")
    return arrays
