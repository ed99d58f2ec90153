"""SSKD: what the teacher makes of rotated images, as classes and as neighbours."""

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn

from robust.distillation.distiller import Distiller, LossWeights, TrainingSet, soft_label_loss
from robust.distillation.taps import Seen
from vision.engine.errors import ConfigError
from vision.engine.registry import register
from vision.engine.task import Batch, Losses

_ROTATIONS = (1, 2, 3)


@register("sskd", kind="distiller")
class SSKD(Distiller):
    r"""Self-supervision: both networks also see each image turned by 90, 180 and 270 degrees.

    ``sskd_turned`` is the soft-label loss on turned images. ``sskd_neighbours`` is that of the cosines between each
    turned image and every upright one, of a head (two linear layers) on the pooled features. Where the teacher puts
    the right class (or image) first, a view counts; of the others the best ranked share does.
    The teacher's head learns in the initial epochs, to find the upright image of each turned one.

    Args:
        turned: weight of the turned images; temperature 4.
        neighbours: weight of the neighbours; temperature 0.5.
        turned_temperature: of ``turned``.
        neighbours_temperature: of ``neighbours``.
        turned_share: of the wrong views that count for ``turned``, in [0, 1].
        neighbours_share: likewise.
        initial_epochs: that train the teacher's head alone.

    Deviation: the views are turns of one crop, where the release crops each anew; the teacher's head learns in the
        first part of the run, under the run's own schedule.

    Source: Xu et al. 2020, arXiv 2006.07114; weights of the run file that SoTeacher used.
    """

    name: ClassVar[str] = "sskd"
    weights: ClassVar[LossWeights] = LossWeights(1.0, 1.0, 1.0)
    reads = ("pooled",)

    def __init__(
        self,
        turned: Annotated[float, Ge(0)] = 2.7,
        neighbours: Annotated[float, Ge(0)] = 10.0,
        turned_temperature: Annotated[float, Gt(0)] = 4.0,
        neighbours_temperature: Annotated[float, Gt(0)] = 0.5,
        turned_share: float = 1.0,
        neighbours_share: float = 0.75,
        initial_epochs: Annotated[int, Ge(0)] = 60,
    ) -> None:
        super().__init__()
        if not 0 <= turned_share <= 1 or not 0 <= neighbours_share <= 1:
            raise ConfigError(f"sskd: shares {turned_share} and {neighbours_share}; expected both in [0, 1]")
        self.turned, self.neighbours = turned, neighbours
        self.turned_temperature, self.neighbours_temperature = turned_temperature, neighbours_temperature
        self.turned_share, self.neighbours_share = turned_share, neighbours_share
        self.initial_epochs = initial_epochs

    def prepare(self, student: Seen, teacher: Seen, data: TrainingSet) -> None:
        sizes = {"student": student.pooled.shape[1], "teacher": teacher.pooled.shape[1]}
        self.layers = nn.ModuleDict(
            {who: nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d)) for who, d in sizes.items()}
        )

    def views(self, images: Tensor) -> Tensor:
        if images.shape[-1] != images.shape[-2]:
            raise ConfigError(f"sskd turns images and these are {list(images.shape[-2:])}; expected square ones")
        return torch.cat([images, *(torch.rot90(images, k, (2, 3)) for k in _ROTATIONS)])

    def _cosines(self, who: str, pooled: Tensor) -> Tensor:
        rows = F.normalize(self.layers.get_submodule(who)(pooled))
        count = len(rows) // (1 + len(_ROTATIONS))
        return rows[count:] @ rows[:count].T  # [3 N, N]

    def initial_losses(self, student: Seen, teacher: Seen, batch: Batch) -> Losses:
        cosines = self._cosines("teacher", teacher.pooled)
        target = torch.arange(cosines.shape[1], device=cosines.device).repeat(len(_ROTATIONS))
        return {"sskd_head": F.cross_entropy(cosines, target)}

    def losses(self, student: Seen, teacher: Seen, batch: Batch) -> Losses:
        count, t_turned, t_near = len(batch["label"]), self.turned_temperature, self.neighbours_temperature
        ours, theirs = student.logits[count:], teacher.logits[count:]
        kept = best_ranked(theirs, batch["label"].repeat(len(_ROTATIONS)), self.turned_share)
        near, their_near = self._cosines("student", student.pooled), self._cosines("teacher", teacher.pooled).detach()
        upright = torch.arange(count, device=near.device).repeat(len(_ROTATIONS))
        kept_near = best_ranked(their_near, upright, self.neighbours_share)
        return {
            "sskd_turned": self.turned * _loss(ours, theirs, kept, t_turned),
            "sskd_neighbours": self.neighbours * _loss(near, their_near, kept_near, t_near),
        }


def _loss(ours: Tensor, theirs: Tensor, kept: Tensor, temperature: float) -> Tensor:
    if not len(kept):
        return ours.sum() * 0.0
    return soft_label_loss(ours[kept], theirs[kept], temperature)


def best_ranked(scores: Tensor, target: Tensor, share: float) -> Tensor:
    """Rows whose target has the largest score, and the given share of the others, best ranked first.

    Args:
        scores: ``[M, C]``.
        target: int64 ``[M]``.
        share: of the others, rounded down.

    Returns:
        Places, ascending.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    rank = (order == target[:, None]).int().argmax(1)
    wrong = int((rank > 0).sum())
    count = len(rank) - wrong + int(wrong * share)
    return rank.argsort(stable=True)[:count].sort().values
