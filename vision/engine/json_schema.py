"""The JSON Schema of recipe files, made from every registered entry: editors complete and check YAML by it.

It is made for files as people write them. A file may extend another, and a block then completes an inherited one, so
no key inside a block is required here; what is missing is told when the recipe is loaded.
"""

from inspect import getdoc
from typing import Any

from vision.engine.blocks import Factory, model_of
from vision.engine.recipe import Recipe
from vision.engine.registry import GIVEN, Entry, entries
from vision.engine.signature import REQUIRED, signature_of
from vision.engine.stages import Pipeline, Step

DRAFT = "https://json-schema.org/draft/2020-12/schema"

_VARIABLE = {
    "type": "string",
    "pattern": r"\$\{.+\}",
    "description": "A variable: ${NAME}, ${NAME:-default}, or in a later stage ${stages.NAME.result.KEY}.",
}
_EXTENDS = {
    "description": "Recipes this one is laid on, by paths relative to this file; the later ones win.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
}


def recipe_schema() -> dict[str, Any]:
    """The schema, draft 2020-12: of recipes and pipelines, and of a block of every registered entry."""
    known = {f"{entry.kind}.{entry.name}": _entry(entry) for entry in entries()}
    recipe, pipeline, step = (_properties(cls) for cls in (Recipe, Pipeline, Step))
    pipeline["stages"] = {"description": pipeline["stages"]["description"], "type": "array", "items": _def("stage")}
    stage = {
        "type": "object",
        "properties": {
            **{name: {"$ref": f"#/properties/{name}"} for name in ("extends", *recipe)},
            "step": step["step"],
        },
        "additionalProperties": False,
        "required": ["name"],
        "if": {"required": ["step"]},
        "then": {"propertyNames": {"enum": list(step)}},
    }
    required = [name for name, field in signature_of(Recipe).fields.items() if field.default is REQUIRED]
    schema = {
        "$schema": DRAFT,
        "title": "Triptych recipe",
        "description": _summary(Recipe),
        "type": "object",
        "properties": {"extends": _EXTENDS, **pipeline, **recipe},
        "additionalProperties": False,
        "if": {"not": {"anyOf": [{"required": ["extends"]}, {"required": ["stages"]}]}},
        "then": {"required": required},
        "$defs": {"variable": _VARIABLE, "stage": stage, **known},
    }
    blocks: dict[str, Any] = {}
    finished: dict[str, Any] = _with_blocks(schema, blocks)
    finished["$defs"] |= dict(sorted(blocks.items()))
    return finished


def _def(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _summary(factory: Factory) -> str:
    return (getdoc(factory) or "").partition("\n\n")[0].replace("\n", " ")


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "type": "object",
        "description": _summary(entry.factory),
        "properties": {"type": {"const": entry.name}, **_properties(entry.factory, GIVEN.get(entry.kind, ()))},
        "additionalProperties": signature_of(entry.factory).open,
    }


def _properties(factory: Factory, given: tuple[str, ...] = ()) -> dict[str, Any]:
    """Schemas of a factory's arguments; a number or choice may also be a variable."""
    found: dict[str, Any] = _cleaned(model_of(factory, frozenset(given)).model_json_schema()).get("properties", {})
    return {name: _or_variable(schema) for name, schema in found.items()}


def _cleaned(schema: Any, definitions: dict[str, Any] | None = None) -> Any:
    """A schema of pydantic without its titles and required keys, its definitions written out where they are used."""
    if isinstance(schema, list):
        return [_cleaned(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    definitions = {**(definitions or {}), **schema.get("$defs", {})}
    if "$ref" in schema:
        inside = definitions[schema["$ref"].rpartition("/")[2]]
        return _cleaned({**inside, **{key: item for key, item in schema.items() if key != "$ref"}}, definitions)
    kept = {}
    for key, item in schema.items():
        if key == "properties":
            kept[key] = {name: _or_variable(_cleaned(inner, definitions)) for name, inner in item.items()}
        elif key in ("default", "enum", "const"):
            kept[key] = item
        elif key not in ("title", "required", "$defs"):
            kept[key] = _cleaned(item, definitions)
    return kept


_ABOUT = ("description", "default")


def _or_variable(schema: dict[str, Any]) -> dict[str, Any]:
    choices = [inner for inner in schema.get("anyOf", [schema]) if inner.get("type") != "null"]
    variable = _def("variable")
    if variable in choices or not all(_is_scalar(inner) for inner in choices):
        return schema
    about = {key: schema[key] for key in _ABOUT if key in schema}
    rest = {key: item for key, item in schema.items() if key not in _ABOUT}
    return {**about, "anyOf": [*schema.get("anyOf", [rest]), variable]}


def _is_scalar(schema: dict[str, Any]) -> bool:
    """Whether it takes numbers, truth values or a few words, yet not any string."""
    return schema.get("type") in ("integer", "number", "boolean") or "enum" in schema or "const" in schema


def _with_blocks(schema: Any, blocks: dict[str, Any]) -> Any:
    """The marks of blocks replaced by references; what they refer to goes into ``blocks``."""
    if isinstance(schema, list):
        return [_with_blocks(item, blocks) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "x-block" in schema:
        name = f"any.{schema['x-block']}"
        blocks[name] = _block(schema["x-names"])
        return {**{key: item for key, item in schema.items() if key in _ABOUT}, **_def(name)}
    return {key: _with_blocks(item, blocks) for key, item in schema.items()}


def _block(names: list[str]) -> dict[str, Any]:
    """A block of one of the entries ``names``, or a bare name."""
    kinds = {entry.name: entry.kind for entry in entries()}
    branches = [
        {"if": {"required": ["type"], "properties": {"type": {"const": name}}}, "then": _def(f"{kinds[name]}.{name}")}
        for name in names
    ]
    block: dict[str, Any] = {"type": "object", "properties": {"type": {"enum": names}}}
    if branches:
        block["allOf"] = branches
    return {"oneOf": [{"enum": names}, _def("variable"), block]}
