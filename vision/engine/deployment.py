"""What leaves PyTorch: the graphs of a network, and what surrounds them as plain JSON."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from vision.engine.errors import UserError

Run = Callable[..., tuple[Tensor, ...]]
"""Runs an exported graph: its name and its inputs, to its outputs."""


class DeploymentError(UserError):
    """A network that cannot be exported as asked for, or an exported one that is not equal to it."""


@dataclass(frozen=True)
class Graph:
    """One exported graph of a network.

    Attributes:
        name: ``model`` where there is one; DHRNet has ``image`` and ``people``, a spiking network ``model`` (all time
            steps, the states inside) and ``step`` (one step, states in and states out).
        module: a deployed copy in eval mode (see :func:`vision.engine.folding.deployed`) that takes the inputs in
            order and gives a tensor, or a tuple of as many as there are ``outputs``.
        example: one example of each input.
        inputs: their names.
        outputs: names of what ``module`` gives.
        dynamic: input -> axis -> letter, of the axes that may have any size: ``N`` samples, ``H`` and ``W`` rows and
            columns of an image, ``h`` and ``w`` of a feature map, ``P`` people.
        multiple: H and W, where they are dynamic, are multiples of this, in pixels.
        smallest: H and W, where they are dynamic, are at least this, in pixels.
    """

    name: str
    module: nn.Module
    example: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic: Mapping[str, Mapping[int, str]]
    multiple: int = 1
    smallest: int = 1


@dataclass(frozen=True)
class Deployment:
    """What leaves PyTorch: graphs, and what surrounds them.

    Attributes:
        graphs: at least one.
        before: how an image becomes an input: ``{"type": ..., numbers}``, as the runner reads it.
        after: how outputs become a prediction: ``{"type": ..., numbers}``, as the runner reads it.
    """

    graphs: tuple[Graph, ...]
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Graph:
        """The graph of that name."""
        return next(graph for graph in self.graphs if graph.name == name)


class Exported(nn.Module):
    """The exported graph ``model`` in the place of a network.

    Args:
        run: runs exported graphs.
        graph: which of them.
    """

    def __init__(self, run: Run, graph: str = "model") -> None:
        super().__init__()
        self.run, self.graph = run, graph

    def forward(self, *inputs: Tensor) -> Any:
        """What the graph gives: a tensor, or a tuple of several."""
        outputs = self.run(self.graph, *inputs)
        return outputs[0] if len(outputs) == 1 else outputs


def images_graph(
    module: nn.Module, example: Tensor, outputs: tuple[str, ...], any_size: bool, multiple: int = 1, smallest: int = 1
) -> Graph:
    """The graph ``model`` of a network that takes images.

    Args:
        module: deployed; takes ``[N, C, H, W]``.
        example: two images or more, so that no axis of the example is 1 by chance.
        outputs: names.
        any_size: whether H and W are dynamic.
        multiple: of H and W.
        smallest: of H and W.
    """
    axes = {0: "N", 2: "H", 3: "W"} if any_size else {0: "N"}
    return Graph("model", module, (example,), ("image",), outputs, {"image": axes}, multiple, smallest)
