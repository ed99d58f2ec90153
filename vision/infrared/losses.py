"""The joint loss of TBC-Net: region, structure, background suppression and semantics, and the soft-IoU baseline.

Published (by summaries of arXiv 2001.05852): the four ingredients. Our choice: their formulas, weights and schedule.
Every term is finite for an image without a target.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Region = Literal["l1", "l1_plain", "softiou"]
Weights = tuple[float, float, float, float]

SSIM_REACH, SSIM_SIGMA = 5, 1.5  # a window of 11 pixels
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


def _target_pixels(target: Tensor) -> tuple[Tensor, Tensor]:
    """Foreground ``t > 0`` as float ``[N, 1, H, W]`` and its size, at least 1, ``[N]``."""
    foreground = (target > 0).to(target.dtype)
    return foreground, foreground.sum(dim=(1, 2, 3)).clamp_min(1)


def l1_region(probability: Tensor, target: Tensor) -> Tensor:
    r"""L1 that gives the few target pixels a voice of their own, averaged over the batch.

    .. math:: L_1 = \frac{1}{\max(N_{fg}, 1)} \sum_{fg} |p - t| + \mathrm{mean}_{all} |p - t|

    Args:
        probability: :math:`p`, float in [0, 1], shape ``[N, 1, H, W]``.
        target: :math:`t`, float in [0, 1], shape ``[N, 1, H, W]``; the foreground is ``t > 0``.

    Returns:
        Scalar.

    Source: L1 is published; the balancing is our choice (:func:`l1_plain` is the literal form).
    """
    foreground, size = _target_pixels(target)
    error = (probability - target).abs()
    return ((error * foreground).sum(dim=(1, 2, 3)) / size + error.mean(dim=(1, 2, 3))).mean()


def l1_plain(probability: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error over all pixels of ``[N, 1, H, W]``; the literal reading of the paper's L1. Scalar."""
    return (probability - target).abs().mean()


def soft_iou(probability: Tensor, target: Tensor) -> Tensor:
    r"""Soft intersection over union of the whole batch, as a loss.

    .. math:: 1 - \frac{\sum p t + 1}{\sum p + \sum t - \sum p t + 1}

    Args:
        probability: :math:`p`, float in [0, 1], shape ``[N, 1, H, W]``.
        target: :math:`t`, float in [0, 1], shape ``[N, 1, H, W]``.

    Returns:
        Scalar in [0, 1).

    Source: the BasicIRSTD benchmark; a baseline, not part of the paper.
    """
    overlap = (probability * target).sum()
    return 1 - (overlap + 1) / (probability.sum() + target.sum() - overlap + 1)


def background_suppression(probability: Tensor, target: Tensor) -> Tensor:
    r"""Energy left on the background, relative to the size of the target, averaged over the batch.

    .. math:: L_b = \frac{1}{\max(N_{fg}, 1)} \sum_{bg} p^2

    Args:
        probability: :math:`p`, float in [0, 1], shape ``[N, 1, H, W]``.
        target: :math:`t`, float in [0, 1], shape ``[N, 1, H, W]``; the background is ``t <= 0``.

    Returns:
        Scalar.

    Source: a background suppression regulariser is published; this form is our choice.
    """
    foreground, size = _target_pixels(target)
    return ((probability**2 * (1 - foreground)).sum(dim=(1, 2, 3)) / size).mean()


def _window_matrix(size: int, padding: str, like: Tensor) -> Tensor:
    """Rows that take the windowed mean around each position of an axis of ``size`` pixels: ``[size or less, size]``."""
    position = torch.arange(size, dtype=like.dtype, device=like.device)
    offset = position[None, :] - position[:, None]
    window = torch.exp(-(offset**2) / (2 * SSIM_SIGMA**2)) * (offset.abs() <= SSIM_REACH)
    reach = torch.arange(-SSIM_REACH, SSIM_REACH + 1, dtype=like.dtype, device=like.device)
    matrix = window / torch.exp(-(reach**2) / (2 * SSIM_SIGMA**2)).sum()
    return matrix if padding == "zero" else matrix[SSIM_REACH : size - SSIM_REACH]


