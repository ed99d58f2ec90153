"""The two files that set up an environment: pins that fit the requirements, and a Makefile that says what is wrong."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


@pytest.fixture(scope="module")
def project(checkout: Path) -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((checkout / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def pins(checkout: Path) -> dict[str, Version]:
    """The versions of constraints.txt, by name."""
    lines = [line for line in (checkout / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {str(canonicalize_name(name)): Version(version) for name, version in (line.split("==") for line in lines)}


def test_pins_are_the_tested_trio(pins: dict[str, Version]) -> None:
    trio = {name: str(pins[name]) for name in ("torch", "torchvision", "torchaudio")}
    assert trio == {"torch": "2.11.0", "torchvision": "0.26.0", "torchaudio": "2.11.0"}


def test_what_make_installs_is_pinned_within_its_bounds(project: dict[str, Any], pins: dict[str, Version]) -> None:
    extras = project["project"]["optional-dependencies"]
    wanted = project["project"]["dependencies"] + extras["dev"] + extras["docs"]
    for requirement in map(Requirement, wanted):
        name = str(canonicalize_name(requirement.name))
        assert name in pins, f"{name} is not pinned"
        assert pins[name] in requirement.specifier, f"{requirement} does not take the pinned {pins[name]}"


def test_what_make_installs_by_name_is_pinned(checkout: Path, pins: dict[str, Version]) -> None:
    lines = re.findall(
        r"pip install --constraint constraints\.txt (.*?) (?:&&|\|\|)", (checkout / "Makefile").read_text()
    )
    named = {word for line in lines for word in line.split() if not word.startswith(("-", '"'))}
    assert named == {"setuptools", "torch", "torchattacks"} <= pins.keys()


def test_torch_is_not_needed_to_build(project: dict[str, Any]) -> None:
    assert {Requirement(line).name for line in project["build-system"]["requires"]} == {"setuptools"}


def _make(checkout: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "setup.py"):
        shutil.copy(checkout / name, folder)
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
class TestMakefile:
    def test_without_a_goal_it_lists_the_goals(self, checkout: Path, tmp_path: Path) -> None:
        done = _make(checkout, tmp_path)
        assert done.returncode == 0
        assert {"make demo", "make test", "make lint", "make docs", "make site"} <= set(
            re.findall("make [a-z]+", done.stdout)
        )
        assert not (tmp_path / ".venv").exists()

    @pytest.mark.parametrize("interpreter", ["no-such-python", "false"])
    def test_no_python_that_fits_is_said_in_a_line(self, checkout: Path, tmp_path: Path, interpreter: str) -> None:
        done = _make(checkout, tmp_path, "test", f"PYTHON={interpreter}")
        assert done.returncode == 2
        assert f"error: Triptych needs Python 3.11, 3.12 or 3.13; none of these is one: {interpreter}" in done.stderr
        assert not (tmp_path / ".venv").exists()

    def test_a_python_without_venv_leaves_no_half_made_environment(self, checkout: Path, tmp_path: Path) -> None:
        python = tmp_path / "python-without-venv"
        python.write_text('#!/bin/sh\ncase "$*" in *venv*) mkdir -p .venv/bin; exit 1;; esac\n')
        python.chmod(0o755)
        done = _make(checkout, tmp_path, "test", f"PYTHON={python}")
        assert done.returncode == 2
        assert f"error: {python} cannot make virtual environments" in done.stderr
        assert not (tmp_path / ".venv").exists()
