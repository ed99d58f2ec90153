"""The fields of a factory: names, types, defaults and descriptions, read from its signature and docstring."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from vision.engine.errors import ConfigError

REQUIRED = inspect.Parameter.empty
"""The default of a field that has none."""


@dataclass(frozen=True)
class Field:
    """One argument of a factory.

    Attributes:
        name: the parameter's name, and the key in a recipe.
        annotation: its type.
        default: its default, or :data:`REQUIRED`.
        description: what the docstring says of it.
    """

    name: str
    annotation: Any
    default: Any
    description: str

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is REQUIRED


@dataclass(frozen=True)
class Signature:
    """What a factory takes and makes.

    Attributes:
        fields: its named arguments, in order.
        open: whether it takes any further key (``**options``); ``*args, **kwargs``, as nn.Module has, takes none.
        product: the class it makes, or None where the annotation names none.
    """

    fields: dict[str, Field]
    open: bool
    product: type | None


@cache
def signature_of(factory: Callable[..., Any]) -> Signature:
    """The signature of a class (its constructor) or function.

    Raises:
        ConfigError: a parameter that no recipe could give: without annotation, positional only, or called ``type``.
    """
    hints = _hints(factory)
    described = _described(factory)
    fields = {}
    parameters = inspect.signature(factory).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY or name == "type":
            raise ConfigError(f"{origin_of(factory)}: a recipe cannot give the parameter '{name}'; name it otherwise")
        if name not in hints:
            raise ConfigError(f"{origin_of(factory)}: the parameter '{name}' has no annotation")
        fields[name] = Field(name, hints[name], parameter.default, described.get(name, ""))
    is_open = inspect.Parameter.VAR_KEYWORD in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds
    return Signature(fields, is_open, _product(factory, hints))


def origin_of(factory: Callable[..., Any]) -> str:
    """Where a factory stands: ``module.name``."""
    return f"{factory.__module__}.{factory.__qualname__}"


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    described = factory
    if inspect.isclass(factory) and not is_dataclass(factory):
        described = factory.__init__
    try:
        return get_type_hints(described, include_extras=True)
    except NameError as error:
        raise ConfigError(f"{origin_of(factory)}: an annotation cannot be read: {error}; import the name") from error


def _described(factory: Callable[..., Any]) -> dict[str, str]:
    if not inspect.isclass(factory):
        return descriptions(factory.__doc__ or "")
    found: dict[str, str] = {}
    for base in reversed(factory.__mro__):
        for described in (base, vars(base).get("__init__")):
            found |= descriptions(getattr(described, "__doc__", None) or "")
    return found


def _product(factory: Callable[..., Any], hints: dict[str, Any]) -> type | None:
    made = factory if inspect.isclass(factory) else hints.get("return")
    return made if inspect.isclass(made) else None


_SECTION = re.compile(r"(Args|Attributes):\s*$")
_ENTRY = re.compile(r"(\*{0,2}\w+)(?: \([^)]*\))?:(?:\s+(.*))?$")


def descriptions(docstring: str) -> dict[str, str]:
    r"""What the ``Args`` and ``Attributes`` sections of a docstring say of each name, on one line each.

    Where both describe a name, ``Args`` wins.

    Example:
        >>> descriptions("Sum.\n\nArgs:\n    width: of the layer,\n        in channels.\n")
        {'width': 'of the layer, in channels.'}
    """
    found: dict[str, dict[str, str]] = {"Args": {}, "Attributes": {}}
    section, indent, name = "", 0, ""
    for line in inspect.cleandoc(docstring).splitlines():
        depth = len(line) - len(line.lstrip())
        if not line.strip():
            continue
        if heading := _SECTION.match(line):
            section, indent, name = heading[1], 0, ""
        elif depth == 0:
            section = ""
        elif section:
            indent = indent or depth
            entry = _ENTRY.match(line.strip()) if depth == indent else None
            if entry:
                name = entry[1]
                found[section][name] = entry[2] or ""
            elif name:
                found[section][name] = f"{found[section][name]} {line.strip()}".strip()
    return {**found["Attributes"], **found["Args"]}


_PLAIN_NAMES = {bool: "true or false", float: "number", str: "string", NoneType: "null", dict: "mapping", Path: "path"}


def describe(annotation: Any) -> str:
    """A type in a few words.

    Example:
        >>> describe(list[int] | None), describe(Literal["a", "b"])
        ('list of int or null', "'a' or 'b'")
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return describe(arguments[0])
    if origin in (Union, UnionType):
        return " or ".join(describe(a) for a in arguments)
    if origin is Literal:
        return " or ".join(repr(a) for a in arguments)
    if origin is dict:
        return "mapping"
    if origin is not None and arguments:
        inner = dict.fromkeys(describe(a) for a in arguments if a is not Ellipsis)
        return f"list of {' and '.join(inner)}"
    if is_dataclass(annotation):
        return "mapping"
    return _PLAIN_NAMES.get(annotation) or str(getattr(annotation, "__name__", annotation))
