"""Amplified rounding, and graphs that predicting does not run: compared all the same, and wrong ones are refused."""

from typing import Any

import jsonschema
import pytest
import torch
from torch import Tensor, nn

from tests.contract.cases import small_task
from vision.classification.task import Classification
from vision.deploy.bounds import BOUNDS
from vision.deploy.parity import compare, modules_of
from vision.deploy.rounding import Rounding
from vision.deploy.schemas import PARITY
from vision.engine.deployment import Run
from vision.engine.registry import build
from vision.engine.task import Task


class Cancelling(nn.Module):
    """Logits around 1 as sums of numbers around ``size`` that cancel, so that float32 keeps few of their digits."""

    def __init__(self, size: float, order: Tensor | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        large, small = torch.randn(10, 64, generator=generator), torch.randn(10, 64, generator=generator)
        weight = torch.cat((size * large, -size * large + small), dim=1)
        self.order = torch.arange(128) if order is None else order
        self.weight = nn.Parameter(weight[:, self.order])

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, 1, 8, 8]`` to ``[N, 10]``, one product after the other."""
        flat = x.flatten(1)
        total = torch.zeros_like(flat[:, :10])
        for place in range(128):
            total = total + flat[:, self.order[place] % 64, None] * self.weight[:, place]
        return total


def steep(size: float, **changed: Any) -> Task:
    data: Any = build({"type": "digits", "limit": 12}, "data")
    return Classification(data, Cancelling(size, **changed)).eval()


def backwards() -> Tensor:
    return torch.arange(127, -1, -1)


def parity_of(task: Task, exported: Run, precision: str = "fp32") -> Any:
    found = compare(task, task.val_data(), task.deployment(False), task.deployment(), exported, precision)
    jsonschema.validate(found.to_dict(), PARITY)
    return found


def test_sums_in_another_order_pass_where_float64_shows_that_pytorch_rounds_as_much() -> None:
    found = parity_of(steep(3e4), modules_of(steep(3e4, order=backwards()).deployment()))
    graph = found.graphs["model"]
    assert graph.outputs["logits"].largest > found.bound.largest * graph.outputs["logits"].scale  # alone it would fail
    assert found.reasons() == []
    assert "graph 'model': PyTorch's float32 is up to" in found.by_float64()[0]
    told = found.to_dict()["graphs"]["model"]["float64"]["logits"]
    assert 0 < told["file"]["mean"] < 4 * told["torch"]["mean"]


@pytest.mark.parametrize("wrong", ["bias", "weight"])
def test_an_error_beyond_that_rounding_is_refused(wrong: str) -> None:
    other = steep(3e4, order=backwards())
    if wrong == "weight":
        other.network.weight.data[3, 40] *= 1.001  # type: ignore[union-attr, operator, index]
    run = modules_of(other.deployment())

    def exported(name: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        (logits,) = run(name, *inputs)
        return (logits + 0.5 * (wrong == "bias"),)

    found = parity_of(steep(3e4), exported)
    assert "times PyTorch's own" in found.reasons()[0]
    assert found.by_float64() == []


def test_nothing_is_believed_of_a_network_that_float32_does_not_give() -> None:
    found = parity_of(steep(1e7), modules_of(steep(1e7, order=backwards()).deployment()))
    assert "PyTorch's own float32 is too far from float64 to compare with" in found.reasons()[0]


def test_float64_is_not_asked_where_the_bounds_hold_or_files_round_on_purpose() -> None:
    same = steep(1.0)
    assert "float64" not in parity_of(same, modules_of(same.deployment())).to_dict()["graphs"]["model"]
    run = modules_of(steep(3e4).deployment())

    def exported(name: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        return (run(name, *inputs)[0] + 9.0,)

    found = parity_of(steep(3e4), exported, "fp16")
    assert found.reasons()
    assert "float64" not in found.to_dict()["graphs"]["model"]


def test_numbers_that_are_not_finite_are_never_as_near() -> None:
    rounding, ones = Rounding(), torch.ones(4).numpy()
    rounding.add(ones, ones, ones * float("nan"))
    assert rounding.broken(BOUNDS["fp32"], spiking=False) == ["numbers that are not finite"]


# ---- the step of a spiking network ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spiking() -> Task:
    return small_task("spiking_classification").eval()


def test_steps_from_state_to_state_give_what_the_whole_sequence_gives(spiking: Task) -> None:
    run = modules_of(spiking.deployment(False))
    samples = spiking.val_data()
    batch = spiking.collate([samples[i] for i in range(5)])
    given = batch["image"] if "image" in batch else spiking.inputs(batch)  # type: ignore[operator]
    (whole,) = run("model", given)
    torch.testing.assert_close(spiking.drive_exported(batch, run)["step"], whole)
    assert len(whole) > 1


def test_the_step_is_compared_on_real_inputs(spiking: Task) -> None:
    found = parity_of(spiking, modules_of(spiking.deployment()))
    step = found.to_dict()["graphs"]["step"]
    assert step["real"]
    assert step["calls"] > found.to_dict()["graphs"]["model"]["calls"]
    assert step["driven"]["largest"] == pytest.approx(0, abs=1e-5)
    assert found.reasons() == []


def test_a_step_that_forgets_its_states_is_refused(spiking: Task) -> None:
    """Its first step is right: only a sequence of them shows that it is wrong."""
    run = modules_of(spiking.deployment())

    def exported(name: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        if name == "step":
            inputs = (inputs[0], *(torch.zeros_like(state) for state in inputs[1:]))
        return run(name, *inputs)

    reasons = parity_of(spiking, exported).reasons()
    assert reasons
    assert all("graph 'step'" in reason for reason in reasons)
