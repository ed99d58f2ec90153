"""Seeded mistakes in recipes, with what must come of each, and the test that an accepted recipe means what it says."""

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.reliability.outcomes import Expected
from vision.engine.sources import parse, to_text

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Mutation:
    """A recipe with a mistake in it.

    Attributes:
        kind: of the mistake.
        what: which one.
        content: the file.
        expected: what must come of it.
        names: an error must hold one of these, or the file's name.
    """

    kind: str
    what: str
    content: bytes
    expected: Expected
    names: tuple[str, ...] = ()


def leaves(tree: Any, place: Place = ()) -> Iterator[Place]:
    """The place of every scalar in a tree of dictionaries and lists."""
    if isinstance(tree, dict | list):
        for key, item in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(item, (*place, key))
    else:
        yield place


def keys(tree: Any, place: Place = ()) -> Iterator[Place]:
    """The place of every key of a mapping in a tree."""
    if isinstance(tree, dict | list):
        for key, item in tree.items() if isinstance(tree, dict) else enumerate(tree):
            if isinstance(tree, dict):
                yield (*place, key)
            yield from keys(item, (*place, key))


def at(tree: Any, place: Place) -> Any:
    """The value at a place."""
    for part in place:
        tree = tree[part]
    return tree


def with_value(tree: Any, place: Place, value: Any) -> Any:
    """A copy with another value at a place."""
    found = copy.deepcopy(tree)
    at(found, place[:-1])[place[-1]] = value
    return found


def dotted(place: Place) -> str:
    """As a user writes it."""
    return ".".join(map(str, place))


def _plain(tree: Any, luck: random.Random, wanted: Callable[[Any], bool]) -> Place | None:
    found = [p for p in leaves(tree) if wanted(at(tree, p)) and p[-1] not in ("extends",)]
    return luck.choice(found) if found else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def renamed(tree: Any, text: str, luck: random.Random) -> Mutation | None:
    """A key with a letter too few, too many or swapped."""
    place = luck.choice(list(keys(tree)))
    key = str(place[-1])
    spot = luck.randrange(len(key))
    other = luck.choice([key[:spot] + key[spot + 1 :], key[:spot] + "x" + key[spot:], f"{key}_"])
    parent = copy.deepcopy(at(tree, place[:-1]))
    swapped = {(other if k == place[-1] else k): v for k, v in parent.items()}
    whole = with_value(tree, place[:-1], swapped) if len(place) > 1 else swapped
    return Mutation("renamed key", f"{dotted(place)} -> {other}", to_text(whole).encode(), "refused", (other, key))


def removed(tree: Any, text: str, luck: random.Random) -> Mutation | None:
    """A key left out."""
    place = luck.choice(list(keys(tree)))
    found = copy.deepcopy(tree)
    del at(found, place[:-1])[place[-1]]
    return Mutation(
        "removed key", dotted(place), to_text(found).encode(), "either", (str(place[-1]), dotted(place[:-1]) or "name")
    )


def doubled(tree: Any, text: str, luck: random.Random) -> Mutation | None:
    """A line of the file given twice; only lines that hold a whole key."""
    lines = text.splitlines()
    whole = [number for number in range(len(lines)) if _holds_a_key(lines, number)]
    if not whole:
        return None
    number = luck.choice(whole)
    found = [*lines[: number + 1], lines[number], *lines[number + 1 :]]
    return Mutation("duplicated key", lines[number].strip()[:40], "\n".join(found).encode(), "refused", ("twice",))


def _holds_a_key(lines: list[str], number: int) -> bool:
    """Whether a line is one key with all of its value."""
    line = lines[number]
    closed = line.count("{") == line.count("}") and line.count("[") == line.count("]")
    goes_on = number + 1 < len(lines) and lines[number + 1].startswith("    ") and not line.startswith(" ")
    return closed and not goes_on and ":" in line and not line.lstrip().startswith(("#", "-")) and line[-1] != ":"


def wrong_type(tree: Any, text: str, luck: random.Random) -> Mutation | None:
    """A value of a type that its field does not take."""
    place = _plain(tree, luck, lambda v: v is not None and not (isinstance(v, str) and "${" in v))
    if place is None:
        return None
    value = at(tree, place)
    others: list[Any] = [{"a": {"b": 1}}, [[1]]]
    others += ["many"] if _is_number(value) or isinstance(value, bool) else [3.5, True]
    other = luck.choice(others)
    content = to_text(with_value(tree, place, other)).encode()
    what = f"{dotted(place)}: {value!r} -> {other!r}"
    return Mutation("wrong type", what, content, "refused", (str(place[-1]), str(place[0])))


