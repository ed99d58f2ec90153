"""Label calibration for adversarial training (Dong, Liu & Shang, NeurIPS 2022, arXiv 2110.03135)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from vision.engine.errors import ConfigError, DataError

Form = Literal["hinton", "soft_label"]
"""Which loss: that of the authors' release, or plain cross-entropy with the calibrated labels."""

Array = NDArray[np.float64]

TEMPERATURES: Array = np.exp(np.linspace(np.log(0.2), np.log(16), 100))
"""The release's grid of temperatures, evenly spaced in their logarithm."""

WEIGHTS: Array = np.linspace(0.01, 1.0, 100)
"""The release's grid of teacher's shares."""


def calibrated_targets(teacher_logits: Tensor, labels: Tensor, temperature: float, weight: float) -> Tensor:
    r"""Soft labels that mix a tempered teacher with the assigned label.

    .. math:: q = \lambda \, \mathrm{softmax}(z_t / T) + (1 - \lambda) \, e_y

    Args:
        teacher_logits: :math:`z_t`, float, shape ``[N, C]``.
        labels: assigned classes :math:`y`, int64, shape ``[N]``, each in ``[0, C)``.
        temperature: :math:`T > 0`; above 1 flattens the teacher.
        weight: :math:`\lambda` in ``[0, 1]``; the teacher's share.

    Returns:
        Distributions of shape ``[N, C]``; rows sum to 1, in float64 up to 3e-8, as the release rounds
        :math:`1 - \lambda` to float32 and its recorded values are reproduced.

    Raises:
        ConfigError: a temperature or weight out of range.

    Source: section 5 of the paper.

    Example:
        >>> calibrated_targets(torch.zeros(1, 2), torch.tensor([1]), temperature=1.0, weight=0.5)
        tensor([[0.2500, 0.7500]])
    """
    check_calibration(temperature, weight)
    return _mixed((teacher_logits / temperature).softmax(1), labels, weight)


def _mixed(p: Tensor, labels: Tensor, weight: float) -> Tensor:
    assigned = (1 - weight) * F.one_hot(labels, p.shape[1]).to(torch.float32)
    return weight * p + assigned.to(p.dtype)


def teacher_distribution(logits: Sequence[Tensor], temperature: float) -> Tensor:
    r"""The mean of several teachers' tempered distributions, :math:`\frac1M \sum_m \mathrm{softmax}(z_m / T)`.

    Args:
        logits: one tensor ``[N, C]`` a teacher; at least one.
        temperature: :math:`T > 0`.

    Returns:
        Distributions of shape ``[N, C]``.

    Source: the authors' release, which averages its robust teachers so.
    """
    return torch.stack([(each / temperature).softmax(1) for each in logits]).mean(0)


def calibration_loss(
    student_logits: Tensor,
    teacher_logits: Tensor | Sequence[Tensor],
    labels: Tensor,
    temperature: float,
    weight: float,
    form: Form = "hinton",
) -> Tensor:
    r"""The loss of a student on adversarial examples under calibrated labels, averaged over the batch.

    With :math:`p = \mathrm{softmax}(z_t / T)`, averaged over teachers, ``hinton`` is

    .. math:: (1 - \lambda) \, \mathrm{CE}(z_s, y) - \lambda T^2 \sum_c p_c \log \mathrm{softmax}(z_s / T)_c

    and ``soft_label`` is the cross-entropy of :math:`\mathrm{softmax}(z_s)` with :math:`\lambda p + (1 - \lambda) e_y`.
    They are different losses with different minima; the first is what the release optimises.

    Args:
        student_logits: :math:`z_s` on the adversarial examples, float, shape ``[N, C]``.
        teacher_logits: of one teacher, ``[N, C]``, or of each of several, on the same examples; no gradient is taken.
        labels: assigned classes, int64, shape ``[N]``.
        temperature: :math:`T > 0`.
        weight: :math:`\lambda` in ``[0, 1]``.
        form: which loss.

    Returns:
        A scalar. The teacher's term is a cross-entropy, not a divergence; it differs by the teacher's entropy, which
        has no gradient.

    Raises:
        ConfigError: a temperature or weight out of range, or a teacher of another number of classes.

    Source: the authors' release for ``hinton``; section 5 of the paper for the labels of ``soft_label``.
    """
    check_calibration(temperature, weight)
    teachers = [teacher_logits] if isinstance(teacher_logits, Tensor) else list(teacher_logits)
    for each in teachers:
        require_same_classes(each.shape[1], student_logits.shape[1])
    p = teacher_distribution([each.detach() for each in teachers], temperature)
    if form == "soft_label":
        return F.cross_entropy(student_logits, _mixed(p, labels, weight))
    hard = F.cross_entropy(student_logits, labels)
    return (1 - weight) * hard + weight * temperature**2 * F.cross_entropy(student_logits / temperature, p)


