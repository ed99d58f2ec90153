"""Two processes under torchrun give the one-process result: losses, weights, and evaluations exactly.

``torchrun`` itself starts one of the runs; the others are started as it would start them.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.launching import CHECKOUT, Commands, last_step, predictions, result, untimed
from vision.engine.checkpoint import read_weights

SGD = "optimizer={type: sgd, lr: 0.02}"
"""Adam divides by gradients that may be nothing but rounding, and so would the comparison."""

DIGITS = (
    "digits_cnn",
    "task.network={norm: group, width: 8}",
    "data={limit: 100, augment: [crop], crop_padding: 1}",
    # 100 samples leave 4 for the last batch of an epoch
    "trainer={epochs: 2, batch_size: 32, evaluate_every: 1, log_every: 1, clip_norm: 1.0}",
    SGD,
)
TBCNET = (
    "tbcnet_lite_synthetic",
    "trainer.log_every=1",
    "optimizer={type: sgd, lr: 1e-3}",  # ten times more, and rounding grows tenfold an update
    "stages.scm.data={size: 64, held_out: 12, length: 64}",
    "stages.scm.trainer={steps: 4, batch_size: 8, evaluate_every_steps: 4, sync_batchnorm: true}",
    # means over images; soft IoU pools what one pass of one process sees
    "stages.tem.task={loss: balanced, semantic_warmup: 0.0}",
    "stages.tem.data={patch: 48, size: 64, scenes: 3, length: 40}",
    "stages.tem.trainer={steps: 8, batch_size: 5, evaluate_every_steps: 4, sync_batchnorm: true}",
)


def both(commands: Commands, folder: Path, recipe: Sequence[str]) -> list[Path]:
    """The ``runs`` folder of one process and that of two."""
    folders = []
    for size in (1, 2):
        place = folder / f"{size}"
        place.mkdir()
        done = commands.run("train", *recipe, cwd=place, size=size)
        assert done.status == 0, done.err
        folders.append(place / "runs")
    return folders


def losses(run: Path) -> dict[str, list[float]]:
    """Every loss over the updates, and the gradient's norm where it was clipped."""
    lines = [line for line in untimed(run) if line["kind"] == "train"]
    found: dict[str, list[float]] = {name: [line["losses"][name] for line in lines] for name in lines[0]["losses"]}
    return found | {"norm": [line["grad_norm"] or 0.0 for line in lines], "loss": [line["loss"] for line in lines]}


def assert_trained_alike(one: Path, two: Path, rel: float, abs: float) -> None:
    expected, found = losses(one), losses(two)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=rel, abs=abs), name
    for file in ("last.safetensors", "best.safetensors"):
        a, b = (read_weights(run / "checkpoints" / file).tensors for run in (one, two))
        assert a.keys() == b.keys()
        for name, value in a.items():
            torch.testing.assert_close(b[name], value, rtol=rel, atol=abs, msg=lambda m, name=name: f"{name}: {m}")


