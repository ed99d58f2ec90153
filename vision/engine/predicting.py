"""Predictions for a user's own files: images and videos, of one sample each or of many."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from vision.engine.data import Sample
from vision.engine.evaluation import png, to_device
from vision.engine.exported import Given
from vision.engine.files import write_atomically
from vision.engine.prediction import Picture, Regions
from vision.engine.task import Task
from vision.engine.video import VIDEOS, Video, VideoWriter

log = logging.getLogger(__name__)

MOST = 32
"""Samples in one forward pass."""


class Predicts(Protocol):
    """What predicts on one file or frame; the prediction comes drawn, where there is something to draw on."""

    def file(self, path: str, number: int, regions: Regions | None) -> tuple[Any, Picture | None]:
        """The prediction for an image file, whose image has this number in COCO results."""
        ...

    def frame(self, picture: Picture, name: str, number: int, regions: Regions | None) -> tuple[Any, Picture | None]:
        """The prediction for a frame of a video."""
        ...


@dataclass
class TaskPredictor:
    """Predictions by a task.

    Args:
        task: in eval mode, on its device.
        device: where batches go.
    """

    task: Task
    device: torch.device

    def file(self, path: str, number: int, regions: Regions | None) -> tuple[Any, Picture | None]:
        """The prediction for an image file."""
        return _drawn(*self.given(path, path, number, regions))

    def frame(self, picture: Picture, name: str, number: int, regions: Regions | None) -> tuple[Any, Picture | None]:
        """The prediction for a frame of a video."""
        return _drawn(*self._predict(name, number, self.task.frame_inputs(picture, name, number, regions), picture))

    def given(self, given: Given, name: str, number: int | None, regions: Regions | None) -> tuple[Any, Picture | None]:
        """The prediction for what a user gives, and the picture to draw it on, if there is one.

        Args:
            given: a file, a Pillow image or pixels.
            name: of the prediction.
            number: of the image in COCO results; None for the one its name ends in, or 0.
            regions: where the objects of the image are.

        Raises:
            DataError: it cannot be read.
            ConfigError: regions for a task that looks at whole images.
        """
        return self._predict(name, number, self.task.read_inputs(given, regions, name))

    @torch.no_grad()
    def _predict(
        self, name: str, number: int | None, samples: list[Sample], picture: Picture | None = None
    ) -> tuple[Any, Picture | None]:
        """One prediction for a file's samples, and what it is drawn on."""
        found: list[Any] = []
        for part in _parts(samples):
            batch = to_device(self.task.collate(part), self.device)
            found += self.task.predict(batch)
            if picture is None:
                pictures = self.task.pictures(batch)
                picture = pictures[0] if len(pictures) else None
        return self.task.together(name, number, found), picture


def _drawn(prediction: Any, picture: Picture | None) -> tuple[Any, Picture | None]:
    return prediction, None if picture is None else prediction.draw(picture)


def _parts(samples: Sequence[Sample]) -> Iterator[list[Sample]]:
    for first in range(0, len(samples), MOST):
        yield list(samples[first : first + MOST])


@dataclass
class FilePredictor:
    """Predicts on files and writes what it sees beside each other.

    Args:
        predicts: a task, or an exported network.
        output: the folder that drawn images and videos are written to.
        regions: where the objects of an image are; None leaves that to the task.
        numbers: of files, in the order they are given: the ids of their images in COCO results.

    Attributes:
        predictions: one dictionary a file, or a frame of a video.
        results: rows of a COCO results file.
    """

    predicts: Predicts
    output: Path
    regions: Regions | None = None
    numbers: dict[Path, int] = field(default_factory=dict)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    _used: set[str] = field(default_factory=set)

    def file(self, path: Path) -> None:
        """Predicts on one file.

        Raises:
            DataError: it cannot be read; nothing is recorded of an image then, and of a video what came before.
        """
        if path.suffix.lower() in VIDEOS:
            self._video(path)
            return
        prediction, drawn = self.predicts.file(str(path), self.numbers.get(path, 1), self.regions)
        self._record({"file": str(path)}, prediction)
        if drawn is not None:
            write_atomically(self.output / f"{self._name(path)}.png", png(drawn))

    def _name(self, path: Path) -> str:
        """The file's name without its suffix; with its folder's where that is taken."""
        name = path.stem if path.stem not in self._used else f"{path.parent.name}_{path.stem}_{len(self._used)}"
        self._used.add(name)
        return name

    def _video(self, path: Path) -> None:
        video = Video(path)
        with VideoWriter(self.output / f"{self._name(path)}.mp4", video.rate) as writer:
            for frame in video:
                name = f"{path.name}#{frame.number}"
                prediction, drawn = self.predicts.frame(frame.picture, name, frame.number, self.regions)
                self._record({"file": str(path), "frame": frame.number, "seconds": round(frame.seconds, 4)}, prediction)
                writer.write(frame.picture if drawn is None else drawn)

    def _record(self, about: dict[str, Any], prediction: Any) -> None:
        self.predictions.append({**about, **prediction.to_dict()})
        if prediction.in_coco:
            self.results += prediction.to_coco()
