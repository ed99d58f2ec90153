"""Reads the mappings of a recipe through pydantic models made from the signatures of what they configure."""

import json
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from functools import cache
from inspect import isclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic import Field as ModelField
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError
from pydantic_core import PydanticCustomError, core_schema
from torch import nn

from vision.engine.data import DataModule
from vision.engine.errors import ConfigError, nearest
from vision.engine.mistakes import Mistake, Mistakes, a, found_by_pydantic, shown
from vision.engine.registry import GIVEN, Entry, OfKind, entries, make, some
from vision.engine.signature import Field, Signature, describe, origin_of, signature_of
from vision.engine.task import Task

Factory = Callable[..., Any]


class _Reader:
    """A pydantic annotation that reads a value itself, so that mistakes inside keep their own places."""

    def read(self, value: Any, build: bool) -> Any:
        """What the value describes, built; with ``build`` false it is only checked."""
        raise Mistakes(Mistake((), f"{shown(value)} cannot be read"))

    def describe(self) -> dict[str, Any]:
        """Its JSON schema."""
        return {}

    def _validate(self, value: Any, info: core_schema.ValidationInfo) -> Any:
        try:
            return self.read(value, build=bool(info.context and info.context["build"]))
        except Mistakes as mistakes:
            raise PydanticCustomError("mistakes", "mistakes inside", {"found": mistakes.found}) from None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.with_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return self.describe()


@dataclass(frozen=True)
class PlainReader(_Reader):
    """Reads a mapping without a type into a dataclass.

    Attributes:
        cls: the dataclass.
    """

    cls: type

    def read(self, value: Any, build: bool) -> Any:
        """The dataclass."""
        if not isinstance(value, dict):
            raise Mistakes(Mistake((), f"expected a mapping, got {shown(value)}"))
        given = arguments(self.cls, value, (), build)
        if not build:
            return value
        try:
            return self.cls(**given)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def describe(self) -> dict[str, Any]:
        """The dataclass's fields."""
        return model_of(self.cls).model_json_schema()


@dataclass(frozen=True)
class BlockReader(_Reader):
    """Reads a block ``{type: name, ...}``, or its bare name, into what its entry builds.

    Attributes:
        made: the class it must be of, or None.
        kind: the entry's kind, or None for any.
        deferred: keep the checked block for someone else to build.
    """

    made: type | None
    kind: str | None = None
    deferred: bool = False

    def read(self, value: Any, build: bool) -> Any:
        """What the block builds."""
        given = GIVEN.get(self.kind or "", ()) if self.deferred else ()
        entry, found = self.open(value, given, build and not self.deferred)
        if self.deferred or not build:
            return {"type": value} if isinstance(value, str) else value
        built = make(entry, found)
        if self.made is not None and not isinstance(built, self.made):
            raise Mistakes(Mistake((), f"'{entry.name}' builds {a(type(built).__name__)}, expected {a(self.label)}"))
        return built

    def open(self, value: Any, given: tuple[str, ...], build: bool) -> tuple[Entry, dict[str, Any]]:
        """The entry a block names, and the arguments it gives.

        Raises:
            Mistakes: with places relative to the block.
        """
        block = {"type": value} if isinstance(value, str) else value
        if not isinstance(block, dict):
            raise Mistakes(Mistake((), f"expected a block {{type: ...}}, got {shown(value)}"))
        if "type" not in block:
            raise Mistakes(Mistake((), f"has no type; {self.choice()}"))
        entry = self._entry(block["type"])
        return entry, arguments(entry.factory, {k: v for k, v in block.items() if k != "type"}, given, build)

    def candidates(self) -> list[Entry]:
        """The entries that may stand here."""
        return [entry for entry in entries(self.kind) if self._fits(entry)]

    @property
    def label(self) -> str:
        """What is expected, in a word or two."""
        return self.kind or (self.made.__name__ if self.made else "registered name")

    def describe(self) -> dict[str, Any]:
        """A mark that :mod:`vision.engine.json_schema` replaces."""
        key = self.kind or (origin_of(self.made) if self.made else "block")
        return {"x-block": key, "x-names": [entry.name for entry in self.candidates()]}

    def choice(self) -> str:
        """What may stand here."""
        surely = [entry.name for entry in self.candidates() if self._fits(entry, surely=True)]
        return f"expected {a(self.label)}: {some(surely or [entry.name for entry in self.candidates()])}"

    def _entry(self, name: Any) -> Entry:
        fitting = {entry.name: entry for entry in self.candidates()}
        if isinstance(name, str) and name in fitting:
            return fitting[name]
        other = next((entry for entry in entries() if entry.name == name), None)
        hint = nearest(name, fitting) if isinstance(name, str) else ""
        if other is not None:
            text = f"'{name}' is {a(other.kind)}, {self.choice()}"
        else:
            text = f"nothing is registered as {shown(name)}{hint or f'; {self.choice()}'}"
        raise Mistakes(Mistake(("type",), text))

    def _fits(self, entry: Entry, surely: bool = False) -> bool:
        """Whether the entry may build what is expected; a function annotated with a base class may, not surely."""
        if self.made is None:
            return True
        product = signature_of(entry.factory).product
        if product is None or product is object:
            return self.kind is not None
        if issubclass(product, Task) and not issubclass(self.made, Task):
            return False  # a Task is an nn.Module, yet no network
        return issubclass(product, self.made) or (issubclass(self.made, product) and not surely)


