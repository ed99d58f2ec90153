"""FGSM and PGD against the authors' recorded attacks, closed forms and brute force."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from robust.attacks import attack_loss, fgsm, margin, pgd
from robust.threat import ThreatModel
from vision.engine.errors import ConfigError, DataError

Arrays = dict[str, NDArray[np.float64]]
LINF = ThreatModel()


class Linear(nn.Module):
    """A linear classifier, whose worst change within a ball is known in closed form."""

    def __init__(self, classes: int = 2, numbers: int = 12) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(numbers, affine=False).double()
        self.linear = nn.Linear(numbers, classes).double()

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images.flatten(1))


def inner_images(n: int = 5) -> Tensor:
    """Far from the edges of the range, so that clamping plays no part."""
    return torch.rand(n, 3, 2, 2, dtype=torch.float64) * 0.4 + 0.3


@pytest.mark.data
@pytest.mark.parametrize("start", ["zero", "given"])
def test_pgd_equals_the_recorded_one(recorded: Arrays, recorded_network: nn.Module, start: str) -> None:
    images, labels = torch.from_numpy(recorded["x_pixel"]), torch.from_numpy(recorded["y"])
    std = torch.from_numpy(recorded["std"]).view(1, -1, 1, 1)
    begin = "zero" if start == "zero" else torch.from_numpy(recorded["start_delta_norm"]) * std
    found = pgd(recorded_network, images, labels, LINF, steps=10, step_size=2 / 255, start=begin)
    np.testing.assert_allclose(found.numpy(), recorded[f"pgd10_{start}_start_pixel"], rtol=0, atol=1e-12)
    ce = F.cross_entropy(recorded_network(found), labels, reduction="none").detach().numpy()
    np.testing.assert_allclose(ce, recorded["ce_pgd10_zero" if start == "zero" else "ce_pgd10_start"], rtol=1e-9)


@pytest.mark.data
def test_fgsm_equals_the_recorded_one(recorded: Arrays, recorded_network: nn.Module) -> None:
    images, labels = torch.from_numpy(recorded["x_pixel"]), torch.from_numpy(recorded["y"])
    found = fgsm(recorded_network, images, labels, LINF)
    np.testing.assert_allclose(found.numpy(), recorded["fgsm_zero_start_pixel"], rtol=0, atol=1e-12)


@pytest.mark.data
def test_kl_attack_equals_the_recorded_one(recorded: Arrays, recorded_network: nn.Module) -> None:
    images, labels = torch.from_numpy(recorded["x_pixel"]), torch.from_numpy(recorded["y"])
    begin = torch.from_numpy(recorded["start_delta_norm"]) * torch.from_numpy(recorded["std"]).view(1, -1, 1, 1)
    found = pgd(recorded_network, images, labels, LINF, start=begin, loss="kl")
    np.testing.assert_allclose(found.numpy(), recorded["trades_x_adv_pixel"], rtol=0, atol=1e-12)


def small_network() -> tuple[nn.Module, Tensor, Tensor]:
    """Random, float32, with its images (some at the edges of the range) and labels."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(384, 5)).eval()
    images = torch.rand(4, 3, 8, 8)
    images[0, :, :2], images[1, :, :2] = 0.0, 1.0
    return network, images, torch.tensor([0, 3, 1, 4])


def drawn_by(attack: object, images: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor:
    """The start that an attack of torchattacks draws under seed 1, as a change; seeds it to draw that again."""
    torch.manual_seed(1)
    delta = draw(torch.empty_like(images))
    torch.manual_seed(1)
    return delta


@pytest.mark.parametrize("start", ["zero", "same"])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 8 / 255), ("l2", 0.5)])
def test_pgd_equals_torchattacks_from_the_same_start(norm: str, eps: float, start: str) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    network, images, labels = small_network()
    step, random = eps / 4, start == "same"

    def in_l2_ball(empty: Tensor) -> Tensor:
        delta = empty.normal_()
        length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return delta * torch.zeros_like(length).uniform_(0, 1) / length * eps

    kind, draw = (
        (torchattacks.PGD, lambda empty: empty.uniform_(-eps, eps))
        if norm == "linf"
        else (torchattacks.PGDL2, in_l2_ball)
    )
    oracle = kind(network, eps=eps, alpha=step, steps=10, random_start=random)
    begin = drawn_by(oracle, images, draw) if random else "zero"
    expected = oracle(images, labels)
    found = pgd(network, images, labels, ThreatModel(norm, eps), steps=10, step_size=step, start=begin)  # type: ignore[arg-type]
    assert torch.allclose(found, expected, rtol=0, atol=1e-6)
    assert float((expected - images).abs().max()) > 0.5 * (eps if norm == "linf" else step / 14)  # it did attack


