"""CRD: a student's embedding that tells its teacher's embedding of the same image from those of other classes."""

import math
from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robust.distillation.distiller import Distiller, LossWeights, TrainingSet
from robust.distillation.exchange import gathered, index_of, mean_over_processes
from robust.distillation.remembering import Remembering
from robust.distillation.taps import Seen
from vision.engine.errors import CheckpointError, ConfigError, DataError
from vision.engine.registry import register
from vision.engine.task import Batch, Losses

_FLOOR = 1e-7


class ContrastMemory(Remembering):
    r"""Embeddings of all samples by both networks, and the contrastive loss against them.

    With rows :math:`m` of the other network's memory and an embedding v, :math:`P = \exp(m^\top v / \tau) / Z`, of the
    positive and of K negatives; Z is the mean of the first batch's scores (over all processes) times the number of
    samples n. For each side

    .. math:: -\frac 1 N \Big(\sum \log \frac{P_+}{P_+ + K/n + e} + \sum \log \frac{K/n}{P_- + K/n + e}\Big)

    and both sides are added. Then the rows become :math:`\mu m + (1 - \mu) v`, of norm 1 again.

    Args:
        samples: n.
        width: of an embedding; rows begin uniform in :math:`\pm 1 / \sqrt{d / 3}`.
        temperature: :math:`\tau`.
        momentum: :math:`\mu`.

    Attributes:
        student: rows of the student, ``[n, d]``.
        teacher: rows of the teacher, ``[n, d]``.
        constants: Z of the student's and of the teacher's side; 0 before the first batch.

    Source: Tian, Krishnan & Isola 2020, arXiv 1910.10699.
    """

    def __init__(self, samples: int, width: int = 128, temperature: float = 0.07, momentum: float = 0.5) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width / 3)
        self.samples, self.temperature, self.momentum = samples, temperature, momentum
        self.student = torch.empty(samples, width).uniform_(-bound, bound)
        self.teacher = torch.empty(samples, width).uniform_(-bound, bound)
        self.constants = [0.0, 0.0]

    def forward(self, ours: Tensor, theirs: Tensor, index: Tensor, chosen: Tensor) -> Tensor:
        """The loss, a scalar; the memory then takes in the embeddings.

        Args:
            ours: embeddings of the student, ``[N, d]``, rows of norm 1.
            theirs: embeddings of the teacher, ``[N, d]``, rows of norm 1.
            index: of the samples, int64 ``[N]``.
            chosen: the sample itself first, then K negatives, int64 ``[N, 1 + K]``.
        """
        scores_ours = self._scores(self.teacher, ours, chosen, 0)
        scores_theirs = self._scores(self.student, theirs, chosen, 1)
        loss = self._contrast(scores_ours) + self._contrast(scores_theirs)
        self._take_in(index, ours.detach(), theirs.detach())
        return loss

    def _scores(self, memory: Tensor, vectors: Tensor, chosen: Tensor, side: int) -> Tensor:
        # all products, of which some are taken: less memory than the chosen rows, [N, 1 + K, d], would need
        scores = (vectors.float() @ memory.T).gather(1, chosen).div(self.temperature).exp()
        if self.constants[side] == 0:
            self.constants[side] = float(mean_over_processes(scores.detach().mean())) * self.samples
        return scores / self.constants[side]

    def _contrast(self, scores: Tensor) -> Tensor:
        positive, negative = scores[:, :1], scores[:, 1:]
        noise = negative.shape[1] / self.samples
        found = (positive / (positive + noise + _FLOOR)).log().sum()
        refused = (noise / (negative + noise + _FLOOR)).log().sum()
        return -(found + refused) / len(scores)

    @torch.no_grad()
    def _take_in(self, index: Tensor, ours: Tensor, theirs: Tensor) -> None:
        index, both = gathered(index, torch.stack([ours.float(), theirs.float()], 1))
        self.student = self._moved(self.student, index, both[:, 0])
        self.teacher = self._moved(self.teacher, index, both[:, 1])

    def _moved(self, memory: Tensor, index: Tensor, vectors: Tensor) -> Tensor:
        """A copy: the backward pass still needs the memory of before."""
        rows = F.normalize(self.momentum * memory[index] + (1 - self.momentum) * vectors)
        return memory.index_copy(0, index, rows)

    def remembered(self) -> dict[str, Tensor]:
        """Both memories and Z, for checkpoints."""
        return {
            "student": self.student,
            "teacher": self.teacher,
            "constants": torch.tensor(self.constants, dtype=torch.float64),
        }

    def remember(self, held: dict[str, Tensor]) -> None:
        """Takes over what :meth:`remembered` gave.

        Raises:
            CheckpointError: a memory of another size.
        """
        if held["student"].shape != self.student.shape:
            raise CheckpointError(
                f"the contrast memory in the checkpoint is {list(held['student'].shape)}, this one "
                f"{list(self.student.shape)}; bring back the data it was trained on"
            )
        self.student = held["student"].to(self.student).clone()
        self.teacher = held["teacher"].to(self.teacher).clone()
        self.constants = held["constants"].tolist()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ContrastMemory":
        super()._apply(fn, recurse)
        self.student, self.teacher = fn(self.student).float(), fn(self.teacher).float()
        return self


