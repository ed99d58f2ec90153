"""The loop against hand-written loops: updates, accumulation, clipping, averages, evaluation, and how a run ends."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tests.engine.harness import fit, largest_difference, make_trainer, new_run, same, seeded_task, state, updates
from tests.engine.toy import MeanError, OnlineRegression, PointsData, Regression
from vision.engine.checkpoint import read_weights
from vision.engine.data import Sample
from vision.engine.errors import ConfigError, TrainingError
from vision.engine.evaluation import evaluate
from vision.engine.loading import EpochPlan
from vision.engine.optim import cosine
from vision.engine.recipe import EarlyStop
from vision.engine.recorder import read_metrics
from vision.engine.seeding import seed_of
from vision.engine.task import Batch, Losses, Metric, StepContext
from vision.engine.trainer import Trainer


def test_the_rate_follows_the_batch_where_a_reference_is_given() -> None:
    for options, expected in (({"reference_batch": 40}, 0.0125), ({"reference_batch": 5}, 0.1), ({}, 0.05)):
        trainer = make_trainer(seeded_task(), epochs=1, batch_size=10, **options)
        assert [group["lr"] for group in trainer.optimizer.param_groups] == [pytest.approx(expected)]


# -- the update ------------------------------------------------------------------------------------------------------


def bare_loop(
    task: Regression,
    epochs: int,
    batch_size: int,
    optimizer: torch.optim.Optimizer,
    clip: float | None = None,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> list[float]:
    """What anyone would write: the order and the noise of our seeds, everything else torch's."""
    data, losses = task.train_data(), []
    for epoch in range(epochs):
        for (share,) in EpochPlan(len(data), batch_size, False, 1, 0, 1, 0).shares(epoch):  # type: ignore[arg-type]
            samples = []
            for index in share.indices:
                torch.manual_seed(seed_of(0, "sample", epoch, index))
                samples.append(data[index])
            x, y = torch.stack([s["x"] for s in samples]), torch.stack([s["y"] for s in samples])
            loss = ((task.network(x).squeeze(1) - y) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(task.parameters(), clip)
            optimizer.step()
            if schedule is not None:
                schedule.step()
            losses.append(loss.item())
    return losses


@pytest.mark.parametrize("clip", [None, 0.2])
def test_a_run_is_a_bare_loop(tmp_path: Path, clip: float | None) -> None:
    trainer = fit(
        make_trainer(
            seeded_task(), new_run(tmp_path), lambda groups: torch.optim.Adam(groups, lr=0.02), cosine,
            epochs=3, batch_size=8, clip_norm=clip, log_every=1,
        )
    )  # fmt: skip
    by_hand = seeded_task()
    adam = torch.optim.Adam(by_hand.parameters(), lr=0.02)
    losses = bare_loop(by_hand, 3, 8, adam, clip, torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=15))
    assert largest_difference(state(trainer.task), state(by_hand)) <= 1e-6  # the schedules differ in a last digit
    assert same(read_weights(tmp_path / "checkpoints/last.safetensors").tensors, state(trainer.task.network))  # type: ignore[arg-type]
    assert trainer.progress.step == 15 and trainer.progress.finished == "budget"
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if line["kind"] == "train"]
    assert [line["step"] for line in lines] == list(range(1, 16))
    assert [line["loss"] for line in lines] == pytest.approx(losses, rel=1e-5)
    assert all((line["grad_norm"] is None) == (clip is None) for line in lines)
    assert all(
        line["losses"].keys() == {"square", "_largest"} and line["loss"] == line["losses"]["square"] for line in lines
    )


def test_without_a_schedule_the_weights_are_the_same_bit_for_bit() -> None:
    trainer = make_trainer(seeded_task(), epochs=2, batch_size=10)
    updates(trainer, 8)
    by_hand = seeded_task()
    bare_loop(by_hand, 2, 10, torch.optim.SGD(by_hand.parameters(), lr=0.05, momentum=0.9))
    assert same(state(trainer.task), state(by_hand))


@pytest.mark.parametrize("kind", [Regression, OnlineRegression])
@pytest.mark.parametrize("accumulate", [2, 3, 12])
def test_accumulated_passes_make_the_whole_batchs_update(kind: type[Regression], accumulate: int) -> None:
    """37 samples in batches of 12: the last batch has a single one."""
    whole, cut = (make_trainer(seeded_task(kind=kind), epochs=3, batch_size=12, accumulate=k) for k in (1, accumulate))
    updates(whole, 12)
    updates(cut, 12)
    assert largest_difference(state(whole.task), state(cut.task)) < 1e-6
    assert not same(state(whole.task), state(seeded_task(kind=kind)))


