"""Turn run folders into one page: python tools/report.py RUN ... [-o FILE]."""

import argparse
from pathlib import Path

from vision.deploy.shipped import home_of, place_of
from vision.engine.command import run_command
from vision.report.card import write_card
from vision.report.html import write_report


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description="Write one HTML page of a run, a pipeline, or several runs beside each other.",
        epilog="example: python tools/report.py runs/a runs/b -o comparison.html",
    )
    p.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run folder, one of stages or seeds, or a network that ships"
    )
    p.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the page (default: report.html in RUN, or here for several)"
    )
    p.add_argument("--card", action="store_true", help="also write a model card, card.md, in each RUN")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    runs = [place_of(run, "a run's folder") for run in arguments.runs]
    default = home_of(runs[0]) / "report.html" if len(runs) == 1 else Path("report.html")
    print(write_report(runs, arguments.output or default))
    if arguments.card:
        for run in runs:
            print(write_card(run, home_of(run) / "card.md"))
    return 0


if __name__ == "__main__":
    run_command(main)
