"""Kill every task's training ten times and hold the resumed run against an undisturbed one.

python benchmarks/reliability/kills.py [--only TASK]

Each recipe is trained once undisturbed. Then the same recipe is started with ``--resume``, killed by SIGKILL at a
random update and a random moment of it, and started again, ten times; the last start runs to its end. Both must have
left the same bytes of weights and predictions, and the same figures.
"""

import json
import random
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script finds its siblings by the name tests use

from benchmarks.reliability.children import Child, run
from benchmarks.reliability.outcomes import Outcome, conduct, last_lines, options
from benchmarks.reliability.recipes import RECIPES, write_recipe
from tools import train
from vision.engine.command import run_command
from vision.engine.files import read_json
from vision.engine.recorder import read_metrics

FILES = (
    "checkpoints/last.safetensors",
    "checkpoints/best.safetensors",
    "eval/val/predictions.jsonl",
    "eval/test/predictions.jsonl",
)
TIMED = ("seconds", "samples_per_second")

Point = tuple[str, int]
"""The folder of a stage below the run's, and the update after which it is killed."""


def points(updates: Sequence[Point], kills: int, seed: int) -> list[Point]:
    """Where a run is killed: drawn from all its updates, in their order; all of them where they are too few."""
    drawn = random.Random(seed).sample(range(len(updates)), min(kills, len(updates)))
    return [updates[place] for place in sorted(drawn)]


def figures(run_folder: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` without what a clock says, and without events."""
    lines = read_metrics(run_folder / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in TIMED} for line in lines if line["kind"] != "event"]


def stages(root: Path) -> list[str]:
    """The folders of a run's trained stages, in the order they were trained; of a single run, itself."""
    if not (root / "summary.json").exists():
        return ["."]
    names = [stage["name"] for stage in read_json(root / "summary.json")["stages"]]
    return [name for name in names if (root / name / "metrics.jsonl").exists()]


def updates(root: Path) -> list[Point]:
    """Every update a run recorded."""
    return [(s, line["step"]) for s in stages(root) for line in figures(root / s) if line["kind"] == "train"]


def differences(whole: Path, again: Path) -> list[str]:
    """In what two runs differ, by the names of files; empty where they are the same."""
    found = [f"{stage}: {what}" for stage in stages(whole) for what in _differences(whole / stage, again / stage)]
    found += [f"left over: {path.name}" for path in again.rglob("*.tmp")]
    if (whole / "summary.json").exists() and _results(whole) != _results(again):
        found.append("summary.json")
    return found


def _differences(whole: Path, again: Path) -> Iterator[str]:
    for name in FILES:
        if (whole / name).exists() != (again / name).exists():
            yield f"{name} is there in one only"
        elif (whole / name).exists() and (whole / name).read_bytes() != (again / name).read_bytes():
            yield name
    if figures(whole) != figures(again):
        yield "metrics.jsonl"
    for file in whole.glob("eval/*/result.json"):
        if read_json(file)["metrics"] != read_json(again / file.relative_to(whole))["metrics"]:
            yield str(file.relative_to(whole))


def _results(root: Path) -> list[Any]:
    return [_untimed(stage["result"]) for stage in read_json(root / "summary.json")["stages"]]


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untimed(item) for key, item in value.items() if "seconds" not in key}
    return value


def recorded(run_folder: Path) -> int:
    """The newest update in a run's ``metrics.jsonl``, or -1; the line that is being written does not count."""
    try:
        lines = (run_folder / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return -1
    return max((json.loads(line)["step"] for line in lines if line), default=-1)


def kill_and_resume(task: str, folder: Path, kills: int, seed: int) -> Outcome:
    """One task's case, in a folder of its own."""
    whole, again = folder / "whole", folder / "killed"  # the same command in each: nothing but the kills differs
    for place in (whole, again):
        place.mkdir()
        write_recipe(task, place)
    arguments = [f"{task}.yaml", "--resume"]
    begun = time.monotonic()
    ended = run(train.main, arguments, whole, folder / "whole.log")
    if ended.status != 0:
        return Outcome(task, "undisturbed run", f"status {ended.status}", False, last_lines(ended.said))
    everything = updates(whole / "runs" / task)
    pause = (time.monotonic() - begun) / max(len(everything), 1)
    luck, died = random.Random(seed), 0
    for number, (stage, step) in enumerate(points(everything, kills, seed)):
        child = Child(train.main, arguments, again, folder / f"kill{number}.log")
        while not child.over() and recorded(again / "runs" / task / stage) < step:
            time.sleep(0.002)
        time.sleep(luck.uniform(0, pause))
        child.kill()
        ended = child.wait()
        died += ended.status < 0
        if ended.status not in (0, -9):
            return Outcome(task, f"killed {died} times", f"status {ended.status}", False, last_lines(ended.said))
    ended = run(train.main, arguments, again, folder / "last.log")
    case = f"killed {died} times in {len(everything)} updates"
    if ended.status != 0:
        return Outcome(task, case, f"status {ended.status}", False, last_lines(ended.said))
    found = differences(whole / "runs" / task, again / "runs" / task)
    return Outcome(task, case, "differs" if found else "the same bytes", not found, "; ".join(found))


def cases(arguments: Any, folder: Path) -> Iterator[Outcome]:
    """One of each task."""
    for task in arguments.only or RECIPES:
        (folder / task).mkdir()
        yield kill_and_resume(task, folder / task, arguments.kills, arguments.seed)
        shutil.rmtree(folder / task)


def parser() -> Any:
    """The command line."""
    p = options("Kill every task's training ten times and compare the resumed run with an undisturbed one.")
    p.add_argument("--seed", type=int, default=0, help="of when it is killed, default: %(default)s")
    p.add_argument("--only", choices=list(RECIPES), action="append", help="this task only; may be given again")
    p.add_argument("--kills", type=int, default=10, help="of each task, default: %(default)s")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    note = "SIGKILL at updates drawn from a seed, and a random moment after each; then --resume."
    return conduct("kills", parser(), argv, cases, "Runs that are killed", note)


if __name__ == "__main__":
    run_command(main)
