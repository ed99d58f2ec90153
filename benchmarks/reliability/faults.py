"""Break what a training stands on, and see that it ends in one clear error and goes on once that is mended.

python benchmarks/reliability/faults.py

A disk that fills up, a data folder that disappears, a worker that is killed, a checkpoint that is damaged. Each must
end with status 2 and a short error that names what is wrong; after the mend, --resume must end in the same bytes as a
run that nothing disturbed.
"""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script finds its siblings by the name tests use

from benchmarks.reliability import damage
from benchmarks.reliability.children import Child, End, run
from benchmarks.reliability.kills import differences, recorded
from benchmarks.reliability.outcomes import Outcome, conduct, judged, options
from tools import eval as judge
from tools import train
from vision.engine.checkpoint import read_resume, read_weights, save_resume
from vision.engine.command import run_command
from vision.engine.sources import to_text
from vision.pose.samples import PEOPLE

Tree = dict[str, Any]
Act = Callable[[Child, Path], None]

DISK = 3 << 20
"""Bytes of the disk that fills up: a few checkpoints."""

STEP = 60
"""The update after which something breaks."""

_TRAINER: Tree = {"steps": 240, "batch_size": 6, "evaluate_every_steps": 100, "save_every_steps": 20, "log_every": 1}
_PHOTOS: Tree = {
    "name": "run",
    "task": {"type": "classification", "network": {"type": "digits_cnn", "classes": 2, "width": 8, "in_channels": 3}},
    "data": {"type": "image_folder", "root": "data", "size": 8, "augment": ["flip"]},
    "optimizer": {"type": "adam", "lr": 1e-3},
    "trainer": _TRAINER,
}
_PEOPLE: Tree = {
    "name": "run",
    "task": {"type": "top_down_pose", "network": {"type": "mamkpd_t", "input_size": [32, 32], "drop_path": 0.0}},
    "data": {"type": "coco_pose", "root": "data", "train_splits": ["people"], "test_split": None, "overfit": True,
             "input_size": [32, 32]},
    "optimizer": {"type": "adam", "lr": 1e-3},
    "trainer": {**_TRAINER, "batch_size": 2, "steps": 100},
}  # fmt: skip


def photos(folder: Path, count: int = 12) -> None:
    """Two classes of ``count`` small images each to train on and of two to validate on."""
    rng = np.random.default_rng(0)
    for split, each in (("train", count), ("val", 2)):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for index in range(each):
                pixels = rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")


def people(folder: Path) -> None:
    """The photographs of people that the package ships."""
    shutil.copytree(PEOPLE, folder)


def prepared(folder: Path, recipe: Tree, data: Callable[[Path], None]) -> tuple[Path, Path]:
    """Two folders with the recipe and its data: of the run that nothing disturbs, made here, and of another."""
    places = folder / "whole", folder / "again"
    for place in places:
        place.mkdir(parents=True)
        data(place / "data")
        (place / "recipe.yaml").write_text(to_text(recipe), encoding="utf-8")
    ended = run(train.main, ["recipe.yaml", "--resume"], places[0], folder / "whole.log")
    if ended.status != 0:
        raise RuntimeError(ended.said)
    return places


def resumed(whole: Path, again: Path, outcome: Outcome) -> Outcome:
    """Resumes what broke, now that it is mended; the outcome, failed where the result is not that of ``whole``."""
    leftovers = [path.name for path in again.rglob("*.tmp")]
    checkpoints = again / "runs" / "run" / "checkpoints"
    read_resume(checkpoints / "last.resume")
    read_weights(checkpoints / "last.safetensors")
    ended = run(train.main, ["recipe.yaml", "--resume"], again, again / "resumed.log")
    if ended.status != 0:
        return replace(outcome, held=False, end="not resumed", said=ended.error or ended.said[-200:])
    found = [*leftovers, *differences(whole / "runs" / "run", again / "runs" / "run")]
    return replace(outcome, held=False, end="resumed differently", said="; ".join(found)) if found else outcome


def broken(
    group: str, case: str, folder: Path, places: tuple[Path, Path], act: Act, mend: Callable[[Path], None],
    names: tuple[str, ...],
) -> Outcome:  # fmt: skip
    """A run that something breaks in the middle, and what comes of it."""
    whole, again = places
    child = Child(train.main, ["recipe.yaml", "--resume"], again, folder / "again.log")
    while not child.over() and recorded(again / "runs" / "run") < STEP:
        time.sleep(0.002)
    if child.over():
        return Outcome(group, case, "over too early", False, child.wait().said[-200:])
    act(child, again)
    ended = child.wait(60)
    mend(again)
    outcome = judged(group, case, ended, "refused", names)
    return resumed(whole, again, outcome) if outcome.held else outcome


