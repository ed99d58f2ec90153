"""How many people a second the top-down data gives: python benchmarks/pose_loading.py ROOT [-o FILE].

``ROOT`` is a folder in COCO's layout. Batches of training crops (the whole recipe of augmentation) and of evaluation
crops go through the trainer's own loader; beside them stands what reading the image files alone gives, which no loader
that decodes for each person can pass, and two workers stand beside one. Both sides of a row take turns, so that
whatever else the machine does falls on both; what counts is the median over rounds of the ratio.
"""

import argparse
import datetime
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, default_collate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds its siblings by the name tests use

from benchmarks.collect import RESULTS, check
from vision.engine.command import run_command
from vision.engine.data import Sample
from vision.engine.environment import git_commit, machine_summary
from vision.engine.files import write_json
from vision.engine.loading import load
from vision.engine.task import Batch
from vision.pose.data import TopDownCrops, TopDownData
from vision.pose.images import read_rgb

BATCH = 32

Fetch = Callable[[], None]
Row = dict[str, Any]
Seconds = dict[str, float]


class Files(Dataset[Sample]):
    """The image files of crops, read and nothing more."""

    def __init__(self, crops: TopDownCrops) -> None:
        self.crops = crops

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int) -> Sample:
        subject = self.crops.subjects[index]
        return {"id": subject.id, "pixels": read_rgb(subject.image.path).size}


def together(samples: list[Sample]) -> Batch:
    """A batch as a task makes it."""
    return {key: [s[key] for s in samples] if isinstance(samples[0][key], str) else default_collate(
        [s[key] for s in samples]) for key in samples[0]}  # fmt: skip


def fetching(dataset: "Dataset[Sample]", people: int, workers: int) -> Fetch:
    """A round: ``people`` samples in a random order."""

    def fetch() -> None:
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()  # type: ignore[arg-type]
        order = (order * (people // len(order) + 1))[:people]
        batches = [order[first : first + BATCH] for first in range(0, people, BATCH)]
        for _ in load(dataset, batches, (0, "sample", 0), together, workers):
            pass

    return fetch


def timed(fetch: Fetch) -> Seconds:
    """CPU and wall-clock seconds of a round; CPU of this process alone."""
    cpu, wall = time.process_time(), time.perf_counter()
    fetch()
    return {"CPU": time.process_time() - cpu, "wall-clock": time.perf_counter() - wall}


def compare(what: str, against: str, clock: str, sides: tuple[Fetch, Fetch], people: int, seconds: float) -> Row:
    """Rounds of both in turn for about ``seconds``."""
    for side in sides:
        timed(side)  # warm-up
    rounds: list[list[float]] = []
    begun = time.perf_counter()
    while len(rounds) < 4 or time.perf_counter() - begun < seconds:
        order = (0, 1) if len(rounds) % 2 else (1, 0)
        taken = {side: timed(sides[side])[clock] for side in order}
        rounds.append([people / taken[0], people / taken[1]])
    ours, theirs = (round(statistics.median(r[side] for r in rounds), 1) for side in (0, 1))
    ratio = round(statistics.median(r[0] / r[1] for r in rounds), 4)
    what = f"{what}, {clock} time"
    print(f"{what}: {ours} people a second, {against}: {theirs}, ratio {ratio}, {len(rounds)} rounds")
    return {
        "what": what, "against": against, "ours": ours, "theirs": theirs, "ratio": ratio, "aim": None,
        "repeats": len(rounds),
    }  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Measure the loading of top-down pose samples, in people a second.")
    p.add_argument("root", help="a data set in COCO's layout, with train2017")
    p.add_argument("--people", type=int, default=240, help="in a round, default: %(default)s")
    p.add_argument("--seconds", type=float, default=30.0, help="for each row, default: %(default)s")
    p.add_argument("-o", "--output", type=Path, default=RESULTS / "pose_loading.json", help="default: %(default)s")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    torch.set_num_threads(1)
    busy = os.getloadavg()[0]
    data = TopDownData(root=arguments.root, test_split=None)
    training = data.train()
    assert isinstance(training, TopDownCrops)
    plain = data.crops(training.subjects, training.ground_truth)
    rounds = {
        (name, workers): fetching(dataset, arguments.people, workers)
        for name, dataset in (("training", training), ("evaluation", plain), ("files", Files(training)))
        for workers in (0, 1, 2)
    }
    cases = (
        ("training crops", "reading the files alone", "CPU", ("training", 0), ("files", 0)),
        ("evaluation crops", "reading the files alone", "CPU", ("evaluation", 0), ("files", 0)),
        ("training crops, one worker", "no worker", "wall-clock", ("training", 1), ("training", 0)),
        ("training crops, two workers", "one worker", "wall-clock", ("training", 2), ("training", 1)),
    )
    document = {
        "kind": "comparison",
        "title": "Loading of top-down pose samples",
        "command": "python benchmarks/pose_loading.py ROOT",
        "unit": "people a second",
        "better": "higher",
        "note": f"Crops of 192x256 from COCO photographs, in batches of {BATCH}; medians over rounds of "
        f"{arguments.people} people, taken in turn, with the start of the workers. Files come from the page cache. "
        f"Processes that were running already: {busy:.1f} on average.",
        "rows": [
            compare(what, against, clock, (rounds[ours], rounds[theirs]), arguments.people, arguments.seconds)
            for what, against, clock, ours, theirs in cases
        ],
        "machine": machine_summary(),
        "commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    check(document, "pose_loading")
    write_json(arguments.output, document)
    print(arguments.output)
    return 0


if __name__ == "__main__":
    run_command(main)
