"""STOP as plain autograd on a graph with stop-gradients: an oracle that shares nothing with the package's functions.

For each layer of neurons

    own[t]  = a (own[t-1] - th sg(s[t-1])) + syn(sg(x[t]); W, b)
    full[t] = own[t] + (syn(x[t]; sg(W), sg(b)) - syn(sg(x[t]); sg(W), sg(b)))
    s[t]    = H(full[t] - th)

so that parameters see their own layer's past and nothing else's, and errors go down within a step only.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Synapse = Callable[..., Tensor]
"""``synapse(x, *parameters)``."""


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * torch.exp(-x.abs())


class Layer:
    """Neurons with the synapses that feed them; ``between`` acts within the step only (norm layers' own parameters)."""

    def __init__(self, threshold: Tensor, leak: Tensor) -> None:
        self.threshold, self.leak = threshold, leak
        self.own: Tensor | None = None
        self.spikes: Tensor | None = None

    def step(self, inputs: Sequence[tuple[Tensor, Synapse, Sequence[Tensor], Synapse]], extra: Tensor | None) -> Tensor:
        """One step of several synapses, each as (x, synapse, parameters, what comes after it)."""
        temporal = spatial = 0
        for x, synapse, parameters, after in inputs:
            frozen = [p.detach() for p in parameters]
            mine = after(synapse(x.detach(), *parameters), True)
            temporal = temporal + mine
            through = after(synapse(x, *frozen), False)
            spatial = spatial + through - through.detach()
        if extra is not None:  # an identity shortcut
            temporal = temporal + extra.detach()
            spatial = spatial + extra - extra.detach()
        if self.own is not None and self.spikes is not None:
            temporal = temporal + self.leak * (self.own - self.threshold * self.spikes.detach())
        self.own = temporal
        self.spikes = Spike.apply(temporal + spatial - self.threshold)
        return self.spikes


def plain(x: Tensor, frozen: bool) -> Tensor:
    """Nothing between synapse and neurons."""
    return x
