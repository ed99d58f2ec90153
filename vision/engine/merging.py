"""How recipes combine: ``extends``, overrides ``a.b=c``, and variables ``${NAME}``."""

import os
import re
from dataclasses import replace
from pathlib import Path

from vision.engine.errors import ConfigError, nearest
from vision.engine.mistakes import dotted
from vision.engine.sources import COMMAND_LINE, Node, parse, read_file, scalar


def merge(base: Node, over: Node) -> Node:
    """``over`` laid on ``base``: mappings merge key by key, everything else is replaced.

    A block of another ``type`` is replaced whole, because its arguments belong to another constructor; a bare name
    stands for a block of that type here too.
    """
    if isinstance(base.value, str) and isinstance(over.value, dict):
        base = _block_of(base)
    elif isinstance(over.value, str) and isinstance(base.value, dict) and "type" in base.value:
        over = _block_of(over)
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    before, after = base.value.get("type"), over.value.get("type")
    if before is not None and after is not None and before.value != after.value:
        return over
    merged = {key: merge(node, over.value[key]) if key in over.value else node for key, node in base.value.items()}
    return replace(over, value={**merged, **{k: n for k, n in over.value.items() if k not in merged}})


def _block_of(name: Node) -> Node:
    return Node({"type": name}, name.place)


def load_file(path: Path, above: tuple[Path, ...] = ()) -> Node:
    """A file merged onto what it extends.

    Args:
        path: the file.
        above: the files that extend it, outermost first.

    Raises:
        ConfigError: a file is missing or broken, or extends itself; with file and line.
    """
    node = read_file(path, shown_path(path))
    trail = (*above, path.resolve())
    node = _extended(node, path, trail)
    stages = node.value.get("stages") if isinstance(node.value, dict) else None
    if stages is not None and isinstance(node.value, dict) and isinstance(stages.value, list):
        opened = [_extended(stage, path, trail) for stage in stages.value]
        node = replace(node, value={**node.value, "stages": replace(stages, value=opened)})
    return node


def shown_path(path: Path) -> str:
    """A path as messages show it: from the working directory where it is below that."""
    full = Path(os.path.normpath(path.absolute()))
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(full)


def _extended(node: Node, path: Path, trail: tuple[Path, ...]) -> Node:
    """A mapping of the file ``path``, merged onto what its ``extends`` names."""
    if not isinstance(node.value, dict) or "extends" not in node.value:
        return node
    named = node.value["extends"]
    own = replace(node, value={key: item for key, item in node.value.items() if key != "extends"})
    merged: Node | None = None
    for item in named.value if isinstance(named.value, list) else [named]:
        base = load_file(_base_path(item, path, trail), trail)
        merged = base if merged is None else merge(merged, base)
    return own if merged is None else merge(merged, own)


def _base_path(item: Node, path: Path, trail: tuple[Path, ...]) -> Path:
    text = with_variables(item).value
    if not isinstance(text, str):
        raise ConfigError(f"{item.place}: extends: expected a path or a list of paths, got {item.tree()!r}")
    base = path.parent / Path(text).expanduser()
    if not base.is_file():
        siblings = [p.name for p in base.parent.glob("*.yaml")] if base.parent.is_dir() else []
        raise ConfigError(f"{item.place}: extends: no file {shown_path(base)}{nearest(base.name, siblings)}")
    if base.resolve() in trail:
        circle = " -> ".join(p.name for p in (*trail[trail.index(base.resolve()) :], base))
        raise ConfigError(f"{item.place}: extends: the files extend each other in a circle: {circle}")
    return base


