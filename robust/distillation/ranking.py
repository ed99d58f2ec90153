"""Correctness ranking (Moon et al. 2020, arXiv 2007.01458): confidence in the order of how often a sample was right."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from robust.distillation.exchange import gathered
from robust.distillation.remembering import Remembering
from vision.engine.errors import CheckpointError


class CorrectnessRanking(Remembering):
    r"""A history of correct training predictions and the ranking loss on it.

    Sample i is paired with the next of its batch, the last with the first. With the largest softmax probability
    :math:`\kappa`, the history normalised to :math:`h = (h - h_{min}) / (M - h_{min})`,
    :math:`s = \mathrm{sign}(h_1 - h_2)` and :math:`s' = s` or 1 where s is 0:

    .. math:: L = \mathrm{mean} \max\big(0, -s (\kappa_1 - \kappa_2 - |h_1 - h_2| / s')\big)

    M is 1 and grows by one at the end of each epoch but the first. The history is brought up to date after the loss.

    Args:
        samples: in the training data.
        weight: of the loss; 1 published.

    Attributes:
        history: times each sample was right, float32, shape ``[samples]``.
        most: M.

    Raises:
        ValueError: no samples, or a negative weight.

    Deviation: where every sample was right every time, M equals :math:`h_{min}` and h is 0 instead of 0/0.

    Source: the option ``CRL`` of the SoTeacher code; a baseline there, no part of SoTeacher.
    """

    def __init__(self, samples: int, weight: float = 1.0) -> None:
        super().__init__()
        if samples < 1 or weight < 0:
            raise ValueError(f"{samples} samples and weight {weight}; expected 1 or more and 0 or more")
        self.samples, self.weight = samples, weight
        self.history = torch.zeros(samples)
        self.most = 1

    def normalised(self, index: Tensor) -> Tensor:
        """The histories of ``index``, from 0 for the sample least often right, float32 ``[N]``."""
        least = self.history.min()
        return (self.history[index] - least) / (self.most - least if self.most != float(least) else 1.0)

    def forward(self, logits: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """The weighted loss, a scalar; the history then takes in what is right.

        Args:
            logits: float, shape ``[N, C]``.
            labels: int64, shape ``[N]``.
            index: of the samples, int64, shape ``[N]``.
        """
        confidence = logits.float().softmax(1).amax(1)
        other = confidence.roll(-1)
        share = self.normalised(index)
        gap = share - share.roll(-1)
        sign = gap.sign()
        margin = gap.abs() / torch.where(sign == 0, torch.ones_like(sign), sign)
        loss = F.margin_ranking_loss(confidence, other + margin, sign)
        self._take_in(index, (logits.argmax(1) == labels).float())
        return self.weight * loss

    @torch.no_grad()
    def _take_in(self, index: Tensor, right: Tensor) -> None:
        index, right = gathered(index, right)
        self.history[index] += right

    def end_epoch(self, finished: int) -> None:
        """Counts an epoch that is over, from 1."""
        self.most = max(1, finished)

    def remembered(self) -> dict[str, Tensor]:
        """The history and M, for checkpoints."""
        return {"history": self.history, "most": torch.tensor(self.most)}

    def remember(self, held: dict[str, Tensor]) -> None:
        """Takes over what :meth:`remembered` gave.

        Raises:
            CheckpointError: it is of another number of samples.
        """
        if len(held["history"]) != self.samples:
            raise CheckpointError(
                f"the history in the checkpoint has {len(held['history'])} samples, this one {self.samples}; "
                "bring back the data it was trained on"
            )
        self.history = held["history"].to(self.history.device).clone()
        self.most = int(held["most"])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CorrectnessRanking":
        super()._apply(fn, recurse)
        self.history = fn(self.history).float()
        return self
