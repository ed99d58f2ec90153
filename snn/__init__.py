"""Spiking networks and the rules that train them online: STOP, OSSTOP, OTTT, SLTT, and BPTT to compare with."""

from typing import TYPE_CHECKING

from vision.engine.lazy import lazily

if TYPE_CHECKING:
    from snn.convert import convert
    from snn.event_data import CIFAR10DVS, NMNIST, DVS128Gesture, EventsNpz
    from snn.loading import load
    from snn.network import SpikingNetwork
    from snn.networks import NeuronOptions, spiking_lenet5, spiking_mlp, spiking_resnet18, spiking_vgg11
    from snn.neurons import LeakyReadout, SequenceError, STOPLIFNode
    from snn.online import stop_online_training
    from snn.rules import constrain, set_rule
    from snn.surrogates import Exponential, surrogate_of
    from snn.synapses import TracedConv2d, TracedLinear
    from snn.task import SpikingClassification

__all__ = [
    "CIFAR10DVS",
    "NMNIST",
    "DVS128Gesture",
    "EventsNpz",
    "Exponential",
    "LeakyReadout",
    "NeuronOptions",
    "STOPLIFNode",
    "SequenceError",
    "SpikingClassification",
    "SpikingNetwork",
    "TracedConv2d",
    "TracedLinear",
    "constrain",
    "convert",
    "load",
    "set_rule",
    "spiking_lenet5",
    "spiking_mlp",
    "spiking_resnet18",
    "spiking_vgg11",
    "stop_online_training",
    "surrogate_of",
]

lazily(
    __name__,
    {
        "snn.convert": ("convert",),
        "snn.event_data": ("CIFAR10DVS", "NMNIST", "DVS128Gesture", "EventsNpz"),
        "snn.loading": ("load",),
        "snn.network": ("SpikingNetwork",),
        "snn.networks": ("NeuronOptions", "spiking_lenet5", "spiking_mlp", "spiking_resnet18", "spiking_vgg11"),
        "snn.neurons": ("LeakyReadout", "SequenceError", "STOPLIFNode"),
        "snn.online": ("stop_online_training",),
        "snn.rules": ("constrain", "set_rule"),
        "snn.surrogates": ("Exponential", "surrogate_of"),
        "snn.synapses": ("TracedConv2d", "TracedLinear"),
        "snn.task": ("SpikingClassification",),
    },
)
