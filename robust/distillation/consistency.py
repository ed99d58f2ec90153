"""The consistency regulariser of SoTeacher (arXiv 2206.06661): today's prediction against a sample's earlier ones."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from robust.distillation.exchange import gathered
from robust.distillation.remembering import Remembering
from vision.engine.errors import CheckpointError

Schedule = Literal["linear", "step", "cycle", "cosine", "none"]
"""How the weight grows over epochs; see :func:`consistency_weight`."""

_SHARE: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "cycle": lambda x: math.sqrt(max(0.0, 1 - (1 - x) ** 2)),
    "cosine": lambda x: math.cos((1 - x) * math.pi / 2),
    "none": lambda x: 1.0,
}


def consistency_weight(schedule: Schedule, weight: float, epochs: int, finished: int, start_at: int = 50) -> float:
    r"""The weight in force in the epoch after ``finished`` of them, with :math:`x = (\mathrm{finished} + 1) / E`.

    ``linear``: :math:`\lambda x`. ``step``: 0 while ``finished < start_at``, then :math:`\lambda`. ``cycle``:
    :math:`\lambda \sqrt{1 - (1 - x)^2}`. ``cosine``: :math:`\lambda \cos((1 - x) \pi / 2)`. ``none``:
    :math:`\lambda`. After the last epoch :math:`x > 1`; no epoch uses that value.

    Args:
        schedule: see :data:`Schedule`.
        weight: :math:`\lambda`, the largest weight.
        epochs: :math:`E`, of the whole run.
        finished: epochs over so far, 1 or more.
        start_at: of ``step``, in epochs.

    Raises:
        ValueError: an unknown schedule, or epochs below 1.

    Source: the authors' code.

    Example:
        >>> consistency_weight("linear", 1.0, epochs=4, finished=1)
        0.5
    """
    if epochs < 1 or finished < 1:
        raise ValueError(f"epochs is {epochs} and finished {finished}; expected 1 or more of each")
    if schedule == "step":
        return weight if finished >= start_at else 0.0
    if schedule not in _SHARE:
        raise ValueError(f"schedule is '{schedule}', expected one of {', '.join([*_SHARE, 'step'])}")
    return weight * _SHARE[schedule]((finished + 1) / epochs)


class ConsistencyBank(Remembering):
    r"""The running mean of each sample's predictions, and the penalty for leaving it.

    With :math:`p = \mathrm{softmax}(z / \tau)` and row :math:`P_i` of the table, in epoch k = 1, 2, ...

    .. math:: L = w(k) \, \frac 1 N \sum_i \sum_c (p_{ic} - P_{ic})^2, \qquad P_i \leftarrow (1 - t) P_i + t \, p_i

    the loss first (0 in epoch 1), the table after it. Gradients run through p alone. Of the mean of all earlier
    predictions, t = 1/k. The authors' code takes t = 1, 1/3, 1/4, 1/5, ..., which counts the first twice;
    ``legacy_average`` does that. Each sample must be seen once an epoch.

    Under torch.distributed every process keeps the whole table and hears of the others' samples at each call, so that
    all processes must call it equally often.

    Args:
        samples: rows of the table.
        classes: its columns.
        weight: :math:`\lambda`, the largest weight of the loss; 1 published.
        schedule: see :func:`consistency_weight`; ``linear`` published.
        epochs: of the whole run; None until ``end_epoch`` is told.
        legacy_average: the authors' averaging, for their figures; false takes the exact mean.
        start_at: of the schedule ``step``.
        temperature: :math:`\tau`; 1 published.
        dtype: of the table: float32, or float16 for half the memory.
        placement: ``device`` moves the table with the module; ``cpu`` keeps it off the accelerator.

    Attributes:
        table: P, shape ``[samples, classes]``, ``samples * classes * 4`` bytes in float32.
        epoch: k, from 1.
        weight_now: w(k).

    Raises:
        ValueError: a size below 1, a negative weight or start, or a temperature that is not above 0.

    Source: section 2 of the authors' code; the name in the paper is consistency regularisation by temporal ensembling.
    """

    def __init__(
        self,
        samples: int,
        classes: int,
        weight: float = 1.0,
        schedule: Schedule = "linear",
        epochs: int | None = None,
        legacy_average: bool = True,
        *,
        start_at: int = 50,
        temperature: float = 1.0,
        dtype: torch.dtype = torch.float32,
        placement: Literal["device", "cpu"] = "device",
    ) -> None:
        super().__init__()
        if samples < 1 or classes < 1:
            raise ValueError(f"a bank of {samples} samples and {classes} classes; expected 1 or more of each")
        if weight < 0 or not temperature > 0 or start_at < 0:
            raise ValueError(
                f"weight {weight}, temperature {temperature} and start_at {start_at}; expected >= 0, > 0 and >= 0"
            )
        if schedule not in (*_SHARE, "step"):
            raise ValueError(f"schedule is '{schedule}', expected one of {', '.join([*_SHARE, 'step'])}")
        self.samples, self.classes, self.weight, self.epochs = samples, classes, weight, epochs
        self.schedule: Schedule = schedule
        self.legacy_average, self.start_at, self.temperature = legacy_average, start_at, temperature
        self.placement = placement
        self.table = torch.zeros(samples, classes, dtype=dtype)  # no buffer: DDP would send it at each forward pass
        self.epoch, self.weight_now = 1, weight

    @property
    def step_size(self) -> float:
        """t, how far a row goes towards the newest prediction in this epoch."""
        if self.legacy_average and self.epoch > 1:
            return 1 / (1 + self.epoch)
        return 1 / self.epoch

    def forward(self, logits: Tensor, index: Tensor) -> Tensor:
        """The weighted loss, a scalar; the rows of ``index`` then take in the predictions.

        Args:
            logits: float, shape ``[N, classes]``.
            index: rows, int64, shape ``[N]``.

        Raises:
            ValueError: shapes that do not fit, or a row that is not there.
        """
        self._require_fit(logits, index)
        probabilities = (logits.float() / self.temperature).softmax(1)
        loss = probabilities.sum() * 0.0
        if self.epoch > 1:
            earlier = self.table[index.to(self.table.device)].to(probabilities)
            loss = self.weight_now * (probabilities - earlier).square().sum(1).mean()
        self._take_in(index, probabilities.detach())
        return loss

    @torch.no_grad()
    def _take_in(self, index: Tensor, probabilities: Tensor) -> None:
        index, probabilities = gathered(index, probabilities)
        index, t = index.to(self.table.device), self.step_size
        before = self.table[index].float()
        self.table[index] = ((1 - t) * before + t * probabilities.to(before)).to(self.table.dtype)

    def end_epoch(self, finished: int | None = None, epochs: int | None = None) -> None:
        """Goes on to the next epoch and its weight.

        Args:
            finished: epochs over now; by default the current one.
            epochs: of the whole run, where the constructor was not told.

        Raises:
            ValueError: a schedule over epochs whose number nobody has told.
        """
        finished, self.epochs = finished or self.epoch, self.epochs or epochs
        if self.epochs is None and self.schedule not in ("none", "step"):
            raise ValueError(f"the schedule '{self.schedule}' needs the number of epochs; give epochs")
        self.weight_now = consistency_weight(
            self.schedule, self.weight, self.epochs or finished, finished, self.start_at
        )
        self.epoch = finished + 1

    def _require_fit(self, logits: Tensor, index: Tensor) -> None:
        if logits.ndim != 2 or logits.shape[1] != self.classes or index.shape != logits.shape[:1]:
            raise ValueError(
                f"logits {list(logits.shape)} and index {list(index.shape)}; expected [N, {self.classes}] and [N]"
            )
        if index.numel() and (int(index.min()) < 0 or int(index.max()) >= self.samples):
            raise ValueError(
                f"sample indices from {int(index.min())} to {int(index.max())}; the bank has {self.samples} rows"
            )

    # -- state ---------------------------------------------------------------------------------------------------

    def remembered(self) -> dict[str, Tensor]:
        """The table, and the epoch, the weight and the number of epochs (0: unknown), for checkpoints."""
        clock = torch.tensor([self.epoch, self.weight_now, self.epochs or 0], dtype=torch.float64)
        return {"table": self.table, "clock": clock}

    def remember(self, held: dict[str, Tensor]) -> None:
        """Takes over what :meth:`remembered` gave.

        Raises:
            CheckpointError: it is of a bank of another size; nothing has changed then.
        """
        table = held["table"]
        if table.shape != self.table.shape:
            raise CheckpointError(
                f"the consistency bank in the checkpoint has {table.shape[0]} samples and {table.shape[1]} classes, "
                f"this one {self.samples} and {self.classes}; bring back the data it was trained on"
            )
        self.table = table.to(self.table.device, self.table.dtype).clone()
        epoch, self.weight_now, epochs = held["clock"].tolist()
        self.epoch, self.epochs = int(epoch), int(epochs) or None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ConsistencyBank":
        super()._apply(fn, recurse)
        if self.placement == "device":
            self.table = fn(self.table).to(self.table.dtype)  # the device changes, the type does not
        return self
