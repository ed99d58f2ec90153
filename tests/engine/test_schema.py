"""Blocks held against constructors: what is taken, what is refused, and in which words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from annotated_types import Ge, Gt, Le, Len
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vision.engine.data import DataModule
from vision.engine.errors import ConfigError
from vision.engine.recipe import Block, Recipe, TrainerOptions
from vision.engine.registry import OfKind, build, register
from vision.engine.schema import check, data_the_task_refuses, mistakes_in, read, validate
from vision.engine.signature import describe, descriptions, signature_of
from vision.engine.task import Task

pytestmark = pytest.mark.usefixtures("own_names")


class Colour(Enum):
    red = "red"
    blue = "blue"


@dataclass(frozen=True)
class Window:
    """A stretch of time.

    Attributes:
        start: seconds.
        end: seconds.
    """

    start: float
    end: float = 1.0

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise ValueError(f"window: end {self.end} is not after start {self.start}")


def everything(
    count: int = 0,
    rate: float = 0.0,
    on: bool = False,
    name: str = "",
    folder: Path = Path(),
    mode: Literal["a", "b", 3] = "a",
    colour: Colour = Colour.red,
    size: int | tuple[int, int] = 1,
    maybe: Annotated[int, Gt(0)] | None = None,
    share: Annotated[float, Ge(0), Le(1)] = 0.5,
    widths: list[int] = [],  # noqa: B006
    pair: tuple[float, float] = (0.0, 1.0),
    any_length: tuple[int, ...] = (),
    some: Annotated[list[int], Len(1, 3)] = [1],  # noqa: B006
    numbers: Sequence[float] = (),
    table: dict[str, float] = {},  # noqa: B006
    by_class: Mapping[int, float] = {},
    window: Window | None = None,
    windows: list[Window] = [],  # noqa: B006
    whatever: Any = None,
    copy: int = 1,
) -> nn.Module:
    return nn.Identity()


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("count", 3, 3),
        ("rate", 1, 1.0),
        ("rate", float("inf"), float("inf")),
        ("on", True, True),
        ("folder", "a/b", Path("a/b")),
        ("mode", "b", "b"),
        ("mode", 3, 3),
        ("colour", "blue", Colour.blue),
        ("size", 2, 2),
        ("size", [2, 3], (2, 3)),
        ("maybe", None, None),
        ("maybe", 1, 1),
        ("share", 1, 1.0),
        ("widths", [1, 2], [1, 2]),
        ("pair", [1, 2], (1.0, 2.0)),
        ("any_length", [1, 2, 3], (1, 2, 3)),
        ("numbers", [1, 0.5], [1.0, 0.5]),
        ("table", {"a": 1}, {"a": 1.0}),
        ("by_class", {"3": 0.5}, {3: 0.5}),
        ("window", {"start": 0}, Window(0.0)),
        ("window", None, None),
        ("windows", [{"start": 0, "end": 2}], [Window(0.0, 2.0)]),
        ("whatever", {"x": [1, "y"]}, {"x": [1, "y"]}),
        ("copy", 2, 2),
    ],
)
def test_values_become_what_the_annotation_says(key: str, value: Any, expected: Any) -> None:
    register("everything")(everything)
    arguments = validate({"type": "everything", key: value})
    assert arguments == {key: expected}
    assert type(arguments[key]) is type(expected)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("count", "3", "count: expected an int, got '3'"),
        ("count", True, "count: expected an int, got true"),
        ("count", 1.5, "count: expected an int, got 1.5"),
        ("count", 1e4, "count: expected an int, got 10000.0 (write 10000)"),
        ("count", None, "count: expected an int, got null"),
        ("rate", "1e-4", "rate: expected a number, got '1e-4'"),
        ("rate", False, "rate: expected a number, got false"),
        ("on", 1, "on: expected true or false, got 1"),
        ("on", "yes", "on: expected true or false, got 'yes'"),
        ("name", 3, "name: expected a string, got 3"),
        ("folder", 3, "folder: expected a string, got 3"),
        ("mode", "c", "mode: expected 'a', 'b' or 3, got 'c'"),
        ("colour", "bleu", "colour: expected 'red' or 'blue', got 'bleu' (did you mean 'blue'?)"),
        ("size", "x", "size: expected an int or a list, got 'x'"),
        ("size", [1, "x"], "size.1: expected an int, got 'x'"),
        ("maybe", 0, "maybe: expected a number > 0, got 0"),
        ("share", 1.5, "share: expected a number <= 1, got 1.5"),
        ("share", -1, "share: expected a number >= 0, got -1"),
        ("widths", 3, "widths: expected a list, got 3"),
        ("widths", [1, "2", None], "widths.1: expected an int, got '2'\nwidths.2: expected an int, got null"),
        ("pair", [1], "pair: expected more items, got [1]"),
        ("pair", [1, 2, 3], "pair: expected at most 2 items, got [1, 2, 3]"),
        ("some", [], "some: expected at least 1 items, got []"),
        ("table", {"a": "b"}, "table.a: expected a number, got 'b'"),
        ("table", [1], "table: expected a mapping, got [1]"),
        ("window", 3, "window: expected a mapping, got 3"),
        ("window", {}, "window.start: is missing; expected number"),
        ("window", {"start": 0, "ende": 2}, "window.ende: unknown key (did you mean 'end'?)"),
        ("windows", [{"start": 0}, {"start": "0"}], "windows.1.start: expected a number, got '0'"),
        ("window", {"start": 3}, "window: end 1.0 is not after start 3.0"),
    ],
)
def test_mistakes_name_field_value_and_expectation(key: str, value: Any, message: str) -> None:
    register("everything")(everything)
    with pytest.raises(ConfigError) as refused:
        validate({"type": "everything", key: value})
    assert str(refused.value) == message


json_numbers = st.one_of(st.integers(), st.floats(allow_nan=False))


@settings(deadline=None)
@given(rate=json_numbers, count=st.integers(), name=st.text(st.characters(exclude_categories=["Cs"])))
def test_numbers_and_texts_pass_unchanged(rate: float, count: int, name: str) -> None:
    register("everything")(everything)
    found = validate({"type": "everything", "rate": rate, "count": count, "name": name})
    assert found == {"rate": float(rate), "count": count, "name": name}


class Backbone(nn.Module):
    channels = 1


class Wide(Backbone):
    """Wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width


