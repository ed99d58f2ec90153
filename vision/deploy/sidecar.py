"""What an exported network says of itself: ``model.json``, and the same text in every ONNX file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from vision.deploy.description import FORMAT
from vision.engine.deployment import Deployment, Graph

LICENCE = (
    "Made with Triptych (Apache-2.0). The weights are bound to the terms of the data they were trained on, and of the "
    "weights they began from."
)


@dataclass(frozen=True)
class Origin:
    """Where an exported network comes from.

    Attributes:
        task: registered name.
        run: name of the run or recipe.
        config_hash: SHA-256 of the recipe.
        step: updates the weights were trained for; None where that is not known.
        metric: the run's own figures by split.
        trained: whether there are trained weights.
    """

    task: str
    run: str
    config_hash: str = ""
    step: int | None = None
    metric: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = True


def sidecar(
    deployment: Deployment,
    origin: Origin,
    kind: str,
    precision: str,
    scan_form: str | None,
    opset: int | None,
    needs: Mapping[str, Any],
) -> dict[str, Any]:
    """The description, as :data:`vision.deploy.schemas.SIDECAR` has it.

    Args:
        deployment: its graphs and what surrounds them.
        origin: where it comes from.
        kind: ``onnx``, ``torch``, ``tensorrt`` or ``tensorrt-rtx``.
        precision: ``fp32``, ``fp16`` or ``int8``.
        scan_form: of selective scans; None where there are none.
        opset: of ONNX files.
        needs: what running it takes.
    """
    suffix = {"onnx": "onnx", "torch": "pt2", "tensorrt": "engine", "tensorrt-rtx": "engine"}[kind]
    return {
        "format": FORMAT,
        "triptych": _version(),
        "task": origin.task,
        "kind": kind,
        "precision": precision,
        "opset": opset,
        "scan_form": scan_form,
        "graphs": {graph.name: {"file": f"{graph.name}.{suffix}", **_ports(graph)} for graph in deployment.graphs},
        "before": deployment.before,
        "after": deployment.after,
        "run": {
            "name": origin.run,
            "config_hash": origin.config_hash,
            "step": origin.step,
            "metric": dict(origin.metric),
        },
        "licence": LICENCE,
        "trained": origin.trained,
        "needs": dict(needs),
    }


def _version() -> str:
    try:
        return version("triptych")
    except PackageNotFoundError:
        return "unknown"


def _ports(graph: Graph) -> dict[str, Any]:
    with torch.no_grad():
        given = graph.module(*graph.example)
        larger = graph.module(*_grown(graph))
    given, larger = (x if isinstance(x, tuple) else (x,) for x in (given, larger))
    letters = sorted({letter for axes in graph.dynamic.values() for letter in axes.values()})
    inputs = {
        name: {
            "shape": [graph.dynamic.get(name, {}).get(axis, size) for axis, size in enumerate(example.shape)],
            "dtype": _dtype(example),
            **({"multiple": graph.multiple, "smallest": graph.smallest} if _sized(graph, name) else {}),
        }
        for name, example in zip(graph.inputs, graph.example, strict=True)
    }
    outputs = {
        name: {"shape": _axes(first, second, graph, letters), "dtype": _dtype(first)}
        for name, first, second in zip(graph.outputs, given, larger, strict=True)
    }
    return {"inputs": inputs, "outputs": outputs}


def _sized(graph: Graph, name: str) -> bool:
    return "H" in graph.dynamic.get(name, {}).values()


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _steps(graph: Graph) -> dict[str, int]:
    """How much each letter grows by in :func:`_grown`, each by another number, sides by whole multiples."""
    multiple = 32 * graph.multiple
    return {"N": 1, "P": 2, "H": multiple, "W": 2 * multiple, "h": 3, "w": 5, "T": 7}


def _grown(graph: Graph) -> tuple[torch.Tensor, ...]:
    """The example with every dynamic axis longer, to see which axes of outputs follow."""
    steps, grown = _steps(graph), []
    for name, example in zip(graph.inputs, graph.example, strict=True):
        for axis, letter in graph.dynamic.get(name, {}).items():
            more = example.narrow(axis, 0, 1).repeat_interleave(steps[letter], axis)
            example = torch.cat((example, more), axis)
        grown.append(example)
    return tuple(grown)


def _axes(first: torch.Tensor, second: torch.Tensor, graph: Graph, letters: list[str]) -> list[int | str]:
    """Numbers of fixed axes, letters of those that follow an input's; of a coarser map ``h`` and ``w``."""
    steps = _steps(graph)
    found: list[int | str] = []
    for before, after in zip(first.shape, second.shape, strict=True):
        exact = [letter for letter in letters if steps[letter] == after - before]
        coarse = [letter for letter in "HW" if letter in letters and 0 < after - before < steps[letter]]
        letter = exact[0] if exact else ("h" if len(found) == first.ndim - 2 else "w") if coarse else None
        found.append(before if after == before else letter or "?")
    return found
