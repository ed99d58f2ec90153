"""Conversion of spikingjelly networks, and training them by one function."""

import logging

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from snn.convert import convert
from snn.networks import spiking_mlp
from snn.neurons import SequenceError, STOPLIFNode
from snn.online import stop_online_training
from snn.rules import neurons, set_rule, synapses
from vision.engine.errors import ConfigError


def lif(**arguments: object) -> neuron.LIFNode:
    return neuron.LIFNode(**{"tau": 2.0, "decay_input": False, "v_reset": None, "detach_reset": True} | arguments)


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), lif(tau=4.0), nn.AvgPool2d(2),
        nn.Sequential(nn.Flatten(), nn.Linear(16, 6), lif(v_threshold=0.5), nn.Linear(6, 3)),
    )  # fmt: skip


def test_outputs_stay_and_every_layer_knows_what_it_feeds(caplog: pytest.LogCaptureFixture) -> None:
    x = torch.rand(5, 2, 2, 4, 4)
    theirs = small().eval()
    expected = torch.stack([theirs(step) for step in x])
    with caplog.at_level(logging.WARNING):
        ours = convert(small()).eval()
    assert "'4.3' keeps no trace" in caplog.text
    torch.testing.assert_close(torch.stack([ours(step) for step in x]), expected)
    assert [(n.v_threshold.item(), n.leak.item()) for n in neurons(ours).values()] == [(1.0, 0.75), (0.5, 0.5)]
    feeds = {name: synapse.feeds for name, synapse in synapses(ours).items()}
    assert feeds == {"0": (ours[2],), "4.1": (ours[4][2],), "4.3": ()}


def test_gradients_are_those_of_a_network_built_as_ours() -> None:
    torch.manual_seed(0)
    built = spiking_mlp(6, [5], 3, bias=True)
    plain = nn.Sequential(nn.Linear(6, 5), lif(), nn.Linear(5, 3), lif())
    plain[0].load_state_dict(built.body.linear1.state_dict())
    plain[2].load_state_dict(built.body.linear.state_dict())
    ours = convert(plain, keep_surrogate=False)
    set_rule(ours)
    x, y = torch.rand(4, 7, 6), torch.randint(3, (7,))
    built.reset(4)
    for step in x:
        F.cross_entropy(built.step(step), y).backward()
        F.cross_entropy(ours(step), y).backward()
    pairs = zip(built.parameters(), ours.parameters(), strict=True)
    assert all(torch.equal(a.grad, b.grad) for a, b in pairs if a.grad is not None and b.grad is not None)
    assert sum(float(p.grad.abs().sum()) for p in ours.parameters() if p.grad is not None) > 0


class Wired(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spike, self.linear = lif(), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.spike(self.linear(x))


def test_another_wiring_is_told_by_name() -> None:
    ours = convert(Wired(), {"linear": "spike"})
    assert ours.linear.feeds == (ours.spike,)
    assert isinstance(ours.spike, STOPLIFNode)
    with pytest.raises(ConfigError, match="'linaer' is no convolution or linear layer"):
        convert(Wired(), {"linaer": "spike"})
    with pytest.raises(ConfigError, match="'spik' is no neuron"):
        convert(Wired(), {"linear": "spik"})


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2), neuron.LIFNode()), r"decay_input=True and v_reset=0.0"),
        (nn.Sequential(nn.Linear(2, 2), neuron.IFNode()), r"'1' is a IFNode; expected LIFNode"),
        (nn.Sequential(nn.Linear(2, 2)), "the network has no LIFNode"),
        (nn.Sequential(nn.Conv2d(2, 2, 3, padding="same"), lif()), "pads by zeros same"),
        (nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), lif()), "pads by circular"),
    ],
)
def test_what_cannot_be_converted_is_refused(network: nn.Module, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        convert(network)


def test_a_learned_leak_of_spikingjelly_becomes_ours() -> None:
    node = neuron.ParametricLIFNode(init_tau=4.0, decay_input=False, v_reset=None)
    assert convert(nn.Sequential(nn.Linear(2, 2), node))[1].leak.item() == pytest.approx(0.75)


# -- one function that trains ------------------------------------------------------------------------------------------


def batch(steps: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(8, steps, 6, generator=generator)
    return x, (x.sum((1, 2)) > 3 * steps).long()[:, None].expand(-1, steps)


@pytest.mark.parametrize("online", [False, True])
def test_it_learns_with_updates_at_the_end_and_at_every_step(online: bool) -> None:
    torch.manual_seed(0)
    network = spiking_mlp(6, [16], 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    losses = [float(stop_online_training(network, optimizer, *batch(), F.cross_entropy, online)[0]) for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]


def test_accumulated_gradients_are_the_sum_over_steps() -> None:
    torch.manual_seed(0)
    network = spiking_mlp(6, [16], 2)
    before = [p.detach().clone() for p in network.parameters()]
    x, y = batch()
    network.reset(5)
    for t in range(5):
        F.cross_entropy(network.step(x[:, t]), y[:, t]).backward()
    expected = [b - 0.01 * p.grad for b, p in zip(before, network.parameters(), strict=True) if p.grad is not None]
    network.zero_grad()
    total, outputs = stop_online_training(
        network, torch.optim.SGD(network.parameters(), lr=0.01), x.transpose(0, 1), y.T, F.cross_entropy, False,
        time_first=True,
    )  # fmt: skip
    assert outputs.shape == (8, 5, 2)
    assert total.item() == pytest.approx(
        sum(F.cross_entropy(outputs[:, t], y[:, t]).item() for t in range(5)), rel=1e-5
    )
    for parameter, value in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter, value)


def test_a_converted_network_is_trained_too_and_is_left_without_state() -> None:
    torch.manual_seed(0)
    network = convert(nn.Sequential(nn.Linear(6, 8), lif(), nn.Linear(8, 2), lif()))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for size in (8, 3):  # another batch size: nothing of the last one is left
        x, y = batch()
        stop_online_training(network, optimizer, x[:size], y[:size], F.cross_entropy, False, learn="W")
    assert all(node.v is None for node in neurons(network).values())


@pytest.mark.parametrize(("x", "y"), [((8, 5, 6), (8, 4)), ((5, 8, 6), (8, 5)), ((8, 0, 6), (8, 0))])
def test_sequences_that_do_not_fit_are_refused(x: tuple[int, ...], y: tuple[int, ...]) -> None:
    network = spiking_mlp(6, [4], 2)
    with pytest.raises(SequenceError, match=r"expected the same \[N, T, ...\] with T and N of 1 or more"):
        stop_online_training(
            network, torch.optim.SGD(network.parameters(), lr=0.1), torch.zeros(x), torch.zeros(y).long(),
            F.cross_entropy, False,
        )  # fmt: skip


def test_spikingjellys_reset_forgets_the_converted_layers() -> None:
    network = convert(nn.Sequential(nn.Linear(6, 8), lif()))
    network(torch.rand(4, 6))
    functional.reset_net(network)
    assert network[0].trace.value is None and network[1].v is None
