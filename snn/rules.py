"""Learning rules on one and the same network: STOP, its one-shot variant, OTTT, SLTT, backpropagation through time."""

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import nn

from snn.neurons import LeakyReadout, STOPLIFNode
from snn.stop import Reduction
from snn.synapses import Synapse, TracedConv2d, TracedLinear
from vision.engine.errors import ConfigError, nearest

Rule = Literal["stop", "osstop", "ottt", "sltt", "bptt"]
Learn = Literal["W", "T", "L", "WT", "WL", "TL", "WTL"]

WEIGHTS_ONLY: tuple[Rule, ...] = ("ottt", "sltt")
"""Rules that teach weights and nothing else."""


def neurons(network: nn.Module) -> dict[str, STOPLIFNode]:
    """The spiking layers of a network by name, in order of depth."""
    return {name: module for name, module in network.named_modules() if isinstance(module, STOPLIFNode)}


def synapses(network: nn.Module) -> dict[str, TracedConv2d | TracedLinear]:
    """The convolutions and linear layers of a network that keep traces, by name, in order of depth."""
    return {name: m for name, m in network.named_modules() if isinstance(m, TracedConv2d | TracedLinear)}


def set_rule(
    network: nn.Module,
    rule: Rule = "stop",
    learn: Learn = "WTL",
    reduction: Reduction = "mean",
    learn_output_neuron: bool = True,
) -> None:
    r"""Sets what a network learns and how, in place.

    - ``stop``: all of :mod:`snn.stop`.
    - ``osstop``: the same layers; only the loss after the last step is to be backpropagated.
    - ``ottt``: weights learn from the trace of their input, save the first layer's and every bias, which learn from the
      input of the step (Xiao et al. 2022, as spikingjelly has it). Norm layers as under ``stop``.
    - ``sltt``: weights learn from the input of the step alone (Meng et al. 2023).
    - ``bptt``: backpropagation through time, the reset's spike held constant; memory grows with time.

    Args:
        network: with :class:`~snn.neurons.STOPLIFNode` neurons.
        rule: as above.
        learn: any of W (weights, biases and norm layers), T (thresholds) and L (leaks).
        reduction: of the gradients of thresholds and leaks, over the neurons that share one.
        learn_output_neuron: whether T and L hold for the last neurons too. With cross-entropy on binary spikes their
            threshold falls to its bound and their leak rises to its own.

    Raises:
        ConfigError: an unknown rule, a rule that cannot teach what ``learn`` asks for, or a network without neurons.
    """
    if rule not in get_args(Rule):
        raise ConfigError(f"rule: no '{rule}'{nearest(rule, get_args(Rule))}; expected {', '.join(get_args(Rule))}")
    if learn not in get_args(Learn):
        raise ConfigError(f"learn: '{learn}' is not one of {', '.join(get_args(Learn))}")
    if rule in WEIGHTS_ONLY and learn != "W":
        raise ConfigError(f"learn: '{learn}' with the rule '{rule}', which teaches weights only; set learn: W")
    found = neurons(network)
    if not found:
        raise ConfigError("the network has no STOPLIFNode; build one of snn.networks, or use snn.convert")
    own = {id(p) for node in found.values() for p in node.parameters()}
    for parameter in network.parameters():
        if id(parameter) not in own:
            parameter.requires_grad_("W" in learn)
    last = _output_neuron(network)
    for node in found.values():
        learns = node is not last or learn_output_neuron
        node.v_threshold.requires_grad_("T" in learn and learns)
        node.leak.requires_grad_("L" in learn and learns)
        node.rule, node.reduction = "bptt" if rule == "bptt" else "stop", reduction
    for module in network.modules():
        if isinstance(module, LeakyReadout):
            module.rule = "bptt" if rule == "bptt" else "stop"
    _set_traces(network, rule)


def _set_traces(network: nn.Module, rule: Rule) -> None:
    for place, synapse in enumerate(synapses(network).values()):
        traced = rule in ("stop", "osstop") or (rule == "ottt" and place > 0)
        synapse.mode, synapse.traced_bias = "traced" if traced else "plain", rule != "ottt"


def _output_neuron(network: nn.Module) -> STOPLIFNode | None:
    """The neurons of the last layer, or None where the network ends otherwise."""
    last = None
    for module in network.modules():
        if isinstance(module, STOPLIFNode | Synapse | LeakyReadout):
            last = module
    return last if isinstance(last, STOPLIFNode) else None


@torch.no_grad()
def constrain(network: nn.Module, threshold_min: float = 0.1, leak_max: float = 0.99) -> None:
    r"""Brings thresholds and leaks back into :math:`\theta \ge \theta_{\min}` and :math:`0 \le a \le a_{\max}`.

    Args:
        network: with STOP neurons; changed in place.
        threshold_min: above 0. Quoted from others: 1e-3; ours: 0.1.
        leak_max: in [0, 1]. Quoted from others: 1; ours: 0.99, since traces are bounded by :math:`1 / (1 - a)`.
    """
    for node in neurons(network).values():
        if node.v_threshold.requires_grad:
            node.v_threshold.clamp_(min=threshold_min)
        if node.leak.requires_grad:
            node.leak.clamp_(0.0, leak_max)


def learnable(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """What learns: weights (with norm layers and biases), thresholds, leaks."""
    thresholds = [node.v_threshold for node in neurons(network).values() if node.v_threshold.requires_grad]
    leaks = [node.leak for node in neurons(network).values() if node.leak.requires_grad]
    own = {id(p) for p in (*thresholds, *leaks)}
    return [p for p in network.parameters() if p.requires_grad and id(p) not in own], thresholds, leaks


def label_layers(network: nn.Module) -> None:
    """Gives every stateful layer its name in the network, for errors to call it by."""
    for name, module in _named(network):
        if isinstance(module, STOPLIFNode | LeakyReadout):
            module.label = name
        elif isinstance(module, Synapse):
            module.trace.label = name


def _named(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in network.named_modules():
        yield name or type(module).__name__, module
