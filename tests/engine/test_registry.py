"""Names -> classes: what is registered, found, refused and built."""

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from vision.engine import registry
from vision.engine.data import DataModule
from vision.engine.errors import ConfigError
from vision.engine.registry import build, find, names, register
from vision.engine.task import Task

pytestmark = pytest.mark.usefixtures("own_names")


class Widener(nn.Module):
    def __init__(self, inner: nn.Module, width: int = 2) -> None:
        super().__init__()
        self.inner, self.width = inner, width


def linear(inputs: int, outputs: int = 1) -> nn.Linear:
    return nn.Linear(inputs, outputs)


def test_a_block_builds_what_python_builds() -> None:
    register("widener")(Widener)
    register("a_linear")(linear)
    torch.manual_seed(0)
    direct = Widener(linear(3, outputs=2), width=5)
    torch.manual_seed(0)
    built = build({"type": "widener", "inner": {"type": "a_linear", "inputs": 3, "outputs": 2}, "width": 5})
    assert built.width == direct.width
    assert torch.equal(built.inner.weight, direct.inner.weight)


def test_a_bare_name_is_a_block_without_arguments() -> None:
    register("widener")(Widener)
    register("relu_like")(nn.ReLU)
    assert isinstance(build("relu_like"), nn.ReLU)
    assert isinstance(build({"type": "widener", "inner": "relu_like"}).inner, nn.ReLU)


def test_given_arguments_reach_the_factory_and_not_the_block() -> None:
    register("widener")(Widener)
    inner = nn.ReLU()
    assert build({"type": "widener"}, inner=inner).inner is inner
    with pytest.raises(ConfigError, match="inner: unknown key"):
        build({"type": "widener", "inner": "relu"}, inner=inner)


class SomeTask(Task):
    def __init__(self, data: DataModule) -> None:
        super().__init__()


class SomeData(DataModule):
    pass


def _makes_a_module() -> nn.Module:
    return nn.ReLU()


@pytest.mark.parametrize(
    ("factory", "kind"),
    [(SomeTask, "task"), (SomeData, "data"), (Widener, "network"), (_makes_a_module, "network")],
)
def test_the_kind_is_told_from_what_is_built(factory: Callable[..., Any], kind: str) -> None:
    register("thing")(factory)
    assert find("thing").kind == kind


def test_a_kind_that_cannot_be_told_is_asked_for() -> None:
    def anything() -> int:
        return 1

    with pytest.raises(ConfigError, match=r"register\('thing'\): .* give kind="):
        register("thing")(anything)
    register("thing", kind="number")(anything)
    assert build("thing", kind="number") == 1


def test_a_taken_name_is_refused_with_both_owners() -> None:
    register("thing")(Widener)
    register("thing")(Widener)  # the same again, as when a module is reloaded
    with pytest.raises(ConfigError, match=r"'thing' is registered twice: by .*Widener and .*linear"):
        register("thing")(linear)


def test_unknown_names_get_the_nearest_of_the_kind() -> None:
    register("widener")(Widener)
    with pytest.raises(ConfigError, match=r"nothing is registered as 'widenr' \(did you mean 'widener'\?\)"):
        find("widenr")
    with pytest.raises(ConfigError, match="'widener' is a network, expected an optimizer: adam"):
        find("widener", "optimizer")


def test_names_match_a_glob_and_a_kind() -> None:
    register("zz_one")(Widener)
    register("zz_two", kind="loss")(Widener)
    assert names("zz_*") == ["zz_one", "zz_two"]
    assert names("zz_*", kind="loss") == ["zz_two"]
    assert "zz_two" not in names(kind="network")


@pytest.mark.parametrize("name", ["os.system", "torch.nn.Linear", "builtins.eval", "vision.engine.registry.build"])
def test_only_registered_names_are_built(name: str) -> None:
    with pytest.raises(ConfigError, match="nothing is registered as"):
        build({"type": name})


def test_a_value_the_constructor_refuses_is_the_users_mistake() -> None:
    def picky(share: float) -> nn.Module:
        raise ValueError(f"share must be in [0, 1], got {share}")

    register("picky")(picky)
    with pytest.raises(ConfigError, match=r"'picky' cannot be built: share must be in \[0, 1\], got 3\.0"):
        build({"type": "picky", "share": 3})


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        (lambda width: nn.Linear(width, 3), "Trying to create tensor with negative dimension -1: [3, -1]"),
        (lambda width: torch.empty(10**18), "it takes more memory than there is"),
        (lambda width: torch.empty(10**10, 10**10), "Storage size calculation overflowed with sizes"),
        (lambda width: torch.linspace(0, 1, width), "number of steps must be non-negative"),
        (lambda width: torch.eye(width), "n must be greater or equal to 0, got -1"),
        (lambda width: nn.init.normal_(torch.zeros(2), std=width), "normal expects std >= 0.0, but found std -1"),
        (lambda width: 1 // (width + 1), "integer division or modulo by zero"),
    ],
)
def test_a_size_that_torch_refuses_is_the_users_mistake(factory: Any, reason: str) -> None:
    """The words are torch's own: where it changes them, this fails, and not a user's recipe with a traceback."""
    entry = registry.Entry("huge", "network", factory)
    with pytest.raises(ConfigError, match=re.escape(f"'huge' cannot be built of width: -1: {reason}")):
        registry.make(entry, {"width": -1})


def test_a_fault_of_a_constructor_is_not_called_the_users_mistake() -> None:
    entry = registry.Entry("faulty", "network", lambda width: nn.Linear(2, 3)(torch.zeros(1, width)))
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        registry.make(entry, {"width": 5})


def test_plugins_register_and_broken_ones_are_named_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ImportError("no module named 'sparse'")

    good = SimpleNamespace(name="good", value="good_plugin", load=lambda: register("from_plugin")(Widener))
    bad = SimpleNamespace(name="bad", value="bad_plugin:all", load=broken)
    monkeypatch.setattr(registry, "_loaded", False)
    monkeypatch.setattr(registry, "entry_points", lambda group: {"triptych": [good]}[group])
    assert find("from_plugin").factory is Widener
    monkeypatch.setattr(registry, "_loaded", False)
    monkeypatch.setattr(registry, "entry_points", lambda group: [good, bad])
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"plug-in 'bad' \(bad_plugin:all\) cannot be imported: no module named"):
            find("from_plugin")


def test_entries_tell_what_they_are() -> None:
    register("widener")(Widener)
    assert find("sgd").summary.startswith("Stochastic gradient descent")
    assert [entry.name for entry in registry.entries("schedule")] == names(kind="schedule")
