"""Run the experiments behind the tables again: python benchmarks/rerun.py [--only NAME,...] [--minutes M].

What there is stands in benchmarks/experiments.yaml. Runs land below runs/results, figures in benchmarks/results, and
the pages are written anew at the end. An experiment is done when its figures are written; stopped before, it goes on
where it was, and ``--again`` forgets what was done. The first that fails ends the command; those before it are kept.
"""

import argparse
import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds its siblings by the name tests use

from benchmarks.collect import RESULTS, collect
from vision.engine.command import run_command
from vision.engine.config import load
from vision.engine.errors import ConfigError, UserError, nearest
from vision.engine.files import read_text, write_atomically, write_json

log = logging.getLogger("tools.rerun")

CHECKOUT = Path(__file__).resolve().parents[1]
EXPERIMENTS = Path(__file__).with_name("experiments.yaml")
RUNS = "runs/results"


class Experiment(BaseModel):
    """What makes one file of results, or a script's several: recipes to train, a script to run, or both.

    Attributes:
        minutes: about how long one core takes.
        train: arguments of tools/train.py, a string a run.
        judge: arguments of tools/eval.py, a string a further evaluation.
        script: a script of benchmarks/ and its arguments, after ``train``.
        collect: patterns below the folder of runs of what is gathered; where empty the trained runs, or nothing where
            there is a script.
        writes: names of results that the script writes itself; the experiment's where empty.
    """

    model_config = ConfigDict(extra="forbid")

    minutes: Annotated[int, Field(gt=0)]
    train: list[str] = []
    judge: list[str] = []
    script: str | None = None
    collect: list[str] = []
    writes: list[str] = []

    @model_validator(mode="after")
    def _something(self) -> "Experiment":
        if not self.train and not self.script:
            raise ValueError("expected 'train' or 'script'")
        return self

    def results(self, name: str) -> list[str]:
        """The files of results that it makes, without ``.json``."""
        return self.writes or [name]


def experiments(file: Path = EXPERIMENTS) -> dict[str, Experiment]:
    """The experiments by name.

    Raises:
        ConfigError: the file does not hold, with the entry and the field.
    """
    found = {}
    for name, entry in yaml.safe_load(read_text(file)).items():
        try:
            found[name] = Experiment.model_validate(entry)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, (name, *first["loc"])))
            raise ConfigError(f"{file}: {place}: {first['msg']}") from error
    return found


def chosen(known: Mapping[str, Experiment], only: str | None, minutes: int | None) -> dict[str, Experiment]:
    """Those asked for by name, the cheapest first, as many as the minutes allow.

    Raises:
        ConfigError: a name that is not there, or fewer minutes than the cheapest takes.

    Example:
        >>> known = {"long": Experiment(minutes=9, script="a.py"), "short": Experiment(minutes=2, script="b.py")}
        >>> list(chosen(known, None, 10)), list(chosen(known, "long", None))
        (['short'], ['long'])
    """
    names = list(known) if only is None else [part.strip() for part in only.split(",")]
    for name in names:
        if name not in known:
            raise ConfigError(f"--only: no experiment '{name}'{nearest(name, known)}; --list shows them")
    kept, left = [], minutes
    for name in sorted(names, key=lambda name: known[name].minutes):
        if left is None or known[name].minutes <= left:
            kept.append(name)
            left = None if left is None else left - known[name].minutes
    if not kept:
        cheapest = min(known[name].minutes for name in names)
        raise ConfigError(f"--minutes {minutes}: expected at least the {cheapest} of the cheapest experiment")
    return {name: known[name] for name in kept}


def commands(experiment: Experiment, runs: Path = Path(RUNS)) -> list[list[str]]:
    """The commands of an experiment, as lists of words after ``python``."""
    places = {"{runs}": runs.as_posix(), "{data}": os.environ.get("TRIPTYCH_DATA", "../shared/data")}

    def words(text: str) -> list[str]:
        for key, value in places.items():
            text = text.replace(key, value)
        return shlex.split(text)

    found = [["tools/train.py", f"configs/{recipe}", *rest, f"output={runs.as_posix()}"]
             for recipe, *rest in map(words, experiment.train)]  # fmt: skip
    found += [["tools/eval.py", *words(text)] for text in experiment.judge]
    if experiment.script:
        script, *arguments = words(experiment.script)
        found.append([f"benchmarks/{script}", *arguments])
    return found


