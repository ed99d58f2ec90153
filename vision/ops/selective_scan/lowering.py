"""The selective scan in operators of ONNX: what an exporter to ONNX sees instead of the kernels.

Three forms. ``scan`` is ONNX's own ``Scan``, one step after another: the smallest model, with any length. ``chunked``
cuts the sequence into chunks, scans all of them side by side, then carries the states from chunk to chunk: for runtimes
where the number of steps one after another is what costs, such as those on a GPU. ``node`` is one node
``triptych::SelectiveScan`` for those who bring an implementation of it to their runtime.
"""

from types import TracebackType

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan_op
from torch.nn.functional import pad, silu, softplus

from vision.engine.errors import nearest
from vision.ops.selective_scan.errors import ScanError

FORMS = ("scan", "chunked", "node")
CHUNK = 32  # steps; L of them one after another become CHUNK + L / CHUNK

NODE = "triptych::SelectiveScan"

_form: str | None = None
_chunk: int = CHUNK


class onnx_form:
    """Chooses the form that scans have in ONNX models, until the end of the ``with`` block.

    Without it ``torch.onnx.export(..., dynamo=True)`` gets the form ``scan``. Within the block scans take the chosen
    form whoever calls, so that ``torch.export`` and the module itself show what will be exported.

    Args:
        form: ``scan``, ``chunked`` or ``node``.
        chunk: of the form ``chunked``: steps of a chunk; near the square root of the length is best.

    Raises:
        ScanError: an unknown form, or a chunk of less than one step.

    Example:
        >>> from vision.ops.selective_scan import selective_scan
        >>> ones = torch.ones(1, 1, 4)
        >>> with onnx_form("chunked", chunk=2):
        ...     selective_scan(ones, ones, A=torch.zeros(1, 1), B=ones, C=ones)
        tensor([[[1., 2., 3., 4.]]])
    """

    def __init__(self, form: str, chunk: int = CHUNK) -> None:
        if form not in FORMS:
            raise ScanError(f"onnx_form: got {form!r}, expected one of {', '.join(FORMS)}{nearest(str(form), FORMS)}")
        if chunk < 1:
            raise ScanError(f"onnx_form: chunk is {chunk}, expected at least 1")
        self._now = (form, chunk)
        self._before = (_form, _chunk)

    def __enter__(self) -> None:
        global _form, _chunk
        self._before = (_form, _chunk)
        _form, _chunk = self._now

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        global _form, _chunk
        _form, _chunk = self._before


def form() -> str | None:
    """The form that a scan has to take now; None outside of an export to ONNX."""
    if _form is not None:
        return _form
    return "scan" if torch.onnx.is_in_onnx_export() else None


