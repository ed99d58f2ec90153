"""A linear layer with the activation after it, in one pass where PyTorch has one for it."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Activation = Literal["none", "gelu", "silu"]

_ONEDNN = {"none": "none", "gelu": "gelu", "silu": "swish"}


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none") -> Tensor:
    r""":math:`f(x W^T + b)`; in inference, in float32 on a CPU, by oneDNN with the activation in the same pass.

    PyTorch's own linear layers go to MKL there, which on other makers' processors is slower than oneDNN, and an
    activation by itself reads and writes everything once more. Equal up to rounding. In all other cases (gradients, a
    GPU, mixed precision, compiling or exporting, oneDNN switched off by ``torch.backends.mkldnn.flags(enabled=False)``)
    this is the linear layer and then the activation.

    Args:
        x: float, shape ``[..., C]``.
        weight: W, shape ``[E, C]``.
        bias: b, shape ``[E]``.
        activation: f; ``gelu`` is the exact one.

    Returns:
        Shape ``[..., E]``.
    """
    if _in_one_pass(x, weight):
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, _ONEDNN[activation], [], "none")
        return y
    y = F.linear(x, weight, bias)
    if activation == "gelu":
        return F.gelu(y)
    return F.silu(y, inplace=not torch.is_grad_enabled()) if activation == "silu" else y


def _in_one_pass(x: Tensor, weight: Tensor) -> bool:
    return (
        not torch.is_grad_enabled()
        and not (torch.compiler.is_compiling() or torch.compiler.is_exporting() or torch.jit.is_tracing())
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )
