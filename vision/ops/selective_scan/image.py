"""The four-direction scan of an image, fused where the kernels are, else over ordered copies."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from vision.ops.cross_scan import cross_merge, cross_order, cross_scan
from vision.ops.selective_scan import backends, lowering, reference
from vision.ops.selective_scan.checks import check_ss2d
from vision.ops.selective_scan.dispatch import operators_of, parameter, scan, wants_gradient, widest
from vision.ops.selective_scan.errors import BackendError


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
    fused: bool | None = None,
    force_backend: str | None = None,
) -> Tensor:
    r"""Four selective scans over the positions of an image, summed where they meet.

    .. math:: y = \sum_{k=1}^{4} o_k^{-1}\bigl(\mathrm{scan}(o_k(x), o_k(W_k r_k), A_k, o_k(B_k), o_k(C_k), D_k)\bigr)

    where :math:`o_k` puts positions into the order of direction k (see :mod:`vision.ops.cross_scan`) and the scan is
    :func:`~vision.ops.selective_scan.scan.selective_scan` with the bias :math:`b_k` and the softplus. Fused, directions
    are index maps: nothing is copied four times, and the step sizes exist only inside the kernel.

    Letters: N batch, L = H * W positions in row-major order, D channels, K = 4 directions, R rank of the step sizes,
    S states of a channel. All inputs are given once, position by position, whatever the direction.

    Args:
        x: shape ``[N, L, D]``; float32, float16, bfloat16 or float64.
        dts: :math:`r`, shape ``[N, L, K, R]``, dtype of ``x``; the step sizes themselves, ``[N, L, K, D]``, when
            ``dt_weight`` is None.
        dt_weight: :math:`W`, shape ``[K, D, R]``, float32.
        dt_bias: b, shape ``[K, D]``, float32; zero when None.
        A: shape ``[K, D, S]``, float32.
        B: shape ``[N, L, K, S]``, dtype of ``x``.
        C: shape ``[N, L, K, S]``, dtype of ``x``.
        D: skip weights, shape ``[K, D]``, float32; zero when None.
        height: H, rows.
        width: W, columns.
        fused: whether the fused operator runs; where there is ``dt_weight`` when None.
        force_backend: as for :func:`~vision.ops.selective_scan.scan.selective_scan`.

    Returns:
        Shape ``[N, L, D]``, dtype of ``x``.

    Raises:
        ScanError: arguments that do not fit together; the message names all of them.
        BackendError: a path that was asked for and cannot run.

    Source: SS2D of VMamba (Liu et al., NeurIPS 2024, arXiv 2401.10166), its scan; projections, gate and norm around it
    are the network's.
    """
    x, dts, B, C = widest(x, dts, B, C)
    check_ss2d(x, dts, dt_weight, dt_bias, A, B, C, D, height, width)
    if lowering.form() is not None:
        return _over_copies(None, x, dts, dt_weight, dt_bias, A, B, C, D, height, width)
    path = backends.choose(force_backend, x.device.type, x.dtype, A.shape[2])
    fusible = dt_weight is not None and path != "mamba"
    if fused and not fusible:
        why = "the step sizes are not of low rank" if dt_weight is None else "mamba-ssm has no fused scan"
        raise BackendError(f"ss2d: fused=True, but {why}")
    with _without_autocast(x.device.type):  # the projection of the step sizes is in float32, fused or not
        if 0 in x.shape or (path == "reference" and not torch.compiler.is_compiling()):
            return reference.ss2d(x, dts, dt_weight, dt_bias, A, B, C, D, height, width)
        if dt_weight is None or not fusible or fused is False:
            return _over_copies(path, x, dts, dt_weight, dt_bias, A, B, C, D, height, width)
        return _fused(path, x, dts, dt_weight, dt_bias, A, B, C, D, height, width)


def _without_autocast(device: str) -> AbstractContextManager[object]:
    """A block without autocast; no block at all, which exporters would keep, where there is none."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _fused(
    path: str,
    x: Tensor,
    dts: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    height: int,
    width: int,
) -> Tensor:
    operators = operators_of(path)
    precision = torch.promote_types(x.dtype, torch.float32)

    def weights(t: Tensor | None) -> Tensor:
        return A.new_zeros(A.shape[:2], dtype=precision) if t is None else parameter(t, precision)

    inputs = (
        x.contiguous(),
        dts,
        parameter(dt_weight, precision),
        weights(dt_bias),
        parameter(A, precision),
        B,
        C,
        weights(D),
    )
    if wants_gradient(*inputs):
        y, _ = operators.ss2d_fwd(*inputs, height, width)
        return y
    return operators.ss2d(*inputs, height, width)


def _over_copies(
    path: str | None,
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
    """One scan of ``K * D`` channels in K groups, over tensors in the order of their directions."""
    if dt_weight is not None:
        dts = torch.einsum("nlkr,kdr->nlkd", dts.to(dt_weight.dtype), dt_weight).to(x.dtype)
    y, _ = scan(
        path,
        cross_scan(x, height, width).flatten(2),
        cross_order(dts, height, width).flatten(2),
        A.flatten(0, 1),
        cross_order(B, height, width),
        cross_order(C, height, width),
        None if D is None else D.flatten(),
        None,
        None if dt_bias is None else dt_bias.flatten(),
        None,
        True,
    )
    precision = torch.promote_types(x.dtype, torch.float32)
    return cross_merge(y.unflatten(2, (A.shape[0], -1)).to(precision), height, width).to(x.dtype)
