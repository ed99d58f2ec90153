"""AB: on which side of zero each of the teacher's neurons is."""

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn

from robust.distillation.distiller import Distiller, LossWeights, TrainingSet, to_smaller
from robust.distillation.taps import Seen
from vision.engine.registry import register
from vision.engine.task import Batch, Losses


@register("activation_boundary", kind="distiller")
class ActivationBoundary(Distiller):
    r"""The teacher's activation boundaries, learnt in the initial epochs; the student then trains on labels.

    Of each of n stages, before its ReLU, with the student s after a 1x1 convolution and BatchNorm and a margin m:

    .. math:: \frac{3}{1000 N} \sum_{l=1}^n 2^{l-n} \sum
        \big([s > -m][t \le 0] (s + m)^2 + [s \le m][t > 0] (s - m)^2\big)

    Args:
        margin: m.
        initial_epochs: that train this loss alone.
        throughout: also train it afterwards, by the weight ``other``.

    Deviation: the initial stage is the first part of the run, under the run's own schedule, not a run before it.

    Source: Heo et al. 2019, arXiv 1811.03233.
    """

    name: ClassVar[str] = "activation_boundary"
    weights: ClassVar[LossWeights] = LossWeights(1.0, 0.0, 1.0)
    reads = ("preactivations",)

    def __init__(
        self,
        margin: Annotated[float, Ge(0)] = 1.0,
        initial_epochs: Annotated[int, Ge(0)] = 30,
        throughout: bool = False,
    ) -> None:
        super().__init__()
        self.margin, self.initial_epochs, self.throughout = margin, initial_epochs, throughout

    def prepare(self, student: Seen, teacher: Seen, data: TrainingSet) -> None:
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(s.shape[1], t.shape[1], 1, bias=False), nn.BatchNorm2d(t.shape[1]))
            for s, t in zip(student.preactivations, teacher.preactivations, strict=True)
        )

    def initial_losses(self, student: Seen, teacher: Seen, batch: Batch) -> Losses:
        pairs = list(zip(self.layers.children(), student.preactivations, teacher.preactivations, strict=True))
        terms = [
            2.0 ** (place + 1 - len(pairs)) * self._crossed(*to_smaller(layer(s), t))
            for place, (layer, s, t) in enumerate(pairs)
        ]
        return {self.name: torch.stack(terms).sum() * 3 / 1000 / len(student.logits)}

    def _crossed(self, ours: Tensor, theirs: Tensor) -> Tensor:
        m = self.margin
        high = (ours + m).square() * ((ours > -m) & (theirs <= 0))
        low = (ours - m).square() * ((ours <= m) & (theirs > 0))
        return (high + low).sum()

    def losses(self, student: Seen, teacher: Seen, batch: Batch) -> Losses:
        return self.initial_losses(student, teacher, batch) if self.throughout else {}
