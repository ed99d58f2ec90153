"""Scores of a classifier from all its logits and labels at once: accuracy, likelihood and calibration.

Every function takes ``logits``, floating point of shape ``[N, C]``, and ``labels``, integers of shape ``[N]`` in
``[0, C)``, computes in float64, and raises ``ValueError`` for shapes that do not fit, no samples or a label out of
range, and :class:`~vision.engine.errors.TrainingError` for logits that are not finite. Of equal logits the lower class
comes first, as in ``argmax``, so that a network that says nothing is not judged right.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision.engine.errors import TrainingError

Logits = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]


def top_k(logits: Logits, labels: Labels, k: int = 1) -> float:
    """Share of samples whose class is among the ``k`` with the largest logits; top-1 is the accuracy.

    Raises:
        ValueError: ``k`` is not in ``[1, C]``.

    Example:
        >>> top_k(np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), np.array([1, 2]), k=2)
        0.5
    """
    z, y = _checked(logits, labels)
    if not 1 <= k <= z.shape[1]:
        raise ValueError(f"k is {k}, expected 1 to the {z.shape[1]} classes")
    own = np.take_along_axis(z, y[:, None], axis=1)
    before = np.arange(z.shape[1]) < y[:, None]
    rank = np.sum((z > own) | ((z == own) & before), axis=1)
    return float(np.mean(rank < k))


def nll(logits: Logits, labels: Labels) -> float:
    r"""Negative log-likelihood, nats a sample.

    .. math:: \frac 1 N \sum_i \Big( \log \sum_c e^{z_{ic}} - z_{i y_i} \Big)

    Example:
        >>> round(nll(np.zeros((2, 4)), np.array([0, 3])), 4)  # log 4
        1.3863
    """
    z, y = _checked(logits, labels)
    return float(-np.mean(np.take_along_axis(_log_softmax(z), y[:, None], axis=1)))


def brier(logits: Logits, labels: Labels) -> float:
    r"""Brier score in its form for several classes: :math:`\frac 1 N \sum_i \sum_c (p_{ic} - [c = y_i])^2`, in [0, 2].

    Source: Brier 1950, Monthly Weather Review 78(1).

    Example:
        >>> brier(np.zeros((1, 2)), np.array([0]))
        0.5
    """
    z, y = _checked(logits, labels)
    return float(np.mean(np.sum((np.exp(_log_softmax(z)) - np.eye(z.shape[1])[y]) ** 2, axis=1)))


def ece(logits: Logits, labels: Labels, bins: int = 15) -> float:
    r"""Expected calibration error of the most probable class, with bins of equal width.

    .. math:: \sum_{b=1}^{B} \frac{n_b}{N} \left| \mathrm{acc}_b - \mathrm{conf}_b \right|

    A sample's confidence is its largest softmax probability; bin :math:`b` takes confidences in
    :math:`((b-1)/B, b/B]`; :math:`\mathrm{acc}_b` and :math:`\mathrm{conf}_b` are means over the bin.

    Source: Guo et al. 2017, arXiv 1706.04599, section 2, who use 15 bins in their tables.
    """
    counts, accuracy, confidence = reliability(logits, labels, bins)
    return float(np.sum(counts * np.abs(accuracy - confidence)) / np.sum(counts))


def reliability(logits: Logits, labels: Labels, bins: int = 15) -> tuple[NDArray[np.int64], Floats, Floats]:
    """What a reliability diagram shows: samples, accuracy and mean confidence of each bin of :func:`ece`.

    Returns:
        Three arrays of shape ``[bins]``; accuracy and confidence of an empty bin are 0.

    Raises:
        ValueError: fewer than one bin.
    """
    z, y = _checked(logits, labels)
    if bins < 1:
        raise ValueError(f"bins is {bins}, expected 1 or more")
    confidence = np.exp(_log_softmax(z)).max(axis=1)
    edges = np.arange(1, bins) / bins  # inner ones: what lies on an edge belongs to the bin below it
    index = np.searchsorted(edges, confidence, side="left")
    counts = np.bincount(index, minlength=bins)
    held = np.maximum(counts, 1)
    right = np.bincount(index, weights=z.argmax(axis=1) == y, minlength=bins)
    return counts, right / held, np.bincount(index, weights=confidence, minlength=bins) / held


def confusion_matrix(logits: Logits, labels: Labels) -> NDArray[np.int64]:
    """How many samples of each class (rows) were taken for each class (columns): ``[C, C]``.

    Example:
        >>> confusion_matrix(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), np.array([0, 0, 1]))
        array([[1, 1],
               [0, 1]])
    """
    z, y = _checked(logits, labels)
    classes = z.shape[1]
    return np.bincount(y * classes + z.argmax(axis=1), minlength=classes**2).reshape(classes, classes)


def per_class_accuracy(logits: Logits, labels: Labels) -> Floats:
    """Share of each class's samples that were recognised (its recall): ``[C]``; NaN where a class has no sample."""
    matrix = confusion_matrix(logits, labels)
    total = matrix.sum(axis=1)
    return np.where(total > 0, np.diag(matrix) / np.maximum(total, 1), np.nan)


def _log_softmax(z: Floats) -> Floats:
    shifted = z - z.max(axis=1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))


def _checked(logits: Logits, labels: Labels) -> tuple[Floats, NDArray[np.int64]]:
    z, y = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if z.ndim != 2 or y.shape != z.shape[:1] or z.size == 0:
        raise ValueError(f"logits {list(z.shape)} and labels {list(y.shape)}; expected [N, C] and [N], not empty")
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= z.shape[1]:
        raise ValueError(f"labels of {y.dtype} from {y.min()} to {y.max()}; expected integers in [0, {z.shape[1]})")
    wrong = np.count_nonzero(~np.isfinite(z).all(axis=1))
    if wrong:
        raise TrainingError(f"the network gives logits that are not finite for {wrong} of {len(z)} samples")
    return z, y.astype(np.int64)
