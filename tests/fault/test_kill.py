"""Runs that are killed at any moment, and what is on disk then."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.engine.forks import Forks
from tests.engine.harness import untimed
from tests.fault.run_to_kill import STEPS
from vision.engine.checkpoint import read_resume, read_weights
from vision.engine.recorder import read_metrics
from vision.engine.run import RunFolder

pytestmark = pytest.mark.slow

PROGRAM = "tests.fault.run_to_kill"


@pytest.fixture(scope="module")
def whole(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run that nothing disturbs."""
    logs = tmp_path_factory.mktemp("whole")
    (ended,) = forks.run(PROGRAM, logs / "run", "0", "0", logs=logs)
    assert ended.status == 0, ended.said
    return RunFolder(logs / "run")


def lines(run: RunFolder) -> int:
    return run.metrics.read_bytes().count(b"\n") if run.metrics.exists() else 0


def wait_for_line(run: RunFolder, count: int) -> None:
    deadline = time.monotonic() + 120
    while lines(run) < count and time.monotonic() < deadline:
        time.sleep(0.002)
    assert lines(run) >= count


def same_run(a: RunFolder, b: RunFolder) -> None:
    for name in ("last", "best"):
        assert getattr(a, name).read_bytes() == getattr(b, name).read_bytes()
    assert untimed(a) == untimed(b)
    assert not list(a.path.rglob("*.tmp"))


@pytest.mark.parametrize(("seed", "workers"), [(0, "0"), (1, "2")])
def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(
    forks: Forks, whole: RunFolder, tmp_path: Path, seed: int, workers: str
) -> None:
    """SIGKILL at four moments: before the first checkpoint, and wherever the clock and the disk happen to be."""
    moments, run = random.Random(seed), RunFolder(tmp_path / "run")
    for number, step in enumerate(sorted([3, *moments.sample(range(8, STEPS - 5), 3)])):
        (process,) = forks.start(PROGRAM, run.path, "0.01", workers, logs=tmp_path)
        wait_for_line(run, step)
        time.sleep(moments.uniform(0, 0.02))
        os.kill(process, signal.SIGKILL)
        assert forks.wait(process, tmp_path).status == -signal.SIGKILL
        assert run.resume_state.exists() or number == 0
        if run.resume_state.exists():  # whatever was being written, what is there is whole
            assert read_resume(run.resume_state)["progress"]["step"] > 0
            assert read_weights(run.last).tensors
        assert read_metrics(run.metrics)
    (ended,) = forks.run(PROGRAM, run.path, "0", workers, logs=tmp_path)
    assert ended.status == 0, ended.said
    same_run(run, whole)


def test_a_signal_to_every_process_of_a_run_with_workers_ends_it_cleanly(
    forks: Forks, whole: RunFolder, tmp_path: Path
) -> None:
    """As a batch system or a terminal sends it: to the workers too, whose batches the run still wants."""
    run = RunFolder(tmp_path / "run")
    for number, step in ((signal.SIGTERM, 10), (signal.SIGINT, 30)):
        (process,) = forks.start(PROGRAM, run.path, "0.01", "2", logs=tmp_path)
        wait_for_line(run, step)
        os.killpg(process, number)
        ended = forks.wait(process, tmp_path)
        assert ended.status == 0 and "Traceback" not in ended.said
        last = read_metrics(run.metrics)[-1]
        assert last["message"] == f"stopped: {number.name}"
        assert read_resume(run.resume_state)["progress"]["step"] == last["step"] < STEPS
        assert ended.said.count("finishing this update") == 1  # the workers do not speak
    (ended,) = forks.run(PROGRAM, run.path, "0", "2", logs=tmp_path)
    assert ended.status == 0
    same_run(run, whole)


def test_workers_do_not_outlive_a_killed_run(forks: Forks, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    (process,) = forks.start(PROGRAM, run.path, "0.01", "2", logs=tmp_path)
    wait_for_line(run, 10)
    children = Path(f"/proc/{process}/task/{process}/children")
    if not children.exists():
        pytest.skip("this system does not list the children of a process")
    workers = [int(child) for child in children.read_text().split()]
    assert workers
    os.kill(process, signal.SIGKILL)
    forks.wait(process, tmp_path)
    deadline = time.monotonic() + 60
    while any(_alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_alive(worker) for worker in workers)


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
