"""Holds the blocks of a recipe against the constructors registered under their names.

A constructor's annotations are its schema, strict (``"3"`` and ``true`` are no int, an int is a float) and closed (an
unknown key is a mistake). An argument annotated with a class that registered entries build, such as
``network: nn.Module``, is a block of its own, and so is one marked ``Annotated[T, OfKind("loss")]``; one annotated with
a dataclass is a mapping of its fields. All mistakes are collected first; nothing is built until there are none.

``python -m vision.engine.schema`` prints the JSON Schema of recipe files.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from typing import Any, TypeVar, get_args

from vision.engine.blocks import BlockReader, PlainReader, arguments
from vision.engine.errors import ConfigError
from vision.engine.mistakes import Mistake, Mistakes, Place, Where, a, nowhere, report
from vision.engine.registry import GIVEN, entries, names, some
from vision.engine.signature import signature_of

Made = TypeVar("Made")


def validate(
    block: dict[str, Any] | str, kind: str | None = None, given: tuple[str, ...] = (), where: Where = nowhere
) -> dict[str, Any]:
    """The arguments a block describes, with the blocks inside it built.

    Args:
        block: ``{"type": name, ...}``, or the bare name.
        kind: what is expected; None takes any.
        given: arguments that do not come from the block.
        where: tells the place (``file:line``) of a path inside the block.

    Raises:
        ConfigError: one line for each mistake: its place and dotted field, what was given and what was expected.
    """
    check(block, kind, given, where)
    try:
        return BlockReader(None, kind).open(block, given, build=True)[1]
    except Mistakes as mistakes:  # something built is not of the class that was asked for
        raise ConfigError(report(mistakes.found, where, {})) from None


def check(
    block: dict[str, Any] | str, kind: str | None = None, given: tuple[str, ...] | None = None, where: Where = nowhere
) -> None:
    """Like :func:`validate`, without building anything.

    Args:
        block: ``{"type": name, ...}``, or the bare name.
        kind: what is expected; None takes any.
        given: arguments that do not come from the block; by default what the trainer gives to the kind.
        where: tells the place (``file:line``) of a path inside the block.

    Raises:
        ConfigError: as :func:`validate`.
    """
    given = GIVEN.get(kind or "", ()) if given is None else given
    try:
        BlockReader(None, kind).open(block, given, build=False)
    except Mistakes as mistakes:
        raise ConfigError(report(mistakes.found, where, dict(homes_in(block, (), given)))) from None


def mistakes_in(cls: type, values: dict[str, Any]) -> list[Mistake]:
    """Every mistake in ``values`` as fields of the dataclass ``cls``, blocks inside included."""
    found: list[Mistake] = []
    try:
        arguments(cls, values, (), build=False)
    except Mistakes as mistakes:
        found = mistakes.found
    told = {mistake.place for mistake in found}
    return found + [mistake for mistake in impossible_numbers(values) if mistake.place not in told]


def impossible_numbers(values: Any, place: Place = ()) -> Iterator[Mistake]:
    """A mistake for each number that no field can mean: nan, and whole numbers beyond 64 bits."""
    if isinstance(values, dict | list):
        for key, item in values.items() if isinstance(values, dict) else enumerate(values):
            yield from impossible_numbers(item, (*place, key))
    elif isinstance(values, float) and math.isnan(values):
        yield Mistake(place, "expected a number, got nan")
    elif isinstance(values, int) and not -(2**63) <= values < 2**63:
        yield Mistake(place, "expected a number of 64 bits, got one beyond them")


def data_the_task_refuses(task: Any, data: Any) -> list[Mistake]:
    """A mistake where the ``data`` block builds another class than the constructor of the ``task`` block takes."""
    task_name, data_name = (block.get("type") if isinstance(block, dict) else block for block in (task, data))
    entry = next((entry for entry in entries("task") if entry.name == task_name), None)
    taken = signature_of(entry.factory).fields.get("data") if entry else None
    if taken is None or not isinstance(taken.annotation, type) or data_name not in names(kind="data"):
        return []
    fitting = [other.name for other in BlockReader(taken.annotation, "data").candidates()]
    if data_name in fitting:
        return []
    text = f"the task '{task_name}' takes {a(taken.annotation.__name__)}, not '{data_name}'; expected {some(fitting)}"
    return [Mistake(("data",), text)]


def read(cls: type[Made], values: dict[str, Any]) -> Made:
    """The dataclass ``cls`` from plain ``values`` that hold no mistake."""
    made = PlainReader(cls).read(values, build=True)
    assert isinstance(made, cls)
    return made


def homes(
    factory: Callable[..., Any], values: Any, place: Place = (), given: tuple[str, ...] = ()
) -> Iterator[tuple[Place, list[str]]]:
    """Which keys each mapping of a recipe takes: to tell where a misplaced key belongs."""
    values = values if isinstance(values, dict) else {}
    fields = {name: field for name, field in signature_of(factory).fields.items() if name not in given}
    yield place, list(fields)
    for name, field in fields.items():
        plain = next((part for part in _parts(field.annotation) if is_dataclass(part)), None)
        if isinstance(plain, type):
            yield from homes(plain, values.get(name), (*place, name))
        else:
            yield from homes_in(values.get(name), (*place, name))


def homes_in(value: Any, place: Place, given: tuple[str, ...] | None = None) -> Iterator[tuple[Place, list[str]]]:
    """:func:`homes` of every block in ``value``."""
    if isinstance(value, list):
        for position, item in enumerate(value):
            yield from homes_in(item, (*place, position))
    elif isinstance(value, dict):
        entry = next((e for e in entries() if e.name == value.get("type")), None)
        if entry is not None:
            kept = GIVEN.get(entry.kind, ()) if given is None else given
            yield from homes(entry.factory, value, place, kept)
        else:
            for key, item in value.items():
                yield from homes_in(item, (*place, key))


def _parts(annotation: Any) -> Iterator[Any]:
    """An annotation and everything inside it."""
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of recipe files, for editors; see :mod:`vision.engine.json_schema`."""
    from vision.engine.json_schema import recipe_schema  # it stands above this module

    return recipe_schema()


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=1))
