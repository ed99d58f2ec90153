"""Judge trained weights: python tools/eval.py RUN [a.b=c ...]."""

import argparse
from pathlib import Path
from typing import Any

from vision.deploy.shipped import home_of, run_or_recipe
from vision.engine.checkpoint import load_weights
from vision.engine.command import run_command
from vision.engine.config import load
from vision.engine.distributed import joined
from vision.engine.errors import ConfigError
from vision.engine.merging import parse_override, put
from vision.engine.registry import build
from vision.engine.run import RunFolder
from vision.engine.sources import node_of
from vision.engine.train import build_task, judge_split, load_run, single_run


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description="Judge a run's weights on a split; writes eval/<name>/ in the run folder.",
        epilog="example: python tools/eval.py runs/digits_cnn --split test --checkpoint last",
    )
    p.add_argument(
        "run", help="a run folder, a network that ships, by its name, or a recipe (then --checkpoint names a file)"
    )
    p.add_argument("overrides", nargs="*", metavar="a.b=c", help="replace single fields, for example data.root=...")
    p.add_argument("--checkpoint", help="best, last, or a file (default: best; with --robust best and last)")
    p.add_argument("--split", choices=("train", "val", "test"), default="test", help="default: test")
    p.add_argument(
        "--robust",
        action="store_true",
        help="attack the images: best and last weights under clean, pgd20, pgd100 and autoattack, into eval/robust-*/; "
        "robust.KEY=VALUE sets options of the step robust_evaluation, for example robust.limit=1000",
    )
    p.add_argument("--name", help="folder under eval/ (default: the split)")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_intermixed_args(argv)  # overrides may also come after options
    given = run_or_recipe(arguments.run, arguments.checkpoint or "best")
    if arguments.robust:
        return _robust(given, arguments)
    if any(text.startswith("robust.") for text in arguments.overrides):
        raise ConfigError("command line: options of robust. are those of an evaluation under attack: add --robust")
    arguments.checkpoint = arguments.checkpoint or "best"
    if given.is_dir():
        config, recipe, task, file = load_run(given, arguments.checkpoint, arguments.overrides)
        run = RunFolder(home_of(single_run(given)))
    else:
        config = load(arguments.run, arguments.overrides)
        recipe = config.recipe()
        file = Path(arguments.checkpoint)
        if arguments.checkpoint in ("best", "last"):
            raise ConfigError(f"{arguments.run} is a recipe, not a run: name the weights with --checkpoint FILE")
        task = build_task(recipe)
        load_weights(task.network, file)
        run = RunFolder(Path(recipe.output) / recipe.name)
    with joined(recipe.trainer.device) as world:
        task.to(world.device)
        name = arguments.name or arguments.split
        if (
            judge_split(
                recipe, config.hash, task, run, world, arguments.split, arguments.checkpoint, name=name, weights=file
            )
            is None
        ):
            raise ConfigError(f"data '{recipe.data['type']}' has no {arguments.split} split; try --split val")
        if world.is_main:
            print(run.eval_dir(name) / "result.json")
    return 0


def _robust(run: Path, arguments: argparse.Namespace) -> int:
    """Judges a run under attack; what ``robust.`` stands before is an option of that, the rest one of the recipe."""
    if arguments.name:
        raise ConfigError("--name: with --robust the folders are named by checkpoint; set robust.prefix=... instead")
    options, others = node_of({}, "command line"), []
    for text in arguments.overrides:
        parts, value = parse_override(text)
        if parts[0] == "robust" and len(parts) > 1:
            options = put(options, parts[1:], value)
        else:
            others.append(text)
    given: dict[str, Any] = {"trained": str(run), "split": arguments.split, "prefix": "robust-", "overrides": others}
    home = home_of(single_run(run))
    if arguments.checkpoint or home != single_run(run):  # what ships has its best weights alone
        given["checkpoints"] = [arguments.checkpoint or "best"]
    own = options.tree()
    if taken := sorted({"trained", "overrides"} & own.keys()):
        raise ConfigError(
            f"robust.{taken[0]}: is said without robust., such as tools/eval.py RUN --robust data.root=..."
        )
    step = build({"type": "robust_evaluation", **given, **own}, "step")
    folder = RunFolder(home)
    step.run(folder.path)
    for checkpoint in step.checkpoints:
        print(folder.eval_dir(step.prefix + checkpoint) / "result.json")
    return 0


if __name__ == "__main__":
    run_command(main)
