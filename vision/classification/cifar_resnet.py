"""Residual networks for CIFAR: the original ResNet-20 to -110 and the four times wider ones used in distillation."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from vision.classification.initialise import initialise
from vision.engine.registry import register


class PadShortcut(nn.Module):
    """Option A: every second row and column, new channels filled with zeros on both sides; no parameters.

    Args:
        inputs: channels before.
        outputs: channels after.

    Source: He et al. 2015, arXiv 1512.03385, section 4.2. The paper does not say where the zeros go; half of them
    before and half after is what the released weights were trained with.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, ceil(H / 2), ceil(W / 2)]``."""
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    r"""Two 3x3 convolutions with BatchNorm and a shortcut: ``relu(shortcut(x) + BN(W_2 * relu(BN(W_1 * x))))``.

    Args:
        inputs: channels before.
        outputs: channels after.
        stride: of the first convolution.
        shortcut: where the shape changes, zeros for new channels (``A``) or a 1x1 convolution and BatchNorm (``B``).

    Source: He et al. 2015, arXiv 1512.03385.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Literal["A", "B"]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Sequential()
        if stride == 1 and inputs == outputs:
            return
        if shortcut == "A":
            self.shortcut = PadShortcut(inputs, outputs)
        else:
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, ceil(H / stride), ceil(W / stride)]``."""
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.shortcut(x) + self.bn2(self.conv2(inner)))


class CifarResNet(nn.Module):
    """A 3x3 stem, three stages of :class:`BasicBlock`, the mean over the image and a linear layer.

    Names of parameters are those of the released ResNet-20 to -1202 weights, which load strictly
    (:func:`vision.classification.weights.load_weights`).

    Args:
        stem: channels after the stem.
        widths: channels of the three stages.
        blocks: blocks in each stage.
        shortcut: as in :class:`BasicBlock`.
        classes: C, how many logits.
        in_channels: channels of the image.

    Attributes:
        num_classes: C.
    """

    def __init__(
        self,
        stem: int,
        widths: tuple[int, int, int],
        blocks: int,
        shortcut: Literal["A", "B"],
        classes: int,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.num_classes = classes
        self.conv1 = nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = _stage(stem, widths[0], blocks, 1, shortcut)
        self.layer2 = _stage(widths[0], widths[1], blocks, 2, shortcut)
        self.layer3 = _stage(widths[1], widths[2], blocks, 2, shortcut)
        self.linear = nn.Linear(widths[2], classes)
        initialise(self)

    def features(self, images: Tensor) -> Tensor:
        """The vector before the linear layer: ``[N, in_channels, H, W]`` to ``[N, D]``."""
        x = functional.relu(self.bn1(self.conv1(images)))
        return self.layer3(self.layer2(self.layer1(x))).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[N, C]`` of images ``[N, in_channels, H, W]``."""
        return self.linear(self.features(images))


def _stage(inputs: int, outputs: int, blocks: int, stride: int, shortcut: Literal["A", "B"]) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1, shortcut) for _ in range(blocks - 1)))


@register("cifar_resnet")
def cifar_resnet(
    depth: Literal[20, 32, 44, 56, 110],
    shortcut: Literal["A", "B"] = "A",
    classes: int = 10,
    in_channels: int = 3,
) -> CifarResNet:
    """ResNet for 32x32 images: widths 16, 32, 64; 0.27 M parameters at depth 20, 0.85 M at 56, 1.73 M at 110.

    Args:
        depth: 6 n + 2 for n blocks in each stage.
        shortcut: ``A`` pads with zeros (the paper's choice on CIFAR), ``B`` projects where the shape changes.
        classes: how many logits.
        in_channels: channels of the image.

    Source: He et al. 2015, arXiv 1512.03385, section 4.2.
    """
    return CifarResNet(16, (16, 32, 64), (depth - 2) // 6, shortcut, classes, in_channels)


@register("cifar_resnet8x4")
def cifar_resnet8x4(classes: int = 100, in_channels: int = 3) -> CifarResNet:
    """ResNet-8 with widths 32, 64, 128, 256 and projections: 1,233,540 parameters at 100 classes; a usual student.

    Args:
        classes: how many logits.
        in_channels: channels of the image.

    Source: Tian, Krishnan & Isola 2020, arXiv 1910.10699.
    """
    return CifarResNet(32, (64, 128, 256), 1, "B", classes, in_channels)


@register("cifar_resnet32x4")
def cifar_resnet32x4(classes: int = 100, in_channels: int = 3) -> CifarResNet:
    """ResNet-32 with widths 32, 64, 128, 256 and projections: 7,433,860 parameters at 100 classes; a usual teacher.

    Args:
        classes: how many logits.
        in_channels: channels of the image.

    Source: Tian, Krishnan & Isola 2020, arXiv 1910.10699.
    """
    return CifarResNet(32, (64, 128, 256), 5, "B", classes, in_channels)
