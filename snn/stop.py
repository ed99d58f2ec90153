r"""The two halves of STOP as autograd functions: a synapse that learns from its input's trace, a neuron from its own.

Spatiotemporal orthogonal propagation carries errors down through the layers of one time step only, and traces forward
through time within one layer only. With :math:`\delta = \partial E[t] / \partial U[t]` of the same step,

.. math::
    \tilde w_i[t] = a \tilde w_i[t-1] + x_i[t], \quad
    \tilde\theta_j[t] = a (\tilde\theta_j[t-1] - s_j[t-1]), \quad
    \tilde a_j[t] = a \tilde a_j[t-1] + r_j[t-1], \quad
    \tilde 1[t] = a \tilde 1[t-1] + 1

.. math::
    dW_{ji} = \sum_t \delta_j \tilde w_i, \quad d\theta_j = \sum_t \delta_j (\tilde\theta_j - 1), \quad
    da = \sum_{t, j} \delta_j \tilde a_j, \quad db_j = \sum_t \delta_j \tilde 1

where :math:`r = U - \theta s` is the membrane after the reset. An ordinary ``backward`` of each step's loss adds that
step's terms to the parameters' gradients; nothing of earlier steps has to be kept.

Source: arXiv 2411.11082, equations 11 to 30 as quoted by others; its full text was not available. The bias trace is
ours and follows from the same recursion.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from spikingjelly.activation_based.surrogate import SurrogateFunctionBase
from torch import Tensor
from torch.autograd.function import once_differentiable

from snn.surrogates import weigh

Reduction = Literal["mean", "sum"]


class _Connect(torch.autograd.Function):
    """A linear map of the input whose weight learns from the trace instead."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, trace: Tensor, ones: Tensor, linear_map: Any
    ) -> Any:
        ctx.save_for_backward(trace, weight, ones)
        ctx.map = linear_map
        return linear_map.forward(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        trace, weight, ones = ctx.saved_tensors
        narrow = gradient.dtype  # of autocast; states and parameters are wide
        wanted = ctx.needs_input_grad[:2]
        to_x, to_weight = ctx.map.backward(gradient, trace.to(narrow), weight.to(narrow), wanted)
        to_bias = None
        if ctx.needs_input_grad[2]:
            axes = [axis for axis in range(gradient.ndim) if axis != ctx.map.axis % gradient.ndim]
            to_bias = gradient.sum(axes, dtype=ones.dtype) * ones
        return to_x, None if to_weight is None else to_weight.to(weight.dtype), to_bias, None, None, None


class LinearMap:
    """``x W^T + b`` of the last axis, with the gradients of input and weight."""

    axis = -1

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``[N, *, in]`` to ``[N, *, out]``."""
        return F.linear(x, weight, bias)

    def backward(
        self, gradient: Tensor, trace: Tensor, weight: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of the input (by the weight) and of the weight (by the trace)."""
        to_x = gradient @ weight if wanted[0] else None
        to_weight = gradient.flatten(0, -2).T @ trace.flatten(0, -2) if wanted[1] else None
        return to_x, to_weight


class ConvolutionMap:
    """A 2-D convolution with zero padding, with the gradients of input and weight.

    Args:
        stride: of rows and columns.
        padding: zeros on each side.
        dilation: of the kernel.
        groups: of channels.
    """

    axis = 1

    def __init__(
        self, stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], groups: int
    ) -> None:
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``[N, C, H, W]`` to ``[N, out, H', W']``."""
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def backward(
        self, gradient: Tensor, trace: Tensor, weight: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of the input (by the weight) and of the weight (by the trace)."""
        to_x, to_weight, _ = torch.ops.aten.convolution_backward(
            gradient, trace, weight, None, self.stride, self.padding, self.dilation, False, [0, 0], self.groups,
            [*wanted, False],
        )  # fmt: skip
        return to_x, to_weight


def connect(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    trace: Tensor,
    ones: Tensor,
    linear_map: LinearMap | ConvolutionMap,
) -> Tensor:
    r"""The synapse: the map of ``x``, learning :math:`dW = \delta \tilde w` and :math:`db = \delta \tilde 1`.

    Args:
        x: input of this step.
        weight: W.
        bias: b, or None.
        trace: :math:`\tilde w[t]`, of the shape of ``x``.
        ones: :math:`\tilde 1[t]`, a scalar.
        linear_map: what is done to ``x``.
    """
    made: Tensor = _Connect.apply(x, weight, bias, trace, ones, linear_map)
    return made


