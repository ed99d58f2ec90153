"""A loss that is not finite: what the error names."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tests.engine.harness import fit, make_trainer, new_run, seeded_task, updates
from tests.engine.toy import Points, PointsData, Regression
from vision.engine.checkpoint import read_resume, read_weights
from vision.engine.data import Sample
from vision.engine.errors import TrainingError
from vision.engine.loading import EpochPlan
from vision.engine.task import Batch, Losses, StepContext


class Broken(PointsData):
    """One sample whose ``x`` holds an Inf."""

    def train(self) -> Dataset[Sample]:
        class WithInf(Points):
            def __getitem__(self, index: int) -> Sample:
                sample = super().__getitem__(index)
                if index == 20:
                    sample["x"][1] = torch.inf
                return sample

        return WithInf(37, 0.1)


class Divide(nn.Module):
    """0/0 for negative inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x < 0, torch.zeros_like(x) / 0, x)


class Between(nn.Module):
    """Goes bad between its two layers, in no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.log(-self.first(x).abs()))


def failure(task: Regression, step: int = 0, **options: Any) -> str:
    trainer = make_trainer(task, **{"epochs": 2, "batch_size": 4, **options})
    with pytest.raises(TrainingError) as caught:
        updates(trainer, 20)
    assert trainer.progress.step == step
    assert "\n" not in str(caught.value)
    return str(caught.value)


ORDER = [[f"{i:04d}" for i in share.indices] for (share,) in EpochPlan(37, 4, False, 1, 0, 1, 0).shares(0)]
STEP = next(number for number, batch in enumerate(ORDER) if "0020" in batch)
"""The update that the broken sample is part of."""


def test_an_input_is_named_with_its_sample() -> None:
    said = failure(seeded_task(data=Broken(), network=nn.Linear(3, 1)), STEP)
    assert said.startswith(f"step {STEP}: a loss is not finite (square=inf, _largest=inf); ")
    assert f"samples: {', '.join(ORDER[STEP])}; first bad tensor: input 'x' of sample '0020';" in said


def test_an_update_that_spoilt_the_weights_unseen_is_named() -> None:
    """A tanh makes the loss of an Inf finite, not its gradient."""
    said = failure(seeded_task(data=Broken()), STEP + 1)
    assert f"samples: {', '.join(ORDER[STEP + 1])};" in said
    blamed = "parameter 'network.0.weight', since the update before, on samples: "
    assert f"first bad tensor: {blamed}{', '.join(ORDER[STEP])};" in said


def test_spoilt_weights_do_not_replace_a_good_checkpoint(tmp_path: Path) -> None:
    trainer = make_trainer(seeded_task(data=Broken()), new_run(tmp_path), epochs=1, batch_size=4, save_every_steps=1)
    with pytest.raises(
        TrainingError, match=rf"step {STEP + 1}: parameter 'network.0.weight' is not finite; .* is kept"
    ):
        fit(trainer)
    assert read_resume(tmp_path / "checkpoints/last.resume")["progress"]["step"] == STEP
    weights = read_weights(tmp_path / "checkpoints/last.safetensors").tensors
    assert all(value.isfinite().all() for value in weights.values())


def test_of_a_large_batch_the_message_names_a_few_and_the_log_all(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        said = failure(seeded_task(data=Broken(), network=nn.Linear(3, 1)), batch_size=37)
    assert said.count(",") < 20 and " and 29 more (see the log)" in said
    assert all(f"{i:04d}" in caplog.text for i in range(37))


def test_a_parameter_is_named() -> None:
    task = seeded_task()
    with torch.no_grad():
        task.network[3].weight[0, 5] = torch.nan
    said = failure(task)
    assert "first bad tensor: parameter 'network.3.weight';" in said and "square=nan" in said


@pytest.mark.parametrize(
    ("network", "named"),
    [
        (nn.Sequential(nn.Linear(3, 8), Divide(), nn.Linear(8, 1)), "output of 'network.1' (Divide)"),
        (Between(), "input of 'network.second' (Linear)"),
        (nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), Divide(), nn.Linear(8, 1)), "output of 'network.2' (Divide)"),
    ],
)
def test_a_modules_output_is_named(network: nn.Module, named: str) -> None:
    assert f"first bad tensor: {named};" in failure(seeded_task(network=network))


def test_what_overflows_in_half_precision_only_is_found_there() -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x * 1e5)

    with torch.no_grad():
        task = seeded_task(network=Large())
        task.network.layer.weight.fill_(10.0)  # type: ignore[union-attr, operator]
    assert "'network.layer' (Linear)" in failure(task, precision="fp16")


class BadLoss(Regression):
    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        error = self.network(batch["x"]).squeeze(1) - batch["y"]
        yield {"square": (error**2).mean(), "log": torch.log(-(error.detach() ** 2).mean())}


def test_the_loss_itself_is_named_with_every_loss() -> None:
    said = failure(seeded_task(kind=BadLoss))
    assert "log=nan)" in said and "(square=" in said and "square=nan" not in said
    assert "first bad tensor: the loss itself (every module's output is finite);" in said


class LateBad(Regression):
    """An online rule that goes bad in its second time step."""

    online = True

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        for step in range(3):
            values = self.network(batch["x"] * (1e30 if step else 1.0))
            yield {"square": (values.squeeze(1) ** 2).mean()}


def test_a_later_backward_pass_is_reached() -> None:
    network = nn.Sequential(nn.Linear(3, 1), nn.Hardtanh(-1e25, 1e25))
    assert "loss itself" in failure(seeded_task(kind=LateBad, network=network))
    network = nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 1))
    with torch.no_grad():
        network[1].weight.fill_(1e20)
    assert "first bad tensor: output of 'network.1' (Linear);" in failure(seeded_task(kind=LateBad, network=network))


class Attacked(Regression):
    """Needs the gradient of its input, as an adversarial task does."""

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        x = batch["x"].clone().requires_grad_()
        (slope,) = torch.autograd.grad(self.network(x).sum(), x)
        yield {"square": (self.network(x.detach() + slope * torch.inf) ** 2).mean()}


def test_a_step_that_needs_gradients_can_be_watched() -> None:
    assert "first bad tensor: input of 'network.0' (Linear);" in failure(seeded_task(kind=Attacked))


class FailsAgain(BadLoss):
    calls = 0

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        self.calls += 1
        if self.calls > 1:
            raise ZeroDivisionError
        yield from super().training_step(batch, context)


def test_a_step_that_cannot_run_twice_does_not_hide_the_first_error() -> None:
    assert "log=nan" in failure(seeded_task(kind=FailsAgain))
