"""Check an installation and say what would mend it: python tools/doctor.py."""

import argparse
import warnings

from rich.console import Console
from rich.markup import escape

from vision.engine.check import Check, as_dict
from vision.engine.command import run_command
from vision.engine.doctor import examine
from vision.engine.files import to_json

COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description="Check versions, devices, data and room; exit status 1 when something does not work.",
        epilog="example: python tools/doctor.py --json",
    )
    p.add_argument("--json", action="store_true", help="print the findings as JSON")
    return p


def show(console: Console, check: Check) -> None:
    """Prints one finding as it is made, and its fix below it."""
    status = f"[{COLOURS[check.status]}]{check.status:<4}[/]"
    console.print(f"{status}  {check.name:<13}  {escape(check.found)}", soft_wrap=True)
    if check.fix:
        console.print(f"{'':21}fix: {escape(check.fix)}", soft_wrap=True)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0 when nothing fails, else 1."""
    arguments = parser().parse_args(argv)
    warnings.simplefilter("ignore")  # of the packages that are looked at; what matters is a finding
    console = Console(highlight=False)
    checks = []
    for check in examine():
        checks.append(check)
        if not arguments.json:
            show(console, check)
    counts = {status: sum(check.status == status for check in checks) for status in COLOURS}
    if arguments.json:
        print(to_json({"checks": [as_dict(check) for check in checks], "counts": counts}, indent=2))
    else:
        console.print(", ".join(f"{count} {status}" for status, count in counts.items()))
    return 1 if counts["fail"] else 0


if __name__ == "__main__":
    run_command(main)
