"""The python version of CIFAR, read without running what a pickle asks for."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision.engine.errors import DataError


class _Latin1:
    """Stands in for ``codecs.encode``, by which Python 3 writes bytes into old pickles; other codecs are refused."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str = "latin1") -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"the codec '{encoding}' is not allowed")
        return text.encode("latin1")


def _array_parts() -> dict[tuple[str, str], Callable[..., Any]]:
    core = np._core if hasattr(np, "_core") else np.core
    allowed: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _Latin1(),
    }
    for package in ("numpy.core", "numpy._core"):
        allowed[f"{package}.multiarray", "_reconstruct"] = core.multiarray._reconstruct
        allowed[f"{package}.multiarray", "scalar"] = core.multiarray.scalar
        allowed[f"{package}.numeric", "_frombuffer"] = core.numeric._frombuffer
    return allowed


class ArrayUnpickler(pickle.Unpickler):
    """Reads dictionaries, lists, strings, numbers and numpy arrays; anything else a pickle names is refused.

    Example:
        >>> import io
        >>> ArrayUnpickler(io.BytesIO(pickle.dumps({"labels": [1, 2]}))).load()
        {'labels': [1, 2]}
    """

    _ALLOWED = _array_parts()

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """What a pickle asks for by name, if it is one of the parts of an array.

        Raises:
            pickle.UnpicklingError: it is anything else.
        """
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it asks for '{module}.{name}', which CIFAR does not need")
        return self._ALLOWED[module, name]


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in one file of the python version of CIFAR.

    Raises:
        DataError: no such file, damaged, not a dictionary, or a pickle that would run code.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: missing; unpack the python version from https://www.cs.toronto.edu/~kriz/cifar.html "
            "and give its folder as data.root"
        )
    try:
        with path.open("rb") as file:
            entry = ArrayUnpickler(file, encoding="latin1").load()
    except Exception as error:  # a damaged pickle fails in any way it likes
        raise DataError(f"{path}: refused or damaged: {error or type(error).__name__}; fetch the file again") from error
    if not isinstance(entry, dict):
        raise DataError(f"{path}: holds a {type(entry).__name__}, expected a dictionary with 'data' and labels")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in entry.items()}


def read_batch(path: Path, label_key: str) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Images and labels of one batch file.

    Args:
        path: the file.
        label_key: ``labels`` (CIFAR-10) or ``fine_labels`` (CIFAR-100).

    Returns:
        uint8 images of shape ``[N, 3, 32, 32]`` and labels of shape ``[N]``.

    Raises:
        DataError: the file cannot be used.
    """
    entry = read_pickle(path)
    for key in ("data", label_key):
        if key not in entry:
            raise DataError(f"{path}: has no '{key}', only {', '.join(sorted(entry)) or 'nothing'}; is it this CIFAR?")
    data, labels = entry["data"], np.asarray(entry[label_key])
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise DataError(f"{path}: 'data' is not a uint8 array of shape [N, 3072]")
    if len(labels) != len(data):
        raise DataError(f"{path}: {len(data)} images but {len(labels)} labels")
    return data.reshape(-1, 3, 32, 32), labels
