"""Activation checkpointing of layers that have a state."""

from typing import Any

from spikingjelly.activation_based import base
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def checkpointed(layer: nn.Module, x: Tensor) -> Tensor:
    """``layer(x)``, computed again while backpropagating, from the state it had and without changing it twice.

    States, traces and running statistics of norm layers are after the second computation what they were before it.

    Args:
        layer: with or without a state.
        x: input of one time step.
    """
    memories = [module for module in layer.modules() if isinstance(module, base.MemoryModule)]
    before = [dict(module._memories) for module in memories]
    runs = 0

    def run(x: Tensor) -> Tensor:
        nonlocal runs
        runs += 1
        if runs == 1:
            made: Tensor = layer(x)
            return made
        after = [dict(module._memories) for module in memories]
        buffers = {name: buffer.clone() for name, buffer in layer.named_buffers()}
        _restore(memories, before)
        try:
            return layer(x)
        finally:
            _restore(memories, after)
            for name, buffer in layer.named_buffers():
                buffer.copy_(buffers[name])

    again: Tensor = checkpoint(run, x, use_reentrant=False)
    return again


def _restore(memories: list[base.MemoryModule], states: list[dict[str, Any]]) -> None:
    for module, state in zip(memories, states, strict=True):
        module._memories.update(state)
