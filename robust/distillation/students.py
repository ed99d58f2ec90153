"""Networks of the usual teacher-student pairs that the classification package does not carry: light and plain ones."""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from robust.distillation.taps import Taps
from vision.classification import CifarResNet
from vision.classification.initialise import initialise
from vision.engine.registry import register


def _conv(inputs: int, outputs: int, size: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False)


def _conv_norm(inputs: int, outputs: int, size: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [_conv(inputs, outputs, size, stride, groups), nn.BatchNorm2d(outputs)]


class StagedNetwork(nn.Module):
    """A stem, stages, the mean over the image and a linear layer.

    Args:
        stem: before the stages.
        stages: one after another.
        width: channels after the last.
        classes: C, how many logits.
        preactivations: paths of what the last ReLU of each stage is given, where they have one.
        read: how many stages distillers read, from the first.

    Attributes:
        num_classes: C.
        taps: what distillers read.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: list[nn.Module],
        width: int,
        classes: int,
        preactivations: tuple[str, ...] = (),
        read: int = 3,
    ) -> None:
        super().__init__()
        self.num_classes = classes
        self.stem, self.stages = stem, nn.Sequential(*stages)
        self.linear = nn.Linear(width, classes)
        self.taps = Taps(tuple(f"stages.{i}" for i in range(read)), "linear:input", "stem", preactivations)
        initialise(self)

    def features(self, images: Tensor) -> Tensor:
        """The vector before the linear layer: ``[N, in_channels, H, W]`` to ``[N, D]``."""
        return self.stages(self.stem(images)).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[N, C]`` of images ``[N, in_channels, H, W]``."""
        return self.linear(self.features(images))


@register("small_resnet")
def small_resnet(depth: Literal[8, 14] = 8, classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-8 and -14 for 32x32 images, shallow students: widths 16, 32, 64 and projections as shortcuts.

    Args:
        depth: 6 n + 2 for n blocks in each stage; for 20 and more take ``cifar_resnet`` with ``shortcut: B``.
        classes: how many logits.
        in_channels: channels of the image.

    Source: Tian, Krishnan & Isola 2020, arXiv 1910.10699.
    """
    return CifarResNet(16, (16, 32, 64), (depth - 2) // 6, "B", classes, in_channels)


_VGG = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


@register("vgg")
def vgg(depth: Literal[8, 11, 13, 16, 19] = 8, classes: int = 100, in_channels: int = 3) -> StagedNetwork:
    """VGG with BatchNorm and one linear layer for 32x32 images; 3,965,028 parameters at depth 8 and 100 classes.

    Five stages of 64, 128, 256, 512 and 512 channels; each but the last two ends by halving the image. Distillers read
    the last four, and the first as the stem.

    Args:
        depth: convolutions and linear layers, counting three linear ones.
        classes: how many logits.
        in_channels: channels of the image.

    Source: Simonyan & Zisserman 2015, arXiv 1409.1556; the form of arXiv 1910.10699.
    """
    stages: list[nn.Module] = []
    inputs = in_channels
    for place, (width, count) in enumerate(zip((64, 128, 256, 512, 512), _VGG[depth], strict=True)):
        layers: list[nn.Module] = [] if place in (0, 4) else [nn.MaxPool2d(2)]
        for _ in range(count):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
        stages.append(nn.Sequential(*layers))
    network = StagedNetwork(nn.Identity(), stages, 512, classes)
    read = range(1, len(stages))
    before = tuple(f"stages.{i}.{len(stages[i]) - 2}" for i in read)  # type: ignore[arg-type]
    network.taps = Taps(tuple(f"stages.{i}" for i in read), "linear:input", "stages.0", before)
    return network


class Shuffle(nn.Module):
    """Deals channels out to groups: channel ``i`` of group ``g`` goes to place ``i * groups + g``.

    Args:
        groups: how many.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape."""
        return x.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)


class ShuffleUnit(nn.Module):
    """ShuffleNet's unit: grouped 1x1, shuffle, depthwise 3x3, grouped 1x1; added, or beside a pooled input.

    Args:
        inputs: channels before.
        outputs: channels after.
        stride: 1 adds the input; 2 puts its average pooling beside, in front.
        groups: of both 1x1 convolutions.
        first_groups: of the first, where it differs.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int, first_groups: int) -> None:
        super().__init__()
        own, middle = outputs - (inputs if stride == 2 else 0), outputs // 4
        middle = own // 4 if stride == 2 else middle
        self.body = nn.Sequential(
            *_conv_norm(inputs, middle, groups=first_groups), nn.ReLU(), Shuffle(first_groups),
            *_conv_norm(middle, middle, 3, stride, groups=middle), nn.ReLU(),
            *_conv_norm(middle, own, groups=groups),
        )  # fmt: skip
        self.shortcut = nn.AvgPool2d(3, 2, padding=1) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, ceil(H / stride), ceil(W / stride)]``."""
        own = self.body(x)
        return torch.relu(own + x) if self.shortcut is None else torch.relu(torch.cat([own, self.shortcut(x)], 1))


@register("shufflenet_v1")
def shufflenet_v1(classes: int = 100, in_channels: int = 3) -> StagedNetwork:
    """ShuffleNet with three groups for 32x32 images: a 1x1 stem, stages of 240, 480 and 960 channels.

    Args:
        classes: how many logits.
        in_channels: channels of the image.

    Source: Zhang et al. 2018, arXiv 1707.01083; the sizes of arXiv 1910.10699.
    """
    stem = nn.Sequential(*_conv_norm(in_channels, 24), nn.ReLU())
    stages: list[nn.Module] = []
    inputs = 24
    for width, count in zip((240, 480, 960), (4, 8, 4), strict=True):
        first = ShuffleUnit(inputs, width, 2, 3, 1 if inputs == 24 else 3)
        stages.append(nn.Sequential(first, *(ShuffleUnit(width, width, 1, 3, 3) for _ in range(count - 1))))
        inputs = width
    return StagedNetwork(stem, stages, 960, classes)


class SplitUnit(nn.Module):
    """ShuffleNet V2's unit with stride 1: one half of the channels goes by, the other through three convolutions.

    Args:
        channels: before and after.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.body = nn.Sequential(
            *_conv_norm(half, half), nn.ReLU(), *_conv_norm(half, half, 3, groups=half), *_conv_norm(half, half),
            nn.ReLU(),
        )  # fmt: skip
        self.shuffle = Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape."""
        by, through = x.chunk(2, 1)
        return self.shuffle(torch.cat([by, self.body(through)], 1))


class DownUnit(nn.Module):
    """ShuffleNet V2's unit with stride 2: both branches see all channels.

    Args:
        inputs: channels before.
        outputs: channels after.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.left = nn.Sequential(
            *_conv_norm(inputs, inputs, 3, 2, groups=inputs), *_conv_norm(inputs, half), nn.ReLU()
        )
        self.right = nn.Sequential(
            *_conv_norm(inputs, half), nn.ReLU(), *_conv_norm(half, half, 3, 2, groups=half), *_conv_norm(half, half),
            nn.ReLU(),
        )  # fmt: skip
        self.shuffle = Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, ceil(H / 2), ceil(W / 2)]``."""
        return self.shuffle(torch.cat([self.left(x), self.right(x)], 1))


@register("shufflenet_v2")
def shufflenet_v2(classes: int = 100, in_channels: int = 3) -> StagedNetwork:
    """ShuffleNet V2 1x for 32x32 images: a 1x1 stem without pooling; 1,355,528 parameters at 100 classes.

    Args:
        classes: how many logits.
        in_channels: channels of the image.

    Source: Ma et al. 2018, arXiv 1807.11164; the sizes of arXiv 1910.10699.
    """
    stem = nn.Sequential(*_conv_norm(in_channels, 24), nn.ReLU())
    widths = (24, 116, 232, 464)
    stages: list[nn.Module] = [
        nn.Sequential(DownUnit(before, width), *(SplitUnit(width) for _ in range(count)))
        for (before, width), count in zip(pairwise(widths), (3, 7, 3), strict=True)
    ]
    stages.append(nn.Sequential(*_conv_norm(464, 1024), nn.ReLU()))
    return StagedNetwork(stem, stages, 1024, classes)


class InvertedResidual(nn.Module):
    """MobileNetV2's unit: 1x1 out, depthwise 3x3, 1x1 back, without a ReLU behind.

    Args:
        inputs: channels before.
        outputs: channels after.
        stride: of the depthwise convolution.
        factor: how many times ``inputs`` the middle has.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, factor: int) -> None:
        super().__init__()
        middle = inputs * factor
        self.body = nn.Sequential(
            *_conv_norm(inputs, middle), nn.ReLU(), *_conv_norm(middle, middle, 3, stride, groups=middle), nn.ReLU(),
            *_conv_norm(middle, outputs),
        )  # fmt: skip
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, ceil(H / stride), ceil(W / stride)]``."""
        return x + self.body(x) if self.adds else self.body(x)


@register("mobilenet_v2_half")
def mobilenet_v2_half(classes: int = 100, in_channels: int = 3) -> StagedNetwork:
    """MobileNetV2 of half the width for 32x32 images; 812,836 parameters at 100 classes.

    Distillers read four stages, which end without a ReLU and so are their own preactivations.

    Args:
        classes: how many logits.
        in_channels: channels of the image.

    Source: Sandler et al. 2018, arXiv 1801.04381; the sizes of arXiv 1910.10699.
    """
    stem = nn.Sequential(*_conv_norm(in_channels, 16, 3, 2), nn.ReLU())
    plan = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    inputs, units = 16, []
    for factor, width, count, stride in plan:
        outputs = width // 2
        units.append([InvertedResidual(inputs if i == 0 else outputs, outputs, stride if i == 0 else 1, factor)
                      for i in range(count)])  # fmt: skip
        inputs = outputs
    groups = (units[:2], units[2:3], units[3:5], units[5:])
    stages: list[nn.Module] = [nn.Sequential(*(unit for block in group for unit in block)) for group in groups]
    stages.append(nn.Sequential(*_conv_norm(inputs, 1280), nn.ReLU()))
    return StagedNetwork(stem, stages, 1280, classes, tuple(f"stages.{i}" for i in range(4)), read=4)


class Residual(nn.Module):
    """The block of ResNet-18 and -34 (two 3x3) or of ResNet-50 (1x1, 3x3, 1x1 to four times the width).

    Args:
        inputs: channels before.
        width: of the block; channels after, or a quarter of them.
        stride: of the (first) 3x3 convolution.
        bottleneck: which of the two.
    """

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        if bottleneck:
            layers = [*_conv_norm(inputs, width), nn.ReLU(), *_conv_norm(width, width, 3, stride), nn.ReLU()]
            layers += _conv_norm(width, outputs)
        else:
            layers = [*_conv_norm(inputs, width, 3, stride), nn.ReLU(), *_conv_norm(width, width, 3)]
        self.body = nn.Sequential(*layers)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Sequential(*([] if same else _conv_norm(inputs, outputs, 1, stride)))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, ceil(H / stride), ceil(W / stride)]``."""
        return torch.relu(self.body(x) + self.shortcut(x))


