"""FSP: how features flow from one layer to the next."""

from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from robust.distillation.distiller import Distiller, LossWeights, TrainingSet, to_smaller
from robust.distillation.taps import Seen
from vision.engine.registry import register
from vision.engine.task import Batch, Losses


@register("fsp", kind="distiller")
class FSP(Distiller):
    r"""The flow of the solution procedure, learnt in the initial epochs; the student then trains on labels.

    Between consecutive layers (the stem and every stage) :math:`G = \frac{1}{HW} \sum_{hw} a_{i,hw} b_{j,hw}`, the
    larger averaged down; mean squared error between the networks' G, summed over layers.

    Args:
        initial_epochs: that train this loss alone.
        throughout: also train it afterwards, by the weight ``other``.

    Deviation: the initial stage is the first part of the run, under the run's own schedule, not a run before it.

    Source: Yim et al. 2017, CVPR.
    """

    name: ClassVar[str] = "fsp"
    weights: ClassVar[LossWeights] = LossWeights(1.0, 0.0, 50.0)
    reads = ("stem", "stages")

    def __init__(self, initial_epochs: Annotated[int, Ge(0)] = 30, throughout: bool = False) -> None:
        super().__init__()
        self.initial_epochs, self.throughout = initial_epochs, throughout

    def prepare(self, student: Seen, teacher: Seen, data: TrainingSet) -> None:
        ours, theirs = _flow(student), _flow(teacher)
        self.require_channels([(a, x, b, y) for (a, x), (b, y) in zip(ours, theirs, strict=True)])

    def initial_losses(self, student: Seen, teacher: Seen, batch: Batch) -> Losses:
        ours, theirs = _matrices(student), _matrices(teacher)
        terms = [(s - t).square().mean() for s, t in zip(ours, theirs, strict=True)]
        return {self.name: torch.stack(terms).sum()}

    def losses(self, student: Seen, teacher: Seen, batch: Batch) -> Losses:
        return self.initial_losses(student, teacher, batch) if self.throughout else {}


def _flow(seen: Seen) -> list[tuple[str, Tensor]]:
    return [(str(seen.taps.stem), seen.stem), *zip(seen.taps.stages, seen.stages, strict=True)]


def _matrices(seen: Seen) -> list[Tensor]:
    found = []
    for (_, one), (_, other) in pairwise(_flow(seen)):
        a, b = to_smaller(one, other)
        found.append(torch.einsum("nihw,njhw->nij", a, b) / (a.shape[2] * a.shape[3]))
    return found
