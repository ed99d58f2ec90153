"""Run folders made by hand."""

from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.folders import MakeRun, recipe, write_config, write_evaluation, write_training


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A finished run of one recipe."""

    def make(name: str = "a", metrics: dict[str, Any] | None = None, **result: Any) -> Path:
        folder = tmp_path / name
        write_config(folder, recipe(name))
        write_training(folder)
        write_evaluation(folder, metrics or {"accuracy": 0.875}, **result)
        return folder

    return make
