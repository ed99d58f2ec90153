"""BatchNorm with statistics over all processes, on CPU (gloo) as well as GPU (NCCL)."""

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

Network = TypeVar("Network", bound=nn.Module)


def _whole_batch(layer: _BatchNorm, x: Tensor) -> Tensor:
    r"""Normalises with the mean and variance over the samples of all processes.

    .. math:: y = \gamma (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta

    with :math:`\mu, \sigma^2` per channel over N and space of every process; running statistics take the unbiased
    variance, as in ``nn.BatchNorm2d``. Gradients pass through the exchange.
    """
    dims = [d for d in range(x.ndim) if d != 1]
    wide = x.float()
    count = x.new_tensor([x.numel() / x.shape[1]], dtype=torch.float32)
    first = all_reduce(torch.cat([wide.sum(dims), count]))
    total = first[-1]
    mean = first[:-1] / total
    shape = [1, -1] + [1] * (x.ndim - 2)
    centred = wide - mean.view(shape)  # two passes: E[x^2] - E[x]^2 cancels
    variance = all_reduce((centred * centred).sum(dims)) / total
    if layer.track_running_stats:
        assert layer.running_mean is not None and layer.running_var is not None
        assert layer.num_batches_tracked is not None
        layer.num_batches_tracked.add_(1)
        share = layer.momentum if layer.momentum is not None else 1.0 / float(layer.num_batches_tracked)
        layer.running_mean.lerp_(mean.detach(), share)
        layer.running_var.lerp_(variance.detach() * total.detach() / (total.detach() - 1).clamp(min=1), share)
    scale = torch.rsqrt(variance + layer.eps)
    y = centred * scale.view(shape)
    if layer.affine:
        y = y * layer.weight.view(shape) + layer.bias.view(shape)
    return y.to(x.dtype)


def _forward(layer: _BatchNorm, x: Tensor) -> Tensor:
    together = layer.training and dist.is_initialized() and dist.get_world_size() > 1
    return _whole_batch(layer, x) if together else type(layer).__mro__[1].forward(layer, x)  # type: ignore[attr-defined, no-any-return]


def convert_batchnorm(network: Network) -> Network:
    """Turns every BatchNorm layer of ``network`` into one over all processes, in place.

    On GPUs this is ``torch.nn.SyncBatchNorm``'s meaning; that class refuses CPU tensors, so ours is used everywhere.
    Names, parameters and buffers stay as they are, so checkpoints fit either way.
    """
    for layer in network.modules():
        if isinstance(layer, _BatchNorm) and not hasattr(layer, "_over_processes"):
            kind = type(layer)
            body: dict[str, Any] = {"forward": _forward, "_over_processes": True}
            layer.__class__ = type(f"Sync{kind.__name__}", (kind,), body)
    return network
