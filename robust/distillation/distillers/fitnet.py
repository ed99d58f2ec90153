"""FitNet: the student's hint layer, regressed onto the teacher's."""

from typing import ClassVar

import torch.nn.functional as F
from torch import nn

from robust.distillation.distiller import Distiller, LossWeights, TrainingSet
from robust.distillation.taps import Seen
from vision.engine.errors import ConfigError
from vision.engine.registry import register
from vision.engine.task import Batch, Losses


@register("fitnet", kind="distiller")
class FitNet(Distiller):
    r"""Mean squared error :math:`\mathrm{mean} (r(f_s) - f_t)^2` at one stage.

    The regressor r is a convolution to the teacher's channels and size, BatchNorm and ReLU: 3x3 with stride 2 where the
    student is twice as large, 4x4 transposed where it is half as large, otherwise as large as needed to shrink it.

    Args:
        stage: which, from 1.

    Source: Romero et al. 2015, arXiv 1412.6550, trained in one stage as in RepDistiller.
    """

    name: ClassVar[str] = "fitnet"
    weights: ClassVar[LossWeights] = LossWeights(1.0, 0.0, 100.0)
    reads = ("stages",)

    def __init__(self, stage: int = 2) -> None:
        super().__init__()
        self.stage = stage

    def prepare(self, student: Seen, teacher: Seen, data: TrainingSet) -> None:
        count = len(student.stages)
        if not 1 <= self.stage <= count:
            raise ConfigError(f"fitnet.stage: {self.stage}; the networks show stages 1 to {count}")
        ours, theirs = student.stages[self.stage - 1], teacher.stages[self.stage - 1]
        inputs, outputs, size, wanted = ours.shape[1], theirs.shape[1], ours.shape[2:], theirs.shape[2:]
        layer: nn.Module
        if all(n == 2 * m for n, m in zip(size, wanted, strict=True)):
            layer = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        elif all(2 * n == m for n, m in zip(size, wanted, strict=True)):
            layer = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
        elif all(n >= m for n, m in zip(size, wanted, strict=True)):
            rows, columns = (1 + n - m for n, m in zip(size, wanted, strict=True))
            layer = nn.Conv2d(inputs, outputs, (rows, columns))
        else:
            raise ConfigError(
                f"fitnet: '{student.taps.stages[self.stage - 1]}' of the student gives {list(ours.shape[1:])} and "
                f"'{teacher.taps.stages[self.stage - 1]}' of the teacher {list(theirs.shape[1:])}; expected as many "
                "rows and columns, half as many, or more; choose another stage"
            )
        self.layers = nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())

    def losses(self, student: Seen, teacher: Seen, batch: Batch) -> Losses:
        ours = self.layers(student.stages[self.stage - 1])
        return {self.name: F.mse_loss(ours, teacher.stages[self.stage - 1])}
