"""Leaky integrate-and-fire neurons with a learnable threshold and leak, at home in spikingjelly."""

from typing import Literal

import torch
from spikingjelly.activation_based import base
from spikingjelly.activation_based.surrogate import SurrogateFunctionBase
from torch import Tensor, nn

from snn.stop import Reduction, fire
from snn.surrogates import Exponential
from vision.engine.errors import ConfigError, TrainingError


class SequenceError(TrainingError, RuntimeError):
    """A step or a sequence that does not fit a network or the state it is in."""


def require_same_state(name: str, state: Tensor, given: Tensor) -> None:
    """Refuses an input whose samples are not those of the state.

    Raises:
        SequenceError: a shape that differs, which a forgotten reset makes.
    """
    if state.shape != given.shape:
        raise SequenceError(
            f"layer '{name}': its state is of shape {list(state.shape)} and {list(given.shape)} came; "
            "call reset() before another batch"
        )


def state_dtype(values: Tensor) -> torch.dtype:
    """What states and traces of such values are kept in: float32, or wider."""
    return torch.promote_types(values.dtype, torch.float32)


class STOPLIFNode(base.MemoryModule):
    r"""Leaky integrate-and-fire neurons with soft reset that learn threshold and leak.

    .. math:: U[t] = a \, r[t-1] + I[t], \quad s[t] = [U[t] \ge \theta], \quad r[t] = U[t] - \theta s[t]

    Under ``rule = "stop"`` the gradient is that of :func:`snn.stop.fire` and no graph leads to an earlier step. Under
    ``rule = "bptt"`` it is ordinary backpropagation through time with the reset's spike as a constant. In steps of
    spikingjelly: ``LIFNode(tau, decay_input=False, v_reset=None, detach_reset=True)`` with :math:`a = 1 - 1/\tau`.

    Args:
        v_threshold: :math:`\theta` at the start, above 0.
        leak: :math:`a` at the start, in [0, 1].
        shape: of the threshold parameter: ``()`` is one for the layer, ``(C, 1, 1)`` one a channel (``(C,)`` after a
            linear synapse), ``(C, H, W)`` one a neuron.
        surrogate_function: gives the derivative of a spike.
        step_mode: ``s`` takes ``[N, *]``, ``m`` takes ``[T, N, *]``.

    Attributes:
        v: the membrane after the reset, :math:`r`; float32 or wider.
        s: the last spikes.
        threshold_trace: :math:`\tilde\theta`, kept while the threshold learns.
        leak_trace: :math:`\tilde a`, kept while the leak learns.
        rule: ``stop`` or ``bptt``.
        reduction: of the gradients of threshold and leak over the neurons that share them: ``mean`` or ``sum``.
        label: what errors call the layer.

    Raises:
        ConfigError: a threshold or leak out of its range.

    Source: section 1 and Eq. 20 to 30 of arXiv 2411.11082 as quoted by others. That one leak serves a layer is
    published; the granularity of the threshold could not be confirmed, so all three are offered.
    """

    v: Tensor | None
    s: Tensor | None
    threshold_trace: Tensor | None
    leak_trace: Tensor | None

    def __init__(
        self,
        v_threshold: float = 1.0,
        leak: float = 0.5,
        shape: tuple[int, ...] = (),
        surrogate_function: SurrogateFunctionBase | None = None,
        step_mode: str = "s",
    ) -> None:
        super().__init__()
        if not v_threshold > 0:
            raise ConfigError(f"threshold: {v_threshold} is not above 0")
        if not 0 <= leak <= 1:
            raise ConfigError(f"leak: {leak} is outside [0, 1]; it is 1 - 1/tau")
        self.v_threshold = nn.Parameter(torch.full(shape, float(v_threshold)))
        self.leak = nn.Parameter(torch.tensor(float(leak)))
        self.surrogate_function = surrogate_function or Exponential()
        self.step_mode = step_mode
        self.rule: Literal["stop", "bptt"] = "stop"
        self.reduction: Reduction = "mean"
        self.label = "neuron"
        for name in ("v", "s", "threshold_trace", "leak_trace"):
            self.register_memory(name, None)

    def extra_repr(self) -> str:
        return f"shape={tuple(self.v_threshold.shape)}, rule={self.rule}, {super().extra_repr()}"

    def single_step_forward(self, x: Tensor) -> Tensor:
        """Spikes ``[N, *]`` of currents ``[N, *]``.

        Raises:
            SequenceError: the state is of other samples.
        """
        current = x.to(state_dtype(x))
        if self.v is not None:
            require_same_state(self.label, self.v, current)
        if not torch.is_grad_enabled():
            self.s, self.v = self.advance(current, self.v)
            return self.s
        if self.rule == "bptt":
            return self._through_time(current)
        self._update_traces()
        self.s, self.v = fire(
            current, self.v_threshold, self.leak, self.v, (self.threshold_trace, self.leak_trace),
            self.surrogate_function, self.reduction,
        )  # fmt: skip
        spikes, self.s = self.s, self.s.detach()
        return spikes

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        """Spikes ``[T, N, *]`` of currents ``[T, N, *]``."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():  # what is exported writes into no memory
            return torch.stack([self.single_step_forward(x) for x in x_seq])
        return self._fused(x_seq)

    def advance(self, current: Tensor, rest: Tensor | None) -> tuple[Tensor, Tensor]:
        """One step without gradients, traces or state: spikes and the membrane after the reset, each ``[N, *]``.

        Args:
            current: :math:`I[t]`.
            rest: :math:`r[t-1]`; None is zero.
        """
        membrane = current if rest is None else torch.addcmul(current, rest, self.leak)
        spikes = (membrane >= self.v_threshold).to(membrane.dtype)
        return spikes, torch.addcmul(membrane, spikes, self.v_threshold, value=-1)

    @torch.no_grad()
    def _update_traces(self) -> None:
        """Both traces of this step, from what the last one left."""
        if self.v is None or self.s is None:
            return
        if self.v_threshold.requires_grad:
            before = self.threshold_trace
            self.threshold_trace = (self.s.neg() if before is None else before - self.s).mul_(self.leak)
        if self.leak.requires_grad:
            before = self.leak_trace
            self.leak_trace = self.v if before is None else torch.addcmul(self.v, before, self.leak)

    def _through_time(self, current: Tensor) -> Tensor:
        share = self.v_threshold.numel() / current[0].numel() if self.reduction == "mean" else 1.0
        threshold = _with_gradient_times(self.v_threshold, share)
        leak = _with_gradient_times(self.leak, 1 / current[0].numel() if self.reduction == "mean" else 1.0)
        membrane = current if self.v is None else torch.addcmul(current, self.v, leak)
        surrogate = self.surrogate_function
        spikes = surrogate.spiking_function(membrane - threshold, **surrogate._sg_params)
        self.s = spikes.detach()
        self.v = membrane - threshold * self.s
        return spikes

    def _fused(self, currents: Tensor) -> Tensor:
        """All steps without traces and in place, for inference."""
        dtype = state_dtype(currents)
        if self.v is not None:
            require_same_state(self.label, self.v, currents[0])
        spikes, rest = torch.empty_like(currents, dtype=dtype), self.v
        for current, fired in zip(currents.to(dtype), spikes, strict=True):
            membrane = current.clone() if rest is None else torch.addcmul(current, rest, self.leak)
            torch.ge(membrane, self.v_threshold, out=fired)
            rest = membrane.addcmul_(fired, self.v_threshold, value=-1)
        self.v, self.s = rest, spikes[-1]
        return spikes


class LeakyReadout(base.MemoryModule):
    r"""Adds up logits over time and never fires: :math:`R[t] = a R[t-1] + z[t]`, with no graph to an earlier step.

    Args:
        leak: :math:`a`, in [0, 1]; not learned.
        step_mode: ``s`` takes ``[N, C]``, ``m`` takes ``[T, N, C]``.

    Attributes:
        v: :math:`R`.
        label: what errors call the layer.

    Source: the one-shot variant of the public release.
    """

    v: Tensor | None
    leak: Tensor

    def __init__(self, leak: float = 0.5, step_mode: str = "s") -> None:
        super().__init__()
        if not 0 <= leak <= 1:
            raise ConfigError(f"leak: {leak} is outside [0, 1]; it is 1 - 1/tau")
        self.register_buffer("leak", torch.tensor(float(leak)))
        self.register_memory("v", None)
        self.step_mode = step_mode
        self.rule: Literal["stop", "bptt"] = "stop"
        self.label = "readout"

    def single_step_forward(self, x: Tensor) -> Tensor:
        """:math:`R[t]`, shape ``[N, C]``.

        Raises:
            SequenceError: the state is of other samples.
        """
        x = x.to(state_dtype(x))
        if self.v is not None:
            require_same_state(self.label, self.v, x)
        total = x if self.v is None else torch.addcmul(x, self.v, self.leak)
        self.v = total if self.rule == "bptt" else total.detach()
        return total

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        """:math:`R` after each step, shape ``[T, N, C]``."""
        return torch.stack([self.single_step_forward(x) for x in x_seq])


def _with_gradient_times(value: Tensor, factor: float) -> Tensor:
    """``value``, whose gradient is multiplied by ``factor``."""
    return value if factor == 1.0 else value.detach() + (value - value.detach()) * factor
