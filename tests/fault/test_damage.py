"""Files that a disk, a copy or a stranger has changed: each is refused by name, and nothing is silently another one."""

import os
import random
import signal
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.reliability import damage
from robust.corruptions import corruption_accuracy
from robust.data_quality import read_rank
from snn.events import read_events
from vision.classification.npz import read_npy, read_npz
from vision.classification.subset import read_subset
from vision.engine.checkpoint import read_resume, read_weights, save_resume, save_weights
from vision.engine.errors import CheckpointError, ConfigError, DataError, UserError
from vision.engine.loading import load, worker_deaths_told
from vision.engine.recorder import Recorder
from vision.engine.registry import build
from vision.engine.run import RunFolder
from vision.engine.schema import impossible_numbers
from vision.engine.sources import parse
from vision.infrared.reading import IRSTFolder, read_pixels

# -- checkpoints ---------------------------------------------------------------------------------------------------


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(6, 4)


@pytest.mark.parametrize("seed", range(20))
def test_a_byte_that_changed_in_weights_is_found(network: nn.Module, tmp_path: Path, seed: int) -> None:
    file = tmp_path / "w.safetensors"
    save_weights(file, network, {"task": "t"})
    good = file.read_bytes()
    file.write_bytes(damage.flipped(good, len(good) - 1 - 5 * seed, random.Random(seed)))  # among the tensors
    with pytest.raises(CheckpointError, match=r"w\.safetensors: damaged: its bytes are not those that were written"):
        read_weights(file)
    file.write_bytes(good.replace(b'"task":"t"', b'"task":"u"'))
    with pytest.raises(CheckpointError, match="damaged"):
        read_weights(file)


@pytest.mark.parametrize("seed", range(20))
def test_a_byte_that_changed_in_a_resume_state_is_found(tmp_path: Path, seed: int) -> None:
    file, luck = tmp_path / "last.resume", random.Random(seed)
    save_resume(file, {"task": {"weight": torch.arange(50.0)}, "progress": {"step": 3}})
    good = file.read_bytes()
    file.write_bytes(damage.flipped(good, luck.randrange(len(good) - 100), luck))
    with pytest.raises(CheckpointError, match=r"last\.resume: damaged"):
        read_resume(file)
    file.write_bytes(good)
    assert read_resume(file)["progress"] == {"step": 3}


