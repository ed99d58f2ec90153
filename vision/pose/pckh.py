"""PCKh: the share of joints that lie within a part of the head's size of their true place (MPII)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vision.engine.errors import DataError

LEFT_OUT = ("pelvis", "thorax")
"""Joints of MPII that the mean leaves out."""


@dataclass(frozen=True)
class PCKh:
    """Shares in [0, 1]; published tables give them in per cent.

    Attributes:
        thresholds: parts of the head's size, ``[T]``.
        by_joint: share of each joint's labelled places that were met, ``[T, K]``; NaN where none is labelled.
        mean: share over the labelled joints that count, ``[T]``.
        labelled: how many places of each joint are labelled, ``[K]``.
    """

    thresholds: tuple[float, ...]
    by_joint: NDArray[np.float64]
    mean: NDArray[np.float64]
    labelled: NDArray[np.int64]


def pckh(
    found: NDArray[np.floating],
    truth: NDArray[np.floating],
    heads: NDArray[np.floating],
    joints: Sequence[str],
    thresholds: Sequence[float] = (0.5, 0.1),
    left_out: Collection[str] = LEFT_OUT,
) -> PCKh:
    r"""PCKh of people whose poses are known to belong to them.

    .. math:: \mathrm{PCKh@}t = \frac{|\{(n, k) \in L : \|\hat x_{nk} - x_{nk}\| \le t \, h_n\}|}{|L|}

    over the labelled joints :math:`L` of all people.

    Args:
        found: pixels, shape ``[N, K, 2]``.
        truth: pixels and visibility, shape ``[N, K, 3]``.
        heads: sizes of the heads in pixels, ``[N]``: 0.6 of the diagonal of MPII's head box.
        joints: names, ``[K]``.
        thresholds: parts of the head's size.
        left_out: names of joints that are not in the mean.

    Raises:
        DataError: nobody with a labelled joint that counts, a head size that is not above 0, or a joint found at what
            is no number.

    Source: MPII's evaluation (Andriluka et al., CVPR 2014), with the mean of the HRNet code. Deviation: that code's
    ``Mean@0.1`` reads the share within 0.11 of the head; here 0.1 is 0.1.
    """
    if not np.isfinite(found).all():
        raise DataError("some poses hold a number that is not finite; the network's output is broken")
    if not (heads > 0).all():
        raise DataError(f"{(~(heads > 0)).sum()} of {len(heads)} people have no head size; PCKh needs it for each")
    known = truth[..., 2] > 0
    distances = np.linalg.norm(found[..., :2].astype(np.float64) - truth[..., :2], axis=-1) / heads[:, None]
    met = (distances[None] <= np.array(thresholds)[:, None, None]) & known
    labelled, counted = known.sum(0), np.array([name not in left_out for name in joints])
    if not labelled[counted].sum():
        raise DataError("nobody has a labelled joint; PCKh has nothing to judge")
    with np.errstate(invalid="ignore"):
        by_joint = met.sum(1) / labelled
    mean = met[..., counted].sum((1, 2)) / labelled[counted].sum()
    return PCKh(tuple(thresholds), by_joint, mean, labelled)
