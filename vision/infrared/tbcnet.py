"""TBC-Net: infrared small-target extraction with a semantic constraint (Zhao et al., arXiv 2001.05852).

Published: two modules, a target extraction module (TEM) that runs alone at inference and a semantic constraint module
(SCM) that is trained first, frozen, and then classifies the extracted target image while the TEM trains; a light
encoder-decoder with residual connections, max pooling and nearest-neighbour up-sampling. Our choice, because the full
text was not available to us: every channel count, the classes of the SCM (a count of targets), the normalisation.
"""

from itertools import pairwise
from types import MethodType
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision.engine.registry import register
from vision.infrared.targets import SMALLEST_SIDE

Module = TypeVar("Module", bound=nn.Module)

TEM_CHANNELS: dict[str, tuple[int, int, int, int]] = {"lite": (8, 16, 32, 64), "std": (16, 32, 64, 128)}
LEAK = 0.1

# Mean and standard deviation of gray values in [0, 1], as published by the BasicIRSTD benchmark on 0..255.
DATASET_STATISTICS: dict[str, tuple[float, float]] = {
    "sirst": (101.064 / 255, 34.620 / 255),
    "nudt_sirst": (107.809 / 255, 33.023 / 255),
    "irstd_1k": (87.466 / 255, 39.720 / 255),
}


def normalise(
    image: Tensor,
    mode: Literal["image", "dataset"] = "image",
    mean: float | None = None,
    std: float | None = None,
) -> Tensor:
    r"""Zero-centre an image by its own statistics or by fixed ones.

    .. math:: \hat x = (x - \mu) / \max(\sigma, 10^{-3})

    Args:
        image: float, shape ``[..., H, W]``, values in [0, 1]; each ``[H, W]`` plane is one image.
        mode: ``image`` takes the plane's own mean and (population) standard deviation, which is robust to the range
            of the sensor; ``dataset`` takes ``mean`` and ``std``.
        mean: fixed mean in [0, 1]; only for ``dataset`` (see :data:`DATASET_STATISTICS`).
        std: fixed standard deviation in [0, 1]; only for ``dataset``.

    Returns:
        Float tensor of the image's shape.

    Raises:
        ValueError: an unknown mode, or ``dataset`` without both statistics.

    Source: our choice; the fixed statistics are those of BasicIRSTD.

    Example:
        >>> normalise(torch.tensor([[0.0, 1.0]]))
        tensor([[-1.,  1.]])
    """
    if mode == "image":
        deviation, average = torch.std_mean(image, dim=(-2, -1), correction=0, keepdim=True)
        return (image - average) / deviation.clamp_min(1e-3)
    if mode != "dataset":
        raise ValueError(f"normalisation mode: got {mode!r}, expected 'image' or 'dataset'")
    if mean is None or std is None:
        raise ValueError("normalisation mode 'dataset' needs mean and std; see DATASET_STATISTICS for published ones")
    return (image - mean) / max(std, 1e-3)


