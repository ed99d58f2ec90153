"""Decoders: from a map of features to heatmaps or to coordinate bins. The same ones stand behind every network."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vision.engine.errors import ConfigError

DecoderName = Literal["deconv", "simple", "simcc"]
Output = Tensor | tuple[Tensor, Tensor]

STRIDE = 4
"""Image pixels from one cell of a heatmap to the next."""

BINS_A_PIXEL = 2
LAST_STD = 1e-3


class Decoder(nn.Module):
    """What turns features into an output for every keypoint.

    Attributes:
        keypoints: K.
    """

    keypoints: int

    def __call__(self, features: Tensor) -> Output:
        """The output for features ``[N, C, h, w]``."""
        output: Output = super().__call__(features)
        return output


def _ups(stride: int) -> int:
    """How many doublings lead from features to heatmaps."""
    ups = round(math.log2(max(stride, 1) / STRIDE))
    if ups < 0 or STRIDE << ups != stride:
        raise ConfigError(f"features of stride {stride} cannot be decoded; expected 4, 8, 16 or 32 pixels")
    return ups


def _initialise(layers: nn.Module) -> None:
    """Small normal weights, as SimpleBaseline and ViTPose begin with."""
    for module in layers.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=LAST_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Doubling(nn.Module):
    """Transposed convolution 4x4 of stride 2 (no bias), batch norm, ReLU: ``[N, C, h, w] -> [N, outputs, 2h, 2w]``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Twice the size."""
        return F.relu(self.norm(self.conv(x)), inplace=not torch.is_grad_enabled())

    def deploy(self) -> None:
        """Folds the batch norm into the transposed convolution."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm, transpose=True)
            self.norm = nn.Identity()


class DeconvDecoder(Decoder):
    """Doublings by transposed convolutions to a quarter of the image's size, then a 1x1 convolution.

    From stride 16 with ``hidden`` h it has ``16 C h + 2 h + 16 h^2 + 2 h + K h + K`` parameters; from stride 32 one
    doubling more; at stride 4 only the 1x1 convolution is left.

    Args:
        channels: C of the features.
        stride: of the features: 4, 8, 16 or 32.
        keypoints: K.
        hidden: channels of each doubling.

    Raises:
        ConfigError: another stride.

    Source: Xiao, Wu & Wei, "Simple Baselines for Human Pose Estimation and Tracking", ECCV 2018; "classic" in ViTPose.
    """

    def __init__(self, channels: int, stride: int, keypoints: int, hidden: int = 256) -> None:
        super().__init__()
        self.keypoints = keypoints
        ups = _ups(stride)
        self.doublings = nn.Sequential(*(Doubling(channels if i == 0 else hidden, hidden) for i in range(ups)))
        self.last = nn.Conv2d(hidden if ups else channels, keypoints, 1)
        _initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        """Heatmaps ``[N, K, h * stride / 4, w * stride / 4]``."""
        return self.last(self.doublings(features))


class SimpleDecoder(Decoder):
    """ReLU, bilinear enlargement to a quarter of the image's size, and a 3x3 convolution: ``9 C K + K`` parameters.

    Args:
        channels: C of the features.
        stride: of the features: 4, 8, 16 or 32.
        keypoints: K.

    Raises:
        ConfigError: another stride.

    Source: the "simple" decoder of ViTPose (Xu et al., NeurIPS 2022).
    """

    def __init__(self, channels: int, stride: int, keypoints: int) -> None:
        super().__init__()
        self.keypoints, self.factor = keypoints, 2 ** _ups(stride)
        self.last = nn.Conv2d(channels, keypoints, 3, padding=1)
        _initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        """Heatmaps ``[N, K, h * stride / 4, w * stride / 4]``."""
        x = F.relu(features)
        if self.factor > 1:
            x = F.interpolate(x, scale_factor=float(self.factor), mode="bilinear", align_corners=False)
        return self.last(x)


class ScaleNorm(nn.Module):
    r"""A vector brought to one length that is learned: :math:`g \sqrt{D} \, x / \max(|x|, 10^{-5} \sqrt{D})`.

    Source: Nguyen & Salazar 2019, in the form of the gated attention unit.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = width**-0.5
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D]`` to the same shape."""
        return x / (x.norm(dim=-1, keepdim=True) * self.scale).clamp_min(1e-5) * self.gain


