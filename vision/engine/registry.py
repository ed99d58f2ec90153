"""Names -> classes. A class's typed constructor is its configuration schema."""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import entry_points
from typing import Any, TypeVar, get_type_hints

from torch import nn

from vision.engine.data import DataModule
from vision.engine.errors import ConfigError, nearest
from vision.engine.task import Task

Factory = TypeVar("Factory", bound=Callable[..., Any])

BUILT_IN = ("vision.engine.optim", "vision.classification", "vision.infrared")
"""Modules whose import registers what the package ships."""

_KINDS: tuple[tuple[str, type], ...] = (("task", Task), ("data", DataModule), ("network", nn.Module))


@dataclass(frozen=True)
class Entry:
    """One registered name.

    Attributes:
        name: what a recipe writes after ``type:``.
        kind: ``task``, ``data``, ``network``, ``loss``, ``optimizer``, ``schedule`` or ``step``.
        factory: the class or function that builds it.
    """

    name: str
    kind: str
    factory: Callable[..., Any]

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.factory) or "").partition("\n")[0]


_entries: dict[str, Entry] = {}
_loaded = False


def register(name: str, kind: str | None = None) -> Callable[[Factory], Factory]:
    """Registers a class or function under ``name``, so that a recipe can say ``type: name``.

    Args:
        name: unique over all kinds.
        kind: what it builds. By default told from the class, or from a function's return annotation:
            a Task, a DataModule or any other nn.Module (a network).

    Raises:
        ConfigError: the name is taken by something else, or the kind cannot be told.

    Example:
        >>> @register("tiny_example_network")
        ... def tiny(width: int = 4) -> nn.Module:
        ...     return nn.Linear(width, 2)
        >>> build({"type": "tiny_example_network", "width": 3}).in_features
        3
    """

    def add(factory: Factory) -> Factory:
        entry = Entry(name, kind or _kind_of(name, factory), factory)
        taken = _entries.get(name)
        if taken is not None and _origin(taken.factory) != _origin(factory):
            raise ConfigError(f"'{name}' is registered twice: by {_origin(taken.factory)} and {_origin(factory)}")
        _entries[name] = entry
        return factory

    return add


def _origin(factory: Callable[..., Any]) -> str:
    return f"{factory.__module__}.{factory.__qualname__}"


def _kind_of(name: str, factory: Callable[..., Any]) -> str:
    made = factory if inspect.isclass(factory) else get_type_hints(factory).get("return")
    for kind, base in _KINDS:
        if inspect.isclass(made) and issubclass(made, base):
            return kind
    raise ConfigError(f"register('{name}'): cannot tell what it builds; annotate the return type or give kind=")


def load_all() -> None:
    """Imports everything that registers names: the package's own modules, then plug-ins (entry points ``triptych``).

    Raises:
        ConfigError: a plug-in cannot be imported; it is named.
    """
    global _loaded
    if _loaded:
        return
    _loaded = True
    for module in BUILT_IN:
        importlib.import_module(module)
    for plugin in entry_points(group="triptych"):
        try:
            plugin.load()
        except Exception as error:
            raise ConfigError(
                f"plug-in '{plugin.name}' ({plugin.value}) cannot be imported: {error}; mend or uninstall it"
            ) from error


def find(name: str, kind: str | None = None) -> Entry:
    """The entry called ``name``.

    Raises:
        ConfigError: no such name, or one of another kind; with the nearest name.
    """
    load_all()
    entry = _entries.get(name)
    if entry is None:
        raise ConfigError(f"nothing is registered as '{name}'{nearest(name, names(kind=kind))}")
    if kind is not None and entry.kind != kind:
        raise ConfigError(f"'{name}' is a {entry.kind}, expected a {kind}: {', '.join(names(kind=kind)) or 'none'}")
    return entry


def names(pattern: str = "*", kind: str | None = None) -> list[str]:
    """Registered names that match a glob, sorted; of one kind where ``kind`` is given."""
    load_all()
    return sorted(
        e.name for e in _entries.values() if fnmatchcase(e.name, pattern) and kind in (None, e.kind)
    )


def build(block: dict[str, Any], kind: str | None = None, **given: Any) -> Any:
    """Builds what a block of a recipe describes: ``{"type": name, ...arguments}``.

    Args:
        block: validated against the constructor's annotations first; blocks inside it are built first.
        kind: what is expected.
        given: arguments that no recipe holds (a task's ``data``, an optimiser's parameters).

    Raises:
        ConfigError: as :func:`vision.engine.schema.validate` tells.
    """
    from vision.engine.schema import validate  # the schema asks the registry for nested types

    arguments = validate(block, kind=kind, given=tuple(given))
    return find(block["type"], kind).factory(**arguments, **given)
