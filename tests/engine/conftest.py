"""What several tests of the engine share: names of their own, processes, and one run of two of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.forks import Forks
from tests.engine.recipes import Write
from vision.engine import registry


@pytest.fixture
def own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    registry.load_all()
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Processes that start at once."""
    server = Forks()
    yield server
    server.close()


@pytest.fixture(scope="session")
def two_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the two processes write."""
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="session")
def two(forks: Forks, two_folder: Path) -> list[dict[str, Any]]:
    """What each of two processes found; they run once for all tests."""
    for process in forks.run("tests.engine.processes", two_folder, "everything", size=2):
        assert process.status == 0, process.said
    return [torch.load(two_folder / f"rank{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file into the working directory, so that places are short."""
    monkeypatch.chdir(tmp_path)

    def put(text: str, name: str = "r.yaml") -> Path:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return put