def parse_override(text: str) -> tuple[list[str], Node]:
    """The path and value of an override ``a.b=c``; the value is a YAML scalar, ``[list]`` or ``{mapping}``.

    Raises:
        ConfigError: there is no ``=``, a part of the path is empty, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"{COMMAND_LINE}: '{text}': expected key=value, such as trainer.epochs=3")
    node = parse(value, lambda line: f"{COMMAND_LINE}: {key}")
    if isinstance(node.value, dict | list) and value.lstrip()[:1] not in ("{", "["):
        node = Node(value.strip(), COMMAND_LINE, plain=True)  # prose such as "note: this"
    return parts, _from_command_line(node)


def _from_command_line(node: Node) -> Node:
    if isinstance(node.value, dict):
        return Node({key: _from_command_line(item) for key, item in node.value.items()}, COMMAND_LINE)
    if isinstance(node.value, list):
        return Node([_from_command_line(item) for item in node.value], COMMAND_LINE)
    return replace(node, place=COMMAND_LINE)


def put(node: Node, parts: list[str], value: Node, above: tuple[str, ...] = ()) -> Node:
    """``node`` with ``value`` merged in at the path ``parts``; mappings on the way are made.

    An item of a list is named by its position, a stage of a pipeline also by its name.

    Raises:
        ConfigError: the path leads through a number, or to an item that is not there.
    """
    if not parts:
        return merge(node, value)
    first, rest = parts[0], parts[1:]
    here = (*above, first)
    if isinstance(node.value, list):
        position = _position(node.value, first, here)
        items = list(node.value)
        items[position] = put(items[position], rest, value, here)
        return replace(node, value=items)
    if isinstance(node.value, str):
        node = _block_of(node)
    if node.value is not None and not isinstance(node.value, dict):
        raise ConfigError(f"{COMMAND_LINE}: {dotted(here)}: '{dotted(above)}' is {node.tree()!r}, not a mapping")
    if first == "type" and not rest:
        return merge(node, Node({"type": value}, COMMAND_LINE))
    entries = node.value or {}
    inner = entries.get(first, Node(None, COMMAND_LINE))
    return replace(node, value={**entries, first: put(inner, rest, value, here)})


def _position(items: list[Node], name: str, here: tuple[str, ...]) -> int:
    names = [str(item.value["name"].value) for item in items if isinstance(item.value, dict) and "name" in item.value]
    if name.isdecimal() and int(name) < len(items):
        return int(name)
    if len(names) == len(items) and name in names:
        return names.index(name)
    known = names or [f"positions 0 to {len(items) - 1}" if items else "none: the list is empty"]
    raise ConfigError(
        f"{COMMAND_LINE}: {dotted(here)}: no item '{name}'{nearest(name, names)}; there are {', '.join(known)}"
    )


_VARIABLE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_NAMED = re.compile(r"([A-Za-z_]\w*)(?::-(.*))?", re.DOTALL)


def with_variables(node: Node) -> Node:
    """``node`` with every ``${NAME}`` and ``${NAME:-default}`` replaced from the environment.

    As in a shell, the default also stands for an empty variable. ``$${`` is a literal ``${``. An unquoted value is
    read again afterwards, so that ``workers: ${WORKERS:-2}`` is an int. ``${stages. ...}`` is left to the pipeline.

    Raises:
        ConfigError: a variable without a default is not set, or the braces hold no name; with file and line.
    """
    if isinstance(node.value, dict):
        return replace(node, value={key: with_variables(item) for key, item in node.value.items()})
    if isinstance(node.value, list):
        return replace(node, value=[with_variables(item) for item in node.value])
    if not isinstance(node.value, str) or "${" not in node.value:
        return node
    text = _VARIABLE.sub(lambda match: _replacement(match, node.place), node.value)
    return replace(node, value=scalar(text) if node.plain and text else text, plain=False)


def _replacement(match: "re.Match[str]", place: str) -> str:
    inside: str | None = match[1]
    if match[0] == "$${":
        return "${"
    if inside is not None and inside.startswith("stages."):
        return match[0]
    named = _NAMED.fullmatch(inside or "")
    if named is None:
        raise ConfigError(
            f"{place}: '{match[0]}' is no variable; expected ${{NAME}} or ${{NAME:-default}} ($${{ for the text ${{)"
        )
    found = os.environ.get(named[1], "")
    if found or named[2] is not None:
        return found or named[2]
    if named[1] in os.environ:
        return ""
    raise ConfigError(f"{place}: the variable {named[1]} is not set; set it, or give a default: ${{{named[1]}:-...}}")


def escaped(text: str) -> str:
    """``text`` such that :func:`with_variables` gives it back."""
    return re.sub(r"\$\{(?!stages\.)", "$${", text)
