"""Spiking networks: VGG-11, ResNet-18 in two forms, a LeNet-5 and a multilayer perceptron, for every rule."""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from snn.network import SpikingNetwork
from snn.neurons import LeakyReadout, STOPLIFNode
from snn.residual import PostActivationBlock, PreActivationBlock
from snn.scores import Output
from snn.surrogates import SurrogateName, surrogate_of
from snn.synapses import Receiver, TracedConv2d, TracedLinear
from vision.engine.errors import ConfigError
from vision.engine.registry import register

Granularity = Literal["layer", "channel", "neuron"]
Norm = Literal["bn", "ws", "none"]

SPIKE_SCALE = 2.74
"""What spikes are multiplied by where weights are standardised, so that currents keep their variance."""


@dataclass(frozen=True)
class NeuronOptions:
    """How the neurons of a network begin.

    Attributes:
        threshold: of every neuron, above 0.
        leak: of every layer, in [0, 1]: 1 - 1/tau.
        granularity: how many neurons share a threshold: all of a ``layer``, those of a ``channel``, or none.
        surrogate: what stands in for the derivative of a spike.
    """

    threshold: float = 1.0
    leak: float = 0.5
    granularity: Granularity = "layer"
    surrogate: SurrogateName = "exponential"

    def node(self, channels: int, spatial: bool = True) -> STOPLIFNode:
        """One layer of neurons; of one threshold each only after :func:`spread` knows how many there are."""
        shape = (channels, 1, 1) if spatial else (channels,)
        return STOPLIFNode(
            self.threshold, self.leak, shape if self.granularity == "channel" else (), surrogate_of(self.surrogate)
        )


class Scale(nn.Module):
    """Multiplies by a constant.

    Args:
        factor: the constant.
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """``factor * x``."""
        return x * self.factor


class Halve(nn.Module):
    """Averages squares of 2x2 pixels; an image that is one pixel high or wide is left as it is."""

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, C, H // 2, W // 2]``."""
        return nn.functional.avg_pool2d(x, 2) if min(x.shape[-2:]) > 1 else x


def _convolve(
    layers: "OrderedDict[str, nn.Module]", name: str, channels: tuple[int, int], neuron: NeuronOptions, norm: Norm,
    bias: bool, kernel: int = 3, padding: int = 1, stride: int = 1,
) -> None:  # fmt: skip
    """Adds a convolution with its norm and neurons."""
    node = neuron.node(channels[1])
    layers[f"conv{name}"] = TracedConv2d(
        *channels, kernel, stride, padding, bias or norm == "none", standardise=norm == "ws", receiver=node
    )
    if norm == "bn":
        layers[f"norm{name}"] = nn.BatchNorm2d(channels[1])
    layers[f"neuron{name}"] = node
    if norm == "ws":
        layers[f"scale{name}"] = Scale(SPIKE_SCALE)


def _end(
    layers: "OrderedDict[str, nn.Module]", features: int, classes: int, output: Output, neuron: NeuronOptions
) -> None:
    """Adds the last linear layer and what it feeds."""
    receiver: Receiver | None = None
    if output == "spikes":
        receiver = neuron.node(classes, spatial=False)
    elif output == "leaky":
        receiver = LeakyReadout(neuron.leak)
    layers["linear"] = TracedLinear(features, classes, receiver=receiver)
    if receiver is not None:
        layers["output"] = receiver


def _initialise(network: nn.Module) -> None:
    """Convolutions: Kaiming normal over fan-out; the last linear layer N(0, 0.01); biases 0. As in the release."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
    _zero_biases(network)


def _initialise_without_norm(network: nn.Module) -> None:
    """Kaiming normal over fan-in, so that neurons without a norm layer before them fire; biases 0. Ours."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    _zero_biases(network)