def test_accumulated_passes_are_clipped_together() -> None:
    whole, cut = (make_trainer(seeded_task(), epochs=1, batch_size=12, accumulate=k, clip_norm=0.01) for k in (1, 4))
    updates(whole, 3)
    updates(cut, 3)
    assert largest_difference(state(whole.task), state(cut.task)) < 1e-6


def test_an_online_rule_makes_the_update_of_its_summed_losses() -> None:
    online, once = (
        make_trainer(seeded_task(kind=kind), epochs=2, batch_size=8) for kind in (OnlineRegression, Regression)
    )
    updates(online, 10)
    updates(once, 10)
    assert largest_difference(state(online.task), state(once.task)) < 1e-6


class Forgetful(Regression):
    """Yields twice without saying so."""

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        for _ in range(2):
            yield from super().training_step(batch, context)


class PerSample(Regression):
    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        yield {"square": (self.network(batch["x"]).squeeze(1) - batch["y"]) ** 2}


class OnlyLogged(Regression):
    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        yield {"_square": self.network(batch["x"]).sum()}


@pytest.mark.parametrize(
    ("kind", "said"),
    [(Forgetful, "yielded 2 times.*online = True"), (PerSample, "scalar losses"), (OnlyLogged, "scalar losses")],
)
def test_a_training_step_that_breaks_the_contract_is_told(kind: type[Regression], said: str) -> None:
    with pytest.raises(TrainingError, match=f"{kind.__name__}.training_step.*{said}"):
        updates(make_trainer(seeded_task(kind=kind), epochs=1), 1)


class Watched(Regression):
    """Notes what it is told about time, and draws a random number at each of its hooks."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.told: list[tuple[Any, ...]] = []

    def before_step(self, context: StepContext) -> None:
        self.told.append(("before", context.step, context.total_steps, context.epoch, torch.rand(()).item()))

    def after_step(self, context: StepContext) -> None:
        self.told.append(("after", context.step))

    def after_epoch(self, epoch: int) -> None:
        self.told.append(("epoch", epoch))


def test_a_task_is_told_about_time_and_draws_the_same_after_a_resume() -> None:
    whole, tail = (make_trainer(seeded_task(kind=Watched), steps=5, batch_size=16) for _ in range(2))
    fit(whole)
    tail.progress.step = 2
    fit(tail)
    assert isinstance(whole.task, Watched) and isinstance(tail.task, Watched)
    kinds = [each[:2] for each in whole.task.told]
    expected: list[tuple[str, int]] = []
    for step in range(5):
        expected += [("before", step), ("after", step)] + ([("epoch", 1)] if step == 2 else [])
    assert kinds == expected
    assert [each[2:4] for each in whole.task.told if each[0] == "before"] == [(5, 0)] * 3 + [(5, 1)] * 2
    assert tail.task.told == whole.task.told[4:]
    assert len({each[4] for each in whole.task.told if each[0] == "before"}) == 5  # every step draws anew


# -- averages, precision, memory order -------------------------------------------------------------------------------


def test_the_moving_average_is_the_recurrence_and_is_what_is_judged(tmp_path: Path) -> None:
    decay, network = 0.8, nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    trainer = make_trainer(seeded_task(network=network), new_run(tmp_path), steps=6, batch_size=8, ema=decay)
    mean: dict[str, Tensor] = {}
    for step in range(6):
        updates(trainer, 1)
        for name, value in trainer.task.network.state_dict().items():
            # the first two updates copy (timm); then e <- d e + (1 - d) w, of running statistics too; counters copy
            old = mean.get(name, value)
            mean[name] = (
                value.clone() if step < 2 or not value.is_floating_point() else decay * old + (1 - decay) * value
            )
    assert trainer.ema is not None
    assert largest_difference(mean, trainer.ema.module.state_dict()) < 1e-6
    trained = trainer.task.network
    fit(trainer)
    assert trainer.task.network is trained and trainer.progress.best is None  # the budget was spent above
    with trainer.averaged():
        assert trainer.task.network is trainer.ema.module
    saved = read_weights(tmp_path / "checkpoints/last.safetensors")
    assert same(saved.tensors, trainer.ema.module.state_dict()) and saved.metadata["averaged"] == "True"


def test_best_weights_score_what_was_recorded_with_an_average_too(tmp_path: Path) -> None:
    trainer = fit(make_trainer(seeded_task(), new_run(tmp_path), epochs=4, batch_size=8, ema=0.9))
    trainer.load("best")
    found = evaluate(trainer.task, trainer.val, trainer.world, trainer.options)
    assert found.metrics["error"] == trainer.progress.best


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_half_precision_follows_single(precision: str, clip: float | None) -> None:
    half, single = (
        fit(make_trainer(seeded_task(), epochs=10, batch_size=8, precision=p, clip_norm=clip))
        for p in (precision, "float32")
    )
    assert half.scaler.is_enabled() is (precision == "fp16")
    assert all(p.dtype == torch.float32 for p in half.task.parameters())
    assert half.progress.best is not None and single.progress.best is not None
    assert 0 < abs(half.progress.best - single.progress.best) < 0.1  # another rounding, the same training


def test_an_overflow_of_scaled_gradients_skips_the_update_and_lowers_the_scale() -> None:
    trainer = make_trainer(seeded_task(), steps=2, batch_size=8, precision="fp16", clip_norm=1.0)
    before = state(trainer.task)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126)
    updates(trainer, 1)
    assert same(state(trainer.task), before) and trainer.scaler.get_scale() == 2.0**125


class Memory(nn.Module):
    """Notes in which order its input lies in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3))
        self.seen: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous())
        return self.body(x).mean((1, 2, 3)).unsqueeze(1)


