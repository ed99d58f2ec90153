"""A graph of a network as an ONNX file, by PyTorch's exporter."""

import inspect
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from vision.deploy.extras import EXPORT, needed
from vision.engine.deployment import DeploymentError, Graph
from vision.ops.selective_scan import onnx_form

OPSET = 18
"""The opset that PyTorch's exporter writes by itself; ONNX Runtime reads it from 1.14 on, TensorRT from 10 on."""

SCOPES = "pkg.torch.onnx.name_scopes"
"""Which layer a node is of, in its metadata."""

_OPERATOR = re.compile(r"OpOverload\(op='([\w.:]+)'")


def onnx_model(graph: Graph, form: str | None = None) -> Any:
    """The graph as an ``onnx.ModelProto`` in float32; of what nodes came from, only the layers' names are kept.

    Args:
        graph: of a deployed network.
        form: of selective scans (:class:`vision.ops.selective_scan.onnx_form`); None takes ``scan``.

    Raises:
        DeploymentError: an operator without a form in ONNX, or an axis that cannot have any size.
        UserError: the extra ``export`` is not installed.
    """
    needed(*EXPORT)
    try:
        with _quietly(), torch.no_grad(), onnx_form(form) if form else nullcontext():
            program = torch.onnx.export(
                graph.module,
                graph.example,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamic_shapes=shapes_of(graph, graph.dynamic),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise DeploymentError(_explained(error, graph)) from error
    assert program is not None
    model = program.model_proto
    _strip(model.graph)
    _require_dynamic(model, graph)
    return model


def shapes_of(graph: Graph, dynamic: Any) -> tuple[Any, ...]:
    """``dynamic`` as PyTorch's exporters take it: an entry an argument, those of ``*arguments`` in one tuple."""
    entries = [dict(dynamic.get(name, {})) for name in graph.inputs]
    for place, parameter in enumerate(inspect.signature(graph.module.forward).parameters.values()):
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            return (*entries[:place], tuple(entries[place:]))
    return tuple(entries)


def save(model: Any, path: Path, metadata: dict[str, str]) -> None:
    """Writes a model with metadata, in place of what it had under those names."""
    (onnx,) = needed("onnx")
    kept = {entry.key: entry.value for entry in model.metadata_props}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {**kept, **metadata})
    onnx.save(model, str(path))


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what exporters say about themselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


def _explained(error: BaseException, graph: Graph) -> str:
    """An exporter's error in a line or two."""
    text = ""
    cause: BaseException | None = error
    while cause is not None:
        text += str(cause) + "\n"
        cause = cause.__cause__
    operators = sorted(set(_OPERATOR.findall(text))) if "No ONNX function found" in text else []
    if operators:
        return (
            f"graph '{graph.name}': ONNX has no form of the operator {', '.join(operators)}; replace it in the network "
            "by operators that have one, or export for PyTorch: --format torch"
        )
    lines = [line.strip() for line in text.splitlines() if line.strip() and "\x1b" not in line]
    told = next((line for line in reversed(lines) if "Error" in line or "guard" in line), lines[-1] if lines else "")
    return f"graph '{graph.name}' cannot be exported to ONNX: {told[:300]}"


def _strip(onnx_graph: Any) -> None:
    """Takes off stack traces and other notes about the machine and the code that exported."""
    for node in onnx_graph.node:
        kept = [(entry.key, entry.value) for entry in node.metadata_props if entry.key == SCOPES]
        del node.metadata_props[:]
        for key, value in kept:
            node.metadata_props.add(key=key, value=value)
        node.doc_string = ""
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _strip(attribute.g)
    for value in (*onnx_graph.input, *onnx_graph.output, *onnx_graph.value_info, *onnx_graph.initializer):
        value.doc_string = ""
        if hasattr(value, "metadata_props"):
            del value.metadata_props[:]


def _require_dynamic(model: Any, graph: Graph) -> None:
    axes = {value.name: value.type.tensor_type.shape.dim for value in model.graph.input}
    for name, letters in graph.dynamic.items():
        fixed = [letter for axis, letter in letters.items() if not axes[name][axis].dim_param]
        if fixed:
            raise DeploymentError(
                f"graph '{graph.name}': the axis {', '.join(fixed)} of '{name}' became fixed when it was exported; "
                "export for one size with --size HxW, or make the network independent of it"
            )
