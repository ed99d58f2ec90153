"""A run that was killed and resumed is the uninterrupted run, bit for bit."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.engine.harness import fit, make_trainer, new_run, same, seeded_task, state, untimed, updates
from tests.engine.toy import OnlineRegression, PointsData, Regression
from vision.engine.checkpoint import read_resume, save_resume
from vision.engine.errors import CheckpointError
from vision.engine.optim import cosine
from vision.engine.recipe import EarlyStop
from vision.engine.run import RunFolder
from vision.engine.task import Batch, Losses, StepContext
from vision.engine.trainer import Trainer

EVERYTHING = {
    "steps": 13,  # three epochs of four updates and one
    "batch_size": 10,
    "accumulate": 3,
    "clip_norm": 0.5,
    "ema": 0.9,
    "precision": "fp16",
    "save_every_steps": 3,
    "log_every": 1,
    "early_stop": EarlyStop(2),
}


class Killed(BaseException):
    """Ends a run as SIGKILL would: nothing of ours runs afterwards."""


class Mortal(Regression):
    """Dies at a step."""

    at = -1

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        if context.step == self.at:
            raise Killed
        yield from super().training_step(batch, context)


class MortalOnline(Mortal, OnlineRegression):
    pass


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.4), nn.Linear(8, 1))


def trainer(folder: Path, at: int = -1, kind: type[Mortal] = Mortal, **options: Any) -> Trainer:
    torch.manual_seed(0)
    task = kind(PointsData(noise=0.5), network=network())
    task.at = at
    adam: Callable[..., torch.optim.Optimizer] = lambda groups: torch.optim.Adam(groups, lr=0.05)  # noqa: E731
    return make_trainer(task, new_run(folder), adam, cosine, **{**EVERYTHING, **options})


def killed_and_resumed(folder: Path, deaths: list[int], **options: Any) -> Trainer:
    for number, at in enumerate(deaths):
        with pytest.raises(Killed):
            fit(trainer(folder, at, **options), resume=number > 0)
    return fit(trainer(folder, **options), resume=True)


def the_same_run(a: RunFolder | None, b: RunFolder | None) -> None:
    assert a is not None and b is not None
    for name in ("last", "best"):
        assert getattr(a, name).read_bytes() == getattr(b, name).read_bytes(), name
    assert untimed(a) == untimed(b)
    before, after = read_resume(a.resume_state), read_resume(b.resume_state)
    before["progress"].pop("seconds"), after["progress"].pop("seconds")
    equal(before, after)


def equal(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            equal(one, other)
    else:
        assert a == b


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return fit(trainer(tmp_path_factory.mktemp("whole")))


# saved after 3, 4 (an epoch's end), 6, 8, 9 and 12 updates
@pytest.mark.parametrize("deaths", [[3], [4], [5], [7], [8], [11], [12], [3, 6, 7, 12]])
def test_killed_at_any_step(tmp_path: Path, whole: Trainer, deaths: list[int]) -> None:
    resumed = killed_and_resumed(tmp_path, deaths)
    assert same(state(resumed.task), state(whole.task))
    the_same_run(resumed.run, whole.run)


@pytest.mark.parametrize("deaths", [[5], [8]])
def test_with_worker_processes(tmp_path: Path, whole: Trainer, deaths: list[int]) -> None:
    the_same_run(killed_and_resumed(tmp_path, deaths, workers=2).run, whole.run)


@pytest.mark.parametrize(
    "options",
    [
        {"kind": MortalOnline},
        {"precision": "float32", "ema": None, "clip_norm": None, "accumulate": 1},
        {"precision": "bf16", "drop_last": True},
        {"overfit_one_batch": True},
    ],
    ids=str,
)
def test_other_ways_to_train(tmp_path: Path, options: dict[str, Any]) -> None:
    uninterrupted = fit(trainer(tmp_path / "whole", **options))
    the_same_run(killed_and_resumed(tmp_path / "killed", [7, 11], **options).run, uninterrupted.run)


def test_early_stopping_goes_on_counting(tmp_path: Path) -> None:
    """Evaluated every update with a rate so small that noise decides: patience must survive the resume."""
    options = {"evaluate_every_steps": 1, "early_stop": EarlyStop(3, min_delta=0.05), "steps": 30}
    uninterrupted = fit(trainer(tmp_path / "whole", **options))
    assert uninterrupted.progress.finished == "early stop"
    ended = uninterrupted.progress.step
    resumed = killed_and_resumed(tmp_path / "killed", list(range(1, ended)), **options)
    assert resumed.progress.step == ended
    the_same_run(resumed.run, uninterrupted.run)


def test_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    first = fit(trainer(tmp_path))
    assert first.run is not None
    files = {path: path.read_bytes() for path in first.run.path.rglob("*") if path.is_file()}
    again = fit(trainer(tmp_path), resume=True)
    assert again.progress == first.progress
    assert {path: path.read_bytes() for path in first.run.path.rglob("*") if path.is_file()} == files


# -- refusals: one clear error, and nothing has changed ------------------------------------------------------------


def refuses(other: Trainer, said: str) -> None:
    before, groups = state(other.task), str(other.optimizer.state_dict())
    with pytest.raises(CheckpointError, match=said) as caught:
        other.resume()
    assert "\n" not in str(caught.value)
    assert same(state(other.task), before) and str(other.optimizer.state_dict()) == groups and other.progress.step == 0


def test_nothing_to_resume(tmp_path: Path) -> None:
    refuses(trainer(tmp_path), r"last.resume: there is nothing to resume from; start without --resume")


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    fit(trainer(tmp_path, steps=2))
    return tmp_path


def test_a_truncated_state(finished: Path) -> None:
    path = finished / "checkpoints/last.resume"
    path.write_bytes(path.read_bytes()[:-1000])
    refuses(trainer(finished), "truncated or not a resume state")


def test_a_foreign_state(finished: Path) -> None:
    torch.save({"step": 3}, finished / "checkpoints/last.resume")
    refuses(trainer(finished), "not a resume state of this package")


def test_another_network(finished: Path) -> None:
    other = make_trainer(seeded_task(), new_run(finished), **EVERYTHING)
    refuses(other, r"another task or network: missing 2 \(network.3.weight, .*\) unknown 7 \(.* and 3 more\)")


def test_another_shape(finished: Path) -> None:
    task = Mortal(network=nn.Sequential(nn.Linear(3, 9), *list(network())[1:]))
    refuses(make_trainer(task, new_run(finished), **EVERYTHING), r"network.0.weight \(8, 3\) for \(9, 3\)")


def test_other_data(finished: Path) -> None:
    task = Mortal(PointsData(size=38), network=network())
    refuses(make_trainer(task, new_run(finished), **EVERYTHING), "with 37 training samples, there are 38 now")


def test_another_average(finished: Path) -> None:
    refuses(trainer(finished, ema=None), "moving average")


def test_another_optimiser(finished: Path) -> None:
    split: Callable[..., torch.optim.Optimizer] = lambda groups: torch.optim.Adam(  # noqa: E731
        [{"params": [p]} for p in groups[0]["params"]], lr=0.1
    )
    refuses(make_trainer(Mortal(network=network()), new_run(finished), split, **EVERYTHING), "another optimizer")


def test_what_is_saved_holds_no_code(tmp_path: Path, finished: Path) -> None:
    """The state of a run in full swing is read back by torch's loader of plain data."""
    running = trainer(finished)
    updates(running, 3)
    save_resume(tmp_path / "other.resume", {"optimizer": running.optimizer.state_dict()})
    equal(read_resume(tmp_path / "other.resume")["optimizer"], running.optimizer.state_dict())
