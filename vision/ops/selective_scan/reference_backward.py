"""The gradients of the reference, written out: what kernels compute, and what a compiler can run without autograd."""

import torch
from torch import Tensor
from torch.nn.functional import silu, softplus

from vision.ops.cross_scan import cross_merge, cross_order, cross_scan, cross_unorder
from vision.ops.selective_scan.reference import all_states, of_channels

Gradients = dict[str, Tensor | None]


def selective_scan_backward(
    grad_y: Tensor,
    grad_last_state: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    initial_state: Tensor | None = None,
    delta_softplus: bool = False,
) -> Gradients:
    r"""Gradients of a loss with respect to every input of :func:`vision.ops.selective_scan.reference.selective_scan`.

    With :math:`\bar y_l` the gradient of the loss before the gate, and :math:`g_l` that with respect to :math:`h_l`:

    .. math::
        g_l &= \bar y_l C_l + e^{\Delta_{l+1} A} g_{l+1}, \qquad g_L \mathrel{+}= \bar h_L \\
        \bar\Delta_l &= \textstyle\sum_s g_{l,s} (A_s e^{\Delta_l A_s} h_{l-1,s} + u_l B_{l,s}) \\
        \bar u_l &= D \bar y_l + \Delta_l \textstyle\sum_s g_{l,s} B_{l,s}, \qquad
        \bar A = \textstyle\sum_l g_l \Delta_l e^{\Delta_l A} h_{l-1}

    and for B and C the sums of :math:`g_l \Delta_l u_l` and :math:`\bar y_l h_l` over the channels of a group.

    Args:
        grad_y: gradient with respect to y, shape ``[N, L, D]``.
        grad_last_state: gradient with respect to the last state, shape ``[N, D, S]``; none without it.
        u: input of the scan, as are the arguments after it.
        delta: step sizes, shape ``[N, L, D]``.
        A: shape ``[D, S]``.
        B: shape ``[N, L, G, S]``.
        C: shape ``[N, L, G, S]``.
        D: shape ``[D]``, or absent.
        z: shape ``[N, L, D]``, or absent.
        delta_bias: shape ``[D]``, or absent.
        initial_state: shape ``[N, D, S]``, or absent.
        delta_softplus: whether the softplus was taken.

    Returns:
        By name, in the order of the inputs, with their shapes and dtypes; None for one that is absent.
    """
    precision = torch.promote_types(u.dtype, torch.float32)
    wide_u, raw = u.to(precision), delta.to(precision)
    raw = raw if delta_bias is None else raw + delta_bias.to(precision)
    step = softplus(raw) if delta_softplus else raw
    states = all_states(u, delta, A, B, delta_bias, initial_state, delta_softplus)
    of_B, of_C = (of_channels(t, u.shape[2]).to(precision) for t in (B, C))

    grad_scan = grad_y.to(precision)
    dz = None
    if z is not None:
        gate = z.to(precision)
        y = (states[:, 1:] * of_C).sum(-1) + (0 if D is None else D.to(precision) * wide_u)
        slope = gate.sigmoid() * (1 + gate * (1 - gate.sigmoid()))
        dz = (grad_scan * y * slope).to(z.dtype)
        grad_scan = grad_scan * silu(gate)

    decays = torch.exp(step[..., None] * A.to(precision))
    grads, first = _backwards(grad_scan[..., None] * of_C, decays, grad_last_state)
    carried = grads * decays * states[:, :-1]
    dstep = (carried * A.to(precision)).sum(-1) + wide_u * (grads * of_B).sum(-1)
    ddelta = dstep * raw.sigmoid() if delta_softplus else dstep
    du = step * (grads * of_B).sum(-1) + (0 if D is None else D.to(precision) * grad_scan)
    return {
        "u": du.to(u.dtype),
        "delta": ddelta.to(delta.dtype),
        "A": (carried * step[..., None]).sum((0, 1)).to(A.dtype),
        "B": _over_groups(grads * (step * wide_u)[..., None], B).to(B.dtype),
        "C": _over_groups(grad_scan[..., None] * states[:, 1:], C).to(C.dtype),
        "D": None if D is None else (grad_scan * wide_u).sum((0, 1)).to(D.dtype),
        "z": dz,
        "delta_bias": None if delta_bias is None else ddelta.sum((0, 1)).to(delta_bias.dtype),
        "initial_state": None if initial_state is None else first.to(initial_state.dtype),
    }


def _backwards(given: Tensor, decays: Tensor, last: Tensor | None) -> tuple[Tensor, Tensor]:
    """:math:`g_l` of every step, ``[N, L, D, S]``, and that of the initial state."""
    carried = torch.zeros_like(given[:, 0]) if last is None else last.to(given.dtype)
    grads = []
    for own, decay in zip(reversed(given.unbind(1)), reversed(decays.unbind(1)), strict=True):
        grads.append(own + carried)
        carried = decay * grads[-1]
    return torch.stack(grads[::-1], dim=1), carried


def _over_groups(of_channels: Tensor, shared: Tensor) -> Tensor:
    """The sum of ``[N, L, D, S]`` over the channels of each group."""
    return of_channels.unflatten(2, (shared.shape[2], -1)).sum(3)


def ss2d_backward(
    grad_y: Tensor,
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
) -> Gradients:
    """Gradients with respect to every input of :func:`vision.ops.selective_scan.reference.ss2d`, by name, in order."""
    directions, precision = A.shape[0], torch.promote_types(x.dtype, torch.float32)
    low, weight = dts.to(precision), dt_weight.to(precision)
    delta = torch.einsum("nlkr,kdr->nlkd", low, weight)
    found = selective_scan_backward(
        cross_scan(grad_y.to(precision), height, width).flatten(2),
        None,
        cross_scan(x.to(precision), height, width).flatten(2),
        cross_order(delta, height, width).flatten(2),
        A.flatten(0, 1),
        cross_order(B.to(precision), height, width),
        cross_order(C.to(precision), height, width),
        D.flatten(),
        delta_bias=dt_bias.flatten(),
        delta_softplus=True,
    )

    def of(name: str) -> Tensor:
        gradient = found[name]
        assert gradient is not None  # none of these inputs is absent
        return gradient

    ddelta = cross_unorder(of("delta").unflatten(2, (directions, -1)), height, width)
    return {
        "x": cross_merge(of("u").unflatten(2, (directions, -1)), height, width).to(x.dtype),
        "dts": torch.einsum("nlkd,kdr->nlkr", ddelta, weight).to(dts.dtype),
        "dt_weight": torch.einsum("nlkd,nlkr->kdr", ddelta, low).to(dt_weight.dtype),
        "dt_bias": of("delta_bias").unflatten(0, (directions, -1)),
        "A": of("A").unflatten(0, (directions, -1)),
        "B": cross_unorder(of("B"), height, width).to(B.dtype),
        "C": cross_unorder(of("C"), height, width).to(C.dtype),
        "D": of("D").unflatten(0, (directions, -1)),
    }
