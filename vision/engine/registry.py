"""Names -> classes. A class's typed constructor is its configuration schema."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import entry_points
from typing import Any, TypeVar, get_type_hints

from torch import nn

from vision.engine.data import DataModule
from vision.engine.errors import ConfigError, nearest
from vision.engine.mistakes import a
from vision.engine.signature import origin_of
from vision.engine.task import Task

Factory = TypeVar("Factory", bound=Callable[..., Any])

BUILT_IN = (
    "vision.engine.optim",
    "vision.deploy.step",
    "vision.classification",
    "vision.infrared",
    "vision.pose",
    "snn",
    "robust",
)
"""Modules whose import registers what the package ships."""

GIVEN: dict[str, tuple[str, ...]] = {
    "task": ("data",),
    "optimizer": ("parameters",),
    "schedule": ("optimizer", "total_steps", "steps_per_epoch"),
    "codec": ("input_size",),
}
"""Arguments that the trainer, or a task, gives to what it builds of a kind; no recipe holds them."""


@dataclass(frozen=True)
class OfKind:
    """Marks an annotation, ``Annotated[T, OfKind("loss")]``, as a block of entries of one kind.

    The argument is what the block builds; where ``T`` is :data:`~vision.engine.recipe.Block`, it is the block itself,
    checked, for whoever takes it to build later.

    Attributes:
        kind: of the entries.
    """

    kind: str


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

    Example::

        @register("tiny_example_network")
        def tiny(width: int = 4) -> nn.Module:
            return nn.Linear(width, 2)

        build({"type": "tiny_example_network", "width": 3}).in_features  # 3
    """

    def add(factory: Factory) -> Factory:
        entry = Entry(name, kind or _kind_of(name, factory), factory)
        taken = _entries.get(name)
        if taken is not None and origin_of(taken.factory) != origin_of(factory):
            raise ConfigError(f"'{name}' is registered twice: by {origin_of(taken.factory)} and {origin_of(factory)}")
        _entries[name] = entry
        return factory

    return add


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
    _loaded = True  # before the imports: what they import may ask for names itself
    try:
        for name in BUILT_IN:
            package = importlib.import_module(name)
            for found in pkgutil.iter_modules(getattr(package, "__path__", ()), f"{name}."):
                importlib.import_module(found.name)
        for plugin in entry_points(group="triptych"):
            _load_plugin(plugin.name, plugin.value, plugin.load)
    except BaseException:
        _loaded = False
        raise


def _load_plugin(name: str, value: str, load: Callable[[], Any]) -> None:
    try:
        load()
    except Exception as error:
        raise ConfigError(f"plug-in '{name}' ({value}) cannot be imported: {error}; mend or uninstall it") from error


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
        raise ConfigError(f"'{name}' is {a(entry.kind)}, expected {a(kind)}: {some(names(kind=kind))}")
    return entry


def entries(kind: str | None = None) -> list[Entry]:
    """Every registered entry, by name; of one kind where ``kind`` is given."""
    load_all()
    return sorted((e for e in _entries.values() if kind in (None, e.kind)), key=lambda e: e.name)


def names(pattern: str = "*", kind: str | None = None) -> list[str]:
    """Registered names that match a glob, sorted; of one kind where ``kind`` is given."""
    return [e.name for e in entries(kind) if fnmatchcase(e.name, pattern)]


def list_models(pattern: str = "*") -> list[str]:
    """Registered networks whose names match a glob, sorted: ``list_models("mamkpd*")``.

    Example:
        >>> list_models("tbc*")
        ['tbcnet']
    """
    return names(pattern, kind="network")


def some(known: Sequence[str], most: int = 8) -> str:
    """The first few of ``known`` as text."""
    listed = ", ".join(known[:most]) or "none is registered"
    return f"{listed}, ..." if len(known) > most else listed


def build(block: dict[str, Any] | str, kind: str | None = None, **given: Any) -> Any:
    """Builds what a block of a recipe describes: ``{"type": name, ...arguments}``.

    Args:
        block: validated against the constructor's annotations first; blocks inside it are built first. A bare name
            stands for ``{"type": name}``.
        kind: what is expected.
        given: arguments that no recipe holds (a task's ``data``, an optimiser's parameters).

    Raises:
        ConfigError: as :func:`vision.engine.schema.validate` tells, or the constructor refuses a value.
    """
    from vision.engine.schema import validate  # the schema asks the registry for nested types

    arguments = validate(block, kind=kind, given=tuple(given))
    name = block if isinstance(block, str) else block["type"]
    return make(find(name, kind), {**arguments, **given})


def make(entry: Entry, arguments: dict[str, Any]) -> Any:
    """Calls an entry's factory with validated arguments.

    Raises:
        ConfigError: the factory refuses a value (its ValueError says why), or torch does: a size below 0, or more
            memory than there is. Any other RuntimeError is a fault of the factory, and is let through.
    """
    try:
        return entry.factory(**arguments)
    except ValueError as error:
        raise ConfigError(f"'{entry.name}' cannot be built: {_first_line(error)}") from error
    except (ArithmeticError, MemoryError, RuntimeError) as error:
        reason = _refusal(error)
        if reason is None:
            raise
        numbers = ", ".join(f"{name}: {value}" for name, value in arguments.items() if _is_numbers(value))
        raise ConfigError(f"'{entry.name}' cannot be built of {numbers or 'what is given'}: {reason}") from error


def _refusal(error: Exception) -> str | None:
    """Why torch refuses a size; None where the error is of something else."""
    told = _first_line(error)
    if isinstance(error, MemoryError) or "allocate memory" in told or "out of memory" in told:
        return "it takes more memory than there is"
    sizes = ("negative dimension", "overflow", "must be non-negative", "must be greater or equal to 0", "std >= 0")
    return told if isinstance(error, ArithmeticError) or any(words in told for words in sizes) else None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _is_numbers(value: Any) -> bool:
    """Whether it is a number or a list of them."""
    if isinstance(value, list | tuple):
        return bool(value) and all(map(_is_numbers, value))
    return isinstance(value, int | float) and not isinstance(value, bool)
