"""Data quality in adversarial training: how stably each sample is learnt (Dong, Liu & Shang, arXiv 2102.07437)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision.classification.npz import DAMAGED
from vision.classification.subset import check_indices
from vision.engine.errors import ConfigError, DataError
from vision.engine.files import replacing

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


class StabilityTracker:
    r"""Counts, for each training sample, the epochs in which its adversarial example was classified wrongly.

    With :math:`c_i^t = 1` where sample :math:`i` is right in epoch :math:`t` of :math:`T`, by the very forward pass
    that trains (train mode, so for free):

    .. math:: s_i = \frac1T \sum_t c_i^t, \qquad u_i = T (1 - s_i), \qquad r_i = \mathrm{rank}(u)_i / N

    A low rank is a stable, *friendly* sample; a high one a *problematic* one. Samples that are always right and
    samples that are never right differ here, unlike in counts of forgetting.

    Args:
        count: N, samples of the whole data set.
        subset: those that are trained on, by their place in ``[0, N)``; the others are masked. None is all of them.
        start_epoch: epochs before this one do not count towards :math:`u_i`; the paper counts all.

    Raises:
        DataError: indices out of range or repeated.

    Deviation: ties, of which there are many, are broken by the order of samples (a stable sort), not by the release's
    unstable one.

    Source: section 3 of the paper; the authors' release.
    """

    def __init__(self, count: int, subset: Sequence[int] | Indices | None = None, start_epoch: int = 0) -> None:
        if count < 1 or start_epoch < 0:
            raise ConfigError(f"count is {count} and start_epoch {start_epoch}; expected at least 1 and 0")
        self.count, self.start_epoch, self.epochs = count, start_epoch, 0
        self.mask = np.zeros(count, dtype=bool)
        self.mask[np.arange(count) if subset is None else check_indices(subset, count, "subset")] = True
        self._history: list[NDArray[np.uint8]] = []
        self._begin()

    def _begin(self) -> None:
        self._seen, self._right = np.zeros(self.count, dtype=bool), np.zeros(self.count, dtype=bool)

    def update(self, indices: Tensor | Sequence[int] | Indices, predicted: Tensor, labels: Tensor) -> None:
        """Takes the answers to one batch.

        Args:
            indices: places of the samples, ``[N]``.
            predicted: logits ``[N, C]`` or classes ``[N]``, on the adversarial examples that were trained on.
            labels: assigned classes, ``[N]``.

        Raises:
            DataError: a sample that is masked, unknown, or was seen before in this epoch.
        """
        places = np.asarray(indices.cpu() if isinstance(indices, Tensor) else indices, dtype=np.int64)
        found = check_indices(places, self.count, "indices of a batch")
        if not self.mask[found].all():
            raise DataError(f"sample {found[~self.mask[found]][0]} is not in the tracked subset")
        if self._seen[found].any():
            raise DataError(f"sample {found[self._seen[found]][0]} was seen twice in epoch {self.epochs}")
        classes = predicted.argmax(1) if predicted.ndim == 2 else predicted
        self._right[found] = (classes == labels.to(classes.device)).detach().cpu().numpy()
        self._seen[found] = True

    def end_epoch(self) -> None:
        """Closes an epoch.

        Raises:
            DataError: a sample was not seen in it.
        """
        missing = np.flatnonzero(self.mask & ~self._seen)
        if len(missing):
            raise DataError(
                f"{len(missing)} samples were not seen in epoch {self.epochs}, the first is {missing[0]}; every sample "
                "must be seen once an epoch: set trainer.drop_last: false"
            )
        self._history.append(np.packbits(self._right))
        self.epochs += 1
        self._begin()

    @property
    def history(self) -> NDArray[np.int8]:
        """1 right, 0 wrong, -1 masked; int8, shape ``[T, N]``. It is kept as bits."""
        rows = [np.unpackbits(row, count=self.count) for row in self._history]
        found = np.stack(rows).astype(np.int8) if rows else np.zeros((0, self.count), dtype=np.int8)
        found[:, ~self.mask] = -1
        return found

    @property
    def counted(self) -> int:
        """Epochs that count: T."""
        return max(self.epochs - self.start_epoch, 0)

    @property
    def count_wrong(self) -> Indices:
        """Epochs u in which a sample was wrong, shape ``[N]``; -1 where masked."""
        wrong = (self.history[self.start_epoch :] == 0).sum(axis=0).astype(np.int64)
        return np.where(self.mask, wrong, -1)

    @property
    def stability(self) -> Array:
        """S in [0, 1], higher is better, shape ``[N]``; NaN where masked.

        Raises:
            DataError: no epoch has ended that counts.
        """
        if not self.counted:
            raise DataError(f"{self.epochs} epochs have ended and those before {self.start_epoch} do not count")
        return np.where(self.mask, 1 - self.count_wrong / self.counted, np.nan)

    @property
    def first_learned(self) -> Indices:
        """The first epoch, from 0, in which a sample was right, shape ``[N]``; -1 never, -2 masked."""
        right = self.history == 1
        first = np.where(right.any(axis=0), right.argmax(axis=0), -1) if len(right) else np.full(self.count, -1)
        return np.where(self.mask, first, -2).astype(np.int64)

    def rank(self) -> Array:
        """R in [0, 1) over the samples that are not masked, shape ``[N]``; NaN where masked."""
        found = np.full(self.count, np.nan)
        found[self.mask] = normalised_rank(1 - self.stability[self.mask])
        return found

    def state(self) -> Tensor:
        """The epochs that have ended, as bits: uint8, shape ``[T, ceil(N / 8)]``."""
        width = (self.count + 7) // 8
        return torch.from_numpy(np.stack(self._history) if self._history else np.zeros((0, width), np.uint8))

    def begun(self) -> dict[str, NDArray[np.bool_]]:
        """What the epoch that has not ended has ``seen``, and got ``right``, each of shape ``[N]``."""
        return {"seen": self._seen, "right": self._right}

    def restore(self, state: Tensor, begun: dict[str, NDArray[np.bool_]] | None = None) -> None:
        """Goes back to what :meth:`state` and :meth:`begun` gave; without the latter the epoch begins anew.

        Raises:
            DataError: the state is that of another number of samples.
        """
        rows = state.cpu().numpy()
        if rows.ndim != 2 or rows.shape[1] != (self.count + 7) // 8:
            raise DataError(f"a tracker of {self.count} samples cannot take a state of shape {list(rows.shape)}")
        self._history = [row.copy() for row in rows]
        self.epochs = len(self._history)
        self._begin()
        if begun is not None:
            self._seen, self._right = begun["seen"].copy(), begun["right"].copy()

    def save(self, path: Path) -> None:
        """Writes ``rank``, ``count_wrong``, ``first_learned``, ``stability`` and ``history`` (bits) as npz."""
        arrays = {
            "rank": self.rank(),
            "count_wrong": self.count_wrong,
            "first_learned": self.first_learned,
            "stability": self.stability,
            "history": self.state().numpy(),
        }
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def normalised_rank(scores: NDArray[np.generic]) -> Array:
    """``argsort(argsort(scores)) / N`` by a stable sort: 0 for the smallest of N scores, below 1 for the largest.

    Example:
        >>> normalised_rank(np.array([3, 1, 1])).round(2).tolist()
        [0.67, 0.0, 0.33]
    """
    order = np.argsort(scores, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank / len(order)


def merge_ranks(ranks: Sequence[Array]) -> Array:
    """One rank from those of several seeds: their mean, ranked again; NaN where any is masked.

    Args:
        ranks: normalised ranks, each of shape ``[N]``.

    Raises:
        DataError: none, or of different lengths.

    Source: the authors' release; the published CIFAR-10 rank is that of ten runs.
    """
    if not ranks or len({np.shape(rank) for rank in ranks}) != 1:
        raise DataError(f"ranks have shapes {[list(np.shape(rank)) for rank in ranks]}; expected several of one shape")
    mean = np.mean([np.asarray(rank, dtype=np.float64) for rank in ranks], axis=0)
    known = ~np.isnan(mean)
    merged = np.full(len(mean), np.nan)
    merged[known] = normalised_rank(mean[known])
    return merged


def read_rank(path: Path) -> Array:
    """The array ``rank`` of an npz file, as :meth:`StabilityTracker.save` writes it.

    Raises:
        DataError: no such file, or none that holds a rank.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            rank = np.asarray(archive["rank"], dtype=np.float64)
    except DAMAGED as error:
        raise DataError(f"{path}: holds no array 'rank' ({error}); give a rank.npz of a data-quality run") from error
    if rank.ndim != 1:
        raise DataError(f"{path}: 'rank' has shape {list(rank.shape)}, expected [N]")
    return rank


