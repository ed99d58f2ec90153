"""Soft labels alone."""

from typing import ClassVar

from robust.distillation.distiller import Distiller, LossWeights
from robust.distillation.taps import Seen
from vision.engine.registry import register
from vision.engine.task import Batch, Losses


@register("kd", kind="distiller")
class KD(Distiller):
    """The teacher's soft labels, which any distiller may add by its weight ``kd``, and nothing besides.

    Source: Hinton et al. 2015, arXiv 1503.02531; the weights 0.5 and 0.5 are those of the SoTeacher run.
    """

    name: ClassVar[str] = "kd"
    weights: ClassVar[LossWeights] = LossWeights(0.5, 0.5, 0.0)
    teacher_only: ClassVar[bool] = True

    def losses(self, student: Seen, teacher: Seen, batch: Batch) -> Losses:
        return {}
