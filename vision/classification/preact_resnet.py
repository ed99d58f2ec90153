"""Pre-activation residual networks for small images: PreActResNet-18 and the wide residual networks."""

from torch import Tensor, nn
from torch.nn import functional

from vision.classification.initialise import initialise
from vision.engine.errors import ConfigError
from vision.engine.registry import register


class PreActBlock(nn.Module):
    r"""Two 3x3 convolutions, each after BatchNorm and ReLU, and a shortcut.

    .. math::
        a = \mathrm{relu}(\mathrm{BN}_1(x)), \quad
        y = s + W_2 * \mathrm{dropout}(\mathrm{relu}(\mathrm{BN}_2(W_1 * a)))

    where :math:`s = x`, or :math:`s = W_s * a` (1x1, no BatchNorm) where the shape changes.

    Args:
        inputs: channels of :math:`x`.
        outputs: channels of :math:`y`.
        stride: of :math:`W_1` and :math:`W_s`.
        dropout: probability of a zero between the convolutions.

    Source: He et al. 2016, arXiv 1603.05027; Zagoruyko & Komodakis 2016, arXiv 1605.07146 (dropout).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.dropout = dropout
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, outputs, ceil(H / stride), ceil(W / stride)]``."""
        active = functional.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        inner = functional.relu(self.bn2(self.conv1(active)))
        if self.dropout > 0:
            inner = functional.dropout(inner, self.dropout, self.training)
        return shortcut + self.conv2(inner)


class PreActResNet(nn.Module):
    """A 3x3 stem without BatchNorm, stages of :class:`PreActBlock`, BatchNorm, ReLU, mean over the image, linear.

    The first block of every stage but the first halves the image.

    Args:
        stem: channels after the stem.
        widths: channels of each stage.
        blocks: blocks in each stage.
        classes: C, how many logits.
        in_channels: channels of the image.
        dropout: as in :class:`PreActBlock`.

    Attributes:
        num_classes: C.
        stages: the stages in order, for distillers that read features between them.
    """

    def __init__(
        self, stem: int, widths: tuple[int, ...], blocks: int, classes: int, in_channels: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.num_classes = classes
        self.stem = nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)
        self.stages = nn.Sequential()
        inputs = stem
        for index, width in enumerate(widths):
            stride = 1 if index == 0 else 2
            self.stages.append(
                nn.Sequential(
                    PreActBlock(inputs, width, stride, dropout),
                    *(PreActBlock(width, width, 1, dropout) for _ in range(blocks - 1)),
                )
            )
            inputs = width
        self.norm = nn.BatchNorm2d(inputs)
        self.linear = nn.Linear(inputs, classes)
        initialise(self)

    def features(self, images: Tensor) -> Tensor:
        """The vector before the linear layer: ``[N, in_channels, H, W]`` to ``[N, D]``."""
        active = functional.relu(self.norm(self.stages(self.stem(images))))
        return active.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[N, C]`` of images ``[N, in_channels, H, W]``."""
        return self.linear(self.features(images))


@register("preact_resnet18")
def preact_resnet18(classes: int = 10, in_channels: int = 3) -> PreActResNet:
    """PreActResNet-18 with a stem for 32x32 or 64x64 images: widths 64, 128, 256, 512, two blocks each.

    11,172,170 parameters at 10 classes, 11,218,340 at 100, 11,269,640 at 200.

    Args:
        classes: how many logits.
        in_channels: channels of the image.

    Deviation: the release leaves the starting weights to its framework; ours are those of the wide networks
        (:func:`~vision.classification.initialise.initialise`).

    Source: He et al. 2016, arXiv 1603.05027; the CIFAR variant of Dong, Liu & Shang 2022, arXiv 2110.03135.
    """
    return PreActResNet(64, (64, 128, 256, 512), 2, classes, in_channels)


@register("preact_resnet")
def preact_resnet(width: int = 16, blocks: int = 1, classes: int = 10, in_channels: int = 3) -> PreActResNet:
    """PreActResNet-(8 n + 2) with n blocks in each of four stages of 1, 2, 4 and 8 times ``width`` channels.

    Width 64 and two blocks are :func:`preact_resnet18`; width 16 and one block have 308,378 parameters at 10 classes.

    Args:
        width: channels of the stem and of the first stage.
        blocks: n.
        classes: how many logits.
        in_channels: channels of the image.

    Raises:
        ConfigError: a width or number of blocks below 1.

    Source: He et al. 2016, arXiv 1603.05027; narrow ones are ours, for budgets of minutes.
    """
    if width < 1 or blocks < 1:
        raise ConfigError(f"preact_resnet: width {width} and blocks {blocks} must be 1 or more")
    return PreActResNet(width, (width, 2 * width, 4 * width, 8 * width), blocks, classes, in_channels)


@register("wide_resnet")
def wide_resnet(depth: int, width: int, classes: int = 10, dropout: float = 0.0, in_channels: int = 3) -> PreActResNet:
    """Wide residual network WRN-depth-width: three stages of 16, 32 and 64 times ``width`` channels.

    At 10 classes 28-5 has 9,132,634 parameters, 28-10 has 36,479,194 and 34-10 has 46,160,474; at 100 classes
    40-2 has 2,255,156 and 40-1 has 569,780.

    Args:
        depth: 6 n + 4 for n blocks in each stage: 10, 16, 22, 28, 34, 40, ...
        width: k, the factor on the channels.
        classes: how many logits.
        dropout: probability inside a block, in [0, 1).
        in_channels: channels of the image.

    Raises:
        ConfigError: a depth that is not 6 n + 4, a width below 1, or a dropout out of range.

    Source: Zagoruyko & Komodakis 2016, arXiv 1605.07146.
    """
    if depth < 10 or (depth - 4) % 6 != 0:
        raise ConfigError(f"wide_resnet.depth: {depth} is not 6 n + 4; use one of 10, 16, 22, 28, 34, 40")
    if width < 1:
        raise ConfigError(f"wide_resnet.width: {width} is below 1")
    if not 0.0 <= dropout < 1.0:
        raise ConfigError(f"wide_resnet.dropout: {dropout} is not in [0, 1)")
    widths = (16 * width, 32 * width, 64 * width)
    return PreActResNet(16, widths, (depth - 4) // 6, classes, in_channels, dropout)
