"""Signs that gradients are masked: robustness measured with them is then not to be believed."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robust.adversarial import Attack
from robust.attacks import attack_loss, untouched
from robust.evaluation import AttackName, Judged, require_eval
from robust.threat import ThreatModel
from vision.engine.errors import ConfigError

SLACK = 0.01
"""Differences of accuracy below this are put down to chance (ours)."""


@dataclass(frozen=True)
class Checks:
    """What :func:`check_gradients` measured; shares and accuracies in [0, 1].

    Attributes:
        one_step: accuracy under one step of eps.
        few_steps: under 10 steps.
        many_steps: under 50 steps of the same length, from the same start.
        black_box: under random corners of the ball, which use no gradient.
        unbounded: under 50 steps within the whole range of images.
        no_gradient: share of images whose gradient is zero everywhere.
        rough: share of images whose loss a small step along the gradient raises by less than a random one of the
            same length.
        warnings: what is suspicious, in words.
    """

    one_step: float
    few_steps: float
    many_steps: float
    black_box: float
    unbounded: float
    no_gradient: float
    rough: float
    warnings: tuple[str, ...] = ()


def check_gradients(network: nn.Module, images: Tensor, labels: Tensor, threat: ThreatModel, tries: int = 50) -> Checks:
    """Looks for the known signs of masked gradients on a few hundred images.

    Args:
        network: in eval mode.
        images: ``[N, ...]`` in [0, 1].
        labels: int64, ``[N]``.
        threat: ball and range.
        tries: random corners for each image.

    Raises:
        ConfigError: no images, eps 0, or a network in train mode.

    Source: section 3.1 of Athalye et al. 2018, arXiv 1802.00420; the figures at which we warn are ours.
    """
    require_eval(network)
    if len(images) == 0 or threat.eps == 0:
        raise ConfigError(f"{len(images)} images and eps {threat.eps}: checks need images and a radius above 0")
    whole = ThreatModel("linf", threat.high - threat.low, threat.low, threat.high)  # holds every valid image
    runs = {
        "one_step": (Attack(steps=1, start="zero"), threat),
        "few_steps": (Attack(steps=10, start="zero"), threat),
        "many_steps": (Attack(steps=50, start="zero"), threat),
        "unbounded": (Attack(steps=50, start="zero", step_size=whole.eps / 10), whole),
    }
    found = {k: _accuracy(network, a.run(network, images, labels, t), labels) for k, (a, t) in runs.items()}
    found["black_box"] = random_corners(network, images, labels, threat, tries)
    found["no_gradient"], found["rough"] = _surface(network, images, labels, threat)
    return Checks(**found, warnings=tuple(_suspicions(found, _slack(len(images)))))


WEAKER: tuple[tuple[AttackName, AttackName, str], ...] = (
    ("square", "pgd20", "black box beats white box"),
    ("square", "pgd100", "black box beats white box"),
    ("fgsm", "pgd10", "one step beats ten"),
    ("fgsm", "pgd20", "one step beats twenty"),
    ("pgd10", "pgd20", "more steps do worse"),
    ("pgd20", "pgd100", "more steps do worse"),
)
"""Attacks of which the first should break no more than the second, and what it is called where it does."""


def contradictions(judged: Mapping[str, Judged]) -> list[str]:
    """What in the tables of several attacks speaks for masked gradients: a weaker attack that breaks more.

    Compared are the images that both have seen; the same slack as in :func:`check_gradients` is put down to chance.
    """
    told = []
    for weak, strong, text in WEAKER:
        if weak not in judged or strong not in judged:
            continue
        stood = {row.id: row.robust for row in judged[strong].rows}
        both = [(row.robust, stood[row.id]) for row in judged[weak].rows if row.id in stood]
        left = [sum(of) / len(both) for of in zip(*both, strict=True)]
        if both and left[0] < left[1] - _slack(len(both)):
            told.append(f"{text}: {weak} leaves {left[0]:.1%}, {strong} {left[1]:.1%} of {len(both)} images")
    return told


def _slack(images: int) -> float:
    return max(SLACK, 2 / images)


def _suspicions(found: dict[str, float], slack: float) -> list[str]:
    told = {
        "black box beats white box: random corners leave {black_box:.1%}, 10 gradient steps {few_steps:.1%}": found[
            "black_box"
        ]
        < found["few_steps"] - slack,
        "one step beats ten: {one_step:.1%} against {few_steps:.1%}": found["one_step"] < found["few_steps"] - slack,
        "more steps do worse: 50 leave {many_steps:.1%}, 10 leave {few_steps:.1%}": found["many_steps"]
        > found["few_steps"] + slack,
        "an attack without bound leaves {unbounded:.1%}, which should be 0": found["unbounded"] > slack,
        "{no_gradient:.1%} of the images have no gradient at all": found["no_gradient"] > slack,
        "the gradient is no better than chance for {rough:.1%} of the images: a rough loss surface": found["rough"]
        > 0.25,
    }
    return [text.format(**found) for text, suspicious in told.items() if suspicious]


def random_corners(network: nn.Module, images: Tensor, labels: Tensor, threat: ThreatModel, tries: int) -> float:
    """Accuracy under the worst of several changes drawn from the edge of the ball; each sees logits only."""
    standing = torch.ones(len(images), dtype=torch.bool, device=images.device)
    with torch.no_grad(), untouched(network):
        for _ in range(tries):
            change = threat.ascend(torch.randn_like(images), threat.eps)
            attacked = threat.project(images + change, images)
            standing &= network(attacked).argmax(1) == labels
    return float(standing.double().mean())


def _surface(network: nn.Module, images: Tensor, labels: Tensor, threat: ThreatModel) -> tuple[float, float]:
    """Share of images without gradient, and share whose loss the gradient does not raise more than chance does."""
    small = threat.eps / 8
    with torch.enable_grad(), untouched(network):
        points = images.detach().clone().requires_grad_(True)
        loss = attack_loss(network(points), labels, "ce")
        (gradient,) = torch.autograd.grad(loss.sum(), points)
    with torch.no_grad(), untouched(network):
        along = attack_loss(network(images + threat.ascend(gradient, small)), labels, "ce")
        chance = attack_loss(network(images + threat.ascend(torch.randn_like(images), small)), labels, "ce")
    none = gradient.flatten(1).abs().amax(1) == 0
    return float(none.double().mean()), float((along < chance).double().mean())


@torch.no_grad()
def _accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    return float((network(images).argmax(1) == labels).double().mean())
