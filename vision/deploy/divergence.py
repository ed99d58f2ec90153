"""The first layer of a network at which its exported graph gives something else."""

import ast
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vision.deploy.extras import needed
from vision.deploy.onnx import SCOPES
from vision.engine.deployment import Graph

Values = dict[str, NDArray[Any]]


def layer_values(model: Any) -> dict[str, str]:
    """Which value of a graph is the output of which layer: that of the last node of the layer.

    Args:
        model: an ``onnx.ModelProto`` as :func:`vision.deploy.onnx.onnx_model` gives it.

    Returns:
        By the layer's dotted name; a call after the first has ``@1``, ``@2``, ... behind its name.
    """
    found: dict[str, str] = {}
    for node in model.graph.node:
        scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), None)
        named = ast.literal_eval(scopes)[:-1] if scopes else []
        for scope in named[-1:]:
            if scope:
                found[scope] = node.output[0]
    return found


def first_divergence(
    graph: Graph, exported: Any, values: dict[str, str], inputs: Sequence[NDArray[Any]], limit: float
) -> dict[str, Any] | None:
    """The first layer, in the order in which they run, whose output differs by more than a share of its largest value.

    Args:
        graph: what was exported.
        exported: the ``onnx.ModelProto`` in question.
        values: of the graph in float32, from :func:`layer_values`; other precisions keep the names.
        inputs: of the graph.
        limit: share of the largest value of a layer's output.

    Returns:
        ``layer``, its ``kind``, ``value`` (the name of the node's output), ``largest`` difference and ``scale``; None
        where no layer can be told apart.
    """
    mine = _layers(graph.module, inputs)
    theirs = _exposed(exported, set(values.values()), dict(zip(graph.inputs, inputs, strict=True)))
    for layer, kind, output in mine:
        other = theirs.get(values.get(layer, ""))
        if other is None or other.shape != output.shape:
            continue
        scale = max(float(np.abs(output).max(initial=0.0)), 1e-6)
        largest = float(np.abs(output - other.astype(output.dtype)).max(initial=0.0))
        if not largest <= limit * scale:  # also where it is not a number
            return {"layer": layer, "kind": kind, "value": values[layer], "largest": largest, "scale": scale}
    return None


def _layers(module: nn.Module, inputs: Sequence[NDArray[Any]]) -> list[tuple[str, str, NDArray[Any]]]:
    """Names, kinds and outputs of all layers in the order in which they finish."""
    found: list[tuple[str, str, NDArray[Any]]] = []
    calls: dict[str, int] = {}

    def note(name: str) -> Any:
        def hook(layer: nn.Module, _: Any, output: Any) -> None:
            call = calls[name] = calls.get(name, -1) + 1
            if isinstance(output, Tensor):
                values = output.detach().float().numpy().copy()
                found.append((f"{name}@{call}" if call else name, type(layer).__name__, values))

        return hook

    hooks = [layer.register_forward_hook(note(name)) for name, layer in module.named_modules() if name]
    try:
        with torch.no_grad():
            module(*(torch.from_numpy(np.array(values)) for values in inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _exposed(model: Any, names: set[str], feeds: Values) -> Values:
    """Values inside a graph, by name; those that it does not have any more are left out."""
    onnx, runtime = needed("onnx", "onnxruntime")
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    made = {output for node in opened.graph.node for output in node.output}
    given = [value.name for value in opened.graph.output]
    wanted = sorted((names & made) - set(given))
    opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = runtime.InferenceSession(opened.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([*given, *wanted], session.run(None, feeds), strict=True))
