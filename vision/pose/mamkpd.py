"""MamKPD: a top-down keypoint detector of selective scans (Dang et al., arXiv 2412.01422, December 2024).

An independent implementation of the design as its abstract describes it; the paper's body was not available to us.

Published: one crop a person; a stem of one convolution with kernel 7 and two depth-wise ones with kernel 3, whose
output has half the crop's size; three stages, each a contextual modelling module (CMM: depth-wise convolutions between
patches, linear layers within each) and several SS2D blocks; a simple decoder; a variant called L.

From VMamba's released code, exactly: the SS2D block (:mod:`vision.pose.ss2d`).

Our choice: everything else, that is strides, widths and depths, the variants T, S and B and the size of L, what a CMM
wires to what, norms, activations, the gate and the state size, the decoder, the initialisation.
"""

from itertools import pairwise
from typing import Annotated, Literal

import torch.nn.functional as F
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from vision.engine.errors import ConfigError
from vision.engine.registry import register
from vision.pose.decoders import build_decoder
from vision.pose.linear import linear
from vision.pose.network import PoseNetwork, channels_last, fold_batch_norms, nchw, nhwc
from vision.pose.ss2d import SS2D

DecoderName = Literal["deconv", "simple", "simcc"]
Chance = Annotated[float, Ge(0), Lt(1)]
Positive = Annotated[float, Gt(0)]

ENCODER_STRIDE = 16
CMM_EXPANSION = 4


def _depth_wise(channels: int, kernel: int, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=bias)


class Stem(nn.Module):
    r"""Convolution 7x7 of stride 2, then two depth-wise ones 3x3 with shortcuts: ``[N, 3, H, W]`` to half the size.

    .. math::
        x_0 &= \mathrm{GELU}(\mathrm{BN}(\mathrm{conv}_{7 \times 7}(x))) \\
        x_{i} &= x_{i-1} + \mathrm{GELU}(\mathrm{BN}(\mathrm{DW}_{3 \times 3}(x_{i-1}))), \qquad i = 1, 2

    It has ``171 d`` parameters for ``d`` output and 3 image channels.

    Source: kernels, their number and the output's size are published; norms, GELU, shortcuts and which convolution has
    the stride are our choice.
    """

    def __init__(self, in_channels: int, outputs: int) -> None:
        super().__init__()
        first = nn.Conv2d(in_channels, outputs, 7, stride=2, padding=3, bias=False)
        self.first = nn.Sequential(first, nn.BatchNorm2d(outputs), nn.GELU())
        self.further = nn.ModuleList(
            nn.Sequential(_depth_wise(outputs, 3), nn.BatchNorm2d(outputs), nn.GELU()) for _ in range(2)
        )

    def forward(self, images: Tensor) -> Tensor:
        """``[N, in_channels, H, W] -> [N, outputs, ceil(H / 2), ceil(W / 2)]``."""
        x = self.first(channels_last(images))
        for layer in self.further:
            x = x + layer(x)
        return x

    def deploy(self) -> None:
        """Folds the batch norms into their convolutions."""
        for layers in (self.first, *self.further):
            assert isinstance(layers, nn.Sequential)
            fold_batch_norms(layers)


class CMM(nn.Module):
    r"""Contextual modelling module: first between patches, then within each.

    .. math::
        u &= x + \mathrm{BN}(\mathrm{DW}_{3 \times 3}(x)) + \mathrm{BN}(\mathrm{DW}_{7 \times 7}(x)) \\
        y &= u + W_2 \, \mathrm{GELU}(W_1 \, \mathrm{LN}(u) + b_1) + b_2, \qquad W_1: C \to 4C

    It has ``8 C^2 + 69 C`` parameters. Deployed, the identity and both branches of u are one depth-wise convolution.

    Source: depth-wise convolutions between patches and linear layers within them are published; the kernels, the two
    branches, the expansion, norms and shortcuts are our choice.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.near = nn.Sequential(_depth_wise(channels, 3), nn.BatchNorm2d(channels))
        self.far = nn.Sequential(_depth_wise(channels, 7), nn.BatchNorm2d(channels))
        self.between: nn.Conv2d | None = None
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, CMM_EXPANSION * channels)
        self.reduce = nn.Linear(CMM_EXPANSION * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, H, W, C]`` to the same shape."""
        image = nchw(x)
        u = nhwc(image + self.near(image) + self.far(image) if self.between is None else self.between(image))
        hidden = linear(self.norm(u), self.expand.weight, self.expand.bias, "gelu")
        return u + linear(hidden, self.reduce.weight, self.reduce.bias)

    def deploy(self) -> None:
        """Makes one biased depth-wise convolution of the identity and the two branches."""
        if self.between is not None:
            return
        fold_batch_norms(self.near)
        fold_batch_norms(self.far)
        near, far = self.near[0], self.far[0]
        assert isinstance(near, nn.Conv2d) and isinstance(far, nn.Conv2d)
        assert near.bias is not None and far.bias is not None
        far.weight.data += F.pad(near.weight.data, (2, 2, 2, 2))
        far.weight.data[:, :, 3, 3] += 1  # the identity
        far.bias.data += near.bias.data
        self.between = far
        del self.near, self.far


