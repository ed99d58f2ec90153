"""Scores of a task on a data set, exact for any number of processes, and the files that tell them."""

import io
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from vision.engine.data import Sample
from vision.engine.distributed import World
from vision.engine.errors import DataError
from vision.engine.loading import load, size_of
from vision.engine.recipe import TrainerOptions
from vision.engine.files import to_json, write_atomically, write_json
from vision.engine.seeding import seed_of
from vision.engine.task import Batch, Metric, Picture, Task

@dataclass
class Evaluation:
    """What an evaluation found; complete at rank 0, the figures everywhere.

    Attributes:
        metrics: figures by name.
        tables: what is more than a figure (confusion matrix, curves).
        samples: how many were judged.
        seconds: the evaluation took.
        predictions: one dictionary a sample, by id; empty unless they were kept.
        pictures: PNG files of drawn predictions, by sample id.
    """

    metrics: dict[str, float]
    samples: int
    seconds: float
    tables: dict[str, Any] = field(default_factory=dict)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)


def to_device(batch: Batch, device: torch.device, channels_last: bool = False) -> Batch:
    """The batch with its tensors on ``device``; 4-D ones in channels-last order where asked for."""

    def move(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return [move(v) for v in value] if isinstance(value, list) else value
        order = torch.channels_last if channels_last and value.ndim == 4 else torch.preserve_format
        return value.to(device, non_blocking=True, memory_format=order)

    return {key: move(value) for key, value in batch.items()}


@torch.no_grad()
def evaluate(
    task: Task,
    dataset: "Dataset[Sample]",
    world: World,
    options: TrainerOptions,
    seed: int = 0,
    keep: bool = False,
    draw: int = 0,
) -> Evaluation:
    """Judges every sample once.

    Process r takes samples r, r + size, ...; a process without samples only takes part in the exchange. Records are
    merged by sample id and scored once, so that the figures do not depend on the number of processes.

    Args:
        task: its network is put into eval mode and back.
        dataset: what to judge it on.
        world: the processes.
        options: batch size, workers, precision.
        seed: of the run.
        keep: keep the predictions themselves.
        draw: pictures to draw, spread evenly over the data set.

    Raises:
        DataError: the data set is empty, or two samples have the same id.
    """
    begun = time.perf_counter()
    size = size_of(dataset, "evaluation")
    mine = list(range(world.rank, size, world.size))
    chosen = {round(i * (size - 1) / max(draw - 1, 1)) for i in range(min(draw, size))}
    metric, here = task.metric(), Evaluation({}, len(mine), 0.0)
    training = task.training
    task.eval()
    step = options.eval_batch_size
    batches = [mine[i : i + step] for i in range(0, len(mine), step)]
    keys = [[(i, seed_of(seed, "eval", i)) for i in batch] for batch in batches]
    try:
        for indices, batch in zip(batches, load(dataset, keys, task.collate, options.workers), strict=True):
            batch = to_device(batch, world.device, options.channels_last)
            with autocast(world.device, options.precision):
                predictions = task.predict(batch)
            metric.update(predictions, batch)
            if keep:
                here.predictions += [prediction.to_dict() for prediction in predictions]
            if chosen & set(indices):
                here.pictures |= _draw(task, batch, predictions, [i for i, k in enumerate(indices) if k in chosen])
    finally:
        task.train(training)
    return _merged(task, metric, here, world, size, begun)


def _draw(task: Task, batch: Batch, predictions: list[Any], positions: list[int]) -> dict[str, bytes]:
    pictures, truths = task.pictures(batch), task.truths(batch)
    if not pictures:
        return {}
    return {
        predictions[i].id: png(predictions[i].draw(pictures[i], truths[i] if truths else None)) for i in positions
    }


def png(picture: Picture) -> bytes:
    """The picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _merged(
    task: Task, metric: Metric, here: Evaluation, world: World, size: int, begun: float
) -> Evaluation:
    gathered = world.gather((metric.records, here.predictions, here.pictures))
    whole = here
    if gathered is not None:
        total = task.metric()
        for records, _, _ in gathered:
            total.merge(records)
        if len(total.records) != size:
            whole.metrics = {}  # said below, in every process
        else:
            whole = Evaluation(total.compute(), size, 0.0, total.tables(total.ordered()))
        whole.predictions = sorted((p for _, kept, _ in gathered for p in kept), key=lambda p: str(p["id"]))
        whole.pictures = {name: picture for _, _, drawn in gathered for name, picture in drawn.items()}
    whole.metrics = world.share(whole.metrics)
    whole.samples, whole.seconds = size, time.perf_counter() - begun
    if not whole.metrics:
        raise DataError(f"{size} samples share fewer ids; every sample's 'id' must be unique within its data set")
    return whole


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Automatic mixed precision as a recipe asks for it."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "float32")


def write_evaluation(folder: Path, evaluation: Evaluation, about: dict[str, Any]) -> dict[str, Any]:
    """Writes ``result.json``, ``predictions.jsonl`` and the drawn examples of an evaluation.

    Args:
        folder: ``eval/<split>`` of a run.
        evaluation: complete, at rank 0.
        about: what else ``result.json`` tells: split, data, checkpoint, machine.

    Returns:
        What was written to ``result.json``.
    """
    (folder / "examples").mkdir(parents=True, exist_ok=True)
    for old in (folder / "examples").glob("*.png"):
        old.unlink()
    for name, picture in evaluation.pictures.items():
        write_atomically(folder / "examples" / f"{_as_file(name)}.png", picture)
    lines = "".join(to_json(p) + "\n" for p in evaluation.predictions)
    write_atomically(folder / "predictions.jsonl", lines.encode())
    result = {
        **about,
        "samples": evaluation.samples,
        "metrics": evaluation.metrics,
        "tables": evaluation.tables,
        "eval_seconds": round(evaluation.seconds, 3),
    }
    write_json(folder / "result.json", result)
    return result


def _as_file(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
