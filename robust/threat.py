"""What an attacker may do to an image: the threat model, one object for training, attacks and evaluation."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vision.engine.errors import ConfigError, DataError

Norm = Literal["linf", "l2"]
L2_MOST = 6.0
"""Largest L2 radius that is taken as meant (ours): published ones for images in [0, 1] are 0.1 to 5."""


@dataclass(frozen=True)
class ThreatModel:
    r"""All images within a norm ball around the clean one and within the valid range.

    .. math:: \{ x' : \lVert x' - x \rVert \le \epsilon, \; low \le x' \le high \}

    The norm is over all numbers of one image. Images are in [low, high]: normalisation is a part of the network
    (:class:`vision.classification.Normalised`), so that eps means the same for every network.

    Args:
        norm: ``linf`` (largest change of a number) or ``l2`` (Euclidean length of the change).
        eps: radius, in image range: 8/255, not 8. Zero allows no change.
        low: smallest valid value of a pixel.
        high: largest valid value.

    Raises:
        ConfigError: an eps below 0, not finite, or one that looks like it is in 0 to 255; an empty range.

    Example:
        >>> threat = ThreatModel(eps=0.1)
        >>> threat.project(torch.tensor([[0.5, 1.5]]), torch.tensor([[0.2, 0.95]]))
        tensor([[0.3000, 1.0000]])
    """

    norm: Norm = "linf"
    eps: float = 8 / 255
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise ConfigError(f"threat.norm: '{self.norm}' is no norm of an attack; expected linf or l2")
        if not -float("inf") < self.low < self.high < float("inf"):
            raise ConfigError(f"threat: the range [{self.low}, {self.high}] is empty or endless; images are in [0, 1]")
        if not 0 <= self.eps < float("inf"):
            raise ConfigError(f"threat.eps: {self.eps} is not a radius; expected 0 or more, for example 8/255 = 0.0314")
        most = self.high - self.low if self.norm == "linf" else L2_MOST * (self.high - self.low)
        if self.eps > most:
            raise ConfigError(
                f"threat.eps: {self.eps:g} is beyond {most:g}, the most that makes sense of images in "
                f"[{self.low:g}, {self.high:g}]; did you mean {self.eps:g}/255 = {self.eps / 255:.6f}?"
            )

    def check_images(self, images: Tensor) -> None:
        """Refuses images that are no floating point numbers in the valid range.

        Raises:
            DataError: says what range they span.
        """
        if not images.is_floating_point():
            raise DataError(
                f"images to attack are {images.dtype}; expected floating point in [{self.low}, {self.high}]"
            )
        if images.numel() == 0:
            return
        low, high = (float(v) for v in images.detach().aminmax())
        if not (low >= self.low and high <= self.high):  # also true where a pixel is not a number
            raise DataError(
                f"images to attack span [{low:.4g}, {high:.4g}], expected [{self.low:g}, {self.high:g}]; "
                "give images that are not normalised and put the normalisation into the network (Normalised)"
            )

    def project(self, adversarial: Tensor, images: Tensor) -> Tensor:
        """The point of the ball and range that a step is taken back to; shapes ``[N, ...]`` both.

        For ``linf`` the nearest point; for ``l2`` the change is scaled into the ball and then clamped to the range,
        which shortens it further where ``images`` are valid.
        """
        delta = adversarial - images
        if self.norm == "linf":
            delta = delta.clamp(-self.eps, self.eps)
        else:
            length = lengths(delta)
            delta = delta * (self.eps / length.clamp_min(torch.finfo(delta.dtype).tiny)).clamp(max=1.0)
        return (images + delta).clamp(self.low, self.high)

    def random_start(self, images: Tensor) -> Tensor:
        """A point drawn uniformly from each image's ball, then clamped to the range; shape of ``images``.

        Draws from torch's global generator of the images' device.
        """
        if self.norm == "linf":
            delta = (torch.rand_like(images) * 2 - 1) * self.eps
        else:
            direction = torch.randn_like(images)
            numbers = images[0].numel() if len(images) else 1
            radius = self.eps * torch.rand_like(images.flatten(1)[:, 0]) ** (1 / numbers)
            tiny = torch.finfo(direction.dtype).tiny
            delta = direction / lengths(direction).clamp_min(tiny) * radius.view(-1, *[1] * (images.dim() - 1))
        return self.project(images + delta, images)

    def ascend(self, gradient: Tensor, step_size: float) -> Tensor:
        """The step of steepest ascent: ``step_size`` times the gradient's sign, or times it scaled to length 1."""
        if self.norm == "linf":
            return step_size * gradient.sign()
        return step_size * gradient / lengths(gradient).clamp_min(torch.finfo(gradient.dtype).tiny)

    def size(self, adversarial: Tensor, images: Tensor) -> Tensor:
        """The norm of each image's change: ``[N]``."""
        delta = adversarial - images
        if self.norm == "linf":
            return delta.flatten(1).abs().amax(1)
        return lengths(delta).flatten()

    def check(self, adversarial: Tensor, images: Tensor) -> None:
        """Asserts that an attack kept to the threat model.

        Raises:
            RuntimeError: an image is outside the ball or the range by more than rounding: a fault of the attack.
        """
        if adversarial.shape != images.shape:
            raise RuntimeError(f"an attack gave {list(adversarial.shape)} for images {list(images.shape)}")
        if adversarial.numel() == 0:
            return
        rounding = 8 * torch.finfo(images.dtype).eps * max(1.0, abs(self.low), abs(self.high))
        if self.norm == "l2":
            rounding *= max(1.0, self.eps)
        if not bool(torch.isfinite(adversarial).all()):
            raise RuntimeError("an attack gave images that are not finite")
        if float(self.size(adversarial, images).max()) > self.eps + rounding:
            raise RuntimeError(f"an attack left the {self.norm} ball of radius {self.eps}")
        if float(adversarial.min()) < self.low or float(adversarial.max()) > self.high:
            raise RuntimeError(f"an attack left the range [{self.low}, {self.high}]")


def lengths(values: Tensor) -> Tensor:
    """Euclidean length of each sample of ``[N, ...]``, shape ``[N, 1, ...]``; without overflow of the squares."""
    flat = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return flat.view(-1, *[1] * (values.dim() - 1))
