"""Two processes train as one: with BatchNorm over both, and with an update after every time step."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.forks import Forks
from tests.engine.harness import same
from tests.snn.two_processes import CASES, told


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """What each of two processes found."""
    folder: Path = tmp_path_factory.mktemp("two")
    forks = Forks()
    for process in forks.run("tests.snn.two_processes", folder, size=2):
        assert process.status == 0, process.said
    yield [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in (0, 1)]
    forks.close()


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(two: list[dict[str, Any]], case: str) -> None:
    alone, (first, second) = told(case), (each[case] for each in two)
    assert same(first["after"], second["after"]), "they stay the same"
    assert same(first["before"], alone["before"])
    for name, value in alone["after"].items():
        moved = float((value.double() - alone["before"][name].double()).abs().max())
        torch.testing.assert_close(first["after"][name], value, rtol=1e-5, atol=1e-3 * moved + 1e-7, msg=name)
    if case == "batch_norm":
        assert alone["after"]["network.body.norm1.num_batches_tracked"] == 9, "each step of each batch"
        assert not torch.equal(alone["after"]["network.body.norm1.running_var"], torch.ones(3))
