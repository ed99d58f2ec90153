"""The operators in PyTorch, as ``triptych_reference``: what a compiler sees where the compiled kernels do not run.

The reference loop has one node for every step, so that tracing it is slow and the graph is long; these operators hide
it from whoever traces. Same signatures and same results as the compiled ones; float64 too. Called by hand, the loop
itself serves better: it has gradients of any order.
"""

import torch
from torch import Tensor

from vision.ops.selective_scan import reference
from vision.ops.selective_scan.reference import all_states, chunk_states
from vision.ops.selective_scan.reference_backward import selective_scan_backward, ss2d_backward
from vision.ops.selective_scan.schemas import SCHEMAS

NAMESPACE = "triptych_reference"

Tensors = tuple[Tensor, ...]


def _scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    y, last_state = reference.selective_scan(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus)
    return _like(u, y), last_state


def _scan_fwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    y, last_state = _scan(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus)
    states = all_states(u, delta, A, B, delta_bias, initial_state, delta_softplus)
    return y, last_state, chunk_states(states)


def _scan_bwd(
    grad_y: Tensor,
    grad_last_state: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    states: Tensor,
    delta_softplus: bool,
    deterministic: bool,
) -> Tensors:
    inputs = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    found = selective_scan_backward(grad_y, grad_last_state, *inputs, delta_softplus)
    strided = {"u": u, "delta": delta, "z": z}
    return tuple(
        u.new_empty(0) if name == "z" and z is None else _owned(u, gradient, strided.get(name))
        for name, gradient in found.items()
    )


def _owned(u: Tensor, gradient: Tensor | None, like: Tensor | None = None) -> Tensor:
    """A gradient in memory of its own, contiguous or strided like a tensor; empty for an input that is absent."""
    if gradient is None:
        return u.new_empty(0, dtype=torch.promote_types(u.dtype, torch.float32))
    return gradient.clone(memory_format=torch.contiguous_format) if like is None else _like(like, gradient)


def _like(t: Tensor, values: Tensor) -> Tensor:
    """The values with the strides that a kernel would give them, those of ``t``."""
    return torch.empty_like(t).copy_(values)


def _ss2d(
    x: Tensor,
    dts: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    height: int,
    width: int,
) -> Tensor:
    return reference.ss2d(x, dts, dt_weight, dt_bias, A, B, C, D, height, width).contiguous()


def _ss2d_fwd(
    x: Tensor,
    dts: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    y = _ss2d(x, dts, dt_weight, dt_bias, A, B, C, D, height, width)
    return y, reference.ss2d_chunk_states(x, dts, dt_weight, dt_bias, A, B, height, width)


def _ss2d_bwd(
    grad_y: Tensor,
    x: Tensor,
    dts: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    states: Tensor,
    height: int,
    width: int,
    deterministic: bool,
) -> Tensors:
    found = ss2d_backward(grad_y, x, dts, dt_weight, dt_bias, A, B, C, D, height, width)
    return tuple(_owned(x, gradient) for gradient in found.values())


_IMPLEMENTATIONS = {
    "selective_scan": _scan,
    "selective_scan_fwd": _scan_fwd,
    "selective_scan_bwd": _scan_bwd,
    "ss2d": _ss2d,
    "ss2d_fwd": _ss2d_fwd,
    "ss2d_bwd": _ss2d_bwd,
}

_library = torch.library.Library(NAMESPACE, "DEF")  # its operators live as long as this object
for _name, _implementation in _IMPLEMENTATIONS.items():
    _library.define(f"{_name}{SCHEMAS[_name]}")
    _library.impl(_name, _implementation, "CompositeExplicitAutograd")
