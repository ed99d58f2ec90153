"""FT: factors that a paraphraser makes of the teacher and a translator of the student."""

from typing import Annotated, ClassVar

import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from robust.distillation.distiller import Distiller, LossWeights, TrainingSet, to_smaller
from robust.distillation.taps import Seen
from vision.engine.errors import ConfigError
from vision.engine.registry import register
from vision.engine.task import Batch, Losses

_SLOPE = 0.1


def _layer(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.LeakyReLU(_SLOPE)]


def _layer_back(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.ConvTranspose2d(inputs, outputs, 3, padding=1), nn.LeakyReLU(_SLOPE)]


@register("factor", kind="distiller")
class Factor(Distiller):
    r"""Factor transfer at the last stage: :math:`\mathrm{mean} |n(F_s) - n(F_t)|`.

    In the initial epochs a paraphraser, three 3x3 convolutions to ``share`` of the teacher's channels and three back,
    learns to rebuild the teacher's features; :math:`F_t` is its middle. A translator, three convolutions, makes
    :math:`F_s` of the student's. n is the mean square over channels, flattened and of norm 1.

    Args:
        share: factors as a share of the teacher's channels, in (0, 1].
        initial_epochs: that train the paraphraser alone.

    Deviation: the paraphraser learns in the first part of the run, under the run's own schedule.

    Source: Kim et al. 2018, arXiv 1802.04977.
    """

    name: ClassVar[str] = "factor"
    weights: ClassVar[LossWeights] = LossWeights(1.0, 0.0, 200.0)
    reads = ("stages",)

    def __init__(self, share: float = 0.5, initial_epochs: Annotated[int, Ge(0)] = 30) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise ConfigError(f"factor.share: {share} is outside (0, 1]")
        self.share, self.initial_epochs = share, initial_epochs

    def prepare(self, student: Seen, teacher: Seen, data: TrainingSet) -> None:
        ours, theirs = student.stages[-1].shape[1], teacher.stages[-1].shape[1]
        factors = max(1, int(self.share * theirs))
        self.layers = nn.ModuleDict(
            {
                "encoder": nn.Sequential(*_layer(theirs, theirs), *_layer(theirs, factors), *_layer(factors, factors)),
                "decoder": nn.Sequential(
                    *_layer_back(factors, factors), *_layer_back(factors, theirs), *_layer_back(theirs, theirs)
                ),
                "translator": nn.Sequential(*_layer(ours, ours), *_layer(ours, factors), *_layer(factors, factors)),
            }
        )

    def _part(self, name: str, features: Tensor) -> Tensor:
        found: Tensor = self.layers.get_submodule(name)(features)
        return found

    def initial_losses(self, student: Seen, teacher: Seen, batch: Batch) -> Losses:
        features = teacher.stages[-1]
        return {"paraphraser": F.mse_loss(self._part("decoder", self._part("encoder", features)), features)}

    def losses(self, student: Seen, teacher: Seen, batch: Batch) -> Losses:
        ours = self._part("translator", student.stages[-1])
        theirs = self._part("encoder", teacher.stages[-1]).detach()  # the paraphraser has learnt by now
        ours, theirs = to_smaller(ours, theirs)
        return {self.name: (_normalised(ours) - _normalised(theirs)).abs().mean()}


def _normalised(factors: Tensor) -> Tensor:
    return F.normalize(factors.square().mean(1).flatten(1))
