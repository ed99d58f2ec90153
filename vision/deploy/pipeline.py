"""Where the time of a prediction goes: decoding, pre-processing, network and post-processing of real images."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vision.deploy.runner import Predictor
from vision.deploy.session import Feeds, Session
from vision.deploy.statistics import percentile
from vision.engine.data import Sample
from vision.engine.deployment import Run
from vision.engine.errors import DataError
from vision.engine.task import Picture, Regions, Task
from vision.engine.video import VIDEOS, Video

DECODE, BEFORE, BOTH, NETWORK, AFTER = (
    "decoding", "pre-processing", "decoding and pre-processing", "network", "post-processing"
)  # fmt: skip
TOTAL = "all"


@dataclass
class Watch:
    """Seconds of each stage of each image.

    Attributes:
        images: one dictionary an image: seconds by stage.
    """

    images: list[dict[str, float]] = field(default_factory=list)

    def begin(self) -> None:
        """Another image."""
        self.images.append({})

    def add(self, stage: str, begun: float) -> None:
        """What has passed since, counted for a stage of the last image."""
        now = self.images[-1]
        now[stage] = now.get(stage, 0.0) + time.perf_counter() - begun

    def rows(self) -> list[dict[str, Any]]:
        """A row a stage in their order, and one of all of them."""
        stages = [s for s in (DECODE, BEFORE, BOTH, NETWORK, AFTER) if any(s in image for image in self.images)]
        whole = [sum(image.values()) for image in self.images]
        rows = [_row(stage, [image.get(stage, 0.0) for image in self.images], whole) for stage in stages]
        return [*rows, _row(TOTAL, whole, whole)]


def _row(stage: str, seconds: Sequence[float], whole: Sequence[float]) -> dict[str, Any]:
    found = {f"p{p}_ms": percentile([1000 * s for s in seconds], p) for p in (50, 90, 99)}
    rounded = {key: None if value is None else float(f"{value:.5g}") for key, value in found.items()}
    return {"stage": stage, **rounded, "share": round(sum(seconds) / sum(whole), 4)}


def timed_run(run: Run, watch: Watch) -> Run:
    """A runner of graphs whose time counts as the network's; its outputs lie on the CPU, so that the device is done.

    Args:
        run: runs graphs.
        watch: where the time goes.
    """

    def timed(graph: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        begun = time.perf_counter()
        found = run(graph, *inputs)
        watch.add(NETWORK, begun)
        return found

    return timed


@torch.inference_mode()
def time_stages(
    task: Task, run: Run, files: Sequence[Path], repeats: int = 3, regions: Regions | None = None, warm: int = 3
) -> Watch:
    """Predicts on files one image at a time, as ``tools/predict.py`` does, and times the stages.

    What is neither decoding nor pre-processing nor inside a graph counts as post-processing. A task that cannot take a
    decoded picture gives decoding and pre-processing as one.

    Args:
        task: with its weights, on the CPU.
        run: runs its graphs, see :func:`vision.deploy.backends.graph_runner`.
        files: images and videos.
        repeats: how often all of them are read.
        regions: where the objects of an image are.
        warm: images to predict on before, which are not counted.

    Raises:
        DataError: a file that cannot be read.
    """
    task.eval()
    watch = Watch()
    for _ in range(warm):
        _predict(task, run, next(_samples(task, files[0], regions, Watch())), Watch())
    for _ in range(repeats):
        for file in files:
            for samples in _samples(task, file, regions, watch):
                _predict(task, run, samples, watch)
    return watch


def _predict(task: Task, run: Run, samples: list[Sample], watch: Watch) -> None:
    if not watch.images:
        watch.begin()
    now = watch.images[-1]
    before, begun = now.get(NETWORK, 0.0), time.perf_counter()
    found = task.predict_exported(task.collate(samples), timed_run(run, watch)) if samples else []
    task.together("benchmark", 1, found)
    inside = now.get(NETWORK, 0.0) - before
    now[AFTER] = time.perf_counter() - begun - inside


def _samples(task: Task, file: Path, regions: Regions | None, watch: Watch) -> Iterator[list[Sample]]:
    if file.suffix.lower() in VIDEOS:
        yield from _frames(task, file, regions, watch)
        return
    watch.begin()
    begun = time.perf_counter()
    if type(task).frame_inputs is Task.frame_inputs:
        samples = task.read_inputs(str(file), regions)
        watch.add(BOTH, begun)
    else:
        picture = _decoded(file)
        watch.add(DECODE, begun)
        begun = time.perf_counter()
        samples = task.frame_inputs(picture, str(file), 0, regions)
        watch.add(BEFORE, begun)
    yield samples


def _frames(task: Task, file: Path, regions: Regions | None, watch: Watch) -> Iterator[list[Sample]]:
    frames = iter(Video(file))
    while True:
        begun = time.perf_counter()
        frame = next(frames, None)
        if frame is None:
            return
        watch.begin()
        watch.add(DECODE, begun)
        begun = time.perf_counter()
        samples = task.frame_inputs(frame.picture, f"{file.name}#{frame.number}", frame.number, regions)
        watch.add(BEFORE, begun)
        yield samples


class _Timed:
    """A session whose time counts as the network's, and what came before its first run as pre-processing."""

    def __init__(self, session: Session, watch: Watch) -> None:
        self.session, self.watch, self.begun, self.ran = session, watch, 0.0, False

    def run(self, graph: str, feeds: Feeds) -> dict[str, Any]:
        if not self.ran:
            self.watch.add(BEFORE, self.begun)
        begun, self.ran = time.perf_counter(), True
        found = self.session.run(graph, feeds)
        self.watch.add(NETWORK, begun)
        return found


