"""Train a recipe: python tools/train.py CONFIG [a.b=c ...]."""

import argparse
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from vision.engine.command import run_command
from vision.engine.config import Config, load
from vision.engine.distributed import World, joined
from vision.engine.pipeline import run_pipeline
from vision.engine.summary import summary_table
from vision.engine.train import dry_run, train_recipe
from vision.report.html import write_report


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description="Train what a recipe describes, judge it, and write runs/<name>/ with report.html.",
        epilog="example: python tools/train.py configs/classification/digits_cnn.yaml trainer.epochs=5 seed=1",
    )
    p.add_argument("config", help="a YAML recipe, or the name of a shipped one")
    p.add_argument("overrides", nargs="*", metavar="a.b=c", help="replace single fields of the recipe")
    p.add_argument("--resume", action="store_true", help="go on from the run folder's last checkpoint")
    p.add_argument("--print-config", action="store_true", help="print the resolved recipe and end")
    p.add_argument("--dry-run", action="store_true", help="build everything, make one update, write nothing")
    return p


def train(config: Config, world: World, folder: Path, resume: bool, dry: bool) -> None:
    """Trains a run or a pipeline into ``folder``; ``dry`` makes one update of each instead."""
    one = partial(dry_run if dry else train_recipe, world=world)
    if config.is_pipeline:
        summary = run_pipeline(config, one, folder, resume, world, dry)
        if world.is_main and not dry:
            Console().print(summary_table(summary))
    else:
        one(config, folder, resume)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_intermixed_args(argv)  # overrides may also come after options
    config = load(arguments.config, arguments.overrides)
    config.check()
    if arguments.print_config:
        print(config.yaml.rstrip())
        return 0
    with joined("auto") as world:
        if arguments.dry_run:
            with TemporaryDirectory() as temporary:
                train(config, world, Path(world.share(temporary)) / "run", resume=False, dry=True)
            return 0
        folder = Path(config.tree.get("output", "runs")) / config.name
        train(config, world, folder, arguments.resume, dry=False)
        if world.is_main:
            print(write_report([folder], folder / "report.html"))
    return 0


if __name__ == "__main__":
    run_command(main)
