"""A trained classifier in one line, and attacks on it: ``robust.load("runs/...")``. Exported files need no PyTorch."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision.classification.scores import Scores
from vision.deploy.opening import opened
from vision.deploy.predicting import Predicting
from vision.engine.errors import ConfigError
from vision.engine.exported import Boxes, Given, name_of
from vision.engine.prediction import Picture

if TYPE_CHECKING:
    from robust.attacked import Attacked


class Attackable(Predicting[Scores]):
    """A classifier that predicts, and of a run can be attacked.

    Args:
        network: what predicts.
        path: it came from.
    """

    def __init__(self, network: Predicting[Any], path: str | Path) -> None:
        self.network, self.path, self.after = network, path, network.after

    def predict(
        self, image: Given, boxes: Boxes | None = None, name: str | None = None, number: int | None = None
    ) -> Scores:
        said: Scores = self.network.predict(image, boxes, name, number)
        return said

    def picture(self, image: Given) -> Picture:
        return self.network.picture(image)

    def attacked(
        self, image: Given, label: str | int | None = None, eps: float = 8 / 255, steps: int = 20,
        name: str | None = None,
    ) -> "Attacked":  # fmt: skip
        """The image under PGD, and what the network says of it.

        Args:
            image: as of a call.
            label: the true class, by name or number; None takes what the network says of the image.
            eps: radius, linf, in image range.
            steps: gradient steps, each of eps / 4, or of eps where there is one.
            name: the prediction's id; by default the file's path, or ``image``.

        Raises:
            ConfigError: an exported file, which has no gradients; no such class; numbers out of range.
            DataError: an image that cannot be read.
        """
        task = getattr(self.network, "task", None)
        if task is None:
            raise ConfigError(f"{self.path}: an exported file has no gradients to attack by; load the run it is of")
        from robust.attacked import attack  # PyTorch, which exported files do without

        return attack(task, image, name or name_of(image), label, eps, steps)


def load(path: str | Path, checkpoint: str = "best", device: str = "auto") -> Attackable:
    """A trained classifier, adversarially or not, that can be attacked.

    Args:
        path: a run's folder (of a pipeline the last run counts), a checkpoint in one, an exported file or its folder,
            or the name of a network that ships with the package.
        checkpoint: ``best`` or ``last``, of a run.
        device: ``cpu``, ``cuda`` or ``auto``: a GPU where there is one; of an exported file the CPU.

    Returns:
        Called with a file, a Pillow image or uint8 ``[H, W, 3]``, it gives
        :class:`~vision.classification.scores.Scores`; :meth:`Attackable.attacked` attacks.

    Raises:
        ConfigError: nothing is there, or a network that does not name classes of images.
        CheckpointError: weights that do not fit.
        ExportedFileError: an exported file that cannot be used.
    """
    return Attackable(opened(path, "vision.classification", "robust", checkpoint, device), path)
