"""A trained network in one line: ``vision.classification.load("runs/...")(image)``. Exported files need no PyTorch."""

from pathlib import Path

from vision.classification.scores import Scores
from vision.deploy.opening import opened
from vision.deploy.predicting import Predicting


def load(path: str | Path, checkpoint: str = "best", device: str = "auto") -> Predicting[Scores]:
    """A trained classifier, however it was trained.

    Args:
        path: a run's folder (of a pipeline the last run counts), a checkpoint in one, an exported file or its folder,
            or the name of a network that ships with the package.
        checkpoint: ``best`` or ``last``, of a run.
        device: ``cpu``, ``cuda`` or ``auto``: a GPU where there is one; of an exported file the CPU.

    Returns:
        Called with a file, a Pillow image or uint8 ``[H, W, 3]``, it gives
        :class:`~vision.classification.scores.Scores`; with a list, a list of them.

    Raises:
        ConfigError: nothing is there, or a network of another system.
        CheckpointError: weights that do not fit.
        ExportedFileError: an exported file that cannot be used.
    """
    return opened(path, "vision.classification", checkpoint=checkpoint, device=device)