def test_single_step_attacks_equal_torchattacks_from_the_same_start() -> None:
    torchattacks = pytest.importorskip("torchattacks")
    network, images, labels = small_network()
    eps = 8 / 255
    fast = torchattacks.FFGSM(network, eps=eps, alpha=1.25 * eps)
    begin = drawn_by(fast, images, lambda empty: torch.randn_like(empty).uniform_(-eps, eps))
    expected = fast(images, labels)
    found = fgsm(network, images, labels, LINF, step_size=1.25 * eps, start=begin)
    assert torch.allclose(found, expected, rtol=0, atol=1e-6)
    plain = torchattacks.FGSM(network, eps=eps)(images, labels)
    assert torch.allclose(fgsm(network, images, labels, LINF), plain, rtol=0, atol=1e-6)
    assert not torch.allclose(plain, expected, rtol=0, atol=1e-3)


def test_the_kl_attack_equals_torchattacks_from_the_same_start() -> None:
    torchattacks = pytest.importorskip("torchattacks")
    network, images, labels = small_network()
    oracle = torchattacks.TPGD(network, eps=8 / 255, alpha=2 / 255, steps=10)
    begin = drawn_by(oracle, images, lambda empty: 0.001 * torch.randn_like(empty))
    expected = oracle(images)
    found = pgd(network, images, labels, LINF, start=begin, loss="kl")
    assert torch.allclose(found, expected, rtol=0, atol=1e-6)


def test_the_targeted_attack_equals_torchattacks() -> None:
    torchattacks = pytest.importorskip("torchattacks")
    network, images, labels = small_network()
    targets = (labels + 2) % 5
    oracle = torchattacks.PGD(network, eps=8 / 255, alpha=2 / 255, steps=10, random_start=False)
    oracle.set_mode_targeted_by_label(quiet=True)
    found = pgd(network, images, targets, LINF, start="zero", loss="targeted")
    assert torch.allclose(found, oracle(images, targets), rtol=0, atol=1e-6)


def test_the_fast_attack_is_one_step_from_a_random_point_of_the_ball() -> None:
    network, images, labels = small_network()
    torch.manual_seed(2)
    begin = LINF.random_start(images)
    points = begin.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(network(points), labels), points)
    stepped = begin + 10 / 255 * gradient.sign()
    expected = torch.minimum(torch.maximum(stepped, images - 8 / 255), images + 8 / 255).clamp(0, 1)
    torch.manual_seed(2)
    found = fgsm(network, images, labels, LINF, step_size=10 / 255, start="random")
    assert torch.allclose(found, expected, rtol=0, atol=1e-6)
    assert not torch.equal(found, fgsm(network, images, labels, LINF, step_size=10 / 255))


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.2)])
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_a_linear_network_is_attacked_best_in_closed_form(norm: str, eps: float, loss: str) -> None:
    torch.manual_seed(0)
    network, images = Linear(), inner_images()
    labels = torch.tensor([0, 1, 0, 1, 1])
    found = pgd(network, images, labels, ThreatModel(norm, eps), steps=40, step_size=eps / 4, loss=loss)
    direction = network.linear.weight[1] - network.linear.weight[0]  # class 1 above class 0
    dual = direction.abs().sum() if norm == "linf" else direction.norm()
    expected = margin(network(images), labels) + eps * dual
    assert torch.allclose(margin(network(found), labels), expected, atol=1e-9)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_targeted_attacks_raise_the_target(norm: str) -> None:
    torch.manual_seed(0)
    network, images = Linear(classes=4), inner_images()
    targets = torch.tensor([0, 1, 2, 3, 0])
    found = pgd(network, images, targets, ThreatModel(norm, 0.1), step_size=0.02, loss="targeted", start="zero")
    before, after = (network(x).log_softmax(1).gather(1, targets[:, None]) for x in (images, found))
    assert bool((after > before).all())


def test_restarts_keep_the_worst_of_each_image() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 3)).double()
    network[1].weight.data *= 20  # many local maxima
    images, labels = inner_images(16), torch.randint(3, (16,))
    threat = ThreatModel(eps=0.2)
    torch.manual_seed(1)
    best = attack_loss(network(pgd(network, images, labels, threat, steps=3, restarts=4)), labels, "margin")
    torch.manual_seed(1)
    single = [attack_loss(network(pgd(network, images, labels, threat, steps=3)), labels, "margin") for _ in range(4)]
    fooled = torch.stack([s > 0 for s in single]).any(0)
    assert torch.equal(best > 0, fooled)
    assert len({tuple((s > 0).tolist()) for s in single}) > 1 or not torch.equal(single[0], single[1])