class SS2DBlock(nn.Module):
    r"""SS2D with norm and shortcut, :math:`y = x + \mathrm{SS2D}(\mathrm{LN}(x))`; then, if any, a feed-forward block.

    Args:
        channels: C.
        state_size: of the scan.
        ratio: inner channels of the scan over C.
        gate: whether the scan's output is gated.
        mlp_ratio: hidden channels of the feed-forward block over C; no such block at 0.
        drop_path: share of samples whose residual is left out in training.

    Source: the VSS block of VMamba, which has no feed-forward block in its first release.
    """

    def __init__(
        self, channels: int, state_size: int, ratio: float, gate: bool, mlp_ratio: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.mix = SS2D(channels, state_size, ratio, gate)
        self.mlp: nn.Sequential | None = None
        if hidden := round(mlp_ratio * channels):
            layers = (nn.LayerNorm(channels), nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))
            self.mlp = nn.Sequential(*layers)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        """``[N, H, W, C]`` to the same shape."""
        x = x + self.drop_path(self.mix(self.norm(x)))
        return x if self.mlp is None else x + self.drop_path(self.mlp(x))


class Stage(nn.Module):
    """Half the size, then one :class:`CMM` and several :class:`SS2DBlock`.

    Source: one CMM and several SS2D blocks are published; the 3x3 convolution of stride 2 and its norm are our choice.
    """

    def __init__(self, inputs: int, outputs: int, blocks: list[SS2DBlock]) -> None:
        super().__init__()
        self.down = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.norm = nn.LayerNorm(outputs)
        self.cmm = CMM(outputs)
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W] -> [N, outputs, ceil(H / 2), ceil(W / 2)]``, in channels-last memory."""
        return nchw(self.blocks(self.cmm(self.norm(nhwc(self.down(x))))))


class MamKPD(PoseNetwork):
    """Stem, three stages of CMM and SS2D blocks down to a sixteenth of the crop's size, norm, decoder.

    Args:
        stem: channels of the stem.
        widths: channels of the stages.
        depths: SS2D blocks of the stages.
        hidden: channels of the deconv decoder.
        keypoints: K.
        input_size: width and height of a crop in pixels.
        decoder: ``deconv``, ``simple`` or ``simcc``.
        state_size: S of the scans.
        ratio: inner channels of the scans over those of the stage.
        gate: whether scans are gated.
        mlp_ratio: of a feed-forward block after each scan; none at 0.
        drop_path: share of residuals that training leaves out in the last block, rising linearly from 0 in the first.
        in_channels: channels of the image.
        weights: file of weights of a MamKPD to begin training from, whatever its joints and input size.

    Raises:
        ConfigError: settings out of range.

    Source: see the module; the numbers of every variant are our choice.
    """

    def __init__(
        self,
        stem: int,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        hidden: int,
        keypoints: int,
        input_size: tuple[int, int],
        decoder: DecoderName,
        state_size: int,
        ratio: float,
        gate: bool,
        mlp_ratio: float,
        drop_path: float,
        in_channels: int,
        weights: str | None,
    ) -> None:
        if not 0 <= drop_path < 1 or mlp_ratio < 0:
            raise ConfigError(f"drop_path {drop_path:g} is to be in [0, 1), mlp_ratio {mlp_ratio:g} 0 or more")
        head = build_decoder(decoder, widths[-1], ENCODER_STRIDE, keypoints, input_size, hidden)
        super().__init__(head, input_size, in_channels, weights)
        self.stem = Stem(in_channels, stem)
        rates = iter([drop_path * i / max(sum(depths) - 1, 1) for i in range(sum(depths))])
        self.stages = nn.Sequential()
        for (inputs, outputs), depth in zip(pairwise((stem, *widths)), depths, strict=True):
            blocks = [SS2DBlock(outputs, state_size, ratio, gate, mlp_ratio, next(rates)) for _ in range(depth)]
            self.stages.append(Stage(inputs, outputs, blocks))
        self.norm = nn.LayerNorm(widths[-1])
        for module in (self.stem, self.stages):
            _initialise_linear(module)

    def features(self, images: Tensor) -> Tensor:
        """``[N, in_channels, H, W] -> [N, C, ceil(H / 16), ceil(W / 16)]``, in channels-last memory."""
        return nchw(self.norm(nhwc(self.stages(self.stem(images)))))


def _initialise_linear(network: nn.Module) -> None:
    """VMamba's: truncated normal weights and no bias in linear layers; convolutions keep PyTorch's initialisation."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


