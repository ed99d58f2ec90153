"""Processes for tests: forked from one Python that has imported everything, which takes longer than the tests do."""

import faulthandler
import importlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240
"""Seconds after which a process that hangs says where, and ends."""


@dataclass
class Ended:
    """A process that came to its end: its exit status (minus the number of a signal) and standard error."""

    status: int
    said: str


class Forks:
    """The Python that forks; start it once.

    Args:
        server: its module, which imports what its processes need and calls :func:`serve`.
    """

    def __init__(self, server: str = "tests.engine.forks") -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-m", server],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _ask(self, **question: Any) -> Any:
        assert self.server.stdin is not None and self.server.stdout is not None
        self.server.stdin.write(json.dumps(question) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def start(self, module: str, folder: Path, *arguments: str, size: int = 1, logs: Path | None = None) -> list[int]:
        """Starts ``module.main([*arguments, folder])`` in ``size`` processes as torchrun would.

        Standard error goes to ``logs``, or to ``folder`` itself.

        Returns:
            Their ids; each leads a group of its own.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
        return [
            self._ask(
                module=module,
                arguments=[*arguments, str(folder)],
                environment=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                log=str((logs or folder) / f"rank{rank}.log"),
            )
            for rank in range(size)
        ]

    def wait(self, process: int, logs: Path, rank: int = 0) -> Ended:
        """Waits for the end of a process."""
        return Ended(self._ask(wait=process), (logs / f"rank{rank}.log").read_text())

    def run(self, module: str, folder: Path, *arguments: str, size: int = 1, logs: Path | None = None) -> list[Ended]:
        """Starts processes and waits for all of them."""
        started = self.start(module, folder, *arguments, size=size, logs=logs)
        return [self.wait(process, logs or folder, rank) for rank, process in enumerate(started)]

    def close(self) -> None:
        """Ends the server."""
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait(30)


def _child(order: dict[str, Any]) -> None:
    os.setpgid(0, 0)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number, handle in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
        os.dup2(handle, number)
    os.environ.update(order["environment"])
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    from vision.engine.command import run_command

    run_command(importlib.import_module(order["module"]).main, order["arguments"])


def serve() -> None:
    """Forks for every line of standard input that asks for it."""
    import torch

    import vision.engine.trainer  # noqa: F401

    torch.set_num_threads(1)
    while line := sys.stdin.readline():
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                _child(order)
        print(answer, flush=True)


if __name__ == "__main__":
    serve()
