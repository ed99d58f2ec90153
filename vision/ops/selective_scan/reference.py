"""The selective scan and its four-direction form as readable loops in PyTorch: the oracle of every kernel.

Tensors are channels-last. Everything is computed in float32, or in float64 when the input is; gradients are autograd's,
of any order.
"""

import torch
from torch import Tensor
from torch.nn.functional import silu, softplus

from vision.ops.cross_scan import cross_merge, cross_order, cross_scan

SCAN_CHUNK = 64


def selective_scan(
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
) -> tuple[Tensor, Tensor]:
    r"""The recurrence of a diagonal state space model whose parameters vary from step to step.

    .. math::
        \Delta_l &= \mathrm{softplus}(\delta_l + b) \\
        h_l &= e^{\Delta_l A} h_{l-1} + \Delta_l u_l B_l \\
        y_l &= \Bigl(\sum_n C_{l,n} h_{l,n} + D u_l\Bigr) \, \mathrm{silu}(z_l)

    Letters: N batch, L steps, D channels, S states of a channel, G groups of channels that share B and C (in this
    order: channel d belongs to group ``d // (D / G)``).

    Args:
        u: input, shape ``[N, L, D]``.
        delta: step sizes before bias and softplus, shape ``[N, L, D]``.
        A: shape ``[D, S]``; negative for a state that decays.
        B: shape ``[N, L, G, S]``, or ``[D, S]`` when it does not vary.
        C: shape ``[N, L, G, S]``, or ``[D, S]`` when it does not vary.
        D: skip weights, shape ``[D]``; none without it.
        z: gate, shape ``[N, L, D]``; none without it.
        delta_bias: b, shape ``[D]``; none without it.
        initial_state: :math:`h_0`, shape ``[N, D, S]``; zero without it.
        delta_softplus: whether the softplus is taken.

    Returns:
        y of shape ``[N, L, D]`` and dtype of ``u``, and the last state ``[N, D, S]`` in float32 (float64 for such
        ``u``).

    Source: Gu & Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", arXiv 2312.00752, algorithm 2;
    B is discretised as :math:`\Delta B`, as in its released code.
    """
    states = all_states(u, delta, A, B, delta_bias, initial_state, delta_softplus)
    y = (states[:, 1:] * of_channels(C, u.shape[2]).to(states.dtype)).sum(-1)
    if D is not None:
        y = y + D.to(y.dtype) * u.to(y.dtype)
    if z is not None:
        y = y * silu(z.to(y.dtype))
    return y.to(u.dtype), states[:, -1].clone()


def all_states(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    delta_bias: Tensor | None = None,
    initial_state: Tensor | None = None,
    delta_softplus: bool = False,
) -> Tensor:
    """Every state of :func:`selective_scan`, the initial one first: shape ``[N, L + 1, D, S]``."""
    precision = torch.promote_types(u.dtype, torch.float32)
    step = delta.to(precision) if delta_bias is None else delta.to(precision) + delta_bias.to(precision)
    step = softplus(step) if delta_softplus else step
    decays = torch.exp(step[..., None] * A.to(precision))
    driven = (step * u.to(precision))[..., None] * of_channels(B, u.shape[2]).to(precision)
    if initial_state is None:
        state = decays.new_zeros(u.shape[0], u.shape[2], A.shape[1])
    else:
        state = initial_state.to(precision)
    states = [state]
    # unbind, not indexing: its backward is one stack, where that of an index is a zero-filled tensor for every step
    for decay, drive in zip(decays.unbind(1), driven.unbind(1), strict=True):
        state = decay * state + drive
        states.append(state)
    return torch.stack(states, dim=1)


def of_channels(shared: Tensor, channels: int) -> Tensor:
    """B or C beside channels: ``[N, L, G, S]`` to ``[N, L, D, S]`` or what broadcasts to it; ``[D, S]`` as it is."""
    if shared.ndim == 2 or shared.shape[2] in (1, channels):
        return shared
    return shared.repeat_interleave(channels // shared.shape[2], dim=2)


def chunk_states(states: Tensor) -> Tensor:
    """Of :func:`all_states`, those before each chunk of ``SCAN_CHUNK`` steps: shape ``[N, ceil(L / 64), D, S]``."""
    return states[:, :-1:SCAN_CHUNK].clone()


def ss2d(
    x: Tensor,
    dts: Tensor,
    dt_weight: Tensor | None,
    dt_bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    height: int,
    width: int,
) -> Tensor:
    r"""Four selective scans over the positions of an image, summed; by materialised copies.

    .. math:: \delta_{k} = W_k \, r_k, \quad y = \sum_k \mathrm{merge}_k \, \mathrm{scan}(\mathrm{order}_k(x, \ldots))

    Letters: N batch, L = H * W positions in row-major order, D channels, K = 4 directions in the order of
    :mod:`vision.ops.cross_scan`, R rank of the step sizes, S states of a channel.

    Args:
        x: shape ``[N, L, D]``.
        dts: :math:`r`, shape ``[N, L, K, R]``; the step sizes themselves, ``[N, L, K, D]``, without ``dt_weight``.
        dt_weight: :math:`W`, shape ``[K, D, R]``.
        dt_bias: added before the softplus, which is always taken; shape ``[K, D]``.
        A: shape ``[K, D, S]``.
        B: shape ``[N, L, K, S]``.
        C: shape ``[N, L, K, S]``.
        D: skip weights, shape ``[K, D]``.
        height: H, rows.
        width: W, columns.

    Returns:
        Shape ``[N, L, D]``, dtype of ``x``.

    Source: SS2D of VMamba (Liu et al., NeurIPS 2024, arXiv 2401.10166).
    """
    u, delta, A_rows, B_ordered, bias = _four_sequences(x, dts, dt_weight, dt_bias, A, B, height, width)
    y, _ = selective_scan(
        u,
        delta,
        A_rows,
        B_ordered,
        cross_order(C.to(u.dtype), height, width),
        D=None if D is None else D.flatten(),
        delta_bias=bias,
        delta_softplus=True,
    )
    return cross_merge(y.unflatten(2, (A.shape[0], -1)), height, width).to(x.dtype)


def ss2d_chunk_states(
    x: Tensor,
    dts: Tensor,
    dt_weight: Tensor | None,
    dt_bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    height: int,
    width: int,
) -> Tensor:
    """Of :func:`ss2d`, the states before each chunk of ``SCAN_CHUNK`` steps: shape ``[N, K, ceil(L / 64), D, S]``."""
    u, delta, A_rows, B_ordered, bias = _four_sequences(x, dts, dt_weight, dt_bias, A, B, height, width)
    states = chunk_states(all_states(u, delta, A_rows, B_ordered, bias, delta_softplus=True))
    return states.unflatten(2, (A.shape[0], -1)).transpose(1, 2).contiguous()


def _four_sequences(
    x: Tensor,
    dts: Tensor,
    dt_weight: Tensor | None,
    dt_bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """The four scans of :func:`ss2d` as one of ``K * D`` channels in K groups: u, delta, A, B and the bias of delta."""
    precision = torch.promote_types(x.dtype, torch.float32)
    delta = dts.to(precision)
    if dt_weight is not None:
        delta = torch.einsum("nlkr,kdr->nlkd", delta, dt_weight.to(precision))
    return (
        cross_scan(x.to(precision), height, width).flatten(2),
        cross_order(delta, height, width).flatten(2),
        A.flatten(0, 1),
        cross_order(B.to(precision), height, width),
        None if dt_bias is None else dt_bias.flatten(),
    )
