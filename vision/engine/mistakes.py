"""What is wrong in a recipe: each mistake with its path, and the lines that tell the user."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from vision.engine.errors import nearest

Place = tuple[str | int, ...]
"""The way to a value in a recipe: keys and positions."""

Where = Callable[[Place], str]
"""Tells where a place stands, as ``file:line``; an empty string where nobody knows."""


@dataclass(frozen=True)
class Mistake:
    """One mistake.

    Attributes:
        place: of the value.
        message: what was expected and what was given.
        unknown: the last key of ``place`` is one that nothing takes.
    """

    place: Place
    message: str
    unknown: bool = False

    def below(self, place: Place) -> "Mistake":
        """The same mistake, its place seen from further up."""
        return Mistake((*place, *self.place), self.message, self.unknown)


class Mistakes(Exception):
    """Several mistakes, on their way to a report.

    Attributes:
        found: the mistakes.
    """

    def __init__(self, *found: Mistake) -> None:
        super().__init__(f"{len(found)} mistakes")
        self.found = list(found)


def nowhere(place: Place) -> str:
    """A :data:`Where` for blocks that come from no file."""
    return ""


def dotted(place: Place) -> str:
    """A place as a user writes it: ``task.network.width``."""
    return ".".join(str(part) for part in place)


def a(noun: str) -> str:
    """A noun with its article.

    Example:
        >>> a("task"), a("optimizer")
        ('a task', 'an optimizer')
    """
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def shown(value: Any, most: int = 60) -> str:
    """A value as a recipe writes it, cut where it is long.

    Example:
        >>> shown("3"), shown(True), shown({"a": None})
        ("'3'", 'true', '{a: null}')
    """
    text = _written(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _written(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_written(item) for item in value) + "]"
    return repr(value)


def report(found: Iterable[Mistake], where: Where, homes: Mapping[Place, Iterable[str]]) -> str:
    """One line for each mistake.

    Args:
        found: the mistakes.
        where: tells file and line.
        homes: the keys that each mapping of the recipe takes; an unknown key that another takes is sent there.
    """
    lines = []
    for mistake in found:
        text = _unknown_key(mistake.place, homes) if mistake.unknown else mistake.message
        lines.append(": ".join(part for part in (where(mistake.place), dotted(mistake.place), text) if part))
    return "\n".join(lines)


def _unknown_key(place: Place, homes: Mapping[Place, Iterable[str]]) -> str:
    *above, last = place
    key, known = str(last), list(homes.get(tuple(above), ()))
    elsewhere = [home for home, keys in homes.items() if key in keys and home != tuple(above)]
    if elsewhere:
        home = f"'{dotted(elsewhere[0])}'" if elsewhere[0] else "the top of the recipe"
        return f"unknown key; '{key}' belongs to {home}"
    hint = nearest(key, known)
    return f"unknown key{hint}" if hint else f"unknown key; expected {_listed(known)}"


def _listed(known: list[str]) -> str:
    if not known:
        return "none here"
    return ("one of " if len(known) > 1 else "") + ", ".join(known)


_EXPECTED = {
    "int_type": "an int",
    "int_from_float": "an int",
    "int_parsing": "an int",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping",
    "none_required": "null",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "greater_than": "a number > {gt}",
    "greater_than_equal": "a number >= {ge}",
    "less_than": "a number < {lt}",
    "less_than_equal": "a number <= {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "too_short": "at least {min_length} items",
    "too_long": "at most {max_length} items",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "a string like {pattern}",
}
"""pydantic's kinds of error -> what was expected."""


def found_by_pydantic(error: ValidationError, values: dict[str, Any], missing: Callable[[str], str]) -> list[Mistake]:
    """The mistakes of a pydantic error in order of ``values``, one a place, with what each branch of a union expected.

    Args:
        error: of a model that was given ``values``.
        values: a mapping.
        missing: what to say of a field that is not there.
    """
    expected: dict[Place, tuple[list[str], Any]] = {}
    found: dict[Place, list[Mistake]] = {}
    for item in error.errors(include_url=False):
        place, inside = _in(values, item["loc"]), item.get("ctx") or {}
        if item["type"] == "mistakes":
            found.setdefault(place, []).extend(m.below(place) for m in inside["found"])
        elif item["type"] == "extra_forbidden":
            found[place] = [Mistake(place, "unknown key", unknown=True)]
        elif item["type"] == "missing" and len(item["loc"]) == 1:
            found[place] = [Mistake((str(item["loc"][0]),), missing(str(item["loc"][0])))]
        else:
            expected.setdefault(place, ([], item["input"]))[0].append(_expectation(item["type"], inside, item["msg"]))
    for place, (texts, given) in expected.items():
        deeper = any(other[: len(place)] == place and other != place for other in (*expected, *found))
        if not deeper and not (place in found and isinstance(given, dict)):
            text = f"expected {' or '.join(dict.fromkeys(texts))}, got {shown(given)}{_hint(texts, given)}"
            found[place] = [Mistake(place, text)]
    order: dict[Any, int] = {key: position for position, key in enumerate(values)}
    return sorted(
        (mistake for mistakes in found.values() for mistake in mistakes),
        key=lambda mistake: order.get(mistake.place[0] if mistake.place else None, len(order)),
    )


def _expectation(kind: str, inside: dict[str, Any], message: str) -> str:
    if kind == "missing":
        return "more items"
    bounds = {name: f"{bound:g}" if isinstance(bound, float) else bound for name, bound in inside.items()}
    return _EXPECTED[kind].format(**bounds) if kind in _EXPECTED else message[:1].lower() + message[1:]


def _hint(texts: list[str], given: Any) -> str:
    if "an int" in texts and isinstance(given, float) and given.is_integer():
        return f" (write {int(given)})"
    if isinstance(given, str):
        return nearest(given, [name for text in texts for name in text.split("'")[1::2]])
    return ""


def _in(values: Any, place: tuple[str | int, ...]) -> Place:
    """``place`` without what pydantic adds to it: the names of a union's branches, and a missing last part."""
    kept: list[str | int] = []
    for part in place:
        in_list = isinstance(values, list) and isinstance(part, int) and part < len(values)
        if in_list or (isinstance(values, dict) and part in values):
            kept.append(part)
            values = values[part]
    return tuple(kept)
