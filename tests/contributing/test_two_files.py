"""A new model touches two files: CONTRIBUTING.md is followed to the letter, in a copy of the checkout."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.launching import predictions, result
from vision.engine.checkpoint import read_weights

CHECKOUT = Path(__file__).resolve().parents[2]
COPIED = ("vision", "snn", "robust", "tools", "configs", "tests")
STEP = re.compile(r"\*\*\d\. [^*]+\*\*, `(?P<path>[^`]+)`.*?```(?:python|yaml)\n(?P<content>.*?)```", re.DOTALL)
COMMAND = re.compile(r"^python (?P<arguments>tools/train\.py [^#\n]*)", re.MULTILINE)


def section() -> str:
    """The part of CONTRIBUTING.md on adding a model."""
    text = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return text[text.index("## Add a model: two files") : text.index("## What a change looks like")]


def new_files() -> dict[str, str]:
    """What the document says to write, by path."""
    return {step["path"]: step["content"] for step in STEP.finditer(section())}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the checkout with the two files in it."""
    root = tmp_path_factory.mktemp("checkout")
    for name in COPIED:
        source, target = CHECKOUT / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    shutil.copy(CHECKOUT / "pyproject.toml", root)
    for path, content in new_files().items():
        assert not (root / path).exists()
        (root / path).write_text(content, encoding="utf-8")
    yield root


def python(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=checkout, env=environment, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip


def test_the_document_names_two_files() -> None:
    assert list(new_files()) == ["vision/classification/tiny.py", "configs/classification/tiny_digits.yaml"]
    assert len(COMMAND.findall(section())) == 2


@pytest.mark.slow
def test_its_commands_train_the_new_model(checkout: Path) -> None:
    dry, train = (shlex.split(found["arguments"]) for found in COMMAND.finditer(section()))
    done = python(checkout, *dry)
    assert done.returncode == 0, done.stderr
    assert "dry run: one update done; 4810 parameters" in done.stderr, "64 x 64 + 64 and 64 x 10 + 10"
    assert not (checkout / "runs").exists()
    done = python(checkout, *train, "trainer.epochs=1")
    assert done.returncode == 0, done.stderr
    run = checkout / "runs" / "tiny_digits"
    assert result(run, "test")["samples"] == len(predictions(run, "test")) == 359
    assert result(run, "test")["metrics"]["accuracy"] > 0.5, "chance is 0.1"
    weights = read_weights(run / "checkpoints" / "best.safetensors")
    assert weights.metadata["network"] == "Tiny"
    assert weights.tensors["layers.1.weight"].shape == (64, 64)


@pytest.mark.slow
def test_a_mistake_in_its_recipe_is_told_without_any_code_of_its_own(checkout: Path) -> None:
    done = python(checkout, "tools/train.py", "configs/classification/tiny_digits.yaml", "task.network.widht=3")
    assert done.returncode == 2
    assert "task.network.widht: unknown key (did you mean 'width'?)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_contracts_hold_it_without_being_told(checkout: Path) -> None:
    done = python(
        checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contract", "tests/configs", "-k", "tiny"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None and int(passed[1]) >= 12, done.stdout
