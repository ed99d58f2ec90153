"""AutoAttack through the library pyautoattack (extra ``robust-eval``), a part at a time, with its traps closed."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robust.attacks import check_classes, check_inputs, untouched
from robust.threat import ThreatModel
from vision.engine.errors import ConfigError

log = logging.getLogger(__name__)

Part = Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square"]
STANDARD: tuple[Part, ...] = ("apgd-ce", "apgd-t", "fab-t", "square")
"""The parts of the standard version, in its order."""

TARGETS = 9
"""How many other classes the targeted parts of the standard version aim at."""


def parts_for(classes: int, parts: Sequence[Part] = STANDARD) -> tuple[Part, ...]:
    """The parts that a network of so many classes can be attacked with.

    The targeted DLR loss divides by the distance between the first and the third and fourth largest logit, the plain
    one by that of the first and third. With 3 classes ``apgd-t`` becomes ``apgd-dlr``, with 2 both are left out; the
    log says so.

    Raises:
        ConfigError: fewer than 2 classes.
    """
    if classes < 2:
        raise ConfigError(f"AutoAttack needs 2 or more classes; the network gives {classes}")
    swapped: list[Part] = ["apgd-dlr" if p == "apgd-t" and classes == 3 else p for p in parts]
    kept = tuple(p for p in dict.fromkeys(swapped) if classes > 2 or p not in ("apgd-t", "apgd-dlr"))
    if kept != tuple(parts):
        log.warning("AutoAttack with %d classes: %s instead of %s", classes, ", ".join(kept), ", ".join(parts))
    return kept


def autoattack(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    parts: Sequence[Part] = STANDARD,
    seed: int = 0,
    queries: int = 5000,
) -> tuple[Tensor, list[str]]:
    """Attacks each image with the parts in turn, until one fools the network.

    What a part returns is projected into the ball and the range, and judged by a forward pass of our own.

    Args:
        network: logits ``[N, C]`` of images.
        images: ``[N, C, H, W]`` in [0, 1].
        labels: int64, ``[N]``.
        threat: ball; its range must be [0, 1].
        parts: see :func:`parts_for`.
        seed: of the parts; the caller's random generators are kept.
        queries: of Square.

    Returns:
        Attacked images (the clean ones where nothing fooled the network) and what fooled it on each, which is ``clean``
        where it was wrong from the start, the name of a part, or an empty string.

    Raises:
        ConfigError: the library is not installed, another range, or too few classes.
        DataError: images outside the range, labels that do not fit.

    Source: Croce & Hein 2020, arXiv 2003.01690, version standard: 100 iterations, one restart, 9 targets, 5,000
        queries. The targets are the ``C - 1`` other classes where there are fewer than 10.
    """
    attack_class = _library()
    check_inputs(images, labels, threat)
    if (threat.low, threat.high) != (0.0, 1.0):
        raise ConfigError(f"AutoAttack clamps to [0, 1]; the threat model has [{threat.low}, {threat.high}]")
    device = images.device
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []), torch.inference_mode(False),
        torch.enable_grad(), _frozen(network), _traced(),
    ):  # fmt: skip
        # the library views images as rows, which other memory formats do not allow
        images, labels = images.detach().clone(memory_format=torch.contiguous_format), labels.clone()
        check_classes(network, images, labels)
        found, names, standing = images.clone(), [""] * len(images), _right(network, images, labels)
        for i in (~standing).nonzero().flatten().tolist():
            names[i] = "clean"
        classes = network(images[:1]).shape[1] if len(images) else 0
        for part in parts_for(classes, parts) if len(images) and threat.eps else ():
            places = standing.nonzero().flatten()
            if len(places) == 0:
                break
            attack = _prepared(attack_class, network, threat, part, seed, classes, queries, device)
            x, y = images[places], labels[places]
            attacked, _ = attack.run_standard_evaluation(x, y, batch_size=len(x))
            attacked = threat.project(attacked.detach(), x)
            threat.check(attacked, x)
            fooled = ~_right(network, attacked, y)
            found[places[fooled]] = attacked[fooled]
            standing[places[fooled]] = False
            for i in places[fooled].tolist():
                names[i] = part
    return found, names


def library_version() -> str:
    """Name and version of the library, or the name alone where it is not installed."""
    try:
        return f"pyautoattack {version('pyautoattack')}"
    except PackageNotFoundError:
        return "pyautoattack"


def _library() -> Any:
    try:
        from pyautoattack import AutoAttack
    except ImportError as error:
        raise ConfigError(
            "AutoAttack needs the library pyautoattack: pip install 'triptych[robust-eval]', "
            "or leave 'autoattack' out of the attacks"
        ) from error
    return AutoAttack


def _prepared(
    attack_class: Any,
    network: nn.Module,
    threat: ThreatModel,
    part: Part,
    seed: int,
    classes: int,
    queries: int,
    device: torch.device,
) -> Any:
    """One part with the standard version's settings, which the library sets only for all of them together."""
    norm = {"linf": "Linf", "l2": "L2"}[threat.norm]
    attack = attack_class(
        network, norm=norm, eps=threat.eps, seed=seed, version="custom", attacks=[part], device=device
    )
    attack.verbose = False
    attack.apgd.n_restarts = attack.apgd_targeted.n_restarts = attack.fab.n_restarts = 1
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(TARGETS, classes - 1)
    attack.square.n_queries = queries
    return attack


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """As :func:`robust.attacks.untouched`; parameters ask for no gradient, as FAB would leave them one."""
    asking = [p for p in network.parameters() if p.requires_grad]
    with untouched(network):
        for parameter in asking:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in asking:
                parameter.requires_grad_(True)


@torch.no_grad()
def _right(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return network(images).argmax(1) == labels


@contextmanager
def _traced() -> Iterator[None]:
    """Keeps a debugger's or coverage's trace function, which one of the library's checks takes away."""
    before = sys.gettrace()
    try:
        yield
    finally:
        sys.settrace(before)
