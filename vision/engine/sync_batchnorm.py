"""BatchNorm with statistics over all processes, on CPU (gloo) as well as GPU (NCCL)."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

Network = TypeVar("Network", bound=nn.Module)


def whole_batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    r"""``torch.nn.functional.batch_norm`` with the mean and variance over the samples of all processes.

    .. math:: y = \gamma (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta

    with :math:`\mu, \sigma^2` per channel over N and space of every process; running statistics take the unbiased
    variance. Gradients pass through the exchange. Out of training nothing is exchanged.

    Args:
        x: shape ``[N, C, ...]``; ``N`` may differ between processes.
        running_mean: shape ``[C]``, updated in place while training; None keeps none.
        running_var: likewise.
        weight: :math:`\gamma`, shape ``[C]``.
        bias: :math:`\beta`, shape ``[C]``.
        training: take the statistics of ``x``, not the running ones.
        momentum: share of the new statistics in the running ones.
        eps: :math:`\epsilon`.
    """
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    dims, shape = [d for d in range(x.ndim) if d != 1], [1, -1] + [1] * (x.ndim - 2)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    count = wide.new_tensor([x.numel() / x.shape[1]])
    sums = all_reduce(torch.cat([wide.sum(dims), count]))
    total = sums[-1]
    mean = sums[:-1] / total
    centred = wide - mean.view(shape)  # two passes: E[x^2] - E[x]^2 cancels
    variance = all_reduce((centred * centred).sum(dims)) / total
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * total / (total - 1).clamp(min=1)).to(running_var.dtype), momentum)
    y = centred * torch.rsqrt(variance + eps).view(shape)
    if weight is not None:
        y = y * weight.view(shape)
    if bias is not None:
        y = y + bias.view(shape)
    return y.to(x.dtype)


class _Exchanging(TorchFunctionMode):
    """Inside, ``batch_norm`` is :func:`whole_batch_norm`: whatever else a layer does (an activation, say) stays."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return (whole_batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))


def _forward(layer: _BatchNorm, x: Tensor) -> Tensor:
    plain: Callable[[_BatchNorm, Tensor], Tensor] = type(layer).__mro__[1].forward  # type: ignore[attr-defined]
    if not (layer.training and dist.is_initialized() and dist.get_world_size() > 1):
        return plain(layer, x)
    with _Exchanging():
        return plain(layer, x)


def convert_batchnorm(network: Network) -> Network:
    """Turns every BatchNorm layer of ``network``, of subclasses too, into one over all processes, in place.

    On GPUs this is ``torch.nn.SyncBatchNorm``'s meaning; that class refuses CPU tensors, so ours is used everywhere.
    Names, parameters and buffers stay as they are, so checkpoints fit either way.
    """
    for layer in network.modules():
        if isinstance(layer, _BatchNorm) and not hasattr(layer, "_over_processes"):
            kind = type(layer)
            layer.__class__ = type(f"Sync{kind.__name__}", (kind,), {"forward": _forward, "_over_processes": True})
    return network
