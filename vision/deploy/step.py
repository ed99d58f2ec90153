"""A stage of a pipeline that exports a trained network and runs the file in ONNX Runtime."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import Dataset

from vision.deploy.description import SIDECAR
from vision.deploy.export import Options, export, samples
from vision.deploy.extras import EXPORT, needed
from vision.deploy.parity import Parity, for_batches, runner_of
from vision.deploy.session import OnnxSession
from vision.deploy.source import source_of
from vision.engine.data import Sample
from vision.engine.deployment import Run
from vision.engine.environment import machine_summary
from vision.engine.errors import ConfigError
from vision.engine.evaluation import Evaluation, png, write_evaluation
from vision.engine.files import read_json
from vision.engine.registry import register
from vision.engine.task import Task


@register("export", kind="step")
@dataclass(frozen=True)
class ExportToOnnx:
    """Exports a run's network to ONNX, compares it with PyTorch on real samples, and draws what the file predicts.

    The files lie in ``exported/`` of the stage's folder. As an evaluation ``onnx`` stand the task's figures with ONNX
    Runtime in place of PyTorch, and the largest difference between the two relative to the largest value.

    Args:
        trained: a run folder.
        precision: ``fp32``, ``fp16`` or ``int8``.
        checkpoint: ``best`` or ``last``.
        split: the samples that the file is compared on.
        limit: so many of them.
        draw: predictions of the file that are drawn.

    Raises:
        ConfigError: a limit below 1, or fewer than no pictures.
    """

    trained: Path
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    checkpoint: Literal["best", "last"] = "best"
    split: Literal["val", "test"] = "val"
    limit: int = 64
    draw: int = 8

    def __post_init__(self) -> None:
        if self.limit < 1 or self.draw < 0:
            raise ConfigError(f"step: limit {self.limit} and draw {self.draw}; expected 1 or more, and 0 or more")

    def rehearse(self, folder: Path) -> dict[str, Any]:
        """Asks for the extra and the graphs, for a dry run; exports nothing."""
        needed(*EXPORT)
        source_of(self.trained, self.checkpoint, [])[0].deployment()
        return {}

    def run(self, folder: Path) -> dict[str, Any]:
        """The file, and the task's figure in PyTorch and in ONNX Runtime.

        Raises:
            DeploymentError: the network cannot be exported, or the file is not equal to it.
            UserError: the extra ``export`` is not installed.
        """
        begun = time.perf_counter()
        needed(*EXPORT)
        task, origin, home = source_of(self.trained, self.checkpoint, [])
        options, made = Options(precision=self.precision, limit=self.limit, split=self.split), folder / "exported"
        parity = export(task, origin, made, options)
        deployment = task.deployment()
        files = {graph.name: made / f"{graph.name}.onnx" for graph in deployment.graphs}
        run = runner_of(OnnxSession(files), deployment)
        pictures = drawn(task, samples(task, options), run, self.draw)
        figures = {**parity.after, "largest_difference": largest(parity)}
        about = {
            "split": self.split, "name": origin.run, "checkpoint": self.checkpoint, "primary": parity.primary,
            "mode": task.metric().mode, "precision": self.precision, "in_torch": parity.before,
            "weights_sha256": _digest(home / "checkpoints" / f"{self.checkpoint}.safetensors"),
            "machine": machine_summary(), "exported": read_json(made / SIDECAR),
        }  # fmt: skip
        seconds = time.perf_counter() - begun
        write_evaluation(
            folder / "eval" / "onnx", Evaluation(figures, parity.samples, seconds, pictures=pictures), about
        )
        told = {"in_torch": parity.before.get(parity.primary), "in_onnxruntime": parity.after.get(parity.primary)}
        return {
            "folder": str(made),
            "figure": parity.primary,
            **told,
            "largest_difference": figures["largest_difference"],
        }


def largest(parity: Parity) -> float:
    """The largest difference of any output of any graph, relative to the output's largest value."""
    outputs = [output for graph in parity.graphs.values() for output in graph.outputs.values()]
    return max(output.share for output in outputs)


def drawn(task: Task, dataset: "Dataset[Sample]", run: Run, count: int) -> dict[str, bytes]:
    """The first predictions of exported graphs on a data set, drawn; PNG files by sample id.

    Args:
        task: whose pre- and post-processing surrounds the graphs.
        dataset: real samples.
        run: runs the graphs.
        count: pictures, at most.
    """
    found: dict[str, bytes] = {}

    def draw(batch: dict[str, Any]) -> None:
        if len(found) >= count:
            return
        predictions, pictures, truths = task.predict_exported(batch, run), task.pictures(batch), task.truths(batch)
        for place in range(min(len(pictures), count - len(found))):
            truth = truths[place] if truths else None
            found[predictions[place].id] = png(predictions[place].draw(pictures[place], truth))

    for_batches(task, dataset, draw)
    return found


def _digest(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
