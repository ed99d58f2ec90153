"""The regularisers a classification task can switch on, together: Lipschitz, consistency and correctness ranking."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robust.distillation.consistency import ConsistencyBank, Schedule
from robust.distillation.exchange import index_of
from robust.distillation.lipschitz import Norm, lipschitz_penalty
from robust.distillation.ranking import CorrectnessRanking
from vision.engine.errors import ConfigError
from vision.engine.task import Batch, Losses, StepContext


@dataclass(frozen=True)
class Regularisers:
    """Which terms are added to a classifier's loss. The defaults are SoTeacher as published for WRN-40-2 on CIFAR-100.

    Attributes:
        lipschitz: weight of the sum of layer terms; 0 leaves it out. 1e-5 for WRN-40-2; 5e-7 to 2e-6 for networks
            whose sum is much larger.
        lipschitz_norm: ``official``, or ``operator`` (experimental, ours).
        consistency: the largest weight of the consistency term; 0 leaves it out.
        schedule: how that weight grows; ``linear`` is published.
        start_at: epochs before the schedule ``step`` begins.
        legacy_average: the authors' averaging (t = 1, 1/3, 1/4, ...) instead of the exact mean (1, 1/2, 1/3, ...).
        temperature: of the averaged predictions.
        bank: ``float32`` or ``float16`` numbers in the bank, ``samples * classes`` of them.
        bank_on: ``device``, or ``cpu`` to keep it off the accelerator.
        ranking: weight of the correctness ranking loss, a compared method; 0 leaves it out.
    """

    lipschitz: float = 1e-5
    lipschitz_norm: Norm = "official"
    consistency: float = 1.0
    schedule: Schedule = "linear"
    start_at: int = 50
    legacy_average: bool = True
    temperature: float = 1.0
    bank: Literal["float32", "float16"] = "float32"
    bank_on: Literal["device", "cpu"] = "device"
    ranking: float = 0.0

    def __post_init__(self) -> None:
        for name in ("lipschitz", "consistency", "ranking"):
            if getattr(self, name) < 0:
                raise ConfigError(f"regularise.{name}: {getattr(self, name)} is below 0; 0 leaves it out")
        if not self.temperature > 0 or self.start_at < 0:
            raise ConfigError(
                f"regularise: temperature {self.temperature} and start_at {self.start_at}; expected > 0 and >= 0"
            )

    @property
    def indexed(self) -> bool:
        """Whether samples must say where they stand."""
        return self.consistency > 0 or self.ranking > 0


class Regularisation(nn.Module):
    """The terms of :class:`Regularisers` with what they remember of each sample.

    A task makes it before training, adds :meth:`losses` to its own in each step, and calls
    :meth:`before_step` before it.

    Args:
        options: which terms.
        samples: in the training data.
        classes: C.
    """

    def __init__(self, options: Regularisers, samples: int, classes: int) -> None:
        super().__init__()
        self.options = options
        self.bank: ConsistencyBank | None = None
        self.ranking: CorrectnessRanking | None = None
        if options.consistency > 0:
            self.bank = ConsistencyBank(
                samples, classes, options.consistency, options.schedule, None, options.legacy_average,
                start_at=options.start_at, temperature=options.temperature,
                dtype=torch.float16 if options.bank == "float16" else torch.float32, placement=options.bank_on,
            )  # fmt: skip
        if options.ranking > 0:
            self.ranking = CorrectnessRanking(samples, options.ranking)

    def losses(self, network: nn.Module, logits: Tensor, batch: Batch) -> Losses:
        """The weighted terms of one batch, each a scalar.

        Args:
            network: whose layers the Lipschitz term sums over.
            logits: of the batch's (augmented) images in training mode, ``[N, C]``.
            batch: with ``label``, and ``index`` where a term needs it.

        Raises:
            DataError: the samples do not say where they stand.
        """
        found: Losses = {}
        if self.options.lipschitz > 0:
            penalty = lipschitz_penalty(network, self.options.lipschitz_norm)
            found["lipschitz"] = self.options.lipschitz * penalty
        if self.bank is not None:
            found["consistency"] = self.bank(logits, index_of(batch, "the consistency bank"))
        if self.ranking is not None:
            found["ranking"] = self.ranking(logits, batch["label"], index_of(batch, "the correctness ranking"))
        return found

    def before_step(self, context: StepContext) -> None:
        """Goes on to the next epoch at its first step.

        Args:
            context: of the step; the number of epochs in the run follows from it.
        """
        finished = context.epoch
        if not finished:
            return
        if self.bank is not None and self.bank.epoch <= finished:
            updates = context.step / finished
            self.bank.end_epoch(finished, math.ceil(context.total_steps / updates))
        if self.ranking is not None:
            self.ranking.end_epoch(finished)