class Other(nn.Module):
    pass


class Whole(nn.Module):
    """A network with parts.

    Args:
        backbone: the trunk.
        heads: what stands on it.
        extra: more, by name.
        loss: how it is judged.
        later: built by the network.
    """

    def __init__(
        self,
        backbone: Backbone,
        heads: list[nn.Module] | None = None,
        extra: dict[str, nn.Module] | None = None,
        loss: Annotated[Callable[..., Tensor], OfKind("test_loss")] | None = None,
        later: Annotated[Block, OfKind("optimizer")] | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.heads, self.extra, self.loss, self.later = backbone, heads, extra, loss, later


class ATask(Task):
    """Some task."""


def power(exponent: float) -> Callable[[Tensor], Tensor]:
    return lambda x: x**exponent


@pytest.fixture
def parts(own_names: None) -> None:
    for name, factory in {"wide": Wide, "other": Other, "whole": Whole}.items():
        register(name)(factory)
    register("power", kind="test_loss")(power)


@pytest.mark.usefixtures("parts")
class TestNestedBlocks:
    def test_are_built_wherever_the_annotation_has_them(self) -> None:
        block = {
            "type": "whole",
            "backbone": {"type": "wide", "width": 3},
            "heads": ["other", {"type": "wide", "width": 4}],
            "extra": {"a": "other"},
            "loss": {"type": "power", "exponent": 2},
            "later": {"type": "sgd", "lr": 0.1},
        }
        built = build(block)
        assert built.backbone.width == 3
        assert [type(head) for head in built.heads] == [Other, Wide]
        assert isinstance(built.extra["a"], Other)
        assert built.loss(torch.tensor(3.0)) == 9
        assert built.later == {"type": "sgd", "lr": 0.1}

    def test_a_deferred_block_is_checked_all_the_same(self) -> None:
        block = {"type": "whole", "backbone": {"type": "wide", "width": 3}, "later": {"type": "sgd", "lr": -1}}
        with pytest.raises(ConfigError, match=r"^later\.lr: expected a number > 0, got -1$"):
            validate(block)
        assert validate({**block, "later": {"type": "sgd", "lr": 1}})["later"] == {"type": "sgd", "lr": 1}

    @pytest.mark.parametrize(
        ("backbone", "message"),
        [
            (3, "backbone: expected a block {type: ...}, got 3"),
            ({"width": 3}, "backbone: has no type; expected a Backbone: wide"),
            ("other", "backbone.type: 'other' is a network, expected a Backbone: wide"),
            ("wied", "backbone.type: nothing is registered as 'wied' (did you mean 'wide'?)"),
            ("zzzzzz", "backbone.type: nothing is registered as 'zzzzzz'; expected a Backbone: wide"),
            ("wide", "backbone.width: is missing; expected int"),
            ({"type": ["wide"]}, "backbone.type: nothing is registered as ['wide']; expected a Backbone: wide"),
        ],
    )
    def test_mistakes_in_them_have_their_path(self, backbone: Any, message: str) -> None:
        with pytest.raises(ConfigError) as refused:
            validate({"type": "whole", "backbone": backbone})
        assert str(refused.value) == message

    def test_a_missing_block_names_what_may_stand_there(self) -> None:
        with pytest.raises(ConfigError, match=r"^backbone: is missing; expected a Backbone: wide$"):
            validate("whole")

    def test_every_mistake_is_told_at_once_and_nothing_is_built(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def never(self: Other) -> None:
            raise RuntimeError("built although there are mistakes")

        monkeypatch.setattr(Other, "__init__", never)
        block = {
            "type": "whole",
            "backbone": {"type": "wide", "width": "3", "kernel": 1},
            "heads": ["other", {"type": "wide"}],
            "exponent": 2,
            "loss": {"type": "power"},
        }
        with pytest.raises(ConfigError) as refused:
            validate(block)
        assert str(refused.value).splitlines() == [
            "backbone.width: expected an int, got '3'",
            "backbone.kernel: unknown key; expected width",
            "heads.1.width: is missing; expected int",
            "exponent: unknown key; 'exponent' belongs to 'loss'",
            "loss.exponent: is missing; expected number",
        ]

    def test_what_a_function_builds_is_checked_when_it_is_built(self) -> None:
        def surprising() -> nn.Module:
            return Other()

        register("surprising")(surprising)
        with pytest.raises(ConfigError, match=r"^backbone: 'surprising' builds an Other, expected a Backbone$"):
            validate({"type": "whole", "backbone": "surprising"})

    def test_a_task_is_no_network(self) -> None:
        register("a_task")(ATask)
        with pytest.raises(ConfigError, match=r"heads\.0\.type: 'a_task' is a task, expected a Module"):
            check({"type": "whole", "backbone": {"type": "wide", "width": 1}, "heads": ["a_task"]})


def test_places_lead_each_line() -> None:
    register("everything")(everything)
    lines = {("count",): "a.yaml:3", ("window", "start"): "b.yaml:9"}
    with pytest.raises(ConfigError) as refused:
        check({"type": "everything", "count": "1", "window": {"start": []}}, where=lambda place: lines[place])
    assert str(refused.value) == (
        "a.yaml:3: count: expected an int, got '1'\nb.yaml:9: window.start: expected a number, got []"
    )


def test_open_factories_take_further_keys() -> None:
    def opened(width: int, **options: Any) -> nn.Module:
        return nn.Identity()

    register("opened")(opened)
    assert validate({"type": "opened", "width": 1, "depth": [2]}) == {"width": 1, "depth": [2]}


def test_arguments_that_no_file_can_hold_come_from_python_only() -> None:
    def mixed(weight: Tensor, width: int = 1, hook: Callable[[], None] | None = None) -> nn.Module:
        return nn.Identity()

    register("mixed")(mixed)
    assert validate({"type": "mixed", "width": 2}, given=("weight",)) == {"width": 2}
    with pytest.raises(ConfigError, match="hook: unknown key"):
        validate({"type": "mixed", "hook": "x"}, given=("weight",))
    with pytest.raises(ConfigError, match="mixed needs 'weight', which no recipe can hold; build it from Python"):
        validate({"type": "mixed"})


def test_a_factory_that_no_recipe_could_call_is_told_to_its_author() -> None:
    def unannotated(width) -> nn.Module:  # type: ignore[no-untyped-def]
        return nn.Identity()

    def positional(width: int, /) -> nn.Module:
        return nn.Identity()

    for factory, message in ((unannotated, "'width' has no annotation"), (positional, "'width'; name it otherwise")):
        register(factory.__name__)(factory)
        with pytest.raises(ConfigError, match=message):
            check(factory.__name__)


def test_values_that_are_not_plain_are_refused() -> None:
    register("everything")(everything)
    with pytest.raises(ConfigError, match="plain values only, not a Tensor"):
        check({"type": "everything", "whatever": torch.zeros(1)})


def test_descriptions_are_read_from_docstrings() -> None:
    text = """Sum.

    Args:
        first: one
            and more: even this.
        second (int): two.

    Returns:
        third: not an argument.
    """
    assert descriptions(text) == {"first": "one and more: even this.", "second": "two."}
    fields = signature_of(TrainerOptions).fields
    assert fields["epochs"].description == "passes over the training data."
    assert all(item.description for item in fields.values())


def test_types_are_described_in_words() -> None:
    assert describe(Annotated[int, Gt(0)] | None) == "int or null"
    assert describe(tuple[int, float]) == "list of int and number"
    assert describe(dict[str, int]) == "mapping"


@dataclass(frozen=True)
class Inner:
    depth: int = 1


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    names: tuple[str, ...] = ()


def test_dataclasses_read_from_plain_values() -> None:
    assert read(Outer, {"inner": {"depth": 2}, "names": ["a"]}) == Outer(Inner(2), ("a",))
    assert read(Outer, {}) == Outer()
    assert [m.place for m in mistakes_in(Outer, {"inner": {"dept": 2}, "name": 1})] == [("inner", "dept"), ("name",)]


def test_every_registered_entry_has_a_schema_with_a_description_of_each_argument() -> None:
    from vision.engine.registry import entries
    from vision.engine.signature import origin_of

    own = [e for e in entries() if origin_of(e.factory).partition(".")[0] in ("vision", "snn", "robust")]
    assert len(own) > 10
    missing = [
        f"{entry.name}.{name}"
        for entry in own
        for name, item in signature_of(entry.factory).fields.items()
        if not item.description
    ]
    assert missing == []


class Images(DataModule):
    pass


class Faces(Images):
    pass


class Sounds(DataModule):
    pass


class Listening(Task):
    def __init__(self, data: Sounds) -> None:
        super().__init__()


def test_data_must_be_what_the_task_takes() -> None:
    for name, factory in {"faces": Faces, "sounds": Sounds, "listening": Listening}.items():
        register(name)(factory)
    assert data_the_task_refuses("listening", "sounds") == []
    found = data_the_task_refuses({"type": "listening"}, {"type": "faces"})
    assert [(m.place, m.message) for m in found] == [
        (("data",), "the task 'listening' takes a Sounds, not 'faces'; expected sounds")
    ]
    assert data_the_task_refuses("listening", "nothing") == []  # told elsewhere


def test_blocks_of_a_recipe_are_of_their_kind() -> None:
    found = mistakes_in(Recipe, {"name": "x", "task": "sgd", "data": "mlp", "optimizer": {"type": "sgd", "lr": 1}})
    assert [(m.place, m.message.partition(",")[0]) for m in found] == [
        (("task", "type"), "'sgd' is an optimizer"),
        (("data", "type"), "'mlp' is a network"),
    ]