def with_high_pass(image: Tensor, sigma: float = 5.0) -> Tensor:
    r"""Append the high-pass channel :math:`x - G_\sigma * x`, edges replicated.

    Args:
        image: float, shape ``[..., 1, H, W]``.
        sigma: standard deviation of the Gaussian in pixels; the kernel reaches ``4 sigma``.

    Returns:
        Float tensor of shape ``[..., 2, H, W]``, for a network with ``in_channels=2``.

    Source: our choice.
    """
    radius = round(4 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.softmax(-(offsets**2) / (2 * sigma**2), dim=0)
    planes = image.reshape(-1, 1, *image.shape[-2:])
    padded = F.pad(planes, (radius, radius, radius, radius), mode="replicate")
    low = F.conv2d(F.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return torch.cat((image, image - low.view_as(image)), dim=-3)


def _conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class ConvBlock(nn.Sequential):
    """Convolution (no bias), batch norm, leaky ReLU (slope 0.1): ``[N, C, H, W] -> [N, outputs, H / stride, ...]``."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(*_conv_norm(inputs, outputs, kernel, stride), nn.LeakyReLU(LEAK))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a skip that is the identity, or a 1x1 convolution where the channels change."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvBlock(inputs, outputs, 3), *_conv_norm(outputs, outputs, 3))
        self.skip = nn.Identity() if inputs == outputs else nn.Sequential(*_conv_norm(inputs, outputs, 1))
        self.activation = nn.LeakyReLU(LEAK)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W] -> [N, outputs, H, W]``."""
        return self.activation(self.skip(x) + self.body(x))


class DecoderBlock(nn.Module):
    """Up-sample by 2, reduce the channels, add the encoder's features, and refine."""

    def __init__(self, inputs: int, outputs: int, upsample: str) -> None:
        super().__init__()
        self.resize = _upsampler(inputs, upsample)
        self.reduce = ConvBlock(inputs, outputs, 3)
        self.refine = ResidualBlock(outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """``x [N, inputs, H, W]`` and ``skip [N, outputs, 2H, 2W]`` to ``[N, outputs, 2H, 2W]``."""
        return self.refine(self.reduce(self.resize(x)) + skip)


def _upsampler(channels: int, kind: str) -> nn.Module:
    if kind == "nearest":
        return nn.Upsample(scale_factor=2, mode="nearest")
    if kind == "bilinear":
        return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    if kind == "transposed":
        return nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
    raise ValueError(f"upsample: got {kind!r}, expected 'nearest', 'bilinear' or 'transposed'")


def _downsampler(channels: int, kind: str) -> nn.Module:
    if kind == "max":
        return nn.MaxPool2d(2)
    if kind == "stride":
        return ConvBlock(channels, channels, 3, stride=2)
    raise ValueError(f"downsample: got {kind!r}, expected 'max' or 'stride'")


@register("tbcnet")
class TBCNet(nn.Module):
    """Target extraction module (TEM): the part of TBC-Net that runs at inference.

    Four levels of residual blocks, skips by addition, and a 1x1 head whose negative bias starts training at
    "background" (prior 0.12 at -2, 0.018 at -4). An image whose sides are no multiple of 8 is padded to the right and
    bottom by reflection and the output is cropped, so output and input have one size.

    Args:
        tem: width; ``lite`` has 125,937 parameters and 0.71 GMAC at 256x256, ``std`` 501,473 and 2.83 GMAC.
        in_channels: 1, or 2 with the high-pass channel (:func:`with_high_pass`).
        head_bias: initial bias of the head, a logit.
        upsample: ``nearest`` as published (no checkerboard artefacts); the others are for ablation.
        downsample: ``max`` as published; ``stride`` is for ablation.

    Source: the structure is published; the widths, the number of levels and the head bias are our choice.
    """

    def __init__(
        self,
        tem: Literal["lite", "std"] = "lite",
        in_channels: int = 1,
        head_bias: float = -2.0,
        upsample: Literal["nearest", "bilinear", "transposed"] = "nearest",
        downsample: Literal["max", "stride"] = "max",
    ) -> None:
        super().__init__()
        if tem not in TEM_CHANNELS:
            raise ValueError(f"tem: got {tem!r}, expected one of {', '.join(TEM_CHANNELS)}")
        widths = TEM_CHANNELS[tem]
        steps = list(pairwise(widths))
        self.in_channels = in_channels
        self.stride = 2 ** len(steps)
        self.stem = ConvBlock(in_channels, widths[0], 3)
        self.encoder = nn.ModuleList([ResidualBlock(widths[0], widths[0])] + [ResidualBlock(i, o) for i, o in steps])
        self.downsample = nn.ModuleList(_downsampler(i, downsample) for i, _ in steps)
        self.decoder = nn.ModuleList(DecoderBlock(o, i, upsample) for i, o in reversed(steps))
        self.head = nn.Conv2d(widths[0], 1, 1)
        nn.init.constant_(self.head.bias, head_bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Logits of "this pixel belongs to a target".

        Args:
            x: normalised image (:func:`normalise`), float, shape ``[N, C, H, W]`` with ``H, W >= 16``.

        Returns:
            Logits of shape ``[N, 1, H, W]``.

        Raises:
            ValueError: a side below 16 pixels.
        """
        height, width = x.shape[-2:]
        if not torch.compiler.is_compiling() and min(height, width) < SMALLEST_SIDE:
            raise ValueError(f"image of {height}x{width} pixels: TBC-Net needs at least {SMALLEST_SIDE} on each side")
        h = F.pad(x, (0, -width % self.stride, 0, -height % self.stride), mode="reflect")
        h = self.encoder[0](self.stem(h))
        skips = []
        for down, block in zip(self.downsample, self.encoder[1:], strict=True):
            skips.append(h)
            h = block(down(h))
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            h = block(h, skip)
        return self.head(h).narrow(2, 0, height).narrow(3, 0, width)

    def probability(self, x: Tensor) -> Tensor:
        """The target image: ``sigmoid(self(x))``, shape ``[N, 1, H, W]``, values in [0, 1]."""
        return self(x).sigmoid()


@register("scm")
class SCM(nn.Module):
    """Semantic constraint module: classifies a target image by the number of targets in it.

    Features are summed over the image, not averaged, because a count is additive; ``log1p`` tames the sum. The last
    class means "this many or more": with 5 classes 0, 1, 2, 3, >= 4; with 2 classes absence and presence.

    Args:
        classes: number of classes, at least 2; 5 gives 63,749 parameters.

    Source: the module and its place are published; the classes and layers are our choice.
    """

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"classes: got {classes}, expected at least 2 (2: presence, 5: 0 to 'four or more')")
        self.classes = classes
        widths = (1, 16, 32, 64, 64)
        stages = (nn.Sequential(ConvBlock(i, o, 3), nn.MaxPool2d(2)) for i, o in pairwise(widths))
        self.features = nn.Sequential(*stages, ConvBlock(64, 32, 1), nn.Conv2d(32, 16, 1), nn.Sigmoid())
        self.classifier = nn.Sequential(nn.Linear(16, 32), nn.LeakyReLU(LEAK), nn.Linear(32, classes))

    def forward(self, target_image: Tensor) -> Tensor:
        """Class logits ``[N, classes]`` of target images ``[N, 1, H, W]`` in [0, 1], ``H, W >= 16``."""
        return self.classifier(self.features(target_image).sum(dim=(-2, -1)).log1p())

    def label(self, count: Tensor) -> Tensor:
        """Class of a number of targets: ``min(count, classes - 1)``; int64 in, int64 out, any shape."""
        return count.clamp(max=self.classes - 1)


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    """Stands in for ``nn.Module.train`` on a frozen module: whatever the parent asks, nothing changes."""
    return module


def freeze(module: Module) -> Module:
    """Freeze a module in place and for good: no parameter gradient, and evaluation mode whatever a parent does.

    Batch norm keeps its running statistics because ``train()`` on the module no longer has an effect. Gradients still
    flow through the module to its input.

    Args:
        module: any module, for example a pre-trained :class:`SCM`.

    Returns:
        The same module.
    """
    module.eval()
    module.requires_grad_(False)
    module.__dict__["train"] = MethodType(_stay_in_eval, module)
    return module
