"""tools/train.py as a user meets it: what it writes, what it prints, and how it ends."""

import hashlib
import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits

import tools.train
from tests.cli.launching import CHECKOUT, Commands, as_a_user, last_step, predictions, result, untimed
from vision.engine.command import run_command
from vision.engine.config import load

QUICK = ("trainer.epochs=2", "data.limit=200", "task.network.width=8")


def files(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, but for what the commands said."""
    there = (path for path in folder.rglob("*") if path.is_file() and ".said" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in there}


@pytest.mark.slow
def test_a_user_trains_on_digits(tmp_path: Path) -> None:
    recipe = CHECKOUT / "configs" / "classification" / "digits_cnn.yaml"
    done = as_a_user("train", recipe, *QUICK, cwd=tmp_path)
    assert done.status == 0, done.err
    assert done.out == "runs/digits_cnn/report.html\n"
    run = tmp_path / "runs" / "digits_cnn"
    assert {path.name for path in run.iterdir()} == {
        "config.yaml", "environment.json", "metrics.jsonl", "checkpoints", "eval", "report.html", "tensorboard"
    }  # fmt: skip
    assert {path.name for path in (run / "checkpoints").iterdir()} == {
        "last.safetensors", "best.safetensors", "last.resume"
    }  # fmt: skip

    first, _, rest = (run / "config.yaml").read_text().partition("\n")
    tree = yaml.safe_load(rest)
    canonical = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    assert first == f"# sha256: {hashlib.sha256(canonical.encode()).hexdigest()}"
    assert (tree["trainer"]["epochs"], tree["data"]["limit"]) == (2, 200)

    labels = load_digits().target
    for split in ("val", "test"):
        found, said = result(run, split), predictions(run, split)
        assert found["samples"] == len(said) > 100
        right = [int(p["label"]) == labels[int(p["id"].removeprefix("digits/"))] for p in said]
        assert found["metrics"]["accuracy"] == pytest.approx(np.mean(right))
        assert np.sum(found["tables"]["confusion"]["values"]) == len(said)
        weights = (run / "checkpoints" / f"{found['checkpoint']}.safetensors").read_bytes()
        assert found["weights_sha256"] == hashlib.sha256(weights).hexdigest()
        assert found["config_sha256"] == first.removeprefix("# sha256: ")
        assert found["seed"] == 0
        assert (found["primary"], found["mode"]) == ("accuracy", "max")
        for example in (run / "eval" / split / "examples").glob("*.png"):
            assert Image.open(example).size[0] == 112
    assert len(list((run / "eval" / "test" / "examples").glob("*.png"))) == 12
    kinds = {line["kind"] for line in untimed(run)}
    assert kinds == {"train", "eval"}
    assert result(run, "val")["metrics"] == next(
        line["metrics"] for line in reversed(untimed(run)) if line["kind"] == "eval" and line["best"]
    )


@pytest.mark.parametrize("tool", ["train", "eval", "predict", "report", "doctor"])
def test_help_is_readable(commands: Commands, tmp_path: Path, tool: str) -> None:
    done = commands.run(tool, "--help", cwd=tmp_path, env={"COLUMNS": "80"})
    assert done.status == 0
    assert done.out.startswith(f"usage: {tool}.py [-h]")
    assert "example: python tools/" in done.out.replace("\n", " ")
    assert max(map(len, done.out.splitlines())) <= 80
    assert done.err == ""


def test_a_resolved_recipe_is_printed_and_nothing_else_happens(commands: Commands, tmp_path: Path) -> None:
    done = commands.run("train", "digits_cnn", "--print-config", "seed=3", "optimizer.lr=1e-4", cwd=tmp_path)
    assert done.status == 0
    tree = yaml.safe_load(done.out)
    assert tree == load("digits_cnn", ["seed=3", "optimizer.lr=1e-4"]).tree
    assert (tree["seed"], tree["optimizer"]["lr"]) == (3, 0.0001)
    assert done.err == ""
    assert files(tmp_path) == {}
    (tmp_path / "again.yaml").write_text(done.out)
    assert commands.run("train", "again.yaml", "--print-config", cwd=tmp_path).out == done.out


def test_a_dry_run_writes_nothing(commands: Commands, tmp_path: Path) -> None:
    done = commands.run("train", "digits_cnn", *QUICK, "--dry-run", cwd=tmp_path)
    assert done.status == 0
    assert done.out == ""
    assert "dry run: one update done" in done.err
    assert "200 training samples, 8 updates in all" in done.err
    assert files(tmp_path) == {}


def test_a_dry_run_of_a_pipeline_builds_every_stage_on_the_one_before(commands: Commands, tmp_path: Path) -> None:
    small = ("stages.scm.trainer.batch_size=2", "stages.tem.trainer.batch_size=2", "stages.tem.data.scenes=1")
    done = commands.run("train", "tbcnet_lite_synthetic", *small, "--dry-run", cwd=tmp_path)
    assert done.status == 0, done.err
    assert "scm: dry run: one update done; 63749 parameters" in done.err
    assert "tem: dry run: one update done; 125937 parameters" in done.err
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("digits_cn",), "no recipe 'digits_cn' (did you mean 'digits_cnn'?); expected a path or a shipped name"),
        (("digits_cnn", "optimizer.lrr=1"), "command line: optimizer.lrr: unknown key (did you mean 'lr'?)"),
        (("digits_cnn", "trainer.epochs"), "trainer.epochs"),
        (("configs",), "configs: "),
    ],
)
def test_mistakes_have_status_2_and_leave_nothing(
    commands: Commands, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = commands.run("train", *arguments, cwd=tmp_path)
    assert said in done.error or "no recipe 'configs'" in done.error
    assert files(tmp_path) == {}


def test_usage_is_told_where_the_call_is_wrong(commands: Commands, tmp_path: Path) -> None:
    done = commands.run("train", "--resum", "x", "--nothing", cwd=tmp_path)
    assert done.status == 2
    assert done.err.startswith("usage: train.py")
    assert "Traceback" not in done.err


@pytest.fixture
def own_log() -> Iterator[None]:
    """A tool sets up logging for its process; here that is the tests'."""
    root = logging.getLogger()
    before = root.handlers[:]
    yield
    root.handlers[:] = before


@pytest.mark.usefixtures("own_log")
def test_a_fault_of_ours_has_status_1_and_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(tools.train, "train", broken)
    with pytest.raises(SystemExit) as ended:
        run_command(tools.train.main, ["digits_cnn", f"output={tmp_path}"])
    assert ended.value.code == 1
    assert "ZeroDivisionError: of ours" in capsys.readouterr().err


def test_a_folder_with_a_run_is_refused_or_gone_on_with(commands: Commands, tmp_path: Path) -> None:
    assert commands.run("train", "digits_cnn", *QUICK, cwd=tmp_path).status == 0
    before = files(tmp_path)
    again = commands.run("train", "digits_cnn", *QUICK, cwd=tmp_path)
    assert again.error == "runs/digits_cnn exists: add --resume to go on or choose another name=..."
    other = commands.run("train", "digits_cnn", *QUICK, "optimizer.lr=0.1", "--resume", cwd=tmp_path)
    assert "runs/digits_cnn was started with another recipe: optimizer.lr was 0.003, now 0.1" in other.error
    assert files(tmp_path) == before
    resumed = commands.run("train", "digits_cnn", *QUICK, "--resume", cwd=tmp_path)
    assert resumed.status == 0, resumed.err
    for name in ("last", "best"):
        file = f"runs/digits_cnn/checkpoints/{name}.safetensors"
        assert files(tmp_path)[file] == before[file]
    elsewhere = commands.run("train", "digits_cnn", *QUICK, "name=other", "--dry-run", cwd=tmp_path)
    assert elsewhere.status == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_with_a_checkpoint(commands: Commands, tmp_path: Path, number: signal.Signals) -> None:
    quick = (*QUICK, "trainer.batch_size=8", "trainer.log_every=1")
    for folder in ("whole", "parts"):
        (tmp_path / folder).mkdir()
    assert commands.run("train", "digits_cnn", *quick, cwd=tmp_path / "whole").status == 0
    running = commands.start("train", "digits_cnn", *quick, cwd=tmp_path / "parts")
    run = tmp_path / "parts" / "runs" / "digits_cnn"
    until = time.monotonic() + 120
    while last_step(run) < 5 and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(running.processes[0], number)
    done = running.wait()
    assert done.status == 0, done.err
    assert f"{number.name}: finishing this update, then writing a checkpoint" in done.err
    assert "--resume goes on from there" in done.err
    assert 5 <= last_step(run) < 50
    assert commands.run("train", "digits_cnn", *quick, "--resume", cwd=tmp_path / "parts").status == 0
    whole = tmp_path / "whole" / "runs" / "digits_cnn"
    for name in ("last", "best"):
        file = f"checkpoints/{name}.safetensors"
        assert (run / file).read_bytes() == (whole / file).read_bytes()
    assert untimed(run) == untimed(whole)


def test_seeds_run_side_by_side_and_end_in_one_table(commands: Commands, tmp_path: Path) -> None:
    done = commands.run("train", "digits_cnn", *QUICK, "seeds=[0, 1, 5]", cwd=tmp_path)
    assert done.status == 0, done.err
    folder = tmp_path / "runs" / "digits_cnn"
    accuracies = [result(folder / f"seed{seed}", "test")["metrics"]["accuracy"] for seed in (0, 1, 5)]
    assert len(set(accuracies)) > 1
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["finished"]
    row = next(row for row in summary["table"] if row["figure"] == "test.accuracy")
    assert row["mean"] == pytest.approx(np.mean(accuracies))
    assert row["std"] == pytest.approx(np.std(accuracies, ddof=1))
    assert row["runs"] == 3
    assert (folder / "report.html").is_file()
