"""The neurons in spikingjelly's world: single and multi-step, reset, monitors, copies, states; and their range."""

import copy

import pytest
import torch
from spikingjelly.activation_based import base, functional, monitor, neuron
from torch import Tensor, nn

from snn.neurons import LeakyReadout, SequenceError, STOPLIFNode
from snn.surrogates import Exponential
from snn.synapses import TracedConv2d, TracedLinear
from vision.engine.errors import ConfigError

CURRENTS = torch.rand(7, 3, 5, generator=torch.Generator().manual_seed(0)) * 1.5


def library_node(step_mode: str = "m") -> neuron.LIFNode:
    return neuron.LIFNode(
        tau=2.5, decay_input=False, v_threshold=0.8, v_reset=None, surrogate_function=Exponential(),
        detach_reset=True, step_mode=step_mode,
    )  # fmt: skip


def node(step_mode: str = "m", **arguments: object) -> STOPLIFNode:
    return STOPLIFNode(0.8, 1 - 1 / 2.5, step_mode=step_mode, **arguments)  # type: ignore[arg-type]


def test_it_fires_and_rests_as_spikingjellys_neuron() -> None:
    ours, theirs = node(), library_node()
    expected = theirs(CURRENTS)
    assert 0.1 < expected.mean() < 0.9
    torch.testing.assert_close(ours(CURRENTS), expected)
    torch.testing.assert_close(ours.v, theirs.v)


def test_multi_step_is_single_steps_with_and_without_gradients() -> None:
    whole, steps = node(), node("s")
    expected = torch.stack([steps(x) for x in CURRENTS])
    assert torch.equal(whole(CURRENTS), expected)
    with torch.no_grad():
        fused = node()
        assert torch.equal(fused(CURRENTS), expected)
        assert torch.equal(fused.v, steps.v)
        functional.reset_net(fused)
        assert torch.equal(torch.cat([fused(CURRENTS[:3]), fused(CURRENTS[3:])]), expected), "it goes on from its state"


def test_equality_with_the_threshold_is_a_spike() -> None:
    assert STOPLIFNode(0.5)(torch.tensor([[0.5, 0.4999]])).tolist() == [[1.0, 0.0]]


def test_without_gradients_no_trace_is_kept() -> None:
    net = nn.Sequential(TracedLinear(5, 4, receiver=(last := node("s"))), last)
    with torch.no_grad():
        for x in CURRENTS:
            net(x)
    assert net[0].trace.value is None and last.threshold_trace is None and last.leak_trace is None
    for x in CURRENTS:
        net(x)
    assert net[0].trace.value is not None and last.threshold_trace is not None


def test_spikingjellys_reset_detach_and_memories_know_it() -> None:
    net = nn.Sequential(TracedLinear(5, 4, receiver=(last := node("s"))), last)
    for x in CURRENTS:
        net(x)
    names = [name for name, value in base.named_memories(net) if value is not None]
    assert names == ["0.trace.value", "0.trace.ones", "1.v", "1.s", "1.threshold_trace", "1.leak_trace"]
    assert not any(value.requires_grad for _, value in base.named_memories(net))
    functional.detach_net(net)
    functional.reset_net(net)
    assert all(value is None for _, value in base.named_memories(net))


def test_states_are_neither_saved_nor_shared_by_a_copy() -> None:
    net = nn.Sequential(TracedLinear(5, 4, receiver=(last := node("s"))), last)
    net(CURRENTS[0])
    assert set(net.state_dict()) == {"0.weight", "0.bias", "1.v_threshold", "1.leak"}
    again = copy.deepcopy(net)
    assert again[0].feeds[0] is again[1], "the copy's synapse feeds the copy's neurons"
    again(CURRENTS[1])
    assert not torch.equal(again[1].v, net[1].v)


def test_spikingjellys_monitors_see_it() -> None:
    net = nn.Sequential(TracedLinear(5, 4, receiver=(last := node("s"))), last)
    spikes = monitor.OutputMonitor(net, STOPLIFNode)
    voltages = monitor.AttributeMonitor("v", False, net, STOPLIFNode)
    for x in CURRENTS:
        net(x)
    assert len(spikes.records) == len(voltages.records) == 7
    assert set(torch.stack(spikes["1"]).unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(voltages["1"][-1], last.v)
    spikes.remove_hooks()
    voltages.remove_hooks()


@pytest.mark.parametrize("layer", ["neuron", "synapse", "readout"])
def test_another_batch_without_a_reset_names_the_layer(layer: str) -> None:
    made: nn.Module
    if layer == "synapse":
        last = node("s")
        made = TracedLinear(5, 4, receiver=last)
        made.trace.label = "linear1"
    else:
        made = node("s") if layer == "neuron" else LeakyReadout()
        made.label = "linear1"
    made(CURRENTS[0])
    with pytest.raises(SequenceError, match=r"layer 'linear1': its state is of shape \[3, 5\] and \[2, 5\] came; call"):
        made(CURRENTS[1][:2])
    if layer == "neuron":
        with torch.no_grad(), pytest.raises(SequenceError, match="linear1"):
            made.step_mode = "m"
            made(CURRENTS[:, :2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"v_threshold": 0.0}, r"threshold: 0.0 is not above 0"),
        ({"v_threshold": -1.0}, r"threshold: -1.0 is not above 0"),
        ({"v_threshold": float("nan")}, r"threshold: nan is not above 0"),
        ({"leak": 1.5}, r"leak: 1.5 is outside \[0, 1\]; it is 1 - 1/tau"),
        ({"leak": -0.1}, r"leak: -0.1 is outside"),
        ({"leak": float("nan")}, r"leak: nan is outside"),
    ],
)
def test_thresholds_and_leaks_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        STOPLIFNode(**arguments)


def test_a_readouts_leak_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"leak: 2 is outside"):
        LeakyReadout(2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_states_and_traces_stay_wide_under_autocast(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    last = STOPLIFNode()
    net = nn.Sequential(TracedConv2d(2, 4, 3, padding=1, receiver=last), nn.BatchNorm2d(4), last)
    for _ in range(3):
        with torch.autocast("cpu", dtype=dtype):
            spikes = net(torch.rand(2, 2, 6, 6))
        spikes.mean().backward()
    assert {value.dtype for _, value in base.named_memories(net)} == {torch.float32}
    gradients = {name: p.grad for name, p in net.named_parameters()}
    assert all(g is not None and g.dtype == torch.float32 and torch.isfinite(g).all() for g in gradients.values())


def test_autocast_changes_little() -> None:
    torch.manual_seed(0)
    last = STOPLIFNode()
    net = nn.Sequential(TracedConv2d(2, 4, 3, padding=1, receiver=last), last)
    x = torch.rand(4, 2, 2, 6, 6)
    found: list[dict[str, Tensor]] = []
    for enabled in (False, True):
        net.zero_grad()
        functional.reset_net(net)
        for step in x:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                spikes = net(step)
            spikes.mean().backward()
        found.append({name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None})
    for name, wide in found[0].items():
        assert (found[1][name] - wide).norm() < 0.1 * wide.norm() + 1e-3, name
