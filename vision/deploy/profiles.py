"""The sizes an engine is built for: of every open axis the smallest, the one it is tuned for, and the largest."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vision.deploy.description import Description, GraphFile
from vision.engine.errors import ConfigError

CELL = 4
"""Pixels of an image to a cell of the map that the graph ``people`` of a single-stage network takes."""
AT_ONCE = {"crop": 32, "whole": 2}
"""Most samples at once for a ``before.type``: crops come in passes of 32, whole photographs one by one."""
OTHERWISE = 16

_SPAN = re.compile(r"^([A-Za-z])=(\d+):(\d+):(\d+)$")

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Span:
    """What an open axis may be: ``smallest`` to ``largest``, tuned for ``best``.

    Raises:
        ConfigError: not 1 <= smallest <= best <= largest.
    """

    smallest: int
    best: int
    largest: int

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.best <= self.largest:
            raise ConfigError(f"profile {self}: expected 1 or more, and smallest:best:largest in this order")

    def __str__(self) -> str:
        return f"{self.smallest}:{self.best}:{self.largest}"


def parse_span(text: str) -> tuple[str, Span]:
    """The letter of an axis and what it may be.

    Raises:
        ConfigError: another form.

    Example:
        >>> parse_span("N=1:8:32")
        ('N', Span(smallest=1, best=8, largest=32))
    """
    match = _SPAN.match(text)
    if match is None:
        raise ConfigError(f"profile '{text}': expected LETTER=SMALLEST:BEST:LARGEST, say N=1:8:32")
    return match[1], Span(int(match[2]), int(match[3]), int(match[4]))


def spans(description: Description, given: Mapping[str, Span]) -> dict[str, Span]:
    """What each open axis of an export may be: as given, else by what the description tells.

    Samples are 1 to 32 crops, 2 photographs or 16 of anything else; people 1 to as many as are looked for; rows and
    columns from the smallest that the network takes, but at least half a photograph's shorter side, to four times it
    (of other images 64 to 1024, tuned for 256). Cells of a feature map follow from rows and columns.

    Args:
        description: of the export.
        given: by letter.

    Raises:
        ConfigError: a letter that no open axis has, or rows and columns that the network cannot take.
    """
    ports = [port for graph in description.graphs.values() for port in graph.inputs.values()]
    letters = sorted({axis for port in ports for axis in port.shape if isinstance(axis, str)})
    unknown = sorted(set(given) - set(letters))
    if unknown:
        raise ConfigError(f"profile {unknown[0]}: this export has no such open axis, only {', '.join(letters)}")
    sized = [port for port in ports if {"H", "W"} & set(port.shape)]
    multiple, smallest = (max((getattr(port, key) for port in sized), default=1) for key in ("multiple", "smallest"))
    found = {**_defaults(description, multiple, smallest), **given}
    for letter in ("H", "W"):
        if letter in given and (
            given[letter].smallest < smallest or any(side % multiple for side in vars(given[letter]).values())
        ):
            raise ConfigError(
                f"profile {letter}={given[letter]}: expected sides of {smallest} or more, multiples of {multiple}"
            )
    for small, large in (("h", "H"), ("w", "W")):
        if small not in given:
            found[small] = Span(*(max(1, side // CELL) for side in vars(found[large]).values()))
    return {letter: found[letter] for letter in letters}


def _defaults(description: Description, multiple: int, smallest: int) -> dict[str, Span]:
    before, after = description.before, description.after
    short = before.get("short") if before.get("type") == "whole" else None
    short = short if isinstance(short, int) else None
    low = _raised(max(smallest, short // 2 if short else 64), multiple)
    best = max(_raised(short or 256, multiple), low)
    side = Span(low, best, 4 * best)
    most = after.get("most")
    people = int(most) if isinstance(most, int) and most > 0 else OTHERWISE
    return {
        "N": Span(1, 1, AT_ONCE.get(str(before.get("type")), OTHERWISE)),
        "P": Span(1, min(4, people), people),
        "H": side,
        "W": side,
    }


def _raised(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def shapes_of(graph: GraphFile, sizes: Mapping[str, Span]) -> dict[str, tuple[Shape, Shape, Shape]]:
    """Smallest, best and largest shape of every input of a graph that has open axes."""
    found = {}
    for name, port in graph.inputs.items():
        if any(isinstance(axis, str) for axis in port.shape):
            found[name] = (
                _filled(port.shape, sizes, "smallest"),
                _filled(port.shape, sizes, "best"),
                _filled(port.shape, sizes, "largest"),
            )
    return found


def _filled(shape: tuple[int | str, ...], sizes: Mapping[str, Span], which: str) -> Shape:
    return tuple(getattr(sizes[axis], which) if isinstance(axis, str) else axis for axis in shape)


def told(sizes: Mapping[str, Span]) -> dict[str, list[int]]:
    """Plain values of spans, for the description."""
    return {letter: [span.smallest, span.best, span.largest] for letter, span in sizes.items()}


def require_inside(profile: Mapping[str, Any], name: str, shape: tuple[int, ...], where: str) -> None:
    """Refuses an input that an engine was not built for.

    Args:
        profile: of every input with open axes, its smallest, best and largest shape.
        name: of the input.
        shape: of the input.
        where: what an error calls the engine.

    Raises:
        ConfigError: an axis below the smallest or above the largest.
    """
    if name not in profile:
        return
    low, _, high = profile[name]
    if len(low) != len(shape) or any(not a <= side <= b for a, side, b in zip(low, shape, high, strict=True)):
        raise ConfigError(
            f"{where}: '{name}' is {list(shape)}, and the engine was built for {list(low)} to {list(high)}; build it "
            "anew with --profile LETTER=SMALLEST:BEST:LARGEST"
        )