def time_exported(predictor: Predictor, files: Sequence[Path], repeats: int = 3, warm: int = 3) -> Watch:
    """The same stages of an exported file, which its runner predicts with, without PyTorch.

    Args:
        predictor: of the file.
        files: images and videos.
        repeats: how often all of them are read.
        warm: images to predict on before, which are not counted.

    Raises:
        DataError: a file that cannot be read.
    """
    watch, session = Watch(), predictor.session
    for _ in range(warm):
        predictor.predict(next(_images(files[0]))[0])
    for _ in range(repeats):
        for file in files:
            for image, seconds in _images(file):
                timed = _Timed(session, watch)
                predictor.session = timed
                try:
                    _one(predictor, image, file, seconds, timed)
                finally:
                    predictor.session = session
    return watch


def _images(file: Path) -> Iterator[tuple[Any, float]]:
    """A file, or the frames of a video, with the seconds it took to decode them."""
    if file.suffix.lower() not in VIDEOS:
        yield str(file), 0.0
        return
    frames = iter(Video(file))
    while True:
        begun = time.perf_counter()
        frame = next(frames, None)
        if frame is None:
            return
        yield frame.picture, time.perf_counter() - begun


def _one(predictor: Predictor, image: Any, file: Path, seconds: float, timed: _Timed) -> None:
    watch = timed.watch
    watch.begin()
    begun = time.perf_counter() - seconds
    seen = predictor.system.read(image, str(file))
    watch.add(DECODE, begun)
    timed.begun = time.perf_counter()
    predictor.predict_seen(seen, str(file))
    now = watch.images[-1]
    now[AFTER] = time.perf_counter() - timed.begun - now.get(BEFORE, 0.0) - now.get(NETWORK, 0.0)


def _decoded(file: Path) -> Picture:
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise DataError(f"{file}: cannot be read as an image ({error})") from error


def table_rows(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The rows for people."""
    return [
        [row["stage"], *("–" if row[f"p{p}_ms"] is None else f"{row[f'p{p}_ms']:.3g}" for p in (50, 90, 99)),
         f"{100 * row['share']:.1f} %"]
        for row in rows
    ]  # fmt: skip
