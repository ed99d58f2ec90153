"""The Lipschitz penalty of SoTeacher (Dong, Liu & Shang, arXiv 2206.06661): a sum of norms of a network's layers."""

from typing import Literal

import torch
from torch import Tensor, nn

Norm = Literal["official", "operator"]
"""How a convolution counts: ``official`` as the authors' code, ``operator`` (experimental) by its induced 1-norm."""


def lipschitz_terms(network: nn.Module, norm: Norm = "official") -> dict[str, Tensor]:
    r"""The term of every layer that has one, by the layer's name; each a scalar that gradients run through.

    Layers are modules without children, told by the name of their class:

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
    if norm not in ("official", "operator"):
        raise ValueError(f"norm is '{norm}', expected official or operator")
    terms: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if next(module.children(), None) is not None:
            continue
        term = _term(module, norm)
        if term is not None:
            terms[name] = term
    return terms


def lipschitz_penalty(network: nn.Module, norm: Norm = "official") -> Tensor:
    """The sum of :func:`lipschitz_terms`, a scalar; zero for a network without such layers.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> _ = nn.init.constant_(layer.weight, -3.0)
        >>> lipschitz_penalty(layer).item()
        3.0
    """
    terms = list(lipschitz_terms(network, norm).values())
    return torch.stack(terms).sum() if terms else torch.zeros(())


def _term(module: nn.Module, norm: Norm) -> Tensor | None:
    kind = type(module).__name__.lower()
    weight = getattr(module, "weight", None)
    if "conv" in kind and isinstance(weight, Tensor) and weight.ndim == 4:
        return _convolution(module, weight.float(), norm)
    if "batchnorm" in kind and isinstance(getattr(module, "running_var", None), Tensor):
        deviation = (module.running_var.detach().float() + module.eps).sqrt()  # type: ignore[operator]
        scale = weight.float().abs() if isinstance(weight, Tensor) else torch.ones_like(deviation)
        return _largest(scale / deviation)
    if "linear" in kind and isinstance(weight, Tensor) and weight.ndim == 2:
        return _largest(weight.float().abs().sum(0))
    return None


def _convolution(module: nn.Module, weight: Tensor, norm: Norm) -> Tensor:
    if norm == "official":
        return weight.abs().sum()
    if "transpose" in type(module).__name__.lower():  # [inputs, outputs / groups, kH, kW]
        return _largest(weight.abs().sum((1, 2, 3)))
    groups = int(getattr(module, "groups", 1))
    return _largest(weight.abs().unflatten(0, (groups, -1)).sum((1, 3, 4)).flatten())


def _largest(values: Tensor) -> Tensor:
    """The maximum, whose gradient goes to the first of equal values (``amax`` would spread it)."""
    return values.max(0).values
