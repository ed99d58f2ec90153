"""How a case of reliability ended, whether that is right, and the file that keeps all of them."""

import argparse
import datetime
import re
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.collect import RESULTS, check
from benchmarks.reliability.children import End, import_everything
from vision.engine.environment import git_commit, machine_summary
from vision.engine.files import write_json

Expected = Literal["refused", "accepted", "either"]

MEANS_OTHER = 3
"""Exit status of a case that was accepted and came to mean something else than what was written."""

MOST_LINES, MOST_CHARACTERS = 6, 600
"""Of an error that counts as short."""


@dataclass(frozen=True)
class Outcome:
    """One case.

    Attributes:
        group: what it is a case of.
        case: which one.
        end: ``accepted``, ``refused``, ``resumed`` or what else came of it.
        held: whether it ended as it must.
        said: the error, or what was wrong; its beginning where it is long.
    """

    group: str
    case: str
    end: str
    held: bool
    said: str = ""


def end_of(ended: End) -> str:
    """The end of a process in a word or two."""
    if ended.hung:
        return "hung"
    if ended.status < 0:
        return f"crashed (signal {-ended.status})"
    named = {0: "accepted", 2: "refused", MEANS_OTHER: "another meaning"}
    return named.get(ended.status, "traceback") if "Traceback (most recent" not in ended.said else "traceback"


def is_clear(error: str, names: Sequence[str]) -> bool:
    """Whether an error is short and names one of ``names``: a file, a field, or where both may be wrong, either."""
    return (
        0 < len(error) <= MOST_CHARACTERS and len(error.splitlines()) <= MOST_LINES and any(n in error for n in names)
    )


def judged(group: str, case: str, ended: End, expected: Expected, names: Sequence[str]) -> Outcome:
    """The outcome of a case that had to be refused clearly, or accepted with its meaning, or either.

    Args:
        group: what it is a case of.
        case: which one.
        ended: what came of it.
        expected: what had to.
        names: an error must hold one of these.
    """
    end = end_of(ended)
    held = end == expected or (expected == "either" and end in ("accepted", "refused"))
    if end == "refused" and held and not is_clear(ended.error, names):
        held, end = False, "unclear error"
    told = ended.error if end in ("refused", "unclear error") else "" if end == "accepted" else last_lines(ended.said)
    return Outcome(group, case, end, held, told)


def last_lines(said: str) -> str:
    """The last lines of what a process said."""
    return " | ".join(line.strip() for line in said.splitlines()[-4:] if line.strip())


def shortened(text: str, folder: Path, most: int = 240) -> str:
    """A message without the folder it came from, on one line, cut where it is long."""
    text = text.replace(f"{folder}/", "").replace(str(folder), ".")
    text = re.sub(r"(?<![\w.])/(?:tmp|home|root|var|srv|work|usr)/[^\s:'\")]*/", "", text)
    text = "".join(c if c.isprintable() else " " for c in " | ".join(text.splitlines()))
    return text if len(text) <= most else f"{text[: most - 3]}..."


Cases = Callable[[argparse.Namespace, Path], Iterable[Outcome]]
"""Of the command line's arguments and a folder of their own; each is made as it is asked for."""


def options(description: str) -> argparse.ArgumentParser:
    """The command line that the scripts share."""
    p = argparse.ArgumentParser(description=description)
    p.add_argument("-o", "--output", type=Path, help="default: benchmarks/results/reliability_NAME.json")
    return p


def conduct(name: str, p: argparse.ArgumentParser, argv: list[str] | None, cases: Cases, title: str, note: str) -> int:
    """A script's whole run: each case in turn, told as it ends, and the file of all of them.

    Args:
        name: of the script.
        p: its command line.
        argv: what was given; None for the process's own.
        cases: makes the cases.
        title: of the file.
        note: what the table's reader must know.

    Returns:
        The exit status: 1 where a case was not as it must be.
    """
    arguments, clock, outcomes = p.parse_args(argv), Clock(), []
    import_everything()
    with tempfile.TemporaryDirectory(prefix=name) as folder:
        for outcome in cases(arguments, Path(folder)):
            outcomes.append(replace(outcome, said=shortened(outcome.said, Path(folder))))
            tell(outcomes[-1])
    output = arguments.output or output_of(name)
    return conclude(document(name, argv, title, note, outcomes, clock.seconds), output)


def output_of(name: str) -> Path:
    """Where a script writes unless told otherwise."""
    return RESULTS / f"reliability_{name}.json"


def document(
    name: str, argv: list[str] | None, title: str, note: str, outcomes: Sequence[Outcome], seconds: float, **more: Any
) -> dict[str, Any]:
    """What is kept of a script's run; checked."""
    found = {
        "kind": "reliability",
        "title": title,
        "command": _command(name, sys.argv[1:] if argv is None else argv),
        "note": note,
        "cases": [asdict(outcome) for outcome in outcomes],
        "seconds": round(seconds, 1),
        "machine": machine_summary(),
        "commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **more,
    }
    check(found, title)
    return found


def _command(name: str, argv: list[str]) -> str:
    """The call, without where it wrote to."""
    p = argparse.ArgumentParser(add_help=False)
    p.add_argument("-o", "--output")
    return shlex.join(["python", f"benchmarks/reliability/{name}.py", *p.parse_known_args(argv)[1]])


def tell(outcome: Outcome) -> None:
    """A line for the terminal."""
    print(
        f"{'ok  ' if outcome.held else 'FAIL'} {outcome.group}: {outcome.case}: {outcome.end}  {outcome.said[:160]}",
        flush=True,
    )


def conclude(found: dict[str, Any], output: Path) -> int:
    """Writes the file and says in a line what came of everything; the exit status."""
    write_json(output, found)
    ends = Counter(case["end"] for case in found["cases"])
    failed = [case for case in found["cases"] if not case["held"]]
    print(f"{output}: {len(found['cases'])} cases, {len(failed)} failed; {dict(ends)}")
    return 1 if failed else 0


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """So far."""
        return time.monotonic() - self.began
