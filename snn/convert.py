"""Networks of spikingjelly, and plain ones with its neurons, turned into networks that STOP can train."""

import logging
from collections.abc import Mapping

from spikingjelly.activation_based import functional, neuron
from torch import nn

from snn.neurons import STOPLIFNode
from snn.rules import label_layers
from snn.surrogates import Exponential
from snn.synapses import TracedConv2d, TracedLinear
from vision.engine.errors import ConfigError

log = logging.getLogger(__name__)


def convert(network: nn.Module, receivers: Mapping[str, str] | None = None, keep_surrogate: bool = True) -> nn.Module:
    """Replaces ``LIFNode`` by :class:`~snn.neurons.STOPLIFNode` and what feeds it by traced layers, in place.

    Every node must be a ``LIFNode`` or ``ParametricLIFNode`` with ``decay_input=False`` and soft reset
    (``v_reset=None``); weights, thresholds, ``1 - 1/tau`` as leak, and surrogates stay as they are, so that the outputs
    do too; every layer then takes single steps. A convolution or linear layer is taken to feed the first neurons after
    it in the same ``nn.Sequential``; any other wiring is told by ``receivers``. One that feeds no neurons keeps no
    trace, and the log names it.

    Args:
        network: changed in place.
        receivers: which neurons a layer feeds, both by name: ``{"block.conv2": "block.lif"}``. It goes before the order
            of the modules.
        keep_surrogate: false takes STOP's own.

    Returns:
        ``network``, or what replaced it where it is itself such a node.

    Raises:
        ConfigError: a node whose dynamics are others, a name that is not there, or a layer that cannot be traced.

    Example:
        >>> from spikingjelly.activation_based import neuron
        >>> node = neuron.LIFNode(tau=2.0, decay_input=False, v_reset=None)
        >>> convert(nn.Sequential(nn.Linear(4, 3), node))
        Sequential(
          (0): TracedLinear(
            in_features=4, out_features=3, bias=True
            (trace): InputTrace(step_mode=s)
          )
          (1): STOPLIFNode(
            shape=(), rule=stop, step_mode=s
            (surrogate_function): Sigmoid(alpha=4.0, spiking=True)
          )
        )
    """
    modules = dict(network.named_modules())
    feeds = _feeds(modules, dict(receivers or {}))
    nodes = {
        name: _node(name, module, keep_surrogate)
        for name, module in modules.items()
        if isinstance(module, neuron.BaseNode)
    }
    if not nodes:
        raise ConfigError("convert: the network has no LIFNode")
    replaced: dict[str, nn.Module] = dict(nodes)
    for name, module in modules.items():
        if isinstance(module, nn.Conv2d | nn.Linear) and not isinstance(module, TracedConv2d | TracedLinear):
            replaced[name] = _synapse(name, module, nodes.get(feeds.get(name, "")))
            if name not in feeds:
                log.warning("convert: '%s' keeps no trace, since no neurons follow it; name them in receivers", name)
    for name, module in replaced.items():
        parent, _, own = name.rpartition(".")
        if not name:
            return module
        setattr(modules[parent], own, module)
    functional.invalidate_reset_cache(network)
    functional.set_step_mode(network, "s")
    label_layers(network)
    return network


def _feeds(modules: dict[str, nn.Module], told: dict[str, str]) -> dict[str, str]:
    """The neurons that each layer feeds, by name."""
    found: dict[str, str] = {}
    for name, module in modules.items():
        if isinstance(module, nn.Sequential):
            waiting = ""
            for child, inner in module.named_children():
                full = f"{name}.{child}" if name else child
                if isinstance(inner, nn.Conv2d | nn.Linear):
                    waiting = full
                elif isinstance(inner, neuron.BaseNode) and waiting:
                    found[waiting], waiting = full, ""
    for synapse, node in told.items():
        if not isinstance(modules.get(synapse), nn.Conv2d | nn.Linear):
            raise ConfigError(f"convert: receivers: '{synapse}' is no convolution or linear layer of the network")
        if not isinstance(modules.get(node), neuron.BaseNode):
            raise ConfigError(f"convert: receivers: '{node}' is no neuron of the network")
    return found | told


def _node(name: str, module: neuron.BaseNode, keep_surrogate: bool) -> STOPLIFNode:
    if type(module) not in (neuron.LIFNode, neuron.ParametricLIFNode, neuron.OTTTLIFNode, neuron.SLTTLIFNode):
        raise ConfigError(f"convert: '{name}' is a {type(module).__name__}; expected LIFNode or ParametricLIFNode")
    if module.decay_input or module.v_reset is not None:
        raise ConfigError(
            f"convert: '{name}' has decay_input={module.decay_input} and v_reset={module.v_reset}; STOP's neurons do "
            "not scale their input and reset by subtraction: build it with decay_input=False, v_reset=None"
        )
    leak = 1 - 1 / module.tau if not isinstance(module, neuron.ParametricLIFNode) else 1 - module.w.sigmoid().item()
    surrogate = module.surrogate_function if keep_surrogate else Exponential()
    made = STOPLIFNode(float(module.v_threshold), leak, (), surrogate)
    example = next(module.parameters(), None)
    return made if example is None else made.to(example)


def _synapse(name: str, module: nn.Conv2d | nn.Linear, receiver: STOPLIFNode | None) -> TracedConv2d | TracedLinear:
    bias = module.bias is not None
    made: TracedConv2d | TracedLinear
    if isinstance(module, nn.Linear):
        made = TracedLinear(module.in_features, module.out_features, bias, receiver)
    else:
        if module.padding_mode != "zeros" or isinstance(module.padding, str):
            raise ConfigError(
                f"convert: '{name}' pads by {module.padding_mode} {module.padding}; expected zeros, a number"
            )
        size, stride, padding, dilation = (
            (v[0], v[1]) for v in (module.kernel_size, module.stride, module.padding, module.dilation)
        )
        made = TracedConv2d(
            module.in_channels, module.out_channels, size, stride, padding, bias, dilation, module.groups,
            receiver=receiver,
        )  # fmt: skip
    made.weight, made.bias = module.weight, module.bias
    return made