def run_of(command: list[str]) -> Path:
    """The run folder that a training command fills."""
    config = load(command[1], command[2:])
    return Path(config.tree["output"]) / config.name


def rerun(name: str, experiment: Experiment, runs: Path = Path(RUNS), results: Path = RESULTS, note: str = "") -> None:
    """Runs what is not done yet of an experiment, and writes its figures.

    Args:
        name: of it.
        experiment: what to run.
        runs: the folder of its runs.
        results: the folder of its figures.
        note: shown beside figures that are gathered from runs; a script writes its own.

    Raises:
        UserError: a command failed; what it wrote stays, and is gone on with the next time.
    """
    done = runs / f"{name}.done"
    if done.is_file():
        log.info("%s: done; --again runs it anew", name)
        return
    patterns = list(experiment.collect)
    for command in commands(experiment, runs):
        if command[0] == "tools/train.py":
            folder = run_of(command)
            patterns += [] if experiment.collect or experiment.script else [folder.relative_to(runs).as_posix()]
            command = [*command, *["--resume"] * folder.exists()]
        log.info("%s: python %s", name, shlex.join(command))
        status = subprocess.run([sys.executable, *command], check=False).returncode
        if status:
            raise UserError(
                f"{name}: status {status} of python {shlex.join(command)}; the same command goes on from here"
            )
    if patterns:
        found = [path for pattern in patterns for path in sorted(runs.glob(pattern))]
        write_json(results / f"{name}.json", collect(found, note))
    write_atomically(done, b"")


def forget(name: str, experiment: Experiment, runs: Path = Path(RUNS)) -> None:
    """Removes what an experiment left below the folder of runs."""
    (runs / f"{name}.done").unlink(missing_ok=True)
    trained = [run_of(command) for command in commands(experiment, runs) if command[0] == "tools/train.py"]
    for folder in [*trained, runs / name]:
        shutil.rmtree(folder, ignore_errors=True)


def listing(known: Mapping[str, Experiment], runs: Path = Path(RUNS)) -> Table:
    """The experiments, what each runs, about how long, and which are done."""
    table = Table("experiment", "minutes", "runs", "done", box=None)
    for name, experiment in sorted(known.items(), key=lambda item: item[1].minutes):
        what = experiment.script or f"{len(experiment.train)} × tools/train.py, {experiment.train[0].split()[0]}"
        table.add_row(name, str(experiment.minutes), what, "yes" if (runs / f"{name}.done").is_file() else "")
    return table


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description="Run the experiments of benchmarks/experiments.yaml again and write every table anew.",
        epilog="example: python benchmarks/rerun.py --only digits_cnn,snn_row_digits",
    )
    p.add_argument("--only", metavar="NAME,...", help="some of them (default: all)")
    p.add_argument("--minutes", type=int, metavar="M", help="the cheapest that fit into so many minutes of one core")
    p.add_argument("--again", action="store_true", help="forget what was done of them, and begin anew")
    p.add_argument(
        "--note", default="", help="shown beside the figures of trained runs, such as what else ran meanwhile"
    )
    p.add_argument("--list", action="store_true", help="show them, and end")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    known = experiments()
    wanted = chosen(known, arguments.only, arguments.minutes)
    if arguments.list:
        Console().print(listing(wanted))
        return 0
    os.chdir(CHECKOUT)
    for name, experiment in wanted.items():
        if arguments.again:
            forget(name, experiment)
        rerun(name, experiment, note=arguments.note)
    return subprocess.run([sys.executable, "benchmarks/tables.py"], check=False).returncode


if __name__ == "__main__":
    run_command(main)
