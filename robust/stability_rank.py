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

    Raises:
        ConfigError: no run, or a selection that cannot be made.
        DataError: a run that tracked nothing, or runs on different data.

    Runs that were only begun for a try (``--dry-run``) are ranked by place.

    Source: Dong, Liu & Shang, arXiv 2102.07437; the random subset is ours.
    """

    runs: list[str]
    share: float = 0.5
    count: int | None = None
    balanced: bool = True
    seed: int = 0

    def run(self, folder: Path) -> dict[str, Any]:
        """Ranks and selects, and writes into ``folder``; what later stages may refer to is returned."""
        if not self.runs or not 0 < self.share < 1:
            raise ConfigError(f"stability_rank: {len(self.runs)} runs, share {self.share}; expected some, in (0, 1)")
        found = [self._rank(Path(name), folder / f"seed{i}.npz") for i, name in enumerate(self.runs)]
        names, labels = found[0][1]
        if any(other[1][0] != names for other in found):
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

    def _rank(self, folder: Path, file: Path) -> tuple[Array, tuple[list[str], np.ndarray]]:
        run = RunFolder(folder)
        if not run.config.is_file():
            raise ConfigError(f"{folder}: not a run folder; expected one that tools/train.py made")
        data = build(load(run.config).recipe().data, "data")
        if not isinstance(data, ClassificationData):
            raise ConfigError(f"{folder}: its data are no classes of images; expected a classification run")
        images = data.listed("train")
        about = (images.ids, images.labels.numpy())
        if not run.metrics.is_file():
            dataset: Any = data.train()
            trained = set(dataset.images.ids)
            return np.array([i / len(images) if n in trained else np.nan for i, n in enumerate(images.ids)]), about
        tracker = tracker_of(read_resume(run.resume_state), data, str(run.resume_state))
        tracker.save(file)
        return tracker.rank(), about

    def _count(self, rank: Array, labels: np.ndarray) -> int:
        if self.count is not None:
            return self.count
        known = ~np.isnan(rank)
        if not self.balanced:
            return max(int(self.share * known.sum()), 1)
        sizes = [int((known & (labels == c)).sum()) for c in np.unique(labels)]
        return max(int(self.share * min(sizes)), 1) * len(sizes)


def agreement(a: Array, b: Array) -> float:
    """Spearman's correlation of two ranks ``[N]``, over samples that neither masks."""
    both = ~(np.isnan(a) | np.isnan(b))
    return float(spearmanr(a[both], b[both]).statistic)
