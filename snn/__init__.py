"""Spiking networks and the rules that train them online: STOP, OSSTOP, OTTT, SLTT, and BPTT to compare with."""

from snn.convert import convert
from snn.event_data import CIFAR10DVS, NMNIST, DVS128Gesture, EventsNpz
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
    "set_rule",
    "spiking_lenet5",
    "spiking_mlp",
    "spiking_resnet18",
    "spiking_vgg11",
    "stop_online_training",
    "surrogate_of",
]
