"""What is counted of a run: firing rates, synaptic operations one by one, energy; and the scores made of it."""

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter
from torch import nn

from snn.energy import AC_PJ, MAC_PJ, energy_card
from snn.metric import SpikingMetric
from snn.monitor import fan_out, watched
from snn.network import SpikingNetwork
from snn.networks import spiking_lenet5, spiking_mlp, spiking_resnet18, spiking_vgg11
from snn.neurons import STOPLIFNode
from snn.raster import beside, raster_picture
from snn.rules import synapses
from snn.scores import Layers, SpikeScores, first_settled
from snn.synapses import TracedConv2d


def test_connections_are_counted_one_by_one() -> None:
    conv = nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2)
    expected = torch.zeros(5, 7)
    for row in range(3):
        for column in range(4):
            for i in range(3):
                for j in range(3):
                    r, c = 2 * row + i - 1, 2 * column + j - 1
                    if 0 <= r < 5 and 0 <= c < 7:
                        expected[r, c] += 2  # outputs of the group
    assert torch.equal(fan_out(conv, torch.Size((1, 2, 5, 7))).float(), expected)


def seen_in(network: SpikingNetwork, x: torch.Tensor, steps: int) -> Any:
    with torch.no_grad(), watched(network.eval(), len(x), steps) as seen:
        network.run(x)
    return seen


def test_operations_of_a_perceptron_are_spikes_times_connections() -> None:
    torch.manual_seed(0)
    network = spiking_mlp(8, [6], 4, steps=3)
    x = torch.rand(5, 8) - 0.2
    seen = seen_in(network, x, 3)
    spikes = torch.zeros(5)
    network.reset()
    with torch.no_grad():
        for _ in range(3):
            network.step(x)
            spikes += network.body.neuron1.s.sum(1)
    assert spikes.sum() > 0
    assert seen.operations["linear"].tolist() == (4 * spikes).tolist()
    assert seen.operations["linear1"].tolist() == [3 * 8 * 6] * 5, "real values count at every step"
    assert seen.analogue == {"linear1": True, "linear": False}
    assert seen.macs == {"linear1": 48, "linear": 24}
    torch.testing.assert_close(seen.rates["neuron1"], spikes / 18)
    assert seen.neurons == {"neuron1": 6, "output": 4}


@pytest.mark.parametrize("kind", ["mlp", "convolutions"])
def test_spikingjellys_counter_counts_the_same_operations(kind: str) -> None:
    """Of networks without pooling, whose every synapse meets spikes of 0 and 1; by its SynOpCounter."""
    torch.manual_seed(0)
    if kind == "mlp":
        network, shape = spiking_mlp(12, [9, 8], 4), (5, 3, 12)
    else:
        first, second = STOPLIFNode(0.5), STOPLIFNode(0.3)
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=TracedConv2d(2, 4, 3, stride=2, padding=1, receiver=first), neuron1=first,
            conv2=TracedConv2d(4, 6, 3, padding=1, groups=2, receiver=second), neuron2=second,
        )  # fmt: skip
        network, shape = SpikingNetwork(layers, 3, 6, 2), (5, 3, 2, 9, 9)
    for synapse in synapses(network).values():
        synapse.weight.data.mul_(2)
    x = torch.bernoulli(torch.full(shape, 0.4))
    seen, counter = seen_in(network, x, 3), SynOpCounter()
    with torch.no_grad(), DispatchCounterMode([counter]):
        network.run(x)
    assert all(value.sum() > 0 for value in seen.operations.values())
    assert sum(float(value.sum()) for value in seen.operations.values()) == counter.get_total()


