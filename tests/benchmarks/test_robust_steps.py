"""The benchmark of robust steps at a tiny size: what it writes, not how fast anything is."""

import json
from pathlib import Path

import pytest

from benchmarks import robust_steps as benchmark


def test_every_pair_is_timed_and_every_step_moves_its_network(tmp_path: Path) -> None:
    pytest.importorskip("torchattacks")
    file = tmp_path / "robust_steps.json"
    assert benchmark.main(["--width", "2", "--batch", "4", "--rounds", "1", "-o", str(file)]) == 0
    document = json.loads(file.read_text())
    assert [(row["what"].split(", PreAct")[0], row["against"], row["aim"]) for row in document["rows"]] == list(
        benchmark.PAIRS
    )
    assert all(row["ratio"] == pytest.approx(row["ours"] / row["theirs"], rel=1e-2) for row in document["rows"])