def assert_judged_alike(one: Path, two: Path, name: str, exactly: bool) -> None:
    a, b = result(one, name), result(two, name)
    assert b["samples"] == a["samples"] == len(predictions(two, name))
    assert [p["id"] for p in predictions(two, name)] == [p["id"] for p in predictions(one, name)]
    if exactly:
        assert b["metrics"] == a["metrics"]
        assert b["tables"] == a["tables"]
        assert predictions(two, name) == predictions(one, name)
    else:
        assert b["metrics"] == pytest.approx(a["metrics"], rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_a_classifier_under_torchrun(commands: Commands, tmp_path: Path) -> None:
    for place in ("1", "2"):
        (tmp_path / place).mkdir()
    assert commands.run("train", *DIGITS, cwd=tmp_path / "1").status == 0
    train = str(CHECKOUT / "tools" / "train.py")
    call = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", train, *DIGITS]
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": str(CHECKOUT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        call, cwd=tmp_path / "2", env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "runs/digits_cnn/report.html\n", "one process speaks"
    assert "Traceback" not in done.stderr
    one, two = (tmp_path / place / "runs" / "digits_cnn" for place in ("1", "2"))
    assert len(losses(two)["loss"]) == 8
    assert_trained_alike(one, two, rel=1e-4, abs=1e-6)
    for split in ("val", "test"):
        assert_judged_alike(one, two, split, exactly=False)


@pytest.mark.slow
def test_a_mistake_under_torchrun_is_told_and_ends_both(tmp_path: Path) -> None:
    train = str(CHECKOUT / "tools" / "train.py")
    call = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", train]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*call, "digits_cnn", "optimizer.lrr=1"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "optimizer.lrr: unknown key (did you mean 'lr'?)" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_both_stages_of_tbc_net_with_batchnorm_over_both_processes(commands: Commands, tmp_path: Path) -> None:
    one, two = (runs / "tbcnet_lite_synthetic" for runs in both(commands, tmp_path, TBCNET))
    for stage in ("scm", "tem"):
        assert_trained_alike(one / stage, two / stage, rel=1e-3, abs=1e-5)
        assert_judged_alike(one / stage, two / stage, "test", exactly=False)
    statistics = read_weights(two / "tem" / "checkpoints" / "last.safetensors").tensors["stem.1.running_var"]
    assert not torch.equal(statistics, torch.ones_like(statistics))


@pytest.mark.parametrize("samples", [1, 2, 33])
def test_an_evaluation_is_exactly_the_same(commands: Commands, trained: Path, tmp_path: Path, samples: int) -> None:
    """Of the same weights; also where a process has no sample, or fewer than the other."""
    for name in ("one", "two"):
        shutil.copytree(trained, tmp_path / name)
    for name, size in (("one", 1), ("two", 2)):
        done = commands.run("eval", name, f"data.limit={samples}", "--name", "few", cwd=tmp_path, size=size)
        assert done.status == 0, done.err
        assert done.out == f"{name}/eval/few/result.json\n"
    assert result(tmp_path / "two", "few")["samples"] == samples
    assert_judged_alike(tmp_path / "one", tmp_path / "two", "few", exactly=True)


def test_an_evaluation_of_images_of_all_sizes_is_exactly_the_same(
    commands: Commands, trained_tbcnet: Path, tmp_path: Path
) -> None:
    for name, size in (("one", 1), ("two", 2)):
        shutil.copytree(trained_tbcnet, tmp_path / name)
        arguments = ("trainer.eval_batch_size=1", "data.scenes=5", "--name", "few")
        assert commands.run("eval", name, *arguments, cwd=tmp_path, size=size).status == 0
    assert_judged_alike(tmp_path / "one" / "tem", tmp_path / "two" / "tem", "few", exactly=True)


def test_fewer_samples_than_processes_can_be_trained_on(commands: Commands, tmp_path: Path) -> None:
    """The last batch of an epoch has one sample, and so has the validation split: nobody waits for ever."""
    recipe = ("digits_cnn", "task.network={norm: none, width: 8}", "data.limit=1", "trainer={epochs: 3, log_every: 1}")
    one, two = (runs / "digits_cnn" for runs in both(commands, tmp_path, recipe))
    assert result(two, "val")["samples"] == 1
    assert_trained_alike(one, two, rel=1e-4, abs=1e-6)
    assert_judged_alike(one, two, "val", exactly=False)


def test_a_killed_run_of_two_is_gone_on_with(commands: Commands, tmp_path: Path) -> None:
    """Started anew with --resume after both processes were told to stop: the uninterrupted run of two, bit for bit."""
    recipe = (*DIGITS, "trainer.batch_size=8")
    for place in ("whole", "parts"):
        (tmp_path / place).mkdir()
    assert commands.run("train", *recipe, cwd=tmp_path / "whole", size=2).status == 0
    running = commands.start("train", *recipe, cwd=tmp_path / "parts", size=2)
    whole, parts = (tmp_path / place / "runs" / "digits_cnn" for place in ("whole", "parts"))
    until = time.monotonic() + 120
    while last_step(parts) < 4 and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(running.processes[1], signal.SIGTERM)
    assert running.wait().status == 0
    assert 4 <= last_step(parts) < 26
    assert commands.run("train", *recipe, "--resume", cwd=tmp_path / "parts", size=2).status == 0
    for file in ("last.safetensors", "best.safetensors"):
        assert (parts / "checkpoints" / file).read_bytes() == (whole / "checkpoints" / file).read_bytes()
    assert untimed(parts) == untimed(whole)