def test_averaged_spikes_count_each() -> None:
    """Brute force over every spike of a LeNet-5 whose input are counts of events."""
    torch.manual_seed(0)
    network = spiking_lenet5(in_channels=2, padding=0, width=3, steps=2)
    for conv in [m for m in synapses(network).values() if isinstance(m, nn.Conv2d)]:
        conv.weight.data.mul_(2)
    x = torch.randint(0, 3, (1, 2, 2, 34, 34)).float()
    kept: dict[str, list[torch.Tensor]] = {"neuron1": [], "neuron2": []}
    network.eval().reset(2)
    with torch.no_grad():
        for t in range(2):
            network.step(x[:, t])
            for name, values in kept.items():
                values.append(network.body.get_submodule(name).s)  # type: ignore[arg-type]
    seen = seen_in(network, x, 2)
    fan = {name: fan_out(synapse, torch.Size((1, 1, side, side))) for name, synapse, side in (
        ("conv1", network.body.conv1, 34), ("conv2", network.body.conv2, 15))}  # fmt: skip
    assert seen.operations["conv1"].item() == pytest.approx((x.sum((0, 1, 2)) * fan["conv1"]).sum().item())
    pairs = sum(s.view(3, 15, 2, 15, 2).sum((0, 2, 4)) for s in kept["neuron1"])
    assert pairs.sum() > 0
    assert seen.operations["conv2"].item() == pytest.approx((pairs * fan["conv2"]).sum().item())
    inner = sum(s[0, :, :10, :10].sum() for s in kept["neuron2"])  # 11 rows of which pooling takes 10
    assert seen.operations["linear1"].item() == pytest.approx(float(inner) * 120, rel=1e-6)
    assert not any(seen.analogue.values())


def test_vgg11_does_the_multiplications_it_is_known_for() -> None:
    """152.8 million a step with padding; what falls on padding is left out here."""
    seen = seen_in(spiking_vgg11(steps=1), torch.rand(1, 3, 32, 32), 1)
    padded = 0
    side = 32
    for name, synapse in synapses(spiking_vgg11(steps=1).body).items():
        padded += synapse.weight.numel() * (side * side if name.startswith("conv") else 1)
        side //= 2 if name[4:] in ("1", "2", "4", "6", "8") else 1
    assert round(padded / 1e6, 1) == 152.8
    assert 0.7 * padded < sum(seen.macs.values()) < padded
    assert sum(seen.neurons.values()) == 151_562


@pytest.mark.parametrize("form", ["post", "release"])
def test_residual_networks_are_counted_layer_by_layer(form: str) -> None:
    torch.manual_seed(0)
    network = spiking_resnet18(width=4, steps=2, form=form)  # type: ignore[arg-type]
    with torch.no_grad():
        network.train()(torch.rand(8, 3, 16, 16))
    seen = seen_in(network, torch.rand(2, 3, 16, 16), 2)
    assert seen.operations.keys() == synapses(network.body).keys()
    assert [name for name, real in seen.analogue.items() if real] == ["conv0"]
    dense = {name: count * 2 for name, count in seen.macs.items()}
    assert all(0 <= value.max().item() <= dense[name] for name, value in seen.operations.items())


def test_watching_ends() -> None:
    network = spiking_mlp(8, [6], 4, steps=3)
    seen_in(network, torch.rand(2, 8), 3)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in network.modules())


def test_the_energy_card_adds_up() -> None:
    card = energy_card({"a": 100.0, "b": 1000.0}, {"a": True, "b": False}, {"a": 50, "b": 400}, updates=20)
    *layers, neurons, total = card["rows"]
    assert [row[:4] for row in layers] == [
        ["a", "MAC", 100.0, pytest.approx(100 * MAC_PJ / 1000)], ["b", "AC", 1000.0, pytest.approx(1000 * AC_PJ / 1000)]
    ]  # fmt: skip
    assert neurons[3] == pytest.approx(20 * MAC_PJ / 1000)
    assert total[2:] == pytest.approx([1120.0, 0.46 + 0.9 + 0.092, 450.0, 450 * 4.6 / 1000])


# -- scores ------------------------------------------------------------------------------------------------------------

LAYERS = Layers(
    {"n1": 10, "out": 2},
    {"n1": 0.7, "out": 1.0},
    {"n1": 0.5, "out": 0.5},
    {"l1": 30, "l2": 20},
    {"l1": True, "l2": False},
)


