"""A disk that is full or cannot be written: the last good checkpoint survives, and the run goes on from it."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.engine.harness import fit, make_trainer, new_run, seeded_task, untimed, updates
from vision.engine import files
from vision.engine.checkpoint import read_resume, read_weights, save_resume, save_weights
from vision.engine.errors import CheckpointError, UserError
from vision.engine.run import RunFolder
from vision.engine.trainer import Trainer

KEPT = "No space left on device; the checkpoint before it is kept: free some space, then --resume"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("no small disk: only root may mount one")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, leave: int) -> None:
    """Leaves so many bytes of a disk."""
    state = os.statvfs(folder)
    (folder / "filling").write_bytes(bytes(state.f_bavail * state.f_frsize - leave))


def test_a_full_disk_keeps_the_checkpoint_that_was_there(small_disk: Path) -> None:
    torch.manual_seed(0)
    network = nn.Linear(100, 250)  # 100 kB
    weights, state = small_disk / "last.safetensors", small_disk / "last.resume"
    save_weights(weights, network, {})
    save_resume(state, {"task": network.state_dict()})
    before = {path: path.read_bytes() for path in (weights, state)}
    nn.init.zeros_(network.weight)
    fill(small_disk, leave=50_000)
    with pytest.raises(CheckpointError, match=f"last.safetensors: cannot be written: {KEPT}"):
        save_weights(weights, network, {})
    with pytest.raises(CheckpointError, match=f"last.resume: cannot be written: {KEPT}"):
        save_resume(state, {"task": network.state_dict()})
    assert {path: path.read_bytes() for path in (weights, state)} == before
    assert sorted(path.name for path in small_disk.iterdir()) == ["filling", "last.resume", "last.safetensors"]
    (small_disk / "filling").unlink()
    save_weights(weights, network, {})
    assert not read_weights(weights).tensors["weight"].any()


def test_a_run_on_a_disk_that_fills_up_goes_on_once_there_is_space(small_disk: Path, tmp_path: Path) -> None:
    def trainer(folder: Path) -> Trainer:
        task = seeded_task(network=lambda: nn.Sequential(nn.Linear(3, 2000), nn.Tanh(), nn.Linear(2000, 1)))
        return make_trainer(task, new_run(folder), steps=8, batch_size=10)

    run = RunFolder(small_disk / "run")
    first = trainer(run.path)
    updates(first, 4)
    first._save()
    whole = [run.last.read_bytes(), run.resume_state.read_bytes()]
    fill(small_disk, leave=20_000)
    with pytest.raises(UserError, match="No space left on device"):
        fit(trainer(run.path), resume=True)
    assert [run.last.read_bytes(), run.resume_state.read_bytes()] == whole
    assert read_resume(run.resume_state)["progress"]["step"] == 4
    assert not list(run.path.rglob("*.tmp"))


class Full:
    """Fails one sync to disk, as a disk does that fills up while a file is written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls, self.fail_at = 0, -1
        self.sync = files._sync
        monkeypatch.setattr(files, "_sync", self)

    def __call__(self, path: Path) -> None:
        self.calls += path.is_file()
        if self.calls == self.fail_at and path.is_file():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.sync(path)


def test_whichever_write_fails_the_resumed_run_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trainer(folder: Path) -> Trainer:
        adam = lambda groups: torch.optim.Adam(groups, lr=0.05)  # noqa: E731
        return make_trainer(seeded_task(dropout=0.3), new_run(folder), adam, steps=9, batch_size=10, save_every_steps=3)

    whole = fit(trainer(tmp_path / "whole")).run
    assert whole is not None
    disk = Full(monkeypatch)
    failed = 0
    for number in range(1, 100):
        folder = tmp_path / str(number)
        ready = trainer(folder)
        disk.calls, disk.fail_at = 0, number
        try:
            fit(ready)
            break
        except CheckpointError as error:
            assert str(error).endswith(KEPT)
            failed += 1
        disk.fail_at = -1
        run = RunFolder(folder)
        assert not list(run.path.rglob("*.tmp"))
        if run.resume_state.exists():
            assert read_weights(run.last).tensors
            fit(trainer(folder), resume=True)
            assert untimed(run) == untimed(whole)
            assert [p.read_bytes() for p in (run.last, run.best)] == [p.read_bytes() for p in (whole.last, whole.best)]
    assert failed >= 8  # three saves of two files each, and the best weights


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("not a folder")
    path = tmp_path / "checkpoints" / "last.safetensors"
    with pytest.raises(CheckpointError, match=r"last.safetensors: cannot be written: Not a directory; .* mend that"):
        save_weights(path, nn.Linear(1, 1), {})
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_resume(tmp_path / "nowhere" / "last.resume", {})
    assert (tmp_path / "checkpoints").read_text() == "not a folder"
