r"""How much a network computes: parameters, and multiply-accumulates of one forward pass by kind of operation.

A multiply-accumulate (MAC) is one multiplication with the addition that follows it. Convolutions, matrix products and
attention are counted by PyTorch's own counter (two floating-point operations each); the selective scan, which that
counter cannot see into, by the closed form of :func:`scan_macs`. Norms, activations, pooling and resampling are not
counted, as in published figures.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vision.engine.errors import ConfigError
from vision.ops.selective_scan import onnx_form

_NODE = torch.ops.onnx_symbolic._symbolic_multi_out
"""What a scan is while one pass is counted: one node that is told from everything else, and costs nothing."""

CONVOLUTION, PRODUCT, SCAN, OTHER = "convolutions", "matrix products", "selective scans", "other"
_KINDS = {
    "convolution": CONVOLUTION, "_convolution": CONVOLUTION, "cudnn_convolution": CONVOLUTION,
    "mm": PRODUCT, "addmm": PRODUCT, "bmm": PRODUCT, "baddbmm": PRODUCT, "_scaled_mm": PRODUCT,
    "_symbolic_multi_out": SCAN,
}  # fmt: skip


@dataclass(frozen=True)
class Count:
    """What one forward pass of one input costs.

    Attributes:
        parameters: numbers that are learnt.
        macs: multiply-accumulates.
        by_kind: the same by ``convolutions``, ``matrix products`` (attention's among them), ``selective scans``.
    """

    parameters: int
    macs: int
    by_kind: dict[str, int]


def scan_macs(batch: int, length: int, channels: int, states: int, skip: bool = True, gate: bool = False) -> int:
    r"""Multiply-accumulates of a selective scan.

    .. math:: N L D \, (4 S + 1 + [D] + [z])

    For a channel and a step: :math:`\Delta u` is one; then for each state :math:`\Delta A`, :math:`e^{\Delta A} h + d`,
    :math:`(\Delta u) B` and :math:`C h` are one each; the skip :math:`D u` and the gate are one each where they are.
    Exponentials, softplus and silu are left out, like every activation.

    Args:
        batch: N, sequences.
        length: L, steps.
        channels: D.
        states: S, of a channel.
        skip: whether there are skip weights.
        gate: whether the output is gated.

    Source: our own closed form; Mamba's and VMamba's own counters give ``9 N L D S`` *operations*, of which
    exponentials are a part.

    Example:
        >>> scan_macs(batch=1, length=10, channels=2, states=16)
        1320
    """
    return batch * length * channels * (4 * states + 1 + int(skip) + int(gate))


def ss2d_macs(batch: int, positions: int, channels: int, states: int, rank: int, directions: int = 4) -> int:
    r"""Multiply-accumulates of the four-direction scan with its low-rank step sizes: ``K N L D (R + 4 S + 2)``.

    Args:
        batch: N, images.
        positions: L, rows times columns.
        channels: D.
        states: S, of a channel.
        rank: R, of the step sizes.
        directions: K.
    """
    return directions * (batch * positions * channels * rank + scan_macs(batch, positions, channels, states))


def _flops_of_node(inputs: Sequence[Any], *_: Any, **__: Any) -> int:
    """Of the node that stands for a scan; its inputs are u, delta, A, B, C, D, z, delta_bias, initial_state."""
    u, _delta, A, _B, _C, D, z, *_rest = inputs
    batch, length, channels = u
    return 2 * scan_macs(batch, length, channels, A[1], D is not None, z is not None)


@contextmanager
def _seen_by_the_counter() -> Iterator[None]:
    """Inside, every layer is made of operations that the counter knows: no oneDNN, no fused attention, no kernels."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", UserWarning)  # torch warns of another vendor's GPUs when oneDNN is left out
        stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(onnx_form("node"))
        stack.enter_context(torch.no_grad())
        fast = torch.backends.mha.get_fastpath_enabled()
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        torch.backends.mha.set_fastpath_enabled(False)
        yield


def count(network: nn.Module, *inputs: Tensor) -> Count:
    """Parameters, and multiply-accumulates of ``network(*inputs)``.

    Args:
        network: on a CPU, or on the meta device where no shape depends on values; put into evaluation mode.
        inputs: of the network; for figures of one image, a batch of one.

    Raises:
        ConfigError: the network counts nothing at all: it is made of operations that the counter does not know.
    """
    network.eval()
    with _seen_by_the_counter(), FlopCounterMode(display=False, custom_mapping={_NODE: _flops_of_node}) as counter:
        network(*inputs)
    by_kind: dict[str, int] = {}
    for operation, flops in counter.get_flop_counts().get("Global", {}).items():
        kind = _KINDS.get(str(operation).rpartition(".")[2], OTHER)
        by_kind[kind] = by_kind.get(kind, 0) + int(flops) // 2
    if not by_kind:
        raise ConfigError(
            f"{type(network).__name__}: no convolution, matrix product or scan was seen; nothing can be counted"
        )
    return Count(sum(p.numel() for p in network.parameters()), sum(by_kind.values()), by_kind)


def in_words(macs: float) -> str:
    """A number of multiply-accumulates with its unit.

    Example:
        >>> in_words(4_537_000_000), in_words(40_810_000), in_words(950)
        ('4.54 GMAC', '40.8 MMAC', '950 MAC')
    """
    power = min(int(math.log10(max(macs, 1)) // 3), 4)
    return f"{macs / 1000**power:.3g} {('', 'k', 'M', 'G', 'T')[power]}MAC"
