"""The selective scan with mamba-ssm's arguments, and its single step."""

from torch import Tensor

from vision.ops.selective_scan.checks import check_scan, check_update
from vision.ops.selective_scan.dispatch import scan, widest


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    initial_state: Tensor | None = None,
    layout: str = "bdl",
    force_backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""The recurrence of a diagonal state space model whose parameters vary from step to step.

    .. math::
        \Delta_l &= \mathrm{softplus}(\delta_l + b) \\
        h_l &= e^{\Delta_l A} h_{l-1} + \Delta_l u_l B_l \\
        y_l &= \Bigl(\sum_s C_{l,s} h_{l,s} + D u_l\Bigr) \, \mathrm{silu}(z_l)

    Letters: N batch, D channels, L steps, S states of a channel, G groups of channels that share B and C (channel d
    belongs to group ``d // (D / G)``). The state is float32 whatever the inputs are, float64 for float64 inputs.
    Arguments up to ``return_last_state`` are those of mamba-ssm's ``selective_scan_fn``, in its order and with its
    meaning.

    Args:
        u: input, shape ``[N, D, L]``, or ``[N, L, D]`` with ``layout="bld"``; float32, float16, bfloat16 or float64;
            any strides.
        delta: step sizes before bias and softplus; shape and dtype of ``u``.
        A: shape ``[D, S]``, float32; negative for a state that decays.
        B: shape ``[N, S, L]`` or ``[N, G, S, L]`` (``[N, L, S]`` or ``[N, L, G, S]``), dtype of ``u``; or ``[D, S]``,
            float32, when it does not vary.
        C: as ``B``.
        D: skip weights, shape ``[D]``, float32; none without it.
        z: gate; shape and dtype of ``u``; none without it.
        delta_bias: b, shape ``[D]``, float32; none without it.
        delta_softplus: whether the softplus is taken.
        return_last_state: whether the last state is returned too.
        initial_state: :math:`h_0`, shape ``[N, D, S]``, float32; zero without it.
        layout: ``"bdl"`` or ``"bld"``. The second is what linear layers give, and what the kernels are fastest with.
        force_backend: ``compiled``, ``mamba`` or ``reference``; the choice of
            :func:`~vision.ops.selective_scan.backends.backend` without it.

    Returns:
        y with shape and dtype of ``u``; with ``return_last_state`` also :math:`h_L`, shape ``[N, D, S]``, float32.

    Raises:
        ScanError: arguments that do not fit together; the message names all of them.
        BackendError: a path that was asked for and cannot run.

    Source: Gu & Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", arXiv 2312.00752, algorithm 2.

    Deviation: B is discretised as :math:`\Delta B`, as in the released code of Mamba; the paper's zero-order hold is
    used for A only.

    Example:
        >>> import torch
        >>> ones = torch.ones(1, 1, 4)
        >>> selective_scan(ones, ones, A=torch.zeros(1, 1), B=ones, C=ones)
        tensor([[[1., 2., 3., 4.]]])
    """
    u, delta, z, B, C = widest(u, delta, z, B, C)
    check_scan(u, delta, A, B, C, D, z, delta_bias, initial_state, layout)
    if layout == "bdl":
        u, delta = u.transpose(1, 2), delta.transpose(1, 2)
        z = None if z is None else z.transpose(1, 2)
    B, C = _in_groups(B, layout), _in_groups(C, layout)
    y, last_state = scan(force_backend, u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus)
    y = y.transpose(1, 2) if layout == "bdl" else y
    return (y, last_state) if return_last_state else y


def _in_groups(shared: Tensor, layout: str) -> Tensor:
    """B or C as ``[N, L, G, S]``; one that does not vary as it is."""
    if shared.ndim == 2:
        return shared
    if shared.ndim == 3:
        shared = shared.unsqueeze(1 if layout == "bdl" else 2)
    return shared.permute(0, 3, 1, 2) if layout == "bdl" else shared


def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    force_backend: str | None = None,
) -> Tensor:
    r"""One step of :func:`selective_scan`, for inputs that come one after another; arguments as in mamba-ssm.

    Letters: N batch, D channels, S states of a channel, G groups of channels that share B and C.

    Args:
        state: :math:`h_{l-1}`, shape ``[N, D, S]``; **overwritten** with :math:`h_l`. Keep it in float32: whatever it
            is rounded to, is what the next step begins with.
        x: input, shape ``[N, D]``.
        dt: step sizes before bias and softplus, shape ``[N, D]``.
        A: shape ``[D, S]``.
        B: shape ``[N, S]`` or ``[N, G, S]``.
        C: as ``B``.
        D: skip weights, shape ``[D]``; none without it.
        z: gate, shape ``[N, D]``; none without it.
        dt_bias: shape ``[D]``; none without it.
        dt_softplus: whether the softplus is taken.
        force_backend: as for :func:`selective_scan`.

    Returns:
        y, with shape and dtype of ``x``.

    Raises:
        ScanError: arguments that do not fit together; the message names all of them.
        BackendError: a path that was asked for and cannot run.

    Source: as :func:`selective_scan`.

    Example:
        >>> import torch
        >>> state = torch.full((1, 1, 1), 2.0)
        >>> ones = torch.ones(1, 1)
        >>> selective_state_update(state, ones, ones, A=torch.zeros(1, 1), B=ones, C=ones), state
        (tensor([[3.]]), tensor([[[3.]]]))
    """
    x, dt, z, B, C = widest(x, dt, z, B, C)
    check_update(state, x, dt, A, B, C, D, z, dt_bias)
    B, C = (t.unsqueeze(1) if t.ndim == 3 else t[:, None, None] for t in (B, C))
    y, last_state = scan(
        force_backend,
        x.unsqueeze(1),
        dt.unsqueeze(1),
        A,
        B,
        C,
        D,
        None if z is None else z.unsqueeze(1),
        dt_bias,
        state,
        dt_softplus,
    )
    state.copy_(last_state)
    return y.squeeze(1)