class _Fire(torch.autograd.Function):
    """Charge, fire and reset, with the threshold and the leak learning from their traces."""

    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        threshold: Tensor,
        leak: Tensor,
        rest: Tensor | None,
        traces: tuple[Tensor | None, Tensor | None],
        surrogate: SurrogateFunctionBase,
        reduction: Reduction,
    ) -> Any:
        membrane = current if rest is None else torch.addcmul(current, rest, leak)
        above = membrane - threshold
        spikes = (above >= 0).to(membrane.dtype)
        rest = torch.addcmul(membrane, spikes, threshold, value=-1)
        kept = [trace if needed else None for trace, needed in zip(traces, ctx.needs_input_grad[1:3], strict=True)]
        ctx.save_for_backward(above, *kept)
        ctx.surrogate, ctx.reduction, ctx.shape = surrogate, reduction, threshold.shape
        ctx.mark_non_differentiable(rest)
        return spikes, rest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> Any:
        above, threshold_trace, leak_trace = ctx.saved_tensors
        delta = weigh(ctx.surrogate, gradient, above)
        to_threshold = to_leak = None
        if ctx.needs_input_grad[1]:
            direct = shared_sum(delta, None, ctx.shape, ctx.reduction).neg()
            traced = None if threshold_trace is None else shared_sum(delta, threshold_trace, ctx.shape, ctx.reduction)
            to_threshold = direct if traced is None else direct + traced
        if ctx.needs_input_grad[2]:
            to_leak = delta.new_zeros(())
            if leak_trace is not None:
                to_leak = shared_sum(delta, leak_trace, to_leak.shape, ctx.reduction)
        return delta, to_threshold, to_leak, None, None, None, None


def shared_sum(delta: Tensor, trace: Tensor | None, shape: torch.Size, reduction: Reduction) -> Tensor:
    r""":math:`\sum \delta \cdot \text{trace}` over the samples and over the neurons that share a parameter.

    Args:
        delta: shape ``[N, *]``.
        trace: of that shape; None is all ones.
        shape: of the parameter: one that a neuron's shape ``[*]`` can be reduced to by summing.
        reduction: ``mean`` divides by the number of neurons that share one parameter, ``sum`` does not.

    Example:
        >>> shared_sum(torch.ones(2, 3, 4, 4), None, torch.Size((3, 1, 1)), "mean").flatten()
        tensor([2., 2., 2.])
    """
    if shape.numel() == 1:
        total = delta.sum() if trace is None else torch.dot(delta.reshape(-1), trace.reshape(-1))
        total = total.reshape(shape)
    else:
        total = (delta if trace is None else delta * trace).sum_to_size(shape)
    return total * (shape.numel() / delta[0].numel()) if reduction == "mean" else total


def fire(
    current: Tensor,
    threshold: Tensor,
    leak: Tensor,
    rest: Tensor | None,
    traces: tuple[Tensor | None, Tensor | None],
    surrogate: SurrogateFunctionBase,
    reduction: Reduction = "mean",
) -> tuple[Tensor, Tensor]:
    r"""The neuron: spikes and the membrane after the reset.

    .. math:: U[t] = a \, r[t-1] + I[t], \quad s[t] = [U[t] \ge \theta], \quad r[t] = U[t] - \theta s[t]

    Backwards, :math:`\delta = (\partial E / \partial s) \, \phi(U - \theta)` goes to the current, and with the traces
    to threshold and leak; nothing goes to :math:`r[t-1]`.

    Args:
        current: :math:`I[t]`, shape ``[N, *]``.
        threshold: :math:`\theta`, broadcast against a neuron's shape ``[*]``.
        leak: :math:`a`, a scalar.
        rest: :math:`r[t-1]`; None is zero.
        traces: :math:`\tilde\theta[t]` and :math:`\tilde a[t]`; None is zero.
        surrogate: gives :math:`\phi`.
        reduction: how the gradients of threshold and leak are reduced.
    """
    made: tuple[Tensor, Tensor] = _Fire.apply(current, threshold, leak, rest, traces, surrogate, reduction)
    return made