_ARGUMENTS = """

    Args:
        keypoints: K, joints of the skeleton.
        input_size: width and height of a crop in pixels; other sizes are taken too, but not by ``simcc``.
        decoder: ``deconv`` or ``simple`` (heatmaps), or ``simcc`` (bins along each axis).
        state_size: states of a channel in the scans.
        ratio: inner channels of the scans over those of the stage.
        gate: whether scans are gated.
        mlp_ratio: hidden channels of a feed-forward block after each scan over those of the stage; none at 0.
        drop_path: share of residuals that training leaves out in the last block, rising linearly from 0 in the first.
        in_channels: channels of the image.
        weights: file of weights of this network to begin training from, whatever its joints and input size.
"""


@register("mamkpd_t")
def mamkpd_t(
    keypoints: int = 17,
    input_size: tuple[int, int] = (192, 256),
    decoder: DecoderName = "deconv",
    state_size: int = 1,
    ratio: Positive = 2.0,
    gate: bool = True,
    mlp_ratio: Annotated[float, Ge(0)] = 0.0,
    drop_path: Chance = 0.1,
    in_channels: int = 3,
    weights: str | None = None,
) -> MamKPD:
    """MamKPD-T: 1,185,697 parameters and 0.452 GMAC at 192x256 with 17 keypoints; a size of our choice."""
    options = (keypoints, input_size, decoder, state_size, ratio, gate, mlp_ratio, drop_path, in_channels, weights)
    return MamKPD(16, (32, 64, 128), (2, 2, 5), 64, *options)


@register("mamkpd_s")
def mamkpd_s(
    keypoints: int = 17,
    input_size: tuple[int, int] = (192, 256),
    decoder: DecoderName = "deconv",
    state_size: int = 1,
    ratio: Positive = 2.0,
    gate: bool = True,
    mlp_ratio: Annotated[float, Ge(0)] = 0.0,
    drop_path: Chance = 0.1,
    in_channels: int = 3,
    weights: str | None = None,
) -> MamKPD:
    """MamKPD-S: 3,366,537 parameters and 1.181 GMAC at 192x256 with 17 keypoints; a size of our choice."""
    options = (keypoints, input_size, decoder, state_size, ratio, gate, mlp_ratio, drop_path, in_channels, weights)
    return MamKPD(24, (48, 96, 192), (2, 2, 7), 128, *options)


@register("mamkpd_b")
def mamkpd_b(
    keypoints: int = 17,
    input_size: tuple[int, int] = (192, 256),
    decoder: DecoderName = "deconv",
    state_size: int = 1,
    ratio: Positive = 2.0,
    gate: bool = True,
    mlp_ratio: Annotated[float, Ge(0)] = 0.0,
    drop_path: Chance = 0.1,
    in_channels: int = 3,
    weights: str | None = None,
) -> MamKPD:
    """MamKPD-B: 6,134,897 parameters and 2.171 GMAC at 192x256 with 17 keypoints; a size of our choice."""
    options = (keypoints, input_size, decoder, state_size, ratio, gate, mlp_ratio, drop_path, in_channels, weights)
    return MamKPD(32, (64, 128, 256), (2, 2, 7), 192, *options)


@register("mamkpd_l")
def mamkpd_l(
    keypoints: int = 17,
    input_size: tuple[int, int] = (192, 256),
    decoder: DecoderName = "deconv",
    state_size: int = 1,
    ratio: Positive = 2.0,
    gate: bool = True,
    mlp_ratio: Annotated[float, Ge(0)] = 0.0,
    drop_path: Chance = 0.2,
    in_channels: int = 3,
    weights: str | None = None,
) -> MamKPD:
    """MamKPD-L: 13,188,609 parameters and 4.537 GMAC at 192x256 with 17 keypoints; only the name is published."""
    options = (keypoints, input_size, decoder, state_size, ratio, gate, mlp_ratio, drop_path, in_channels, weights)
    return MamKPD(48, (96, 192, 384), (2, 2, 7), 256, *options)


for _variant in (mamkpd_t, mamkpd_s, mamkpd_b, mamkpd_l):
    _variant.__doc__ = (_variant.__doc__ or "") + _ARGUMENTS
