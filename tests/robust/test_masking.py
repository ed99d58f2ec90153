"""The checks on masked gradients warn of networks built to mask them, and of nothing else."""

import pytest
import torch
from torch import Tensor, nn

from robust.masking import check_gradients
from robust.threat import ThreatModel
from vision.engine.errors import ConfigError


class Staircase(nn.Module):
    """Rounds its input, so that no gradient passes: a classifier as weak as without, that looks robust."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear((images.flatten(1) * 100).round() / 100)


class Overconfident(nn.Module):
    """So sure of itself that the cross-entropy underflows to a gradient of zero."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images.flatten(1)) * 1e6


def case(network: nn.Module) -> tuple[nn.Module, Tensor, Tensor]:
    images = torch.rand(100, 3, 2, 2) * 0.4 + 0.3
    with torch.no_grad():
        return network.eval(), images, network(images).argmax(1)


@pytest.mark.parametrize("threat", [ThreatModel(eps=0.03), ThreatModel("l2", 0.1)])
def test_an_honest_network_gives_no_warning(threat: ThreatModel) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with torch.no_grad():
        network[1].bias.copy_(-network[1].weight.sum(1) / 2)  # both classes occur
    found = check_gradients(*case(network), threat)
    assert found.warnings == ()
    assert found.unbounded == 0.0 and found.no_gradient == 0.0


@pytest.mark.parametrize("network", [Staircase, Overconfident])
def test_masked_gradients_are_noticed(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    built = network()
    with torch.no_grad():
        built.linear.bias.copy_(-built.linear.weight.sum(1) / 2)
    found = check_gradients(*case(built), ThreatModel(eps=0.1), tries=100)
    text = " ".join(found.warnings)
    assert found.no_gradient > 0.5 and "no gradient at all" in text
    assert "without bound" in text
    assert "black box beats white box" in text and found.black_box < found.few_steps


def test_checks_need_images_and_a_radius() -> None:
    network, images, labels = case(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)))
    with pytest.raises(ConfigError, match="radius above 0"):
        check_gradients(network, images, labels, ThreatModel(eps=0.0))
    with pytest.raises(ConfigError, match="train mode"):
        check_gradients(network.train(), images, labels, ThreatModel())
