"""From a validated recipe to a trained, judged and reported run folder."""

import hashlib
import logging
from pathlib import Path
from typing import Any

from vision.engine.checkpoint import load_weights, save_weights
from vision.engine.config import Config, load
from vision.engine.distributed import World
from vision.engine.environment import machine_summary
from vision.engine.errors import ConfigError
from vision.engine.evaluation import evaluate, write_evaluation
from vision.engine.files import read_json, write_atomically
from vision.engine.recipe import Recipe
from vision.engine.recorder import Recorder, duration
from vision.engine.registry import build
from vision.engine.run import RunFolder
from vision.engine.seeding import seed_everything, seed_of, set_determinism
from vision.engine.task import Task
from vision.engine.trainer import Trainer

log = logging.getLogger(__name__)

EXAMPLES = 12
"""Drawn predictions an evaluation keeps."""


def build_task(recipe: Recipe) -> Task:
    """The recipe's task with its data and freshly initialised network; the same for the same seed.

    Raises:
        ConfigError: a block that does not hold.
        DataError: data that is not there or cannot be used.
    """
    seed_everything(seed_of(recipe.seed, "initialisation"))
    data = build(recipe.data, "data")
    task = build(recipe.task, "task", data=data)
    assert isinstance(task, Task)
    return task


def make_trainer(recipe: Recipe, world: World, run: RunFolder | None = None, config_hash: str = "") -> Trainer:
    """Builds everything a run needs: task, optimiser, schedule and loop."""
    set_determinism(recipe.trainer.determinism)
    task = build_task(recipe)
    return Trainer(
        task,
        recipe.trainer,
        optimizer=lambda groups: build(recipe.optimizer, "optimizer", parameters=groups),
        schedule=lambda optimizer, total, per_epoch: build(
            recipe.schedule, "schedule", optimizer=optimizer, total_steps=total, steps_per_epoch=per_epoch
        ),
        world=world,
        seed=recipe.seed,
        run=run,
        about={
            "task": str(recipe.task["type"]),
            "network": type(task.network).__name__,
            "recipe": recipe.name,
            "seed": str(recipe.seed),
            "config_sha256": config_hash,
        },
    )


