"""The size of images that an exported graph takes: any, or a fixed one."""

import dataclasses

import torch.nn.functional as F
from torch import Tensor

from vision.engine.deployment import Deployment, DeploymentError, Graph

Size = tuple[int, int]
"""H and W in pixels."""


def at_size(deployment: Deployment, size: Size) -> Deployment:
    """The same graphs for images of one size.

    Args:
        deployment: as a task gives it.
        size: H and W.

    Raises:
        DeploymentError: a size that the network cannot take.
    """
    return dataclasses.replace(deployment, graphs=tuple(_fixed(graph, size) for graph in deployment.graphs))


def fitted(graph: Graph, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Inputs with images brought to the size that a graph has fixed; themselves where that is theirs.

    Args:
        graph: of :func:`at_size`, or any.
        inputs: of the same network at any size.
    """
    if "image" not in graph.inputs:
        return inputs
    place = graph.inputs.index("image")
    axes, wanted = graph.dynamic.get("image", {}), graph.example[place].shape[-2:]
    if {2, 3} & set(axes) or inputs[place].shape[-2:] == wanted:
        return inputs
    resized = _resized(inputs[place], (int(wanted[0]), int(wanted[1])))
    return (*inputs[:place], resized, *inputs[place + 1 :])


def _fixed(graph: Graph, size: Size) -> Graph:
    letters = {letter for axes in graph.dynamic.values() for letter in axes.values()}
    if not {"H", "W"} <= letters:
        _require_same(graph, size)
        return graph
    if min(size) < graph.smallest or any(side % graph.multiple for side in size):
        whole = "" if graph.multiple == 1 else f" and a multiple of {graph.multiple}"
        raise DeploymentError(
            f"--size {size[0]}x{size[1]}: this network takes sides of at least {graph.smallest} pixels{whole}"
        )
    examples = tuple(
        _resized(example, size) if "H" in graph.dynamic.get(name, {}).values() else example
        for name, example in zip(graph.inputs, graph.example, strict=True)
    )
    dynamic = {
        name: {axis: letter for axis, letter in axes.items() if letter not in ("H", "W")}
        for name, axes in graph.dynamic.items()
    }
    return dataclasses.replace(graph, example=examples, dynamic=dynamic)


def _require_same(graph: Graph, size: Size) -> None:
    """Images of a graph that takes one size are of that size."""
    images = dict(zip(graph.inputs, graph.example, strict=True)).get("image")
    if images is None:
        images = dict(zip(graph.inputs, graph.example, strict=True)).get("frames")
    if images is not None and tuple(images.shape[-2:]) != size:
        height, width = images.shape[-2:]
        raise DeploymentError(
            f"--size {size[0]}x{size[1]}: this network takes images of {height}x{width} pixels only; leave out --size"
        )


def _resized(images: Tensor, size: Size) -> Tensor:
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)