# -- disks ---------------------------------------------------------------------------------------------------------


def full_disk(folder: Path) -> Iterator[Outcome]:
    """A small file system that is filled while a run writes to it; leaves nothing free, then a few kilobytes."""
    for leave in (0, 4096, 60_000):
        place = folder / f"disk{leave}"
        places = prepared(place, _PHOTOS, photos)
        disk = places[1] / "runs"
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)]
        case = f"a disk of 3 MiB with {leave} bytes left"
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
            yield Outcome("full disk", case, "not tried", True, "only root may mount a disk")
            continue

        def fill(child: Child, again: Path, leave: int = leave, disk: Path = disk) -> None:
            state = os.statvfs(disk)
            try:
                (disk / "filling").write_bytes(bytes(max(state.f_bavail * state.f_frsize - leave, 0)))
            except OSError as error:  # the run has written meanwhile: the disk is full before this ends
                if error.errno != errno.ENOSPC:
                    raise

        try:
            yield broken(
                "full disk", case, place, places, fill, lambda again: (again / "runs" / "filling").unlink(),
                ("No space left on device",),
            )  # fmt: skip
        finally:
            subprocess.run(["umount", str(disk)], check=True)


def small_files(folder: Path) -> Iterator[Outcome]:
    """A limit on the size of files, set on the running process: below a checkpoint's, and below the record's."""
    for size in (30_000, 8_000):
        place = folder / f"limit{size}"
        places = prepared(place, _PHOTOS, photos)

        def limit(child: Child, again: Path, size: int = size) -> None:
            resource.prlimit(child.process, resource.RLIMIT_FSIZE, (size, size))

        case = f"no file above {size} bytes"
        yield broken("full disk", case, place, places, limit, lambda again: None, ("File too large",))


# -- data ----------------------------------------------------------------------------------------------------------


def gone(folder: Path) -> Iterator[Outcome]:
    """A data folder that is moved away while a run reads from it."""
    for name, recipe, data in (("photos", _PHOTOS, photos), ("people", _PEOPLE, people)):
        for workers in (0, 1):
            place = folder / f"gone_{name}{workers}"
            places = prepared(place, {**recipe, "trainer": {**recipe["trainer"], "workers": workers}}, data)
            yield broken(
                "data folder gone", f"{name}, {workers} workers", place, places,
                lambda child, again: (again / "data").rename(again / "away") and None,
                lambda again: (again / "away").rename(again / "data") and None,
                ("data/",),
            )  # fmt: skip


def dead_worker(folder: Path) -> Iterator[Outcome]:
    """A worker that is killed while a run waits for its batches, or computes."""
    many = partial(photos, count=400)  # so that an epoch outlasts what the worker has fetched ahead
    for seed in range(3):
        place = folder / f"worker{seed}"
        places = prepared(place, {**_PHOTOS, "trainer": {**_TRAINER, "workers": 1}}, many)

        def shoot(child: Child, again: Path, seed: int = seed) -> None:
            time.sleep(random.Random(seed).uniform(0, 0.05))
            workers: list[int] = []
            while not workers and not child.over():
                workers = [pid for pid in _children(child.process) if _is_a_fork(pid)]
            for worker in workers[:1]:
                os.kill(worker, signal.SIGKILL)

        yield broken("worker killed", f"moment {seed}", place, places, shoot, lambda again: None, ("trainer.workers",))


