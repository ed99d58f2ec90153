"""One file from teacher to student: trained, compared, and resumed at the stage that is missing."""

import hashlib
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks.collect import records_of
from vision.classification import DigitsCNN
from vision.engine.config import load
from vision.engine.distributed import World
from vision.engine.errors import ConfigError
from vision.engine.pipeline import run_pipeline
from vision.engine.registry import build
from vision.engine.train import dry_run, train_recipe

PIPELINE = """\
name: pairs
data: {type: digits, limit: 24, augment: [crop], crop_padding: 1}
optimizer: {type: sgd, lr: 0.05}
trainer: {epochs: 2, batch_size: 8}
seeds: [0, 1]
stages:
  - name: standard
    task: {type: classification, network: {type: digits_cnn, width: 8}}
  - name: soteacher
    task: {type: regularised_classification, network: {type: digits_cnn, width: 8}}
  - name: look
    step: {type: teacher_diagnostics, run_folder: "${stages.soteacher.run}", limit: 10}
  - name: standard_kd
    task:
      type: distillation
      network: {type: digits_cnn, width: 4}
      teacher: {type: digits_cnn, width: 8}
      teacher_weights: ${stages.standard.last}
  - name: soteacher_kd
    task:
      type: distillation
      network: {type: digits_cnn, width: 4}
      teacher: {type: digits_cnn, width: 8}
      teacher_weights: ${stages.soteacher.last}
  - name: comparison
    step:
      type: distillation_table
      students: {standard/kd: "${stages.standard_kd.run}", soteacher/kd: "${stages.soteacher_kd.run}"}
"""


def test_from_teachers_to_one_table_and_on_from_any_stage(tmp_path: Path) -> None:
    (tmp_path / "pairs.yaml").write_text(PIPELINE)
    config, folder = load(tmp_path / "pairs.yaml"), tmp_path / "run"
    world = World(torch.device("cpu"))
    train = partial(train_recipe, world=world)
    summary = run_pipeline(config, train, folder, world=world)
    assert summary["finished"]
    accuracy = {
        (s["seed"], s["stage"]): s["result"]["test"]["accuracy"] for s in summary["stages"] if "test" in s["result"]
    }
    rows = json.loads((folder / "seed1/comparison/table.json").read_text())
    expected = [accuracy[seed, "soteacher_kd"] - accuracy[seed, "standard_kd"] for seed in (0, 1)]
    assert [row["teacher"] for row in rows] == ["standard", "soteacher"]
    assert rows[1]["mean"] == pytest.approx(sum(accuracy[s, "soteacher_kd"] for s in (0, 1)) / 2)
    assert rows[1]["difference"] == pytest.approx(sum(expected) / 2)
    assert json.loads((folder / "seed0/look/layers.json").read_text()).keys() >= {"linear"}

    records = {(r["stage"], r["seed"]): r for r in records_of(folder) if r["evaluation"] in ("test", "diagnostics")}
    assert len(records) == 10  # four runs and a look, twice
    assert records["soteacher_kd", 1]["metrics"]["accuracy"] == accuracy[1, "soteacher_kd"]
    looked = records["look", 0]
    assert looked["weights_sha256"] == _digest(folder / "seed0/soteacher/checkpoints/last.safetensors")
    assert looked["parameters"] == sum(p.numel() for p in DigitsCNN(width=8).parameters())
    assert looked["metrics"].keys() >= {"val_nll", "val_ece", "train_confidence", "view_agreement", "lipschitz_sum"}

    for name in ("soteacher_kd", "comparison"):
        shutil.rmtree(folder / "seed1" / name)
    again = run_pipeline(config, train, folder, resume=True, world=world)
    assert json.loads((folder / "seed1/comparison/table.json").read_text()) == rows
    assert again["table"] == summary["table"]


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_dry_run_rehearses_every_stage(tmp_path: Path) -> None:
    (tmp_path / "pairs.yaml").write_text(PIPELINE.replace("seeds: [0, 1]", "seeds: [0]"))
    world = World(torch.device("cpu"))
    train = partial(dry_run, world=world)
    folder = tmp_path / "run"
    summary = run_pipeline(load(tmp_path / "pairs.yaml"), train, folder, world=world, dry=True)
    assert summary["finished"]
    assert not (folder / "seed0/look/layers.json").exists()
    assert not (folder / "seed0/comparison/table.md").exists()


def test_bad_steps(tmp_path: Path) -> None:
    run = tmp_path / "student"
    run.mkdir()
    (run / "done.json").write_text('{"result": {"test": {"accuracy": 0.5}}}')
    block = {"type": "distillation_table", "students": {"standard/kd": str(run)}, "figure": "test.acuracy"}
    with pytest.raises(ConfigError, match=r"has no 'test.acuracy' \(did you mean 'test.accuracy'\?\)"):
        build(block, "step").run(tmp_path / "table")
    with pytest.raises(ConfigError, match=r"checkpoint: .*'first'"):
        build({"type": "teacher_diagnostics", "run_folder": str(run), "checkpoint": "first"}, "step")
    with pytest.raises(ConfigError, match=r"step.limit: 0 is below 1"):
        build({"type": "teacher_diagnostics", "run_folder": str(run), "limit": 0}, "step")
