"""What a network did with a batch: how often its layers fired, rasters of spikes, synaptic operations."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn.network import SpikingNetwork
from snn.networks import Halve, Scale
from snn.neurons import STOPLIFNode
from snn.synapses import TracedConv2d, TracedLinear

SHOWN = 16
"""Neurons of each layer that a raster shows."""


@dataclass
class Activity:
    """What :func:`watched` saw of one batch of N samples over T steps.

    Attributes:
        rates: of each layer of neurons, spikes a neuron and step, ``[N]``, by name.
        rasters: of each, spikes of some of its neurons spread evenly over the layer, uint8 ``[N, T, K]``.
        neurons: how many each layer has.
        operations: of each synapse, synaptic operations over all steps, ``[N]``.
        macs: of each, multiplications and additions of one dense pass, padding left out.
        analogue: of each, whether its input is no sum of spikes.
    """

    rates: dict[str, Tensor] = field(default_factory=dict)
    rasters: dict[str, Tensor] = field(default_factory=dict)
    neurons: dict[str, int] = field(default_factory=dict)
    operations: dict[str, Tensor] = field(default_factory=dict)
    macs: dict[str, int] = field(default_factory=dict)
    analogue: dict[str, bool] = field(default_factory=dict)


def fan_out(synapse: nn.Module, shape: torch.Size) -> Tensor:
    """How many connections lead from each position of an input, without those into padding.

    Args:
        synapse: a convolution or linear layer.
        shape: of the input, ``[*, C, H, W]`` or ``[*, D]``.

    Returns:
        Float64 ``[H, W]`` for a convolution, a scalar for a linear layer.

    Example:
        >>> fan_out(nn.Conv2d(1, 2, 3, padding=1), torch.Size((1, 1, 3, 3))).int().tolist()
        [[8, 12, 8], [12, 18, 12], [8, 12, 8]]
    """
    if isinstance(synapse, nn.Linear):
        return torch.tensor(float(synapse.out_features), dtype=torch.float64)
    assert isinstance(synapse, nn.Conv2d) and not isinstance(synapse.padding, str)
    with torch.enable_grad():
        ones = torch.ones(1, 1, *shape[-2:], dtype=torch.float64, requires_grad=True)
        kernel = torch.ones(1, 1, *synapse.kernel_size, dtype=torch.float64)
        reached = F.conv2d(ones, kernel, None, synapse.stride, synapse.padding, synapse.dilation).sum()
        (found,) = torch.autograd.grad(reached, ones)
    return found[0, 0] * (synapse.out_channels / synapse.groups)


class _Watch:
    """Hooks of one network."""

    def __init__(self, samples: int, operations: bool) -> None:
        self.seen, self.samples, self.operations = Activity(), samples, operations
        self.merged = 1.0  # spikes that a unit of the current signal stands for
        self.spiking: bool | None = None  # whether the current signal is made of spikes; not yet known of the input

    def neuron(self, name: str, spikes: Tensor) -> None:
        """After neurons ran all steps: spikes ``[T, N, *]``."""
        flat = spikes.flatten(2)
        self.seen.rates[name] = flat.float().mean((0, 2))
        self.seen.neurons[name] = flat.shape[2]
        places = torch.linspace(0, flat.shape[2] - 1, min(SHOWN, flat.shape[2]), device=flat.device).round().long()
        self.seen.rasters[name] = flat[:, :, places].transpose(0, 1).to(torch.uint8)
        self.merged, self.spiking = 1.0, True

    def pool(self, x: Tensor, out: Tensor) -> None:
        """After averaging: a unit of the output stands for as many spikes as pixels were averaged."""
        self.merged *= max(x.shape[-2] // out.shape[-2], 1) * max(x.shape[-1] // out.shape[-1], 1)

    def scale(self, factor: float) -> None:
        """After a multiplication by a constant, which weights can take in."""
        self.merged /= factor

    def synapse(self, name: str, module: nn.Module, x: Tensor, times: int) -> None:
        """Before a synapse runs: inputs ``[T * N, *]``, or ``[N, *]`` where all steps are the same."""
        if self.spiking is None:  # counts of events, and spikes of an encoder, are whole
            self.spiking = bool((x >= 0).all() and (x == x.round()).all())
        fan = fan_out(module, x.shape).to(x.device)
        channels = x.shape[-3] if isinstance(module, nn.Conv2d) else x.shape[-1]
        self.seen.macs[name] = int(fan.sum().item() * channels)
        self.seen.analogue[name] = not self.spiking
        signal = x.double() * self.merged if self.spiking else torch.ones_like(x, dtype=torch.float64)
        each = (signal * fan).flatten(1).sum(1)
        still = len(x) == self.samples and times > 1  # one input stands for all steps
        self.seen.operations[name] = each * times if still else each.view(times, -1).sum(0)


@contextmanager
def watched(network: SpikingNetwork, samples: int, times: int, operations: bool = True) -> Iterator[Activity]:
    """Inside, one run of ``network`` in eval mode without gradients is watched.

    A synaptic operation is one spike meeting one weight, counted exactly: inputs times their connections, without those
    into padding. Where spikes were averaged before the synapse, each of them counts, since the factor can be a part of
    the weight. Where the input is no sum of spikes (a real-valued image, counts of events, a stream between residual
    blocks), every value counts at every step, zero or not, as a multiplication.

    Args:
        network: what is run.
        samples: N.
        times: T.
        operations: count synaptic operations too, which takes some time.
    """
    watch = _Watch(samples, operations)
    handles: list[Any] = []
    for name, module in network.body.named_modules():
        handles += _hooks(watch, name, module, times)
    try:
        yield watch.seen
    finally:
        for handle in handles:
            handle.remove()


def _hooks(watch: _Watch, name: str, module: nn.Module, times: int) -> list[Any]:
    if isinstance(module, STOPLIFNode):
        return [module.register_forward_hook(lambda _, __, out: watch.neuron(name, out))]
    if not watch.operations:
        return []
    if isinstance(module, TracedConv2d | TracedLinear):
        return [module.register_forward_pre_hook(lambda _, given: watch.synapse(name, module, given[0], times))]
    if isinstance(module, Halve | nn.AdaptiveAvgPool2d | nn.AvgPool2d):
        return [module.register_forward_hook(lambda _, given, out: watch.pool(given[0], out))]
    if isinstance(module, Scale):
        return [module.register_forward_hook(lambda *_: watch.scale(module.factor))]
    return []