def save_rank(path: Path, rank: Array) -> None:
    """Writes an npz file that :func:`read_rank` reads."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, rank=rank)


def select_friendly(
    rank: NDArray[np.generic], count: int, labels: NDArray[np.integer] | None = None, balanced: bool = False
) -> Indices:
    """The ``count`` samples of lowest rank: the most stable.

    Args:
        rank: of each sample, shape ``[N]``; NaN where masked, and then never selected.
        count: how many.
        labels: classes ``[N]``; needed where ``balanced``.
        balanced: the best ``count / C`` of each of C classes, as in the published halves of CIFAR-10.

    Returns:
        Places of the samples, ascending.

    Raises:
        ConfigError: more than there are, a count that C does not divide, or no labels.

    Source: the authors' release.
    """
    return _select(np.asarray(rank, dtype=np.float64), count, labels, balanced)


def select_problematic(
    rank: NDArray[np.generic], count: int, labels: NDArray[np.integer] | None = None, balanced: bool = False
) -> Indices:
    """The ``count`` samples of highest rank: the least stable. Otherwise as :func:`select_friendly`."""
    values = np.asarray(rank, dtype=np.float64)
    reverse = slice(None, None, -1)  # so that ties fall to the other side, and halves never overlap
    chosen = _select(-values[reverse], count, None if labels is None else np.asarray(labels)[reverse], balanced)
    return np.sort(len(values) - 1 - chosen)


def _select(rank: Array, count: int, labels: NDArray[np.integer] | None, balanced: bool) -> Indices:
    groups = [np.flatnonzero(~np.isnan(rank))]
    if balanced:
        if labels is None:
            raise ConfigError("a balanced selection needs the labels")
        if len(labels) != len(rank):
            raise ConfigError(
                f"the rank has {len(rank)} samples and there are {len(labels)} labels; give those of one set"
            )
        groups = [np.flatnonzero((labels == each) & ~np.isnan(rank)) for each in np.unique(labels)]
    share, rest = divmod(count, len(groups))
    fewest = min(len(group) for group in groups)
    if rest or not 0 < share <= fewest:
        wanted = f"a multiple of {len(groups)} up to {fewest * len(groups)}" if balanced else f"1 to {fewest}"
        raise ConfigError(f"count: cannot select {count} samples; expected {wanted}")
    return np.sort(np.concatenate([group[np.argsort(rank[group], kind="stable")[:share]] for group in groups]))
