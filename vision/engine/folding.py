"""A copy of a network as it is deployed: in eval mode, without gradients, its BatchNorm folded into convolutions."""

import copy
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from vision.engine.errors import UserError

Module = TypeVar("Module", bound=nn.Module)

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)


class Affine(nn.Module):
    r"""A BatchNorm with fixed statistics that no convolution could take in: :math:`y_c = a_c x_c + b_c`.

    Args:
        norm: in eval mode, with running statistics.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        assert norm.running_mean is not None and norm.running_var is not None
        scale = torch.rsqrt(norm.running_var + norm.eps)
        scale = scale if norm.weight is None else scale * norm.weight.detach()
        shift = -norm.running_mean * scale
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift if norm.bias is None else shift + norm.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, ...]`` to the same shape."""
        axes = (-1,) + (1,) * (x.ndim - 2)
        return x * self.scale.view(axes) + self.shift.view(axes)


def deployed(network: Module, run: Callable[[Module], Any], folded: bool = True) -> Module:
    """A copy of a network for inference, on the CPU; outputs are equal up to rounding.

    The network's own ``deploy()``, or that of its parts, comes first. Then every BatchNorm is folded into the
    convolution or linear layer that it alone reads; the others become a scale and a shift.

    Args:
        network: is left as it is.
        run: runs a network on an example, from which it is seen what reads what.
        folded: false leaves the copy as it was trained.

    Returns:
        In eval mode; parameters ask for no gradient.
    """
    made = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    if not folded:
        return made
    own = getattr(made, "deploy", None)
    parts = [own] if callable(own) else [getattr(part, "deploy", None) for part in list(made.modules())]
    with torch.no_grad():
        for deploy in parts:
            if callable(deploy):
                deploy()
        _fold(made, run)
    return made.eval().requires_grad_(False)


def takes_any_size(network: nn.Module, images: Tensor) -> bool:
    """Whether a deployed network takes images of other sizes than its example's, and still can when exported.

    A pool to more than one cell cannot be exported for sizes that are not known yet.

    Args:
        network: in eval mode.
        images: what it takes, ``[N, C, H, W]``.
    """
    for module in network.modules():
        if isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d) and module.output_size not in (1, (1, 1)):
            return False
    larger = images.new_zeros(2, images.shape[1], images.shape[2] + 5, images.shape[3] + 11)
    try:
        with torch.no_grad():
            network(larger)
    except (RuntimeError, ValueError, AssertionError, UserError):
        return False
    return True


def _fold(network: Any, run: Callable[[Any], Any]) -> None:
    if not any(_fixed(module) for module in network.modules()):
        return
    readers = _Readers(network)
    with readers:
        run(network)
    taken: dict[nn.Module, nn.Module] = {}
    for layer, norm in readers.pairs():
        taken[layer], taken[norm] = _fused(layer, norm), nn.Identity()
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if child in taken:
                setattr(module, name, taken[child])
            elif _fixed(child):
                setattr(module, name, Affine(cast(_BatchNorm, child)))


def _fixed(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def _fused(layer: nn.Module, norm: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return fuse_linear_bn_eval(layer, cast(Any, norm))
    return fuse_conv_bn_eval(cast(Any, layer), cast(Any, norm), transpose=isinstance(layer, TRANSPOSED))


class _Readers(TorchFunctionMode):
    """Notes, while a network runs, which layers made which tensors and how many operations read each."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.reads: dict[int, int] = {}
        self.made: dict[nn.Module, list[Tensor]] = defaultdict(list)  # kept alive, so that ids stay theirs
        self.read: dict[nn.Module, list[Tensor]] = defaultdict(list)
        self.hooks = []
        for module in network.modules():
            if isinstance(module, LINEAR):
                self.hooks.append(module.register_forward_hook(self._made))
            elif _fixed(module):
                self.hooks.append(module.register_forward_pre_hook(lambda m, given: self.read[m].append(given[0])))

    def _made(self, layer: nn.Module, _: Any, output: Tensor) -> None:
        self.made[layer].append(output)
        self.reads[id(output)] = 0

    def __exit__(self, *arguments: Any) -> None:
        super().__exit__(*arguments)
        for hook in self.hooks:
            hook.remove()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):  # asking for a shape is no reading
            for leaf in tree_leaves((args, kwargs)):
                if id(leaf) in self.reads:
                    self.reads[id(leaf)] += 1
        return result

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Layers with the norm that reads all they make, and nothing else does, and that reads nothing else."""
        found = []
        for norm, given in self.read.items():
            wanted = {id(tensor) for tensor in given}
            for layer, tensors in self.made.items():
                if {id(t) for t in tensors} == wanted and all(self.reads[id(t)] == 1 for t in tensors):
                    found.append((layer, norm))
        return found