def arguments(factory: Factory, values: dict[str, Any], given: tuple[str, ...], build: bool) -> dict[str, Any]:
    """The keyword arguments that ``values`` give to ``factory``; blocks inside are built, or only checked.

    Raises:
        Mistakes: with places relative to ``values``.
        ConfigError: the factory needs what no recipe can hold, or a value inside is refused by what it builds.
    """
    signature = signature_of(factory)
    model = model_of(factory, frozenset(given))
    known = {field.alias: name for name, field in model.model_fields.items()}
    for name, field in signature.fields.items():
        if field.required and name not in known and name not in given:
            raise ConfigError(f"{origin_of(factory)} needs '{name}', which no recipe can hold; build it from Python")
    # as JSON, because pydantic's strict mode takes a list for a tuple and a string for a path or an enum there only
    text = json.dumps(values, default=_plain)
    try:
        read = model.model_validate_json(text, context={"build": build})
    except ValidationError as error:
        raise Mistakes(*found_by_pydantic(error, values, lambda name: _missing(signature, name))) from None
    named = {name: getattr(read, inner) for name, inner in known.items() if inner in read.model_fields_set}
    return {**{str(name): value for name, value in named.items()}, **(read.model_extra or {})}


def _missing(signature: Signature, name: str) -> str:
    annotation = signature.fields[name].annotation
    reader = next((part for part in get_args(_with_readers(annotation)) if isinstance(part, BlockReader)), None)
    return f"is missing; {reader.choice() if reader else f'expected {describe(annotation)}'}"


def _plain(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise ConfigError(f"a recipe holds plain values only, not a {type(value).__name__}: {shown(value)}")


@cache
def model_of(factory: Factory, given: frozenset[str] = frozenset()) -> type[BaseModel]:
    """The strict and closed pydantic model of a factory's arguments, less those in ``given``.

    Arguments of types that no recipe can hold (tensors, functions, modules' parameters) are left out. The model's
    fields have names of their own, because an argument may be called as pydantic's methods are; aliases are the names.
    """
    signature = signature_of(factory)
    fields: dict[str, Any] = {}
    for position, (name, field) in enumerate(signature.fields.items()):
        if name in given:
            continue
        annotation = readable(field.annotation)
        if annotation is not None:
            fields[f"argument_{position}"] = (annotation, _model_field(field))
    config = ConfigDict(
        extra="allow" if signature.open else "forbid", strict=True, title=getattr(factory, "__name__", None)
    )
    return create_model("Arguments", __config__=config, **fields)


def _model_field(field: Field) -> Any:
    about: dict[str, Any] = {"alias": field.name, "description": field.description or None}
    if field.required:
        return ModelField(**about)
    if isinstance(field.default, bool | int | float | str | list | tuple | dict | None):
        return ModelField(default=field.default, **about)
    return ModelField(default_factory=lambda: field.default, **about)


def readable(annotation: Any) -> Any:
    """The annotation with a reader in place of each class that blocks build; None where no recipe can hold it."""
    read = _with_readers(annotation)
    try:
        TypeAdapter(read).json_schema()
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema):
        return None
    return read


def _with_readers(annotation: Any) -> Any:
    origin: Any = get_origin(annotation)
    inner = get_args(annotation)
    if origin is Annotated:
        mark = next((m for m in inner[1:] if isinstance(m, OfKind)), None)
        return Annotated[Any, _reader_of_kind(inner[0], mark.kind)] if mark else _again(annotation, inner)
    if origin in (Union, UnionType):
        members = [read for member in inner if (read := readable(member)) is not None]
        return Union[tuple(members)] if set(members) - {NoneType} else annotation  # noqa: UP007
    if origin is Literal or origin is Callable:
        return annotation
    if isclass(origin) and inner:
        generic: Any = origin
        return generic[tuple(_with_readers(part) for part in inner)]
    if is_dataclass(annotation) and isclass(annotation):
        return Annotated[Any, PlainReader(annotation)]
    if isclass(annotation) and _is_built_by_blocks(annotation):
        return Annotated[Any, BlockReader(annotation)]
    return annotation


def _again(annotation: Any, inner: tuple[Any, ...]) -> Any:
    return Annotated[(_with_readers(inner[0]), *inner[1:])]


def _reader_of_kind(annotation: Any, kind: str) -> BlockReader:
    if (get_origin(annotation) or annotation) is dict:
        return BlockReader(None, kind, deferred=True)
    return BlockReader(annotation if isclass(annotation) else None, kind)


_NEVER_BUILT: tuple[type, ...] = (bool, int, float, str, bytes, list, tuple, dict, set, frozenset, Path, object)


def _is_built_by_blocks(cls: type) -> bool:
    if issubclass(cls, nn.Module | DataModule):
        return True
    products = (signature_of(entry.factory).product for entry in entries())
    return cls not in _NEVER_BUILT and any(p is not None and issubclass(p, cls) for p in products)