def _zero_biases(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def spread(network: SpikingNetwork, example: Tensor) -> None:
    """Gives every neuron a threshold of its own, at the value its layer or channel has.

    Args:
        network: changed in place.
        example: an input of the size that the network is for; it takes no other afterwards.
    """
    shapes: dict[STOPLIFNode, torch.Size] = {}

    def note(node: nn.Module, _: Any, spikes: Tensor) -> None:
        assert isinstance(node, STOPLIFNode)
        shapes[node] = spikes.shape[1:]

    found = [module for module in network.modules() if isinstance(module, STOPLIFNode)]
    hooks = [node.register_forward_hook(note) for node in found]
    training = network.training
    network.eval()
    network.reset(1)
    with torch.no_grad():
        network.step(example)
    network.reset()
    network.train(training)
    for hook in hooks:
        hook.remove()
    for node, shape in shapes.items():
        node.v_threshold = nn.Parameter(node.v_threshold.detach().expand(shape).clone())


def _finished(network: SpikingNetwork, neuron: NeuronOptions, image_size: int | None) -> SpikingNetwork:
    if neuron.granularity != "neuron":
        return network
    if network.in_channels is None:
        spread(network, torch.zeros(1, network.inputs or 1))
        return network
    if image_size is None:
        raise ConfigError("image_size is missing: thresholds of granularity 'neuron' need to know how many there are")
    spread(network, torch.zeros(1, network.in_channels, image_size, image_size))
    return network


@register("spiking_vgg11")
def spiking_vgg11(
    classes: int = 10,
    in_channels: int = 3,
    steps: int = 6,
    width: int = 64,
    norm: Norm = "bn",
    output: Output = "spikes",
    dropout: float = 0.0,
    bias: bool = False,
    neuron: NeuronOptions = NeuronOptions(),
    image_size: int | None = None,
) -> SpikingNetwork:
    """VGG-11: eight 3x3 convolutions with 64 to 512 channels, average pooling after the 1st, 2nd, 4th, 6th and 8th.

    With ``bias`` weights and norm layers have 9,231,114 parameters for 3 channels and 10 classes, 9,277,284 for 100
    classes, 9,231,051 for 2 channels and 11 classes; besides these each layer of neurons has a threshold and a leak.

    Args:
        classes: C.
        in_channels: of a frame: 3 for colour, 2 for the polarities of events.
        steps: T, how often a static image is shown.
        width: channels of the first convolution; the others have 2, 4, 4, 8, 8, 8 and 8 times as many.
        norm: ``bn`` (BatchNorm of each step), ``ws`` (standardised weights, for which the rule is exact) or ``none``.
        output: ``spikes``, ``logits`` or ``leaky``; the rule ``osstop`` needs the last.
        dropout: probability of a zero after each layer of neurons, in [0, 1).
        bias: whether convolutions before BatchNorm have one, as in the release.
        neuron: how the neurons begin.
        image_size: rows and columns of an image, needed for thresholds of granularity ``neuron``.

    Raises:
        ConfigError: a number out of its range.

    Deviation: the release has biases before BatchNorm, which learn nothing there; ours are off by default.

    Source: the public release of STOP (weights only).
    """
    if width < 1 or not 0 <= dropout < 1:
        raise ConfigError(f"spiking_vgg11: width {width} and dropout {dropout}; expected 1 or more, and [0, 1)")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    factors, pooled, before = (1, 2, 4, 4, 8, 8, 8, 8), (1, 2, 4, 6, 8), in_channels
    for place, factor in enumerate(factors, start=1):
        _convolve(layers, f"{place}", (before, factor * width), neuron, norm, bias)
        before = factor * width
        if dropout:
            layers[f"dropout{place}"] = nn.Dropout(dropout)
        if place in pooled:
            layers[f"pool{place}"] = Halve()
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    _end(layers, before, classes, output, neuron)
    network = SpikingNetwork(layers, steps, classes, in_channels, output=output)
    _initialise(network)
    return _finished(network, neuron, image_size)


@register("spiking_resnet18")
def spiking_resnet18(
    classes: int = 10,
    in_channels: int = 3,
    steps: int = 6,
    width: int = 64,
    form: Literal["post", "release"] = "post",
    output: Output | None = None,
    neuron: NeuronOptions = NeuronOptions(),
    image_size: int | None = None,
) -> SpikingNetwork:
    """ResNet-18 for small images: a 3x3 stem, four stages of two blocks, mean over the image, linear.

    ``post`` has spikes between its blocks, and every synapse feeds one layer of neurons, so that STOP is exact.
    ``release`` is the pre-activation form of the public release: a stream of real numbers between the blocks, traces in
    the first convolution of each block only (the others feed several layers), and logits at the end; 11,176,906
    parameters of weights and norm layers for 10 classes, 11,223,076 for 100.

    Args:
        classes: C.
        in_channels: of a frame.
        steps: T, how often a static image is shown.
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        form: as above.
        output: by default ``spikes`` for ``post`` and ``logits`` for ``release``.
        neuron: how the neurons begin.
        image_size: rows and columns of an image, needed for thresholds of granularity ``neuron``.

    Raises:
        ConfigError: a number out of its range.

    Source: ``release``: the public release of STOP (weights only). ``post`` is our choice.
    """
    if width < 1:
        raise ConfigError(f"spiking_resnet18: width {width}; expected 1 or more")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if form == "post":
        _convolve(layers, "0", (in_channels, width), neuron, "bn", bias=False)
    else:
        layers["conv0"] = TracedConv2d(in_channels, width, 3, padding=1, bias=False)
    block, before = (PostActivationBlock if form == "post" else PreActivationBlock), width
    for stage, factor in enumerate((1, 2, 4, 8), start=1):
        for place in (1, 2):
            stride = 2 if stage > 1 and place == 1 else 1
            layers[f"block{stage}{place}"] = block(before, factor * width, stride, neuron.node)
            before = factor * width
    if form == "release":
        layers["norm9"], layers["neuron9"] = nn.BatchNorm2d(before), neuron.node(before)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    ends: Output = output or ("spikes" if form == "post" else "logits")
    _end(layers, before, classes, ends, neuron)
    network = SpikingNetwork(layers, steps, classes, in_channels, output=ends)
    _initialise(network)
    return _finished(network, neuron, image_size)


@register("spiking_lenet5")
def spiking_lenet5(
    classes: int = 10,
    in_channels: int = 1,
    steps: int = 6,
    width: int = 6,
    padding: int = 2,
    norm: Literal["bn", "none"] = "none",
    output: Output = "spikes",
    neuron: NeuronOptions = NeuronOptions(),
    image_size: int | None = None,
) -> SpikingNetwork:
    """A LeNet-5 of spiking neurons: 6C5-AP2-16C5-AP2-120-84-10.

    Before the first linear layer features are brought to 5x5, which they are for images of 28 pixels with the padding
    of 2, and of 34 pixels (N-MNIST) without.

    Args:
        classes: C.
        in_channels: of a frame.
        steps: T, how often a static image is shown.
        width: channels of the first convolution; the second has 16 for 6, and so on in proportion.
        padding: zeros around the image.
        norm: ``bn`` after convolutions, or ``none``.
        output: ``spikes``, ``logits`` or ``leaky``.
        neuron: how the neurons begin.
        image_size: rows and columns of an image, needed for thresholds of granularity ``neuron``.

    Raises:
        ConfigError: a number out of its range.

    Source: our choice; the paper names LeNet-5, its table was not available.
    """
    if width < 1 or padding < 0:
        raise ConfigError(f"spiking_lenet5: width {width} and padding {padding}; expected 1 or more, and 0 or more")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    second = max(1, round(width * 16 / 6))
    _convolve(layers, "1", (in_channels, width), neuron, norm, False, kernel=5, padding=padding)
    layers["pool1"] = Halve()
    _convolve(layers, "2", (width, second), neuron, norm, False, kernel=5, padding=0)
    layers["pool2"] = Halve()
    layers["pool"] = nn.AdaptiveAvgPool2d(5)
    layers["flatten"] = nn.Flatten()
    for place, (before, after) in enumerate(pairwise((25 * second, 120, 84)), start=1):
        node = neuron.node(after, spatial=False)
        layers[f"linear{place}"], layers[f"neuron{place + 2}"] = TracedLinear(before, after, receiver=node), node
    _end(layers, 84, classes, output, neuron)
    network = SpikingNetwork(layers, steps, classes, in_channels, output=output)
    _initialise_without_norm(network)
    return _finished(network, neuron, image_size)


@register("spiking_mlp")
def spiking_mlp(
    inputs: int,
    hidden: list[int],
    classes: int = 10,
    steps: int = 6,
    bias: bool = True,
    output: Output = "spikes",
    neuron: NeuronOptions = NeuronOptions(),
) -> SpikingNetwork:
    """Linear layers with spiking neurons after each, on a flattened input.

    Args:
        inputs: numbers in the input of one step.
        hidden: width of each hidden layer.
        classes: C.
        steps: T, how often a static input is shown.
        bias: whether linear layers have one.
        output: ``spikes``, ``logits`` or ``leaky``.
        neuron: how the neurons begin.

    Raises:
        ConfigError: a width below 1.
    """
    widths = [inputs, *hidden]
    if min(widths) < 1:
        raise ConfigError(f"spiking_mlp: inputs {inputs} and hidden {hidden} must all be 1 or more")
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for place, (before, after) in enumerate(pairwise(widths), start=1):
        node = neuron.node(after, spatial=False)
        layers[f"linear{place}"], layers[f"neuron{place}"] = TracedLinear(before, after, bias, node), node
    _end(layers, widths[-1], classes, output, neuron)
    if not bias:
        layers["linear"].register_parameter("bias", None)
    network = SpikingNetwork(layers, steps, classes, None, inputs, output)
    _initialise_without_norm(network)
    return _finished(network, neuron, None)
