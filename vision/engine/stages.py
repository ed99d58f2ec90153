"""What a pipeline's file holds: stages in a row with defaults for all of them, and seeds side by side."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from vision.engine.errors import ConfigError
from vision.engine.merging import merge, put
from vision.engine.mistakes import shown
from vision.engine.recipe import Block, NonNegative
from vision.engine.registry import OfKind
from vision.engine.sources import Node

OWN_KEYS = ("name", "stages", "seeds")
"""Top-level keys of a pipeline that are its own; every other one is a default of its stages."""

Override = tuple[list[str], Node]


@dataclass(frozen=True)
class Pipeline:
    """Several recipes in a row; whatever else stands beside these keys is a default of every stage.

    Attributes:
        name: the folder's name under ``output``.
        stages: recipes, each with a name of its own, and steps.
        output: the folder that run folders are made in.
        description: one line for reports.
        seeds: the whole is run once with each.
    """

    name: str
    stages: list[dict[str, Any]]
    output: str = "runs"
    description: str = ""
    seeds: list[NonNegative] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """A stage that runs something other than training.

    Attributes:
        name: the stage's name and folder.
        step: block of a registered step.
    """

    name: str
    step: Annotated[Block, OfKind("step")]


def expand(node: Node, overrides: Sequence[Override]) -> Node:
    """A pipeline with its defaults merged under each stage and the overrides applied.

    An override of a default holds for every stage, except inside a block that the stage has replaced by one of
    another ``type``, to which it cannot belong. One of ``stages.NAME.key`` holds for that stage; the latter wins.

    Raises:
        ConfigError: the stages are no list of mappings with names of their own, or a default or an override has no
            stage to go to.
    """
    for_stages = [(parts, value) for parts, value in overrides if parts[0] == "stages" and len(parts) > 1]
    for_all = [(parts, value) for parts, value in overrides if parts[0] not in OWN_KEYS]
    for parts, value in overrides:
        if (parts, value) not in for_stages:
            node = put(node, parts, value)
    assert isinstance(node.value, dict)
    stages = _named_stages(node.value["stages"])
    defaults = {key: item for key, item in node.value.items() if key not in OWN_KEYS}
    if all("step" in _values(stage) for stage in stages):
        _refuse_defaults(defaults)
    expanded = []
    homeless = {".".join(parts): value for parts, value in for_all}
    for own in stages:
        stage = own
        if "step" not in _values(own):
            stage = merge(replace(own, value=defaults), own)
            for parts, value in for_all:
                if not _replaced(defaults, _values(own), parts):
                    stage = put(stage, parts, value)
                    homeless.pop(".".join(parts), None)
        expanded.append(stage)
    for path, value in homeless.items():
        raise ConfigError(f"{value.place}: {path}: no stage takes it; name one: stages.NAME.{path}=...")
    kept = {key: item for key, item in node.value.items() if key in Pipeline.__dataclass_fields__}
    node = replace(node, value={**kept, "stages": replace(node.value["stages"], value=expanded)})
    for parts, value in for_stages:
        node = put(node, parts, value)
    return node


def _replaced(defaults: dict[str, Node], own: dict[str, Node], parts: list[str]) -> bool:
    """Whether a stage has a block of another type than the defaults on the way to ``parts``."""
    for part in parts:
        before, after = defaults.get(part), own.get(part)
        if before is None or after is None or not isinstance(before.value, dict) or not isinstance(after.value, dict):
            return False
        defaults, own = before.value, after.value
        types = defaults.get("type"), own.get("type")
        if types[0] is not None and types[1] is not None and types[0].value != types[1].value:
            return True
    return False


def _values(stage: Node) -> dict[str, Node]:
    assert isinstance(stage.value, dict)
    return stage.value


def _named_stages(stages: Node) -> list[Node]:
    if not isinstance(stages.value, list) or not stages.value:
        raise ConfigError(f"{stages.place}: stages: expected a list of stages, got {shown(stages.tree())}")
    found: dict[str, Node] = {}
    for position, stage in enumerate(stages.value):
        name = stage.value.get("name") if isinstance(stage.value, dict) else None
        text = name.value if name else None
        if not isinstance(text, str) or not re.fullmatch(r"[A-Za-z0-9][\w-]*", text):
            place = name.place if name else stage.place
            got = f"got {shown(text)}" if name else "got none"
            raise ConfigError(f"{place}: stages.{position}.name: expected a name of letters, digits, _ and -, {got}")
        if text in found:
            raise ConfigError(f"{stage.place}: stages.{position}.name: '{text}' is taken, see {found[text].place}")
        found[text] = stage
    return list(found.values())


def _refuse_defaults(defaults: dict[str, Node]) -> None:
    for key, item in defaults.items():
        if key not in Pipeline.__dataclass_fields__:
            raise ConfigError(f"{item.place}: {key}: unknown key; every stage is a step and takes no defaults")