def nothing(tree: Any, text: str, luck: random.Random) -> Mutation | None:
    """A value that is null."""
    place = _plain(tree, luck, lambda v: v is not None)
    if place is None:
        return None
    return Mutation(
        "null",
        dotted(place),
        to_text(with_value(tree, place, None)).encode(),
        "either",
        (str(place[-1]), *map(str, place)),
    )


NUMBERS: tuple[tuple[str, float | int], ...] = (
    ("nan", float("nan")), ("inf", float("inf")), ("-inf", float("-inf")), ("huge", 10**9), ("beyond int64", 10**30),
    ("1e300", 1e300), ("-1", -1), ("-0.5", -0.5), ("0", 0), ("tiny", 1e-300),
)  # fmt: skip


def odd_number(tree: Any, text: str, luck: random.Random) -> Mutation | None:
    """A number that is nan, infinite, huge or negative; nan says nothing, so it must be refused."""
    place = _plain(tree, luck, _is_number)
    if place is None:
        return None
    name, value = luck.choice(NUMBERS)
    return Mutation("odd number", f"{dotted(place)}: {name}", to_text(with_value(tree, place, value)).encode(),
                    "refused" if name == "nan" else "either", (str(place[-1]), *map(str, place)))  # fmt: skip


def truncated(tree: Any, text: str, luck: random.Random) -> Mutation | None:
    """The file up to a random byte."""
    content = text.encode()
    length = luck.randrange(len(content))
    return Mutation(
        "truncated", f"{length} of {len(content)} bytes", content[:length], "either", ("task", "data", "stages", "name")
    )