class Images(Dataset[Sample]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Sample:
        image = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(index))
        return {"id": str(index), "x": image, "y": image.mean()}


class ImageData(PointsData):
    def train(self) -> Dataset[Sample]:
        return Images()

    def val(self) -> Dataset[Sample]:
        return Images()


def test_channels_last_changes_memory_not_results() -> None:
    plain, last = (
        make_trainer(seeded_task(data=ImageData(), network=seeded_network()), steps=4, batch_size=4, channels_last=on)
        for on in (False, True)
    )
    fit(plain)
    fit(last)
    assert isinstance(plain.task.network, Memory) and isinstance(last.task.network, Memory)
    assert not any(plain.task.network.seen) and all(last.task.network.seen) and last.task.network.seen
    weight = last.task.network.body[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    assert largest_difference(state(plain.task), state(last.task)) < 1e-6


def seeded_network() -> Memory:
    torch.manual_seed(3)
    return Memory()


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("g++")), reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_trains_to_the_same_weights() -> None:
    compiled, plain = (make_trainer(seeded_task(), steps=4, batch_size=8, compile=on) for on in (True, False))
    updates(compiled, 4)
    updates(plain, 4)
    assert compiled.task.network._compiled_call_impl is not None
    assert largest_difference(state(compiled.task), state(plain.task)) < 1e-5


# -- evaluation and selection ----------------------------------------------------------------------------------------


class Scripted(Metric):
    """Says what it is told to, one value an evaluation."""

    primary, mode = "value", "max"
    others: ClassVar[dict[str, str]] = {"cost": "min"}
    script: ClassVar[list[float]] = []

    def measure(self, prediction: Any, batch: Batch, position: int) -> float:
        return 0.0

    def score(self, records: list[float]) -> dict[str, float]:
        value = Scripted.script.pop(0)
        return {"value": value, "cost": value}


class Judged(Regression):
    def metric(self) -> Metric:
        return Scripted()


def judged(folder: Path, script: list[float], monkeypatch: pytest.MonkeyPatch, **options: Any) -> Trainer:
    monkeypatch.setattr(Scripted, "script", list(script))
    arguments = {"epochs": len(script), "batch_size": 37} | options
    return fit(make_trainer(seeded_task(kind=Judged), new_run(folder), **arguments))


