"""Every command on the pages: its tool, flags, recipes, overrides and runs exist; the quick ones are run."""

import argparse
import re
import shutil
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import CHECKOUT, PAGES, blocks, commands, every_command, tool_of
from vision.deploy.shipped import shipped_models
from vision.engine.config import Config, load, shipped_configs
from vision.engine.pipeline import plan

BUILT_IN = ("export", "cd")
OTHERS_RECIPES = {"configs/classification/tiny_digits.yaml"}
"""Recipes that a page tells its reader to write, judged by the test of that page."""


def in_words(command: tuple[Path, list[str]] | list[str]) -> str:
    return " ".join(command[1] if isinstance(command, tuple) else command)[:90]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CHECKOUT)
    monkeypatch.delenv("TRIPTYCH_DATA", raising=False)


def parsed(module: str, arguments: list[str]) -> argparse.Namespace:
    """The arguments as the tool's own parser takes them."""
    try:
        found: argparse.Namespace = import_module(module).parser().parse_intermixed_args(arguments)
    except SystemExit as refused:
        pytest.fail(f"{module} refuses {arguments}: status {refused.code}", pytrace=False)
    return found


def known_runs() -> set[str]:
    """Names of runs that a shipped recipe, a command or a recipe on a page makes."""
    names = {load(path).name for path in shipped_configs().values()}
    names |= {
        word.removeprefix("name=") for _, command in every_command() for word in command if word.startswith("name=")
    }
    texts = [text for page in PAGES for text in blocks(page, "yaml")]
    return names | {
        str(tree["name"]) for tree in map(yaml.safe_load, texts) if isinstance(tree, dict) and "name" in tree
    }


def config_of(name: str, overrides: list[str]) -> Config | None:
    """The checked recipe of a command; None for one that the page has its reader write."""
    if name in OTHERS_RECIPES:
        return None
    config = load(name, overrides)
    config.check()
    assert plan(config)
    return config


def check_tool(tool: str, arguments: list[str]) -> None:
    found = parsed(f"tools.{tool}", arguments)
    if tool == "train":
        config_of(found.config, found.overrides)
    runs = found.runs if tool == "report" else [found.run] if tool in ("eval", "predict") else []
    for run in map(str, runs):
        if run in shipped_models():
            continue
        if run.endswith(".yaml"):
            config_of(run, found.overrides)
            continue
        folder, name = Path(run).parts[0], Path(run).parts[1]
        assert folder == "runs", f"{run}: runs lie below runs/"
        assert name in known_runs(), f"{run}: nothing on the pages makes it"
        if tool == "eval" and name in map(_name, shipped_configs()):
            config_of(name, found.overrides)


def _name(shipped: str) -> str:
    return shipped.rpartition("/")[2]


def check_pip(arguments: list[str]) -> None:
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for before, word in zip(["", *arguments], arguments, strict=False):
        if before in ("--constraint", "-c"):
            assert (CHECKOUT / word).is_file()
        for asked in re.findall(r"\[([\w,-]+)\]", word):
            assert set(asked.split(",")) <= set(extras)


@pytest.mark.parametrize("found", every_command(), ids=in_words)
def test_it_exists_and_takes_what_it_is_given(found: tuple[Path, list[str]]) -> None:
    command = found[1]
    tool = tool_of(command)
    if tool is not None:
        check_tool(*tool)
    elif command[0] == "make":
        goals = set(re.findall(r"^(\w+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
        assert {word for word in command[1:] if "=" not in word} <= goals
    elif command[:3] == ["python", "-m", "pip"]:
        check_pip(command[3:])
    elif command[:2] == ["python", "-m"]:
        assert find_spec(command[2]), f"no module {command[2]}"
    elif command[0] == "python":
        script = Path(command[1])
        assert script.is_file(), f"no {script}"
        if script.parts[0] == "benchmarks":
            parsed(".".join(script.with_suffix("").parts), command[2:])
    else:
        assert command[0] in BUILT_IN, f"{found[0].name}: '{command[0]}' is no command this test knows"


def quick(page: Path) -> list[list[str]]:
    """The commands of a page that need neither data nor more than seconds when they are made small."""
    kept = []
    for command in commands(page):
        tool = tool_of(command)
        if tool is None or tool[0] == "demo" or command[0] == "torchrun" or OTHERS_RECIPES & set(command):
            continue
        if any("digits" in word for word in tool[1]):
            kept.append([tool[0], *tool[1]])
    return kept


SMALL = ["trainer.epochs=1", "data.limit=48", "trainer.batch_size=24"]


def chapters() -> dict[str, list[list[str]]]:
    """The quick commands of each page; of all pages of how_to/ together, in the order in which its index links them."""
    index = (CHECKOUT / "docs/how_to.md").read_text(encoding="utf-8")
    tasks = [CHECKOUT / "docs" / link for link in re.findall(r"\((how_to/\w+\.md)\)", index)]
    found = {page.stem: quick(page) for page in PAGES if page not in tasks}
    found["how_to"] = [command for page in tasks for command in quick(page)]
    return {name: kept for name, kept in found.items() if kept}


@pytest.mark.parametrize("chapter", chapters())
def test_the_quick_ones_run_in_the_order_of_the_page(
    chapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(CHECKOUT / "configs", tmp_path / "configs")
    shutil.copytree(CHECKOUT / "vision/samples", tmp_path / "vision/samples")
    monkeypatch.chdir(tmp_path)
    ran = 0
    for tool, *arguments in chapters()[chapter]:
        if tool != "train":
            runs = [Path(word) for word in arguments if word.startswith("runs/")]
            if not all(run.exists() for run in runs):
                continue  # made on another page
        elif "--resume" not in arguments and not {"--dry-run", "--print-config"} & set(arguments):
            shutil.rmtree(tmp_path / "runs" / load(arguments[0], arguments[1:]).name, ignore_errors=True)
        small = SMALL if tool == "train" else SMALL[1:2] if tool == "eval" else []
        assert import_module(f"tools.{tool}").main([*arguments, *small]) == 0, f"{tool} {arguments}"
        ran += 1
    assert ran
    assert capsys.readouterr().out


def test_the_tools_of_the_readme_are_all_the_tools() -> None:
    named = {tool[0] for _, command in every_command() if (tool := tool_of(command))}
    there = {path.stem for path in (CHECKOUT / "tools").glob("[a-z]*.py")}
    assert named == there
