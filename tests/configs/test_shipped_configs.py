"""Every recipe that ships: it loads, holds, agrees with the JSON Schema, and its network and optimiser are built."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator
from torch import nn

from vision.engine.config import Config, config_folder, load, shipped_configs
from vision.engine.pipeline import plan
from vision.engine.references import is_reference
from vision.engine.registry import build
from vision.engine.schema import json_schema
from vision.engine.sources import read_file

SHIPPED = shipped_configs()
FILES = sorted(config_folder().rglob("*.yaml"))


@cache
def validator() -> Draft202012Validator:
    return Draft202012Validator(json_schema())


def runs(name: str) -> list[Config]:
    """The stages of a recipe that train, once for all its seeds."""
    stages = [stage.config for stage in plan(load(SHIPPED[name])) if not stage.config.is_step]
    return list({config.name: config for config in stages}.values())


def test_there_are_recipes() -> None:
    assert len(SHIPPED) >= 4
    assert not any(name.startswith("_base") for name in SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_it_holds(name: str) -> None:
    config = load(SHIPPED[name])
    config.check()
    assert Path(name).name.startswith(config.name), "runs/<name> tells which file it is from"
    assert config.tree.get("description"), "a recipe says in one line what it is"
    assert all(stage.config.where(()) for stage in plan(config))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(config_folder()).as_posix())
def test_editors_see_no_mistake(path: Path) -> None:
    tree = read_file(path, path.name).tree()
    if path.relative_to(config_folder()).parts[0].startswith("_"):
        tree = {"extends": "whatever completes it", **tree}
    assert [f"{error.json_path}: {error.message}" for error in validator().iter_errors(tree)] == []


@pytest.mark.parametrize("name", SHIPPED)
def test_its_resolved_form_is_the_same_recipe(name: str, tmp_path: Path) -> None:
    config = load(SHIPPED[name])
    (tmp_path / "config.yaml").write_text(config.yaml)
    again = load(tmp_path / "config.yaml")
    assert (again.tree, again.hash) == (config.tree, config.hash)


def buildable(block: Any) -> Any:
    """A network's block with fresh weights, less what an earlier stage has yet to give."""
    if isinstance(block, dict):
        kept = {key: value for key, value in block.items() if not is_reference(value)}
        return {key: False if key == "pretrained" else buildable(value) for key, value in kept.items()}
    return [buildable(item) for item in block] if isinstance(block, list) else block


@pytest.mark.parametrize("name", SHIPPED)
def test_its_networks_optimiser_and_schedule_are_built(name: str) -> None:
    for config in runs(name):
        task = config.tree["task"]
        network = build(buildable(task["network"])) if "network" in task else nn.Linear(1, 1)
        groups = [{"params": [p for p in network.parameters() if p.requires_grad]}]
        assert groups[0]["params"]
        optimizer = build(config.tree["optimizer"], "optimizer", parameters=groups)
        assert isinstance(optimizer, torch.optim.Optimizer)
        block = config.tree.get("schedule", "constant")
        schedule = build(block, "schedule", optimizer=optimizer, total_steps=100, steps_per_epoch=10)
        schedule.step_update(1)
        assert all(group["lr"] >= 0 for group in optimizer.param_groups)
