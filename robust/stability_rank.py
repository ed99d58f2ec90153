"""One command from tracked runs to a rank of the training samples and the subsets that follow from it."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from robust.data_quality import Array, merge_ranks, save_rank, select_friendly, select_problematic
from robust.tracking import tracker_of
from vision.classification.data import ClassificationData
from vision.classification.images import Images
from vision.classification.subset import save_subset
from vision.engine.checkpoint import read_resume
from vision.engine.config import load
from vision.engine.errors import ConfigError, DataError
from vision.engine.files import write_json
from vision.engine.registry import build, register
from vision.engine.run import RunFolder

log = logging.getLogger(__name__)


@register("stability_rank", kind="step")
@dataclass
class StabilityRank:
    """Ranks training samples by how stably tracked runs learnt them, and writes subsets to train on.

    Written are ``rank.npz`` (the merged rank, NaN for samples that were not trained on), ``friendly.txt``,
    ``problematic.txt`` and ``random.txt`` (places, for ``data.subset``; the random one is the control), one
    ``seed<i>.npz`` a run with counts and the history, and ``data_quality.json``.

    Args:
        runs: folders of runs with ``task.track_stability: true``, on the same data, with different seeds.
        share: of the samples in each subset, in (0, 1).
        count: instead of ``share``, how many samples.
        balanced: the same number of each class, as in the published halves of CIFAR-10.
        seed: of the random subset.
        start_epoch: epochs before this one do not count; the paper counts all.

    Raises:
        ConfigError: no run, or a selection that cannot be made.
        DataError: a run that tracked nothing, or runs on different data.

    Source: Dong, Liu & Shang, arXiv 2102.07437; the random subset is ours.
    """

    runs: list[str]
    share: float = 0.5
    count: int | None = None
    balanced: bool = True
    seed: int = 0
    start_epoch: int = 0

    def run(self, folder: Path) -> dict[str, Any]:
        """Ranks and selects, and writes into ``folder``; what later stages may refer to is returned."""
        return self._select(folder, [self._rank(Path(run), folder / f"seed{i}.npz") for i, run in enumerate(self.runs)])

    def rehearse(self, folder: Path) -> dict[str, Any]:
        """:meth:`run` with samples ranked by their place, for a dry run, which tracks nothing."""
        ranks = []
        for run in self.runs:
            data = _data_of(Path(run))
            listed, dataset = data.listed("train"), data.train()
            trained = set(dataset.images.ids)  # type: ignore[attr-defined]
            places = [i / len(listed) if name in trained else np.nan for i, name in enumerate(listed.ids)]
            ranks.append((np.array(places), listed))
        return self._select(folder, ranks)

    def _select(self, folder: Path, found: list[tuple[Array, Images]]) -> dict[str, Any]:
        if not self.runs or not 0 < self.share < 1:
            raise ConfigError(f"stability_rank: {len(self.runs)} runs, share {self.share}; expected some, in (0, 1)")
        names, labels = found[0][1].ids, found[0][1].labels.numpy()
        if any(images.ids != names for _, images in found):
            raise DataError("stability_rank: the runs were trained on different data; give runs of one data set")
        ranks = [rank for rank, _ in found]
        rank = merge_ranks(ranks)
        count = self._count(rank, labels)
        draw = np.where(np.isnan(rank), np.nan, np.random.default_rng(self.seed).random(len(rank)))
        subsets = {
            "friendly": select_friendly(rank, count, labels, self.balanced),
            "problematic": select_problematic(rank, count, labels, self.balanced),
            "random": select_friendly(draw, count, labels, self.balanced),
        }
        save_rank(folder / "rank.npz", rank)
        for name, indices in subsets.items():
            save_subset(folder / f"{name}.txt", indices)
        between = [agreement(a, b) for i, a in enumerate(ranks) for b in ranks[i + 1 :]]
        classes = len(np.unique(labels))
        write_json(
            folder / "data_quality.json",
            {
                "samples": int((~np.isnan(rank)).sum()),
                "count": count,
                "spearman_between_runs": between,
                "mean_rank_by_class": [float(np.nanmean(rank[labels == c])) for c in range(classes)],
                "classes": {name: np.bincount(labels[i], minlength=classes).tolist() for name, i in subsets.items()},
            },
        )
        log.info("ranked %d samples of %d runs; %d in each subset", (~np.isnan(rank)).sum(), len(ranks), count)
        result: dict[str, Any] = {name: str(folder / f"{name}.txt") for name in subsets}
        if between:
            result["spearman"] = float(np.mean(between))
        return {**result, "rank": str(folder / "rank.npz"), "count": count}

    def _rank(self, folder: Path, file: Path) -> tuple[Array, Images]:
        data, run = _data_of(folder), RunFolder(folder)
        tracker = tracker_of(read_resume(run.resume_state), data, str(run.resume_state), self.start_epoch)
        tracker.save(file)
        return tracker.rank(), data.listed("train")

    def _count(self, rank: Array, labels: np.ndarray) -> int:
        if self.count is not None:
            return self.count
        known = ~np.isnan(rank)
        if not self.balanced:
            return max(int(self.share * known.sum()), 1)
        sizes = [int((known & (labels == c)).sum()) for c in np.unique(labels)]
        return max(int(self.share * min(sizes)), 1) * len(sizes)


def _data_of(folder: Path) -> ClassificationData:
    config = RunFolder(folder).config
    if not config.is_file():
        raise ConfigError(f"{folder}: not a run folder; expected one that tools/train.py made")
    data = build(load(config).recipe().data, "data")
    if not isinstance(data, ClassificationData):
        raise ConfigError(f"{folder}: its data are no classes of images; expected a classification run")
    return data


def agreement(a: Array, b: Array) -> float:
    """Spearman's correlation of two ranks ``[N]``, over samples that neither masks."""
    both = ~(np.isnan(a) | np.isnan(b))
    return float(spearmanr(a[both], b[both]).statistic)
