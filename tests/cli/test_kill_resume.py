"""A run that SIGKILL ended and --resume went on with is the uninterrupted run, bit for bit: weights, figures, all.

Both runs are the same command in folders of their own, so that nothing but the kill differs.
"""

import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.cli.launching import Commands, last_step, untimed

NAME = "run"
CLASSIFICATION = [
    "digits_cnn",
    f"name={NAME}",
    # dropout, augmentation, BatchNorm, a moving average and a rate that changes: all that a resume could forget
    "task.network={type: wide_resnet, depth: 10, width: 1, dropout: 0.3, in_channels: 1}",
    "data.limit=120",
    "data.augment=[crop, rotate, erase]",
    "data.crop_padding=1",
    "trainer={epochs: null, steps: 30, batch_size: 16, evaluate_every_steps: 7, save_every_steps: 4, log_every: 1, "
    "ema: 0.9, clip_norm: 1.0}",
]
SYNTHETIC = [
    "tbcnet_lite_synthetic",
    f"name={NAME}",
    "trainer.log_every=1",
    "trainer.save_every_steps=3",
    "stages.scm.data={size: 64, held_out: 12, length: 64}",
    "stages.scm.trainer={steps: 14, batch_size: 8, evaluate_every_steps: 5}",
    "stages.tem.data={patch: 48, size: 64, scenes: 3, length: 40}",
    "stages.tem.trainer={steps: 14, batch_size: 4, evaluate_every_steps: 5}",
]
SIRST = [
    "tbcnet_lite_sirst",
    f"name={NAME}",
    "trainer.log_every=1",
    "trainer.save_every_steps=4",
    "trainer.evaluate_every_steps=10",
    "stages.scm.trainer.steps=20",
    "stages.scm.data={size: 64, length: 400, held_out: 40}",
    "stages.tem.trainer.steps=30",
    "stages.tem.data={length: 40, patch: 64, validation: 0.05, test_split: null}",
]
FILES = (
    "checkpoints/last.safetensors",
    "checkpoints/best.safetensors",
    "eval/val/predictions.jsonl",
    "eval/test/predictions.jsonl",
)

Kill = tuple[str, int]
"""The run folder below the command's, and the update after which it is killed."""


def uninterrupted(commands: Commands, recipe: Sequence[str], folder: Path) -> Path:
    folder.mkdir()
    done = commands.run("train", *recipe, "output=runs", cwd=folder)
    assert done.status == 0, done.err
    return folder / "runs" / NAME


def killed(commands: Commands, recipe: Sequence[str], folder: Path, kills: Sequence[Kill]) -> Path:
    """Starts, kills at each of ``kills`` and starts again, then lets it end."""
    folder.mkdir()
    out = folder / "runs" / NAME
    luck = random.Random(0)
    for stage, step in kills:
        command = commands.start("train", *recipe, "output=runs", "--resume", cwd=folder)
        command.kill(after(out / stage, step, luck))
    assert not (out / "report.html").exists(), "it was over before it was killed"
    done = commands.run("train", *recipe, "output=runs", "--resume", cwd=folder)
    assert done.status == 0, done.err
    return out


def after(folder: Path, step: int, luck: random.Random) -> Callable[[], bool]:
    """Whether a run has recorded ``step``; then some more looks, so that the kill falls anywhere in an update."""
    looks = luck.randrange(8)

    def ready() -> bool:
        nonlocal looks
        looks -= last_step(folder) >= step
        return looks < 0

    return ready


def assert_the_same(a: Path, b: Path) -> None:
    there = [name for name in FILES if (a / name).exists()]
    assert {"checkpoints/last.safetensors", "checkpoints/best.safetensors"} <= set(there)
    for name in FILES:
        assert (a / name).exists() == (b / name).exists(), name
    assert [name for name in there if (a / name).read_bytes() != (b / name).read_bytes()] == []
    assert untimed(a) == untimed(b)
    steps = [line["step"] for line in untimed(b) if line["kind"] == "train"]
    assert steps == list(range(1, steps[-1] + 1)), "an update was recorded twice, or not at all"


@pytest.mark.parametrize("workers", [0, 2])
def test_classification(commands: Commands, tmp_path: Path, workers: int) -> None:
    recipe = [*CLASSIFICATION, f"trainer.workers={workers}"]
    whole = uninterrupted(commands, recipe, tmp_path / "whole")
    # before the first checkpoint, between two, at one, and after an evaluation
    again = killed(commands, recipe, tmp_path / "killed", [("", 2), ("", 6), ("", 16), ("", 21)])
    assert_the_same(whole, again)


def test_both_stages_of_tbc_net_on_synthetic_scenes(commands: Commands, tmp_path: Path) -> None:
    whole = uninterrupted(commands, SYNTHETIC, tmp_path / "whole")
    again = killed(commands, SYNTHETIC, tmp_path / "killed", [("scm", 5), ("scm", 9), ("tem", 4), ("tem", 11)])
    for stage in ("scm", "tem"):
        assert_the_same(whole / stage, again / stage)


@pytest.mark.parametrize("seed", [0, 1])
def test_at_any_moment_whatever_it_is_doing(commands: Commands, tmp_path: Path, seed: int) -> None:
    """By the clock: while it reads, trains, judges, writes, or goes from one stage to the next."""
    commands.run("train", "--help", cwd=tmp_path)  # from here on commands start at once
    begun = time.monotonic()
    whole = uninterrupted(commands, SYNTHETIC, tmp_path / "whole")
    takes, luck = time.monotonic() - begun, random.Random(seed)
    folder = tmp_path / "killed"
    folder.mkdir()
    ends = []
    for _ in range(10):
        running = commands.start("train", *SYNTHETIC, "output=runs", "--resume", cwd=folder)
        time.sleep(luck.uniform(0, 0.4 * takes))
        ends.append(running.kill_now().status)
    assert -signal.SIGKILL in ends
    assert set(ends) <= {0, -signal.SIGKILL}
    done = commands.run("train", *SYNTHETIC, "output=runs", "--resume", cwd=folder)
    assert done.status == 0, done.err
    for stage in ("scm", "tem"):
        assert_the_same(whole / stage, folder / "runs" / NAME / stage)
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.data
def test_both_stages_of_tbc_net_on_real_images(commands: Commands, tmp_path: Path, data_root: Path) -> None:
    recipe = [*SIRST, f"data.root={data_root / 'sirst'}"]
    whole = uninterrupted(commands, recipe, tmp_path / "whole")
    again = killed(commands, recipe, tmp_path / "killed", [("scm", 11), ("tem", 17)])
    for stage in ("scm", "tem"):
        assert_the_same(whole / stage, again / stage)
