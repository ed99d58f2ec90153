"""Arrays from npz files, checked, and never unpickled."""

import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision.engine.errors import DataError

DAMAGED = (
    ValueError, OSError, EOFError, KeyError, RuntimeError, MemoryError, OverflowError, struct.error, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip
"""What zipfile and numpy raise for a file that is damaged, or holds Python objects: a flipped bit may ask for a
password (RuntimeError), another compression (NotImplementedError, one of these) or an array larger than memory."""

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
    except DAMAGED as error:
        raise DataError(f"{path}: cannot be opened as an npz file: {error}") from error


def read_npy(path: Path, mapped: bool = False) -> NDArray[Any]:
    """The array of an npy file; ``mapped`` reads it as it is used.

    Raises:
        DataError: no such file, damaged, Python objects, or something else than one array.
    """
    try:
        found = np.load(path, allow_pickle=False, mmap_mode="r" if mapped else None)
    except DAMAGED as error:
        raise DataError(f"{path}: damaged, or holds Python objects: {error}") from error
    if not isinstance(found, np.ndarray):
        raise DataError(f"{path}: holds several arrays, expected one (.npy)")
    return found


def only_npz(root: str | Path) -> Path:
    """The npz file that ``root`` is, or the only one in that folder.

    Raises:
        DataError: a folder that holds none, or several.
    """
    path = Path(root).expanduser()
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.npz"))
    if len(found) != 1:
        raise DataError(f"{path}: holds {len(found)} npz files, expected one; give the file as data.root")
    return found[0]


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
    except DAMAGED as error:
        raise DataError(f"{path}: damaged, or holds Python objects: {error}") from error
    for name, (dtype, shape) in expected.items():
        array = arrays[name]
        fits = np.issubdtype(array.dtype, np.integer) if dtype == "integer" else array.dtype == dtype
        sizes = len(shape) == array.ndim and all(w in (None, s) for w, s in zip(shape, array.shape, strict=True))
        if not (fits and sizes):
            wanted = [size or "N" for size in shape]
            raise DataError(f"{path}: '{name}' is {array.dtype} {list(array.shape)}, expected {dtype} {wanted}")
    return arrays