def check_calibration(temperature: float, weight: float) -> None:
    """Raises ConfigError for a temperature that is not above 0 and finite, or a weight outside [0, 1]."""
    if not 0 < temperature < float("inf"):
        raise ConfigError(
            f"temperature: {temperature} is not above 0 and finite; 2 is the usual one of self-distillation"
        )
    if not 0 <= weight <= 1:
        raise ConfigError(f"weight: {weight} is outside [0, 1]; it is the teacher's share of the label")


def require_same_classes(teacher: int, student: int) -> None:
    """Raises ConfigError where a teacher's logits are not those of the student's classes."""
    if teacher != student:
        raise ConfigError(
            f"the teacher gives {teacher} classes and the student {student}; take a teacher trained on the same classes"
        )


@dataclass(frozen=True)
class Calibration:
    """What a search found; unpacks as ``temperature, weight``.

    Attributes:
        temperature: the best T of the grid.
        weight: the best share of the teacher.
        nll: of the calibrated label on held-out adversarial examples, in nats, at the best cell.
        train_accuracy: share of training examples whose calibrated label still names their class, there.
        temperatures: the grid's rows.
        weights: the grid's columns.
        nll_surface: shape ``[temperatures, weights]``.
        accuracy_surface: likewise.
        minimum_accuracy: the constraint; None for no constraint.
    """

    temperature: float
    weight: float
    nll: float
    train_accuracy: float
    temperatures: Array
    weights: Array
    nll_surface: Array
    accuracy_surface: Array
    minimum_accuracy: float | None

    def __iter__(self) -> Iterator[float]:
        return iter((self.temperature, self.weight))

    @property
    def allowed(self) -> NDArray[np.bool_]:
        """Cells that satisfy the constraint, shape ``[temperatures, weights]``."""
        return self.accuracy_surface >= (-np.inf if self.minimum_accuracy is None else self.minimum_accuracy)


