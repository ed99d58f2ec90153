"""Networks: their size, what they take, how they run, and what they refuse."""

import math

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import base
from torch import Tensor, nn

from snn.network import SpikingNetwork
from snn.networks import NeuronOptions, spiking_lenet5, spiking_mlp, spiking_resnet18, spiking_vgg11
from snn.neurons import SequenceError
from snn.rules import neurons, set_rule
from snn.scores import scores_by_step
from vision.engine.errors import ConfigError


def weights(network: nn.Module) -> int:
    """Parameters without thresholds and leaks."""
    own = {id(p) for node in neurons(network).values() for p in node.parameters()}
    return sum(p.numel() for p in network.parameters() if id(p) not in own)


@pytest.mark.parametrize(
    ("channels", "classes", "count"), [(3, 10, 9_231_114), (3, 100, 9_277_284), (2, 11, 9_231_051), (2, 10, 9_230_538)]
)
def test_vgg11_has_the_releases_parameters(channels: int, classes: int, count: int) -> None:
    network = spiking_vgg11(classes, channels, bias=True)
    assert weights(network) == count
    assert sum(p.numel() for p in network.parameters()) == count + 18, "nine thresholds and nine leaks"
    assert weights(spiking_vgg11(classes, channels)) == count - 2752, "eight convolutions' biases"


@pytest.mark.parametrize(("classes", "count"), [(10, 11_176_906), (100, 11_223_076)])
def test_resnet18_has_the_releases_parameters(classes: int, count: int) -> None:
    assert weights(spiking_resnet18(classes, form="release")) == count


def test_resnet18_between_spikes() -> None:
    """Torchvision's count for small images, whose stem is 3x3 and whose neurons have no parameters."""
    assert weights(spiking_resnet18()) == 11_173_962


def test_a_lenet5_has_the_usual_parameters() -> None:
    assert weights(spiking_lenet5()) == 61_706


NETWORKS = {
    "vgg11": (lambda **k: spiking_vgg11(width=8, steps=3, **k), (3, 16, 16)),
    "vgg11_ws": (lambda **k: spiking_vgg11(width=8, steps=3, norm="ws", **k), (3, 32, 32)),
    "resnet18": (lambda **k: spiking_resnet18(width=8, steps=3, **k), (3, 16, 16)),
    "resnet18_release": (lambda **k: spiking_resnet18(width=8, steps=3, form="release", **k), (3, 16, 16)),
    "lenet5": (lambda **k: spiking_lenet5(steps=3, **k), (1, 28, 28)),
    "mlp": (lambda **k: spiking_mlp(64, [20], steps=3, **k), (1, 8, 8)),
}


def images(shape: tuple[int, ...], count: int = 4, seed: int = 1) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("output", ["spikes", "logits", "leaky"])
def test_all_steps_of_a_layer_at_once_is_step_by_step(name: str, output: str) -> None:
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    network = make(output=output)
    network.train()(images(shape, 8))  # running statistics that are no identity
    network.eval()
    for x in (images(shape), images((5, *shape), 2)):
        slow = network.run(x)
        with torch.no_grad():
            fast = network.run(x)
        assert slow.shape == ((3, 4, 10) if x.ndim == 4 else (5, 2, 10))
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-4)
        scores = torch.from_numpy(scores_by_step(slow.detach().numpy(), network.output))
        torch.testing.assert_close(scores[-1], network(x), rtol=1e-4, atol=1e-4)


def test_scores_after_each_step() -> None:
    outputs = np.array([[[1, 0]], [[0, 0]], [[1, 1]]], np.float32)
    np.testing.assert_allclose(scores_by_step(outputs, "spikes"), [[[1, 0]], [[0.5, 0]], [[2 / 3, 1 / 3]]], rtol=1e-6)
    np.testing.assert_array_equal(scores_by_step(outputs, "leaky"), outputs)


def test_a_run_leaves_no_state_behind() -> None:
    network = spiking_vgg11(width=4, steps=2)
    network(images((3, 16, 16)))
    assert all(value is None for _, value in base.named_memories(network))
    network(images((3, 16, 16), 2))


@pytest.mark.parametrize("granularity", ["layer", "channel", "neuron"])
def test_thresholds_of_each_granularity(granularity: str) -> None:
    options = NeuronOptions(threshold=0.7, granularity=granularity)  # type: ignore[arg-type]
    network = spiking_vgg11(width=4, steps=2, neuron=options, image_size=16)
    shapes = [tuple(node.v_threshold.shape) for node in neurons(network).values()]
    expected = {
        "layer": [()] * 9,
        "channel": [(c, 1, 1) for c in (4, 8, 16, 16, 32, 32, 32, 32)] + [(10,)],
        "neuron": [
            (4, 16, 16),
            (8, 8, 8),
            (16, 4, 4),
            (16, 4, 4),
            (32, 2, 2),
            (32, 2, 2),
            (32, 1, 1),
            (32, 1, 1),
            (10,),
        ],
    }[granularity]
    assert shapes == expected
    assert all((node.v_threshold == 0.7).all() for node in neurons(network).values())
    network(images((3, 16, 16))).sum().backward()
    assert all(node.v_threshold.grad is not None for node in neurons(network).values())


