"""Processes forked from one Python that has imported everything: commands to kill, and code that may crash or hang."""

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vision.engine.command import run_command
from vision.engine.registry import load_all

Main = Callable[[list[str] | None], int | None]

PATIENCE = 240.0
"""Seconds after which a process counts as hung."""


@dataclass(frozen=True)
class End:
    """What came of a process.

    Attributes:
        status: its exit status; minus the number of the signal that ended it.
        said: what it wrote to standard output and standard error.
        hung: it was ended for want of an end of its own.
    """

    status: int
    said: str
    hung: bool = False

    @property
    def error(self) -> str:
        """What stands after the last ``error:`` that begins a line; empty where there is none."""
        _, found, text = f"\n{self.said}".rpartition("\nerror: ")
        return text.strip() if found else ""


def import_everything() -> None:
    """What commands import as they go, so that a forked one starts at once.

    Torch's threads do not live through a fork: a script that forks must leave it at one thread (``OMP_NUM_THREADS=1``,
    which this sets for what is imported from here on) and compute nothing of its own before.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch
    import torch.utils.tensorboard

    import vision.engine.pipeline
    import vision.report.html  # noqa: F401

    torch.set_num_threads(1)
    load_all()


class Child:
    """A forked process, the leader of a group of its own.

    Args:
        main: what it runs, as :func:`vision.engine.command.run_command` runs a tool: status 2 for a user's mistake.
        arguments: of ``main``.
        folder: it runs in there.
        log: the file that takes what it says.
        memory: bytes of address space it may have.
    """

    def __init__(
        self, main: Main, arguments: Sequence[str], folder: Path, log: Path, memory: int | None = None
    ) -> None:
        self.log = log
        self._end: End | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.process = os.fork()
        if self.process == 0:
            _become(main, list(arguments), folder, log, memory)

    def over(self) -> bool:
        """Whether it has ended."""
        if self._end is None:
            process, status = os.waitpid(self.process, os.WNOHANG)
            if process:
                self._end = End(os.waitstatus_to_exitcode(status), self._said())
        return self._end is not None

    def wait(self, seconds: float = PATIENCE) -> End:
        """Its end; where that does not come in time it is killed."""
        deadline, hung = time.monotonic() + seconds, False
        while not self.over():
            if time.monotonic() > deadline and not hung:
                hung = True
                self.kill()
            time.sleep(0.002)
        assert self._end is not None
        return End(self._end.status, self._end.said, hung)

    def kill(self) -> None:
        """SIGKILL to the process alone: what it started must notice by itself."""
        if self._end is None:
            os.kill(self.process, signal.SIGKILL)

    def _said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""


def _become(main: Main, arguments: list[str], folder: Path, log: Path, memory: int | None) -> None:
    """The child's whole life."""
    status = 1
    try:
        os.setpgid(0, 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number, handle in enumerate((os.open(os.devnull, os.O_RDONLY), output, output)):
            os.dup2(handle, number)
        os.chdir(folder)
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        run_command(main, arguments)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # Python's own end takes seconds after a fork


def run(main: Main, arguments: Sequence[str], folder: Path, log: Path, seconds: float = PATIENCE) -> End:
    """Starts a process and waits for its end."""
    return Child(main, arguments, folder, log).wait(seconds)