@pytest.mark.parametrize(
    ("select", "script", "best"),
    [
        (None, [1.0, 3.0, 2.0, 3.0], 2),  # an equal one later is no better
        ("cost", [2.0, 3.0, 1.0, 1.0], 3),
        (None, [float("nan"), 1.0, float("nan"), 0.5], 2),
    ],
)
def test_the_best_weights_are_those_of_the_best_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, select: str | None, script: list[float], best: int
) -> None:
    trainer = judged(tmp_path, script, monkeypatch, select=select)
    assert (trainer.progress.best, trainer.progress.best_step) == (script[best - 1], best)
    expected = make_trainer(seeded_task(kind=Judged), epochs=4, batch_size=37)
    updates(expected, best)
    assert same(read_weights(tmp_path / "checkpoints/best.safetensors").tensors, state(expected.task.network))  # type: ignore[arg-type]
    assert read_weights(tmp_path / "checkpoints/best.safetensors").metadata["step"] == str(best)
    assert read_weights(tmp_path / "checkpoints/last.safetensors").metadata["step"] == "4"
    marked = [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl") if line.get("best")]
    assert marked[-1] == best


@pytest.mark.parametrize(
    ("script", "patience", "min_delta", "evaluations"),
    [
        ([1.0, 2.0, 1.5, 1.5, 9.0], 2, 0.0, 4),
        ([1.0, 2.0, 2.0, 2.0, 9.0], 2, 0.0, 4),
        ([1.0, 1.4, 1.8, 2.2, 2.6], 2, 0.5, 5),  # creeps, yet is 0.5 better than two evaluations before
        ([1.0, 1.1, 1.2, 1.3, 9.0], 2, 0.5, 3),
        ([float("nan")] * 5, 3, 0.0, 3),
        ([float("nan"), 1.0, 2.0, 3.0, 4.0], 2, 0.0, 5),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 1, 0.0, 5),
    ],
)
def test_a_run_stops_when_nothing_gets_better(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: list[float],
    patience: int,
    min_delta: float,
    evaluations: int,
) -> None:
    trainer = judged(tmp_path, script, monkeypatch, early_stop=EarlyStop(patience, min_delta))
    assert len(script) - len(Scripted.script) == evaluations == trainer.progress.step
    assert trainer.progress.finished == ("early stop" if evaluations < 5 else "budget")
    assert (
        fit(
            make_trainer(seeded_task(kind=Judged), new_run(tmp_path), epochs=5, batch_size=37), resume=True
        ).progress.step
        == evaluations
    )


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"epochs": 3}, [4, 8, 12]),
        ({"epochs": 5, "evaluate_every": 2}, [8, 16, 20]),
        ({"steps": 10, "evaluate_every_steps": 3}, [3, 6, 9, 10]),
        ({"steps": 6}, [4, 6]),
        ({"epochs": 1, "drop_last": True}, [3]),
    ],
)
def test_when_a_run_is_evaluated(tmp_path: Path, options: dict[str, Any], steps: list[int]) -> None:
    fit(make_trainer(seeded_task(), new_run(tmp_path), batch_size=10, **options))
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if line["kind"] == "eval"]
    assert [line["step"] for line in lines] == steps
    assert [line["epoch"] for line in lines] == [pytest.approx(s / (3 if "drop_last" in options else 4)) for s in steps]


def test_evaluating_changes_nothing_of_the_training() -> None:
    seldom, often = (
        make_trainer(seeded_task(dropout=0.3), epochs=2, batch_size=10, evaluate_every_steps=n) for n in (8, 1)
    )
    fit(seldom)
    fit(often)
    assert same(state(seldom.task), state(often.task))


def test_a_figure_that_cannot_be_selected_is_refused_at_once() -> None:
    with pytest.raises(
        ConfigError, match=r"trainer.select: .*'cots' \(did you mean 'cost'\?\); expected one of value, cost"
    ):
        make_trainer(seeded_task(kind=Judged), epochs=1, select="cots")


class Fickle(MeanError):
    others: ClassVar[dict[str, str]] = {"rare": "max"}


def test_a_figure_this_data_does_not_have_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Regression, "metric", lambda _: Fickle())
    with pytest.raises(ConfigError, match="this data has no 'rare'; it has error"):
        fit(make_trainer(seeded_task(), epochs=1, select="rare"))


def test_figures_may_be_numpys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resume state holds the best figure, and is read without unpickling numpy's own types."""
    import numpy as np

    trainer = judged(tmp_path, [np.float64(1.0), np.float32(2.0)], monkeypatch)  # type: ignore[list-item]
    assert type(trainer.progress.best) is float
    fit(make_trainer(seeded_task(kind=Judged), new_run(tmp_path), epochs=2, batch_size=37), resume=True)


# -- the budget, signals and the clock -------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"epochs": 1, "steps": 1}])
def test_epochs_or_steps(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="exactly one of 'epochs' and 'steps'"):
        make_trainer(seeded_task(), **options)


def test_a_batch_larger_than_the_data_leaves_no_update_with_drop_last() -> None:
    with pytest.raises(ConfigError, match="batch_size is 64 and the training split has 37 samples"):
        make_trainer(seeded_task(), epochs=1, batch_size=64, drop_last=True)
    assert make_trainer(seeded_task(), epochs=1, batch_size=64).total == 1


def test_overfitting_one_batch_gets_its_loss_to_nothing(tmp_path: Path) -> None:
    task = seeded_task(data=PointsData(noise=1.0))
    adam: Callable[..., torch.optim.Optimizer] = lambda groups: torch.optim.Adam(groups, lr=0.02)  # noqa: E731
    fit(make_trainer(task, new_run(tmp_path), adam, epochs=60, batch_size=4, evaluate_every=30, overfit_one_batch=True))
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if line["kind"] == "train"]
    assert lines[0]["loss"] > 0.5 and lines[-1]["loss"] < 1e-6
    assert lines[-1]["step"] == 600  # epochs are as long as without it


