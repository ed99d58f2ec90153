"""Train small tasks in rotation for a long time and see whether memory, files or threads grow.

python benchmarks/reliability/soak.py [--seconds 3600]

One process trains one recipe of a few seconds after the other, each into a run folder that is then removed, and takes a
sample after each: what leaks by a run or by an update shows as a slope. Lines are fitted to the second half.
"""

import gc
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script finds its siblings by the name tests use

from benchmarks.reliability.outcomes import Clock, Outcome, conclude, document, options, shortened, tell
from benchmarks.reliability.recipes import RECIPES, write_recipe
from benchmarks.reliability.slopes import FEWEST, row, second_half
from tools import train
from vision.engine.command import run_command

LIMITS = {
    "memory": ("MiB", 30.0),
    "open files": ("files", 1.0),
    "threads": ("threads", 1.0),
    "GPU memory": ("MiB", 30.0),
}
"""What is sampled: its unit, and how much an hour counts as flat."""

ROTATION = ("classification", "target_counting", "infrared_targets", "spiking_classification",
            "adversarial_classification", "regularised_classification", "distillation")  # fmt: skip
"""Digits most often; pose is left out for its time."""

Work = Callable[[], object]


def held() -> dict[str, float]:
    """What this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    found = {
        "memory": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "open files": float(len(os.listdir("/proc/self/fd"))),
        "threads": float(threading.active_count()),
    }
    if torch.cuda.is_available():
        found["GPU memory"] = torch.cuda.memory_allocated() / 2**20
    return found


def trainings() -> Iterator[tuple[str, Work]]:
    """One training after the other, without end."""
    for task in cycle(ROTATION):
        yield task, lambda task=task: _train(task)  # type: ignore[misc]


def _train(task: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="soak"))
    here = Path.cwd()
    try:
        os.chdir(folder)
        train.main([str(write_recipe(task, folder)), "trainer.workers=0"])
    finally:
        os.chdir(here)
        shutil.rmtree(folder)


def soak(work: Iterator[tuple[str, Work]], seconds: float) -> tuple[list[float], list[dict[str, float]], list[Outcome]]:
    """Works for a time; when each sample was taken, the samples, and whatever failed.

    Args:
        work: what to do, by name; a demo page can be soaked by another one.
        seconds: no work is begun after these.
    """
    began, moments, samples, failed = time.monotonic(), [], [], []
    for name, do in work:
        try:
            do()
        except Exception as error:
            failed.append(Outcome("soak", name, "failed", False, f"{type(error).__name__}: {error}"))
        gc.collect()
        moments.append(time.monotonic() - began)
        samples.append(held())
        if moments[-1] >= seconds:
            return moments, samples, failed
    return moments, samples, failed


def slopes(moments: list[float], samples: list[dict[str, float]]) -> list[dict[str, Any]]:
    """A row for each thing that was sampled; none where there are too few samples for a line."""
    if len(second_half(moments, moments)[0]) < FEWEST:
        return []
    return [row(what, LIMITS[what][0], moments, [s[what] for s in samples], LIMITS[what][1]) for what in samples[0]]


def parser() -> Any:
    """The command line."""
    p = options("Train small tasks in rotation for a long time; see whether memory, files or threads grow.", "soak")
    p.add_argument("--seconds", type=float, default=3600.0, help="default: %(default)s")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    torch.set_num_threads(1)
    clock = Clock()
    moments, samples, failed = soak(trainings(), arguments.seconds)
    rows = slopes(moments, samples)
    outcomes = [replace(outcome, said=shortened(outcome.said, Path.cwd())) for outcome in failed]
    outcomes += [
        Outcome(
            "soak",
            r["what"],
            r["verdict"],
            r["verdict"] != "rising",
            f"{r['per_hour']} ± {r['margin']} {r['unit']} an hour",
        )
        for r in rows
    ]
    for outcome in outcomes:
        tell(outcome)
    found = document(
        "A long run",
        f"python benchmarks/reliability/soak.py --seconds {arguments.seconds:g}",
        f"{len(moments)} trainings of {len(set(ROTATION))} small tasks in one process; lines through the second half.",
        outcomes,
        clock.seconds,
        slopes=rows,
    )
    assert set(ROTATION) <= set(RECIPES)
    return conclude(found, arguments.output)


if __name__ == "__main__":
    run_command(main)
