"""AT: where the networks look."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from robust.distillation.distiller import Distiller, LossWeights, to_smaller
from robust.distillation.taps import Seen
from vision.engine.registry import register
from vision.engine.task import Batch, Losses


@register("attention", kind="distiller")
class Attention(Distiller):
    r"""Attention maps of every stage: :math:`\sum_l \mathrm{mean} (a_s^l - a_t^l)^2`.

    :math:`a = m / \lVert m \rVert_2` with :math:`m = \mathrm{mean}_c f_c^2` over channels, flattened; the larger of the
    two maps is averaged down first.

    Source: Zagoruyko & Komodakis 2017, arXiv 1612.03928.
    """

    name: ClassVar[str] = "attention"
    weights: ClassVar[LossWeights] = LossWeights(1.0, 0.0, 1000.0)
    reads = ("stages",)

    def losses(self, student: Seen, teacher: Seen, batch: Batch) -> Losses:
        terms = [_difference(*to_smaller(*pair)) for pair in zip(student.stages, teacher.stages, strict=True)]
        return {self.name: torch.stack(terms).sum()}


def attention_map(features: Tensor) -> Tensor:
    """Rows of norm 1, ``[N, H W]``, of features ``[N, C, H, W]``."""
    return F.normalize(features.square().mean(1).flatten(1))


def _difference(ours: Tensor, theirs: Tensor) -> Tensor:
    return (attention_map(ours) - attention_map(theirs)).square().mean()