def dry_run(config: Config, folder: Path, resume: bool, world: World) -> dict[str, Any]:
    """Builds everything and makes one update; a stand-in for :func:`train_recipe`.

    Args:
        config: of one run.
        folder: a temporary one; only the weights and the recipe go there, for later stages to build on.
        resume: of no effect.
        world: the processes.
    """
    recipe = config.recipe()
    trainer = make_trainer(recipe, world.on(recipe.trainer.device))
    recorder = Recorder(None, 1, trainer.total, console=False)
    shares = trainer.plan.shares(0)[0]
    trainer.task.train()
    trainer.update(shares, trainer.batches([shares], epoch=0), recorder)
    parameters = sum(p.numel() for p in trainer.task.network.parameters())
    log.info(
        "%s: dry run: one update done; %d parameters, %d training samples, %d updates in all; nothing was written",
        recipe.name, parameters, trainer.plan.samples, trainer.total,
    )  # fmt: skip
    for name in ("best", "last"):
        if world.is_main:
            (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
            save_weights(folder / "checkpoints" / f"{name}.safetensors", trainer.task.network, {})
    if world.is_main:
        write_atomically(RunFolder(folder).config, f"# sha256: {config.hash}\n{config.yaml}".encode())
    return {"finished": "dry run"}


def train_recipe(config: Config, folder: Path, resume: bool, world: World) -> dict[str, Any]:
    """Trains one recipe into ``folder``, judges its best weights on every split, and writes the report.

    Args:
        config: of one run, not of a pipeline.
        folder: the run folder.
        resume: go on from the folder's last checkpoint.
        world: the processes.

    Returns:
        ``finished`` (why training ended; empty when it was interrupted), paths of ``best`` and ``last`` weights, and
        ``result``: the figures by split.

    Raises:
        UserError: a mistake in the recipe, the data or the folder.
    """
    recipe = config.recipe()
    world = world.on(recipe.trainer.device)
    run = RunFolder(folder)
    trainer = make_trainer(recipe, world, run, config.hash)  # first, so that a mistake in the recipe leaves no folder
    world.first(lambda: _open(config, folder, resume))
    main = run if world.is_main else None
    with Recorder(main, recipe.trainer.log_every, trainer.total, console=world.is_main) as recorder:
        if resume:
            _go_on(trainer, run, recorder)
        progress = trainer.fit(recorder)
    outcome: dict[str, Any] = {"finished": progress.finished, "best": str(run.best), "last": str(run.last)}
    if not progress.finished:
        log.info("%s: interrupted at step %d; --resume goes on from there", recipe.name, progress.step)
        return outcome
    log.info("%s: %s after %d updates, %s", recipe.name, progress.finished, progress.step, duration(progress.seconds))
    outcome["result"] = _judge(recipe, config, trainer, run)
    return outcome


def _go_on(trainer: Trainer, run: RunFolder, recorder: Recorder) -> None:
    """Back to the last checkpoint, or to the beginning of a run that was killed before the first."""
    there = trainer.world.share(run.resume_state.exists())
    if there:
        trainer.resume()
    recorder.truncate(trainer.progress.step if there else -1)
    if there:
        recorder.event(trainer.progress.step, "resumed")


def _open(config: Config, folder: Path, resume: bool) -> None:
    RunFolder.create(folder, config.yaml, config.hash, resume).write_environment()


def _judge(recipe: Recipe, config: Config, trainer: Trainer, run: RunFolder) -> dict[str, Any]:
    checkpoint = "best" if run.best.exists() else "last"
    trainer.load(checkpoint)
    results = {}
    for split in ("val", "test"):
        result = judge_split(
            recipe, config.hash, trainer.task, run, trainer.world, split, checkpoint, trainer.progress.seconds
        )
        if result is not None:
            results[split] = result
    return results


def judge_split(
    recipe: Recipe,
    config_hash: str,
    task: Task,
    run: RunFolder,
    world: World,
    split: str,
    checkpoint: str,
    train_seconds: float | None = None,
    name: str | None = None,
    weights: Path | None = None,
) -> dict[str, float] | None:
    """Evaluates a task's network on one split and writes ``eval/<name>/`` of the run.

    Returns:
        The figures, or None where the data has no such split.
    """
    dataset = {"train": task.train_data, "val": task.val_data, "test": task.test_data}[split]()
    if dataset is None:
        return None
    found = evaluate(task, dataset, world, recipe.trainer, recipe.seed, keep=True, draw=EXAMPLES)
    if world.is_main:
        file = weights or (run.checkpoints / f"{checkpoint}.safetensors")
        metric = task.metric()
        about = {
            "split": split,
            "name": recipe.name,
            "checkpoint": checkpoint,
            "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "data": recipe.data,
            "seed": recipe.seed,
            "primary": recipe.trainer.select or metric.primary,
            "mode": metric.mode_of(recipe.trainer.select or metric.primary),
            "train_seconds": round(train_seconds, 1) if train_seconds is not None else None,
            "machine": machine_summary(),
            "config_sha256": config_hash,
        }
        write_evaluation(run.eval_dir(name or split), found, about)
        figures = "  ".join(f"{k} {v:.4g}" for k, v in found.metrics.items())
        log.info("%s on %s (%d samples): %s", checkpoint, name or split, found.samples, figures)
    return found.metrics


def load_run(folder: Path, checkpoint: str, overrides: list[str]) -> tuple[Config, Recipe, Task, Path]:
    """The task of a finished run with its weights.

    Args:
        folder: a run folder, or a pipeline's: then that of its last stage that trained something.
        checkpoint: ``best``, ``last`` or a file.
        overrides: ``a.b=c`` changes to the run's configuration, such as another ``data.root``.

    Raises:
        ConfigError: the folder is no run.
        CheckpointError: the weights do not fit.
    """
    run = RunFolder(single_run(folder))
    config = load(run.config, overrides)
    recipe = config.recipe()
    task = build_task(recipe)
    file = run.checkpoints / f"{checkpoint}.safetensors" if checkpoint in ("best", "last") else Path(checkpoint)
    load_weights(task.network, file)
    return config, recipe, task, file


def single_run(folder: Path) -> Path:
    """The run folder that ``folder`` means: itself, or the last stage of the pipeline it holds that trained something.

    Raises:
        ConfigError: it is neither.
    """
    if (folder / "summary.json").exists():
        for stage in reversed(read_json(folder / "summary.json").get("stages", [])):
            below = folder / stage["name"]
            if (below / "checkpoints").is_dir() or (below / "summary.json").exists():
                return single_run(below)
    if not (folder / "config.yaml").exists():
        raise ConfigError(f"{folder}: not a run folder (it has no config.yaml); expected one that tools/train.py made")
    return folder
