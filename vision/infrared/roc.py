"""Receiver operating characteristics over pixels and over targets, from one small record an image."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision.infrared.metrics import match_targets

THRESHOLDS = (0.01, 0.02, 0.05, *(k / 10 for k in range(1, 10)), 0.95, 0.98, 0.99)
BINS = 200
FALSE_ALARM_LIMIT = 100.0  # x 1e-6


@dataclass(frozen=True)
class CurveRecord:
    """What the curves need to know of one image.

    Attributes:
        pixels: pixels of the image.
        targets: true regions.
        true_histogram: int64 ``[B]``, true pixels by probability in equal bins of [0, 1].
        false_histogram: int64 ``[B]``, background pixels likewise.
        thresholds: probabilities at which targets were matched.
        found: matched targets at each threshold.
        false_pixels: pixels of unmatched predicted regions at each threshold.
    """

    pixels: int
    targets: int
    true_histogram: NDArray[np.int64]
    false_histogram: NDArray[np.int64]
    thresholds: tuple[float, ...]
    found: tuple[int, ...]
    false_pixels: tuple[int, ...]


def curve_record(
    probability: NDArray[np.floating],
    gt_mask: NDArray[np.bool_],
    thresholds: Sequence[float] = THRESHOLDS,
    bins: int = BINS,
    distance: float = 3.0,
) -> CurveRecord:
    """Record one image for :func:`roc`.

    Args:
        probability: float, shape ``[H, W]``, in [0, 1].
        gt_mask: bool, shape ``[H, W]``.
        thresholds: for the target-level curve.
        bins: resolution of the pixel-level curve.
        distance: as in :func:`vision.infrared.metrics.match_targets`.
    """
    cells = np.minimum((probability * bins).astype(np.int64), bins - 1)
    matches = [match_targets(probability > threshold, gt_mask, distance) for threshold in thresholds]
    return CurveRecord(
        pixels=gt_mask.size,
        targets=len(matches[0].target_areas) if matches else 0,
        true_histogram=np.bincount(cells[gt_mask], minlength=bins),
        false_histogram=np.bincount(cells[~gt_mask], minlength=bins),
        thresholds=tuple(thresholds),
        found=tuple(sum(match.target_found) for match in matches),
        false_pixels=tuple(match.false_pixels for match in matches),
    )


def roc(records: Iterable[CurveRecord], fa_limit: float = FALSE_ALARM_LIMIT) -> dict[str, Any]:
    """Pixel-level and target-level curves of a data set and the areas under them.

    The pixel level is the true against the false positive rate. The target level is Pd against Fa; neither falls
    steadily with the threshold, because regions merge and split, so its area is taken under the best Pd that any
    threshold reaches at no more than a given Fa, from 0 to ``fa_limit``, divided by ``fa_limit``.

    Args:
        records: one an image, all with the same thresholds and bins.
        fa_limit: upper end of Fa, times 1e-6.

    Returns:
        Lists ``FPR`` and ``TPR`` (rising, from 0 to 1), ``thresholds``, ``Pd`` and ``Fa`` (times 1e-6) at each, and
        ``AUC_pixel``, ``AUC_target`` in [0, 1] (``AUC_pixel`` is None without both kinds of pixels).

    Raises:
        ValueError: no record, or records of different thresholds.
    """
    records = list(records)
    if not records or any(record.thresholds != records[0].thresholds for record in records):
        raise ValueError("a curve needs at least one record, and the same thresholds in all of them")
    true = np.sum([record.true_histogram for record in records], axis=0)[::-1].cumsum()
    false = np.sum([record.false_histogram for record in records], axis=0)[::-1].cumsum()
    tpr, fpr = (np.concatenate(([0.0], counts / max(counts[-1], 1))) for counts in (true, false))
    found = np.sum([record.found for record in records], axis=0)
    pd = found / max(sum(record.targets for record in records), 1)
    fa = 1e6 * np.sum([record.false_pixels for record in records], axis=0) / sum(record.pixels for record in records)
    return {
        "FPR": fpr.tolist(),
        "TPR": tpr.tolist(),
        "AUC_pixel": float(np.trapezoid(tpr, fpr)) if true[-1] and false[-1] else None,
        "thresholds": list(records[0].thresholds),
        "Pd": pd.tolist(),
        "Fa": fa.tolist(),
        "AUC_target": _area_under_best(fa, pd, fa_limit),
    }


def _area_under_best(fa: NDArray[np.float64], pd: NDArray[np.float64], limit: float) -> float:
    """Area under ``max { Pd : Fa <= x }`` for ``x`` in [0, limit], divided by ``limit``."""
    order = np.argsort(fa, kind="stable")
    fa, best = fa[order], np.maximum.accumulate(pd[order])
    ends = np.minimum(np.append(fa[1:], limit), limit)
    return float((best * np.maximum(ends - np.minimum(fa, limit), 0)).sum() / limit)
