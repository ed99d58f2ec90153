"""Folded copies: equal to the network as it was, without a BatchNorm, whatever reads what."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vision.engine.folding import Affine, deployed, takes_any_size


def lived_in(network: nn.Module) -> nn.Module:
    """With statistics and weights of norms that are no identity."""
    make = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(generator=make)
            module.running_var.uniform_(0.5, 2.0, generator=make)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return network.eval()


class Residual(nn.Module):
    """The first norm reads what a shortcut reads too; the second alone reads its convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.other = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y: Tensor = x + self.other(self.second(self.norm(x).relu()))
        return y


def steps(network: nn.Module, x: Tensor) -> Tensor:
    """A layer that runs more than once, as over time steps."""
    return network(x) + network(2 * x)  # type: ignore[no-any-return]


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "convolution": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), (2, 3, 6, 5), 0),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3, 2, bias=False), nn.BatchNorm2d(4)), (2, 3, 6, 5), 0
    ),
    "linear": (lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), (2, 3), 0),
    "norm first": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3)), (2, 3, 6, 5), 1),
    "residual": (Residual, (2, 3, 6, 5), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_folded_copy_is_equal(name: str) -> None:
    make, shape, left = CASES[name]
    torch.manual_seed(0)
    network, x = lived_in(make()), torch.randn(shape)
    with torch.no_grad():
        expected = network(x)
        before = {key: value.clone() for key, value in network.state_dict().items()}
        made = deployed(network, lambda n: n(torch.randn(shape)))
        torch.testing.assert_close(made(x), expected, rtol=1e-4, atol=1e-5)
    assert not any("BatchNorm" in type(m).__name__ for m in made.modules())
    assert sum(isinstance(m, Affine) for m in made.modules()) == left
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not any(p.requires_grad for p in made.parameters())


def test_a_layer_that_runs_at_several_steps_is_folded_once() -> None:
    torch.manual_seed(0)
    network, x = lived_in(CASES["convolution"][0]()), torch.randn(2, 3, 6, 5)
    made = deployed(network, lambda n: steps(n, x))
    assert not any(isinstance(m, Affine) for m in made.modules())
    with torch.no_grad():
        torch.testing.assert_close(steps(made, x), steps(network, x), rtol=1e-4, atol=1e-5)


def test_unfolded_it_is_a_copy() -> None:
    network = lived_in(CASES["convolution"][0]())
    made = deployed(network, lambda n: None, folded=False)
    assert [type(m) for m in made.modules()] == [type(m) for m in network.modules()]
    assert made is not network


@pytest.mark.parametrize(("head", "any_size"), [
    (lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)), True),
    (lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)), False),
    (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), False),
])  # fmt: skip
def test_which_networks_take_any_size(head: Callable[[], nn.Module], any_size: bool) -> None:
    assert takes_any_size(head().eval(), torch.zeros(2, 1, 8, 8)) is any_size
