"""The JSON Schema for editors: valid, current, and of one mind with the loader on what people write."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from torch import nn

from tests.engine.test_schema import everything
from vision.engine.registry import register
from vision.engine.schema import json_schema

pytestmark = pytest.mark.usefixtures("own_names")

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def validator(own_names: None) -> Draft202012Validator:
    register("everything")(everything)
    return Draft202012Validator(json_schema())


RECIPE = """
name: run
task: {type: classification, network: {type: everything}}
data: digits
optimizer: {type: sgd, lr: 0.1}
schedule: {type: multistep, milestones: [1, 2.5]}
trainer: {epochs: 2, early_stop: {patience: 3}, precision: bf16}
"""


def test_it_is_a_schema_of_draft_2020_12(validator: Draft202012Validator) -> None:
    assert validator.schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(validator.schema)


def test_every_reference_in_it_leads_somewhere(validator: Draft202012Validator) -> None:
    def references(value: Any) -> list[str]:
        if isinstance(value, list):
            return [found for item in value for found in references(item)]
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [found for item in value.values() for found in references(item)]
        return []

    found = set(references(validator.schema))
    assert len(found) > 10
    for reference in found:
        target = validator.schema
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        assert isinstance(target, dict)


@pytest.mark.parametrize(
    "change",
    [
        "",
        "seed: 3",
        "seeds: [0, 1]",
        "seed: ${SEED:-3}",
        "extends: a.yaml",
        "extends: [a.yaml, b.yaml]",
        "optimizer: {lr: 1}",  # it may complete an inherited block
        "optimizer: sgd",
        "schedule: cosine",
        "trainer: {steps: 10, epochs: null}",
        "task: {type: classification, network: {type: everything, maybe: null, size: [1, 2], by_class: {'1': 2}}}",
        "task: {type: classification, network: {type: everything, window: {start: 1}, colour: red, mode: 3}}",
        "task: {type: classification, network: {type: everything, count: '${N}', whatever: {a: [1]}}}",
        "stages: [{name: a, seed: 1, trainer: {epochs: 1}}, {name: b, extends: c.yaml}]",
    ],
)
def test_it_takes_what_the_loader_takes(validator: Draft202012Validator, change: str) -> None:
    recipe = yaml.safe_load(RECIPE) | (yaml.safe_load(change) or {})
    assert [error.message for error in validator.iter_errors(recipe)] == []


@pytest.mark.parametrize(
    "change",
    [
        "sed: 3",
        "seed: -1",
        "seed: 1.5",
        "seed: '3'",
        "seeds: [a]",
        "extends: 3",
        "name: null",
        "optimizer: {type: sgd, lrr: 1}",
        "optimizer: {type: sgd, lr: fast}",
        "optimizer: {type: sgd, lr: 0}",
        "optimizer: cosine",
        "optimizer: {type: sgdd}",
        "schedule: {type: multistep, milestones: 3}",
        "schedule: {type: multistep, unit: epoch}",
        "schedule: {type: cosine, total_steps: 3}",
        "trainer: {epoch: 3}",
        "trainer: {precision: fp8}",
        "trainer: {compile: 1}",
        "trainer: {early_stop: {patience: 0}}",
        "task: {type: classification, data: digits}",
        "task: {type: classification, network: {type: sgd}}",
        "task: {type: classification, network: {type: everything, window: {ende: 1}}}",
        "task: {type: classification, network: {type: everything, colour: green}}",
        "task: {type: classification, network: {type: everything, pair: [1]}}",
        "stages: [{seed: 1}]",
        "stages: [{name: a, step: {type: sgd}}]",
        "stages: [{name: a, step: x, seed: 1}]",
    ],
)
def test_it_refuses_what_the_loader_refuses(validator: Draft202012Validator, change: str) -> None:
    recipe = yaml.safe_load(RECIPE) | yaml.safe_load(change)
    assert not validator.is_valid(recipe)


@pytest.mark.parametrize("key", ["name", "task", "data", "optimizer"])
def test_a_recipe_without_extends_or_stages_is_complete(validator: Draft202012Validator, key: str) -> None:
    recipe = yaml.safe_load(RECIPE)
    del recipe[key]
    assert [error.validator for error in validator.iter_errors(recipe)] == ["required"]
    assert validator.is_valid(recipe | {"extends": "a.yaml"})


def test_descriptions_and_defaults_come_from_the_code(validator: Draft202012Validator) -> None:
    sgd = validator.schema["$defs"]["optimizer.sgd"]
    assert sgd["description"].startswith("Stochastic gradient descent")
    assert sgd["properties"]["lr"]["description"] == "learning rate."
    assert sgd["properties"]["momentum"]["default"] == 0.9
    assert "parameters" not in sgd["properties"]
    trainer = validator.schema["properties"]["trainer"]["properties"]
    assert trainer["clip_norm"]["description"].startswith("largest global gradient norm")
    window = validator.schema["$defs"]["network.everything"]["properties"]["window"]
    assert window["anyOf"][0]["properties"]["end"]["description"] == "seconds."


def test_open_entries_take_further_keys(validator: Draft202012Validator) -> None:
    def opened(width: int, **options: Any) -> nn.Module:
        return nn.Identity()

    register("opened")(opened)
    again = Draft202012Validator(json_schema())
    recipe = yaml.safe_load(RECIPE) | {"task": {"type": "classification", "network": {"type": "opened", "x": 1}}}
    assert again.is_valid(recipe)


def test_the_file_for_editors_is_current() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "vision.engine.schema"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    kept = (CHECKOUT / "configs/schema.json").read_text()
    advice = "run: python -m vision.engine.schema > configs/schema.json"
    assert json.loads(kept) == json.loads(made.stdout), advice
    assert kept == made.stdout, advice
