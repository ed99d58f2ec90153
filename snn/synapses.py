"""Convolutions and linear layers that keep a trace of their input, and so learn over time without a graph over time."""

import math
from typing import Literal

import torch
from spikingjelly.activation_based import base
from torch import Tensor, nn

from snn.neurons import LeakyReadout, STOPLIFNode, require_same_state, state_dtype
from snn.stop import ConvolutionMap, LinearMap, connect

Receiver = STOPLIFNode | LeakyReadout


class InputTrace(base.MemoryModule):
    r"""The presynaptic trace :math:`\tilde w[t] = a \tilde w[t-1] + x[t]` and that of the bias, :math:`\tilde 1`.

    Attributes:
        value: :math:`\tilde w`, of the shape of the input; float32 or wider.
        ones: :math:`\tilde 1`, a scalar.
        label: what errors call the layer.
    """

    value: Tensor | None
    ones: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_memory("value", None)
        self.register_memory("ones", None)
        self.label = "synapse"

    @torch.no_grad()
    def single_step_forward(self, x: Tensor, leak: Tensor) -> tuple[Tensor, Tensor]:
        """Both traces after the input ``x``; ``leak`` is that of the neurons the synapse feeds.

        Raises:
            SequenceError: the trace is of other samples.
        """
        x = x.detach().to(state_dtype(x))
        if self.value is None or self.ones is None:
            self.value, self.ones = x, torch.ones_like(leak)
        else:
            require_same_state(self.label, self.value, x)
            self.value, self.ones = torch.addcmul(x, self.value, leak), self.ones * leak + 1
        return self.value, self.ones


class Synapse:
    """What traced convolutions and traced linear layers share.

    A synapse's trace decays with the leak of the neurons that its output goes to. Where that is more than one layer, or
    none, there is no such leak: it then learns from the input of the same step.

    Attributes:
        trace: the trace of the input.
        mode: ``traced``; ``plain`` is ordinary autograd of this step, as SLTT and BPTT have it.
        traced_bias: whether the bias learns from its trace too.
        feeds: the neurons or the readout that the output goes to, as a tuple of one; empty where there is no one such.
    """

    trace: InputTrace
    mode: Literal["traced", "plain"]
    traced_bias: bool
    feeds: tuple[Receiver, ...]

    def _prepare(self, receiver: Receiver | None) -> None:
        self.trace = InputTrace()
        self.mode, self.traced_bias = "traced", True
        self.feeds = () if receiver is None else (receiver,)  # in a tuple, so that it is no submodule

    @property
    def keeps_trace(self) -> bool:
        """Whether a step with gradients updates the trace."""
        own = [getattr(self, name) for name in ("weight", "bias")]
        learns = any(parameter is not None and parameter.requires_grad for parameter in own)
        return self.mode == "traced" and bool(self.feeds) and learns and torch.is_grad_enabled()

    def _connect(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, linear_map: LinearMap | ConvolutionMap
    ) -> Tensor:
        if not self.keeps_trace:
            return linear_map.forward(x, weight, bias)
        trace, ones = self.trace(x, self.feeds[0].leak)
        return connect(x, weight, bias, trace, ones if self.traced_bias else torch.ones_like(ones), linear_map)


class TracedLinear(nn.Linear, Synapse):
    """A linear layer that learns from the trace of its input.

    Args:
        in_features: inputs.
        out_features: outputs.
        bias: whether there is one.
        receiver: the neurons or readout that its output goes to.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, receiver: Receiver | None = None
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self._prepare(receiver)

    def forward(self, input: Tensor) -> Tensor:
        """``[N, *, in_features]`` to ``[N, *, out_features]``."""
        return self._connect(input, self.weight, self.bias, LinearMap())


class TracedConv2d(nn.Conv2d, Synapse):
    r"""A 2-D convolution with zero padding that learns from the trace of its input.

    With ``standardise`` the weight is, for each output channel,

    .. math:: \hat W = g \frac{W - \mathrm{mean}(W)}{\sqrt{\mathrm{var}(W) \, n + 10^{-4}}}

    with fan-in :math:`n`, unbiased variance and a learned gain :math:`g`, 1 at the start. The rule is exact for
    :math:`\hat W`, and ordinary autograd leads from there to :math:`W`.

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        kernel_size: rows and columns of the kernel.
        stride: step of the kernel.
        padding: zeros on each side.
        bias: whether there is one.
        dilation: of the kernel.
        groups: of channels.
        standardise: whether the weight is standardised.
        receiver: the neurons that its output goes to.

    Source: scaled weight standardisation of Brock et al. 2021 (arXiv 2101.08692), as OTTT uses it.
    """

    gain: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        bias: bool = True,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        standardise: bool = False,
        receiver: Receiver | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.gain = nn.Parameter(torch.ones(out_channels, 1, 1, 1)) if standardise else None
        self._prepare(receiver)

    @property
    def linear_map(self) -> ConvolutionMap:
        """The convolution itself."""
        assert not isinstance(self.padding, str)
        return ConvolutionMap(self.stride, self.padding, self.dilation, self.groups)

    def effective_weight(self) -> Tensor:
        """The weight that inputs are convolved with: W, or its standardised form."""
        if self.gain is None:
            return self.weight
        axes = (1, 2, 3)
        fan_in = math.prod(self.weight.shape[1:])
        variance, mean = torch.var_mean(self.weight, axes, keepdim=True)
        return self.gain * (self.weight - mean) * torch.rsqrt(variance * fan_in + 1e-4)

    def deploy(self) -> None:
        """Makes a standardised weight the weight itself, in place, for inference."""
        if self.gain is not None:
            self.weight.data, self.gain = self.effective_weight().detach(), None

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, out_channels, H', W']``."""
        return self._connect(input, self.effective_weight(), self.bias, self.linear_map)
