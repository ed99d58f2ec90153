"""Recipes and data files with mistakes: each must be refused with a short error, or mean what it says.

python benchmarks/reliability/mutations.py

Recipes that need no download are dry-run; of the others the whole recipe is read and checked. Each case runs in a
forked process of its own with limited memory, so that a crash, a hang or a bare traceback is one failure.
"""

import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script finds its siblings by the name tests use

from benchmarks.reliability.children import Child, run
from benchmarks.reliability.config_mutations import Mutation, lost, mutations
from benchmarks.reliability.file_mutations import SETS, FileMutation, check_data, made, samples_of
from benchmarks.reliability.outcomes import MEANS_OTHER, Outcome, conduct, judged, options
from tools import train
from vision.engine.command import run_command
from vision.engine.config import config_folder, load, shipped_configs

MEMORY = 6 << 30
"""Bytes of address space of a case."""

SECONDS = 120.0
"""A case may take so long; the machine may be busy."""

DRY = ("digits_cnn", "mlp_digits", "stop_digits", "scm")
"""Recipes that are dry-run; short ones, as a hundred of them are."""


def check_recipe(arguments: list[str] | None) -> int:
    """A case's whole process: reads, checks, compares with what the file says, and dry-runs where asked to."""
    assert arguments is not None
    file, dry = arguments
    config = load(file)
    config.check()
    wrong = lost(yaml.load(Path(file).read_bytes(), yaml.BaseLoader), config.tree)
    if wrong:
        print("; ".join(wrong))
        return MEANS_OTHER
    return train.main([file, "--dry-run"]) if dry == "dry" else 0


def recipe_cases(folder: Path, count: int, seed: int) -> Iterator[Outcome]:
    """Mutated recipes, each beside the one it was made of."""
    configs = folder / "configs"
    shutil.copytree(config_folder(), configs)
    texts = {name: path.read_text(encoding="utf-8") for name, path in shipped_configs().items()}
    quick = {name: text for name, text in texts.items() if name.rpartition("/")[2] in DRY}
    half = count // 2
    drawn = [*mutations(quick, half, seed), *mutations(texts, count - half, seed + 1)]
    for number, (name, mutation) in enumerate(drawn):
        yield _recipe_case(configs, name, mutation, number, name in quick)


def _recipe_case(configs: Path, name: str, mutation: Mutation, number: int, dry: bool) -> Outcome:
    file = (configs / name).with_name(f"mutated{number}.yaml")
    file.write_bytes(mutation.content)
    child = Child(
        check_recipe, [str(file.relative_to(configs)), "dry" if dry else "check"], configs, configs / "log", MEMORY
    )
    ended = child.wait(SECONDS)
    case = f"{name}: {mutation.what}"
    outcome = judged(
        f"recipe: {mutation.kind}", case, ended, mutation.expected, (file.name, *filter(None, mutation.names))
    )
    file.unlink()
    return outcome


def file_cases(folder: Path, count: int, seed: int) -> Iterator[Outcome]:
    """Mutated data files, each in a data set of its own."""
    luck, clean = random.Random(seed), {}
    for kind in SETS:
        place = made(kind, folder / "clean" / kind)
        clean[kind] = samples_of(kind, place, folder)
    plan: list[tuple[str, FileMutation]] = [(kind, m) for kind in SETS for m in SETS[kind].mutations]
    if count < len(plan):
        plan = luck.sample(plan, count)
    while len(plan) < count:
        kind = luck.choice(list(SETS))
        plan.append((kind, luck.choice([m for m in SETS[kind].mutations if m.random])))
    for number, (kind, mutation) in enumerate(plan):
        place = made(kind, folder / f"set{number}")
        changed = mutation.apply(place, luck)
        log = folder / f"set{number}.log"
        arguments = [kind, str(place.relative_to(folder)), clean[kind], "other" if mutation.may_differ else "same"]
        ended = run(check_data, arguments, folder, log, SECONDS)
        yield judged(f"{kind} files", f"{mutation.name}", ended, mutation.expected, (changed.name, *mutation.names))
        shutil.rmtree(place)


def cases(arguments: Any, folder: Path) -> Iterator[Outcome]:
    """Recipes, then files."""
    if arguments.recipes:
        yield from recipe_cases(folder, arguments.recipes, arguments.seed)
    if arguments.files:
        yield from file_cases(folder, arguments.files, arguments.seed)


def parser() -> Any:
    """The command line."""
    p = options("Recipes and data files with mistakes: each is refused with a short error or means what it says.")
    p.add_argument("--seed", type=int, default=0, help="of the mistakes, default: %(default)s")
    p.add_argument("--recipes", type=int, default=200, help="mutated recipes, default: %(default)s")
    p.add_argument("--files", type=int, default=100, help="mutated files, default: %(default)s")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    note = f"Half of the recipes are of {', '.join(DRY)} and are dry-run; the others are read and checked."
    return conduct("mutations", parser(), argv, cases, "Mistakes in recipes and data files", note)


if __name__ == "__main__":
    run_command(main)
