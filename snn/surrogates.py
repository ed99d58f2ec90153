"""Surrogate derivatives: what stands in for the derivative of a spike, which is zero almost everywhere."""

from typing import Any, Literal, cast, get_args

import torch
from spikingjelly.activation_based import surrogate as library
from spikingjelly.activation_based.surrogate import SurrogateFunctionBase
from torch import Tensor

from vision.engine.errors import ConfigError, nearest

SurrogateName = Literal[
    "exponential", "triangle", "sigmoid", "piecewise_exp", "atan", "soft_sign", "super_spike", "erf", "leaky_k_relu",
    "log_tailed_relu", "q_pseudo_spike", "s2nn",
]  # fmt: skip
"""The surrogates a recipe can name; from Python any ``SurrogateFunctionBase`` of spikingjelly will do."""


class _ExponentialSpike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * torch.exp(-x.abs())


class Exponential(SurrogateFunctionBase):
    r"""STOP's surrogate derivative, without a free parameter.

    .. math:: \phi(x) = e^{-|x|}, \qquad \int_{-\infty}^x \phi = e^x \; (x < 0), \quad 2 - e^{-x} \; (x \ge 0)

    It is twice the derivative of spikingjelly's ``PiecewiseExp(alpha=1)``.

    Args:
        spiking: give spikes; false gives the primitive itself, as all of spikingjelly's surrogates do.

    Source: equation 3 of arXiv 2411.11082, as quoted by others; its full text was not available.
    """

    def __init__(self, spiking: bool = True) -> None:
        super().__init__(spiking=spiking)

    @staticmethod
    def spiking_function(x: Tensor) -> Tensor:
        """1 where ``x >= 0``, else 0; differentiated as :math:`e^{-|x|}`."""
        return cast(Tensor, _ExponentialSpike.apply(x))

    @staticmethod
    def primitive_function(x: Tensor) -> Tensor:
        """The integral of :math:`e^{-|x|}` from minus infinity."""
        decay = torch.exp(-x.abs())
        return torch.where(x < 0, decay, 2 - decay)


_CLASSES = {
    "exponential": Exponential,
    "triangle": library.PiecewiseQuadratic,
    "sigmoid": library.Sigmoid,
    "piecewise_exp": library.PiecewiseExp,
    "atan": library.ATan,
    "soft_sign": library.SoftSign,
    "super_spike": library.SuperSpike,
    "erf": library.Erf,
    "leaky_k_relu": library.LeakyKReLU,
    "log_tailed_relu": library.LogTailedReLU,
    "q_pseudo_spike": library.QPseudoSpike,
    "s2nn": library.S2NN,
}


def surrogate_of(name: str) -> SurrogateFunctionBase:
    """The surrogate of a name, with its library's default parameters.

    ``exponential`` is STOP's own (:class:`Exponential`); ``triangle`` is ``PiecewiseQuadratic(alpha=1)``, the default
    of the public release's command line; the others are spikingjelly's.

    Raises:
        ConfigError: no such name.
    """
    if name not in _CLASSES:
        known = get_args(SurrogateName)
        raise ConfigError(f"surrogate: no '{name}'{nearest(name, known)}; expected one of {', '.join(known)}")
    return _CLASSES[name]()


def weigh(surrogate: SurrogateFunctionBase, gradient: Tensor, x: Tensor) -> Tensor:
    r"""``gradient`` times the surrogate derivative: :math:`\delta = g \, \phi(x)`, elementwise.

    Args:
        surrogate: any of spikingjelly's, or :class:`Exponential`.
        gradient: :math:`g`, any shape.
        x: membrane less threshold, of the same shape.
    """
    if isinstance(surrogate, Exponential):
        return x.abs().neg_().exp_().mul_(gradient)
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        (found,) = torch.autograd.grad(surrogate.spiking_function(point, **surrogate._sg_params), point, gradient)
    return found
