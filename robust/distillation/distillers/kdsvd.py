"""KDSVD: the main directions of a layer's channels, from one stage to the next."""

from itertools import pairwise
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor

from robust.distillation.distiller import Distiller, LossWeights, TrainingSet
from robust.distillation.taps import Seen
from vision.engine.registry import register
from vision.engine.task import Batch, Losses

_SPARE = 3
"""Singular vectors of the student beyond the teacher's, to find its counterparts among."""


@register("kdsvd", kind="distiller")
class KDSVD(Distiller):
    r"""Correlation of the leading right singular vectors of consecutive stages.

    Features are matrices ``[H W, C]`` of each sample. The teacher's first k right singular vectors, each times its
    share of the singular values (of norm 1), are v; each of the student's first k + 3 goes, with its sign, to the
    vector of the teacher that it is most parallel to. Between stages l and l + 1
    :math:`R_{ij} = \exp(-(v_i^{l+1} - v_j^l)^2 / 8)`, and the loss is :math:`\frac 1 N \sum (R_s - R_t)^2`.

    Args:
        vectors: k.

    Deviation: where singular values coincide their derivative does not exist; such gradients are set to 0. No weight is
        published with the code we follow; ours is 1.

    Source: Lee, Kim & Song 2018, arXiv 1807.06819.
    """

    name: ClassVar[str] = "kdsvd"
    weights: ClassVar[LossWeights] = LossWeights(1.0, 0.0, 1.0)
    reads = ("stages",)

    def __init__(self, vectors: Annotated[int, Gt(0)] = 1) -> None:
        super().__init__()
        self.vectors = vectors

    def prepare(self, student: Seen, teacher: Seen, data: TrainingSet) -> None:
        self.require_channels(
            list(zip(student.taps.stages, student.stages, teacher.taps.stages, teacher.stages, strict=True))
        )

    def losses(self, student: Seen, teacher: Seen, batch: Batch) -> Losses:
        ours, theirs = [], []
        for s, t in zip(student.stages, teacher.stages, strict=True):
            their_shares, their_vectors = _leading(t, self.vectors)
            _, vectors = _leading(s, self.vectors + _SPARE)
            ours.append(_aligned(vectors, their_vectors) * their_shares[:, None])
            theirs.append(their_vectors * their_shares[:, None])
        terms = [
            (_related(*s) - _related(*t)).square().sum() for s, t in zip(pairwise(ours), pairwise(theirs), strict=True)
        ]
        if not terms:
            return {self.name: student.stages[0].sum() * 0.0}
        return {self.name: torch.stack(terms).sum() / len(student.logits)}


def _leading(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Shares ``[N, k]`` and right singular vectors ``[N, C, k]`` of features ``[N, C, H, W]``."""
    matrices = features.float().flatten(2).transpose(1, 2)
    if matrices.requires_grad:
        matrices.register_hook(lambda gradient: gradient.nan_to_num(0.0, 0.0, 0.0))
    _, values, rows = torch.linalg.svd(matrices, full_matrices=False)
    vectors = rows.transpose(1, 2)[:, :, :count]
    return F.normalize(values[:, :count], dim=1), F.normalize(vectors, dim=1)


def _aligned(ours: Tensor, theirs: Tensor) -> Tensor:
    """For each vector of the teacher, the student's most parallel one that has no better match, signed like it."""
    cosine = ours.transpose(1, 2) @ theirs  # [N, k + 3, k]
    best = cosine.abs() == cosine.abs().amax(1, keepdim=True)
    return ours @ torch.where(best, cosine.sign(), torch.zeros_like(cosine)).detach()


def _related(earlier: Tensor, later: Tensor) -> Tensor:
    return (-(later.unsqueeze(2) - earlier.unsqueeze(1)).square() / 8).exp()
