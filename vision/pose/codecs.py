"""Codecs: joints in pixels to what a network is trained on, and what it answers back to joints.

Every codec maps a joint at :math:`x` of a crop of width :math:`W` to :math:`x (w - 1) / (W - 1)` on its own grid of
width :math:`w` (UDP, Huang et al., CVPR 2020, arXiv 1911.07524), so that a mirrored crop has a mirrored grid without
any shift. That the plain heatmap and SimCC use this mapping too is our choice.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vision.engine.errors import ConfigError
from vision.engine.registry import register

Targets = dict[str, Tensor]


class Codec(ABC):
    """Encodes joints of a batch, judges a network's output against them, and decodes it.

    Everything is batched and stays on the device of what it is given.

    Attributes:
        input_size: width and height of the crop in pixels.
    """

    def __init__(self, input_size: tuple[int, int]) -> None:
        if min(input_size) < 2:
            raise ConfigError(f"input_size: got {list(input_size)}, expected a width and a height above 1")
        self.input_size = (int(input_size[0]), int(input_size[1]))

    @abstractmethod
    def encode(self, keypoints: Tensor, visible: Tensor) -> Targets:
        """What the output should be.

        Args:
            keypoints: pixels of the crop, float, shape ``[N, K, 2]``, x before y.
            visible: above 0 where a joint is labelled, shape ``[N, K]``.

        Returns:
            Tensors; ``weight``, shape ``[N, K]``, is 0 for a joint that is not labelled or whose target lies outside.
        """

    @abstractmethod
    def loss(self, output: Any, targets: Targets) -> Tensor:
        """A scalar: the mean over the batch, in float32 whatever the output's precision.

        Raises:
            ConfigError: an output whose shape is not that of the targets.
        """

    @abstractmethod
    def flipped(self, output: Any, flip_index: Sequence[int]) -> Any:
        """The output for a mirrored crop as that of the crop itself: mirrored back, left and right joints swapped."""

    @abstractmethod
    def average(self, outputs: Sequence[Any]) -> Any:
        """The mean of several outputs for the same crops."""

    @abstractmethod
    def decode(self, output: Any) -> tuple[Tensor, Tensor]:
        """Joints and how sure the network is of them.

        Returns:
            Pixels of the crop, float32, shape ``[N, K, 2]``, and scores, shape ``[N, K]``.
        """

    def after(self) -> dict[str, Any]:
        """How the output is decoded, as plain JSON: the ``type`` of a decoding and its numbers, for an exported file.

        Raises:
            ConfigError: a codec that runs in PyTorch alone.
        """
        raise ConfigError(f"the codec '{type(self).__name__}' cannot be exported: it has no decoding without PyTorch")


class HeatmapCodec(Codec):
    r"""One map a joint: a Gaussian of height 1 at the joint's place :math:`m` on the map.

    .. math:: h(u) = \exp(-\|u - m\|^2 / 2 \sigma^2) \quad \text{where} \quad
        \|u - \mathrm{round}(m)\|_\infty \le 3 \sigma, \text{ else } 0

    Args:
        input_size: width and height of the crop.
        stride: pixels of the crop to one of the map; both sides must be multiples of it.
        sigma: pixels of the map; by default a 32nd of its longer side and at least 1: 2 for 48 x 64, 3 for 72 x 96.

    Attributes:
        size: width and height of a map.
        radius: of the Gaussian's window.

    Raises:
        ConfigError: a stride that does not divide the sides, or a sigma that is not above 0.
    """

    def __init__(self, input_size: tuple[int, int], stride: int = 4, sigma: float | None = None) -> None:
        super().__init__(input_size)
        if stride < 1 or any(side % stride or side // stride < 3 for side in self.input_size):
            raise ConfigError(
                f"stride: {stride} does not fit a crop of {self.input_size[0]} x {self.input_size[1]}; "
                "expected a divisor of both that leaves maps of at least 3 x 3"
            )
        self.size = (self.input_size[0] // stride, self.input_size[1] // stride)
        self.sigma = max(max(self.size) / 32, 1.0) if sigma is None else sigma
        if not self.sigma > 0:
            raise ConfigError(f"sigma: got {sigma}, expected pixels of the map, above 0")
        self.radius = math.floor(3 * self.sigma)

    def _step(self, like: Tensor) -> Tensor:
        """Pixels of the crop between two neighbours on the map, x and y."""
        steps = [(pixels - 1) / (cells - 1) for pixels, cells in zip(self.input_size, self.size, strict=True)]
        return torch.tensor(steps, dtype=like.dtype, device=like.device)

    def _profile(self, place: Tensor, cells: int) -> Tensor:
        """The Gaussian along one axis: places ``[N, K]`` to ``[N, K, cells]``."""
        grid = torch.arange(cells, dtype=place.dtype, device=place.device)
        inside = (grid - torch.floor(place[..., None] + 0.5)).abs() <= self.radius
        return torch.exp(-((grid - place[..., None]) ** 2) / (2 * self.sigma**2)) * inside

    def encode(self, keypoints: Tensor, visible: Tensor) -> Targets:
        """Targets ``heatmap``, shape ``[N, K, h, w]``, and ``weight``: 0 too where the whole window is outside."""
        labelled = visible > 0
        places = torch.where(labelled[..., None], keypoints / self._step(keypoints), -math.inf)
        across, down = (self._profile(places[..., axis], self.size[axis]) for axis in (0, 1))
        weight = labelled & across.any(-1) & down.any(-1)
        return {"heatmap": down[..., :, None] * across[..., None, :], "weight": weight.to(keypoints.dtype)}

    def loss(self, output: Tensor, targets: Targets) -> Tensor:
        r""":math:`\frac{1}{N K h w} \sum w_{nk} (\hat h - h)^2`, the weighted mean square; no sigmoid."""
        target, weight = targets["heatmap"], targets["weight"]
        if output.shape != target.shape:
            raise ConfigError(
                f"the network gives maps of {list(output.shape)}, the codec expects {list(target.shape)} "
                "(batch, joints, height, width); choose the codec's stride and the network's decoder to match"
            )
        return (weight[..., None, None] * (output.float() - target) ** 2).mean()

    def flipped(self, output: Tensor, flip_index: Sequence[int]) -> Tensor:
        """Mirrored, joints swapped; no shift, since the mapping keeps mirrored places mirrored."""
        return output.flip(-1)[:, list(flip_index)]

    def average(self, outputs: Sequence[Tensor]) -> Tensor:
        """The mean map."""
        return torch.stack(list(outputs)).mean(0)

    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Joints from maps ``[N, K, h, w]``: the highest pixel, refined; the score is its raw value."""
        maps = output.float()
        score, index = maps.flatten(2).max(-1)
        peak = torch.stack([index % maps.shape[-1], index // maps.shape[-1]], -1)
        return (peak + self._offset(maps, peak, score)) * self._step(maps), score

    @abstractmethod
    def _offset(self, maps: Tensor, peak: Tensor, score: Tensor) -> Tensor:
        """From the highest pixels ``[N, K, 2]`` to the joints, pixels of the map."""


@register("quarter_heatmap", kind="codec")
class QuarterHeatmap(HeatmapCodec):
    r"""Plain heatmaps: a quarter of a pixel from the highest one towards its higher neighbour, along each axis.

    .. math:: \hat m = u^* + \tfrac14 \, \mathrm{sign}\big(h(u^* + e) - h(u^* - e)\big), \quad
        u^* = \arg\max_u h(u)

    The offset along an axis is 0 where the peak lies on the map's border, across that axis. The decoder can name only
    quarters of a pixel, so that it is up to 0.25 px of the map away from an exact joint.

    Source: stacked hourglass networks (Newell et al., ECCV 2016), as in SimpleBaseline and HRNet. Deviation: the
    Gaussian is centred at the joint itself, not at the nearest pixel, which would lose up to half a pixel that no
    decoder can bring back.
    """

    def _offset(self, maps: Tensor, peak: Tensor, score: Tensor) -> Tensor:
        around = _neighbours(maps, peak)
        difference = torch.stack([around[..., 1, 2] - around[..., 1, 0], around[..., 2, 1] - around[..., 0, 1]], -1)
        inside = (peak > 0) & (peak < torch.tensor(self.size, device=peak.device) - 1)
        return 0.25 * difference.sign() * inside

    def after(self) -> dict[str, Any]:
        return {"type": "heatmap", "input_size": list(self.input_size)}


@register("udp_heatmap", kind="codec")
class UDPHeatmap(HeatmapCodec):
    r"""Heatmaps with distribution-aware decoding (DARK): one Newton step on the logarithm of the blurred map.

    .. math:: \hat m = u^* - (\nabla^2 L + \epsilon I)^{-1} \nabla L, \quad
        L = \log \mathrm{clip}(G * h, 10^{-3}, 50)

    with central differences at the highest pixel :math:`u^*`; the mixed derivative is that of the stencil of seven
    pixels. :math:`G` is a Gaussian kernel; beyond the map there are zeros, and the blurred map is brought back to the
    height of the raw one. A Gaussian's logarithm is a parabola, so that the step is exact without noise.

    Args:
        input_size: width and height of the crop.
        stride: pixels of the crop to one of the map.
        sigma: pixels of the map; by default a 32nd of its longer side and at least 1.
        blur: width of :math:`G` in pixels of the map, odd; 1 does not blur. By default the width whose standard
            deviation, :math:`0.3 ((b - 1) / 2 - 1) + 0.8`, is nearest to ``sigma``: 11 for 2, 17 for 3.

    Raises:
        ConfigError: as the heatmap codec, or a blur that is even or below 1.

    Source: DARK (Zhang et al., CVPR 2020, arXiv 1910.06278) in the form UDP uses. Deviations: (1) within two sigma of
    the border, zeros beyond it pull the blurred peak by up to a pixel, so that there the step is taken from the raw
    map, around the nearest pixel that is not on the border; (2) a step is not taken where the map has no peak (the
    Hessian is not negative definite) or leads further than the blur reaches, since the published step then throws the
    joint anywhere.
    """

    def __init__(
        self,
        input_size: tuple[int, int],
        stride: int = 4,
        sigma: float | None = None,
        blur: int | None = None,
    ) -> None:
        super().__init__(input_size, stride, sigma)
        if blur is not None and (blur < 1 or blur % 2 == 0):
            raise ConfigError(f"blur: got {blur}, expected an odd number of pixels of the map")
        self.blur = blur or 2 * max(round((self.sigma - 0.8) / 0.3 + 1), 0) + 1

    def _blurred(self, maps: Tensor, score: Tensor) -> Tensor:
        """The maps after a Gaussian, each brought back to its old peak."""
        if self.blur == 1:
            return maps
        reach = self.blur // 2
        places = torch.arange(-reach, reach + 1, dtype=maps.dtype, device=maps.device)
        kernel = torch.exp(-(places**2) / (2 * (0.3 * (reach - 1) + 0.8) ** 2))
        kernel = kernel / kernel.sum()
        flat = maps.flatten(0, 1)[:, None]
        flat = F.conv2d(flat, kernel[None, None, None], padding=(0, reach))
        flat = F.conv2d(flat, kernel[None, None, :, None], padding=(reach, 0))
        blurred = flat[:, 0].unflatten(0, maps.shape[:2])
        top = blurred.flatten(2).amax(-1)
        return blurred * (score / top.where(top > 0, 1))[..., None, None]

    def _offset(self, maps: Tensor, peak: Tensor, score: Tensor) -> Tensor:
        last = torch.tensor(self.size, device=peak.device) - 1
        margin = 2 * self.sigma
        near = ((peak < margin) | (peak > last - margin)).any(-1)
        centre = torch.minimum(peak.clamp(min=1), last - 1)
        around = torch.where(
            near[..., None, None], _neighbours(maps, centre), _neighbours(self._blurred(maps, score), centre)
        )
        step = _newton_step(around.clamp(1e-3, 50).log())
        moved = centre - peak + step
        taken = (step.abs() <= max(self.blur // 2, 2)).all(-1) & (step != 0).any(-1)
        return torch.where(taken[..., None], moved, 0)

    def after(self) -> dict[str, Any]:
        return {
            "type": "udp_heatmap",
            "input_size": list(self.input_size),
            "sigma": self.sigma,
            "blur": self.blur,
        }


def _neighbours(maps: Tensor, centre: Tensor) -> Tensor:
    """The 3 x 3 pixels around places ``[N, K, 2]`` of maps ``[N, K, h, w]``, as ``[N, K, 3, 3]``; borders repeat."""
    height, width = maps.shape[-2:]
    around = torch.arange(-1, 2, device=maps.device)
    columns = (centre[..., :1] + around).clamp(0, width - 1)
    rows = (centre[..., 1:] + around).clamp(0, height - 1)
    index = rows[..., :, None] * width + columns[..., None, :]
    return maps.flatten(2).gather(-1, index.flatten(2)).unflatten(-1, (3, 3))


def _newton_step(around: Tensor) -> Tensor:
    """From the middle of 3 x 3 values ``[..., 3, 3]`` to the top of their parabola, x and y; 0 where it has none."""
    eps = torch.finfo(around.dtype).eps
    middle, left, right = around[..., 1, 1], around[..., 1, 0], around[..., 1, 2]
    up, down = around[..., 0, 1], around[..., 2, 1]
    dx, dy = (right - left) / 2, (down - up) / 2
    dxx, dyy = right - 2 * middle + left + eps, down - 2 * middle + up + eps
    dxy = (around[..., 2, 2] - right - down + 2 * middle - left - up + around[..., 0, 0]) / 2
    determinant = dxx * dyy - dxy**2
    peaked = (determinant > 0) & (dxx < 0)
    safe = torch.where(peaked, determinant, 1)
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], -1) / safe[..., None]
    return torch.where(peaked[..., None], step, 0)
