"""What the tests of distributed runs do in each process."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.engine.harness import fit, make_trainer, new_run, seeded_task, state, untimed, updates
from tests.engine.toy import OnlineRegression, Points, PointsData, Regression
from vision.engine.distributed import World, joined
from vision.engine.errors import DataError, UserError
from vision.engine.evaluation import evaluate
from vision.engine.sync_batchnorm import convert_batchnorm
from vision.engine.task import Batch, Losses, StepContext
from vision.engine.trainer import Trainer

# -- training --------------------------------------------------------------------------------------------------------


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))


class Unused(OnlineRegression):
    """Has a parameter that no process uses, and one that only some samples use."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.idle = nn.Parameter(torch.ones(2))
        self.rare = nn.Parameter(torch.ones(2))

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        yield from super().training_step(batch, context)
        if "0003" in batch["id"]:
            yield {"rare": (self.rare**2).sum() / len(batch["id"])}


TRAININGS: dict[str, tuple[type[Regression], Any, dict[str, Any]]] = {
    # 37 samples: the last batch of an epoch has 7
    "plain": (Regression, plain, {"batch_size": 10}),
    "accumulated": (Regression, plain, {"batch_size": 10, "accumulate": 3, "clip_norm": 0.1}),
    "averaged": (Regression, plain, {"batch_size": 10, "ema": 0.8}),
    # 36 samples leave 1 for the last batch: one process has none
    "lonely": (Regression, plain, {"batch_size": 36, "accumulate": 2}),
    "online": (OnlineRegression, plain, {"batch_size": 10, "accumulate": 2, "clip_norm": 0.1}),
    "unused": (Unused, plain, {"batch_size": 10}),
    "normed": (Regression, normed, {"batch_size": 10, "sync_batchnorm": True}),
    "normed online": (OnlineRegression, normed, {"batch_size": 10, "sync_batchnorm": True}),
}


def trained(name: str, world: World, folder: Path) -> dict[str, Any]:
    """Gradients of the first updates, then a whole run."""
    kind, network, options = TRAININGS[name]

    def fresh(run: Path | None = None) -> Trainer:
        torch.manual_seed(0)
        decay = lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=0.01)  # noqa: E731
        task = kind(network=network())
        arguments = {"epochs": 3, "log_every": 1, "eval_batch_size": 4} | options
        return make_trainer(task, new_run(run) if run and world.is_main else None, decay, world=world, **arguments)

    stepped, gradients = fresh(), []
    for _ in range(5):
        updates(stepped, 1)
        gradients.append({n: None if p.grad is None else p.grad.clone() for n, p in stepped.task.named_parameters()})
    if world.is_main:
        new_run(folder / name)
    whole = fit(fresh(folder / name))
    return {
        "gradients": gradients,
        "weights": state(whole.task),
        "average": None if whole.ema is None else dict(whole.ema.module.state_dict()),
        "progress": whole.progress,
        "metrics": untimed(whole.run) if whole.run is not None else None,
        "parallel": isinstance(whole.step_module, DistributedDataParallel),
    }


def judged(size: int, world: World) -> Any:
    task = seeded_task(network=normed)
    options = make_trainer(seeded_task(), epochs=1, eval_batch_size=3).options
    found = evaluate(task, Points(size, 0.5, first=1000), world, options, keep=True)
    return found.metrics, found.predictions, found.samples


# -- BatchNorm -------------------------------------------------------------------------------------------------------

SPLITS = {"even": (4, 4), "uneven": (5, 3), "one": (7, 1)}


class Acting(nn.BatchNorm2d):
    """Does more than to normalise, as timm's BatchNormAct2d does."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(super().forward(x))


NORMS: dict[str, Any] = {
    "2d": lambda: nn.BatchNorm2d(3),
    "cumulative": lambda: nn.BatchNorm2d(3, momentum=None, eps=0.1),
    "bare": lambda: nn.BatchNorm2d(3, affine=False, track_running_stats=False),
    "acting": lambda: Acting(3),
    "1d": lambda: nn.Sequential(nn.Flatten(2), nn.BatchNorm1d(3), nn.Unflatten(2, (2, 5))),
}


def normalised(name: str, split: tuple[int, ...], world: World) -> dict[str, Any]:
    """Two passes of this process's part of 8 images, with the gradients of a loss summed over processes."""
    torch.manual_seed(1)
    x, slope = torch.randn(2, 8, 3, 2, 5, dtype=torch.float64) * 3 + 100, torch.randn(8, 3, 2, 5, dtype=torch.float64)
    layer = NORMS[name]().double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    if world.size > 1:
        convert_batchnorm(layer)
    first = sum(split[: world.rank])
    mine = slice(first, first + split[world.rank])
    found: dict[str, Any] = {}
    for number in range(2):
        part = x[number, mine].clone().requires_grad_()
        y = layer(part)
        (y * slope[mine]).sum().backward()
        found |= {f"y{number}": y.detach(), f"dx{number}": part.grad}
    found |= {f"d{n}": p.grad for n, p in layer.named_parameters()} | dict(layer.named_buffers())
    layer.eval()
    if name != "bare":
        found["judged"] = layer(x[0, :1]).detach()
    return found


