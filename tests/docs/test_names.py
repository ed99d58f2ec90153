"""Names on the pages: files, modules, flags and fields that stand in code style exist."""

import re
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from tests.docs.pages import CHECKOUT, PAGES, words
from vision.engine.recipe import EarlyStop, Recipe, TrainerOptions
from vision.engine.registry import entries
from vision.engine.signature import signature_of

FOLDERS = ("configs", "tools", "benchmarks", "docs", "vision", "snn", "robust", "tests")
OTHERS_FLAGS = {"--nnodes"}
"""Flags of torchrun."""

WRITTEN = [page for page in PAGES if page.name != "results.md"]


def files(page: Path) -> list[str]:
    return [w for w in words(page) if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w./-]+", w)]


def dotted(page: Path) -> list[str]:
    return [w for w in words(page) if re.fullmatch(r"(vision|snn|robust)(\.\w+)+", w)]


def flags(page: Path) -> list[str]:
    return [w.split("=")[0].split()[0] for w in words(page) if re.match(r"--[a-z]", w)]


def fields(page: Path) -> list[str]:
    return [w.split("=")[0] for w in words(page) if re.match(r"(trainer|task|data|optimizer|schedule)\.\w+", w)]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.stem)
def test_files_are_there(page: Path) -> None:
    to_be_written = {"vision/classification/tiny.py", "configs/classification/tiny_digits.yaml"}
    tests = {name for name in files(page) if name.startswith("tests/")}
    missing = [name for name in files(page) if not (CHECKOUT / name).exists() and name not in to_be_written | tests]
    assert missing == []


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.stem)
def test_modules_and_what_is_in_them_are_there(page: Path) -> None:
    for name in dotted(page):
        parts = name.split(".")
        module = import_module(parts[0])
        for place, part in enumerate(parts[1:], 2):
            try:
                module = getattr(module, part)
            except AttributeError:
                module = import_module(".".join(parts[:place]))
        assert module is not None, name


@cache
def known_flags() -> set[str]:
    found = set(OTHERS_FLAGS)
    for folder in ("tools", "benchmarks"):
        for script in (CHECKOUT / folder).rglob("[a-z]*.py"):
            found |= set(re.findall(r'"(--[a-z][\w-]*)"', script.read_text()))
    return found


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.stem)
def test_flags_are_some_tools(page: Path) -> None:
    assert [flag for flag in flags(page) if flag not in known_flags()] == []


@cache
def arguments_of(kind: str) -> set[str]:
    return {name for entry in entries(kind) for name in signature_of(entry.factory).fields}


def is_a_field(dotted_name: str) -> bool:
    top, *parts = dotted_name.split(".")
    if top == "trainer":
        return set(parts) <= set(signature_of(TrainerOptions).fields) | set(signature_of(EarlyStop).fields)
    if top == "task" and len(parts) > 1:
        return parts[0] in arguments_of("task") and parts[1] in arguments_of("network") | {"type"}
    return parts[0] in arguments_of(top) | {"type"}


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.stem)
def test_fields_are_some_constructors(page: Path) -> None:
    assert [name for name in fields(page) if not is_a_field(name)] == []


def test_every_field_of_a_recipe_is_told_of() -> None:
    told = set(words(CHECKOUT / "docs" / "trainer.md"))
    assert {*Recipe.__dataclass_fields__, *TrainerOptions.__dataclass_fields__} <= told


def test_every_data_set_task_and_loss_field_has_its_table() -> None:
    pages = "".join(page.read_text() for page in sorted((CHECKOUT / "docs").glob("*.md")))
    own = [e for kind in ("task", "data") for e in entries(kind) if e.factory.__module__.startswith("vision.")]
    assert [e.name for e in own if f"`{e.name}`" not in pages and f"<!-- fields: {e.name} -->" not in pages] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_page_names_a_folder_of_a_machine(page: Path) -> None:
    assert re.findall(r"(?<![\w.])/(?:home|root|work|tmp|Users)/\S*", page.read_text(encoding="utf-8")) == []


def test_these_patterns_find_something() -> None:
    assert len([w for page in WRITTEN for w in files(page)]) > 5
    assert len([w for page in WRITTEN for w in dotted(page)]) > 5
    assert len([w for page in WRITTEN for w in flags(page)]) >= 3
    assert len([w for page in WRITTEN for w in fields(page)]) > 15
    assert not is_a_field("trainer.batchsize")
    assert not is_a_field("task.network.no_such_field")
