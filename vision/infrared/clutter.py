"""Classical measures of target enhancement: signal-to-clutter ratio, its gain, and background suppression."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vision.infrared.detection import label_regions

RING = 20  # width of the ring of background around a target's box, pixels


def signal_to_clutter(image: NDArray[np.floating], gt_mask: NDArray[np.bool_], ring: int = RING) -> list[float]:
    r"""Signal-to-clutter ratio of each target, :math:`|\mu_t - \mu_b| / \sigma_b`.

    The target is the bounding box of a region, the background the ring of ``ring`` pixels around that box without
    pixels of any target.

    Args:
        image: float, shape ``[H, W]``.
        gt_mask: bool, shape ``[H, W]``.
        ring: pixels.

    Returns:
        One ratio a region, in label order; ``inf`` on a perfectly flat ring, ``nan`` where nothing stands out of it.
    """
    boxes = ndimage.find_objects(label_regions(gt_mask).labels)
    return [_box_ratio(image, gt_mask, box, ring) for box in boxes]


def _box_ratio(image: NDArray[np.floating], gt_mask: NDArray[np.bool_], box: tuple[slice, slice], ring: int) -> float:
    around = tuple(slice(max(side.start - ring, 0), side.stop + ring) for side in box)
    background = ~gt_mask[around]
    inner = tuple(slice(side.start - out.start, side.stop - out.start) for side, out in zip(box, around, strict=True))
    background[inner] = False
    clutter = image[around][background].astype(np.float64)
    if clutter.size == 0:
        return float("nan")
    return _quotient(abs(float(image[box].mean(dtype=np.float64) - clutter.mean())), float(clutter.std()))


def _quotient(above: float, below: float) -> float:
    """A quotient of numbers >= 0 that is ``inf`` over zero and ``nan`` for 0 / 0."""
    if below > 0:
        return above / below
    return float("inf") if above > 0 else float("nan")


@dataclass(frozen=True)
class ClutterRecord:
    """Gains of one image: SCRG of each target and BSF of its background; ``inf`` where a background became flat."""

    scr_gains: tuple[float, ...]
    background_suppression: float


def clutter_record(
    image: NDArray[np.floating], response: NDArray[np.floating], gt_mask: NDArray[np.bool_], ring: int = RING
) -> ClutterRecord:
    r"""How much a detector's response stands out of clutter more than the image does.

    .. math:: SCRG = SCR_{out} / SCR_{in}, \qquad BSF = \sigma_{in} / \sigma_{out}

    with the standard deviations over the whole image without target pixels.

    Args:
        image: the input, float, shape ``[H, W]``.
        response: the output, float, shape ``[H, W]``; a probability map is taken as it is.
        gt_mask: bool, shape ``[H, W]``.
        ring: width of the background ring of the SCR, pixels.

    Source: the usual definitions of the classical literature.
    """
    before, after = signal_to_clutter(image, gt_mask, ring), signal_to_clutter(response, gt_mask, ring)
    gains = tuple(_gain(out, into) for out, into in zip(after, before, strict=True))
    outside = ~gt_mask
    sigma_in, sigma_out = (float(plane[outside].std(dtype=np.float64)) for plane in (image, response))
    return ClutterRecord(gains, _quotient(sigma_in, sigma_out))


def _gain(out: float, into: float) -> float:
    if np.isnan(out):  # a response that is flat around and on the target shows nothing
        out = 0.0
    return float("nan") if np.isinf(into) or np.isnan(into) else _quotient(out, into)


def clutter_summary(records: Iterable[ClutterRecord]) -> dict[str, float]:
    """Medians over all targets (SCRG) and images (BSF), with the numbers of infinite and undefined values.

    Returns:
        ``SCRG``, ``SCRG_infinite``, ``SCRG_undefined``, ``BSF``, ``BSF_infinite``, ``BSF_undefined``. Undefined values
        take no part in a median; a median without any value is ``nan``.
    """
    records = list(records)
    gains = np.array([gain for record in records for gain in record.scr_gains])
    suppressions = np.array([record.background_suppression for record in records])
    summary: dict[str, float] = {}
    for name, values in (("SCRG", gains), ("BSF", suppressions)):
        known = values[~np.isnan(values)]
        summary[name] = float(np.median(known)) if known.size else float("nan")
        summary[f"{name}_infinite"] = float(np.isinf(values).sum())
        summary[f"{name}_undefined"] = float(values.size - known.size)
    return summary
