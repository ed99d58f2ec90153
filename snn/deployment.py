"""A spiking network as exported graphs: all time steps with the states inside, and one step with them in and out."""

from typing import Any

import torch
from spikingjelly.activation_based import base
from torch import Tensor, nn

from snn.encoders import Encoding, rows
from snn.network import SpikingNetwork
from snn.neurons import LeakyReadout, STOPLIFNode
from vision.engine.deployment import Graph


class Sequence(nn.Module):
    """Outputs of every step, ``[T, N, C]``, of images or of sequences; the states begin at zero and are forgotten.

    Args:
        network: deployed.
        encoding: of images, where they are what comes in: ``rows`` makes a step of each row.
    """

    def __init__(self, network: SpikingNetwork, encoding: Encoding = "direct") -> None:
        super().__init__()
        self.network, self.encoding = network, encoding

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` or ``[N, T, C, H, W]`` to ``[T, N, C]``."""
        return self.network.run(rows(x) if self.encoding == "rows" else x)


class Step(nn.Module):
    """One time step, from the states of every layer of neurons to their states after it.

    Args:
        network: deployed.

    Attributes:
        names: of the layers that have a state, in the order of the states.
    """

    def __init__(self, network: SpikingNetwork) -> None:
        super().__init__()
        self.network = network
        kinds = (STOPLIFNode, LeakyReadout)
        self.names = [name for name, module in network.body.named_modules() if isinstance(module, kinds)]

    @property
    def nodes(self) -> list[Any]:
        """The layers that have a state."""
        return [self.network.body.get_submodule(name) for name in self.names]

    def first_states(self, x: Tensor) -> list[Tensor]:
        """The states before the first step, zeros ``[N, *]`` for an input ``[N, ...]``."""
        return [torch.zeros_like(state) for state in self(x)[1:]]

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """The output ``[N, C]`` and the states after the step; without states they are zero before it."""
        self.network.reset(1)
        try:
            for node, state in zip(self.nodes, states, strict=bool(states)) if states else ():
                node.v = state
            output = self.network.step(x)
            return (output, *(node.v for node in self.nodes))
        finally:
            self.network.reset()


def graphs(network: SpikingNetwork, example: Tensor, kind: str, encoding: Encoding) -> tuple[Graph, Graph]:
    """``model``, over all time steps, and ``step``.

    Args:
        network: deployed.
        example: images or sequences, ``[N, ...]``.
        kind: what an input is called: ``image`` or ``frames``.
        encoding: of images.
    """
    sequence, step = Sequence(network, encoding).eval(), Step(network).eval()
    batch = {0: "N"}
    whole = Graph("model", sequence, (example,), (kind,), ("outputs",), {kind: batch})
    with torch.no_grad():
        shown = rows(example) if encoding == "rows" else example
        frame = network.sequence(shown)[0].clone()
        states = step.first_states(frame)
    inputs = ("frame", *(f"state_{_plain(name)}" for name in step.names))
    outputs = ("output", *(f"next_{_plain(name)}" for name in step.names))
    one = Graph("step", step, (frame, *states), inputs, outputs, dict.fromkeys(inputs, batch))
    return whole, one


def _plain(name: str) -> str:
    return name.replace(".", "_")


def forget(network: SpikingNetwork) -> None:
    """Takes every state and trace off a network's layers, so that a copy holds none."""
    for module in network.modules():
        if isinstance(module, base.MemoryModule):
            module.reset()