def prediction(name: str, by_step: list[int], rate: float) -> SpikeScores:
    logits = np.zeros(2, np.float32)
    logits[by_step[-1]] = 2.0
    return SpikeScores(
        name, str(by_step[-1]), 0.9, {"0": 0.9}, logits, [str(k) for k in by_step], first_settled(by_step), rate,
        {"l1": 90.0, "l2": 100 * rate}, {"n1": rate, "out": 0.5}, {}, by_step, LAYERS,
    )  # fmt: skip


def test_scores_over_time_steps() -> None:
    metric = SpikingMetric(["0", "1"])
    predictions = [prediction("a", [0, 1, 1], 0.2), prediction("b", [1, 0, 1], 0.4), prediction("c", [0, 0, 0], 0.0)]
    metric.update(predictions, {"label": torch.tensor([1, 1, 1])})
    figures, tables = metric.compute(), metric.tables(metric.ordered())
    assert figures["accuracy"] == pytest.approx(2 / 3)
    assert figures["tied"] == 0.0
    assert figures["decided"] == pytest.approx((2 + 3 + 1) / 3)
    assert figures["firing_rate"] == pytest.approx((0.2 * 10 + 0.5 * 2) / 12)
    assert figures["synaptic_operations"] == pytest.approx(90 + 20)
    assert figures["energy_nj"] == pytest.approx((90 * 4.6 + 20 * 0.9 + 12 * 3 * 4.6) / 1000)
    assert tables["early_exit"]["x"] == [1, 2, 3]
    assert tables["early_exit"]["y"] == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert tables["confusion"]["values"] == [[0, 0], [1, 2]]
    assert tables["layers"]["rows"][0] == ["n1", pytest.approx(0.2), 0.7, 0.5, 10]
    assert tables["energy"]["rows"][-1][3] == pytest.approx(figures["energy_nj"])


def test_answers_that_only_the_order_of_classes_chose_are_counted() -> None:
    metric = SpikingMetric(["0", "1"])
    predictions = [prediction("a", [0, 0], 0.2), prediction("b", [1, 0], 0.4), prediction("c", [1, 1], 0.4)]
    predictions[1].logits[:] = 1.0
    predictions[2].logits[:] = 0.0
    metric.update(predictions, {"label": torch.tensor([0, 0, 0])})
    assert metric.compute()["tied"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(("answers", "step"), [([4], 1), ([1, 2, 3], 3), ([3, 3, 3], 1), ([3, 1, 3, 3], 3)])
def test_the_step_an_answer_settles_at(answers: list[int], step: int) -> None:
    assert first_settled(answers) == step


def test_a_raster_has_a_block_for_each_layer() -> None:
    first, last = np.zeros((4, 3), np.uint8), np.ones((4, 2), np.uint8)
    picture = raster_picture({"first": first, "last": last})
    dark = (picture == (36, 62, 120)).all(-1)[:, 92:]
    rows = np.flatnonzero(dark.any(1))
    assert len(rows) == 2 * 8 and rows.min() == 5 + 3 * 8 + 5, "only the last layer fired"
    assert dark[rows[0]].sum() == 4 * 24
    below = picture[rows.max() + 6 :, 92:]
    assert (below != 255).any(), "how many steps there are stands below"
    with pytest.raises(ValueError, match="time steps"):
        raster_picture({"a": first, "b": last[:2]})
    with pytest.raises(ValueError, match="at least one layer"):
        raster_picture({})


def test_pictures_beside_each_other_keep_their_pixels() -> None:
    a, b = np.full((4, 2, 3), 10, np.uint8), np.full((2, 3, 3), 20, np.uint8)
    both = beside(a, b)
    assert both.shape == (4, 5, 3)
    assert (both[:, :2] == 10).all() and (both[:2, 2:] == 20).all() and (both[2:, 2:] == 255).all()
