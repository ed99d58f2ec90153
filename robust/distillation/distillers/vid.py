"""VID: what of the teacher's features the student's leave unknown."""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robust.distillation.distiller import Distiller, LossWeights, TrainingSet, to_smaller
from robust.distillation.taps import Seen
from vision.engine.registry import register
from vision.engine.task import Batch, Losses

_FLOOR = 1e-5


class Gaussian(nn.Module):
    r"""The teacher's features as Gaussian around a regression from the student's, with a variance a channel.

    .. math:: \mathrm{mean} \; \tfrac 1 2 \big((\mu(f_s) - f_t)^2 / v + \log v\big)

    :math:`\mu` is three 1x1 convolutions with ReLU between them, :math:`v = \mathrm{softplus}(u) + 10^{-5}`.

    Args:
        inputs: channels of the student.
        outputs: channels of the teacher.
        variance: v at the beginning.
    """

    def __init__(self, inputs: int, outputs: int, variance: float = 5.0) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 1, bias=False),
        )
        self.raw = nn.Parameter(torch.full((outputs,), math.log(math.expm1(variance - _FLOOR))))

    def forward(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """The negative log-likelihood, a scalar, of features ``[N, C, H, W]`` of any two sizes."""
        ours, theirs = to_smaller(ours, theirs)
        variance = (F.softplus(self.raw) + _FLOOR).view(1, -1, 1, 1)
        return 0.5 * ((self.mean(ours) - theirs).square() / variance + variance.log()).mean()


@register("vid", kind="distiller")
class VID(Distiller):
    """Variational information distillation: :class:`Gaussian` at every stage, summed.

    Source: Ahn et al. 2019, arXiv 1904.05835.
    """

    name: ClassVar[str] = "vid"
    weights: ClassVar[LossWeights] = LossWeights(1.0, 0.0, 1.0)
    reads = ("stages",)

    def prepare(self, student: Seen, teacher: Seen, data: TrainingSet) -> None:
        self.layers = nn.ModuleList(
            Gaussian(ours.shape[1], theirs.shape[1])
            for ours, theirs in zip(student.stages, teacher.stages, strict=True)
        )

    def losses(self, student: Seen, teacher: Seen, batch: Batch) -> Losses:
        layers = list(self.layers.children())
        terms = [layer(a, b) for layer, a, b in zip(layers, student.stages, teacher.stages, strict=True)]
        return {self.name: torch.stack(terms).sum()}
