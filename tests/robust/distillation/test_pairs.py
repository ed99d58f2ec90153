"""Every pair of networks with every distiller that it can have: a finite loss that the student's features answer to."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robust.distillation import Seen, Taps, look, students, taps_of
from robust.distillation.distiller import Distiller, TrainingSet
from vision.classification import cifar_resnet8x4, cifar_resnet32x4, timm, wide_resnet
from vision.engine.errors import ConfigError
from vision.engine.registry import build, entries

Make = Callable[[], nn.Module]
VIEWS, SAMPLES = 8, 16
LABELS = torch.arange(VIEWS) % 4
DATA = TrainingSet(SAMPLES, 100, lambda: torch.arange(SAMPLES) % 4)
EVERY = {entry.name for entry in entries("distiller")}
PAIRS: dict[str, tuple[Make, Make, set[str]]] = {
    "wrn_40_2 to wrn_40_1": (lambda: wide_resnet(40, 2, 100), lambda: wide_resnet(40, 1, 100), {"fsp", "kdsvd"}),
    "wrn_40_2 to wrn_16_2": (lambda: wide_resnet(40, 2, 100), lambda: wide_resnet(16, 2, 100), set()),
    "resnet32x4 to shufflenet_v2": (
        lambda: cifar_resnet32x4(100), lambda: students.shufflenet_v2(100), {"fsp", "kdsvd", "activation_boundary"},
    ),
    "resnet32x4 to shufflenet_v1": (
        lambda: cifar_resnet32x4(100), lambda: students.shufflenet_v1(100), {"fsp", "kdsvd", "activation_boundary"},
    ),
    "resnet32x4 to resnet8x4": (lambda: cifar_resnet32x4(100), lambda: cifar_resnet8x4(100), set()),
    "resnet34 to resnet18": (
        lambda: students.resnet_small_images(34, 100), lambda: students.resnet_small_images(18, 100), set(),
    ),
    "timm's resnet34 to resnet18": (
        lambda: timm("resnet34", 100), lambda: timm("resnet18", 100), {"fsp", "activation_boundary"},
    ),
    "vgg13 to vgg8": (lambda: students.vgg(13, 100), lambda: students.vgg(8, 100), set()),
    "vgg13 to mobilenet_v2_half": (
        lambda: students.vgg(13, 100), lambda: students.mobilenet_v2_half(100), {"fsp", "kdsvd"},
    ),
}  # fmt: skip
"""Teacher, student, and the distillers that refuse them: for want of equal channels, a stem or preactivations."""


@torch.no_grad()
def _shown(network: nn.Module, side: int) -> Seen:
    images = torch.randn(VIEWS, 3, side, side, generator=torch.Generator().manual_seed(1))
    return look(network.train(), taps_of(network), images)


def _read_by(distiller: Distiller, seen: Seen) -> tuple[Seen, list[Tensor]]:
    """What a task shows a distiller, each tensor a leaf that gradients come to."""
    taps = Taps(**{name: getattr(seen.taps, name) for name in distiller.reads})
    features = {path: seen.features[path].clone().requires_grad_() for path in taps.all()}
    logits = seen.logits.clone().requires_grad_()
    return Seen(logits, taps, features), [logits, *features.values()]


def _learns(name: str, student: Seen, teacher: Seen) -> bool:
    """Whether a distiller takes the pair; then its losses are finite, and reach the student."""
    block = {"type": name, "negatives": 20} if name == "crd" else {"type": name}
    distiller: Distiller = build(block, "distiller")
    ours, leaves = _read_by(distiller, student)
    theirs = _read_by(distiller, teacher)[0].detached()
    try:
        distiller.require(ours, theirs)
        distiller.prepare(ours, theirs, DATA)
    except ConfigError:
        return False
    # two upright images with three turns of each, where a distiller makes views of its own
    label = LABELS[:2] if name == "sskd" else LABELS
    batch = {"label": label, "index": torch.arange(len(label))}
    found = distiller.losses(ours, theirs, batch) or distiller.initial_losses(ours, theirs, batch)
    total = torch.stack(list(found.values())).sum()
    gradients = [g for g in torch.autograd.grad(total, leaves, allow_unused=True) if g is not None]
    assert torch.isfinite(total), name
    assert all(torch.isfinite(g).all() for g in gradients), name
    assert max(float(g.abs().max()) for g in gradients) > 0, name
    return True


@pytest.mark.parametrize("pair", PAIRS)
def test_pairs_and_their_distillers(pair: str) -> None:
    torch.manual_seed(0)
    make_teacher, make_student, refused = PAIRS[pair]
    side = 64 if pair.startswith("timm") else 32
    teacher, student = _shown(make_teacher(), side), _shown(make_student(), side)
    asked = EVERY - {"kd"}  # which reads logits alone
    assert {name for name in asked if not _learns(name, student, teacher)} == refused


def test_stages_are_those_that_the_release_reads() -> None:
    vgg, mobile = students.vgg(8, 100), students.mobilenet_v2_half(100)
    assert [list(s.shape[1:]) for s in _shown(vgg, 32).stages] == [[128, 16, 16], [256, 8, 8], [512, 4, 4], [512, 4, 4]]
    assert [list(s.shape[1:]) for s in _shown(mobile, 32).stages] == [[12, 16, 16], [16, 8, 8], [48, 4, 4], [160, 2, 2]]
    seen = _shown(vgg, 32)
    for before, stage in zip(seen.preactivations, seen.stages, strict=True):
        torch.testing.assert_close(before.relu(), stage)
