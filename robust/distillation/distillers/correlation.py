"""CC: how the distance to the teacher goes together in neighbouring samples."""

from typing import Annotated, ClassVar

from annotated_types import Gt
from torch import nn

from robust.distillation.distiller import Distiller, LossWeights, TrainingSet
from robust.distillation.taps import Seen
from vision.engine.registry import register
from vision.engine.task import Batch, Losses


@register("correlation", kind="distiller")
class Correlation(Distiller):
    r"""Correlation congruence: :math:`\mathrm{mean}_i \sum_d \delta_{id} \delta_{i+1,d}`, :math:`\delta = |e_s - e_t|`.

    The embeddings e are linear maps of the pooled features to ``width`` numbers, learnt for both networks.

    Args:
        width: of the embeddings.

    Source: Peng et al. 2019, arXiv 1904.01802, in the form of RepDistiller.
    """

    name: ClassVar[str] = "correlation"
    weights: ClassVar[LossWeights] = LossWeights(1.0, 0.0, 0.02)
    reads = ("pooled",)

    def __init__(self, width: Annotated[int, Gt(0)] = 128) -> None:
        super().__init__()
        self.width = width

    def prepare(self, student: Seen, teacher: Seen, data: TrainingSet) -> None:
        sizes = {"student": student.pooled.shape[1], "teacher": teacher.pooled.shape[1]}
        self.layers = nn.ModuleDict({who: nn.Linear(size, self.width) for who, size in sizes.items()})

    def losses(self, student: Seen, teacher: Seen, batch: Batch) -> Losses:
        ours, theirs = self.layers["student"](student.pooled), self.layers["teacher"](teacher.pooled)  # type: ignore[index]
        gap = (ours - theirs).abs()
        if len(gap) < 2:  # the last batch of an epoch may be one sample
            return {self.name: gap.sum() * 0.0}
        return {self.name: (gap[:-1] * gap[1:]).sum(1).mean()}
