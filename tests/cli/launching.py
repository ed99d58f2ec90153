"""Commands in processes of their own: as a user starts them, or forked from one that has imported everything."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.engine.forks import Forks

CHECKOUT = Path(__file__).resolve().parents[2]
TIMED = ("seconds", "samples_per_second")


@dataclass(frozen=True)
class Done:
    """What came of a command.

    Attributes:
        status: its exit status, negative for a signal.
        out: what it wrote to standard output.
        err: what it wrote to standard error.
    """

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The lines from ``error:`` on, of a user's mistake told as it should be: status 2 and no traceback."""
        assert self.status == 2, self.err
        assert "Traceback" not in self.err, self.err
        _, found, said = self.err.rpartition("\nerror: ")
        text = said if found else self.err
        assert found or text.startswith("error: "), self.err
        return text.removeprefix("error: ").rstrip()


def as_a_user(tool: str, *arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> Done:
    """``python tools/<tool>.py ...`` in a new Python."""
    call = [sys.executable, str(CHECKOUT / "tools" / f"{tool}.py"), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), **(env or {})}
    done = subprocess.run(call, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


class Commands:
    """Starts tools in a moment: forked from a process that has the packages in memory."""

    def __init__(self) -> None:
        self._forks = Forks("tests.cli.serving")
        self._running: list[int] = []

    def start(
        self, tool: str, *arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None, size: int = 1
    ) -> "Running":
        """Starts ``tools/<tool>.py ...`` in ``size`` processes, as torchrun would."""
        said = cwd / ".said"
        said.mkdir(exist_ok=True)
        logs = said / str(len(list(said.iterdir())))
        logs.mkdir()
        order = {
            "tool": tool,
            "arguments": [str(argument) for argument in arguments],
            "cwd": str(cwd),
            "env": dict(env or {}),
            "out": str(logs / "out"),
        }
        processes = self._forks.start("tests.cli.serving", logs, json.dumps(order), size=size)
        self._running += processes
        return Running(self, processes, logs)

    def run(
        self, tool: str, *arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None, size: int = 1
    ) -> Done:
        """The same, and waits; of several processes, what came of the first (all must agree on the status)."""
        return self.start(tool, *arguments, cwd=cwd, env=env, size=size).wait()

    def ended(self, process: int, logs: Path, rank: int) -> Done:
        """Waits for one process."""
        found = self._forks.wait(process, logs, rank)
        self._running.remove(process)
        out = logs / "out"
        return Done(found.status, out.read_text() if out.exists() else "", found.said)

    def close(self) -> None:
        """Ends everything that still runs."""
        for process in self._running:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._forks.close()


@dataclass
class Running:
    """A command that goes on.

    Attributes:
        commands: where it was started.
        processes: their ids, by rank.
        logs: what they say.
    """

    commands: Commands
    processes: list[int]
    logs: Path

    def wait(self) -> Done:
        """Waits for its end."""
        done = [self.commands.ended(process, self.logs, rank) for rank, process in enumerate(self.processes)]
        assert len({each.status for each in done}) == 1, [each.err for each in done]
        return done[0]

    def kill(self, when: Callable[[], bool]) -> None:
        """Sends SIGKILL as soon as ``when`` holds."""
        (process,) = self.processes
        looks = 0
        while not when():
            looks += 1
            if looks % 500 == 0:
                assert _runs(process), f"it ended before it could be killed: {(self.logs / 'rank0.log').read_text()}"
            time.sleep(0.002)
        assert self.kill_now().status == -signal.SIGKILL

    def kill_now(self) -> Done:
        """Sends SIGKILL; where the command has ended already, its end is what it was."""
        for process in self.processes:
            os.kill(process, signal.SIGKILL)
        return self.wait()


def _runs(process: int) -> bool:
    """Whether a process is there and no zombie."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return bool(listed.stdout.strip()) and not listed.stdout.startswith("Z")


def last_step(run: Path) -> int:
    """The newest update in a run's ``metrics.jsonl``, or -1."""
    try:
        lines = (run / "metrics.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return -1
    steps = [-1]
    for line in lines:
        try:
            steps.append(int(json.loads(line)["step"]))
        except (ValueError, KeyError):
            continue  # being written
    return max(steps)


def untimed(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl`` without what a clock says, and without events."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMED} for line in lines if line["kind"] != "event"]


def result(run: Path, name: str) -> dict[str, Any]:
    """An evaluation's ``result.json``."""
    found: dict[str, Any] = json.loads((run / "eval" / name / "result.json").read_text())
    return found


def predictions(run: Path, name: str) -> list[dict[str, Any]]:
    """An evaluation's predictions."""
    return [json.loads(line) for line in (run / "eval" / name / "predictions.jsonl").read_text().splitlines()]
