"""The Lipschitz penalty of SoTeacher (Dong, Liu & Shang, arXiv 2206.06661): a sum of norms of a network's layers."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

Norm = Literal["official", "operator"]
"""How a convolution counts: ``official`` as the authors' code, ``operator`` (experimental) by its induced 1-norm."""


def lipschitz_terms(network: nn.Module, norm: Norm = "official") -> dict[str, Tensor]:
    r"""The term of every layer that has one, by the layer's name; each a scalar that gradients run through.

    Layers are modules without children, told by the name of their class, and kinds of torch's own layers that have
    children (a spiking layer's trace, the activation in a timm BatchNorm):

    - ``conv`` (weights of four dimensions): :math:`\sum_{oihw} |W_{oihw}|`, the entrywise 1-norm; with
      ``norm="operator"`` :math:`\max_i \sum_{ohw} |W_{oihw}|` over input channels, the norm that the convolution with
      stride 1 has as a map between L1 spaces, and an upper bound of it with a larger stride.
    - ``batchnorm``: :math:`\max_c |\gamma_c| / \sqrt{v_c + \epsilon}` with the running variance :math:`v`, which no
      gradient runs through.
    - ``linear``: :math:`\max_j \sum_i |W_{ij}|`, the induced 1-norm.

    Biases do not count. A maximum hands its gradient to one channel or column.

    Args:
        network: any network.
        norm: see :data:`Norm`.

    Raises:
        ValueError: an unknown norm.

    Source: the authors' code (MIT); the paper speaks of the Lipschitz constant of the feature extractor, of which this
        sum, with the classifier in it, is no estimate. The operator form is our own.
    """
    _require_known(norm)
    terms = {}
    for name, kind, module in _layers(network):
        if kind == "norm":
            terms[name] = _norms([module])
        else:
            terms[name] = _convolution(module, norm) if kind == "convolution" else _linear(module)
    return terms


def lipschitz_penalty(network: nn.Module, norm: Norm = "official") -> Tensor:
    """The sum of :func:`lipschitz_terms`, a scalar; zero for a network without such layers.

    Layers are reduced together where they can be: a term each is hundreds of small kernels in every step.

    Raises:
        ValueError: an unknown norm.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> _ = nn.init.constant_(layer.weight, -3.0)
        >>> lipschitz_penalty(layer).item()
        3.0
    """
    _require_known(norm)
    convolutions: list[Tensor] = []
    norms: dict[tuple[int, float], list[nn.Module]] = defaultdict(list)
    parts: list[Tensor] = []
    for _, kind, module in _layers(network):
        if kind == "norm":
            norms[len(module.running_var), module.eps].append(module)  # type: ignore[arg-type, index]
        elif kind == "linear":
            parts.append(_linear(module))
        elif norm == "operator":
            parts.append(_convolution(module, norm))
        else:
            convolutions.append(_weight(module))
    if convolutions:
        parts.append(_SumOfSizes.apply(*convolutions))
    parts += [_norms(alike) for alike in norms.values()]
    return torch.stack(parts).sum() if parts else torch.zeros(())


def _require_known(norm: str) -> None:
    if norm not in ("official", "operator"):
        raise ValueError(f"norm is '{norm}', expected official or operator")


_LAYERS = (_ConvNd, _BatchNorm, nn.Linear)


def _layers(network: nn.Module) -> Iterator[tuple[str, Literal["convolution", "norm", "linear"], nn.Module]]:
    """The layers that have a term: name, kind, module."""
    for name, module in network.named_modules():
        if next(module.children(), None) is not None and not isinstance(module, _LAYERS):
            continue
        called, weight = type(module).__name__.lower(), getattr(module, "weight", None)
        if "conv" in called and isinstance(weight, Tensor) and weight.ndim == 4:
            yield name, "convolution", module
        elif "batchnorm" in called and isinstance(getattr(module, "running_var", None), Tensor):
            yield name, "norm", module
        elif "linear" in called and isinstance(weight, Tensor) and weight.ndim == 2:
            yield name, "linear", module


class _SumOfSizes(torch.autograd.Function):
    """The sum of the absolute values of several tensors, in a few kernels for all of them."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return torch.stack(torch._foreach_norm(tensors, 1)).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        signs = torch._foreach_sign(ctx.saved_tensors)
        torch._foreach_mul_(signs, gradients[0])
        return tuple(signs)


def _weight(module: nn.Module) -> Tensor:
    return module.weight.float()  # type: ignore[return-value]


def _convolution(module: nn.Module, norm: Norm) -> Tensor:
    sizes = _weight(module).abs()
    if norm == "official":
        return sizes.sum()
    if "transpose" in type(module).__name__.lower():  # [inputs, outputs / groups, kH, kW]
        return _largest(sizes.sum((1, 2, 3)))
    groups = int(getattr(module, "groups", 1))
    return _largest(sizes.unflatten(0, (groups, -1)).sum((1, 3, 4)).flatten())


def _norms(modules: list[nn.Module]) -> Tensor:
    """The summed terms of BatchNorms with equally many channels and one epsilon."""
    variances = torch.stack([module.running_var for module in modules]).detach().float()  # type: ignore[misc]
    deviations = (variances + modules[0].eps).sqrt()  # type: ignore[operator]
    scales = [
        torch.ones_like(row) if m.weight is None else _weight(m) for m, row in zip(modules, variances, strict=True)
    ]
    return _largest(torch.stack(scales).abs() / deviations).sum()


def _linear(module: nn.Module) -> Tensor:
    return _largest(_weight(module).abs().sum(0))


def _largest(values: Tensor) -> Tensor:
    """The maximum of the last axis; its gradient goes to the first of equal values (``amax`` would spread it)."""
    return values.max(-1).values
