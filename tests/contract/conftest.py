"""What two processes find, trained side by side; they run once for all tests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.forks import Forks


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Processes that start at once."""
    server = Forks()
    yield server
    server.close()


@pytest.fixture(scope="session")
def two(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder: Path = tmp_path_factory.mktemp("contract")
    for process in forks.run("tests.contract.training", folder, size=2):
        assert process.status == 0, process.said
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in (0, 1)]
