"""What a task's data looks like to the trainer: map-style data sets of dictionaries with an ``id``."""

from abc import ABC, abstractmethod
from typing import Any

from torch.utils.data import Dataset

Sample = dict[str, Any]
"""One sample: a dictionary that holds at least ``id``, a string unique within its data set."""


class DataModule(ABC):
    """The ``data`` block of a recipe: where the three splits of a data set come from.

    Every data set is map-style; an item is a :data:`Sample`. Randomness (augmentation) is drawn from the global
    generators of torch, numpy or random only: the loader seeds all three for each sample from
    (run seed, epoch, index), so that an augmentation does not depend on workers, processes or resuming.
    """

    @abstractmethod
    def train(self) -> "Dataset[Sample]":
        """Training samples, augmented."""

    @abstractmethod
    def val(self) -> "Dataset[Sample]":
        """Validation samples: everything is chosen on these."""

    def test(self) -> "Dataset[Sample] | None":
        """Test samples, or None where the data set has no test split."""
        return None
