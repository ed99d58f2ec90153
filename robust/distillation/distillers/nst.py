"""NST: the distribution of a layer's neurons."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from robust.distillation.distiller import Distiller, LossWeights, to_smaller
from robust.distillation.taps import Seen
from vision.engine.registry import register
from vision.engine.task import Batch, Losses


@register("nst", kind="distiller")
class NST(Distiller):
    r"""Maximum mean discrepancy between the channels of each stage, summed over stages.

    Channels are vectors over space of norm 1; with the kernel :math:`k(a, b) = (a^\top b)^2`,
    :math:`\mathrm{mean} \, k(t, t) + \mathrm{mean} \, k(s, s) - 2 \, \mathrm{mean} \, k(s, t)`.

    Source: Huang & Wang 2017, arXiv 1707.01219.
    """

    name: ClassVar[str] = "nst"
    weights: ClassVar[LossWeights] = LossWeights(1.0, 0.0, 50.0)
    reads = ("stages",)

    def losses(self, student: Seen, teacher: Seen, batch: Batch) -> Losses:
        terms = [_discrepancy(*to_smaller(*pair)) for pair in zip(student.stages, teacher.stages, strict=True)]
        return {self.name: torch.stack(terms).sum()}


def _discrepancy(ours: Tensor, theirs: Tensor) -> Tensor:
    s, t = (F.normalize(x.flatten(2), dim=2) for x in (ours, theirs))
    return _kernel(t, t) + _kernel(s, s) - 2 * _kernel(s, t)


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    return (one @ other.transpose(1, 2)).square().mean()
