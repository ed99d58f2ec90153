"""Small networks for quick runs, and normalisation as a part of a network."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from vision.classification.initialise import initialise
from vision.engine.errors import ConfigError
from vision.engine.registry import register


class Normalised(nn.Module):
    r"""A network that takes images in [0, 1] and normalises them itself: ``network((x - mean) / std)``.

    Attacks, and everything else that measures in image units, then need not know how the network was trained.
    ``mean`` and ``std`` are buffers, so a checkpoint keeps the normalisation its weights were trained with.

    Args:
        network: takes normalised images.
        mean: one value a channel, in image range.
        std: one value a channel, each above 0.

    Attributes:
        num_classes: that of ``network``.

    Raises:
        ConfigError: unequal lengths, none at all, or a ``std`` that is not above 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or len(mean) == 0:
            raise ConfigError(f"mean has {len(mean)} values and std {len(std)}; give one of each for every channel")
        if min(std) <= 0:
            raise ConfigError(f"std {list(std)}: every value must be above 0")
        self.network = network
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    @property
    def num_classes(self) -> int:
        """How many logits the network gives."""
        return int(self.network.num_classes)  # type: ignore[arg-type]

    def normalise(self, images: Tensor) -> Tensor:
        """``(x - mean) / std`` for images ``[N, C, H, W]`` in [0, 1]."""
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[N, C]`` of images ``[N, in_channels, H, W]`` in [0, 1]."""
        return self.network(self.normalise(images))


@register("mlp")
class MLP(nn.Module):
    """Linear layers with ReLU between them, on the flattened input.

    Args:
        inputs: numbers in one input: channels x rows x columns of an image.
        hidden: width of each hidden layer; an empty list leaves one linear layer.
        classes: how many logits.

    Attributes:
        num_classes: how many logits.

    Raises:
        ConfigError: a width below 1.
    """

    def __init__(self, inputs: int, hidden: list[int], classes: int = 10) -> None:
        super().__init__()
        widths = [inputs, *hidden]
        if min(widths) < 1:
            raise ConfigError(f"mlp: inputs {inputs} and hidden {hidden} must all be 1 or more")
        self.num_classes = classes
        self.layers = nn.Sequential()
        for before, after in pairwise(widths):
            self.layers.append(nn.Linear(before, after))
            self.layers.append(nn.ReLU())
        self.linear = nn.Linear(widths[-1], classes)

    def features(self, images: Tensor) -> Tensor:
        """The vector before the last layer: ``[N, ...]`` to ``[N, D]``."""
        return self.layers(images.flatten(1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[N, C]`` of inputs ``[N, ...]`` with ``inputs`` numbers each."""
        return self.linear(self.features(images))


@register("digits_cnn")
class DigitsCNN(nn.Module):
    """Three 3x3 convolutions for small grey images such as 8x8 digits; trains in seconds on a CPU.

    Args:
        classes: how many logits.
        width: channels of the first convolution; the others have twice as many.
        norm: ``batch``, ``group`` (four groups) or ``none`` after each convolution. Without BatchNorm, accumulated or
            distributed steps equal one large step exactly.
        in_channels: channels of the image.

    Attributes:
        num_classes: how many logits.

    Raises:
        ConfigError: a width that is not a positive multiple of 4.
    """

    def __init__(
        self,
        classes: int = 10,
        width: int = 16,
        norm: Literal["batch", "group", "none"] = "batch",
        in_channels: int = 1,
    ) -> None:
        super().__init__()
        if width < 4 or width % 4:
            raise ConfigError(f"digits_cnn.width: {width} is not a positive multiple of 4")
        self.num_classes = classes
        self.layers = nn.Sequential(
            *_convolution(in_channels, width, 1, norm),
            *_convolution(width, 2 * width, 2, norm),
            *_convolution(2 * width, 2 * width, 1, norm),
        )
        self.pool = nn.AdaptiveAvgPool2d(2)  # quarters of the image: where a stroke lies tells digits apart
        self.linear = nn.Linear(4 * 2 * width, classes)
        initialise(self)

    def features(self, images: Tensor) -> Tensor:
        """The vector before the linear layer: ``[N, in_channels, H, W]`` to ``[N, D]``."""
        return self.pool(self.layers(images)).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[N, C]`` of images ``[N, in_channels, H, W]``."""
        return self.linear(self.features(images))


def _convolution(inputs: int, outputs: int, stride: int, norm: str) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=norm == "none")]
    if norm == "batch":
        layers.append(nn.BatchNorm2d(outputs))
    elif norm == "group":
        layers.append(nn.GroupNorm(4, outputs))
    return [*layers, nn.ReLU()]
