"""A network to predict with, from a run or an exported file; of the latter nothing needs PyTorch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision.deploy.predicting import Predicting
from vision.deploy.runner import SYSTEMS, Predictor, exported
from vision.deploy.shipped import place_of
from vision.engine.errors import ConfigError


def opened(
    given: str | Path, system: str | None = None, caller: str | None = None, checkpoint: str = "best",
    device: str = "auto",
) -> Predicting[Any]:  # fmt: skip
    """What predicts by the network of a run or of an exported file.

    Args:
        given: a run's folder (a pipeline's means its last run), a checkpoint in one, an exported file or its folder, or
            the name of a network that ships with the package.
        system: the package whose predictions are expected, such as ``vision.pose``; None takes all.
        caller: the package whose ``load`` was called; by default the system.
        checkpoint: ``best`` or ``last``, of a run.
        device: ``cpu``, ``cuda`` or ``auto``: a GPU where there is one; of an exported file the CPU.

    Raises:
        ConfigError: nothing is there, or another system's network.
        CheckpointError: weights that do not fit.
        ExportedFileError: an exported file that cannot be used.
    """
    path = place_of(given)
    if exported(path):
        if checkpoint != "best":
            raise ConfigError(f"{path}: is an exported network; leave out the checkpoint, or give the run")
        predictor = Predictor(path, None if device == "auto" else device)
        found: Predicting[Any] = predictor
        task = predictor.description.task
    else:
        from vision.deploy.trained import Trained  # PyTorch, which exported files do without

        trained = Trained(path, checkpoint, device)
        found, task = trained, trained.kind
    if system is not None:
        _require(system, caller or system, system_of(found.after), path, task)
    return found


def system_of(after: Mapping[str, Any]) -> str | None:
    """The package whose predictions an ``after`` describes; None where no package has them."""
    module = SYSTEMS.get(str(after.get("type")), ("",))[0]
    return module.rpartition(".")[0] or None


def _require(system: str, caller: str, own: str | None, path: Path, task: str) -> None:
    """Raises a ConfigError for the network of another system."""
    if own == system:
        return
    fix = f"open it with {own}.load" if own else "nothing can open it, as it predicts from no file"
    raise ConfigError(f"{path}: has a network of the task '{task}', which {caller}.load does not take; {fix}")
