"""The benchmark of the pose networks on layers that take no time: what it writes, not how fast anything is."""

import json
from pathlib import Path

import pytest
from torch import nn

from benchmarks import pose_networks as benchmark


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    names = (*benchmark.OURS, *benchmark.THEIRS, benchmark.DEPLOYED)
    monkeypatch.setattr(benchmark, "networks", lambda: {name: nn.AvgPool2d(64) for name in names})
    file = tmp_path / "pose_networks.json"
    assert benchmark.main(["--eager-only", "--batch", "1", "2", "--rounds", "3", "-o", str(file)]) == 0
    document: dict[str, object] = json.loads(file.read_text())
    return document


def test_every_size_is_beside_every_other_network_once_a_batch(result: dict[str, list[dict[str, object]]]) -> None:
    pairs = [(row["what"], row["against"]) for row in result["rows"]]
    assert len(set(pairs)) == len(pairs) == 4 * 3 * 2
    assert ("MamKPD-L, batch 2, eager", "HRNet-W32, deployed") in pairs


def test_the_aim_is_that_of_the_largest_over_an_hrnet_alone(result: dict[str, list[dict[str, object]]]) -> None:
    aimed = [(row["what"], row["against"]) for row in result["rows"] if row["aim"] is not None]
    assert aimed == [(f"MamKPD-L, batch {batch}, eager", "HRNet-W32") for batch in (1, 2)]


def test_the_networks_are_those_it_names() -> None:
    made = benchmark.networks()
    assert list(made) == [*benchmark.OURS, *benchmark.THEIRS, benchmark.DEPLOYED]
    assert not any(network.training for network in made.values())
    norms = {name: any(isinstance(m, nn.BatchNorm2d) for m in network.modules()) for name, network in made.items()}
    assert norms == dict.fromkeys(benchmark.OURS, False) | {"HRNet-W32": True, "ViT-S": True, benchmark.DEPLOYED: False}
