"""Short trainings of the small examples, in one process and in two."""

from pathlib import Path
from typing import Any

import torch

from tests.contract.cases import SMALL, small_task
from tests.engine.harness import CPU, fit, make_trainer, new_run, state, updates
from vision.engine.distributed import World, joined
from vision.engine.evaluation import evaluate
from vision.engine.run import RunFolder
from vision.engine.trainer import Trainer

TASKS = sorted(SMALL)


def trainer_of(name: str, run: RunFolder | None = None, world: World = CPU, **options: Any) -> Trainer:
    """The trainer of a small example: five updates of four samples."""
    arguments = {"steps": 5, "batch_size": 4, "eval_batch_size": 3, "evaluate_every_steps": 5} | options
    adam = lambda groups: torch.optim.Adam(groups, lr=1e-3)  # noqa: E731
    return make_trainer(small_task(name), run, adam, world=world, **arguments)


def told(name: str, world: World) -> dict[str, Any]:
    """What a process finds: gradients of the first update, weights after three, and the figures of fresh weights."""
    trainer = trainer_of(name, world=world, sync_batchnorm=True)
    found = evaluate(trainer.task, trainer.val, world, trainer.options, keep=True)
    updates(trainer, 1)
    gradients = {n: p.grad.clone() for n, p in trainer.task.named_parameters() if p.grad is not None}
    updates(trainer, 2)
    return {
        "gradients": gradients,
        "weights": dict(trainer.task.network.named_parameters()),
        "figures": found.metrics,
        "predictions": found.predictions,
    }


def resumed(name: str, folder: Path, stop: int | None) -> Trainer:
    """A run in one go, or one that stops after ``stop`` updates and goes on in a new trainer."""
    options = {"ema": 0.8, "clip_norm": 1.0}
    if stop is not None:
        first = trainer_of(name, new_run(folder), **options)
        updates(first, stop)
        first._save()
    return fit(trainer_of(name, new_run(folder), **options), resume=stop is not None)


def average(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The moving average of the network's weights."""
    assert trainer.ema is not None
    return state(trainer.ema.module)


def main(arguments: list[str] | None) -> int:
    """What each of two processes runs."""
    assert arguments is not None
    with joined("auto") as world:
        torch.save({name: told(name, world) for name in TASKS}, Path(arguments[-1]) / f"rank{world.rank}.pt")
    return 0
