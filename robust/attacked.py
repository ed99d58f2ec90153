"""An attack on one image of a trained classifier: what it changed, and what comes of it."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from robust.adversarial import Attack
from robust.judging import in_image_range
from robust.pictures import panels
from robust.threat import ThreatModel
from vision.classification.pixels import as_input
from vision.classification.scores import Scores, scores_of
from vision.classification.task import Classification
from vision.engine.errors import ConfigError, nearest
from vision.engine.exported import Given
from vision.engine.prediction import Picture, Prediction


@dataclass
class Attacked(Prediction):
    """An image under attack.

    Attributes:
        truth: the class that the attack leads away from.
        eps: radius of the attack, linf, in image range.
        steps: gradient steps of it.
        clean: what the network says of the image.
        scores: what it says of the attacked image.
        before: the image as the network sees it, float32 ``[C, H, W]`` in [0, 1]; not written to files.
        image: the attacked image, as ``before``; not written to files.
    """

    truth: str
    eps: float
    steps: int
    clean: Scores
    scores: Scores
    before: NDArray[np.float32] = field(repr=False)
    image: NDArray[np.float32] = field(repr=False)

    def draw(self, image: Picture | None = None, truth: object = None) -> Picture:
        """The image, the change magnified around grey, and the attacked image; green where the class is right."""
        return panels(self.before, self.image, (self.clean.label, self.scores.label), self.truth, side=200)

    def to_dict(self) -> dict[str, object]:
        figures = {"id": self.id, "truth": self.truth, "eps": self.eps, "steps": self.steps}
        return {**figures, "clean": self.clean.to_dict(), "attacked": self.scores.to_dict()}


def attack(task: Classification, given: Given, name: str, label: str | int | None, eps: float, steps: int) -> Attacked:
    """PGD from the image itself, as evaluations begin it, so that the same image is always attacked alike.

    Args:
        task: with its weights, in eval mode.
        given: a file, a Pillow image or uint8 ``[H, W, 3]``.
        name: of the prediction.
        label: the true class, by name or number; None takes what the network says of the image.
        eps: radius, linf, in image range.
        steps: gradient steps, each of eps / 4, or of eps where there is one.

    Raises:
        ConfigError: no such class, or numbers out of range.
        DataError: an image that cannot be read.
    """
    threat, classes = ThreatModel(eps=eps), task.data.classes
    network = in_image_range(task).to(task.device).eval()
    pixels = torch.from_numpy(as_input(task.shown(given, name)))[None].to(task.device)
    with torch.no_grad():
        (clean,) = scores_of([name], network(pixels).float().cpu().numpy(), classes)
    number = classes.index(clean.label) if label is None else number_of(label, classes)
    labels = torch.tensor([number], device=task.device)
    attacked = Attack(steps=steps, start="zero").run(network, pixels, labels, threat)
    with torch.no_grad():
        (scores,) = scores_of([name], network(attacked).float().cpu().numpy(), classes)
    before, after = (images[0].cpu().numpy() for images in (pixels, attacked))
    return Attacked(name, classes[number], eps, steps, clean, scores, before, after)


def number_of(label: str | int, classes: list[str]) -> int:
    """The number of a class that is given by its name or number.

    Raises:
        ConfigError: there is none.
    """
    if isinstance(label, str):
        if label not in classes:
            raise ConfigError(f"label: no class is called '{label}'{nearest(label, classes)}")
        return classes.index(label)
    if not 0 <= label < len(classes):
        raise ConfigError(f"label: {label} is no class; expected 0 to {len(classes) - 1}, or a name")
    return int(label)