def ssim(x: Tensor, y: Tensor, padding: Literal["zero", "valid"] = "zero") -> Tensor:
    r"""Mean structural similarity of images in [0, 1].

    .. math:: \frac{2 \mu_x \mu_y + C_1}{\mu_x^2 + \mu_y^2 + C_1} \cdot
              \frac{2 \sigma_{xy} + C_2}{\sigma_x^2 + \sigma_y^2 + C_2}

    Gaussian window of 11 pixels, sigma 1.5, :math:`C_1 = 0.01^2`, :math:`C_2 = 0.03^2`. Computed in float32 at least,
    also under autocast: :math:`E[x^2] - E[x]^2` cancels in half precision.

    Args:
        x: float, shape ``[N, 1, H, W]``.
        y: float, shape ``[N, 1, H, W]``.
        padding: ``zero`` averages over all pixels; ``valid`` only where the window lies inside the image.

    Returns:
        Scalar; 1 for equal images.

    Source: Wang, Bovik, Sheikh & Simoncelli, IEEE TIP 2004.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    with torch.autocast(x.device.type, enabled=False):
        x, y = x.to(dtype), y.to(dtype)
        over_rows, over_columns = (_window_matrix(size, padding, x) for size in x.shape[-2:])

        def windowed(*maps: Tensor) -> tuple[Tensor, ...]:
            # Two matrix products: on CPUs far faster than convolutions of one channel, forward and backward.
            return (over_rows @ torch.cat(maps) @ over_columns.T).chunk(len(maps))

        mean_x, square_x, product = windowed(x, x * x, x * y)
        mean_y, square_y = windowed(y, y * y)
        mean_xx, mean_yy, mean_xy = mean_x**2, mean_y**2, mean_x * mean_y
        similarity = (2 * mean_xy + SSIM_C1) * (2 * (product - mean_xy) + SSIM_C2)
        energy = (mean_xx + mean_yy + SSIM_C1) * (square_x - mean_xx + square_y - mean_yy + SSIM_C2)
        return (similarity / energy).mean()


def semantic_weight(progress: float, weight: float, start: float = 0.0, warmup: float = 0.2) -> float:
    """Weight of the semantic term: 0 until ``start``, then linear up to ``weight`` over ``warmup``.

    Too early or too strong a semantic term lets the TEM find adversarial patterns for the SCM.

    Args:
        progress: share of the training that is done, in [0, 1].
        weight: the final weight.
        start: progress at which the term begins.
        warmup: share of the training over which it grows; 0 switches it on at once.

    Returns:
        The weight at this progress.

    Source: our choice.

    Example:
        >>> semantic_weight(0.1, weight=0.1)
        0.05
    """
    if progress < start:
        return 0.0
    return weight if warmup <= 0 else weight * min((progress - start) / warmup, 1.0)


@dataclass(frozen=True)
class LossPreset:
    """Weights (region, structure, background, semantic), the region loss, the semantic start and the head bias."""

    weights: Weights
    region: Region
    semantic_start: float
    head_bias: float


PRESETS: dict[str, LossPreset] = {
    "paper": LossPreset((1.0, 1.0, 0.5, 0.1), "l1", semantic_start=0.0, head_bias=-4.0),
    "balanced": LossPreset((1.0, 0.5, 0.05, 0.1), "l1", semantic_start=0.0, head_bias=-2.0),
    "softiou": LossPreset((1.0, 0.0, 0.0, 0.01), "softiou", semantic_start=0.3, head_bias=-2.0),
}
HEAD_BIAS: dict[str, float] = {name: preset.head_bias for name, preset in PRESETS.items()}

_REGION_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": l1_region,
    "l1_plain": l1_plain,
    "softiou": soft_iou,
}


class TBCLoss(nn.Module):
    r"""The joint loss :math:`w_1 L_1 + w_2 (1 - \mathrm{SSIM}) + w_3 L_b + w_4 \mathrm{CE}(\mathrm{SCM}(p), c)`.

    A weight of 0 leaves its term out, which is how each ablation is written. The defaults are the preset ``balanced``;
    :meth:`preset` builds the others.

    Args:
        weights: of region, structure, background and semantic term; none negative.
        region: ``l1`` (region balanced), ``l1_plain`` or ``softiou``.
        semantic_start: training progress in [0, 1] at which the semantic term begins.
        semantic_warmup: share of the training over which it then grows linearly.

    Raises:
        ValueError: weights that are not four or negative, an unknown region loss, a fraction out of [0, 1].

    Source: the ingredients are published; formulas, weights and schedule are our choice.
    """

    def __init__(
        self,
        weights: Weights = (1.0, 0.5, 0.05, 0.1),
        region: Region = "l1",
        semantic_start: float = 0.0,
        semantic_warmup: float = 0.2,
    ) -> None:
        super().__init__()
        if len(weights) != 4 or min(weights) < 0:
            raise ValueError(f"weights: got {weights}, expected four of at least 0: region, structure, background, SCM")
        if region not in _REGION_LOSSES:
            raise ValueError(f"region: got {region!r}, expected one of {', '.join(_REGION_LOSSES)}")
        if not (0 <= semantic_start <= 1 and 0 <= semantic_warmup <= 1):
            raise ValueError(f"semantic_start {semantic_start} and semantic_warmup {semantic_warmup} must be in [0, 1]")
        self.weights = weights
        self.region = region
        self.semantic_start = semantic_start
        self.semantic_warmup = semantic_warmup

    @classmethod
    def preset(cls, name: Literal["paper", "balanced", "softiou"], semantic: bool = True) -> "TBCLoss":
        """Build a preset.

        Args:
            name: ``paper`` (all four terms at full strength; wants a head bias of -4), ``balanced``, or ``softiou``
                (soft IoU alone, plus a weak semantic term from 30 % of the training on).
            semantic: False drops the semantic term, so that no SCM is needed.

        Raises:
            ValueError: an unknown preset.
        """
        if name not in PRESETS:
            raise ValueError(f"loss preset: got {name!r}, expected one of {', '.join(PRESETS)}")
        chosen = PRESETS[name]
        region, structure, background, scm = chosen.weights
        weights = (region, structure, background, scm if semantic else 0.0)
        return cls(weights, chosen.region, semantic_start=chosen.semantic_start)

    @property
    def needs_scm(self) -> bool:
        """Whether a frozen SCM must be given to the call."""
        return self.weights[3] > 0

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        count: Tensor | None = None,
        scm: nn.Module | None = None,
        progress: float = 1.0,
    ) -> dict[str, Tensor]:
        """Weighted terms; their sum is the loss.

        Args:
            logits: output of the TEM, float, shape ``[N, 1, H, W]``.
            target: mask or intensity layer, float in [0, 1], shape ``[N, 1, H, W]``.
            count: number of targets or already its class, int64, shape ``[N]``; for the semantic term.
            scm: frozen module from target images ``[N, 1, H, W]`` to class logits; for the semantic term.
            progress: share of the training that is done, in [0, 1].

        Returns:
            Scalars by name, of ``region``, ``structure``, ``background``, ``semantic``; only terms of positive weight.
            ``semantic`` is there from the start of training with weight 0, so that the names never change.

        Raises:
            ValueError: a semantic weight above 0 without SCM or count.
        """
        region, structure, background, semantic = self.weights
        probability = (logits if logits.dtype == torch.float64 else logits.float()).sigmoid()
        target = target.to(probability.dtype)
        losses: dict[str, Tensor] = {}
        if region > 0:
            losses["region"] = region * _REGION_LOSSES[self.region](probability, target)
        if structure > 0:
            losses["structure"] = structure * (1 - ssim(probability, target))
        if background > 0:
            losses["background"] = background * background_suppression(probability, target)
        if semantic > 0:
            weight = semantic_weight(progress, semantic, self.semantic_start, self.semantic_warmup)
            losses["semantic"] = self._semantic(probability, count, scm, weight)
        return losses

    def _semantic(self, probability: Tensor, count: Tensor | None, scm: nn.Module | None, weight: float) -> Tensor:
        if scm is None or count is None:
            raise ValueError(
                f"the loss has a semantic weight of {self.weights[3]} but no SCM and count; give both, or set it to 0"
            )
        if weight == 0:
            return probability.new_zeros(())
        class_logits = scm(probability)
        return weight * F.cross_entropy(class_logits, count.clamp(max=class_logits.shape[1] - 1))