def indented(tree: Any, text: str, luck: random.Random) -> Mutation | None:
    """A line moved right or left, or begun with a tab."""
    lines = text.splitlines()
    number = luck.choice([i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")])
    shift = luck.choice([" ", "   ", "\t", "-"])
    lines[number] = lines[number].removeprefix(" ") if shift == "-" else shift + lines[number]
    return Mutation(
        "bad indentation",
        f"line {number + 1}, {shift!r}",
        "\n".join(lines).encode(),
        "either",
        ("task", "data", "stages"),
    )


def anchored(tree: Any, text: str, luck: random.Random) -> Mutation | None:
    """Anchors and aliases: unknown, of itself, of billions, merged by '<<', and one that is right."""
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
    )
    name, extra, expected = luck.choice([
        ("unknown alias", "output: *nowhere\n", "refused"), ("alias of itself", "description: &d [*d]\n", "refused"),
        ("billions", laughs, "refused"), ("merge key", "<<: {seed: 1}\n", "refused"),
        ("right", "seed: &s 3\n", "accepted"),
    ])  # fmt: skip
    kept = {k: v for k, v in tree.items() if k not in ("output", "seed", "description")}
    return Mutation("anchors", name, (to_text(kept) + extra).encode(), expected, ("alias", "<<"))  # type: ignore[arg-type]


def unknown_type(tree: Any, text: str, luck: random.Random) -> Mutation | None:
    """A type that is not registered, among them names of modules that Python could import."""
    places = [p for p in keys(tree) if p[-1] == "type"]
    if not places:
        return None
    place, value = (
        luck.choice(places),
        luck.choice(["os.system", "builtins.eval", "torch.nn.Linear", "", "__import__", 7, "x" * 300]),
    )
    content = to_text(with_value(tree, place, value)).encode()
    what = f"{dotted(place)}: {str(value)[:20]!r}"
    return Mutation("unknown type", what, content, "refused", ("type", dotted(place[:-1])))


def wrong_reference(tree: Any, text: str, luck: random.Random) -> Mutation | None:
    """A variable or a stage that is not there."""
    place = _plain(tree, luck, lambda v: isinstance(v, str | int | float))
    if place is None or place[-1] == "name":
        return None
    value = luck.choice(
        ["${stages.nobody.best}", "${NO_SUCH_VARIABLE}", "${", "${stages.x}", "${a b}", "$${stages.nobody.run}x${"]
    )
    return Mutation("wrong reference", f"{dotted(place)}: {value}", to_text(with_value(tree, place, value)).encode(),
                    "refused", (str(place[-1]), "variable"))  # fmt: skip


def odd_text(tree: Any, text: str, luck: random.Random) -> Mutation | None:
    """Unicode where it is harmless, where it is not, and bytes that are none."""
    content, name = text.encode(), luck.choice(list(UNICODE))
    found, expected = UNICODE[name](content)
    return Mutation("unicode", name, found, expected, ("unknown key", "YAML", "\u200b"))


UNICODE: dict[str, Callable[[bytes], tuple[bytes, Expected]]] = {
    "byte order mark": lambda c: (b"\xef\xbb\xbf" + c, "accepted"),
    "UTF-16": lambda c: (c.decode().encode("utf-16"), "accepted"),
    "NUL": lambda c: (c + b"x: \x00\n", "refused"),
    "no UTF-8": lambda c: (c + b"description: \xff\xfe\n", "refused"),
    "zero-width space in a key": lambda c: (c + "se\u200bed: 1\n".encode(), "refused"),
    "Cyrillic letter in a key": lambda c: (c + "s\u0435ed: 1\n".encode(), "refused"),
    "emoji in a comment": lambda c: (c + "# \U0001f600\n".encode(), "accepted"),
    "right-to-left mark in a key": lambda c: (c + "\u202eseed: 1\n".encode(), "refused"),
    "surrogate escape": lambda c: (c + b'"\\ud800": 1\n', "refused"),
    "carriage returns": lambda c: (c.replace(b"\n", b"\r\n"), "accepted"),
}

MUTATORS: tuple[Callable[[Any, str, random.Random], Mutation | None], ...] = (
    renamed, removed, doubled, wrong_type, nothing, odd_number, odd_number, truncated, indented, anchored,
    unknown_type, wrong_reference, odd_text,
)  # fmt: skip


def mutations(recipes: dict[str, str], count: int, seed: int) -> list[tuple[str, Mutation]]:
    """So many mistakes, every mutator in turn, each in a recipe drawn from ``recipes`` (texts by name)."""
    luck, found = random.Random(seed), []
    while len(found) < count:
        mutate = MUTATORS[len(found) % len(MUTATORS)]
        name = luck.choice(sorted(recipes))
        made = mutate(parse(recipes[name], str).tree(), recipes[name], luck)
        if made is not None:
            found.append((name, made))
    return found


def lost(written: Any, resolved: Any, place: Place = ()) -> list[str]:
    """What a file says and its resolved recipe does not, by place; empty where it means what it says.

    Args:
        written: what ``yaml.BaseLoader`` read: every scalar as its text.
        resolved: :attr:`vision.engine.config.Config.tree`.
        place: of both.

    Example:
        >>> lost({"seed": "3", "trainer": {"epochs": "1e1"}}, {"seed": 3, "trainer": {"epochs": 10.0}})
        []
        >>> lost({"seed": "3"}, {"seed": 4})
        ["seed: '3' became 4"]
    """
    if isinstance(written, str) and isinstance(resolved, dict):
        resolved = resolved.get("type")
    if isinstance(written, dict):
        if isinstance(resolved, str) and set(written) == {"type"}:
            return lost(written["type"], resolved, place)
        if not isinstance(resolved, dict):
            return [f"{dotted(place)}: a mapping became {resolved!r}"]
        found = []
        for key, item in written.items():
            if key == "extends":
                continue
            inside = [resolved[key]] if key in resolved else _in_stages(resolved, key)
            ways = [lost(item, each, (*place, key)) for each in inside]
            if all(ways):  # none, or none that agrees
                found += ways[0] if ways else [f"{dotted((*place, key))}: is not there"]
        return found
    if isinstance(written, list):
        if not isinstance(resolved, list) or len(written) != len(resolved):
            return [f"{dotted(place)}: a list became {resolved!r}"]
        return [x for i, (a, b) in enumerate(zip(written, resolved, strict=True)) for x in lost(a, b, (*place, i))]
    return [] if is_meant(written, resolved) else [f"{dotted(place)}: {written!r} became {resolved!r}"]


def _in_stages(resolved: dict[str, Any], key: str) -> list[Any]:
    stages = resolved.get("stages")
    return [s[key] for s in stages if isinstance(s, dict) and key in s] if isinstance(stages, list) else []


def is_meant(text: str, value: Any) -> bool:
    """Whether a scalar's text may stand for a value; texts with variables may for any."""
    if "${" in text or (isinstance(value, str) and text == value):
        return True
    if value is None or isinstance(value, bool):
        return text.lower() in {None: ("", "~", "null"), True: ("true",), False: ("false",)}[value]
    try:
        number = (
            float(text.lower().replace(".inf", "inf").replace(".nan", "nan")) if "0x" not in text else int(text, 16)
        )
    except ValueError:
        return False
    return bool(isinstance(value, int | float) and (number == value or (number != number and value != value)))
