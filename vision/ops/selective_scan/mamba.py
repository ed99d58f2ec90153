"""mamba-ssm's CUDA kernels as a path to choose and to compare with; imported only when they are asked for."""

import functools
import importlib
import importlib.util

import torch
from torch import Tensor

MAMBA_STATES = 256  # the most states of a channel that its kernels take


@functools.cache
def unavailable() -> str:
    """Why mamba-ssm's kernels cannot be used, and the fix; empty when they can.

    The Python part of mamba-ssm is imported only after its compiled part was: without that, it fails halfway.
    """
    if importlib.util.find_spec("selective_scan_cuda") is None:
        return "mamba-ssm's compiled part is not installed; on a machine with a CUDA GPU: pip install 'triptych[mamba]'"
    try:
        importlib.import_module("selective_scan_cuda")
        importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    except Exception as error:  # whatever an extension built for something else raises
        return f"mamba-ssm cannot be imported ({' '.join(str(error).split())}); install one that fits this torch"
    return ""


def obstacle(device: str, dtype: torch.dtype, states: int) -> str:
    """Why mamba-ssm's kernels cannot compute a scan; empty when they can."""
    if device != "cuda":
        return f"mamba-ssm's kernels run on cuda, the inputs are on {device}"
    if dtype == torch.float64:
        return "mamba-ssm's kernels take float32, float16 and bfloat16, the inputs are float64"
    if states > MAMBA_STATES:
        return f"{states} states of a channel are more than the {MAMBA_STATES} that mamba-ssm's kernels take"
    return unavailable()


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """The scan by mamba-ssm, with the shapes of :func:`vision.ops.selective_scan.reference.selective_scan`.

    Returns:
        y of shape ``[N, L, D]`` and the last state ``[N, D, S]``; no gradient flows through the state.
    """
    interface = importlib.import_module("mamba_ssm.ops.selective_scan_interface")

    def lengthwise(t: Tensor) -> Tensor:
        return t.transpose(1, 2).contiguous()

    def shared(t: Tensor) -> Tensor:
        return t if t.ndim == 2 else t.permute(0, 2, 3, 1).contiguous()

    y, last_state = interface.selective_scan_fn(
        lengthwise(u),
        lengthwise(delta),
        A.contiguous(),
        shared(B),
        shared(C),
        D=D,
        z=None if z is None else lengthwise(z),
        delta_bias=delta_bias,
        delta_softplus=delta_softplus,
        return_last_state=True,
    )
    return y.transpose(1, 2), last_state
