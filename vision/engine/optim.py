"""Optimisers (torch, timm) and learning-rate schedules (timm), stepped once an update."""

import math
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import optim

from vision.engine.errors import ConfigError, nearest
from vision.engine.registry import register

Rate = Annotated[float, Gt(0)]
Share = Annotated[float, Ge(0)]
Groups = list[dict[str, Any]]


@register("sgd", kind="optimizer")
def sgd(
    parameters: Groups, lr: Rate, momentum: Share = 0.9, weight_decay: Share = 0.0, nesterov: bool = False
) -> optim.Optimizer:
    """Stochastic gradient descent with momentum (torch.optim.SGD).

    Args:
        parameters: parameter groups; given by the trainer.
        lr: learning rate.
        momentum: share of the last update that is kept.
        weight_decay: L2 penalty, on every parameter.
        nesterov: look ahead along the momentum.
    """
    return optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)


@register("adam", kind="optimizer")
def adam(
    parameters: Groups, lr: Rate, betas: tuple[float, float] = (0.9, 0.999), eps: Rate = 1e-8, weight_decay: Share = 0.0
) -> optim.Optimizer:
    """Adam (torch.optim.Adam).

    Args:
        parameters: parameter groups; given by the trainer.
        lr: learning rate.
        betas: decay of the running mean and the running square of gradients.
        eps: added to the denominator.
        weight_decay: L2 penalty, on every parameter.
    """
    return optim.Adam(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


@register("adamw", kind="optimizer")
def adamw(
    parameters: Groups,
    lr: Rate,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: Rate = 1e-8,
    weight_decay: Share = 0.01,
) -> optim.Optimizer:
    """Adam with decoupled weight decay (torch.optim.AdamW).

    Args:
        parameters: parameter groups; given by the trainer.
        lr: learning rate.
        betas: decay of the running mean and the running square of gradients.
        eps: added to the denominator.
        weight_decay: share of each weight taken off an update, times the learning rate.
    """
    return optim.AdamW(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


@register("timm_optimizer", kind="optimizer")
def timm_optimizer(
    parameters: Groups,
    name: str,
    lr: Rate,
    weight_decay: Share = 0.0,
    momentum: Share = 0.9,
    options: dict[str, float | int | bool | str | list[float]] | None = None,
) -> optim.Optimizer:
    """Any optimiser of timm by its name there (``lamb``, ``lion``, ``adopt``, ...).

    Args:
        parameters: parameter groups; given by the trainer.
        name: timm's name.
        lr: learning rate.
        weight_decay: weight decay.
        momentum: momentum, where the optimiser has one.
        options: what else the optimiser's constructor takes.

    Raises:
        ConfigError: timm has no optimiser of that name, or it knows no such option.
    """
    known = [str(each) for each in list_optimizers()]
    if name.lower() not in known:
        raise ConfigError(f"optimizer.name: timm has no optimiser '{name}'{nearest(name, known)}")
    more: dict[str, Any] = dict(options or {})
    try:
        return create_optimizer_v2(parameters, opt=name, lr=lr, weight_decay=weight_decay, momentum=momentum, **more)
    except TypeError as error:
        raise ConfigError(f"optimizer.options: timm's '{name}' refuses them: {error}") from error


def scale_rates(optimizer: optim.Optimizer, factor: float) -> None:
    """Multiplies the learning rate of every parameter group; a schedule made afterwards starts from the product."""
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * factor


class _WarmUp(Scheduler):
    """A linear rise, of each parameter group from a share of its own rate, before another schedule.

    timm's own warm-up starts every group at one and the same rate, which may lie above a slower group's.
    """

    def __init__(self, after: Scheduler, steps: float, start: float, shift: bool = True) -> None:
        super().__init__(after.optimizer, "lr", t_in_epochs=False)
        self.after, self.steps, self.start = after, round(steps), start
        self.shift = self.steps if shift else 0

    def _get_lr(self, t: int) -> list[float]:
        if t >= self.steps:
            return self.after._get_lr(t - self.shift)
        rise = self.start + (1 - self.start) * t / self.steps
        return [rise * rate for rate in self.base_values]


def _require_above(optimizer: optim.Optimizer, min_lr: float) -> None:
    lr = max(float(group["lr"]) for group in optimizer.param_groups)
    if min_lr > lr:
        raise ConfigError(f"schedule.min_lr is {min_lr:g}, expected at most the optimizer's lr, {lr:g}")


@register("constant", kind="schedule")
def constant(
    optimizer: optim.Optimizer,
    total_steps: int,
    steps_per_epoch: int,
    warmup_epochs: Share = 0.0,
    warmup_start: Share = 0.01,
) -> Scheduler:
    """The optimiser's learning rate throughout, after a linear warm-up.

    Args:
        optimizer: given by the trainer.
        total_steps: given by the trainer.
        steps_per_epoch: given by the trainer.
        warmup_epochs: epochs over which the rate rises linearly.
        warmup_start: share of the rate the warm-up starts at.
    """
    same = MultiStepLRScheduler(optimizer, decay_t=[], t_in_epochs=False)
    return _WarmUp(same, warmup_epochs * steps_per_epoch, warmup_start)


@register("cosine", kind="schedule")
def cosine(
    optimizer: optim.Optimizer,
    total_steps: int,
    steps_per_epoch: int,
    warmup_epochs: Share = 0.0,
    warmup_start: Share = 0.01,
    min_lr: Share = 0.0,
) -> Scheduler:
    """Half a cosine from the optimiser's learning rate to ``min_lr`` over the run, after a linear warm-up.

    Args:
        optimizer: given by the trainer.
        total_steps: given by the trainer.
        steps_per_epoch: given by the trainer.
        warmup_epochs: epochs over which the rate rises linearly; the cosine takes the rest.
        warmup_start: share of the rate the warm-up starts at.
        min_lr: the rate at the end.

    Raises:
        ConfigError: ``min_lr`` is above the optimiser's rate.
    """
    _require_above(optimizer, min_lr)
    rise = warmup_epochs * steps_per_epoch
    decay = max(total_steps - round(rise), 1)
    after = CosineLRScheduler(optimizer, t_initial=decay, lr_min=min_lr, t_in_epochs=False)
    return _WarmUp(after, rise, warmup_start)


@register("linear", kind="schedule")
def linear(
    optimizer: optim.Optimizer,
    total_steps: int,
    steps_per_epoch: int,
    warmup_epochs: Share = 0.0,
    warmup_start: Share = 0.01,
    min_lr: Share = 0.0,
) -> Scheduler:
    """A straight line from the optimiser's learning rate to ``min_lr`` over the run, after a linear warm-up.

    Args:
        optimizer: given by the trainer.
        total_steps: given by the trainer.
        steps_per_epoch: given by the trainer.
        warmup_epochs: epochs over which the rate rises linearly; the decay takes the rest.
        warmup_start: share of the rate the warm-up starts at.
        min_lr: the rate at the end.

    Raises:
        ConfigError: ``min_lr`` is above the optimiser's rate.
    """
    _require_above(optimizer, min_lr)
    rise = warmup_epochs * steps_per_epoch
    decay = max(total_steps - round(rise), 1)
    after = PolyLRScheduler(optimizer, t_initial=decay, power=1.0, lr_min=min_lr, t_in_epochs=False)
    return _WarmUp(after, rise, warmup_start)


@register("multistep", kind="schedule")
def multistep(
    optimizer: optim.Optimizer,
    total_steps: int,
    steps_per_epoch: int,
    milestones: list[float],
    gamma: Rate = 0.1,
    unit: Literal["epochs", "share"] = "epochs",
    warmup_epochs: Share = 0.0,
    warmup_start: Share = 0.01,
) -> Scheduler:
    """The learning rate times ``gamma`` at each milestone.

    Args:
        optimizer: given by the trainer.
        total_steps: given by the trainer.
        steps_per_epoch: given by the trainer.
        milestones: when.
        gamma: the factor.
        unit: whether milestones count epochs or are shares of the run in (0, 1).
        warmup_epochs: epochs over which the rate rises linearly.
        warmup_start: share of the rate the warm-up starts at.

    Raises:
        ConfigError: milestones that are no shares.
    """
    if unit == "share" and not all(0 < m < 1 for m in milestones):
        raise ConfigError(f"schedule.milestones: {milestones} are shares of the run, expected each in (0, 1)")
    scale = steps_per_epoch if unit == "epochs" else total_steps
    # timm lowers the rate one update before a mark; torch, and we, at the mark (whose product may be off by rounding)
    marks = [math.ceil(m * scale - 1e-6) + 1 for m in sorted(milestones)]
    after = MultiStepLRScheduler(optimizer, decay_t=marks, decay_rate=gamma, t_in_epochs=False)
    return _WarmUp(after, warmup_epochs * steps_per_epoch, warmup_start, shift=False)
