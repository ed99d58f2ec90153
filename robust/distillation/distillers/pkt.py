"""PKT: the probability that one sample is near another."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from robust.distillation.distiller import Distiller, LossWeights
from robust.distillation.taps import Seen
from vision.engine.registry import register
from vision.engine.task import Batch, Losses

_FLOOR = 1e-7


@register("pkt", kind="distiller")
class PKT(Distiller):
    r"""Probabilistic knowledge transfer of the pooled features: :math:`\mathrm{mean} \, t \log\frac{t + e}{s + e}`.

    The probabilities are :math:`(\cos + 1) / 2` with rows that sum to 1, and :math:`e = 10^{-7}`.

    Source: Passalis & Tefas 2018, arXiv 1803.10837.
    """

    name: ClassVar[str] = "pkt"
    weights: ClassVar[LossWeights] = LossWeights(1.0, 0.0, 30000.0)
    reads = ("pooled",)

    def losses(self, student: Seen, teacher: Seen, batch: Batch) -> Losses:
        ours, theirs = _probabilities(student.pooled), _probabilities(teacher.pooled)
        return {self.name: (theirs * ((theirs + _FLOOR) / (ours + _FLOOR)).log()).mean()}


def _probabilities(rows: Tensor) -> Tensor:
    unit = F.normalize(rows, eps=_FLOOR)
    near = (unit @ unit.T + 1) / 2
    return near / near.sum(1, keepdim=True)