def _children(process: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _is_a_fork(process: int) -> bool:
    try:
        return b"python" in Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


# -- checkpoints ---------------------------------------------------------------------------------------------------


def damaged_checkpoints(folder: Path, luck: random.Random, each: int) -> Iterator[Outcome]:
    """Damage to every file of a checkpoint of a killed run, and to the weights of a finished one."""
    whole, again = prepared(folder, _PHOTOS, photos)
    child = Child(train.main, ["recipe.yaml", "--resume"], again, folder / "again.log")
    while not child.over() and recorded(again / "runs" / "run") < STEP + 70:
        time.sleep(0.002)
    child.kill()
    child.wait()
    for number, kind in enumerate(kind for kind in (*damage.ANY, _other_state) for _ in range(each)):
        yield _resumed_from(whole, again, folder / f"copy{number}", "last.resume", kind, luck)
    for number, kind in enumerate((damage.cut, damage.flip_byte, damage.renamed_key)):
        for name in ("last.safetensors", "best.safetensors"):
            yield _resumed_from(whole, again, folder / f"weights{number}{name}", name, kind, luck)
    for number, kind in enumerate(kind for kind in (*damage.ANY, damage.renamed_key) for _ in range(each)):
        yield _judged_from(whole, folder / f"judged{number}", kind, luck)


def _other_state(content: bytes, luck: random.Random) -> bytes:
    """A resume state, whole, with one of its parts left out or put under another name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.resume"
        path.write_bytes(content)
        state = read_resume(path)
        name = luck.choice([key for key in state if key != "format"])
        value = state.pop(name)
        if luck.random() < 0.5:
            state[f"{name}s"] = value
        save_resume(path, {key: value for key, value in state.items() if key != "format"})
        return path.read_bytes()


def _name(kind: damage.Damage) -> str:
    return str(getattr(kind, "__name__", kind)).strip("_").replace("_", " ")


def _resumed_from(whole: Path, again: Path, copy: Path, name: str, kind: damage.Damage, luck: random.Random) -> Outcome:
    """Resuming with one damaged file: refused, then resumed with the good one; or the same bytes after all."""
    shutil.copytree(again, copy)
    file = copy / "runs" / "run" / "checkpoints" / name
    good = file.read_bytes()
    file.write_bytes(kind(good, luck))
    ended = run(train.main, ["recipe.yaml", "--resume"], copy, copy / "first.log")
    outcome = judged("damaged checkpoint", f"{name}: {_name(kind)}", ended, "either", (name,))
    if outcome.end == "refused" and outcome.held:
        file.write_bytes(good)
        outcome = resumed(whole, copy, outcome)
    elif outcome.end == "accepted":
        found = differences(whole / "runs" / "run", copy / "runs" / "run")
        outcome = replace(
            outcome, held=not found, said="; ".join(found), end="written anew" if not found else "differs"
        )
    shutil.rmtree(copy)
    return outcome


def _judged_from(whole: Path, copy: Path, kind: damage.Damage, luck: random.Random) -> Outcome:
    """Judging a finished run whose weights are damaged."""
    shutil.copytree(whole, copy)
    run_folder = copy / "runs" / "run"
    file = run_folder / "checkpoints" / "best.safetensors"
    file.write_bytes(kind(file.read_bytes(), luck))
    before = json.loads((run_folder / "eval" / "val" / "result.json").read_text())
    ended: End = run(judge.main, ["runs/run", "--split", "val"], copy, copy / "eval.log")
    outcome = judged("damaged weights", f"best.safetensors: {_name(kind)}", ended, "refused", ("best.safetensors",))
    after = json.loads((run_folder / "eval" / "val" / "result.json").read_text())
    shutil.rmtree(copy)
    return outcome if before == after else replace(outcome, held=False, said="eval/val was written")


FAULTS = ("disk", "limit", "gone", "worker", "checkpoints")


def cases(arguments: Any, folder: Path) -> Iterator[Outcome]:
    """All faults, or some."""
    damaged = partial(damaged_checkpoints, luck=random.Random(arguments.seed), each=arguments.each)
    kinds = dict(zip(FAULTS, (full_disk, small_files, gone, dead_worker, damaged), strict=True))
    for fault in arguments.only or FAULTS:
        (folder / fault).mkdir()
        yield from kinds[fault](folder / fault)
        shutil.rmtree(folder / fault)


def parser() -> Any:
    """The command line."""
    p = options("Break what a training stands on; see that it ends in one clear error and goes on afterwards.")
    p.add_argument("--seed", type=int, default=0, help="of the damage, default: %(default)s")
    p.add_argument("--each", type=int, default=3, help="damages of each kind to a file, default: %(default)s")
    p.add_argument("--only", choices=list(FAULTS), action="append", help="these faults only")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    note = "Each ends with status 2 and one error; after the mend, --resume ends in the bytes of an undisturbed run."
    return conduct("faults", parser(), argv, cases, "What a training stands on breaks", note)


if __name__ == "__main__":
    run_command(main)
