"""Two processes train teachers and students as one does, past the first epoch and past initial stages."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.forks import Forks
from tests.engine.harness import same
from tests.robust.distillation.side_by_side import DISTILLERS, alone


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """What each of two processes found."""
    folder: Path = tmp_path_factory.mktemp("side_by_side")
    forks = Forks()
    for process in forks.run("tests.robust.distillation.side_by_side", folder, size=2):
        assert process.status == 0, process.said
    yield [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]
    forks.close()


@pytest.mark.parametrize("name", ["teacher", "kd"])
def test_two_processes_end_where_one_does(two: list[dict[str, Any]], name: str) -> None:
    """The teacher with its bank: the consistency term counts from the second epoch on."""
    found, expected = two[0][name], alone(name)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-5, msg=key)


@pytest.mark.parametrize("name", ["teacher", *DISTILLERS])
def test_both_processes_hold_the_same_weights_and_memories(two: list[dict[str, Any]], name: str) -> None:
    assert same(two[0][name], two[1][name])
    if name == "crd":
        assert {key for key in two[0][name] if "memory" in key} == {
            f"learned.memory.{part}" for part in ("student", "teacher", "constants")
        }