def test_weights_without_a_digest_are_taken(network: nn.Module, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(dict(network.state_dict()), tmp_path / "w.safetensors", metadata={"format": "triptych-weights-1"})
    assert set(read_weights(tmp_path / "w.safetensors").tensors) == {"weight", "bias"}


# -- arrays --------------------------------------------------------------------------------------------------------


def npz(path: Path) -> bytes:
    np.savez(path, rank=np.arange(9.0), indices=np.arange(9), **{key: np.arange(9) for key in "txyp"})
    return path.read_bytes()


@pytest.mark.parametrize("seed", range(12))
def test_damaged_archives_are_refused_by_every_reader(tmp_path: Path, seed: int) -> None:
    file, luck = tmp_path / "a.npz", random.Random(seed)
    good = npz(file)
    kind = damage.ANY[seed % len(damage.ANY)]
    file.write_bytes(kind(good, luck))
    readers = [lambda: read_rank(file), lambda: read_subset(file, 9), lambda: read_events(file),
               lambda: read_npz(file, {"indices": ("integer", (None,))})]  # fmt: skip
    for reader in readers:
        try:
            reader()
        except DataError as error:
            assert "a.npz: " in str(error)


def test_archives_cut_off_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    file.write_bytes(npz(file)[:400])
    for reader in (lambda: read_rank(file), lambda: read_subset(file, 9), lambda: read_events(file)):
        with pytest.raises(DataError, match=r"a\.npz: "):
            reader()


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_objects_in_arrays_are_refused_and_not_unpickled(tmp_path: Path) -> None:
    held = np.empty(1, dtype=object)
    held[0] = Trap(tmp_path / "sprung")
    np.save(tmp_path / "labels.npy", held)
    np.save(tmp_path / "fog.npy", held)
    with pytest.raises(DataError, match=r"labels\.npy: damaged, or holds Python objects"):
        corruption_accuracy(nn.Linear(1, 1).eval(), tmp_path)
    with pytest.raises(DataError, match=r"fog\.npy"):
        read_subset(tmp_path / "fog.npy", 3)
    npz(tmp_path / "a.npz")
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(DataError, match=r"a\.npy: holds several arrays"):
        read_npy(tmp_path / "a.npy")
    assert not (tmp_path / "sprung").exists()


# -- images and lists ----------------------------------------------------------------------------------------------


def test_an_image_that_claims_more_pixels_than_any_has_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bomb.png"
    Image.new("L", (4, 4)).save(file)
    content = bytearray(file.read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    file.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"bomb\.png: not a readable image"):
        read_pixels(file)


def test_a_split_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(b"n0\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"train\.txt: cannot be read as text .*; write one image name a line"):
        IRSTFolder(tmp_path, "train")


# -- recipes -------------------------------------------------------------------------------------------------------


def test_numbers_that_no_field_can_mean_are_found() -> None:
    tree = {"a": [1, float("nan")], "b": {"c": 10**30, "d": float("inf"), "e": True, "f": -(2**63)}}
    found = [(mistake.place, mistake.message) for mistake in impossible_numbers(tree)]
    assert found == [
        (("a", 1), "expected a number, got nan"),
        (("b", "c"), "expected a number of 64 bits, got one beyond them"),
    ]


@pytest.mark.parametrize("width", [-1, 10**12])
def test_a_network_of_a_size_that_cannot_be_is_a_mistake_of_the_recipe(width: int) -> None:
    with pytest.raises(ConfigError, match=r"mlp: inputs 64 and hidden|'mlp' cannot be built of inputs: 64, hidden: "):
        build({"type": "mlp", "inputs": 64, "hidden": [width]}, "network")


@pytest.mark.parametrize("line", ['"\\ud800": 1', 'description: "a\\udfff"'])
def test_half_a_character_in_a_recipe_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(ConfigError, match=r"^x:2: '.*' holds half of a character"):
        parse(f"name: a\n{line}\n", lambda number: f"x:{number}")


# -- runs ----------------------------------------------------------------------------------------------------------


def test_a_dead_worker_is_told_and_other_faults_are_left() -> None:
    killed = r"DataLoader worker \(pid 7\) is killed by signal: Killed: often for want of memory"
    with pytest.raises(DataError, match=killed), worker_deaths_told():
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    with pytest.raises(RuntimeError, match="shapes"), worker_deaths_told():
        raise RuntimeError("shapes differ")


LOST = (BrokenPipeError(32, "Broken pipe"), ConnectionResetError(104, "reset"), EOFError())


@pytest.fixture
def losing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Exception], Any]:
    """Batches of a loader whose connection to a worker is lost after the first."""

    def batches(workers: int, lost: Exception) -> Any:
        class Loader:
            num_workers = workers

            def __iter__(self) -> Any:
                yield {"image": 0}
                raise lost

        monkeypatch.setattr("vision.engine.loading.DataLoader", lambda *_, **__: Loader())
        return load([0, 0], [[0], [1]], ("train", 0), list, workers)  # type: ignore[arg-type, list-item]

    return batches


@pytest.mark.parametrize("lost", LOST)
def test_a_worker_that_dies_while_its_batch_is_fetched_is_told(
    lost: Exception, losing: Callable[[int, Exception], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch lets through what the socket of the dead says, for as long as the system still calls the worker alive."""
    monkeypatch.setattr("vision.engine.loading.SIGNAL_WITHIN", 0)
    with pytest.raises(
        DataError, match=r"DataLoader worker is gone \(.+\): often for want of memory.*trainer\.workers"
    ):
        list(losing(1, lost))
    with pytest.raises(type(lost)):  # a data set of its own that lost a connection
        list(losing(0, lost))


def test_the_signal_of_a_death_is_awaited_where_it_is_told(losing: Callable[[int, Exception], Any]) -> None:
    def handler(*_: object) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    before = signal.signal(signal.SIGUSR1, handler)  # torch's is of SIGCHLD
    late = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
    try:
        late.start()
        with pytest.raises(DataError, match=r"DataLoader worker \(pid 7\) is killed by signal: Killed: often"):
            list(losing(1, EOFError()))
    finally:
        late.join()
        signal.signal(signal.SIGUSR1, before)


def test_a_record_that_a_full_disk_does_not_take_is_told_once(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "name: x\n", "0")
    os.symlink("/dev/full", run.metrics)
    told = r"metrics\.jsonl: cannot be written: No space left on device"
    with pytest.raises(UserError, match=told), Recorder(run, 1, 9, console=False) as recorder:
        recorder.event(1, "something")


@pytest.mark.parametrize("begun", [True, False])
def test_what_a_kill_left_half_written_is_removed(tmp_path: Path, begun: bool) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    if begun:
        RunFolder.create(folder, "name: x\n", "0")
    (folder / ".config.yaml.7.tmp").write_text("na")
    RunFolder.create(folder, "name: x\n", "0", resume=True)
    assert not list(folder.glob(".*.tmp"))