def search_calibration(
    best_val_logits: Tensor | NDArray[np.floating],
    last_val_logits: Tensor | NDArray[np.floating],
    val_labels: Tensor | NDArray[np.integer],
    best_train_logits: Tensor | NDArray[np.floating],
    train_labels: Tensor | NDArray[np.integer],
    minimum_accuracy: float | None = 0.9,
    temperatures: Array = TEMPERATURES,
    weights: Array = WEIGHTS,
) -> Calibration:
    r"""The temperature and teacher's share whose calibrated labels explain held-out adversarial examples best.

    Over a grid, in float64, it minimises

    .. math:: -\frac1N \sum_i \log\bigl(\lambda \, \mathrm{softmax}(z^{best}_i / T)_{y_i}
        + (1 - \lambda) \, \mathrm{softmax}(z^{last}_i / T)_{y_i} + 10^{-8}\bigr)

    where the overfitted last checkpoint stands for the memorised one-hot label (the one-hot itself would make
    :math:`\lambda = 0` trivially best), subject to the calibrated labels of training examples naming the right class
    for at least ``minimum_accuracy`` of them. The first minimum in row-major order is taken, rows being temperatures.

    Args:
        best_val_logits: of the teacher's best checkpoint on validation examples attacked against it, ``[N, C]``.
        last_val_logits: of its last checkpoint on the same images, attacked against that one, ``[N, C]``.
        val_labels: their classes, ``[N]``.
        best_train_logits: of the best checkpoint on training examples attacked against it, ``[M, C]``.
        train_labels: their classes, ``[M]``.
        minimum_accuracy: in [0, 1]; None lifts the constraint, and the weight then tends to 1.
        temperatures: the grid's rows, each above 0.
        weights: the grid's columns, each in [0, 1].

    Returns:
        The best cell and both surfaces.

    Raises:
        ConfigError: ``minimum_accuracy`` outside [0, 1], or a grid out of range.
        DataError: arrays that do not belong together, values that are not finite, or no cell that satisfies the
            constraint.

    Deviation: the release scores on test images; give a validation split. 0.9 and the grid are the release's.

    Source: section 5 of the paper; the authors' release for everything that is a number here.
    """
    if minimum_accuracy is not None and not 0 <= minimum_accuracy <= 1:
        raise ConfigError(f"minimum_accuracy: {minimum_accuracy} is outside [0, 1]; the release has 0.9")
    temperatures, weights = np.asarray(temperatures, np.float64), np.asarray(weights, np.float64)
    for temperature in temperatures:
        check_calibration(float(temperature), 0.0)
    for weight in weights:
        check_calibration(1.0, float(weight))
    best, y = _checked(best_val_logits, val_labels, "best_val_logits")
    last, _ = _checked(last_val_logits, val_labels, "last_val_logits")
    train, train_y = _checked(best_train_logits, train_labels, "best_train_logits")
    if not best.shape[1] == last.shape[1] == train.shape[1]:
        raise DataError(f"logits have {best.shape[1]}, {last.shape[1]} and {train.shape[1]} classes; expected the same")
    nll = np.stack([_nll(best, last, y, t, weights) for t in temperatures])
    accuracy = np.stack([_accuracy(train, train_y, t, weights) for t in temperatures])
    masked = nll if minimum_accuracy is None else np.where(accuracy >= minimum_accuracy, nll, np.inf)
    if not np.isfinite(masked).any():
        raise DataError(
            f"no temperature and weight keep the accuracy of the labels at {minimum_accuracy} or more (at most "
            f"{accuracy.max():.3f} is reached); lower minimum_accuracy or search smaller weights"
        )
    row, column = np.unravel_index(np.argmin(masked), masked.shape)
    return Calibration(
        float(temperatures[row]), float(weights[column]), float(nll[row, column]), float(accuracy[row, column]),
        temperatures, weights, nll, accuracy, minimum_accuracy,
    )  # fmt: skip


def _checked(
    logits: Tensor | NDArray[np.floating], labels: Tensor | NDArray[np.integer], what: str
) -> tuple[Array, NDArray[np.int64]]:
    values = np.asarray(logits.detach().cpu() if isinstance(logits, Tensor) else logits, dtype=np.float64)
    y = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if values.ndim != 2 or y.shape != values.shape[:1] or not len(y):
        raise DataError(f"{what}: shape {list(values.shape)} with labels {list(y.shape)}; expected [N, C] and [N]")
    if not np.isfinite(values).all():
        raise DataError(f"{what}: holds values that are not finite; the checkpoint they come from has diverged")
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= values.shape[1]:
        raise DataError(f"{what}: labels must be whole numbers from 0 to {values.shape[1] - 1}")
    return values, y.astype(np.int64)


def _nll(best: Array, last: Array, labels: NDArray[np.int64], temperature: float, weights: Array) -> Array:
    rows = np.arange(len(labels))
    of_best = softmax(best / temperature, axis=1)[rows, labels]
    of_last = softmax(last / temperature, axis=1)[rows, labels]
    mixed: Array = weights[:, None] * of_best + (1 - weights[:, None]) * of_last
    return -np.log(mixed + 1e-8).mean(axis=1)


def _accuracy(logits: Array, labels: NDArray[np.int64], temperature: float, weights: Array) -> Array:
    """The label's class leads by ``(1 - w) - w (p_other - p_y)``: it does up to a weight of its own for each sample."""
    rows = np.arange(len(labels))
    p = softmax(logits / temperature, axis=1)
    own = p[rows, labels]
    p[rows, labels] = 0
    with np.errstate(divide="ignore"):  # a label that the teacher is sure of bears any weight
        bounds = np.sort(1 / (1 + p.max(axis=1) - own))
    return 1 - np.searchsorted(bounds, weights, side="left") / len(bounds)
