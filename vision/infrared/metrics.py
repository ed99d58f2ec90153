"""The metrics of infrared small-target detection, each from one small record an image.

``match_targets`` runs where the image is; ``score`` and the others run once over all records, so that a score does not
depend on how images were spread over processes. Pixel and target metrics follow the code of the BasicIRSTD benchmark;
regions are 8-connected.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vision.infrared.clutter import signal_to_clutter
from vision.infrared.detection import Regions, label_regions

Mask = NDArray[np.bool_]

SIZE_EDGES = (0.0, 9.0, 20.0, 50.0, 81.0, np.inf)
CONTRAST_EDGES = (0.0, 2.0, 4.0, 8.0, 16.0, np.inf)


@dataclass(frozen=True)
class MatchRecord:
    """What scoring needs to know of one image.

    Attributes:
        pixels: pixels of the image.
        overlap: pixels both predicted and true (TP).
        predicted: predicted pixels (P).
        true: true pixels (T).
        target_areas: pixels of each true region.
        target_found: whether each true region was matched.
        target_contrasts: SCR of each true region in the image; empty when no image was given.
        regions: predicted regions.
        false_regions: predicted regions that match no target.
        false_pixels: pixels of those regions.
        false_pixels_legacy: the same without regions whose area equals that of a matched region of this image.
    """

    pixels: int
    overlap: int
    predicted: int
    true: int
    target_areas: tuple[int, ...]
    target_found: tuple[bool, ...]
    target_contrasts: tuple[float, ...]
    regions: int
    false_regions: int
    false_pixels: int
    false_pixels_legacy: int


def _assign(predicted: Regions, true: Regions, distance: float) -> tuple[list[bool], NDArray[np.bool_]]:
    """Which true regions are found and which predicted regions are used, in label order, first come first served."""
    used = np.zeros(len(predicted), dtype=bool)
    found = []
    for centroid in true.centroids:
        offsets = predicted.centroids - centroid
        near = np.flatnonzero((np.hypot(offsets[:, 0], offsets[:, 1]) < distance) & ~used)
        found.append(near.size > 0)
        used[near[:1]] = True
    return found, used


def match_targets(
    pred_mask: NDArray[np.generic],
    gt_mask: NDArray[np.generic],
    distance: float = 3.0,
    image: NDArray[np.floating] | None = None,
) -> MatchRecord:
    """Compare a predicted mask with the true one.

    For each true region, in label order, the first predicted region not yet used whose centroid lies nearer than
    ``distance`` is its match.

    Args:
        pred_mask: bool or 0/1, shape ``[H, W]``.
        gt_mask: bool or 0/1, shape ``[H, W]``.
        distance: pixels, exclusive.
        image: float, shape ``[H, W]``; where given, the contrast of each target is recorded.

    Raises:
        ValueError: two masks of different size.

    Source: BasicIRSTD; the legacy false alarm is that of the DNANet and SCTransNet code.
    """
    if pred_mask.shape != gt_mask.shape:
        raise ValueError(f"predicted mask {pred_mask.shape} and true mask {gt_mask.shape} differ in size")
    pred: Mask = pred_mask.astype(bool, copy=False)
    truth: Mask = gt_mask.astype(bool, copy=False)
    predicted, true = label_regions(pred), label_regions(truth)
    found, used = _assign(predicted, true, distance)
    legacy = ~np.isin(predicted.areas, predicted.areas[used])
    return MatchRecord(
        pixels=truth.size,
        overlap=int((pred & truth).sum()),
        predicted=int(pred.sum()),
        true=int(truth.sum()),
        target_areas=tuple(true.areas.tolist()),
        target_found=tuple(found),
        target_contrasts=() if image is None else tuple(signal_to_clutter(image, truth)),
        regions=len(predicted),
        false_regions=int((~used).sum()),
        false_pixels=int(predicted.areas[~used].sum()),
        false_pixels_legacy=int(predicted.areas[legacy].sum()),
    )


def _ratio(part: float, whole: float) -> float:
    """``part / whole``; 0 / 0 is 1: nothing was asked for and nothing was missed or claimed."""
    return part / whole if whole else 1.0


def score(records: Iterable[MatchRecord]) -> dict[str, float]:
    r"""The figures of a data set.

    - ``IoU``: :math:`\sum TP / \sum (T + P - TP)`, the foreground IoU over all images (the field's "mIoU").
    - ``nIoU``: mean over images of :math:`TP_i / (T_i + P_i - TP_i)`; an image without target and prediction counts 1.
    - ``Pd``: matched targets over targets.
    - ``Fa``: pixels of unmatched predicted regions over all pixels, times :math:`10^6`; ``Fa_legacy`` as older code has
      it, which forgets an unmatched region as large as some matched region of its image.
    - ``pixAcc``, ``precision``, ``F1``: recall, precision and their harmonic mean over pixels of the data set.
    - ``false_regions``: unmatched predicted regions an image.
    - ``images``, ``targets``: how many.

    Args:
        records: one an image.

    Returns:
        The figures by name; all finite. A ratio 0 / 0 is 1, except that ``precision`` without any prediction is 0
        where targets exist.

    Raises:
        ValueError: no record.

    Source: BasicIRSTD; nIoU as defined by Dai et al., WACV 2021. Deviation: their code gives 0, not 1, to an image
    with neither target nor prediction.
    """
    records = list(records)
    if not records:
        raise ValueError("no image was evaluated; a score needs at least one record")
    overlap, predicted, true = (sum(getattr(r, name) for r in records) for name in ("overlap", "predicted", "true"))
    pixels = sum(r.pixels for r in records)
    targets = sum(len(r.target_areas) for r in records)
    return {
        "IoU": _ratio(overlap, true + predicted - overlap),
        "nIoU": sum(_ratio(r.overlap, r.true + r.predicted - r.overlap) for r in records) / len(records),
        "Pd": _ratio(sum(sum(r.target_found) for r in records), targets),
        "Fa": 1e6 * sum(r.false_pixels for r in records) / pixels,
        "Fa_legacy": 1e6 * sum(r.false_pixels_legacy for r in records) / pixels,
        "pixAcc": _ratio(overlap, true),
        "precision": _ratio(overlap, predicted) if predicted or not true else 0.0,
        "F1": _ratio(2 * overlap, true + predicted),
        "false_regions": sum(r.false_regions for r in records) / len(records),
        "images": float(len(records)),
        "targets": float(targets),
    }


def score_by(
    records: Iterable[MatchRecord],
    by: Literal["size", "contrast"],
    edges: Sequence[float] | None = None,
) -> list[dict[str, Any]]:
    """Probability of detection binned by the size or the local contrast of the target.

    Args:
        records: one an image; ``contrast`` needs records made with the image.
        by: ``size`` (pixels) or ``contrast`` (SCR).
        edges: rising bin edges; a bin holds ``low <= value < high``, the last one its upper edge too.

    Returns:
        One dict a bin, of ``low``, ``high``, ``targets``, ``found``, ``Pd`` (None for an empty bin).

    Raises:
        ValueError: records without contrasts, or another ``by``.
    """
    if by not in ("size", "contrast"):
        raise ValueError(f"by: got {by!r}, expected 'size' or 'contrast'")
    records = list(records)
    if by == "contrast" and any(len(r.target_contrasts) != len(r.target_areas) for r in records):
        raise ValueError("these records hold no contrasts; give match_targets the image")
    values = [v for r in records for v in (r.target_areas if by == "size" else r.target_contrasts)]
    found = np.array([f for r in records for f in r.target_found], dtype=bool)
    edges = edges if edges is not None else (SIZE_EDGES if by == "size" else CONTRAST_EDGES)
    measured = np.nan_to_num(np.array(values, dtype=float), nan=0.0, posinf=np.inf)  # undefined: nothing stands out
    totals, hits = np.histogram(measured, edges)[0].tolist(), np.histogram(measured[found], edges)[0].tolist()
    return [
        {"low": low, "high": high, "targets": total, "found": hit, "Pd": hit / total if total else None}
        for (low, high), total, hit in zip(pairwise(edges), totals, hits, strict=True)
    ]
