"""Memory over time steps: constant for the online rules, linear for backpropagation through time; and its command."""

import json
from typing import Any

import pytest
import torch
from torch import nn

from snn.memory import SavedBytes, measure, state_bytes
from snn.networks import spiking_mlp, spiking_vgg11
from snn.rules import set_rule
from tools.benchmark import main
from vision.engine.errors import ConfigError


def kept(rule: str, learn: str, steps: list[int], network: Any, shape: tuple[int, ...]) -> list[int]:
    set_rule(network, rule, learn)  # type: ignore[arg-type]
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    return [measure(network, rule, x, t, repeats=0).bytes for t in steps]  # type: ignore[arg-type]


NETWORKS = {
    "vgg11": (lambda **k: spiking_vgg11(width=4, **k), (3, 32, 32)),
    "mlp": (lambda **k: spiking_mlp(784, [64, 32], **k), (1, 28, 28)),
}
STEPS = [1, 2, 4, 8, 16]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    ("rule", "learn"), [("stop", "WTL"), ("stop", "W"), ("osstop", "WTL"), ("ottt", "W"), ("sltt", "W")]
)
def test_online_rules_need_the_same_for_any_number_of_steps(network: str, rule: str, learn: str) -> None:
    make, shape = NETWORKS[network]
    found = kept(rule, learn, STEPS, make(output="leaky" if rule == "osstop" else "spikes"), shape)
    assert found[0] > 0
    assert len(set(found[1:])) == 1, "traces of thresholds and leaks begin with the second step"


@pytest.mark.parametrize("network", NETWORKS)
def test_backpropagation_through_time_needs_as_much_for_each_step(network: str) -> None:
    make, shape = NETWORKS[network]
    found = kept("bptt", "WTL", STEPS, make(), shape)
    growth = [(b - a) / (t - s) for a, b, s, t in zip(found, found[1:], STEPS, STEPS[1:], strict=False)]
    assert min(growth) > 0.25 * found[0], "the first step keeps the image too, which the others share"
    assert max(growth) < 1.01 * min(growth)


def test_stop_needs_no_more_than_states_and_traces_of_one_step() -> None:
    """Per layer with n inputs and m neurons: the trace of the input, membrane and two traces, and what norms keep."""
    network = spiking_mlp(100, [50], 10, bias=False)
    (found,) = kept("stop", "WTL", [8], network, (1, 10, 10))
    neurons, inputs = 60, 150
    bound = 4 * 2 * (inputs + 3 * neurons)  # float32, two samples
    loss = 4 * 2 * 10 + 8 * 2 + 4 + 4 * 2  # log-softmax, labels, its weights, the traces of the ones
    assert 0.9 * bound < found <= bound + loss


def test_bytes_are_those_of_the_tensors_that_are_kept() -> None:
    weight = nn.Parameter(torch.ones(10, 20))
    meter = SavedBytes(iter([weight]))
    x = torch.ones(5, 20, requires_grad=True)
    with meter.counting():
        first = x @ weight.T  # keeps x
        second = first.exp()  # keeps its result
        both = second * first  # keeps both; the second is already there
    assert meter.now == meter.peak == 4 * (100 + 50 + 50)
    both.sum().backward()
    del first, second, both
    assert meter.now == 0 and meter.peak == 800


def test_states_are_counted_once_each() -> None:
    network = spiking_mlp(100, [50], 10, bias=False)
    network.reset(3)
    assert state_bytes(network) == 0
    for _ in range(3):
        network.step(torch.rand(2, 100))
    ones = 2 * 4
    assert state_bytes(network) == 4 * 2 * ((100 + 50) + 4 * 60) + ones


def test_the_command_prints_rows(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    arguments = ["snn-memory", "--rule", "stop", "--network", "mlp", "--steps", "1,2,4", "--batch", "2"]
    assert main([*arguments, "--repeats", "0", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["T"] for row in found["rows"]] == [1, 2, 4]
    assert found["rows"][1]["bytes"] == found["rows"][2]["bytes"] > 0
    assert (found["rule"], found["network"], found["learn"]) == ("stop", "mlp", "WTL")
    file = tmp_path / "deep" / "memory.json"
    assert main([*arguments, "--json", str(file)]) == 0
    assert "kept for backward" in capsys.readouterr().out
    assert json.loads(file.read_text())["rows"][2]["bytes"] == found["rows"][2]["bytes"]


@pytest.mark.parametrize("steps", ["0", "1,0", "", "two", "-1"])
def test_the_command_refuses_no_steps(steps: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["snn-memory", f"--steps={steps}"])
    assert stopped.value.code == 2
    assert "is no whole number of 1 or more; expected, say, 1,2,4" in capsys.readouterr().err


def test_the_command_refuses_what_a_rule_cannot_learn() -> None:
    with pytest.raises(ConfigError, match="teaches weights only"):
        main(["snn-memory", "--network", "mlp", "--rule", "ottt", "--learn", "WTL"])
    with pytest.raises(ConfigError, match="--repeats -1: expected 0 or more"):
        main(["snn-memory", "--repeats", "-1"])
