"""What hooks read of the networks, against a forward pass by hand; parameter counts; paths that do not exist."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robust.distillation import Taps, lipschitz_penalty, look, students, taps_of
from snn.network import SpikingNetwork
from snn.networks import NeuronOptions, spiking_mlp, spiking_resnet18
from vision.classification import (
    DigitsCNN,
    Normalised,
    PreActResNet,
    cifar_resnet,
    cifar_resnet8x4,
    cifar_resnet32x4,
    timm,
    wide_resnet,
)
from vision.engine.errors import ConfigError

PAIRS: dict[str, tuple[Callable[[], nn.Module], int, float | None]] = {
    "wrn_40_2": (lambda: wide_resnet(40, 2, 100), 2_255_156, 84_702),
    "wrn_40_1": (lambda: wide_resnet(40, 1, 100), 569_780, 30_046),
    "wrn_16_2": (lambda: wide_resnet(16, 2, 100), 703_284, None),
    "resnet32x4": (lambda: cifar_resnet32x4(100), 7_433_860, 198_232),
    "resnet8x4": (lambda: cifar_resnet8x4(100), 1_233_540, 34_264),
    "vgg8": (lambda: students.vgg(8, 100), 3_965_028, 68_286),
    "shufflenet_v1": (lambda: students.shufflenet_v1(100), 949_258, None),
    "shufflenet_v2": (lambda: students.shufflenet_v2(100), 1_355_528, None),
    "mobilenet_v2_half": (lambda: students.mobilenet_v2_half(100), 812_836, 50_376),
    "resnet18": (lambda: students.resnet_small_images(18, 100), 11_220_132, None),
    "resnet34": (lambda: students.resnet_small_images(34, 100), 21_328_292, None),
    "small_resnet": (lambda: students.small_resnet(8, 10), 78_042, None),
}
"""Networks of the pairs: parameters, and the sum of layer terms of fresh weights in the authors' frame."""


@pytest.mark.parametrize("name", PAIRS)
def test_parameters_and_layer_terms(name: str) -> None:
    torch.manual_seed(0)
    build, parameters, terms = PAIRS[name]
    with torch.device("cpu" if terms else "meta"):
        network = build()
    assert sum(p.numel() for p in network.parameters()) == parameters
    if terms is not None:  # 1 % over seeds
        assert lipschitz_penalty(network).item() == pytest.approx(terms, rel=0.01)


@pytest.mark.parametrize("name", [name for name in PAIRS if name != "resnet34"])
def test_known_networks_show_stages_and_the_pooled_vector(name: str) -> None:
    network = PAIRS[name][0]().eval()
    taps = taps_of(network)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        seen = look(network, taps, images)
        torch.testing.assert_close(seen.logits, network(images))
        torch.testing.assert_close(seen.pooled, network.features(images))  # type: ignore[operator]
    assert len(seen.stages) >= 3
    sides = [stage.shape[2] for stage in seen.stages]
    assert sides == sorted(sides, reverse=True)
    for before, stage in zip(seen.preactivations, seen.stages[-len(seen.preactivations) :], strict=False):
        assert before.shape[0] == stage.shape[0] and before.min() < 0  # before a ReLU there are negative numbers
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_wide_resnets_last_stage_is_behind_norm_and_relu() -> None:
    network = wide_resnet(10, 1).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        seen = look(network, taps_of(network), images)
        stem = network.stem(images)
        one = network.stages[0](stem)
        last = F.relu(network.norm(network.stages[2](network.stages[1](one))))
    for found, expected in zip((seen.stem, seen.stages[0], seen.stages[-1]), (stem, one, last), strict=True):
        torch.testing.assert_close(found, expected)


def test_residual_sums_are_read_before_their_relu() -> None:
    network = cifar_resnet(20).eval()
    with torch.no_grad():
        seen = look(network, taps_of(network), torch.randn(2, 3, 32, 32))
    for before, stage in zip(seen.preactivations, seen.stages, strict=True):
        torch.testing.assert_close(F.relu(before), stage)


def test_a_normalised_network_is_read_inside() -> None:
    inner = DigitsCNN(width=4).eval()
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        seen = look(Normalised(inner, [0.5], [0.5]).eval(), taps_of(Normalised(inner, [0.5], [0.5])), images)
        plain = look(inner, taps_of(inner), (images - 0.5) / 0.5)
    for one, other in zip(seen.stages, plain.stages, strict=True):
        torch.testing.assert_close(one, other)


def test_a_timm_network_needs_no_names() -> None:
    network = timm("resnet18", 10).eval()
    seen = look(network, taps_of(network), torch.randn(2, 3, 32, 32))
    assert [s.shape[1] for s in seen.stages] == [64, 128, 256, 512]
    assert seen.pooled.shape == (2, 512)


READY = NeuronOptions(threshold=0.02)
"""Neurons that fire in any fresh network."""


@pytest.mark.parametrize("samples", [2, 3, 6])
@pytest.mark.parametrize(
    "build",
    [
        lambda: spiking_mlp(inputs=64, hidden=[12], steps=3, neuron=READY),
        lambda: spiking_resnet18(in_channels=1, width=4, steps=3, neuron=READY),
        lambda: spiking_resnet18(in_channels=1, width=4, steps=3, form="release", neuron=READY),
    ],
    ids=["mlp", "resnet", "release"],
)
def test_spiking_layers_give_their_mean_over_time_in_both_ways_of_running(
    build: Callable[[], SpikingNetwork], samples: int
) -> None:
    """Also where there are as many samples as steps."""
    torch.manual_seed(0)
    network = build().eval()
    images = 3 * torch.rand(samples, 1, 8, 8)
    paths = [f"body.{name}" for name, _ in network.body.named_children()]
    taps = Taps((*paths, *(f"{path}:input" for path in paths)))
    stepwise = look(network, taps, images).detached()
    with torch.no_grad():
        at_once = look(network, taps, images)
    for path in taps.stages:
        assert stepwise.features[path].shape[0] == samples
        torch.testing.assert_close(stepwise.features[path], at_once.features[path], msg=path)
    assert any(stepwise.features[path].abs().sum() > 0 for path in paths if "neuron" in path), "no spike at all"


def test_paths_that_do_not_exist() -> None:
    network = wide_resnet(10, 1)
    assert isinstance(network, PreActResNet)
    with pytest.raises(ConfigError, match=r"'stage.1': PreActResNet has no such module \(did you mean 'stages.1'\?\)"):
        taps_of(network, Taps(("stage.1",)))
    with pytest.raises(ConfigError, match="'x': PreActResNet has no such module; modules there: stem, stages, norm"):
        taps_of(network, Taps((), "x:input"))

    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    with pytest.raises(ConfigError, match="'idle': this module of Idle did not run"):
        look(Idle(), Taps((), "idle"), torch.zeros(1, 2))