# -- exchanges -------------------------------------------------------------------------------------------------------


def exchanged(world: World) -> dict[str, Any]:
    rank = world.rank
    gradients = [
        nn.Parameter(torch.zeros(2, 3)),
        nn.Parameter(torch.zeros(4, dtype=torch.float64)),
        nn.Parameter(torch.zeros(1)),
    ]
    gradients[0].grad = torch.full((2, 3), 1.0 + 2 * rank)
    if rank == 1:
        gradients[1].grad = torch.arange(4.0, dtype=torch.float64)
    frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
    world.average_gradients([*gradients, frozen])

    def refuse() -> None:
        raise DataError("no such folder")

    said = None
    try:
        world.first(refuse)
    except UserError as error:
        said = (type(error).__name__, str(error))
    done: list[int] = []
    world.first(lambda: done.append(rank))
    other = seeded_task(seed=rank, network=normed)
    world.same_state(other, parameters=True)
    return {
        "any": [world.any(flag) for flag in (False, rank == 0, rank == 1, True)],
        "gather": world.gather({"rank": rank}),
        "share": world.share(("from", rank)),
        "mean": world.mean({"a": float(rank), "b": 1.0} | ({"c": 3.0} if rank else {})),
        "gradients": [p.grad for p in gradients],
        "said": said,
        "done": done,
        "state": state(other),
        "online": state(make_trainer(seeded_task(seed=rank, kind=OnlineRegression), epochs=1, world=world).task),
    }


# -- ends of runs ----------------------------------------------------------------------------------------------------


class Signalled(Regression):
    """One process alone is sent SIGTERM, in the middle of its third step or of its first evaluation."""

    when: ClassVar[str] = "step"
    rank: ClassVar[int] = 1

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        if self.when == "step" and context.step == 2 and self.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        yield from super().training_step(batch, context)

    def predict(self, batch: Batch) -> list[Any]:
        if self.when == "evaluation" and self.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().predict(batch)


def stopped(when: str, world: World, folder: Path) -> tuple[int, str]:
    Signalled.when, Signalled.rank = when, world.rank
    if world.is_main:
        new_run(folder / when)
    world.share(None)
    task = seeded_task(kind=Signalled, network=plain)
    trainer = fit(make_trainer(task, new_run(folder / when), epochs=9, batch_size=10, eval_batch_size=4, world=world))
    return trainer.progress.step, trainer.progress.finished


def resumed(world: World, folder: Path) -> None:
    """A run in one go and one that stops and goes on; without SyncBN each process has its own running statistics."""
    for name, stops in (("whole", [8]), ("parts", [3, 8])):
        for number, steps in enumerate(stops):
            if world.is_main and number == 0:
                new_run(folder / name)
            world.share(None)
            task = seeded_task(network=normed)
            options = {"steps": 8, "batch_size": 10, "ema": 0.8, "save_every_steps": 3, "evaluate_every_steps": 4}
            options |= {"eval_batch_size": 4}
            trainer = make_trainer(task, new_run(folder / name), world=world, **options)
            if number:
                trainer.resume()
            if steps < 8:
                updates(trainer, steps)
                trainer._save()
            else:
                fit(trainer)


class Poisoned(Regression):
    """The samples of one process make its loss NaN."""

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        for losses in super().training_step(batch, context):
            yield {"square": losses["square"] * (torch.nan if os.environ["RANK"] == "1" else 1.0)}


class Unreadable(PointsData):
    def train(self) -> Any:
        class Corrupt(Points):
            def __getitem__(self, index: int) -> Any:
                if os.environ["RANK"] == "1":
                    raise DataError("img/0003.png: truncated image")
                return super().__getitem__(index)

        return Corrupt(37, 0.1)


class Idle(Regression):
    """Has a parameter that its loss does not use."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.idle = nn.Parameter(torch.ones(2))


FAILURES = {
    "idle": lambda: seeded_task(kind=Idle, network=plain),
    "corrupt": lambda: seeded_task(data=Unreadable(), network=plain),
    "nan": lambda: seeded_task(kind=Poisoned, network=normed),
}


def fails(name: str, world: World) -> None:
    fit(make_trainer(FAILURES[name](), epochs=1, batch_size=10, sync_batchnorm=True, world=world))


def main(arguments: list[str] | None) -> int:
    """What each process runs: a failure by name, or everything else."""
    assert arguments is not None
    scenario, folder = arguments[0], Path(arguments[1])
    with joined("auto") as world:
        if scenario in FAILURES:
            fails(scenario, world)
            return 0
        results = {
            "exchanged": exchanged(world),
            "trained": {name: trained(name, world, folder) for name in TRAININGS},
            "judged": {size: judged(size, world) for size in (1, 4, 11)},
            "normalised": {(name, split): normalised(name, SPLITS[split], world) for name in NORMS for split in SPLITS},
            "stopped": {when: stopped(when, world, folder) for when in ("step", "evaluation")},
        }
        resumed(world, folder)
        torch.save(results, folder / f"rank{world.rank}.pt")
    return 0
