"""Each script of benchmarks/reliability on a case or two, as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.collect import check

CHECKOUT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def ran(script: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """What a script wrote; it must end with status 0, as all cases were as they must be."""
    output = folder / "found.json"
    command = [
        sys.executable,
        str(CHECKOUT / "benchmarks" / "reliability" / f"{script}.py"),
        *arguments,
        "-o",
        str(output),
    ]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(output.read_text())
    check(found, script)
    return found


def ends(found: dict[str, Any]) -> set[str]:
    return {case["end"] for case in found["cases"]}


def test_two_tasks_that_are_killed(tmp_path: Path) -> None:
    tasks = ("--only", "regularised_classification", "--only", "target_counting")
    found = ran("kills", tmp_path, *tasks, "--kills", "2")
    assert len(found["cases"]) == 2 and ends(found) == {"the same bytes"}


def test_files_that_may_not_grow(tmp_path: Path) -> None:
    found = ran("faults", tmp_path, "--only", "limit")
    assert len(found["cases"]) == 2 and ends(found) == {"refused"}


def test_two_recipes_and_two_files_with_mistakes(tmp_path: Path) -> None:
    found = ran("mutations", tmp_path, "--recipes", "2", "--files", "2")
    assert len(found["cases"]) == 4 and ends(found) <= {"refused", "accepted"}


def test_two_strangers_at_each_entrance(tmp_path: Path) -> None:
    found = ran("strangers", tmp_path, "--first", "2")
    assert len(found["cases"]) == 12
    assert [case["end"] for case in found["cases"][:2]] == ["ran, as it must here"] * 2
    assert "THE PAYLOAD RAN" not in ends(found)


def test_a_run_too_short_for_a_line(tmp_path: Path) -> None:
    found = ran("soak", tmp_path, "training", "--seconds", "0")
    assert found["slopes"] == [] and found["note"].startswith("1 trainings of 11 small tasks")
    assert found["command"] == "python benchmarks/reliability/soak.py training --seconds 0"


def test_a_visitor_of_the_page(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="no gradio")
    pytest.importorskip("onnxruntime", reason="no onnxruntime")
    found = ran("soak", tmp_path, "page", "--seconds", "0")
    assert found["slopes"] == [] and found["note"].startswith("1 visitors of a page of 7 networks")


def test_a_package_of_compiled_code_runs_where_it_is_opened_and_nowhere_else(tmp_path: Path) -> None:
    found = ran("strangers", tmp_path, "--only", "the_canary_works")
    assert found["cases"][-1]["case"] == "a .pt2 package" and ends(found) == {"ran, as it must here"}
