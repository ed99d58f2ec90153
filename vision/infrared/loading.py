"""A trained network in one line: ``vision.infrared.load("runs/...")(image)``. Exported files need no PyTorch."""

from pathlib import Path

from vision.deploy.opening import opened
from vision.deploy.predicting import Predicting
from vision.infrared.targets import Count, Targets


def load(path: str | Path, checkpoint: str = "best", device: str = "auto") -> Predicting[Targets | Count]:
    """A trained network of infrared small targets.

    Args:
        path: a run's folder (of a pipeline the last run counts), a checkpoint in one, an exported file or its folder,
            or the name of a network that ships with the package.
        checkpoint: ``best`` or ``last``, of a run.
        device: ``cpu``, ``cuda`` or ``auto``: a GPU where there is one; of an exported file the CPU.

    Returns:
        Called with a file, a Pillow image, or pixels (gray ``[H, W]``, or uint8 ``[H, W, 3]``), it gives
        :class:`~vision.infrared.targets.Targets`; with a list, a list of them. Of a run or file that counts targets
        (``target_counting``) it is :class:`~vision.infrared.targets.Count`.

    Raises:
        ConfigError: nothing is there, or a network of another system.
        CheckpointError: weights that do not fit.
        ExportedFileError: an exported file that cannot be used.
    """
    return opened(path, "vision.infrared", checkpoint=checkpoint, device=device)