def test_nothing_of_the_network_changes() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 3))
    network.train()
    network[1].eval()  # a frozen layer in a network that trains
    images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    F.cross_entropy(network(images), labels).backward()
    network[1].train()
    state = {k: v.clone() for k, v in network.state_dict().items()}
    gradients = [p.grad.clone() for p in network.parameters()]
    network[1].eval()
    pgd(network, images, labels, LINF, steps=3)
    assert [m.training for m in network] == [True, False, True, True, True]
    assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())
    assert all(torch.equal(g, p.grad) for g, p in zip(gradients, network.parameters(), strict=True))


def test_a_network_that_updates_its_statistics_anyway_is_caught() -> None:
    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, images: Tensor) -> Tensor:
            self.norm.train()
            return self.norm(images).flatten(1)

    with pytest.raises(RuntimeError, match="BatchNorm statistics"):
        pgd(Stubborn(), torch.rand(2, 3, 2, 2), torch.tensor([0, 1]), LINF, steps=1)


def test_a_network_that_writes_gradients_into_its_parameters_is_caught() -> None:
    class Leaking(nn.Module):
        def __init__(self, begun: bool) -> None:
            super().__init__()
            self.linear = nn.Linear(12, 2)
            if begun:
                self.linear(torch.rand(1, 12)).sum().backward()

        def forward(self, images: Tensor) -> Tensor:
            logits = self.linear(images.flatten(1))
            if logits.requires_grad:
                logits.sum().backward(retain_graph=True, inputs=[self.linear.weight])
            return logits

    for begun in (False, True):
        with pytest.raises(RuntimeError, match="parameter gradients"):
            pgd(Leaking(begun), torch.rand(2, 3, 2, 2), torch.tensor([0, 1]), LINF, steps=1)


@pytest.mark.parametrize(("amount", "message"), [(0.2, "ball"), (float("nan"), "not finite")])
def test_every_attack_is_held_to_its_ball(monkeypatch: pytest.MonkeyPatch, amount: float, message: str) -> None:
    monkeypatch.setattr(ThreatModel, "project", lambda self, adversarial, images: adversarial + amount)
    for attack in (pgd, fgsm):
        with pytest.raises(RuntimeError, match=message):
            attack(Linear(), inner_images(), torch.zeros(5).long(), LINF)


def test_mode_is_restored_after_an_error() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).train()
    with pytest.raises(DataError, match="0 to 1"):
        pgd(network, torch.rand(1, 3, 2, 2), torch.tensor([7]), LINF)
    assert network.training


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_eps_zero_gives_the_image_back(norm: str) -> None:
    network, images = Linear(), inner_images()
    assert torch.equal(pgd(network, images, torch.zeros(5).long(), ThreatModel(norm, 0.0)), images)


def test_attacks_work_where_gradients_are_off() -> None:
    network, images, labels = Linear(), inner_images(), torch.zeros(5).long()
    wanted = pgd(network, images, labels, LINF, start="zero")
    with torch.no_grad():
        assert torch.equal(pgd(network, images, labels, LINF, start="zero"), wanted)
    with torch.inference_mode():
        assert torch.equal(pgd(network, images.clone(), labels.clone(), LINF, start="zero"), wanted)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    network, images, labels = Linear(), inner_images(), torch.zeros(5).long()
    whole = pgd(network, images, labels, LINF, start="zero")
    assert torch.equal(whole[2:3], pgd(network, images[2:3], labels[2:3], LINF, start="zero"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": -1}, "-1 steps"),
        ({"restarts": 0}, "0 restarts"),
        ({"step_size": 8.0}, "8/255"),
        ({"step_size": float("nan")}, "no length"),
        ({"start": "one"}, "zero, random"),
        ({"start": "zero", "restarts": 2}, "repeat"),
        ({"start": "zero", "loss": "kl"}, "no gradient"),
        ({"loss": "hinge"}, "unknown"),
    ],
)
def test_arguments_that_make_no_sense(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pgd(Linear(), inner_images(), torch.zeros(5).long(), LINF, **change)  # type: ignore[arg-type]


def test_images_and_labels_that_make_no_sense() -> None:
    network, labels = Linear(), torch.zeros(5).long()
    for images in (inner_images() * 2 - 1, inner_images() * 255, inner_images().fill_(float("nan"))):
        with pytest.raises(DataError, match="span"):
            pgd(network, images, labels, LINF)
    with pytest.raises(DataError, match="uint8"):
        pgd(network, (inner_images() * 255).byte(), labels, LINF)
    for wrong in (labels.float(), labels.bool(), labels[:3]):
        with pytest.raises(DataError, match="expected integers"):
            pgd(network, inner_images(), wrong, LINF)
    with pytest.raises(DataError, match="change of the images"):
        pgd(network, inner_images(), labels, LINF, start=torch.zeros(1, 3, 2, 2))


def test_a_margin_needs_two_classes() -> None:
    with pytest.raises(ConfigError, match="2 or more classes"):
        pgd(Linear(classes=1), inner_images(), torch.zeros(5).long(), LINF, loss="margin")
