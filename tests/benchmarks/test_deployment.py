"""The script of deployed networks: its parts by name, going on after a stop, and documents that keep to the schema."""

import argparse
import json
from pathlib import Path

import pytest

from benchmarks import deployment
from benchmarks.collect import check
from benchmarks.deployment import DOCUMENTS, PARTS, SYSTEMS, chosen, main, row
from vision.deploy.statistics import paired_ratio
from vision.engine.errors import ConfigError, UserError


def test_every_part_is_of_one_document() -> None:
    assert sorted(part for _, _, own in DOCUMENTS.values() for part in own) == sorted(PARTS)
    assert {"MamKPD-L", "TBC-Net lite", "DHRNet-W32", "CID-W32", "Spiking VGG-11", "ResNet-20"} <= set(SYSTEMS)


def test_parts_by_name() -> None:
    assert chosen(None) == list(PARTS)
    assert chosen("pose, int8") == ["pose", "int8"]
    with pytest.raises(ConfigError, match=r"no part 'pos' \(did you mean 'pose'\?\)"):
        chosen("pos")


def test_it_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def measured(options: argparse.Namespace) -> deployment.Outcome:
        taken.append(options.rounds)
        ratio = paired_ratio([2.0] * 6, [1.0] * 6)
        return [row("it", "that", 2.0, 1.0, ratio, aim=0.7)], ["the machine was busy: ..."]

    def refused(options: argparse.Namespace) -> deployment.Outcome:
        raise ConfigError("cannot be exported")

    monkeypatch.setitem(PARTS, "pose", measured)
    monkeypatch.setitem(PARTS, "int8", refused)
    monkeypatch.setattr(deployment, "git_commit", lambda: "0" * 40)
    arguments = ["--work", str(tmp_path / "work"), "-o", str(tmp_path), "--rounds", "3"]
    with pytest.raises(UserError, match="1 of 2 parts could not be measured: int8: cannot be exported"):
        main(["--only", "pose,int8", *arguments])
    assert main(["--only", "pose", *arguments]) == 0
    assert taken == [3]
    assert main(["--only", "pose", "--again", *arguments]) == 0
    assert taken == [3, 3]
    made = json.loads((tmp_path / "deployment_pose.json").read_text())
    check(made, "deployment_pose")
    assert made["rows"][0]["interval"] == [2.0, 2.0]
    assert made["note"].endswith("The machine was busy with other work meanwhile.")
    assert not (tmp_path / "deployment_int8.json").exists()


def test_one_system_is_measured(tmp_path: Path) -> None:
    options = argparse.Namespace(rounds=1, seconds=0.001)
    ((found,), _) = deployment.backends("ResNet-20", options)
    assert found["what"] == "ResNet-20, 32x32"
    assert found["against"] == "PyTorch, eager"
    assert found["interval"] is None
    assert found["ours"] > 0
