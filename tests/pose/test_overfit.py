"""Targets, network, flip test, decoding and scoring agree: a few people are learnt by heart, and AP says so."""

import json
from pathlib import Path

import pytest

from tools.train import main as train
from vision.engine.config import config_folder

pytestmark = pytest.mark.slow

RECIPE = """
name: overfit
task: {type: top_down_pose, network: {type: mamkpd_t, drop_path: 0.0, input_size: [96, 128]}}
data: {type: sample_people, input_size: [96, 128]}
optimizer: {type: adamw, lr: 2e-3, weight_decay: 0.0}
schedule: {type: cosine, warmup_epochs: 10}
trainer: {steps: 80, batch_size: 3, clip_norm: 1.0, ema: 0.95, evaluate_every_steps: 80, threads: 1}
"""


def figures(run: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((run / "eval" / "val" / "result.json").read_text())["metrics"]
    return found


def test_the_three_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "overfit.yaml").write_text(RECIPE)
    assert train(["overfit.yaml"]) == 0
    assert figures(tmp_path / "runs" / "overfit")["AP"] >= 0.9
    assert len(list((tmp_path / "runs" / "overfit" / "eval" / "val" / "examples").glob("*.png"))) == 3


@pytest.mark.data
def test_four_people_of_coco_by_the_shipped_recipe(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe of 64 people takes minutes; here it has four, in smaller crops."""
    monkeypatch.chdir(tmp_path)
    recipe = str(config_folder() / "pose" / "mamkpd_t_coco_overfit.yaml")
    small = [
        "data.input_size=[96,128]",
        "task.network.input_size=[96,128]",
        "data.train_persons=4",
        "trainer.threads=1",
    ]
    small += ["trainer.epochs=80", "trainer.batch_size=4", "trainer.evaluate_every=80", "trainer.ema=0.95"]
    assert train([recipe, f"data.root={data_root / 'coco_keypoints'}", *small]) == 0
    assert figures(tmp_path / "runs" / "mamkpd_t_coco_overfit")["AP"] >= 0.9