@register("resnet_small_images")
def resnet_small_images(depth: Literal[18, 34, 50] = 18, classes: int = 200, in_channels: int = 3) -> StagedNetwork:
    """ResNet-18, -34 and -50 with a 3x3 stem for 32x32 or 64x64 images, such as Tiny-ImageNet's.

    11,220,132 parameters at depth 18 and 100 classes.

    Args:
        depth: which.
        classes: how many logits.
        in_channels: channels of the image.

    Source: He et al. 2015, arXiv 1512.03385, with the stem of CIFAR.
    """
    counts = (2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3)
    stem = nn.Sequential(*_conv_norm(in_channels, 64, 3), nn.ReLU())
    stages: list[nn.Module] = []
    inputs = 64
    for place, (width, count) in enumerate(zip((64, 128, 256, 512), counts, strict=True)):
        blocks = []
        for block in range(count):
            blocks.append(Residual(inputs, width, 2 if place and not block else 1, depth == 50))
            inputs = 4 * width if depth == 50 else width
        stages.append(nn.Sequential(*blocks))
    before = tuple(f"stages.{i}.{n - 1}.body+stages.{i}.{n - 1}.shortcut" for i, n in enumerate(counts))
    return StagedNetwork(stem, stages, inputs, classes, before, read=4)
