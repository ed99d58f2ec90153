"""Scores of a task on a data set, exact for any number of processes, and the files that tell them."""

import io
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from vision.engine.data import Sample
from vision.engine.distributed import World
from vision.engine.errors import DataError
from vision.engine.files import make_folder, to_json, write_atomically, write_json
from vision.engine.loading import load, size_of
from vision.engine.prediction import Picture
from vision.engine.recipe import TrainerOptions
from vision.engine.seeding import seed_everything, seed_of
from vision.engine.task import Batch, Metric, Task


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
    """The batch with its tensors, also those in lists and dictionaries, on ``device``.

    Four-dimensional tensors are put into channels-last order where asked for.
    """

    def move(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            order = torch.channels_last if channels_last and value.ndim == 4 else torch.preserve_format
            return value.to(device, non_blocking=True, memory_format=order)
        if isinstance(value, dict):
            return {key: move(inner) for key, inner in value.items()}
        return type(value)(map(move, value)) if type(value) in (list, tuple) else value

    at_home = device.type == "cpu" and not channels_last  # where loaders make their batches
    return batch if at_home else {key: move(value) for key, value in batch.items()}


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

    Process r takes batches r, r + processes, ...; a process without one only takes part in the exchange. Whole batches,
    as a network's last digits depend on what shares its batch. Records are merged by sample id and scored once. The
    random generators start each batch from a seed of its own, for predictions that draw from them. So the figures are
    exactly the same for any number of processes.

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
    step, draw = options.eval_batch_size, min(draw, size)
    batches = [list(range(i, min(i + step, size))) for i in range(0, size, step)][world.rank :: world.size]
    chosen = {round(i * (size - 1) / max(draw - 1, 1)) for i in range(draw)}
    metric, ids, here = task.metric_for(dataset), [], Evaluation({}, 0, 0.0)
    training = task.training
    task.eval()
    fetched = load(dataset, batches, (seed, "eval"), task.collate, options.workers, pin=world.device.type == "cuda")
    try:
        for indices, batch in zip(batches, fetched, strict=True):
            batch = to_device(batch, world.device, options.channels_last)
            seed_everything(seed_of(seed, "predict", indices[0]))
            with autocast(world.device, options.precision):
                predictions = task.predict(batch)
            metric.update(predictions, batch)
            ids += [prediction.id for prediction in predictions]
            if keep:
                here.predictions += [prediction.to_dict() for prediction in predictions]
            if chosen & set(indices):
                here.pictures |= _draw(task, batch, predictions, [i for i, k in enumerate(indices) if k in chosen])
    finally:
        task.train(training)
    return _merged(task.metric_for(dataset), (metric.records, ids, here), world, size, begun)


def _draw(task: Task, batch: Batch, predictions: list[Any], positions: list[int]) -> dict[str, bytes]:
    pictures, truths = task.pictures(batch), task.truths(batch)
    if not len(pictures):
        return {}
    return {predictions[i].id: png(predictions[i].draw(pictures[i], truths[i] if truths else None)) for i in positions}


def png(picture: Picture) -> bytes:
    """The picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _merged(
    metric: Metric, mine: tuple[dict[str, Any], list[str], Evaluation], world: World, size: int, begun: float
) -> Evaluation:
    gathered, whole = world.gather(mine), Evaluation({}, size, 0.0)

    def score() -> None:
        assert gathered is not None
        counts = Counter(name for _, ids, _ in gathered for name in ids)
        _require_unique(counts, size)
        for records, _, here in gathered:
            metric.merge(records)
            whole.predictions += here.predictions
            whole.pictures |= here.pictures
        whole.predictions.sort(key=lambda prediction: str(prediction["id"]))
        whole.metrics = {name: float(value) for name, value in metric.compute().items()}
        whole.tables = metric.tables(metric.ordered())

    world.first(score)
    whole.metrics, whole.seconds = world.share(whole.metrics), time.perf_counter() - begun
    return whole


def _require_unique(counts: "Counter[str]", size: int) -> None:
    name, times = counts.most_common(1)[0]
    if times > 1:
        raise DataError(f"the id '{name}' names {times} samples; every sample of a data set needs an id of its own")
    if len(counts) != size:
        raise DataError(f"{len(counts)} predictions for {size} samples; 'predict' must return one for each")


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
    make_folder(folder / "examples")
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
