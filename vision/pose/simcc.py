"""SimCC: a joint as two classifications, one along each axis (Li et al., ECCV 2022, arXiv 2107.03332)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vision.engine.errors import ConfigError
from vision.engine.registry import register
from vision.pose.codecs import Codec, Targets

Axes = tuple[Tensor, Tensor]


@register("simcc", kind="codec")
class SimCC(Codec):
    r"""Two rows of bins a joint, finer than the crop's pixels; each row holds a Gaussian of height 1.

    A network answers with logits :math:`z` of shape ``[N, K, X]`` and ``[N, K, Y]``. Their loss is the divergence of
    distributions sharpened by :math:`\beta`, summed over both axes, averaged over joints and batch:

    .. math:: w \, \mathrm{KL}\big(\mathrm{softmax}(\beta t) \,\|\, \mathrm{softmax}(\beta z)\big), \quad
        t(u) = \exp(-(u - m)^2 / 2 \sigma^2)

    A joint is decoded at the top of the parabola through the highest bin and its neighbours. Its score is the lower of
    the two axes' highest probability :math:`\max \mathrm{softmax}(\beta z)`, relative to that of a perfect answer, at
    most 1.

    Args:
        input_size: width and height of the crop.
        split: bins to a pixel.
        sigma: of the Gaussians in bins, x and y; by default :math:`\sqrt{W / 8}` and :math:`\sqrt{H / 8}` to two
            decimals: 4.9 and 5.66 for a crop of 192 x 256.
        beta: sharpens both distributions.

    Attributes:
        bins: of x and of y.

    Raises:
        ConfigError: a split below 1, or a sigma or beta that is not above 0.

    Source: SimCC, with the loss and the constants of RTMPose (arXiv 2303.07399). Deviations: bins map to pixels by
    ``(W - 1) / (X - 1)``, so that mirrored crops need no shift; the divergence is summed over the bins, not averaged;
    the parabola, where they take the highest bin; and the score, since logits are known only up to a constant.
    """

    def __init__(
        self,
        input_size: tuple[int, int],
        split: float = 2.0,
        sigma: tuple[float, float] | None = None,
        beta: float = 10.0,
    ) -> None:
        super().__init__(input_size)
        if not split >= 1:
            raise ConfigError(f"split: got {split}, expected at least 1 bin to a pixel")
        self.bins = (round(self.input_size[0] * split), round(self.input_size[1] * split))
        width, height = self.input_size
        self.sigma = sigma or (round(math.sqrt(width / 8), 2), round(math.sqrt(height / 8), 2))
        if not (min(self.sigma) > 0 and beta > 0):
            raise ConfigError(f"sigma and beta: got {list(self.sigma)} and {beta}, expected numbers above 0")
        self.beta = beta

    def _row(self, place: Tensor, axis: int) -> Tensor:
        """The Gaussian along one axis: places in bins, ``[N, K]``, to ``[N, K, bins]``."""
        grid = torch.arange(self.bins[axis], dtype=place.dtype, device=place.device)
        return torch.exp(-((grid - place[..., None]) ** 2) / (2 * self.sigma[axis] ** 2))

    def encode(self, keypoints: Tensor, visible: Tensor) -> Targets:
        """Targets ``x`` and ``y``, and ``weight``: 0 too for a joint three sigma or more outside the bins."""
        labelled = visible > 0
        pixels = torch.where(labelled[..., None], keypoints, 0)
        targets: Targets = {}
        for axis, name in enumerate("xy"):
            last = self.bins[axis] - 1
            place = pixels[..., axis] * (last / (self.input_size[axis] - 1))
            reach = 3 * self.sigma[axis]
            labelled = labelled & (place > -reach) & (place < last + reach)
            targets[name] = self._row(place, axis)
        weight = labelled.to(keypoints.dtype)
        return {name: target * weight[..., None] for name, target in targets.items()} | {"weight": weight}

    def loss(self, output: Axes, targets: Targets) -> Tensor:
        """The weighted divergence in nats, summed over the axes, averaged over joints and batch."""
        weight = targets["weight"]
        total = weight.new_zeros(())
        for logits, name in zip(output, "xy", strict=True):
            target = targets[name]
            if logits.shape != target.shape:
                raise ConfigError(
                    f"the network gives {list(logits.shape)} for {name}, the codec expects {list(target.shape)} "
                    "(batch, joints, bins); choose the codec's split and the network's decoder to match"
                )
            log_answer = F.log_softmax(self.beta * logits.float(), -1)
            log_truth = F.log_softmax(self.beta * target.float(), -1)
            divergence = F.kl_div(log_answer, log_truth, reduction="none", log_target=True).sum(-1)
            total = total + (weight * divergence).mean()
        return total

    def flipped(self, output: Axes, flip_index: Sequence[int]) -> Axes:
        """The row of x mirrored, joints of both rows swapped."""
        across, down = output
        order = list(flip_index)
        return across.flip(-1)[:, order], down[:, order]

    def average(self, outputs: Sequence[Axes]) -> Axes:
        """The mean logits of each row."""
        across, down = (torch.stack(list(rows)).mean(0) for rows in zip(*outputs, strict=True))
        return across, down

    def decode(self, output: Axes) -> tuple[Tensor, Tensor]:
        """Joints from logits ``[N, K, X]`` and ``[N, K, Y]``."""
        pixels, scores = [], []
        for axis, logits in enumerate(output):
            rows = logits.float()
            last = self.bins[axis] - 1
            pixels.append(_vertex(rows) * ((self.input_size[axis] - 1) / last))
            perfect = self._row(torch.tensor(float(last // 2), device=rows.device), axis)
            probability = (torch.softmax(self.beta * each, -1).amax(-1) for each in (rows, perfect))
            scores.append(next(probability) / next(probability))
        return torch.stack(pixels, -1), torch.minimum(*scores).clamp(max=1)

    def after(self) -> dict[str, Any]:
        return {
            "type": "simcc",
            "input_size": list(self.input_size),
            "bins": list(self.bins),
            "sigma": list(self.sigma),
            "beta": self.beta,
        }


def _vertex(rows: Tensor) -> Tensor:
    """Where the parabola through the highest of ``rows`` ``[..., bins]`` and its neighbours has its top."""
    last = rows.shape[-1] - 1
    middle = rows.argmax(-1, keepdim=True).clamp(1, last - 1)
    left, centre, right = (rows.gather(-1, middle + step)[..., 0] for step in (-1, 0, 1))
    curvature = left - 2 * centre + right
    peaked = curvature < 0
    offset = torch.where(peaked, (left - right) / (2 * curvature.where(peaked, -1)), 0)
    return (middle[..., 0] + offset.clamp(-1, 1)).clamp(0, last)
