"""The other rules against spikingjelly's own, and what each rule lets learn."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.learning.online_learning import ottt_online_training
from torch import Tensor, nn

from snn.networks import NeuronOptions, spiking_mlp, spiking_resnet18, spiking_vgg11
from snn.rules import constrain, learnable, neurons, set_rule, synapses
from snn.surrogates import Exponential
from vision.engine.errors import ConfigError

STEPS, BATCH = 6, 5
WIDTHS = (6, 9, 8, 4)


def pair(make_node: Any) -> tuple[Any, nn.Sequential]:
    """Our network, and the same layers with the library's neurons and the same weights."""
    torch.manual_seed(0)
    ours = spiking_mlp(6, [9, 8], 4, neuron=NeuronOptions(threshold=1.0, leak=0.5)).double()
    for synapse in synapses(ours).values():
        synapse.bias.data.normal_(0, 0.1)
    modules: list[nn.Module] = []
    for synapse in synapses(ours).values():
        linear = nn.Linear(synapse.in_features, synapse.out_features).double()
        linear.load_state_dict(synapse.state_dict())
        modules += [linear, make_node()]
    return ours, modules


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = 1.5 * torch.rand(STEPS, BATCH, 6, generator=generator, dtype=torch.float64)
    return x, torch.randint(4, (BATCH,), generator=generator)


