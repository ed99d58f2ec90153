"""The Lipschitz penalty against the authors' numbers, closed forms and brute force."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from robust.distillation import lipschitz_penalty, lipschitz_terms
from robust.distillation.lipschitz import Norm
from vision.classification import wide_resnet


def _golden_network(arrays: dict[str, np.ndarray]) -> nn.Sequential:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU(),
        nn.Linear(80, 7),
    )  # fmt: skip
    with torch.no_grad():
        for place, name in ((0, "conv1_w"), (1, "bn1_gamma"), (2, "conv2_w"), (3, "bn2_gamma"), (5, "linear_w")):
            network[place].weight.copy_(torch.from_numpy(arrays[name]))
        network[1].running_var.copy_(torch.from_numpy(arrays["bn1_var"]))
        network[3].running_var.copy_(torch.from_numpy(arrays["bn2_var"]))
    network[1].eps = network[3].eps = float(arrays["bn_eps"])
    return network


def test_golden_parts_and_gradients(golden_root: Path) -> None:
    arrays = dict(np.load(golden_root / "soteacher_lip.npz"))
    network = _golden_network(arrays)
    terms = lipschitz_terms(network)
    assert list(terms) == ["0", "1", "2", "3", "5"]
    np.testing.assert_allclose([t.item() for t in terms.values()], arrays["parts"], rtol=1e-5)
    total = lipschitz_penalty(network)
    assert total.item() == pytest.approx(float(arrays["lip_total"]), rel=1e-6)
    assert total.item() == pytest.approx(29.811779, abs=2e-5)
    total.backward()
    for place, name in ((0, "conv1"), (1, "bn1_gamma"), (2, "conv2"), (3, "bn2_gamma"), (5, "linear")):
        np.testing.assert_allclose(network[place].weight.grad.numpy(), arrays[f"grad_{name}"], rtol=1e-5, atol=1e-7)
    assert network[2].bias.grad is None  # biases do not count


def test_batchnorm_and_linear_hand_their_gradient_to_one_place_even_when_values_are_equal() -> None:
    norm, linear = nn.BatchNorm2d(3), nn.Linear(4, 2)
    nn.init.constant_(linear.weight, 0.5)
    (lipschitz_penalty(norm) + lipschitz_penalty(linear)).backward()
    assert norm.weight.grad.count_nonzero() == 1
    assert (linear.weight.grad != 0).any(0).sum() == 1


def test_only_leaves_count_whatever_their_owners_are_called() -> None:
    class ConvBlock(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, 1, 1, 1))
            self.inner = nn.Conv2d(1, 1, 1)

    block = ConvBlock()
    assert list(lipschitz_terms(block)) == ["inner"]
    assert lipschitz_penalty(nn.ReLU()).item() == 0


@pytest.mark.parametrize("groups", [1, 2])
def test_operator_form_is_the_norm_between_l1_spaces(groups: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, padding=1, bias=False, groups=groups)
    shape = (4, 5, 5)
    columns = []  # the image of each unit vector: its L1 norm, and the largest of all is the operator's norm
    for place in range(4 * 5 * 5):
        unit = torch.zeros(1, 4 * 5 * 5)
        unit[0, place] = 1
        columns.append(layer(unit.view(1, *shape)).abs().sum().item())
    assert lipschitz_penalty(layer, "operator").item() == pytest.approx(max(columns), rel=1e-5)
    assert lipschitz_penalty(layer, "operator") <= lipschitz_penalty(layer)


def test_operator_form_of_a_transposed_convolution() -> None:
    torch.manual_seed(1)
    layer = nn.ConvTranspose2d(2, 3, 2, bias=False)
    units = torch.eye(2).view(2, 2, 1, 1)
    found = layer(units).abs().sum((1, 2, 3)).max().item()
    assert lipschitz_penalty(layer, "operator").item() == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("norm", ["official", "operator"])
def test_layers_reduced_together_give_the_sum_of_their_terms(norm: Norm) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        wide_resnet(10, 2), nn.BatchNorm2d(16, affine=False), nn.BatchNorm2d(16, eps=0.1), nn.Linear(3, 2)
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.1, 2.0)  # type: ignore[union-attr]
    weights = list(network.parameters())
    apart = torch.stack(list(lipschitz_terms(network, norm).values())).sum()
    together = lipschitz_penalty(network, norm)
    assert together.item() == pytest.approx(apart.item(), rel=1e-5)
    expected = torch.autograd.grad(3 * apart, weights, allow_unused=True)
    for found, wanted in zip(torch.autograd.grad(3 * together, weights, allow_unused=True), expected, strict=True):
        if wanted is None:
            assert found is None
        else:
            torch.testing.assert_close(found, wanted)


def test_unknown_norm() -> None:
    with pytest.raises(ValueError, match="spectral"):
        lipschitz_penalty(nn.Linear(1, 1), "spectral")  # type: ignore[arg-type]
