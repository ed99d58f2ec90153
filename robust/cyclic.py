"""The triangular cycle of learning rate and, inversely, momentum."""

from typing import Annotated, Any

from annotated_types import Ge, Lt
from timm.scheduler.scheduler import Scheduler
from torch import optim

from vision.engine.registry import register

Momentum = Annotated[float, Ge(0), Lt(1)]


def triangle(step: int, total: int, cycles: int = 1) -> float:
    """0 at the start, 1 half way, 0 at the end of each of some equal cycles; linear between.

    Example:
        >>> [triangle(step, 4) for step in range(5)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    return 1 - abs(2 * (step * cycles / total % 1) - 1)


def cycled_momentum(share: float, low: float = 0.8, high: float = 0.9) -> float:
    """``high`` where the rate is 0, ``low`` where it is highest."""
    return high - (high - low) * share


class Triangular(Scheduler):
    """Every group's rate from 0 to its own and back over the run, and its momentum the other way.

    Args:
        optimizer: whose groups have a ``momentum``, or none to cycle.
        total: updates of the run.
        cycles: triangles in it.
        low: momentum where the rate is highest.
        high: momentum where it is 0.
    """

    def __init__(self, optimizer: optim.Optimizer, total: int, cycles: int, low: float, high: float) -> None:
        super().__init__(optimizer, "lr", t_in_epochs=False)
        self.total, self.cycles, self.low, self.high = total, cycles, low, high

    def share(self, step: int) -> float:
        """Of the highest rate."""
        return triangle(step, self.total, self.cycles)

    def _get_lr(self, t: int) -> list[float]:
        return [self.share(t) * rate for rate in self.base_values]

    def step_update(self, num_updates: int, metric: Any = None) -> None:
        super().step_update(num_updates, metric)
        for group in self.optimizer.param_groups:
            if "momentum" in group:
                group["momentum"] = cycled_momentum(self.share(num_updates), self.low, self.high)


@register("triangular", kind="schedule")
def triangular(
    optimizer: optim.Optimizer,
    total_steps: int,
    steps_per_epoch: int,
    cycles: Annotated[int, Ge(1)] = 1,
    low_momentum: Momentum = 0.8,
    high_momentum: Momentum = 0.9,
) -> Scheduler:
    """The learning rate from 0 to the optimiser's and back to 0, linearly; the momentum inversely (torch's CyclicLR).

    Args:
        optimizer: given by the trainer.
        total_steps: given by the trainer.
        steps_per_epoch: given by the trainer.
        cycles: triangles over the run.
        low_momentum: where the rate is highest.
        high_momentum: where the rate is 0.
    """
    return Triangular(optimizer, total_steps, cycles, low_momentum, high_momentum)