def loss(out: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(out, labels)


def stepwise(network: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    network.reset(len(x))
    for step in x:
        loss(network.step(step), y).backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def gradients(modules: Any) -> list[tuple[Tensor, Tensor]]:
    return [(m.weight.grad, m.bias.grad) for m in modules if isinstance(m, nn.Linear)]


def assert_equal(found: dict[str, Tensor], expected: list[tuple[Tensor, Tensor]], limit: float = 1e-14) -> None:
    names = ["linear1", "linear2", "linear"]
    for name, (weight, bias) in zip(names, expected, strict=True):
        assert weight.abs().sum() > 0
        torch.testing.assert_close(found[f"body.{name}.weight"], weight, rtol=1e-12, atol=limit)
        torch.testing.assert_close(found[f"body.{name}.bias"], bias, rtol=1e-12, atol=limit)


def ottt_node() -> nn.Module:
    return neuron.OTTTLIFNode(tau=2.0, decay_input=False, v_reset=None, surrogate_function=Exponential())


def test_ottt_is_spikingjellys_in_every_layer() -> None:
    ours, modules = pair(ottt_node)
    x, y = data()
    network = layer.OTTTSequential(*modules)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    total, _ = ottt_online_training(network, optimizer, x.transpose(0, 1), y[:, None].expand(-1, STEPS), loss, False)
    set_rule(ours, "ottt", "W")
    assert_equal(stepwise(ours, x, y), gradients(modules))
    assert total > 0


def test_d_stop_of_weights_is_ottt_in_every_layer_but_the_first_which_it_traces_too() -> None:
    ours, modules = pair(ottt_node)
    for synapse in synapses(ours).values():  # a bias has a trace of its own under STOP alone
        synapse.bias.data.zero_()
    for linear in modules[::2]:
        linear.bias.data.zero_()  # type: ignore[union-attr, operator]
    x, y = data()
    network = layer.OTTTSequential(*modules)
    for step in x:
        loss(network(step)[0], y).backward()
        functional.detach_net(network)
    set_rule(ours, "stop", "W")
    found = stepwise(ours, x, y)
    expected = gradients(modules)
    for name, (weight, _) in list(zip(["linear1", "linear2", "linear"], expected, strict=True))[1:]:
        torch.testing.assert_close(found[f"body.{name}.weight"], weight, rtol=1e-12, atol=1e-15)
    assert (found["body.linear1.weight"] - expected[0][0]).abs().max() > 1e-3


def test_sltt_is_spikingjellys() -> None:
    ours, modules = pair(
        lambda: neuron.SLTTLIFNode(tau=2.0, decay_input=False, v_reset=None, surrogate_function=Exponential())
    )
    x, y = data()
    network = nn.Sequential(*modules)
    for step in x:
        loss(network(step), y).backward()
        functional.detach_net(network)
    set_rule(ours, "sltt", "W")
    assert_equal(stepwise(ours, x, y), gradients(modules))


def lif_node() -> nn.Module:
    return neuron.LIFNode(tau=2.0, decay_input=False, v_reset=None, surrogate_function=Exponential(), detach_reset=True)


def through_time(network: Any, x: Tensor, y: Tensor) -> None:
    torch.stack([loss(network(step), y) for step in x]).sum().backward()


def test_bptt_is_spikingjellys() -> None:
    ours, modules = pair(lif_node)
    x, y = data()
    through_time(nn.Sequential(*modules), x, y)
    set_rule(ours, "bptt", "W")
    ours.reset(STEPS)
    through_time(ours.step, x, y)
    assert_equal({n: p.grad for n, p in ours.named_parameters() if p.grad is not None}, gradients(modules))


def test_bptt_of_thresholds_and_leaks_is_spikingjellys_neuron_with_parameters() -> None:
    """Its users' way to a learnable threshold, and its own ParametricLIFNode for the leak."""
    ours, _ = pair(lif_node)
    nodes = []
    modules: list[nn.Module] = []
    for synapse in synapses(ours).values():
        node = neuron.ParametricLIFNode(
            init_tau=2.0, decay_input=False, v_reset=None, surrogate_function=Exponential(), detach_reset=True
        ).double()
        del node.v_threshold
        node.v_threshold = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
        linear = nn.Linear(synapse.in_features, synapse.out_features).double()
        linear.load_state_dict(synapse.state_dict())
        nodes.append(node)
        modules += [linear, node]
    x, y = data()
    through_time(nn.Sequential(*modules), x, y)
    set_rule(ours, "bptt", "WTL", reduction="sum")
    ours.reset(STEPS)
    through_time(ours.step, x, y)
    for own, node in zip(neurons(ours).values(), nodes, strict=True):
        torch.testing.assert_close(own.v_threshold.grad, node.v_threshold.grad, rtol=1e-10, atol=1e-14)
        share = node.w.sigmoid()  # the leak is 1 - sigmoid(w)
        torch.testing.assert_close(own.leak.grad, -(node.w.grad / (share * (1 - share))), rtol=1e-10, atol=1e-14)


def test_means_of_bptt_are_its_sums_over_the_neurons_that_share() -> None:
    x, y = data()
    found = {}
    for reduction in ("sum", "mean"):
        ours, _ = pair(lif_node)
        set_rule(ours, "bptt", "WTL", reduction=reduction)  # type: ignore[arg-type]
        ours.reset(STEPS)
        through_time(ours.step, x, y)
        node = neurons(ours)["body.neuron1"]
        found[reduction] = torch.stack([node.v_threshold.grad, node.leak.grad])  # type: ignore[list-item]
    torch.testing.assert_close(found["mean"] * 9, found["sum"])


def test_the_one_shot_rule_is_the_gradient_of_the_last_readout() -> None:
    r"""Of the last linear layer :math:`dW = \sum_t a^{T-t} \delta x[t]`, with errors of the last step alone."""
    torch.manual_seed(0)
    network = spiking_mlp(6, [9], 4, output="leaky", neuron=NeuronOptions(leak=0.6)).double()
    set_rule(network, "osstop", "WTL")
    x, y = data()
    network.reset(STEPS)
    inputs = []
    hook = network.body.linear.register_forward_pre_hook(lambda _, given: inputs.append(given[0].detach()))
    for step in x:
        readout = network.step(step)
    hook.remove()
    loss(readout, y).backward()
    weight = network.body.linear.weight
    totals = sum(0.6 ** (STEPS - 1 - t) * s for t, s in enumerate(inputs))
    error = (readout.detach().softmax(1) - F.one_hot(y, 4)) / BATCH
    torch.testing.assert_close(weight.grad, error.T @ totals, rtol=1e-6, atol=1e-9)
    by_hand = sum(0.6 ** (STEPS - 1 - t) * (s @ weight.T + network.body.linear.bias) for t, s in enumerate(inputs))
    torch.testing.assert_close(readout, by_hand, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("learn", ["W", "T", "L", "WT", "WL", "TL", "WTL"])
def test_only_what_is_asked_for_learns(learn: str) -> None:
    network = spiking_mlp(6, [9, 8], 4).double()
    set_rule(network, "stop", learn, learn_output_neuron=False)  # type: ignore[arg-type]
    found = stepwise(network, *data())
    kinds = {"v_threshold": "T", "leak": "L", "weight": "W", "bias": "W"}
    expected = {
        name
        for name, _ in network.named_parameters()
        if kinds[name.rpartition(".")[2]] in learn and not name.startswith("body.output")
    }
    assert found.keys() == expected
    weights, thresholds, leaks = learnable(network)
    assert (bool(weights), len(thresholds), len(leaks)) == ("W" in learn, 2 * ("T" in learn), 2 * ("L" in learn))
    traces = neurons(network)["body.neuron1"]
    assert (traces.threshold_trace is not None) == ("T" in learn)
    assert (traces.leak_trace is not None) == ("L" in learn)
    assert (synapses(network)["body.linear1"].trace.value is not None) == ("W" in learn)


def test_the_release_traces_the_first_convolution_of_each_block_alone() -> None:
    network = spiking_resnet18(width=4, form="release", steps=2)
    network.train()
    network.reset()
    network.step(torch.rand(2, 3, 16, 16))
    kept = {name for name, synapse in synapses(network).items() if synapse.trace.value is not None}
    assert kept == {f"body.block{stage}{place}.conv1" for stage in (1, 2, 3, 4) for place in (1, 2)}


def test_constraints_hold_after_an_update_and_touch_what_learns_alone() -> None:
    network = spiking_mlp(6, [9], 4)
    set_rule(network, "stop", "WTL", learn_output_neuron=False)
    with torch.no_grad():
        for node in neurons(network).values():
            node.v_threshold.fill_(-3.0)
            node.leak.fill_(1.7)
    constrain(network, threshold_min=0.2, leak_max=0.9)
    hidden, output = neurons(network).values()
    assert (hidden.v_threshold.item(), hidden.leak.item()) == pytest.approx((0.2, 0.9))
    assert (output.v_threshold.item(), output.leak.item()) == pytest.approx((-3.0, 1.7))
    with torch.no_grad():
        hidden.leak.fill_(-0.5)
    constrain(network)
    assert hidden.leak.item() == 0.0


@pytest.mark.parametrize(
    ("rule", "learn", "message"),
    [
        ("stopp", "W", r"no 'stopp' \(did you mean 'stop'\?\)"),
        ("stop", "TW", "'TW' is not one of W, T, L"),
        ("ottt", "WTL", "'WTL' with the rule 'ottt', which teaches weights only"),
        ("sltt", "L", "teaches weights only; set learn: W"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(rule: str, learn: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        set_rule(spiking_mlp(6, [9], 4), rule, learn)  # type: ignore[arg-type]


def test_a_network_without_our_neurons_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no STOPLIFNode; build one of snn.networks, or use snn.convert"):
        set_rule(nn.Linear(2, 2))


def test_standardised_weights_have_no_mean_and_the_gain_learns() -> None:
    network = spiking_vgg11(width=4, steps=2, norm="ws")
    conv = synapses(network)["body.conv2"]
    weight = conv.effective_weight()  # type: ignore[union-attr]
    torch.testing.assert_close(weight.mean((1, 2, 3)), torch.zeros(8), atol=1e-6, rtol=0)
    torch.testing.assert_close(weight.var((1, 2, 3)), torch.full((8,), 1 / 36), rtol=1e-3, atol=0)
    set_rule(network, "stop", "W")
    network(torch.rand(2, 3, 32, 32)).sum().backward()
    assert conv.gain.grad.abs().sum() > 0  # type: ignore[union-attr]
