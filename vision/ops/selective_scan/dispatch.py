"""One scan of channels-last tensors, by the path that was chosen."""

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from vision.ops.selective_scan import backends, lowering, mamba, reference
from vision.ops.selective_scan.errors import BackendError
from vision.ops.selective_scan.operators import NAMESPACE


def widest(first: Tensor, *others: Tensor | None) -> list[Any]:
    """Under autocast, inputs that come in several precisions in the widest of them, else as they are.

    A scan is bound by memory and keeps its state in float32, so that what the layers before it gave is what it takes:
    nothing is narrowed, and nothing but a mixture is widened.
    """
    tensors = [first, *others]
    if not isinstance(first, Tensor) or not torch.is_autocast_enabled(first.device.type):
        return tensors
    dtypes = [t.dtype for t in tensors if isinstance(t, Tensor) and t.is_floating_point()]
    wide = reduce(torch.promote_types, dtypes)
    return [t.to(wide) if isinstance(t, Tensor) and t.is_floating_point() else t for t in tensors]


def operators_of(path: str) -> Any:
    """The operators of a path: the compiled ones, or those in PyTorch that hide the loop from a compiler."""
    return torch.ops.triptych if path == "compiled" else getattr(torch.ops, NAMESPACE)


def wants_gradient(*tensors: Tensor | None) -> bool:
    """Whether what the backward pass needs is to be kept.

    An exported program keeps nothing: it is for inference, and its operators have gradients all the same, at the cost
    of a second forward pass.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_exporting():
        return False
    return any(t is not None and t.requires_grad for t in tensors)


def scan(
    asked: str | None,
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
    """The scan of :func:`vision.ops.selective_scan.reference.selective_scan` by a path, chosen when none was asked for.

    The tensors are those of the reference, checked, with any strides.
    """
    rest = (D, z, delta_bias, initial_state)
    if (form := lowering.form()) is not None:
        return lowering.selective_scan(form, u, delta, A, B, C, *rest, delta_softplus)
    path = backends.choose(asked, u.device.type, u.dtype, A.shape[1])
    if path == "mamba":
        if initial_state is not None:
            raise BackendError("force_backend='mamba': mamba-ssm's kernels take no initial state")
        return mamba.selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    if 0 in u.shape or (path == "reference" and not torch.compiler.is_compiling()):
        y, state = reference.selective_scan(u, delta, A, B, C, *rest, delta_softplus)
        return y, state
    if B.ndim == 2 or C.ndim == 2:
        return _constant(path, u, delta, A, B, C, *rest, delta_softplus)
    return _operate(path, u, delta, A, B, C, *rest, delta_softplus)


def _constant(
    path: str,
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
    """A scan whose B or C does not vary: every channel is a group. In float32, since such parameters are."""
    precision = torch.promote_types(u.dtype, torch.float32)
    size = (u.shape[0], u.shape[1], u.shape[2], A.shape[1])

    def of_channels(t: Tensor) -> Tensor:
        if t.ndim == 4 and t.shape[2] not in (1, size[2]):
            t = t.repeat_interleave(size[2] // t.shape[2], dim=2)
        return t.to(precision).expand(size)

    y, last_state = _operate(
        path,
        u.to(precision),
        delta.to(precision),
        A,
        of_channels(B),
        of_channels(C),
        D,
        None if z is None else z.to(precision),
        delta_bias,
        initial_state,
        delta_softplus,
    )
    return y.to(u.dtype), last_state


def _operate(
    path: str,
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
    operators = operators_of(path)
    precision = torch.promote_types(u.dtype, torch.float32)
    inputs = (
        _by_lines(u),
        _by_lines(delta),
        parameter(A, precision),
        B,
        C,
        None if D is None else parameter(D, precision),
        _by_lines(z),
        None if delta_bias is None else parameter(delta_bias, precision),
        None if initial_state is None else parameter(initial_state, precision),
    )
    if wants_gradient(*inputs):
        y, last_state, _ = operators.selective_scan_fwd(*inputs, delta_softplus)
    else:
        y, last_state = operators.selective_scan(*inputs, delta_softplus)
    return y, last_state


def parameter(t: Tensor, precision: torch.dtype) -> Tensor:
    """A parameter as kernels take it; as it is when it is so already, which is the cheapest."""
    return t if t.dtype == precision and t.is_contiguous() else t.to(precision).contiguous()


def _by_lines(t: Tensor | None) -> Tensor | None:
    """An input whose channels or steps lie side by side in memory, which is all that kernels ask of it."""
    return t if t is None or t.stride(2) == 1 or t.stride(1) == 1 else t.contiguous()
