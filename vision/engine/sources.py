"""YAML text -> values that know their file and line, and back.

The YAML is version 1.2's core: ``1e-4`` and ``1e4`` are numbers; only ``true`` and ``false`` are truth values, so
``on``, ``off``, ``yes`` and ``no`` are strings; ``010`` is ten, ``1:30`` and ``2024-01-01`` are strings. Keys are
strings as they are written. A key given twice, a tag that asks for a Python object, and ``<<`` are refused.
"""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vision.engine.errors import ConfigError
from vision.engine.mistakes import Place, shown

COMMAND_LINE = "command line"
"""The place of what an override gives."""

MOST_NODES = 100_000
"""Values a file may hold once its aliases are written out: a few lines of them can stand for billions."""

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Node:
    """A value of a recipe, and where it stands.

    Attributes:
        value: a scalar, or a dictionary or list of nodes.
        place: ``file:line`` or :data:`COMMAND_LINE`.
        plain: an unquoted string; it is read again as a number and so on when a variable in it has been replaced.
    """

    value: "dict[str, Node] | list[Node] | Scalar"
    place: str
    plain: bool = False

    def tree(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: node.tree() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.tree() for node in self.value]
        return self.value

    def places(self, above: Place = ()) -> dict[Place, str]:
        """The place of this value and of everything in it."""
        found = {above: self.place}
        if isinstance(self.value, dict):
            for key, node in self.value.items():
                found |= node.places((*above, key))
        elif isinstance(self.value, list):
            for position, node in enumerate(self.value):
                found |= node.places((*above, position))
        return found


def node_of(value: Any, place: str) -> Node:
    """A plain value as a node.

    Raises:
        ConfigError: it holds something that is no plain value.
    """
    if isinstance(value, dict):
        return Node({str(key): node_of(item, place) for key, item in value.items()}, place)
    if isinstance(value, list | tuple):
        return Node([node_of(item, place) for item in value], place)
    if isinstance(value, os.PathLike):
        return Node(os.fspath(value), place)
    if value is None or isinstance(value, str | int | float):
        return Node(value, place)
    raise ConfigError(f"{place}: a recipe holds plain values only, not a {type(value).__name__}")


_TAG = "tag:yaml.org,2002:"
_IMPLICIT: tuple[tuple[str, str, str], ...] = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
)
"""What an unquoted scalar may be besides a string: tag, pattern, first characters."""


def _integer(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text[2:] if base != 10 else text, base)


def _number(text: str) -> float:
    return float(re.sub(r"\.(inf|nan)", r"\1", text.lower()))


_SCALARS: dict[str, Callable[[str], Scalar]] = {
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": _integer,
    "float": _number,
    "str": str,
}


_TAGS: dict[type[yaml.Node], Iterable[str]] = {
    yaml.MappingNode: ("map",),
    yaml.SequenceNode: ("seq",),
    yaml.ScalarNode: tuple(_SCALARS),
}


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the scalars of YAML 1.2; its nodes are never turned into objects by PyYAML."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own declaration


class _Dumper(yaml.SafeDumper):
    """Writes what :class:`_Loader` reads; quotes what either version of YAML would take for something else."""

    yaml_implicit_resolvers = {first: list(known) for first, known in yaml.SafeDumper.yaml_implicit_resolvers.items()}  # noqa: RUF012


for _name, _pattern, _first in _IMPLICIT:
    for _yaml in (_Loader, _Dumper):
        _yaml.add_implicit_resolver(
            _TAG + _name, re.compile(f"^(?:{_pattern})$"), ["" if c == "\0" else c for c in _first]
        )


def _short_lists(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.Node:
    flat = not any(isinstance(value, dict | list) for value in values)
    return dumper.represent_sequence(f"{_TAG}seq", values, flow_style=flat)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    breaks = any(character in text for character in "\x85\u2028\u2029")  # PyYAML loses these outside double quotes
    return dumper.represent_scalar(f"{_TAG}str", text, style='"' if breaks else None)


_Dumper.add_representer(list, _short_lists)
_Dumper.add_representer(str, _text)
_Dumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]


