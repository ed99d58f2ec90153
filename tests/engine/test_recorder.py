"""The recorder: metrics.jsonl is the truth, TensorBoard repeats it, the console shows it."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vision.engine import recorder as recorder_module
from vision.engine.errors import UserError
from vision.engine.recorder import Recorder, duration, read_metrics
from vision.engine.run import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "a", "name: a\n", "abc123")


def train(recorder: Recorder, first: int, last: int, losses: dict[str, Any] | None = None) -> None:
    for step in range(first, last + 1):
        recorder.train(
            step=step,
            epoch=step / 10,
            losses=losses or {"ce": torch.tensor(1.0 / step), "weight": 0.5, "_entropy": 9.0},
            lr=0.1 / step,
            samples_per_second=100.0,
            grad_norm=torch.tensor(2.0),
            seconds=step * 0.5,
        )


def test_train_lines(run: RunFolder) -> None:
    with Recorder(run, log_every=4, total_steps=10) as recorder:
        train(recorder, 1, 10)
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 10]
    assert lines[0] == {
        "kind": "train",
        "step": 4,
        "epoch": 0.4,
        "loss": 0.75,
        "losses": {"ce": 0.25, "weight": 0.5, "_entropy": 9.0},
        "lr": 0.025,
        "samples_per_second": 100.0,
        "seconds": 2.0,
        "grad_norm": 2.0,
    }


def test_evaluation_and_event_lines(run: RunFolder) -> None:
    with Recorder(run, log_every=4, total_steps=10) as recorder:
        recorder.evaluation("val", 8, 2.0, {"accuracy": 0.5, "nll": float("nan")}, 1.25, best=True)
        recorder.event(8, "stopped: time budget")
    assert [json.loads(line) for line in run.metrics.read_text().splitlines()] == [
        {
            "kind": "eval",
            "split": "val",
            "step": 8,
            "epoch": 2.0,
            "metrics": {"accuracy": 0.5, "nll": None},
            "seconds": 1.25,
            "best": True,
        },
        {"kind": "event", "step": 8, "message": "stopped: time budget"},
    ]


def test_lines_are_on_disk_before_close(run: RunFolder) -> None:
    recorder = Recorder(run, log_every=1, total_steps=10)
    train(recorder, 1, 2)
    assert len(read_metrics(run.metrics)) == 2
    recorder.close()
    recorder.close()


def test_tensors_are_read_only_when_due(run: RunFolder) -> None:
    class Unread:
        def __float__(self) -> float:
            raise AssertionError("read between recorded steps")

    with Recorder(run, log_every=5, total_steps=100) as recorder:
        train(recorder, 1, 4, {"ce": Unread()})
        with pytest.raises(AssertionError, match="read between"):
            train(recorder, 5, 5, {"ce": Unread()})


def test_a_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Recorder(None, log_every=1, total_steps=3) as recorder:
        train(recorder, 1, 3)
        recorder.evaluation("val", 3, 1.0, {"accuracy": 0.5}, 1.0)
        recorder.event(3, "done")
        recorder.truncate(1)
    assert list(tmp_path.iterdir()) == []


def test_truncate_equals_never_having_gone_on(run: RunFolder, tmp_path: Path) -> None:
    short = RunFolder.create(tmp_path / "short", "name: a\n", "abc123")
    with Recorder(short, log_every=2, total_steps=20) as recorder:
        train(recorder, 1, 6)
        recorder.evaluation("val", 6, 0.6, {"accuracy": 0.1}, 1.0)
    with Recorder(run, log_every=2, total_steps=20) as recorder:
        train(recorder, 1, 6)
        recorder.evaluation("val", 6, 0.6, {"accuracy": 0.1}, 1.0)
        train(recorder, 7, 11)
    with run.metrics.open("a") as file:
        file.write('{"kind": "train", "step": 12, "lo')
    with Recorder(run, log_every=2, total_steps=20) as recorder:
        recorder.truncate(6)
        assert run.metrics.read_text() == short.metrics.read_text()
        train(recorder, 7, 8)
    assert [line["step"] for line in read_metrics(run.metrics)] == [2, 4, 6, 6, 8]


def test_a_broken_line_in_the_middle_is_named(run: RunFolder) -> None:
    run.metrics.write_text('{"kind": "event", "step": 1, "message": "a"}\n{"kind"\n{"kind": "event", "step": 2}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: is not JSON"):
        read_metrics(run.metrics)
    run.metrics.write_text("[1]\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl:1: expected an object"):
        read_metrics(run.metrics)


def scalars(run: RunFolder) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run.tensorboard))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_repeats_metrics(run: RunFolder) -> None:
    with Recorder(run, log_every=2, total_steps=6) as recorder:
        train(recorder, 1, 6)
        recorder.evaluation("val", 6, 0.6, {"accuracy": 0.25}, 1.0)
    found = scalars(run)
    lines = [line for line in read_metrics(run.metrics) if line["kind"] == "train"]
    assert found["train/loss"] == [(line["step"], pytest.approx(line["loss"])) for line in lines]
    assert found["train/losses/ce"] == [(line["step"], pytest.approx(line["losses"]["ce"])) for line in lines]
    assert found["train/lr"] == [(line["step"], pytest.approx(line["lr"])) for line in lines]
    assert found["val/accuracy"] == [(6, 0.25)]


def test_tensorboard_forgets_what_was_truncated(run: RunFolder) -> None:
    with Recorder(run, log_every=1, total_steps=6) as recorder:
        train(recorder, 1, 5)
    with Recorder(run, log_every=1, total_steps=6) as recorder:
        recorder.truncate(3)
        train(recorder, 4, 4)
    assert [step for step, _ in scalars(run)["train/loss"]] == [1, 2, 3, 4]


def test_a_full_disk_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match=r"metrics\.jsonl: cannot be written: Is a directory"):
        Recorder(RunFolder(tmp_path), log_every=1, total_steps=1).event(1, "x")


def test_plain_lines_without_a_terminal(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100_000, 4))
    monkeypatch.setattr(recorder_module.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(recorder_module, "terminal", lambda: Console(file=io.StringIO(), force_terminal=False))
    caplog.set_level("INFO")
    with Recorder(None, log_every=1, total_steps=40) as recorder:
        train(recorder, 1, 20)
        recorder.evaluation("val", 20, 2.0, {"accuracy": 0.5}, 1.0, best=True)
    said = [record.getMessage() for record in caplog.records]
    assert 2 < len(said) < 12
    assert said[0].startswith("step 1/40  epoch 0.10  loss 1.5  lr 0.1  100 samples/s")
    assert all("left" in line for line in said[:-1])
    assert said[-1] == "val  step 20  epoch 2  accuracy 0.5  (1.0 s)  best"


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=120)
    monkeypatch.setattr(recorder_module, "terminal", lambda: console)
    monkeypatch.setattr(recorder_module, "BAR_SECONDS", 0.0)
    with Recorder(None, log_every=1, total_steps=4) as recorder:
        train(recorder, 1, 4)
    assert "4/4" in output.getvalue()
    assert "loss 0.75" in output.getvalue()


def test_no_console_is_silent(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level("INFO")
    with Recorder(None, log_every=1, total_steps=4, console=False) as recorder:
        train(recorder, 1, 4)
        recorder.evaluation("val", 4, 1.0, {"accuracy": 0.5}, 1.0)
        recorder.event(4, "done")
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3599.6, "1 h 0 min"), (7260, "2 h 1 min")]
)
def test_duration(seconds: float, said: str) -> None:
    assert duration(seconds) == said
