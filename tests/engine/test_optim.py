"""Schedules against torch's own and closed forms; optimisers as recipes name them."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.scheduler.scheduler import Scheduler
from torch.optim import lr_scheduler

from vision.engine import optim
from vision.engine.errors import ConfigError
from vision.engine.registry import build, entries

PER_EPOCH, TOTAL = 5, 40


def sgd(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(2))], "lr": rate} for rate in rates])


def rates(make: Callable[..., Scheduler], *base: float, total: int = TOTAL, **arguments: Any) -> list[list[float]]:
    """The learning rate of every group at every update."""
    optimizer = sgd(*base)
    schedule = make(optimizer, total, PER_EPOCH, **arguments)
    found = []
    for step in range(total):
        schedule.step_update(step)
        found.append([group["lr"] for group in optimizer.param_groups])
    return found


def torch_rates(make: Callable[[torch.optim.Optimizer], Any], *base: float) -> list[list[float]]:
    optimizer = sgd(*base)
    schedule = make(optimizer)
    found = []
    for _ in range(TOTAL):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return found


def agree(ours: list[list[float]], theirs: list[list[float]]) -> None:
    assert len(ours) == len(theirs) == TOTAL
    for a, b in zip(ours, theirs, strict=True):
        assert a == pytest.approx(b, rel=1e-9)


@pytest.mark.parametrize("low", [0.0, 1e-3])
def test_cosine_is_torchs(low: float) -> None:
    theirs = torch_rates(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=TOTAL, eta_min=low), 0.1, 0.02)
    agree(rates(optim.cosine, 0.1, 0.02, min_lr=low), theirs)


def test_multistep_is_torchs() -> None:
    theirs = torch_rates(lambda o: lr_scheduler.MultiStepLR(o, milestones=[3 * PER_EPOCH, 6 * PER_EPOCH]), 0.1, 0.02)
    agree(rates(optim.multistep, 0.1, 0.02, milestones=[6, 3]), theirs)


def test_milestones_as_shares_of_the_run_fall_on_the_update_meant() -> None:
    theirs = torch_rates(lambda o: lr_scheduler.MultiStepLR(o, milestones=[22, 36], gamma=0.5), 0.1)
    agree(rates(optim.multistep, 0.1, milestones=[0.55, 0.9], unit="share", gamma=0.5), theirs)


def test_a_share_of_a_hundred_updates_is_exact() -> None:
    for hundredths in range(1, 100):  # 0.55 * 100 is a little more than 55
        found = rates(optim.multistep, 1.0, milestones=[hundredths / 100], unit="share", total=100)
        assert [step for step, (rate,) in enumerate(found) if rate < 1] == list(range(hundredths, 100))


def test_linear_is_torchs() -> None:
    theirs = torch_rates(lambda o: lr_scheduler.LinearLR(o, start_factor=1.0, end_factor=0.25, total_iters=TOTAL), 0.1)
    agree(rates(optim.linear, 0.1, min_lr=0.025), theirs)


@pytest.mark.parametrize(
    ("make", "arguments", "after"),
    [
        (optim.constant, {}, lambda t, base: base),
        (optim.cosine, {}, lambda t, base: base * (1 + math.cos(math.pi * t / 30)) / 2),
        (optim.linear, {}, lambda t, base: base * (1 - t / 30)),
        (optim.multistep, {"milestones": [5]}, lambda t, base: base * (1.0 if t + 10 < 25 else 0.1)),
    ],
)
def test_warm_up_rises_from_each_groups_own_share(
    make: Callable[..., Scheduler], arguments: dict[str, Any], after: Callable[[int, float], float]
) -> None:
    groups = (0.1, 1e-5)  # the second below the first's start
    found = rates(make, *groups, warmup_epochs=2, warmup_start=0.01, **arguments)
    for step, values in enumerate(found):
        for value, base in zip(values, groups, strict=True):
            rising = base * (0.01 + 0.99 * step / 10)
            assert value == pytest.approx(rising if step < 10 else after(step - 10, base), rel=1e-9), step


def test_lr_scale_of_a_group_is_kept() -> None:
    optimizer = sgd(0.1, 0.1)
    optimizer.param_groups[1]["lr_scale"] = 0.5
    schedule = optim.cosine(optimizer, TOTAL, PER_EPOCH)
    schedule.step_update(7)
    first, second = (group["lr"] for group in optimizer.param_groups)
    assert second == pytest.approx(first / 2)


def test_shares_outside_the_run_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"milestones.*expected each in \(0, 1\)"):
        optim.multistep(sgd(0.1), TOTAL, PER_EPOCH, milestones=[30, 60], unit="share")


@pytest.mark.parametrize("make", [optim.cosine, optim.linear])
def test_a_floor_above_the_rate_is_refused(make: Callable[..., Scheduler]) -> None:
    with pytest.raises(ConfigError, match=r"min_lr is 0.2, expected at most .* 0.1"):
        make(sgd(0.1), TOTAL, PER_EPOCH, min_lr=0.2)


DECAY = {"weight_decay": 0.1}
STEPS = {
    "sgd": (lambda p: torch.optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=0.1), DECAY),
    "adam": (lambda p: torch.optim.Adam([p], lr=0.1, weight_decay=0.1), DECAY),
    "adamw": (lambda p: torch.optim.AdamW([p], lr=0.1, weight_decay=0.1), DECAY),
    "timm_optimizer": (lambda p: torch.optim.Adamax([p], lr=0.1, weight_decay=0.1), DECAY | {"name": "adamax"}),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_an_optimiser_by_name_makes_torchs_steps(name: str) -> None:
    make, arguments = STEPS[name]
    ours, theirs = (torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64)) for _ in range(2))
    built = build({"type": name, "lr": 0.1, **arguments}, "optimizer", parameters=[{"params": [ours]}])
    reference = make(theirs)
    for _ in range(5):
        for parameter, optimizer in ((ours, built), (theirs, reference)):
            optimizer.zero_grad()
            (parameter**4).sum().backward()
            optimizer.step()
    assert torch.equal(ours, theirs)


def test_every_optimiser_is_compared_above() -> None:
    registered = {entry.name for entry in entries("optimizer") if entry.factory.__module__ == optim.__name__}
    assert registered == set(STEPS)


def test_an_unknown_timm_optimiser_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no optimiser 'adamaxx' \(did you mean 'adamax'\?\)"):
        build({"type": "timm_optimizer", "name": "adamaxx", "lr": 0.1}, "optimizer", parameters=[])


def test_an_unknown_option_of_timms_optimiser_is_refused() -> None:
    block = {"type": "timm_optimizer", "name": "lamb", "lr": 0.1, "options": {"trust": 1}}
    with pytest.raises(ConfigError, match=r"optimizer.options: timm's 'lamb' refuses them: .*trust"):
        build(block, "optimizer", parameters=[{"params": [torch.nn.Parameter(torch.zeros(1))]}])


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(ConfigError, match="'sgd' cannot be built"):
        build({"type": "sgd", "lr": 0.1, "momentum": 0.0, "nesterov": True}, "optimizer",
              parameters=[{"params": [torch.nn.Parameter(torch.zeros(1))]}])  # fmt: skip


def test_scaled_rates_are_what_a_schedule_starts_from() -> None:
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))]},
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.4},
    ]
    optimizer = build({"type": "adam", "lr": 0.1}, "optimizer", parameters=groups)
    optim.scale_rates(optimizer, 0.25)
    schedule = build(
        {"type": "multistep", "unit": "share", "milestones": [0.5]}, "schedule", optimizer=optimizer, total_steps=10,
        steps_per_epoch=5,
    )  # fmt: skip
    for step, factor in ((0, 1.0), (9, 0.1)):
        schedule.step_update(step)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.025 * factor, 0.1 * factor])
