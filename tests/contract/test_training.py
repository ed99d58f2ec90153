"""What every registered task keeps to while it is trained: moving average, resuming, two processes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contract.cases import SMALL
from tests.contract.training import TASKS, average, resumed, told, trainer_of
from tests.engine.harness import CPU, new_run, same, state, untimed, updates
from vision.engine.checkpoint import read_weights

Results = list[dict[str, Any]]


@pytest.mark.parametrize("name", TASKS)
def test_the_moving_average_follows_its_recurrence_and_is_what_is_judged_and_kept(name: str, tmp_path: Path) -> None:
    trainer = trainer_of(name, new_run(tmp_path / "run"), ema=0.8)
    expected = state(trainer.task.network)
    for update in range(1, 6):
        updates(trainer, 1)
        decay = 0.0 if update <= 2 else 0.8  # timm's begins with the second update's weights
        for key, value in state(trainer.task.network).items():
            expected[key] = decay * expected[key] + (1 - decay) * value if value.is_floating_point() else value
    found = average(trainer)
    assert found.keys() == expected.keys()
    floats = [key for key, value in expected.items() if value.is_floating_point()]
    for key in floats:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-6)
    assert not same(found, state(trainer.task.network))
    with trainer.averaged():
        assert same(state(trainer.task.network), found), "it is what is judged"
    trainer._save()
    assert trainer.run is not None
    assert same(read_weights(trainer.run.last).tensors, found), "it is what is kept"


@pytest.mark.parametrize("name", TASKS)
def test_a_run_that_stops_and_goes_on_is_the_run_in_one_go(name: str, tmp_path: Path) -> None:
    whole, parts = resumed(name, tmp_path / "whole", None), resumed(name, tmp_path / "parts", 3)
    assert same(state(whole.task), state(parts.task))
    assert same(average(whole), average(parts))
    assert whole.run is not None and parts.run is not None
    assert whole.run.last.read_bytes() == parts.run.last.read_bytes()
    assert untimed(whole.run)[-1] == untimed(parts.run)[-1], "the last evaluation"


@pytest.mark.parametrize("name", TASKS)
def test_two_processes_judge_exactly_as_one_and_stay_the_same(two: Results, name: str) -> None:
    first, second = (each[name] for each in two)
    alone = told(name, CPU)
    assert first["figures"] == second["figures"] == alone["figures"]
    assert first["predictions"] == alone["predictions"]
    assert same(first["gradients"], second["gradients"])
    assert same(first["weights"], second["weights"])


@pytest.mark.parametrize("name", [name for name in TASKS if SMALL[name].one_update])
def test_two_processes_make_the_update_of_one(two: Results, name: str) -> None:
    alone, together = told(name, CPU)["gradients"], two[0][name]["gradients"]
    assert alone.keys() == together.keys()
    for parameter, gradient in alone.items():
        largest = float(gradient.abs().max())
        assert torch.allclose(together[parameter], gradient, rtol=1e-3, atol=1e-3 * largest + 1e-7), parameter