class OtherClasses:
    """Draws samples of other classes than a label's, each equally likely.

    Args:
        labels: of all samples, int64 ``[n]``.

    Raises:
        DataError: all samples are of one class.
    """

    def __init__(self, labels: Tensor) -> None:
        self.order = torch.argsort(labels, stable=True)
        self.counts = torch.bincount(labels)
        self.starts = self.counts.cumsum(0) - self.counts
        if int((self.counts > 0).sum()) < 2:
            raise DataError("crd needs samples of other classes and the training data has one class only")

    def draw(self, labels: Tensor, count: int) -> Tensor:
        """``count`` places of samples for each of ``labels``: int64 ``[N, count]``, on their device."""
        own, start = self.counts[labels.cpu()][:, None], self.starts[labels.cpu()][:, None]
        place = (torch.rand(len(labels), count, dtype=torch.float64) * (len(self.order) - own)).long()
        return self.order[place + own * (place >= start)].to(labels.device)


@register("crd", kind="distiller")
class CRD(Distiller):
    """Contrastive representation distillation: linear embeddings of both networks against :class:`ContrastMemory`.

    Args:
        width: of the embeddings.
        negatives: K.
        temperature: of the scores.
        momentum: of the memory.

    Deviation: negatives are drawn with replacement; the release draws without where a class leaves enough.

    Source: Tian, Krishnan & Isola 2020, arXiv 1910.10699.
    """

    name: ClassVar[str] = "crd"
    weights: ClassVar[LossWeights] = LossWeights(1.0, 0.0, 0.8)
    reads = ("pooled",)
    indexed: ClassVar[bool] = True

    def __init__(
        self, width: int = 128, negatives: int = 16384, temperature: float = 0.07, momentum: float = 0.5
    ) -> None:
        super().__init__()
        if width < 1 or negatives < 1 or not temperature > 0 or not 0 <= momentum < 1:
            raise ConfigError(
                f"crd: width {width}, negatives {negatives}, temperature {temperature} and momentum {momentum}; "
                "expected 1 or more, 1 or more, above 0 and in [0, 1)"
            )
        self.width, self.negatives, self.temperature, self.momentum = width, negatives, temperature, momentum

    def prepare(self, student: Seen, teacher: Seen, data: TrainingSet) -> None:
        self.others = OtherClasses(data.labels())
        self.memory = ContrastMemory(data.samples, self.width, self.temperature, self.momentum)
        self.layers = nn.ModuleDict(
            {
                "student": nn.Linear(student.pooled.shape[1], self.width),
                "teacher": nn.Linear(teacher.pooled.shape[1], self.width),
                "memory": self.memory,
            }
        )

    def losses(self, student: Seen, teacher: Seen, batch: Batch) -> Losses:
        index = index_of(batch, self.name)
        chosen = torch.cat([index[:, None], self.others.draw(batch["label"], self.negatives)], 1)
        ours = F.normalize(self.layers.get_submodule("student")(student.pooled))
        theirs = F.normalize(self.layers.get_submodule("teacher")(teacher.pooled))
        return {self.name: self.memory(ours, theirs, index, chosen)}
