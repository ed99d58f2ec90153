"""Training data whose samples say where they stand, for tables with a row a sample."""

from collections.abc import Sized
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from vision.engine.data import Sample
from vision.engine.errors import DataError


class IndexedDataset(Dataset[Sample]):
    """A data set whose samples also hold ``index``: their place in it, in ``[0, len)``.

    Args:
        dataset: map-style, with samples that keep their places.

    Raises:
        DataError: it has no length, or another sample comes when the same place is asked for again: then a sample has
            no stable index.
    """

    def __init__(self, dataset: "Dataset[Sample]") -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise DataError(
                f"{type(dataset).__name__}: its samples carry no stable index, as it is a stream; "
                "expected a data set with a length, read by place"
            )
        self.dataset = dataset
        for place in sorted({0, len(self) // 2, len(self) - 1}) if len(self) else ():
            before, again = dataset[place]["id"], dataset[place]["id"]
            if before != again:
                raise DataError(
                    f"{type(dataset).__name__}: its samples carry no stable index: place {place} gave '{before}', "
                    f"then '{again}'; expected the same sample each time (shuffling is the trainer's)"
                )

    def __len__(self) -> int:
        return len(cast(Sized, self.dataset))

    def __getitem__(self, index: int) -> Sample:
        return {**self.dataset[index], "index": index}

    def labels(self) -> Tensor:
        """The class of every sample, int64, shape ``[N]``."""
        images = getattr(self.dataset, "images", None)
        if images is not None and isinstance(getattr(images, "labels", None), Tensor):
            labels: Tensor = images.labels
            return labels
        return torch.tensor([int(self.dataset[place]["label"]) for place in range(len(self))], dtype=torch.int64)
