"""SP: which samples of a batch look alike."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from robust.distillation.distiller import Distiller, LossWeights
from robust.distillation.taps import Seen
from vision.engine.registry import register
from vision.engine.task import Batch, Losses


@register("similarity", kind="distiller")
class Similarity(Distiller):
    r"""Similarities within the batch, at the last stage: :math:`\frac{1}{N^2} \lVert G_t - G_s \rVert_F^2`.

    G is :math:`F F^\top` of the flattened features with rows of norm 1.

    Source: Tung & Mori 2019, arXiv 1907.09682.
    """

    name: ClassVar[str] = "similarity"
    weights: ClassVar[LossWeights] = LossWeights(1.0, 0.0, 3000.0)
    reads = ("stages",)

    def losses(self, student: Seen, teacher: Seen, batch: Batch) -> Losses:
        ours, theirs = _similarities(student.stages[-1]), _similarities(teacher.stages[-1])
        return {self.name: (theirs - ours).square().mean()}


def _similarities(features: Tensor) -> Tensor:
    rows = features.flatten(1)
    return F.normalize(rows @ rows.T)
