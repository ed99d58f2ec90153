"""Building and running a trainer over the toy task, for the tests of the loop."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timm.scheduler.scheduler import Scheduler
from torch import nn

from tests.engine.toy import Regression
from vision.engine.distributed import World
from vision.engine.optim import constant
from vision.engine.recipe import TrainerOptions
from vision.engine.recorder import Recorder, read_metrics
from vision.engine.run import RunFolder
from vision.engine.task import Task
from vision.engine.trainer import Trainer

Groups = list[dict[str, Any]]
CPU = World(torch.device("cpu"))
TIMINGS = ("seconds", "samples_per_second")


def seeded_task(
    seed: int = 0, kind: type[Regression] = Regression, network: Any = None, **arguments: Any
) -> Regression:
    """A task whose network follows from ``seed``; ``network`` may be a function that makes one."""
    torch.manual_seed(seed)
    if network is not None:
        arguments["network"] = network if isinstance(network, nn.Module) else network()
    return kind(**arguments)


def new_run(folder: Path) -> RunFolder:
    return RunFolder.create(folder, "name: test\n", "0" * 8, resume=folder.exists())


def make_trainer(
    task: Task,
    run: RunFolder | None = None,
    optimizer: Callable[[Groups], torch.optim.Optimizer] = lambda groups: torch.optim.SGD(
        groups, lr=0.05, momentum=0.9
    ),
    schedule: Callable[[torch.optim.Optimizer, int, int], Scheduler] = constant,
    world: World = CPU,
    seed: int = 0,
    **options: Any,
) -> Trainer:
    return Trainer(task, TrainerOptions(**options), optimizer, schedule, world, seed, run)


def fit(trainer: Trainer, resume: bool = False) -> Trainer:
    """Trains to the end as ``tools/train.py`` does."""
    run = trainer.run if trainer.world.is_main else None
    with Recorder(run, trainer.options.log_every, trainer.total, console=False) as recorder:
        if resume:
            trainer.resume()
            recorder.truncate(trainer.progress.step)
        trainer.fit(recorder)
    return trainer


def updates(trainer: Trainer, count: int) -> None:
    """Makes ``count`` updates and nothing else."""
    recorder = Recorder(None, 1, trainer.total, console=False)
    trainer.task.train()
    while count:
        epoch, first = divmod(trainer.progress.step, trainer.plan.updates)
        shares = trainer.plan.shares(epoch, first)[:count]
        batches = trainer.batches(shares, epoch)
        for each in shares:
            trainer.update(each, batches, recorder)
        count -= len(shares)


def state(task: Task) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in task.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two states agree bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((float((a[name].double() - b[name].double()).abs().max()) for name in a), default=math.inf)


def untimed(run: RunFolder) -> list[str]:
    """The lines of ``metrics.jsonl`` without what a clock says, and without events."""
    lines = [line for line in read_metrics(run.metrics) if line["kind"] != "event"]
    return [json.dumps({k: v for k, v in line.items() if k not in TIMINGS}, sort_keys=True) for line in lines]