class Interrupted(Regression):
    """Sends signals to its own process in the middle of a step."""

    def __init__(self, at: int, signals: list[signal.Signals], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.at, self.signals = at, signals

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        if context.step == self.at:
            for number in self.signals:
                os.kill(os.getpid(), number)
        yield from super().training_step(batch, context)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("at", [4, 7, 8])
def test_a_signal_ends_the_run_after_the_update_with_a_checkpoint(
    tmp_path: Path, number: signal.Signals, at: int
) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    run = new_run(tmp_path / "killed")
    killed = fit(make_trainer(seeded_task(kind=Interrupted, at=at, signals=[number]), run, steps=9, batch_size=10))
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    fit(make_trainer(seeded_task(), new_run(tmp_path / "whole"), steps=9, batch_size=10))
    events = [line["message"] for line in read_metrics(run.metrics) if line["kind"] == "event"]
    if at == 8:  # the last update: there is nothing left to interrupt
        assert killed.progress.finished == "budget" and not events
    else:
        assert (killed.progress.step, killed.progress.finished) == (at + 1, "")
        assert events == [f"stopped: {number.name}"]
    fit(make_trainer(seeded_task(), run, steps=9, batch_size=10), resume=True)
    for name in ("last", "best"):
        files = [tmp_path / each / f"checkpoints/{name}.safetensors" for each in ("killed", "whole")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    task = seeded_task(kind=Interrupted, at=2, signals=[signal.SIGINT, signal.SIGINT])
    trainer = make_trainer(task, new_run(tmp_path), steps=9)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(trainer)
    assert trainer.progress.step == 2 and signal.getsignal(signal.SIGINT) is handler


def test_a_second_sigterm_does_not_disturb_the_checkpoint(tmp_path: Path) -> None:
    task = seeded_task(kind=Interrupted, at=2, signals=[signal.SIGTERM, signal.SIGTERM])
    assert fit(make_trainer(task, new_run(tmp_path), steps=9)).progress.step == 3


def test_a_signal_during_an_evaluation_ends_the_run_after_it(tmp_path: Path) -> None:
    class InEvaluation(Regression):
        def predict(self, batch: Batch) -> list[Any]:
            os.kill(os.getpid(), signal.SIGTERM)
            return super().predict(batch)

    trainer = fit(make_trainer(seeded_task(kind=InEvaluation), new_run(tmp_path), steps=9, batch_size=10))
    assert trainer.progress.step == 4
    kinds = [(line["kind"], line["step"]) for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert kinds == [("eval", 4), ("event", 4)]


def test_the_time_budget_ends_with_an_evaluation_and_stays_ended(tmp_path: Path) -> None:
    budget = {"epochs": 100, "batch_size": 10, "time_budget": 1e-9}
    trainer = fit(make_trainer(seeded_task(), new_run(tmp_path), **budget))
    assert (trainer.progress.step, trainer.progress.finished) == (1, "time budget")
    kinds = [(line["kind"], line["step"]) for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert kinds == [("event", 1), ("eval", 1)]
    again = fit(make_trainer(seeded_task(), new_run(tmp_path), **budget), resume=True)
    assert (again.progress.step, again.progress.finished) == (1, "time budget")


def test_a_time_budget_that_ends_at_an_evaluation_does_not_repeat_it(tmp_path: Path) -> None:
    fit(make_trainer(seeded_task(), new_run(tmp_path), epochs=9, batch_size=37, time_budget=1e-9))
    kinds = [(line["kind"], line["step"]) for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert kinds == [("eval", 1), ("event", 1)]


def test_time_goes_on_over_a_resume(tmp_path: Path) -> None:
    first = fit(make_trainer(seeded_task(kind=Interrupted, at=1, signals=[signal.SIGTERM]), new_run(tmp_path), steps=9))
    second = make_trainer(seeded_task(), new_run(tmp_path), steps=9)
    second.resume()
    assert second.progress.seconds == first.progress.seconds > 0


def test_losses_of_shares_are_recorded_as_their_weighted_mean(tmp_path: Path) -> None:
    one, cut = (
        fit(make_trainer(seeded_task(), new_run(tmp_path / str(k)), steps=8, batch_size=10, accumulate=k, log_every=1))
        for k in (1, 3)
    )
    figures = [
        [line["losses"]["square"] for line in read_metrics(t.run.metrics) if line["kind"] == "train"]  # type: ignore[union-attr]
        for t in (one, cut)
    ]
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)
    assert all(a != b for a, b in pairwise(figures[0]))
