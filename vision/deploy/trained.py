"""A finished run that predicts on images, as :class:`vision.deploy.runner.Predictor` does of an exported file."""

from pathlib import Path
from typing import Any

from vision.deploy.predicting import Predicting
from vision.engine.distributed import pick_device
from vision.engine.errors import ConfigError, DataError
from vision.engine.exported import Boxes, Given, checked_boxes, name_of
from vision.engine.predicting import TaskPredictor
from vision.engine.prediction import Picture, Regions
from vision.engine.run import RunFolder
from vision.engine.train import load_run, single_run


class Trained(Predicting[Any]):
    """The task of a run with its weights.

    Args:
        path: a run's folder, or a checkpoint in one.
        checkpoint: ``best`` or ``last``, of a folder.
        device: ``auto`` takes a GPU where there is one.

    Attributes:
        task: in eval mode.
        kind: the registered name of the task.
        run: the run's folder.

    Raises:
        ConfigError: no run, or a checkpoint outside one.
        CheckpointError: weights that do not fit.
    """

    def __init__(self, path: Path, checkpoint: str = "best", device: str = "auto") -> None:
        folder = path
        if path.is_file():
            folder, checkpoint = _home(path, checkpoint), str(path)
        on = pick_device(device)
        _, recipe, task, _ = load_run(folder, checkpoint, [])
        self.path, self.run, self.kind = path, RunFolder(single_run(folder)), str(recipe.task["type"])
        self.task = task.to(on).eval()
        self.after = self.task.after()
        self._predictor = TaskPredictor(self.task, on)

    def predict(
        self, image: Given, boxes: Boxes | None = None, name: str | None = None, number: int | None = None
    ) -> Any:
        regions = None if boxes is None else _regions_in(boxes)
        return self._predictor.given(image, name or name_of(image), number, regions)[0]

    def picture(self, image: Given) -> Picture:
        pictures = self.task.pictures(self.task.collate(self.task.read_inputs(image)))
        if not len(pictures):
            raise DataError(f"{name_of(image)}: the task '{self.kind}' has nothing to draw on")
        return pictures[0]


def _home(file: Path, checkpoint: str) -> Path:
    """The run that a checkpoint belongs to."""
    if checkpoint != "best":
        raise ConfigError(f"{file}: is a checkpoint already; leave out checkpoint='{checkpoint}', or give the run")
    run = file.resolve().parent.parent
    if not (run / "config.yaml").is_file():
        raise ConfigError(
            f"{file}: no checkpoint of a run: expected RUN/checkpoints/NAME.safetensors beside RUN/config.yaml"
        )
    return run


def _regions_in(boxes: Boxes) -> Regions:
    """The boxes that a user gives for one image."""

    def regions(picture: Picture, name: str) -> list[tuple[tuple[float, float, float, float], float]]:
        places, scores = checked_boxes(boxes, picture, name)
        rows = zip(places.tolist(), scores.tolist(), strict=True)
        return [((left, top, width, height), score) for (left, top, width, height), score in rows]

    return regions
