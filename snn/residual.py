"""Residual blocks of spiking neurons: with spikes between the blocks, or with a stream of real numbers."""

from collections.abc import Callable

from torch import Tensor, nn

from snn.neurons import STOPLIFNode
from snn.synapses import TracedConv2d

MakeNode = Callable[[int], STOPLIFNode]
"""Makes the neurons of a layer from its channels."""


class _Block(nn.Module):
    """A block that takes one step ``[N, C, H, W]``, or all steps ``[T, N, C, H, W]`` where its neurons do."""

    runs_sequences = True

    def _over(self, layer: nn.Module, x: Tensor) -> Tensor:
        """A layer without a state on one step, or on all of them at once."""
        if x.ndim == 4:
            made: Tensor = layer(x)
            return made
        return layer(x.flatten(0, 1)).unflatten(0, (len(x), -1))


class PostActivationBlock(_Block):
    r"""Two convolutions and a shortcut that add up to the current of one layer of neurons.

    .. math::
        h = \mathrm{LIF}_1(\mathrm{BN}_1(W_1 * s)), \quad
        s' = \mathrm{LIF}_2(\mathrm{BN}_2(W_2 * h) + c), \quad c = s \text{ or } \mathrm{BN}_s(W_s * s)

    The shortcut is a 1x1 convolution where the shape changes. Every synapse feeds one layer, so that STOP is exact.

    Args:
        inputs: channels of :math:`s`.
        outputs: channels of :math:`s'`.
        stride: of :math:`W_1` and :math:`W_s`.
        node: makes the neurons.

    Source: our choice.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, node: MakeNode) -> None:
        super().__init__()
        first, second = node(outputs), node(outputs)
        self.conv1 = TracedConv2d(inputs, outputs, 3, stride, 1, bias=False, receiver=first)
        self.norm1, self.neuron1 = nn.BatchNorm2d(outputs), first
        self.conv2 = TracedConv2d(outputs, outputs, 3, 1, 1, bias=False, receiver=second)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                TracedConv2d(inputs, outputs, 1, stride, bias=False, receiver=second), nn.BatchNorm2d(outputs)
            )
        self.neuron2 = second

    def forward(self, x: Tensor) -> Tensor:
        """Spikes to spikes; rows and columns are divided by the stride."""
        hidden = self.neuron1(self._over(self.norm1, self._over(self.conv1, x)))
        current = self._over(self.norm2, self._over(self.conv2, hidden))
        made: Tensor = self.neuron2(current + (x if self.shortcut is None else self._over(self.shortcut, x)))
        return made


class PreActivationBlock(_Block):
    r"""Neurons before each convolution, and a sum that is not a spike.

    .. math:: s = \mathrm{LIF}_1(\mathrm{BN}_1(x)), \quad x' = W_2 * \mathrm{LIF}_2(\mathrm{BN}_2(W_1 * s)) + c

    with :math:`c = s`, or :math:`W_s * s` where the shape changes. What :math:`W_2` and :math:`W_s` give is read by
    several layers of neurons, so that there is no one leak for their traces: they learn from the input of the step, as
    under SLTT. Convolutions have biases, as in the release.

    Args:
        inputs: channels of :math:`x`.
        outputs: channels of :math:`x'`.
        stride: of :math:`W_1` and :math:`W_s`.
        node: makes the neurons.

    Source: the public release of STOP.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, node: MakeNode) -> None:
        super().__init__()
        self.norm1, self.neuron1 = nn.BatchNorm2d(inputs), node(inputs)
        second = node(outputs)
        self.conv1 = TracedConv2d(inputs, outputs, 3, stride, 1, receiver=second)
        self.norm2, self.neuron2 = nn.BatchNorm2d(outputs), second
        self.conv2 = TracedConv2d(outputs, outputs, 3, 1, 1)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = TracedConv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """A stream to a stream; rows and columns are divided by the stride."""
        spikes = self.neuron1(self._over(self.norm1, x))
        hidden = self.neuron2(self._over(self.norm2, self._over(self.conv1, spikes)))
        return self._over(self.conv2, hidden) + (spikes if self.shortcut is None else self._over(self.shortcut, spikes))
