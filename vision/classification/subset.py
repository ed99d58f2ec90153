"""Files that name some of a data set's training images by their places."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision.classification.images import Indices
from vision.classification.npz import DAMAGED, read_npy
from vision.engine.errors import DataError
from vision.engine.files import replacing


def check_indices(indices: Sequence[int] | NDArray[np.generic], count: int, what: str) -> Indices:
    """Indices as int64, in the order given.

    Args:
        indices: whole numbers, ``[K]``.
        count: how many there are to choose from.
        what: what an error calls them.

    Raises:
        DataError: none, not whole numbers, out of ``[0, count)``, or repeated; the first such is named.
    """
    found = np.asarray(indices)
    if found.ndim != 1 or not len(found) or not np.issubdtype(found.dtype, np.integer):
        raise DataError(f"{what}: {found.dtype} of shape {list(found.shape)}; expected one row of whole numbers")
    wrong = found[(found < 0) | (found >= count)]
    if len(wrong):
        raise DataError(f"{what}: {wrong[0]} is out of range ({len(wrong)} are); expected 0 to {count - 1}")
    values, times = np.unique(found, return_counts=True)
    if times.max() > 1:
        raise DataError(f"{what}: {values[times > 1][0]} stands {times.max()} times ({(times > 1).sum()} are repeated)")
    return found.astype(np.int64)


def read_subset(path: Path, count: int) -> Indices:
    """The places in an index file, ascending.

    Args:
        path: ``.npy``, ``.npz`` with an array ``indices`` (or with one array only), or text with one number a line.
        count: training images of the data set.

    Raises:
        DataError: no such file, one that cannot be read, or as :func:`check_indices`.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such index file; check data.subset")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                names = archive.files
                if "indices" not in names and len(names) != 1:
                    raise DataError(f"{path}: has no array 'indices'; it has {', '.join(names)}")
                found = archive["indices" if "indices" in names else names[0]]
        elif path.suffix == ".npy":
            found = read_npy(path)
        else:
            found = np.array([int(line) for line in path.read_text(encoding="utf-8").split()], dtype=np.int64)
    except DAMAGED as error:
        raise DataError(f"{path}: cannot be read as an index file ({error}); expected .npy, .npz or text") from error
    return np.sort(check_indices(found, count, str(path)))


def save_subset(path: Path, indices: Indices) -> None:
    """Writes a text file that :func:`read_subset` reads, one place a line."""
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{index}\n" for index in indices.tolist()), encoding="utf-8")