def to_text(tree: Any) -> str:
    """A tree as YAML, keys in their order."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def scalar(text: str) -> Scalar:
    """What an unquoted scalar stands for.

    Example:
        >>> [scalar(text) for text in ("1e-4", "10", "off", "true", "~")]
        [0.0001, 10, 'off', True, None]
    """
    for name, pattern, _ in _IMPLICIT:
        if re.fullmatch(pattern, text):
            return _SCALARS[name](text)
    return text


def read_file(path: Path, called: str) -> Node:
    """The mapping that a YAML file holds.

    Args:
        path: the file.
        called: its name in places and messages.

    Raises:
        ConfigError: it cannot be read, is not YAML, or holds no mapping; with the line.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{called}: cannot be read: {error.strerror or error}") from error
    node = parse(text, lambda line: f"{called}:{line}")
    if not isinstance(node.value, dict):
        got = shown(node.tree()) if text.strip() else "an empty file"
        raise ConfigError(f"{node.place}: expected a mapping of keys to values, got {got}")
    return node


def parse(text: str | bytes, place: Callable[[int], str]) -> Node:
    """YAML text as a node.

    Args:
        text: one document.
        place: of a line, counted from 1.

    Raises:
        ConfigError: on one line, with its place.
    """
    try:
        composed = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{place(mark.line + 1 if mark else 1)}: not valid YAML: {problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{place(1)}: not valid YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ConfigError(f"{place(1)}: nested too deeply") from None
    return Node(None, place(1)) if composed is None else _Converter(place).node(composed)


class _Converter:
    """PyYAML's nodes -> ours."""

    def __init__(self, place: Callable[[int], str]) -> None:
        self.place = place
        self.open: list[int] = []
        self.count = 0

    def node(self, composed: yaml.Node, line: int | None = None) -> Node:
        """One node; ``line`` is its key's."""
        place = self.place(line or composed.start_mark.line + 1)
        self.count += 1
        if self.count > MOST_NODES or id(composed) in self.open:
            raise ConfigError(f"{place}: an alias holds itself, or the file too many values ({MOST_NODES} at most)")
        tag = composed.tag.removeprefix(_TAG)
        if tag not in _TAGS[type(composed)]:
            raise ConfigError(f"{place}: the tag '{tag}' is not allowed; only registered names are built, by 'type'")
        self.open.append(id(composed))
        try:
            if isinstance(composed, yaml.MappingNode):
                return Node(self._mapping(composed), place)
            if isinstance(composed, yaml.SequenceNode):
                return Node([self.node(item) for item in composed.value], place)
            assert isinstance(composed, yaml.ScalarNode)
            return self._scalar(composed, tag, place)
        finally:
            self.open.pop()

    def _scalar(self, composed: yaml.ScalarNode, tag: str, place: str) -> Node:
        _require_characters(composed.value, place)
        try:
            return Node(_SCALARS[tag](composed.value), place, plain=tag == "str" and composed.style is None)
        except ValueError:
            raise ConfigError(f"{place}: {composed.value!r} is not of the tag '{tag}'") from None

    def _mapping(self, composed: yaml.MappingNode) -> dict[str, Node]:
        found: dict[str, Node] = {}
        lines: dict[str, int] = {}
        for key, value in composed.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{self.place(line)}: a key must be a word, not a list or mapping")
            name = key.value
            _require_characters(name, self.place(line))
            if name == "<<":
                raise ConfigError(f"{self.place(line)}: '<<' is not supported; use 'extends'")
            if name in found:
                raise ConfigError(f"{self.place(line)}: '{name}' is given twice, on lines {lines[name]} and {line}")
            found[name], lines[name] = self.node(value, line), line
        return found


def _require_characters(text: str, place: str) -> None:
    """Refuses half of a character, as the escape of a lone surrogate makes it: no file or message can hold it."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError(f"{place}: {text!r} holds half of a character (a lone surrogate); write the whole one")
