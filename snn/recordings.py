"""Labelled recordings: in one packed npz file, or in one file each."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snn.events import Events, checked, read_events
from vision.classification.images import Indices, check_labels
from vision.classification.npz import npz_keys, read_npz
from vision.engine.errors import DataError


@dataclass(frozen=True)
class Recordings:
    """N labelled recordings.

    Attributes:
        ids: the name of each, unique within the data set.
        labels: int64, shape ``[N]``.
        height: of the sensor, rows.
        width: of the sensor, columns.
        files: one each; empty where they are packed.
        pack: arrays ``t``, ``x``, ``y``, ``p`` of all, and where each begins.
    """

    ids: list[str]
    labels: Tensor
    height: int
    width: int
    files: Sequence[Path] = ()
    pack: tuple[dict[str, NDArray[Any]], Sequence[tuple[int, int]]] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: Indices) -> "Recordings":
        """Those at the given positions."""
        kept = [int(index) for index in indices]
        return replace(
            self,
            ids=[self.ids[k] for k in kept],
            labels=self.labels[torch.tensor(kept, dtype=torch.int64)],
            files=[self.files[k] for k in kept] if self.files else (),
            pack=None if self.pack is None else (self.pack[0], [self.pack[1][k] for k in kept]),
        )

    def read(self, index: int) -> Events:
        """Recording ``index``.

        Raises:
            DataError: it cannot be read, or holds what no camera of this size gives.
        """
        name = self.ids[index]  # an IndexError beyond the end
        if self.pack is None:
            return checked(read_events(self.files[index]), self.height, self.width, str(self.files[index]))
        arrays, bounds = self.pack
        start, end = bounds[index]
        part = {key: array[start:end] for key, array in arrays.items()}
        part["t"] = np.cumsum(part.pop("dt"), dtype=np.int64)
        return checked(Events(**part), self.height, self.width, name)


def packed(path: Path, height: int, width: int, classes: int) -> tuple[Recordings, NDArray[np.bool_] | None]:
    """All recordings of one npz file, and which of them are for test where it says so.

    The file holds of all events ``x`` and ``y`` (uint8), ``p`` (bits, packed by ``numpy.packbits``) and ``dt`` (int32,
    microseconds since the event before; of the first its own time); ``offsets`` (where each recording begins, and the
    end), ``label``, and where there are, ``sample_id`` and ``is_test``.

    Raises:
        DataError: a missing, truncated or damaged file, or one that holds something else.
    """
    wanted: dict[str, tuple[str, tuple[int | None, ...]]] = {
        "x": ("uint8", (None,)), "y": ("uint8", (None,)), "p": ("uint8", (None,)), "dt": ("int32", (None,)),
        "offsets": ("integer", (None,)), "label": ("integer", (None,)),
    }  # fmt: skip
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; check data.root")
    extra = {"sample_id": ("integer", (None,)), "is_test": ("uint8", (None,))}
    there = npz_keys(path)
    arrays = read_npz(path, wanted | {key: kind for key, kind in extra.items() if key in there})
    offsets, count = arrays["offsets"], len(arrays["label"])
    total = len(arrays["x"])
    if len(offsets) != count + 1:
        raise DataError(f"{path}: {count} labels need {count + 1} offsets, not {len(offsets)}")
    if offsets[0] != 0 or np.any(np.diff(offsets) < 0) or offsets[-1] != total:
        raise DataError(f"{path}: 'offsets' do not rise from 0 to the {total} events of 'x'; the file is truncated")
    bits = np.unpackbits(arrays["p"])
    if len(arrays["y"]) != total or len(arrays["dt"]) != total or not total <= len(bits) < total + 8:
        raise DataError(f"{path}: x, y, p and dt are not of the same {total} events; the file is truncated")
    numbers = arrays.get("sample_id", np.arange(count))
    if len(numbers) != count or len(arrays.get("is_test", numbers)) != count:
        raise DataError(f"{path}: 'sample_id' and 'is_test' must have a value for each of the {count} labels")
    test = arrays["is_test"].astype(bool) if "is_test" in arrays else None
    ids = [f"{path.stem}/{number:05d}" for number in numbers]
    events = {"x": arrays["x"], "y": arrays["y"], "p": bits[:total], "dt": arrays["dt"]}
    bounds = [(int(a), int(b)) for a, b in pairwise(offsets)]
    labels = check_labels(arrays["label"], classes, str(path))
    return Recordings(ids, labels, height, width, pack=(events, bounds)), test