class GatedAttention(nn.Module):
    r"""A gated attention unit over the keypoints, with a scaled shortcut.

    .. math::
        (u, v, s) &= \mathrm{silu}(W \, \mathrm{norm}(x)), \qquad q, k = s \odot \gamma_{q,k} + \beta_{q,k} \\
        y &= g \odot x + W_o \bigl(u \odot \mathrm{relu}(q k^T / \sqrt{s})^2 v\bigr)

    Args:
        width: D of a token.
        shared: width of queries and keys.
        expansion: width of u and v, in D.

    Source: Hua et al., "Transformer Quality in Linear Time", ICML 2022, as RTMPose uses it (arXiv 2303.07399).
    """

    def __init__(self, width: int, shared: int = 128, expansion: int = 2) -> None:
        super().__init__()
        inner = expansion * width
        self.widths = (inner, inner, shared)
        self.norm = ScaleNorm(width)
        self.into = nn.Linear(width, sum(self.widths), bias=False)
        self.gamma = nn.Parameter(torch.rand(2, shared))
        self.beta = nn.Parameter(torch.rand(2, shared))
        self.out = nn.Linear(inner, width, bias=False)
        self.shortcut = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, K, D]`` to the same shape."""
        u, v, shared = F.silu(self.into(self.norm(x))).split(self.widths, dim=-1)
        query, key = (shared.unsqueeze(-2) * self.gamma + self.beta).unbind(-2)
        attention = F.relu(query @ key.transpose(-1, -2) * shared.shape[-1] ** -0.5).square()
        return x * self.shortcut + self.out(u * (attention @ v))


class SimCCDecoder(Decoder):
    """A map for each keypoint, flattened to a token, and two classifications: of its column and of its row.

    Convolution 7x7 to K channels, norm and linear layer of the flattened maps, one gated attention unit over the
    keypoints, a linear layer for each axis with two bins a pixel.

    Args:
        channels: C of the features.
        size: w, h of the features.
        keypoints: K.
        input_size: W, H of the crop in pixels.
        hidden: width of a token.

    Source: the head of RTMPose (Jiang et al., arXiv 2303.07399) for SimCC (Li et al., ECCV 2022).
    """

    def __init__(
        self, channels: int, size: tuple[int, int], keypoints: int, input_size: tuple[int, int], hidden: int = 256
    ) -> None:
        super().__init__()
        self.keypoints, self.size, self.input_size = keypoints, size, input_size
        self.maps = nn.Conv2d(channels, keypoints, 7, padding=3)
        self.token = nn.Sequential(ScaleNorm(size[0] * size[1]), nn.Linear(size[0] * size[1], hidden, bias=False))
        self.attention = GatedAttention(hidden)
        self.columns = nn.Linear(hidden, BINS_A_PIXEL * input_size[0], bias=False)
        self.rows = nn.Linear(hidden, BINS_A_PIXEL * input_size[1], bias=False)
        nn.init.normal_(self.columns.weight, std=0.01)
        nn.init.normal_(self.rows.weight, std=0.01)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of columns ``[N, K, 2 W]`` and rows ``[N, K, 2 H]``.

        Raises:
            ConfigError: features of another size than those of the crops it was made for.
        """
        if (features.shape[-1], features.shape[-2]) != self.size:
            raise ConfigError(
                f"the simcc decoder was made for crops of {self.input_size[0]}x{self.input_size[1]} pixels (width x "
                f"height), whose features have {self.size[0]}x{self.size[1]} cells; got "
                f"{features.shape[-1]}x{features.shape[-2]}: crop to that size, or use a heatmap decoder"
            )
        tokens = self.attention(self.token(self.maps(features).flatten(2)))
        return self.columns(tokens), self.rows(tokens)


def build_decoder(
    kind: DecoderName,
    channels: int,
    stride: int,
    keypoints: int,
    input_size: tuple[int, int],
    hidden: int = 256,
    size: tuple[int, int] | None = None,
) -> Decoder:
    """A decoder by its name.

    Args:
        kind: ``deconv``, ``simple`` or ``simcc``.
        channels: C of the features.
        stride: of the features, image pixels: 4, 8, 16 or 32.
        keypoints: K.
        input_size: W, H of a crop in pixels; only ``simcc`` depends on it.
        hidden: channels of the ``deconv`` decoder's doublings.
        size: w, h of the features of such a crop; without it every started cell counts.

    Raises:
        ConfigError: an unknown name, no keypoint, or a stride that has no decoder.
    """
    if keypoints < 1:
        raise ConfigError(f"keypoints: {keypoints}, expected 1 or more")
    if kind == "deconv":
        return DeconvDecoder(channels, stride, keypoints, hidden)
    if kind == "simple":
        return SimpleDecoder(channels, stride, keypoints)
    if kind == "simcc":
        width, height = size or (-(-side // stride) for side in input_size)
        return SimCCDecoder(channels, (width, height), keypoints, input_size)
    raise ConfigError(f"decoder: got {kind!r}, expected 'deconv', 'simple' or 'simcc'")
