"""Which samples make which update, and the loader that fetches them: the same for any number of processes, workers."""

import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from vision.engine.data import Sample
from vision.engine.errors import DataError, UserError
from vision.engine.seeding import generators_kept, seed_generators, seed_of
from vision.engine.task import Batch

Stream = tuple[int | str, ...]
"""What the samples of a pass are drawn for; sample i has the seed ``seed_of(*stream, i)``."""

SIGNAL_WITHIN = 5.0
"""Seconds that the signal of a worker's death may take after its connection was lost."""

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
        indices: of its samples.
        weight: what its mean loss counts for, so that the sum over shares is the mean over the whole batch
            (times the number of processes, as these average their gradients).
    """

    indices: list[int]
    weight: float


@dataclass(frozen=True)
class EpochPlan:
    """The order of the training samples, cut into updates, backward passes and processes.

    An update takes ``batch_size`` samples of a permutation seeded by (seed, epoch). They are cut into
    ``world * accumulate`` near-equal parts. Where a batch has fewer samples than that (the last of an epoch), backward
    passes without any sample are left out; in a pass that has samples for some processes only, the others repeat the
    batch's first sample with weight 0, so that every process takes part in every exchange. (BatchNorm sees that sample
    again: with fewer samples in a batch than processes, its statistics are not those of one process.)

    Attributes:
        samples: in the data set.
        batch_size: of one update, over all processes.
        drop_last: whether the last, smaller batch is left out.
        world: processes.
        rank: this process.
        accumulate: backward passes an update.
        seed: of the run.
        fixed: every update takes the first batch, with the same augmentation each time.
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
        return self.samples // self.batch_size if self.drop_last else math.ceil(self.samples / self.batch_size)

    def batch_of(self, update: int) -> int:
        """Samples in the batch of an epoch's update, over all processes."""
        return min(self.batch_size, self.samples - (0 if self.fixed else update) * self.batch_size)

    def stream(self, epoch: int) -> Stream:
        """What the samples of an epoch are seeded by."""
        return self.seed, "sample", 0 if self.fixed else epoch

    def shares(self, epoch: int, first: int = 0) -> list[list[Share]]:
        """This process's shares of each update of an epoch from update ``first`` on."""
        order = np.random.default_rng(seed_of(self.seed, "order", 0 if self.fixed else epoch)).permutation(self.samples)
        if self.fixed:
            return [self._cut(order[: self.batch_size])] * (self.updates - first)
        return [
            self._cut(order[update * self.batch_size : (update + 1) * self.batch_size])
            for update in range(first, self.updates)
        ]

    def _cut(self, batch: np.ndarray[Any, Any]) -> list[Share]:
        passes = min(self.accumulate, math.ceil(len(batch) / self.world))
        parts = np.array_split(batch, self.world * self.accumulate)[: self.world * passes]
        return [
            Share((part if len(part) else batch[:1]).tolist(), len(part) * self.world / len(batch))
            for part in parts[self.rank :: self.world]
        ]


class _Batches(Dataset[Batch | UserError]):
    """Whole batches by the indices of their samples, every sample drawn from its own seed."""

    def __init__(self, dataset: "Dataset[Sample]", stream: Stream, collate: Callable[[list[Sample]], Batch]) -> None:
        self.dataset, self.stream, self.collate = dataset, stream, collate

    def __getitem__(self, indices: list[int]) -> Batch | UserError:
        with generators_kept():
            try:
                return self.collate([self._sample(index) for index in indices])
            except UserError as error:  # a worker process would bury it in a traceback
                return error

    def _sample(self, index: int) -> Sample:
        seed_generators(seed_of(*self.stream, index))
        return self.dataset[index]


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the run: it may still want batches before it ends
        with suppress(ValueError):
            signal.signal(number, signal.SIG_IGN)


@cache
def _available(workers: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    if workers > cores:
        log.warning("trainer.workers: %d is more than the %d cores there are; taking %d", workers, cores, cores)
    return min(workers, cores)


def load(
    dataset: "Dataset[Sample]",
    batches: Iterable[list[int]],
    stream: Stream,
    collate: Callable[[list[Sample]], Batch],
    workers: int,
    pin: bool = False,
) -> Iterator[Batch]:
    """The batches in order, fetched by ``workers`` processes (0: by this one).

    Args:
        dataset: map-style.
        batches: the indices of each batch's samples.
        stream: what the samples are drawn for.
        collate: makes a batch of samples; it may draw random numbers too, from a state that follows from the samples.
        workers: at most one a core; more are warned about and left out.
        pin: into page-locked memory, for a GPU.

    Raises:
        UserError: what the data set raised.
    """
    loader = DataLoader(
        _Batches(dataset, stream, collate),
        sampler=cast(Iterable[Any], batches),
        batch_size=None,  # an item is a batch already
        collate_fn=_as_it_is,
        num_workers=_available(workers),
        worker_init_fn=_start_worker,
        # a generator of its own: starting an iterator must not draw from the global one
        generator=torch.Generator().manual_seed(0),
        pin_memory=pin,
    )
    with worker_deaths_told(), _lost_connections_told(loader.num_workers):
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch


@contextmanager
def worker_deaths_told() -> Iterator[None]:
    """Inside, a worker that died is a :class:`DataError`: torch raises wherever the process is when it hears of it.

    Raises:
        DataError: a worker was killed or ended, with what torch knows of how.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise DataError(
            f"{str(error).splitlines()[0].strip().rstrip('.')}: often for want of memory. Take fewer "
            "(trainer.workers=0: none); a training goes on from its last checkpoint with --resume"
        ) from error


@contextmanager
def _lost_connections_told(workers: int) -> Iterator[None]:
    """Inside, a connection to a worker that is lost is its death: torch may try to fetch a batch from it meanwhile.

    The signal of that death is awaited, as torch raises wherever the process is when it comes. What a data set raised
    in a worker stays what it is; torch begins it with "Caught".
    """
    try:
        yield
    except (ConnectionError, EOFError) as error:
        if workers == 0 or str(error).startswith("Caught "):
            raise
        time.sleep(SIGNAL_WITHIN)  # which torch's own error ends early
        raise RuntimeError(f"DataLoader worker is gone ({str(error) or type(error).__name__})") from error


def _as_it_is(batch: Any) -> Any:
    return batch
