"""Gradient attacks on a classifier of images in [0, 1]: FGSM and PGD with several losses, starts and restarts.

No attack touches the network: its mode, BatchNorm statistics and parameter gradients are what they were.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from robust.threat import ThreatModel
from vision.engine.errors import ConfigError, DataError

Network = Callable[[Tensor], Tensor]
Loss = Literal["ce", "margin", "kl", "targeted"]
Start = Literal["zero", "random"]
LOSSES: tuple[Loss, ...] = ("ce", "margin", "kl", "targeted")


@contextmanager
def untouched(network: nn.Module) -> Iterator[None]:
    """Puts a network in eval mode and float32 for an attack, and asserts that nothing of it has changed afterwards.

    Every module gets back the mode it had. Autocast is off: the authors of arXiv 2110.03135 found that mixed precision
    masks gradients.

    Raises:
        RuntimeError: BatchNorm statistics or parameter gradients were changed meanwhile.
    """
    modes = [(module, module.training) for module in network.modules()]
    before = _fingerprint(network)
    device = next((p.device.type for p in network.parameters()), "cpu")
    network.eval()
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
    if _fingerprint(network) != before:
        raise RuntimeError("an attack changed BatchNorm statistics or parameter gradients")


def _fingerprint(network: nn.Module) -> list[tuple[int, int]]:
    """Which tensors statistics and gradients are, and how often each was written to."""
    held = [b for m in network.modules() if isinstance(m, _NormBase) for b in m.buffers(recurse=False)]
    held += [p.grad for p in network.parameters() if p.grad is not None]
    return [(id(tensor), -1 if tensor.is_inference() else tensor._version) for tensor in held]


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    r"""How far the strongest other class is above the label's: :math:`\max_{k \ne y} z_k - z_y`, shape ``[N]``.

    Above 0 exactly where the label is not the prediction (Carlini & Wagner 2017, arXiv 1608.04644, loss 6).

    Raises:
        ConfigError: fewer than two classes.
    """
    if logits.shape[1] < 2:
        raise ConfigError(f"the margin loss needs 2 or more classes; the network gives {logits.shape[1]}")
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], float("-inf"))
    return others.amax(1) - own[:, 0]


def attack_loss(logits: Tensor, labels: Tensor, loss: Loss, reference: Tensor | None = None) -> Tensor:
    r"""What an attack maximises, for each sample: shape ``[N]``.

    ``ce``: :math:`-\log p_y`; ``margin``: :func:`margin`; ``kl``: :math:`\mathrm{KL}(p_{ref} \| p)`, where
    :math:`p_{ref}` comes from ``reference``; ``targeted``: :math:`\log p_t`, where ``labels`` are the targets.

    Args:
        logits: of the attacked images, ``[N, C]``.
        labels: int64, ``[N]``.
        loss: which one.
        reference: logits ``[N, C]`` of ``kl``.

    Raises:
        ConfigError: a loss of another name, ``kl`` without ``reference``, or too few classes.
    """
    if loss == "ce":
        return F.cross_entropy(logits, labels, reduction="none")
    if loss == "targeted":
        return -F.cross_entropy(logits, labels, reduction="none")
    if loss == "margin":
        return margin(logits, labels)
    if loss != "kl":
        raise ConfigError(f"attack loss '{loss}' is unknown; expected {', '.join(LOSSES)}")
    if reference is None:
        raise ConfigError("attack loss kl compares with reference logits; give reference")
    return F.kl_div(logits.log_softmax(1), reference.log_softmax(1), reduction="none", log_target=True).sum(1)


def pgd(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    steps: int = 10,
    step_size: float = 2 / 255,
    start: Start | Tensor = "random",
    loss: Loss = "ce",
    reference: Tensor | None = None,
    restarts: int = 1,
) -> Tensor:
    r"""Projected gradient ascent on a loss of the labels.

    .. math:: x_{t+1} = \Pi\big( x_t + \alpha \, \mathrm{sign} \nabla_x \ell(f(x_t), y) \big)

    with the gradient scaled to length 1 in place of its sign for ``l2``. Of several restarts each image keeps one that
    fools the network, and of those the one of the largest loss. The last iterate counts, as published.

    Args:
        network: logits ``[N, C]`` of images; attacked in eval mode and given back in its own.
        images: clean, ``[N, ...]``, in the threat model's range.
        labels: int64 ``[N]``: the true ones, or the targets of ``loss="targeted"``.
        threat: ball and range.
        steps: gradient steps, 0 or more.
        step_size: :math:`\alpha`, in image range.
        start: ``zero`` (the image), ``random`` (uniform in the ball), or a change of the image, ``[N, ...]``,
            which is projected first.
        loss: see :func:`attack_loss`.
        reference: logits ``[N, C]`` of ``kl``; by default those of the clean images.
        restarts: independent random starts; above 1 only with ``start="random"``.

    Returns:
        Attacked images, detached, of the shape and type of ``images``.

    Raises:
        ConfigError: steps, step size or restarts out of range; restarts that would repeat themselves; ``kl`` from
            the image itself, where its gradient is zero.
        DataError: images outside the range, labels that do not fit.
        RuntimeError: an invariant does not hold (a fault of ours).

    Source: Madry et al. 2018, arXiv 1706.06083; ``kl`` is the attack of TRADES, arXiv 1901.08573.
    """
    check_inputs(images, labels, threat)
    check_search(steps, step_size, start, loss, restarts)
    if threat.norm == "linf" and step_size > 2 * (threat.high - threat.low):
        raise ConfigError(f"attack.step_size: {step_size:g} is beyond the image range; did you mean {step_size:g}/255?")
    with torch.inference_mode(False), torch.enable_grad(), untouched(network):
        clean, labels = images.detach().clone(), labels.clone()
        if loss == "kl" and reference is None:
            reference = _no_grad(network, clean)
        check_classes(network, clean, labels)
        found = _ascend(network, clean, labels, threat, steps, step_size, _begin(clean, threat, start), loss, reference)
        if restarts > 1:
            rank = _rank(network, found, labels, loss, reference)
        for _ in range(restarts - 1):
            begin = threat.random_start(clean)
            other = _ascend(network, clean, labels, threat, steps, step_size, begin, loss, reference)
            score = _rank(network, other, labels, loss, reference)
            better = (score > rank).view(-1, *[1] * (clean.dim() - 1))
            found, rank = torch.where(better, other, found), torch.maximum(score, rank)
    threat.check(found, clean)
    return found


def fgsm(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    step_size: float | None = None,
    start: Start | Tensor = "zero",
    loss: Loss = "ce",
) -> Tensor:
    """One step of :func:`pgd`, by default of size eps from the image itself (Goodfellow et al., arXiv 1412.6572).

    With ``start="random"`` and a step of 1.25 eps it is the fast attack of Wong et al. 2020, arXiv 2001.03994.

    Args:
        network: as :func:`pgd`.
        images: as :func:`pgd`.
        labels: as :func:`pgd`.
        threat: ball and range.
        step_size: None for eps.
        start: as :func:`pgd`.
        loss: as :func:`pgd`.
    """
    size = threat.eps if step_size is None else step_size
    return pgd(network, images, labels, threat, steps=1, step_size=size, start=start, loss=loss)


def _ascend(
    network: Network,
    clean: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    steps: int,
    step_size: float,
    begin: Tensor,
    loss: Loss,
    reference: Tensor | None,
) -> Tensor:
    current = begin
    for _ in range(steps):
        current.requires_grad_(True)
        # a sum, not a mean: the step does not depend on the batch, and small gradients underflow later
        total = attack_loss(network(current), labels, loss, reference).sum()
        (gradient,) = torch.autograd.grad(total, current)
        current = threat.project(current.detach() + threat.ascend(gradient, step_size), clean)
    return current.detach()


def _begin(clean: Tensor, threat: ThreatModel, start: Start | Tensor) -> Tensor:
    if isinstance(start, Tensor):
        if start.shape != clean.shape:
            raise DataError(
                f"attack start is {list(start.shape)}; expected a change of the images, {list(clean.shape)}"
            )
        return threat.project(clean + start.detach().to(clean), clean)
    return threat.random_start(clean) if start == "random" else clean.clone()


def _rank(network: Network, images: Tensor, labels: Tensor, loss: Loss, reference: Tensor | None) -> Tensor:
    """Orders attacks of one image: those that fool the network first, then by loss squeezed into (0, 1)."""
    logits = _no_grad(network, images)
    fooled = logits.argmax(1) != labels
    if loss == "targeted":
        fooled = ~fooled
    value = attack_loss(logits, labels, loss, reference).double()
    return fooled.double() + 0.5 + value.atan() / 4


@torch.no_grad()
def _no_grad(network: Network, images: Tensor) -> Tensor:
    return network(images)


def check_classes(network: Network, clean: Tensor, labels: Tensor) -> None:
    """Raises DataError for labels that are no class of the network; an indexing error on a GPU would not say so."""
    if len(labels) == 0:
        return
    classes = _no_grad(network, clean[:1]).shape[1]
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(f"labels run from {low} to {high}; the network gives {classes} classes, so 0 to {classes - 1}")


def check_inputs(images: Tensor, labels: Tensor, threat: ThreatModel) -> None:
    """Raises DataError for images outside the threat model's range, or labels that are not one integer an image."""
    threat.check_images(images)
    if labels.shape != images.shape[:1] or labels.is_floating_point() or labels.dtype == torch.bool:
        raise DataError(f"labels are {labels.dtype} {list(labels.shape)}; expected integers [{len(images)}]")


def check_search(steps: int, step_size: float, start: Start | Tensor, loss: Loss, restarts: int) -> None:
    """Raises ConfigError for numbers of an attack that are out of range, or parts of it that contradict each other."""
    if steps < 0 or restarts < 1:
        raise ConfigError(f"attack: {steps} steps and {restarts} restarts; expected 0 or more and 1 or more")
    if not 0 <= step_size < float("inf"):
        raise ConfigError(f"attack.step_size: {step_size} is no length; expected one in image range, such as 2/255")
    if loss not in LOSSES:
        raise ConfigError(f"attack loss '{loss}' is unknown; expected {', '.join(LOSSES)}")
    if not isinstance(start, Tensor) and start not in ("zero", "random"):
        raise ConfigError(f"attack.start: '{start}' is unknown; expected zero, random or a tensor")
    if restarts > 1 and (isinstance(start, Tensor) or start != "random"):
        raise ConfigError(f"attack.restarts: {restarts} restarts from one start repeat it; use start: random")
    if loss == "kl" and not isinstance(start, Tensor) and start == "zero" and steps > 0:
        raise ConfigError("attack loss kl has no gradient at the image itself; use start: random")