def selective_scan(
    form: str,
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
    """The scan of :func:`vision.ops.selective_scan.reference.selective_scan` in a form for ONNX; without gradients."""
    inputs = [None if t is None else t.detach() for t in (u, delta, A, B, C, D, z, delta_bias, initial_state)]
    if form == "node":
        return _node(inputs, u, A, delta_softplus)
    precision = torch.promote_types(u.dtype, torch.float32)
    u_, delta_, A_, B_, C_, D_, z_, bias, first = (None if t is None else t.to(precision) for t in inputs)
    assert u_ is not None and delta_ is not None and A_ is not None and B_ is not None and C_ is not None
    step = delta_ if bias is None else delta_ + bias
    step = _softplus(step) if delta_softplus else step
    B_, C_ = _same_groups(B_, C_, u_)
    if first is None:
        first = u_.new_zeros(u.shape[0], u.shape[2], A.shape[1])
    y, last_state = _recurrence(form, step, u_, A_, B_, C_, first)
    y = y if D_ is None else y + D_ * u_
    y = y if z_ is None else y * silu(z_)
    return y.to(u.dtype), last_state


_ARTANH = (0.28157778363884744, 0.2796515774562211, 0.40024595230610005, 0.6666632164138218, 2.000000007681758)
r"""Interpolates :math:`2\operatorname{artanh}(\sqrt q) / \sqrt q` on [0, 1/9]: within 4e-9, by Chebyshev's points."""


def _softplus(x: Tensor) -> Tensor:
    r""":math:`\max(x, 0) + \log(1 + t)` with :math:`t = e^{-|x|}`, to float32's rounding.

    The logarithm is :math:`2 \operatorname{artanh} s` with :math:`s = t / (2 + t)`, at most 1/3, as a polynomial: ONNX
    Runtime takes 10 ns an element for its own ``Softplus`` on a CPU, and a tenth of one for each of these operators,
    but 6 where the last axis has size 1: give it none.
    """
    if x.dtype == torch.float64:
        return softplus(x)
    small = torch.exp(-x.abs())
    s = small / (small + 2)
    square = s * s
    found = square * _ARTANH[0] + _ARTANH[1]
    for coefficient in _ARTANH[2:]:
        found = found * square + coefficient
    return torch.relu(x) + s * found


def _same_groups(B: Tensor, C: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """B and C as ``[N, L, G, S]``; every channel is a group when one of them does not vary."""
    if B.ndim == C.ndim == 4:
        return B, C
    size = (*u.shape, B.shape[-1])

    def of_channels(t: Tensor) -> Tensor:
        if t.ndim == 4 and t.shape[2] not in (1, size[2]):
            t = t.repeat_interleave(size[2] // t.shape[2], dim=2)
        return t.expand(size)

    return of_channels(B), of_channels(C)


def _recurrence(
    form: str, step: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor, first: Tensor
) -> tuple[Tensor, Tensor]:
    """``[N, L, D]`` and the last state ``[N, D, S]``; groups become an axis, P channels in each."""
    groups = B.shape[2]
    step, u = (t.unflatten(2, (groups, -1)).unsqueeze(-1) for t in (step, u))  # [N, L, G, P, 1]
    A, first = A.unflatten(0, (groups, -1)), first.unflatten(1, (groups, -1))  # [G, P, S], [N, G, P, S]
    B, C = B.unsqueeze(3), C.unsqueeze(3)  # [N, L, G, 1, S]
    if form == "chunked":
        y, last = _in_chunks(step, u, A, B, C, first)
    else:
        step, u, B, C = (t.movedim(1, 0) for t in (step, u, B, C))
        y, last = (_one_state if A.shape[2] == 1 else _many_states)(step, u, A, B, C, first)
        y = y.movedim(0, 1)
    return y.flatten(2), last.flatten(1, 2)


def _linear(decay: Tensor, drive: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """Every state of ``h_l = decay_l h_{l-1} + drive_l`` along the first axis, and the last."""

    def one_step(state: Tensor, decay: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
        state = decay * state + drive
        return state, state.clone()

    last, states = scan_op(one_step, [first], [decay, drive], ())
    return states, last


def _one_state(step: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """S = 1: a step is one multiplication and one addition, everything else is done for all steps at once."""
    states, last = _linear(torch.exp(step * A), step * u * B, first)
    return (states * C).squeeze(-1), last


def _many_states(step: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """S > 1: a step computes its own decay, so that nothing of size ``L * D * S`` is ever in memory."""

    def one_step(state: Tensor, step: Tensor, driven: Tensor, B: Tensor, C: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.exp(step * A) * state + driven @ B
        return state, state @ C

    last, y = scan_op(one_step, [first], [step, step * u, B, C.transpose(-1, -2)], (A,))
    return y.squeeze(-1), last


def _in_chunks(step: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """Three passes: the steps of all chunks side by side from a zero state, the states between chunks, their effect.

    What a chunk makes of the state before it is a factor, ``exp(A sum(step))``; steps of size 0, which leave a state as
    it is, fill the last chunk.
    """
    length = step.shape[1]
    chunks = (length + _chunk - 1) // _chunk
    missing = chunks * _chunk - length

    def cut(t: Tensor) -> Tensor:  # [N, L, G, P or 1, S or 1] to [chunk, N, chunks, G, P or 1, S or 1]
        return pad(t, (0, 0) * 3 + (0, missing)).unflatten(1, (chunks, _chunk)).movedim(2, 0)

    step, u, B, C = cut(step), cut(u), cut(B), cut(C)
    drive = step * u * B
    states, ends = _linear(torch.exp(step * A), drive, torch.zeros_like(drive[0]))
    factors = torch.exp(step.cumsum(0) * A)

    def next_chunk(state: Tensor, factor: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
        return factor * state + end, state.clone()

    last, befores = scan_op(next_chunk, [first], [factors[-1].movedim(1, 0), ends.movedim(1, 0)], ())
    states = states + factors * befores.movedim(0, 1)
    y = states * C
    y = (y.squeeze(-1) if y.shape[-1] == 1 else y.sum(-1)).movedim(0, 2).flatten(1, 2)
    return y[:, :length], last


def _node(inputs: list[Tensor | None], u: Tensor, A: Tensor, delta_softplus: bool) -> tuple[Tensor, Tensor]:
    """One node with the inputs, channels-last and in the order of the reference; those that are absent are empty."""
    precision = torch.promote_types(u.dtype, torch.float32)
    y, last_state = torch.onnx.ops.symbolic_multi_out(
        NODE,
        inputs,
        {"delta_softplus": int(delta_softplus)},
        dtypes=(u.dtype, precision),
        shapes=(u.shape, (u.shape[0], u.shape[2], A.shape[1])),
        version=1,
    )
    return y, last_state
