"""The checks on masked gradients warn of networks built to mask them, and of nothing else."""

import pytest
import torch
from torch import Tensor, nn

from robust.evaluation import Judged
from robust.masking import check_gradients, contradictions
from robust.table import Row
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


class Rippled(nn.Module):
    """A linear classifier with a fine ripple on it, so that its gradient says nothing of the loss a step away."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 2)

    def forward(self, images: Tensor) -> Tensor:
        points = images.flatten(1)
        return self.linear(points + 0.01 * torch.sin(5000 * points))


def test_a_rough_loss_surface_is_noticed() -> None:
    torch.manual_seed(0)
    network = Rippled()
    with torch.no_grad():
        network.linear.bias.copy_(-network.linear.weight.sum(1) / 2)
    found = check_gradients(*case(network), ThreatModel(eps=0.1))
    assert found.rough > 0.25 and found.no_gradient == 0 and "rough loss surface" in " ".join(found.warnings)


class Valley(nn.Module):
    """Class 1 from a change of 0.09 on; on the way the loss falls again, so that small steps stay before that."""

    def forward(self, images: Tensor) -> Tensor:
        change = images.flatten(1)[:, 0] - 0.5
        loss = torch.where(change < 0.03, change, 0.06 - change) - 1.0
        loss = torch.where(change > 0.09, torch.ones_like(loss), loss)
        return torch.stack([torch.zeros_like(loss), loss], 1)


def test_one_step_that_beats_ten_is_noticed() -> None:
    images = torch.full((20, 1, 1, 1), 0.5)
    found = check_gradients(Valley().eval(), images, torch.zeros(20).long(), ThreatModel(eps=0.1), tries=1)
    assert (found.one_step, found.few_steps) == (0.0, 1.0)
    assert any(text.startswith("one step beats ten: 0.0% against 100.0%") for text in found.warnings)


@pytest.mark.parametrize(
    ("weak", "strong", "text"),
    [
        ("square", "pgd100", "black box beats white box: square leaves 40.0%, pgd100 60.0% of 50 images"),
        ("fgsm", "pgd10", "one step beats ten"),
        ("pgd20", "pgd100", "more steps do worse"),
    ],
)
def test_a_weaker_attack_that_breaks_more_is_a_contradiction(weak: str, strong: str, text: str) -> None:
    def judged(name: str, broken: int, images: int) -> Judged:
        rows = [Row(str(i), 0, [1.0, 0.0], 0.1, name if i < broken else "") for i in range(images)]
        return Judged(name, rows)

    both = {weak: judged(weak, 30, 100), strong: judged(strong, 20, 50)}  # compared on the first 50
    assert [told[: len(text)] for told in contradictions(both)] == [text]
    assert contradictions({weak: judged(weak, 22, 50), strong: both[strong]}) == []  # within chance
    assert contradictions({weak: both[strong], strong: judged(strong, 40, 50)}) == []
    assert contradictions({weak: both[weak]}) == []


def test_checks_need_images_and_a_radius() -> None:
    network, images, labels = case(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)))
    with pytest.raises(ConfigError, match="radius above 0"):
        check_gradients(network, images, labels, ThreatModel(eps=0.0))
    with pytest.raises(ConfigError, match="train mode"):
        check_gradients(network.train(), images, labels, ThreatModel())
