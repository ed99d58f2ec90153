"""The JSON Schema of recipe files, made from every registered entry, for editors that complete and check YAML."""

from typing import Any


def recipe_schema() -> dict[str, Any]:
    """The schema, draft 2020-12."""
    return {}
