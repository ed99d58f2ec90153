"""Recipes from files: YAML, extends, overrides, variables, and the words for every mistake."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.engine.recipes import RECIPE, Write, refusal, scalars, unhurried
from vision.engine import config as config_module
from vision.engine.config import config_folder, find_config, from_tree, load, shipped_configs
from vision.engine.data import DataModule
from vision.engine.errors import ConfigError
from vision.engine.merging import merge
from vision.engine.recipe import EarlyStop, Recipe, TrainerOptions
from vision.engine.registry import register
from vision.engine.sources import node_of, to_text
from vision.engine.task import Task

pytestmark = pytest.mark.usefixtures("own_names")


class ToyTask(Task):
    """A task.

    Args:
        data: its data.
        network: its network.
        weight: of its loss.
    """

    def __init__(self, data: DataModule, network: nn.Module, weight: float = 1.0) -> None:
        super().__init__()


class ToyData(DataModule):
    """Data.

    Args:
        root: its folder.
    """

    def __init__(self, root: Path = Path()) -> None:
        pass


def toy_network(width: int, depth: int = 1) -> nn.Module:
    return nn.Identity()


@pytest.fixture(autouse=True)
def toys(own_names: None) -> None:
    register("toy")(ToyTask)
    register("toy_data")(ToyData)
    register("toy_network")(toy_network)


# merging


def merged(base: Any, over: Any) -> Any:
    return merge(node_of(base, "base"), node_of(over, "over")).tree()


@pytest.mark.parametrize(
    ("base", "over", "expected"),
    [
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 3, "z": 4}}, {"a": {"x": 1, "y": 3, "z": 4}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"x": 1}}, {"a": None}, {"a": None}),
        ({"o": {"type": "sgd", "lr": 1}}, {"o": {"lr": 2}}, {"o": {"type": "sgd", "lr": 2}}),
        ({"o": {"type": "sgd", "lr": 1}}, {"o": {"type": "sgd", "m": 2}}, {"o": {"type": "sgd", "lr": 1, "m": 2}}),
        ({"o": {"type": "sgd", "lr": 1}}, {"o": {"type": "adam", "eps": 2}}, {"o": {"type": "adam", "eps": 2}}),
        ({"o": {"type": "sgd", "lr": 1}}, {"o": "adam"}, {"o": {"type": "adam"}}),
        ({"o": {"type": "sgd", "lr": 1}}, {"o": "sgd"}, {"o": {"type": "sgd", "lr": 1}}),
        ({"o": "sgd"}, {"o": {"lr": 2}}, {"o": {"type": "sgd", "lr": 2}}),
        ({"o": "sgd"}, {"o": {"type": "adam"}}, {"o": {"type": "adam"}}),
        ({"o": "sgd"}, {"o": "adam"}, {"o": "adam"}),
        ({"a": {"x": 1}}, {"a": "word"}, {"a": "word"}),
    ],
)
def test_mappings_merge_and_blocks_of_another_type_replace(base: Any, over: Any, expected: Any) -> None:
    assert merged(base, over) == expected


plain_trees = st.dictionaries(
    st.sampled_from("abc"),
    st.recursive(st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner)),
)


def merged_by_hand(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {key for key in base if isinstance(base[key], dict) and isinstance(over.get(key), dict)}
    return {**base, **over, **{key: merged_by_hand(base[key], over[key]) for key in both}}


@unhurried
@given(plain_trees, plain_trees)
def test_merging_is_the_three_line_recurrence(base: dict[str, Any], over: dict[str, Any]) -> None:
    assert merged(base, over) == merged_by_hand(base, over)
    assert merged(base, base) == base
    assert merged({}, over) == over


def test_extends_lays_a_file_on_others_by_their_own_paths(write: Write) -> None:
    write("a: 1\nb: {x: 1}\n", "_base/one.yaml")
    write("a: 2\nb: {y: 2}\nextends: one.yaml\n", "_base/two.yaml")
    write("c: 3\n", "_base/three.yaml")
    config = load(write("extends: [../_base/two.yaml, ../_base/three.yaml]\nb: {z: 3}\n", "area/r.yaml"))
    assert config.tree == {"a": 2, "b": {"x": 1, "y": 2, "z": 3}, "c": 3}
    assert config.where(("a",)) == "_base/two.yaml:1"
    assert config.where(("b", "x")) == "_base/one.yaml:2"
    assert config.where(("b", "z")) == "area/r.yaml:2"
    assert config.where(("b", "nothing", "there")) == "area/r.yaml:2"


def test_later_bases_win(write: Write) -> None:
    write("a: 1\n", "one.yaml")
    write("a: 2\n", "two.yaml")
    assert load(write("extends: [one.yaml, two.yaml]\n")).tree == {"a": 2}


def test_what_extends_names_must_be_there(write: Write) -> None:
    write("a: 1\n", "_base/digits.yaml")
    path = write("name: x\nextends: _base/digit.yaml\n")
    assert refusal(lambda: load(path)) == ("r.yaml:2: extends: no file _base/digit.yaml (did you mean 'digits.yaml'?)")
    path = write("extends: {a: 1}\n")
    assert "extends: expected a path or a list of paths" in refusal(lambda: load(path))


def test_files_cannot_extend_each_other_in_a_circle(write: Write) -> None:
    write("extends: b.yaml\n", "a.yaml")
    write("extends: c.yaml\n", "b.yaml")
    write("x: 1\nextends: a.yaml\n", "c.yaml")
    assert refusal(lambda: load("a.yaml")) == (
        "c.yaml:2: extends: the files extend each other in a circle: a.yaml -> b.yaml -> c.yaml -> a.yaml"
    )


# overrides


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("optimizer.lr=1e-4", ("optimizer", "lr"), 1e-4),
        ("trainer.precision=bf16", ("trainer", "precision"), "bf16"),
        ("trainer.determinism=off", ("trainer", "determinism"), "off"),
        ("trainer.clip_norm=null", ("trainer", "clip_norm"), None),
        ("trainer.clip_norm=", ("trainer", "clip_norm"), None),
        ("trainer.compile=true", ("trainer", "compile"), True),
        ("trainer.early_stop={patience: 3}", ("trainer", "early_stop"), {"patience": 3}),
        ("trainer.early_stop.patience=3", ("trainer", "early_stop"), {"patience": 3}),
        ("task.network.width=7", ("task", "network"), {"type": "toy_network", "width": 7}),
        ("task.network=mlp", ("task", "network"), {"type": "mlp"}),
        ("task.network.type=mlp", ("task", "network"), {"type": "mlp"}),
        ("data.root=a=b", ("data",), {"type": "toy_data", "root": "a=b"}),
        ("description=note: this", ("description",), "note: this"),
        ("description='007'", ("description",), "007"),
        ("x=[1, two, {three: 3}]", ("x",), [1, "two", {"three": 3}]),
    ],
)
def test_overrides_are_yaml_at_a_path(write: Write, override: str, path: tuple[str, ...], value: Any) -> None:
    config = load(write(RECIPE), [override])
    found = config.tree
    for part in path:
        found = found[part]
    assert found == value
    assert type(found) is type(value)


def test_overrides_reach_into_lists(write: Write) -> None:
    config = load(write("a: [1, {b: 2}]\n"), ["a.0=5", "a.1.b=6"])
    assert config.tree == {"a": [5, {"b": 6}]}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lr", "command line: 'lr': expected key=value, such as trainer.epochs=3"),
        ("=3", "command line: '=3': expected key=value"),
        ("a..b=3", "command line: 'a..b=3': expected key=value"),
        ("a.b=[1,", "command line: a.b: not valid YAML: "),
        ("name=@x", "command line: name: not valid YAML: "),
        ("trainer.epochs.x=1", "command line: trainer.epochs.x: 'trainer.epochs' is 2, not a mapping"),
    ],
)
def test_overrides_that_do_not_hold(write: Write, override: str, message: str) -> None:
    path = write(RECIPE)
    assert refusal(lambda: load(path, [override])).startswith(message)


@unhurried
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4), scalars.filter(lambda v: not isinstance(v, str)))
def test_an_override_changes_one_value(parts: list[str], value: Any) -> None:
    tree = {"a": {"a": {"a": {}}, "b": None}, "b": {"c": 1}, "keep": [1]}
    text = ".".join(parts) + "=" + to_text(value).removesuffix("...\n").strip()
    try:
        found = from_tree(tree, [text]).tree
    except ConfigError as error:
        assert "not a mapping" in str(error)
        assert parts[:3] == ["b", "c", *parts[2:3]] and len(parts) > 2
        return
    assert found["keep"] == [1]
    for part in parts:
        found = found[part]
    assert found == value


# variables


def test_variables_come_from_the_environment(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOT", "/data")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    text = """\
a: ${ROOT}/digits
b: ${UNSET:-8}
c: "${UNSET:-8}"
d: ${EMPTY:-x}
e: "[${EMPTY}]"
f: $${ROOT} costs $5
g: ${UNSET:-}
"""
    assert load(write(text), ["h=${UNSET:-1e-3}"]).tree == {
        "a": "/data/digits",
        "b": 8,
        "c": "8",
        "d": "x",
        "e": "[]",
        "f": "${ROOT} costs $5",
        "g": "",
        "h": 1e-3,
    }


def test_a_variable_without_value_or_name_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNSET", raising=False)
    path = write("a: 1\nb: [x, '${UNSET}']\n")
    assert refusal(lambda: load(path)) == (
        "r.yaml:2: the variable UNSET is not set; set it, or give a default: ${UNSET:-...}"
    )
    for wrong in ("${1x}", "${}", "${A", "${A:+b}"):
        path = write(f"a: '{wrong}'\n")
        assert "is no variable; expected ${NAME} or ${NAME:-default}" in refusal(lambda path=path: load(path))


def test_a_value_that_is_replaced_needs_no_variable(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNSET", raising=False)
    assert load(write("a: ${UNSET}\n"), ["a=1"]).tree == {"a": 1}


# recipes


def test_a_recipe_is_read(write: Write) -> None:
    recipe = load(write(RECIPE), ["trainer.early_stop.patience=2", "seed=4"]).recipe()
    assert recipe == Recipe(
        name="run",
        task={"type": "toy", "network": {"type": "toy_network", "width": 3}},
        data={"type": "toy_data"},
        optimizer={"type": "sgd", "lr": 1e-2},
        trainer=TrainerOptions(epochs=2, early_stop=EarlyStop(2)),
        seed=4,
    )


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ("  epoch: 3", ["r.yaml:11: trainer.epoch: unknown key (did you mean 'epochs'?)"]),
        ("  batch_size: '32'", ["r.yaml:11: trainer.batch_size: expected an int, got '32'"]),
        ("  batch_size: 0", ["r.yaml:11: trainer.batch_size: expected a number > 0, got 0"]),
        ("  precision: fp8", ["r.yaml:11: trainer.precision: expected 'float32', 'bf16' or 'fp16', got 'fp8'"]),
        ("  early_stop: {}", ["r.yaml:11: trainer.early_stop.patience: is missing; expected int"]),
        ("  lr: 1", ["r.yaml:11: trainer.lr: unknown key; 'lr' belongs to 'optimizer'"]),
        ("epochs: 3", ["r.yaml:11: epochs: unknown key; 'epochs' belongs to 'trainer'"]),
        ("patience: 3", ["r.yaml:11: patience: unknown key; 'patience' belongs to 'trainer.early_stop'"]),
        ("width: 3", ["r.yaml:11: width: unknown key; 'width' belongs to 'task.network'"]),
        ("  seed: 3", ["r.yaml:11: trainer.seed: unknown key; 'seed' belongs to the top of the recipe"]),
        ("shedule: cosine", ["r.yaml:11: shedule: unknown key (did you mean 'schedule'?)"]),
        ("schedule: cosin", ["r.yaml:11: schedule.type: nothing is registered as 'cosin' (did you mean 'cosine'?)"]),
        ("schedule: adam", ["r.yaml:11: schedule.type: 'adam' is an optimizer, expected a schedule: constant, cosine"]),
        ("schedule: {min_lr: 1}", ["r.yaml:11: schedule: has no type; expected a schedule: constant, cosine"]),
        ("seed: -1", ["r.yaml:11: seed: expected a number >= 0, got -1"]),
        ("  steps: 4", ["r.yaml:9: trainer: expected exactly one of epochs and steps, got both"]),
        (
            "  worker: 1\nx: 2\nseed: a",
            [
                "r.yaml:11: trainer.worker: unknown key (did you mean 'workers'?)",
                "r.yaml:12: x: unknown key",
                "r.yaml:13: seed: expected an int, got 'a'",
            ],
        ),
    ],
)
def test_every_mistake_has_file_line_field_and_fix(write: Write, change: str, messages: list[str]) -> None:
    config = load(write(RECIPE + change + "\n"))
    lines = refusal(config.recipe).splitlines()
    assert len(lines) == len(messages)
    for line, message in zip(lines, messages, strict=True):
        assert line.startswith(message)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: run\n", "", "r.yaml:1: name: is missing; expected string"),
        ("data: toy_data\n", "", "r.yaml:1: data: is missing; expected a data: "),
        ("  lr: 1e-2\n", "", "r.yaml:6: optimizer.lr: is missing; expected number"),
        (", width: 3", "", "r.yaml:4: task.network.width: is missing; expected int"),
        ("width: 3", "width: wide", "r.yaml:4: task.network.width: expected an int, got 'wide'"),
        ("width: 3", "width: 3, deph: 2", "r.yaml:4: task.network.deph: unknown key (did you mean 'depth'?)"),
        ("  type: toy\n", "  type: toy\n  data: x\n", "r.yaml:4: task.data: unknown key; 'data' belongs to the top"),
        (
            "  epochs: 2\n",
            "  steps: null\n",
            "r.yaml:9: trainer: expected exactly one of epochs and steps, got neither",
        ),
        ("type: toy_network", "type: sgd", "r.yaml:4: task.network.type: 'sgd' is an optimizer, expected a Module"),
        ("data: toy_data", "data: [1]", "r.yaml:5: data: expected a block {type: ...}, got [1]"),
        ("trainer:\n  epochs: 2\n", "trainer:\n", "r.yaml:9: trainer: expected a mapping, got null"),
    ],
)
def test_mistakes_in_place(write: Write, old: str, new: str, message: str) -> None:
    assert old in RECIPE
    config = load(write(RECIPE.replace(old, new)))
    assert refusal(config.recipe).startswith(message)


def test_mistakes_name_the_file_they_come_from(write: Write) -> None:
    write(RECIPE.replace("epochs: 2", "epochs: two"), "_base/toy.yaml")
    config = load(write("extends: _base/toy.yaml\noptimizer:\n  lrr: 1\n"), ["trainer.batch=3"])
    assert refusal(config.check).splitlines() == [
        "r.yaml:3: optimizer.lrr: unknown key (did you mean 'lr'?)",
        "_base/toy.yaml:10: trainer.epochs: expected an int, got 'two'",
        "command line: trainer.batch: unknown key (did you mean 'batch_size'?)",
    ]


def test_references_need_a_pipeline(write: Write) -> None:
    config = load(write(RECIPE.replace("data: toy_data", "data: {type: toy_data, root: '${stages.a.run}'}")))
    assert refusal(config.recipe) == (
        "r.yaml:5: data.root: ${stages.a.run}: refers to a stage; only the later stages of a pipeline can"
    )


def test_a_recipe_from_python(write: Write) -> None:
    write("")
    tree = yaml.safe_load(RECIPE.replace("1e-2", "0.01"))
    assert from_tree(tree, ["seed=1"]).recipe().seed == 1
    assert refusal(from_tree({**tree, "sed": 1}).recipe) == "recipe: sed: unknown key (did you mean 'seed'?)"
    assert refusal(lambda: from_tree({"a": {1, 2}})) == "recipe: a recipe holds plain values only, not a set"


# finding


def test_recipes_are_found_by_path_or_name(write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("classification/digits.yaml", "pose/digits_pose.yaml", "pose/twin.yaml", "snn/twin.yaml"):
        write("a: 1\n", f"shipped/{name}")
    write("a: 1\n", "shipped/_base/part.yaml")
    local = write("a: 1\n", "mine.yaml")
    monkeypatch.setattr(config_module, "config_folder", lambda: tmp_path / "shipped")
    digits = tmp_path / "shipped/classification/digits.yaml"
    assert find_config("mine.yaml") == local
    for name in ("digits", "digits.yaml", "classification/digits", "configs/classification/digits.yaml"):
        assert find_config(name) == digits
    assert sorted(shipped_configs()) == ["classification/digits", "pose/digits_pose", "pose/twin", "snn/twin"]
    assert refusal(lambda: find_config("twin")) == "'twin' fits several recipes: pose/twin, snn/twin"
    assert "no recipe 'digts' (did you mean 'digits'?)" in refusal(lambda: find_config("digts"))
    assert "no recipe 'min.yaml' (did you mean 'mine.yaml'?)" in refusal(lambda: find_config("min.yaml"))
    assert "no recipe 'part'" in refusal(lambda: find_config("part"))
    assert "shipped is a folder, expected a recipe" in refusal(lambda: find_config("shipped"))


def test_the_source_tree_ships_recipes() -> None:
    assert config_folder().name == "configs"
    assert config_folder().is_dir()


# anything at all: only ever a mistake in words


words = st.sampled_from(
    ["type", "sgd", "toy", "toy_network", "toy_data", "lr", "epochs", "width", "network", "${x", "a"]
)
recipe_keys = st.sampled_from([*Recipe.__dataclass_fields__, "stages", "seeds", "step", "x"])
anything = st.recursive(scalars | words, lambda inner: st.lists(inner) | st.dictionaries(words, inner), max_leaves=10)


@unhurried
@given(st.dictionaries(recipe_keys, anything))
def test_any_tree_is_a_recipe_or_refused(change: dict[str, Any]) -> None:
    tree = {**yaml.safe_load(RECIPE.replace("1e-2", "0.01")), **change}
    try:
        config = from_tree(tree)
        config.check()
    except ConfigError as error:
        assert str(error)
        return
    assert config.is_pipeline or config.recipe().name == tree["name"]
