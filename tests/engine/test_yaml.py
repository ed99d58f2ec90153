"""Recipes as text: what YAML is read, where its values stand, and what is written reads the same."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.recipes import RECIPE, Write, refusal, scalars, texts, trees, unhurried
from vision.engine.config import Config, from_tree, load, to_yaml
from vision.engine.errors import ConfigError
from vision.engine.merging import with_variables
from vision.engine.sources import Node, parse, scalar, to_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1e4", 1e4),
        ("-1.5E+3", -1500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("-3", -3),
        ("-.inf", -math.inf),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1e", "1e"),
        ("'1e-4'", "1e-4"),
        ('"true"', "true"),
        ("!!str 3", "3"),
        ("[1, [a, 2.0]]", [1, ["a", 2.0]]),
    ],
)
def test_scalars_are_those_of_yaml_1_2(write: Write, text: str, value: Any) -> None:
    found = load(write(f"key: {text}\n")).tree["key"]
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_one() -> None:
    found = scalar(".nan")
    assert isinstance(found, float)
    assert math.isnan(found)


def test_keys_are_strings_as_written(write: Write) -> None:
    assert load(write("on: 1\n80: 2\nnull: 3\n")).tree == {"on": 1, "80": 2, "null": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "r.yaml:3: not valid YAML: while parsing a flow sequence expected ',' or ']'"),
        ("a:\n\tb: 1\n", "r.yaml:2: not valid YAML: while scanning for the next token found character '\\t'"),
        ("a: b: c\n", "r.yaml:1: not valid YAML: mapping values are not allowed here"),
        ("a: *b\n", "r.yaml:1: not valid YAML: found undefined alias 'b'"),
        ("---\na: 1\n---\nb: 1\n", "r.yaml:3: not valid YAML: expected a single document"),
        ("lr: 1\na: 2\nlr: 3\n", "r.yaml:3: 'lr' is given twice, on lines 1 and 3"),
        ("a:\n  - b: 1\n    b: 2\n", "r.yaml:3: 'b' is given twice, on lines 2 and 3"),
        ("a: !!python/name:os.system\n", "r.yaml:1: the tag 'python/name:os.system' is not allowed"),
        ("a: !mine 3\n", "r.yaml:1: the tag '!mine' is not allowed"),
        ("a: !!int x\n", "r.yaml:1: 'x' is not of the tag 'int'"),
        ("b: &b {x: 1}\na:\n  <<: *b\n", "r.yaml:3: '<<' is not supported; use 'extends'"),
        ("a: &a [*a]\n", "r.yaml:1: an alias holds itself"),
        ("? [1]\n: 2\n", "r.yaml:1: a key must be a word"),
        ("- 1\n", "r.yaml:1: expected a mapping of keys to values, got [1]"),
        ("", "r.yaml:1: expected a mapping of keys to values, got an empty file"),
        ("a: " + "[" * 1000, "r.yaml:1: nested too deeply"),
    ],
)
def test_yaml_that_does_not_hold_is_told_on_one_line(write: Write, text: str, message: str) -> None:
    path = write(text)
    found = refusal(lambda: load(path))
    assert found.startswith(message)
    assert "\n" not in found


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"a: \xff\n")
    assert "not valid YAML: unacceptable character #x00ff" in refusal(lambda: load(tmp_path / "r.yaml"))


def test_aliases_cannot_fill_the_memory(write: Write) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    path = write("\n".join(lines))
    assert "too many values" in refusal(lambda: load(path))


def test_anchors_repeat_a_value(write: Write) -> None:
    assert load(write("a: &x {b: 1}\nc: *x\n")).tree == {"a": {"b": 1}, "c": {"b": 1}}


def test_a_nodes_place_is_that_of_its_key() -> None:
    node = parse("a:\n  b:\n    - 1\n    - 2\n", lambda line: f"f:{line}")
    assert node.places() == {
        (): "f:1",
        ("a",): "f:1",
        ("a", "b"): "f:2",
        ("a", "b", 0): "f:3",
        ("a", "b", 1): "f:4",
    }
    assert isinstance(node, Node)


@unhurried
@given(st.one_of(st.binary(max_size=60), st.text("ab:-[]{}&*!|>'\"#%@`,?~ \n\t$0", max_size=40).map(str.encode)))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    try:
        parse(text, lambda line: f"f:{line}")
    except ConfigError as error:
        assert str(error).startswith("f:")


# round trip


@unhurried
@given(trees)
def test_a_resolved_tree_written_and_read_is_the_same(tree: dict[str, Any]) -> None:
    first = from_tree(json.loads(json.dumps(tree).replace("${", "$${")))
    second = Config(with_variables(parse(first.yaml, str)))
    assert second.tree == first.tree == tree
    assert second.hash == first.hash
    assert second.yaml == first.yaml


@unhurried
@given(scalars)
def test_other_readers_of_yaml_see_the_same(value: Any) -> None:
    """What YAML 1.1 and 1.2 disagree on, such as ``on``, is written in quotes."""
    assert yaml.safe_load(to_text({"key": value}))["key"] == value


def test_the_resolved_file_loads_again(write: Write) -> None:
    write(RECIPE, "base.yaml")
    config = load(write("extends: base.yaml\nname: child\n"), ["optimizer.lr=1e-5", "description=off"])
    again = load(write(config.yaml, "resolved.yaml"))
    assert again.tree == config.tree
    assert again.hash == config.hash


def test_the_hash_is_of_canonical_json(write: Write) -> None:
    config = load(write("b: 1\na: {y: 1e-4, x: ü}\n"))
    canonical = '{"a":{"x":"\\u00fc","y":0.0001},"b":1}'
    assert config.hash == hashlib.sha256(canonical.encode()).hexdigest()
    assert load(write("a: {x: ü, y: 1e-4}\nb: 1\n")).hash == config.hash


def test_short_lists_stay_on_a_line() -> None:
    assert to_yaml({"a": [1, 2], "b": [[1], {"c": 2}]}) == "a: [1, 2]\nb:\n- [1]\n- c: 2\n"


@unhurried
@given(texts)
def test_any_text_can_be_written(text: str) -> None:
    escaped = to_yaml({"key": text})
    assert with_variables(parse(escaped, str)).tree() == {"key": text}
