"""A task beside the runner on its own deployed graphs: what both say of the same file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vision.deploy.description import SIDECAR
from vision.deploy.runner import Predictor
from vision.engine.deployment import Deployment, Graph
from vision.engine.prediction import Regions
from vision.engine.task import Picture, Task


class TorchSession:
    """The graphs of a deployment, run by PyTorch: the runner's part around them is tested without an exporter."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment

    def run(self, graph: str, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        made = self.deployment[graph]
        with torch.no_grad():
            outputs = made.module(*(torch.from_numpy(np.ascontiguousarray(feeds[name])) for name in made.inputs))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return {name: output.numpy() for name, output in zip(made.outputs, outputs, strict=True)}


def runner_of(task: Task, folder: Path) -> Predictor:
    """The runner of a task's deployed graphs."""
    deployment = task.eval().deployment()
    tree = {
        "format": 1, "task": type(task).__name__, "graphs": {g.name: _graph(g) for g in deployment.graphs},
        "before": deployment.before, "after": deployment.after,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SIDECAR).write_text(json.dumps(tree))
    return Predictor(folder, session=TorchSession(deployment))


def _graph(graph: Graph) -> dict[str, Any]:
    inputs = {}
    for name, example in zip(graph.inputs, graph.example, strict=True):
        letters = graph.dynamic.get(name, {})
        shape = [letters.get(axis, side) for axis, side in enumerate(example.shape)]
        inputs[name] = {"shape": shape, "dtype": str(example.dtype).removeprefix("torch."),
                        "multiple": graph.multiple, "smallest": graph.smallest}  # fmt: skip
    outputs = {name: {"shape": [], "dtype": "float32"} for name in graph.outputs}
    return {"file": f"{graph.name}.onnx", "inputs": inputs, "outputs": outputs}


@torch.no_grad()
def by_task(task: Task, path: str, number: int, regions: Regions | None = None) -> tuple[Any, Picture]:
    """What the task says of a file, and the picture that is drawn on, as ``tools/predict.py`` has them."""
    batch = task.collate(task.eval().read_inputs(path, regions))
    return task.together(path, number, task.predict(batch)), task.pictures(batch)[0]
