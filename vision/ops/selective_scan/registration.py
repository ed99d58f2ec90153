"""What PyTorch has to know of the operators beside their kernels: shapes and strides, gradients, and no vmap."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vision.ops.selective_scan.errors import ScanError
from vision.ops.selective_scan.library import LIBRARY
from vision.ops.selective_scan.operators import NAMESPACE
from vision.ops.selective_scan.reference import SCAN_CHUNK
from vision.ops.selective_scan.schemas import SCHEMAS

Maybe = Tensor | None
Gradients = tuple[Tensor | None, ...]


def _chunks(length: int) -> int:
    return (length + SCAN_CHUNK - 1) // SCAN_CHUNK


def _floats(like: Tensor, *shape: int) -> Tensor:
    """What is computed in: float32, or float64 for such inputs."""
    return like.new_empty(shape, dtype=torch.promote_types(like.dtype, torch.float32))


# ---- shapes and strides, without values ------------------------------------------------------------------------------


def _fake_scan(u: Tensor, delta: Tensor, A: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(u), _floats(u, u.shape[0], u.shape[2], A.shape[1])


def _fake_scan_fwd(u: Tensor, delta: Tensor, A: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return *_fake_scan(u, delta, A), _floats(u, u.shape[0], _chunks(u.shape[1]), u.shape[2], A.shape[1])


def _fake_scan_bwd(
    grad_y: Tensor,
    grad_last_state: Maybe,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Maybe,
    z: Maybe,
    delta_bias: Maybe,
    initial_state: Maybe,
    *rest: Any,
) -> tuple[Tensor, ...]:
    def of(t: Maybe) -> Tensor:
        return _floats(u, 0) if t is None else t.new_empty(t.shape)

    dz = u.new_empty(0) if z is None else torch.empty_like(z)
    return (
        torch.empty_like(u), torch.empty_like(delta), of(A), of(B), of(C), of(D), dz, of(delta_bias), of(initial_state)
    )  # fmt: skip


def _fake_ss2d(x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape)


def _fake_ss2d_fwd(
    x: Tensor, dts: Tensor, dt_weight: Tensor, dt_bias: Tensor, A: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    directions, channels, states = A.shape
    return x.new_empty(x.shape), _floats(x, x.shape[0], directions, _chunks(x.shape[1]), channels, states)


def _fake_ss2d_bwd(
    grad_y: Tensor,
    x: Tensor,
    dts: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    *rest: Any,
) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (x, dts, dt_weight, dt_bias, A, B, C, D))


_FAKES: dict[str, Callable[..., Any]] = {
    "selective_scan": _fake_scan,
    "selective_scan_fwd": _fake_scan_fwd,
    "selective_scan_bwd": _fake_scan_bwd,
    "ss2d": _fake_ss2d,
    "ss2d_fwd": _fake_ss2d_fwd,
    "ss2d_bwd": _fake_ss2d_bwd,
}


# ---- gradients -------------------------------------------------------------------------------------------------------


def _scan_gradients(operators: Any, recompute: bool) -> tuple[Callable[..., Gradients], Callable[..., None]]:
    """Backward and set-up of a scan; with ``recompute`` of the operator that saves no states."""

    def set_up(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.delta_softplus = inputs
        ctx.save_for_backward(*tensors, None if recompute else output[2])
        ctx.set_materialize_grads(False)
        if not recompute:
            ctx.mark_non_differentiable(output[2])

    def backward(ctx: Any, grad_y: Maybe, grad_last_state: Maybe, *of_states: Maybe) -> Gradients:
        *inputs, states = ctx.saved_tensors
        u = inputs[0]
        if grad_y is None and grad_last_state is None:
            return (None,) * (len(inputs) + 1)
        if states is None:
            states = operators.selective_scan_fwd(*inputs, ctx.delta_softplus)[2]
        grad_y = torch.zeros_like(u) if grad_y is None else laid_out_as(grad_y, u)
        last = None if grad_last_state is None else grad_last_state.contiguous()
        found = operators.selective_scan_bwd(
            grad_y, last, *inputs, states, ctx.delta_softplus, torch.are_deterministic_algorithms_enabled()
        )
        wanted = zip(found, inputs, ctx.needs_input_grad, strict=False)
        return (*(g if t is not None and needed else None for g, t, needed in wanted), None)

    return backward, set_up


def laid_out_as(t: Tensor, other: Tensor) -> Tensor:
    """A tensor of shape ``[N, L, D]`` with the axis innermost in memory that is so in another."""
    if other.stride(2) == 1:
        return t if t.stride(2) == 1 else t.contiguous()
    if other.stride(1) == 1:
        return t if t.stride(1) == 1 else t.transpose(1, 2).contiguous().transpose(1, 2)
    return t.contiguous()


def _ss2d_gradients(operators: Any, recompute: bool) -> tuple[Callable[..., Gradients], Callable[..., None]]:
    """Backward and set-up of a four-direction scan; with ``recompute`` of the operator that saves no states."""

    def set_up(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *tensors, ctx.height, ctx.width = inputs
        ctx.save_for_backward(*tensors, None if recompute else output[1])
        ctx.set_materialize_grads(False)
        if not recompute:
            ctx.mark_non_differentiable(output[1])

    def backward(ctx: Any, grad_y: Maybe, *of_states: Maybe) -> Gradients:
        *inputs, states = ctx.saved_tensors
        if grad_y is None:
            return (None,) * (len(inputs) + 2)
        if states is None:
            states = operators.ss2d_fwd(*inputs, ctx.height, ctx.width)[1]
        deterministic = torch.are_deterministic_algorithms_enabled()
        found = operators.ss2d_bwd(grad_y.contiguous(), *inputs, states, ctx.height, ctx.width, deterministic)
        wanted = zip(found, ctx.needs_input_grad, strict=False)
        return (*(g if needed else None for g, needed in wanted), None, None)

    return backward, set_up


def _no_second_derivative(ctx: Any, *gradients: Maybe) -> Gradients:
    raise ScanError(
        "selective scan: the kernels have no second derivative; take it by the PyTorch path, force_backend='reference'"
    )


def _keep_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    return None


# ---- vmap ------------------------------------------------------------------------------------------------------------


def _no_vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
    raise ScanError(
        "selective scan: the kernels cannot run under vmap; their first axis is a batch already, so fold the mapped "
        "axis into it, or use the PyTorch path, force_backend='reference'"
    )


def register(namespace: str) -> None:
    """Registers fakes, gradients and the refusal of vmap for the operators of a namespace."""
    operators = getattr(torch.ops, namespace)
    for name in SCHEMAS:
        torch.library.register_fake(f"{namespace}::{name}", _FAKES[name])
        torch.library.register_vmap(f"{namespace}::{name}", _no_vmap)
    for prefix, gradients in (("selective_scan", _scan_gradients), ("ss2d", _ss2d_gradients)):
        for suffix in ("", "_fwd"):
            backward, set_up = gradients(operators, recompute=suffix == "")
            torch.library.register_autograd(f"{namespace}::{prefix}{suffix}", backward, setup_context=set_up)
        refuse = f"{namespace}::{prefix}_bwd"
        torch.library.register_autograd(refuse, _no_second_derivative, setup_context=_keep_nothing)


register(NAMESPACE)
if LIBRARY.loaded:
    register("triptych")
