"""Which samples make which update, and the loaders that fetch them: the same for any number of processes and workers."""

import logging
import math
import os
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from vision.engine.data import Sample
from vision.engine.errors import DataError
from vision.engine.seeding import seed_of, seeded

Key = tuple[int, int]
"""A sample to fetch: its index and the seed of its randomness."""

log = logging.getLogger(__name__)


def size_of(dataset: "Dataset[Sample]", what: str) -> int:
    """The number of samples.

    Raises:
        DataError: there are none.
    """
    size = len(cast(Sized, dataset))
    if size == 0:
        raise DataError(f"the {what} split is empty; expected at least one sample: check data.root and the split")
    return size


@dataclass(frozen=True)
class Share:
    """One process's part of one backward pass.

    Attributes:
        keys: its samples.
        weight: what its mean loss counts for, so that the sum over shares is the mean over the whole batch
            (times the number of processes, as these average their gradients).
    """

    keys: list[Key]
    weight: float


@dataclass(frozen=True)
class EpochPlan:
    """The order of the training samples, cut into updates, backward passes and processes.

    An update takes ``batch_size`` samples of a permutation seeded by (seed, epoch). They are cut into
    ``world * accumulate`` near-equal parts. A part without samples (in the last, smaller batch of an epoch) repeats
    the batch's first sample with weight 0, so that every process takes part in every backward pass.

    Attributes:
        samples: in the data set.
        batch_size: of one update, over all processes.
        drop_last: whether the last, smaller batch is left out.
        world: processes.
        rank: this process.
        accumulate: backward passes an update.
        seed: of the run.
        fixed: train on the first batch only, with the same augmentation each time.
    """

    samples: int
    batch_size: int
    drop_last: bool
    world: int
    rank: int
    accumulate: int
    seed: int
    fixed: bool = False

    @property
    def updates(self) -> int:
        """Updates in an epoch."""
        if self.fixed:
            return 1
        return self.samples // self.batch_size if self.drop_last else math.ceil(self.samples / self.batch_size)

    def shares(self, epoch: int, first: int = 0) -> list[list[Share]]:
        """This process's shares of each update of an epoch from update ``first`` on."""
        epoch = 0 if self.fixed else epoch
        order = np.random.default_rng(seed_of(self.seed, "order", epoch)).permutation(self.samples)
        return [
            self._cut(epoch, order[start * self.batch_size : (start + 1) * self.batch_size])
            for start in range(first, self.updates)
        ]

    def _cut(self, epoch: int, batch: np.ndarray[Any, Any]) -> list[Share]:
        parts = np.array_split(batch, self.world * self.accumulate)
        mine = parts[self.rank :: self.world]
        return [
            Share(
                [(int(i), seed_of(self.seed, "sample", epoch, int(i))) for i in (part if len(part) else batch[:1])],
                len(part) * self.world / len(batch),
            )
            for part in mine
        ]


class _Seeded(Dataset[Sample]):
    """Fetches samples by :data:`Key`, each with its own seed."""

    def __init__(self, dataset: "Dataset[Sample]") -> None:
        self.dataset = dataset

    def __getitem__(self, key: Key) -> Sample:
        index, seed = key
        with seeded(seed):
            return self.dataset[index]


def _one_thread(_: int) -> None:
    info = get_worker_info()
    assert info is not None
    torch.set_num_threads(1)


def load(
    dataset: "Dataset[Sample]",
    batches: list[list[Key]],
    collate: Callable[[list[Sample]], dict[str, Any]],
    workers: int,
) -> Iterator[dict[str, Any]]:
    """The batches of samples in order, fetched by ``workers`` processes (0: by this one)."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    if workers > available:
        log.warning("workers=%d is more than the %d cores there are; taking %d", workers, available, available)
        workers = available
    return iter(
        DataLoader(
            _Seeded(dataset),
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=workers,
            worker_init_fn=_one_thread,
            # a generator of its own: starting an iterator must not draw from the global one
            generator=torch.Generator().manual_seed(0),
            pin_memory=torch.cuda.is_available(),
        )
    )
