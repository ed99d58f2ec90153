"""The network that is to be exported: of a run, or of a recipe that was never trained."""

import logging
from pathlib import Path
from typing import Any

from vision.deploy.sidecar import Origin
from vision.engine.checkpoint import load_weights
from vision.engine.config import load
from vision.engine.files import read_json
from vision.engine.run import RunFolder
from vision.engine.task import Task
from vision.engine.train import build_task, single_run

log = logging.getLogger(__name__)


def source_of(given: Path, checkpoint: str, overrides: list[str]) -> tuple[Task, Origin, Path]:
    """A task with its weights, where they come from, and the run folder they belong to.

    Args:
        given: a run folder, or a recipe.
        checkpoint: ``best``, ``last`` or a file. A run without weights, or a recipe without a file, is taken untrained,
            and the log warns of it.
        overrides: ``a.b=c`` changes to the configuration.

    Raises:
        ConfigError: neither a run nor a recipe.
        CheckpointError: weights that do not fit, or of another version.
    """
    run = RunFolder(single_run(given)) if given.is_dir() else None
    config = load(run.config if run else given, overrides)
    recipe = config.recipe()
    task = build_task(recipe)
    home = run or RunFolder(Path(recipe.output) / recipe.name)
    file = _file(run, checkpoint)
    step: int | None = None
    if file is None:
        log.warning("%s: never trained; the exported network has the weights it begins training with", given)
    else:
        told = load_weights(task.network, file).metadata.get("step", "")
        step = int(told) if told.isdecimal() else None
    origin = Origin(
        str(recipe.task["type"]), home.name, run.config_hash if run else config.hash, step,
        _figures(home) if run else {}, file is not None,
    )  # fmt: skip
    return task, origin, home.path


def _file(run: RunFolder | None, checkpoint: str) -> Path | None:
    if checkpoint not in ("best", "last"):
        return Path(checkpoint)
    if run is None:
        return None
    file = run.best if checkpoint == "best" else run.last
    return file if file.exists() or any(run.checkpoints.glob("*.safetensors")) else None


def _figures(run: RunFolder) -> dict[str, Any]:
    """The run's own figures by split."""
    found = {}
    for split in ("val", "test"):
        file = run.path / "eval" / split / "result.json"
        if file.is_file():
            found[split] = read_json(file).get("metrics", {})
    return found
