"""Train small tasks, or answer visitors of the demo page, for a long time; see whether memory, files or threads grow.

python benchmarks/reliability/soak.py training|page [--seconds 3600]

``training``: one process trains one recipe of a few seconds after the other, each into a run folder that is then
removed. ``page``: tools/demo.py serves one visitor after the other. A sample of the process is taken after each
training or visit: what leaks by a run, an update or a visitor shows as a slope. Lines are fitted to the second half.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script finds its siblings by the name tests use

from benchmarks.reliability.outcomes import Clock, Outcome, conclude, document, options, output_of, shortened
from benchmarks.reliability.recipes import RECIPES, write_recipe
from benchmarks.reliability.slopes import FEWEST, row, second_half
from benchmarks.reliability.visits import OFFERED, served, trained, visits
from tools import train
from vision.engine.command import run_command
from vision.engine.memory import give_back

LIMITS = {
    "memory": ("MiB", 30.0),
    "open files": ("files", 1.0),
    "threads": ("threads", 1.0),
    "GPU memory": ("MiB", 30.0),
}
"""What is sampled: its unit, and how much an hour counts as flat."""

ROTATION = tuple(name for name, recipe in RECIPES.items() if "stages" not in recipe)
"""Every task in turn."""

Work = Iterator[tuple[str, Callable[[], object]]]


def held(process: int) -> dict[str, float]:
    """What a process holds now."""
    place = Path(f"/proc/{process}")
    status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
    found = {
        "memory": int(status["RssAnon"].split()[0]) / 1024,  # pages of files come and go as the system likes
        "open files": float(len(os.listdir(place / "fd"))),
        "threads": float(status["Threads"]),
    }
    if process == os.getpid() and torch.cuda.is_available():
        found["GPU memory"] = torch.cuda.memory_allocated() / 2**20
    return found


@contextmanager
def training(folder: Path) -> Iterator[tuple[int, Work]]:
    """This process, and one training after the other without end."""
    yield os.getpid(), ((task, partial(_train, task, folder)) for task in cycle(ROTATION))


@contextmanager
def page(folder: Path) -> Iterator[tuple[int, Work]]:
    """The process of a demo page of small runs, and one visit after the other without end."""
    trained(folder)
    with served(folder) as (process, address):
        yield process, visits(address, folder)


SOAKS = {"training": training, "page": page}
NOTES = {
    "training": f"trainings of {len(ROTATION)} small tasks in one process",
    "page": f"visitors of a page of {len(OFFERED) + 1} networks",
}


def _train(task: str, above: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir=above))
    here = Path.cwd()
    try:
        os.chdir(folder)
        train.main([str(write_recipe(task, folder)), "trainer.workers=0"])
    finally:
        os.chdir(here)
        shutil.rmtree(folder)
        give_back()


def soak(process: int, work: Work, seconds: float) -> tuple[list[float], list[dict[str, float]], list[Outcome]]:
    """Works for a time; when each sample was taken, the samples, and whatever failed.

    Args:
        process: what is sampled.
        work: what to do, by name.
        seconds: no work is begun after these.
    """
    began, moments, samples, failed = time.monotonic(), [], [], []
    for name, do in work:
        try:
            do()
        except Exception as error:
            failed.append(Outcome("soak", name, "failed", False, f"{type(error).__name__}: {error}"))
        moments.append(time.monotonic() - began)
        samples.append(held(process))
        if moments[-1] >= seconds:
            break
    return moments, samples, failed


def slopes(moments: list[float], samples: list[dict[str, float]]) -> list[dict[str, Any]]:
    """A row for each thing that was sampled; none where there are too few samples for a line."""
    if len(second_half(moments, moments)[0]) < FEWEST:
        return []
    return [row(what, LIMITS[what][0], moments, [s[what] for s in samples], LIMITS[what][1]) for what in samples[0]]


def parser() -> Any:
    """The command line."""
    p = options(
        "Train, or answer visitors of the demo page, for a long time; see whether memory, files or threads grow."
    )
    p.add_argument("what", choices=list(SOAKS))
    p.add_argument("--seconds", type=float, default=3600.0, help="default: %(default)s")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    torch.set_num_threads(1)
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="soak") as name, SOAKS[arguments.what](Path(name)) as (process, work):
        moments, samples, failed = soak(process, work, arguments.seconds)
    rows = slopes(moments, samples)
    outcomes = [replace(outcome, said=shortened(outcome.said, Path(name))) for outcome in failed]
    outcomes += [_outcome(row) for row in rows]
    note = f"{len(moments)} {NOTES[arguments.what]}; lines through the second half."
    found = document("soak", argv, f"A long run: {arguments.what}", note, outcomes, clock.seconds, slopes=rows)
    return conclude(found, arguments.output or output_of(f"soak_{arguments.what}"))


def _outcome(row: dict[str, Any]) -> Outcome:
    told = f"{row['per_hour']} ± {row['margin']} {row['unit']} an hour"
    return Outcome("soak", row["what"], row["verdict"], row["verdict"] != "rising", told)


if __name__ == "__main__":
    run_command(main)
