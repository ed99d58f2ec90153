"""What every spiking network here shares: a chain of layers, run a step at a time, or all steps of a layer at once."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from spikingjelly.activation_based import base
from torch import Tensor, nn

from snn.checkpointing import checkpointed
from snn.neurons import LeakyReadout, SequenceError, STOPLIFNode
from snn.rules import label_layers
from snn.scores import Output
from snn.synapses import TracedConv2d, TracedLinear
from vision.engine.errors import ConfigError


class SpikingNetwork(nn.Module):
    """A chain of layers that a static image, or a sequence of frames, runs through.

    The forward pass resets the state before and after itself, so that it is a function of its input. What learns online
    calls :meth:`reset` and then :meth:`step` once a time step.

    Args:
        layers: by name, in order.
        steps: T, how often a static image is shown.
        num_classes: C, outputs.
        in_channels: of a step's input; None takes any ``[N, ...]`` with ``inputs`` numbers a sample.
        inputs: numbers in a step's input, where ``in_channels`` is None.
        output: how the chain ends.

    Attributes:
        body: the chain.
        checkpointing: compute each layer again while backpropagating, instead of keeping what it needs.

    Raises:
        ConfigError: fewer than one step.
    """

    def __init__(
        self,
        layers: "OrderedDict[str, nn.Module]",
        steps: int,
        num_classes: int,
        in_channels: int | None,
        inputs: int | None = None,
        output: Output = "spikes",
    ) -> None:
        super().__init__()
        if steps < 1:
            raise ConfigError(f"steps: {steps} time steps; expected 1 or more")
        self.body = nn.Sequential(layers)
        self.steps, self.num_classes, self.in_channels, self.inputs = steps, num_classes, in_channels, inputs
        self.output: Output = output
        self.checkpointing = False
        self._clock, self._horizon = 0, steps
        label_layers(self.body)

    def reset(self, steps: int | None = None) -> None:
        """Forgets all states and traces.

        Args:
            steps: how many steps the next sequence has, by default the network's own; more are refused.
        """
        for module in self.modules():
            if isinstance(module, base.MemoryModule):
                module.reset()
        self._clock, self._horizon = 0, self.steps if steps is None else steps

    def step(self, x: Tensor) -> Tensor:
        """One time step: outputs ``[N, C]`` of inputs ``[N, ...]``.

        Raises:
            SequenceError: the sequence is over (a reset was forgotten), or the input does not fit the state.
        """
        if self._clock >= self._horizon:
            raise SequenceError(
                f"layer '{self.first_layer}' has run {self._clock} of {self._horizon} time steps; "
                "call reset() before the next batch, or reset(steps=...) for a longer sequence"
            )
        self._clock += 1
        for layer in self.body:
            x = checkpointed(layer, x) if self.checkpointing and torch.is_grad_enabled() else layer(x)
        return x

    @property
    def first_layer(self) -> str:
        """The name of the first layer that has a state."""
        for name, module in self.body.named_modules():
            if isinstance(module, STOPLIFNode | TracedConv2d | TracedLinear):
                return name
        return "body"

    def sequence(self, x: Tensor) -> Tensor:
        """The input of each step, ``[T, N, ...]``; a static image is repeated without being copied.

        Args:
            x: images ``[N, C, H, W]`` or sequences ``[N, T, C, H, W]``; a network of ``inputs`` numbers also takes
                ``[N, D]`` and ``[N, T, D]``.

        Raises:
            SequenceError: other shapes, no time steps, or the time axis in another place.
        """
        wanted = f"[N, T, {self.in_channels or '...'}, H, W]"
        if self.in_channels is None:
            static = x.ndim in (2, 4)
            if x.ndim not in (2, 3, 4, 5) or (0 not in x.shape and x[0].numel() // self._times(x) != self.inputs):
                raise SequenceError(
                    f"an input of shape {list(x.shape)} to a network of {self.inputs} inputs; expected "
                    f"[N, {self.inputs}] or [N, T, {self.inputs}], or images or frames of as many pixels"
                )
        else:
            static = x.ndim == 4
            if x.ndim not in (4, 5) or x.shape[-3] != self.in_channels:
                raise SequenceError(
                    f"an input of shape {list(x.shape)}; expected images [N, {self.in_channels}, H, W] or "
                    f"sequences {wanted}, the time axis second"
                )
        if 0 in x.shape:
            raise SequenceError(f"an input of shape {list(x.shape)}: nothing in it; expected T of 1 or more")
        return x.expand(self.steps, *x.shape) if static else x.transpose(0, 1)

    @staticmethod
    def _times(x: Tensor) -> int:
        return int(x.shape[1]) if x.ndim in (3, 5) else 1

    def run(self, x: Tensor) -> Tensor:
        """Outputs of every step, ``[T, N, C]``, of images or sequences as :meth:`sequence` takes them.

        Without gradients and in eval mode every layer runs all steps at once, without traces.
        """
        steps = self.sequence(x)
        self.reset(len(steps))
        try:
            if torch.is_grad_enabled() or self.training:
                return torch.stack([self.step(each) for each in steps])
            return self._fused(steps)
        finally:
            self.reset()

    def _fused(self, steps: Tensor) -> Tensor:
        with multi_step(self):
            x, times = steps, len(steps)
            still = steps.stride(0) == 0 or times == 1  # every step the same, so far
            for layer in self.body:
                if isinstance(layer, base.MemoryModule) or getattr(layer, "runs_sequences", False):
                    x, still = layer(x), False
                elif still:
                    once = layer(x[0])
                    x = once.expand(times, *once.shape)
                else:
                    x = layer(x.flatten(0, 1)).unflatten(0, (times, -1))
        return x

    def score(self, outputs: Tensor) -> Tensor:
        """What classes are judged by after each step, ``[T, N, C]``: mean spikes or logits so far, or the readout.

        Args:
            outputs: of every step, ``[T, N, C]``.
        """
        if self.output == "leaky":
            return outputs
        counts = torch.arange(1, len(outputs) + 1, device=outputs.device, dtype=outputs.dtype).view(-1, 1, 1)
        return outputs.cumsum(0) / counts

    def forward(self, x: Tensor) -> Tensor:
        """Scores after the last step, ``[N, C]``: the share of steps a class's neuron fired, or mean logits.

        Args:
            x: images ``[N, C, H, W]`` or sequences ``[N, T, C, H, W]``.
        """
        outputs = self.run(x)
        return outputs[-1] if self.output == "leaky" else outputs.mean(0)


@contextmanager
def multi_step(network: nn.Module) -> Iterator[None]:
    """Inside, every stateful layer of ``network`` takes all steps at once."""
    nodes = [m for m in network.modules() if isinstance(m, STOPLIFNode | LeakyReadout)]
    for node in nodes:
        node.step_mode = "m"
    try:
        yield
    finally:
        for node in nodes:
            node.step_mode = "s"
