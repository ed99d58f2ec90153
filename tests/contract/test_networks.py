"""What every registered network keeps to, whoever wrote it.

A network whose arguments all have defaults is taken as it is, at the first usual input that it accepts; the others have
small arguments in ``SMALL``.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vision.engine.checkpoint import load_weights, read_weights, save_weights
from vision.engine.registry import build, find, names
from vision.engine.signature import signature_of

SMALL: dict[str, dict[str, Any]] = {
    "cid": {"backbone": "hrnet_w18_small", "keypoints": 3, "search": {"most": 2, "threshold": 0.0}},
    "cifar_resnet": {"depth": 20},
    "dhrnet": {"backbone": "hrnet_w18_small", "keypoints": 3, "search": {"most": 4, "threshold": 0.0}},
    "mlp": {"inputs": 64, "hidden": [12, 8]},
    "spiking_lenet5": {"width": 12, "steps": 3, "norm": "bn"},
    "spiking_mlp": {"inputs": 64, "hidden": [24], "steps": 3},
    "spiking_resnet18": {"width": 8, "steps": 3},
    "spiking_vgg11": {"width": 8, "steps": 3},
    "timm": {"model": "test_resnet", "classes": 5},
    "timm_pose": {"model": "test_resnet", "keypoints": 5, "hidden": 8},
    "wide_resnet": {"depth": 10, "width": 1, "dropout": 0.3},
}
USUAL_SIZES = (16, 8)
# Of one position or one person nothing depends on what else is there, and some gradients are exactly zero.
SIDES = {f"mamkpd_{size}": 32 for size in "tsbl"} | {"dhrnet": 64}
CHANNELS = {"cid": 3, "dhrnet": 3}
OUTPUT_STRIDES = {"cid": 4, "dhrnet": 4, "timm_pose": 4} | {f"mamkpd_{size}": 4 for size in "tsbl"}

NETWORKS = names(kind="network")


@dataclass(frozen=True)
class Case:
    """A network by its name, and the channels and side of an input it takes."""

    name: str
    channels: int
    side: int

    def build(self, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        network: nn.Module = build({"type": self.name, **SMALL.get(self.name, {})}, "network")
        return network

    def images(self, count: int = 4, height: int = 0, width: int = 0, seed: int = 1) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, self.channels, height or self.side, width or self.side, generator=generator)


def case_of(name: str) -> Case:
    fields = signature_of(find(name).factory).fields
    channels = int(fields["in_channels"].default) if "in_channels" in fields else CHANNELS.get(name, 1)
    failures = []
    for side in [SIDES[name]] if name in SIDES else USUAL_SIZES:
        case = Case(name, channels, side)
        try:
            with torch.no_grad():
                case.build().eval()(case.images(1))
        except (RuntimeError, ValueError) as error:
            failures.append(f"{channels}x{side}x{side}: {error}")
        else:
            return case
    pytest.fail(f"'{name}' takes none of the usual inputs; give it small arguments in SMALL\n" + "\n".join(failures))


@pytest.fixture(scope="module", params=NETWORKS)
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(request.param)


def loss_of(output: Tensor) -> Tensor:
    """A sum in which every number of the output has a weight of its own."""
    generator = torch.Generator().manual_seed(2)
    return (output * torch.randn(output.shape, generator=generator)).mean()


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_networks_of_the_package_are_here() -> None:
    assert {"tbcnet", "scm", "preact_resnet18", "wide_resnet", "cifar_resnet", "timm"} <= set(NETWORKS)
    assert SMALL.keys() <= set(NETWORKS)


def test_forward_is_finite_and_has_a_row_a_sample(case: Case) -> None:
    with torch.no_grad():
        output = case.build()(case.images())
    assert output.shape[0] == 4
    assert torch.isfinite(output).all()


def test_the_same_seed_makes_the_same_network_and_another_one_another(case: Case) -> None:
    assert same(state(case.build(3)), state(case.build(3)))
    assert not same(state(case.build(3)), state(case.build(4)))


def test_every_parameter_gets_a_gradient(case: Case) -> None:
    """Within three updates, because a branch that begins at zero passes nothing back before the first."""
    network = case.build().train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    waiting = {name for name, _ in network.named_parameters()}
    assert waiting
    for update in range(3):
        optimizer.zero_grad(set_to_none=True)
        loss_of(network(case.images(seed=10 + update))).backward()
        gradients = {name: p.grad for name, p in network.named_parameters()}
        assert [name for name, g in gradients.items() if g is None] == []
        assert all(torch.isfinite(g).all() for g in gradients.values() if g is not None)
        waiting -= {name for name, g in gradients.items() if g is not None and g.abs().sum() > 0}
        optimizer.step()
    assert waiting == set()


def test_input_of_odd_size(case: Case) -> None:
    """A convolutional network takes any size; what depends on it shows in the output alone."""
    network = case.build().eval()
    if not any(isinstance(module, nn.Conv2d) for module in network.modules()):
        with pytest.raises(RuntimeError):
            network(case.images(2, case.side + 1, case.side + 3))
        return
    height, width = case.side + 1, case.side + 7
    with torch.no_grad():
        plain, odd = network(case.images(2)), network(case.images(2, height, width))
    stride = OUTPUT_STRIDES.get(case.name, 1)
    expected = (*plain.shape[:-2], -(-height // stride), -(-width // stride)) if plain.ndim > 2 else plain.shape
    assert odd.shape == expected
    assert torch.isfinite(odd).all()


def test_evaluation_is_deterministic_and_leaves_no_trace(case: Case) -> None:
    network = case.build().eval()
    before, images = state(network), case.images()
    with torch.no_grad():
        first, second = network(images), network(images)
    assert torch.equal(first, second)
    assert same(state(network), before)


def test_evaluation_takes_each_sample_by_itself(case: Case) -> None:
    network = case.build()
    with torch.no_grad():
        network.train()(case.images())  # running statistics that are no identity
        network.eval()
        together = network(case.images())
        alone = torch.cat([network(image[None]) for image in case.images()])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_the_input_is_left_as_it_was(case: Case) -> None:
    images = case.images()
    case.build().train()(images)
    assert torch.equal(images, case.images())


def test_weights_survive_the_disk(case: Case, tmp_path: Path) -> None:
    trained, other = case.build(0), case.build(1)
    with torch.no_grad():
        trained.train()(case.images())
    file = tmp_path / "weights.safetensors"
    save_weights(file, trained, {"network": case.name})
    weights = load_weights(other, file)
    assert weights.metadata["network"] == case.name
    assert same(state(trained), state(other))
    with torch.no_grad():
        assert torch.equal(trained.eval()(case.images()), other.eval()(case.images()))
    assert same(read_weights(file).tensors, state(trained))


def test_channels_last_changes_memory_not_results(case: Case) -> None:
    network = case.build()
    with torch.no_grad():
        network.train()(case.images())
        network.eval()
        plain = network(case.images())
        network.to(memory_format=torch.channels_last)
        other = network(case.images().to(memory_format=torch.channels_last))
    torch.testing.assert_close(other, plain, rtol=1e-4, atol=1e-5)


def test_a_deep_copy_is_a_network_of_its_own(case: Case) -> None:
    network = case.build().eval()
    before, copied = state(network), copy.deepcopy(network)
    with torch.no_grad():
        assert torch.equal(network(case.images()), copied(case.images()))
        for parameter in copied.parameters():
            parameter.add_(1.0)
    assert same(state(network), before)
    assert not same(state(copied), before)
