"""RKD: distances between samples, and angles among three."""

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from robust.distillation.distiller import Distiller, LossWeights
from robust.distillation.taps import Seen
from vision.engine.registry import register
from vision.engine.task import Batch, Losses


@register("rkd", kind="distiller")
class RKD(Distiller):
    r"""Relational distillation of the pooled features.

    Distances :math:`\lVert x_i - x_j \rVert` divided by the mean of those above 0, and the cosine of the angle at
    every j between every i and k; smooth L1 between the networks', the mean over all pairs and all triplets.

    Args:
        distance: weight of the distances.
        angle: weight of the angles.

    Source: Park et al. 2019, arXiv 1904.05068.
    """

    name: ClassVar[str] = "rkd"
    weights: ClassVar[LossWeights] = LossWeights(1.0, 0.0, 1.0)
    reads = ("pooled",)

    def __init__(self, distance: Annotated[float, Ge(0)] = 25.0, angle: Annotated[float, Ge(0)] = 50.0) -> None:
        super().__init__()
        self.distance, self.angle = distance, angle

    def losses(self, student: Seen, teacher: Seen, batch: Batch) -> Losses:
        ours, theirs = student.pooled, teacher.pooled
        return {
            "rkd_distance": self.distance * F.smooth_l1_loss(distances(ours), distances(theirs)),
            "rkd_angle": self.angle * F.smooth_l1_loss(angles(ours), angles(theirs)),
        }


def distances(rows: Tensor) -> Tensor:
    """Euclidean distances of rows ``[N, D]`` over the mean of those above 0: ``[N, N]``, the diagonal 0."""
    squares = rows.square().sum(1)
    found = (squares[:, None] + squares[None] - 2 * rows @ rows.T).clamp(min=1e-12).sqrt()
    found = found * (1 - torch.eye(len(rows), device=rows.device, dtype=rows.dtype))
    above = found[found > 0]
    return found / above.mean() if above.numel() else found


def angles(rows: Tensor) -> Tensor:
    """Cosines of the angles at each row between any two others: ``[N, N, N]``, the vertex first."""
    towards = F.normalize(rows[None] - rows[:, None], dim=2)
    return towards @ towards.transpose(1, 2)