def test_one_threshold_a_neuron_needs_the_size_of_the_image() -> None:
    with pytest.raises(ConfigError, match="image_size is missing"):
        spiking_vgg11(width=4, neuron=NeuronOptions(granularity="neuron"))


def test_checkpointing_changes_neither_gradients_nor_statistics() -> None:
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = spiking_resnet18(width=4, steps=3)
        network.checkpointing = checkpointing
        network.train()
        network.reset()
        for _ in range(3):
            network.step(images((3, 16, 16))).square().sum().backward()
        states = dict(base.named_memories(network))
        gradients = {name: p.grad for name, p in network.named_parameters()}
        found.append((gradients, dict(network.named_buffers()), states))
    for plain, again in zip(*found, strict=True):
        assert plain.keys() == again.keys()
        for name, value in plain.items():
            assert torch.equal(value, again[name]), name


# -- what is refused -------------------------------------------------------------------------------------------------


def test_a_forgotten_reset_names_the_first_layer() -> None:
    network = spiking_vgg11(width=4, steps=2)
    network.reset()
    for _ in range(2):
        network.step(images((3, 16, 16)))
    with pytest.raises(SequenceError, match=r"layer 'conv1' has run 2 of 2 time steps; call reset\(\)"):
        network.step(images((3, 16, 16)))


def test_a_batch_size_that_changes_without_a_reset_names_the_first_layer() -> None:
    network = spiking_vgg11(width=4, steps=6)
    network.reset()
    network.step(images((3, 16, 16)))
    with pytest.raises(
        SequenceError, match=r"layer 'conv1': its state is of shape \[4, 3, 16, 16\] and \[3, 3, 16, 16\]"
    ):
        network.step(images((3, 16, 16), 3))
    network.reset()
    with torch.no_grad():
        network.step(images((3, 16, 16)))
        with pytest.raises(SequenceError, match=r"layer 'neuron1': its state is of shape \[4, 4"):
            network.step(images((3, 16, 16), 3))


@pytest.mark.parametrize("steps", [0, -1])
def test_no_time_steps_are_refused(steps: int) -> None:
    with pytest.raises(ConfigError, match=f"steps: {steps} time steps; expected 1 or more"):
        spiking_mlp(4, [3], steps=steps)


@pytest.mark.parametrize(
    "shape", [(4, 0, 3, 16, 16), (0, 3, 16, 16), (4, 3, 5, 16, 16), (4, 16, 16, 3), (3, 16, 16), (1, 4, 5, 3, 16, 16)]
)
def test_sequences_of_another_form_are_refused(shape: tuple[int, ...]) -> None:
    network = spiking_vgg11(width=4)
    with pytest.raises(SequenceError, match=r"an input of shape .* expected"):
        network(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(4, 63), (4, 0, 64), (4, 1, 8, 7), (4, 2, 3, 4, 8), (64,)])
def test_a_perceptron_refuses_inputs_of_another_size(shape: tuple[int, ...]) -> None:
    with pytest.raises(SequenceError, match=r"an input of shape"):
        spiking_mlp(64, [3])(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(4, 64), (4, 7, 64), (4, 1, 8, 8), (4, 7, 1, 8, 8)])
def test_a_perceptron_takes_vectors_and_images_still_and_moving(shape: tuple[int, ...]) -> None:
    assert spiking_mlp(64, [3], steps=2)(torch.rand(shape)).shape == (4, 10)


@pytest.mark.parametrize(
    "build",
    [
        lambda: spiking_vgg11(width=0),
        lambda: spiking_vgg11(dropout=1.0),
        lambda: spiking_resnet18(width=0),
        lambda: spiking_lenet5(padding=-1),
        lambda: spiking_mlp(4, [0]),
        lambda: spiking_vgg11(neuron=NeuronOptions(threshold=0.0)),
        lambda: spiking_vgg11(neuron=NeuronOptions(leak=math.inf)),
    ],
)
def test_numbers_out_of_their_range_are_refused(build: object) -> None:
    with pytest.raises(ConfigError):
        build()  # type: ignore[operator]


def test_dropout_and_rules_live_in_the_same_network() -> None:
    network = spiking_vgg11(width=4, steps=2, dropout=0.5)
    for rule in ("stop", "ottt", "sltt", "bptt"):
        set_rule(network, rule, "W")  # type: ignore[arg-type]
        network.zero_grad()
        network.train()(images((3, 16, 16))).sum().backward()
        assert isinstance(network, SpikingNetwork)
        assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
