"""A skeleton of three joints from a user's file, all the way: training, scoring, tables and prediction."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pose.layouts import document, joints_in, person, write
from tools.predict import main as predict
from tools.train import main as train
from vision.engine.errors import ConfigError, DataError
from vision.pose.keypoints import skeleton

HAND = """\
joints: [wrist, left_tip, right_tip]
flip_pairs: [[left_tip, right_tip]]
limbs: [[wrist, left_tip], [wrist, right_tip]]
sigmas: 0.05
"""
RECIPE = """\
name: hands
task: {{type: top_down_pose, network: {{type: mamkpd_t, keypoints: {keypoints}, input_size: [48, 64], drop_path: 0.0}}}}
data:
  type: coco_pose
  root: hands
  custom_skeleton: hand.yaml
  train_splits: [train]
  validation: 0.3
  test_split: test
  input_size: [48, 64]
optimizer: {{type: adamw, lr: 1e-3}}
trainer: {{steps: 2, batch_size: 4, threads: 1}}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files a user brings, in the folder to work from."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hand.yaml").write_text(HAND)
    (tmp_path / "hands.yaml").write_text(RECIPE.format(keypoints=3))
    hand = skeleton("hand.yaml")
    for split, first, count in (("train", 1, 8), ("test", 101, 3)):
        keys = range(first, first + count)
        rows = [person(k, k, keypoints=joints_in((8, 6, 30, 40), 3), num_keypoints=3) for k in keys]
        write(tmp_path / "hands", split, document(rows, count, first=first, joints=hand))
    return tmp_path


def test_from_training_to_prediction(own: Path) -> None:
    assert train(["hands.yaml"]) == 0
    run = own / "runs" / "hands"
    judged = json.loads((run / "eval" / "test" / "result.json").read_text())
    assert judged["samples"] == 3
    assert 0 <= judged["metrics"]["AP"] <= 1
    joints = [row[0] for row in judged["tables"]["errors_by_joint"]["rows"]]
    assert joints == ["wrist", "left_tip", "right_tip", "all"]
    boxes = "hands/annotations/person_keypoints_test.json"
    assert predict(["runs/hands", "hands/images/test", "--boxes", boxes, "-o", "found"]) == 0
    said = json.loads((own / "found" / "predictions.json").read_text())
    assert [np.shape(p["people"][0]["keypoints"]) for p in said] == [(9,)] * 3
    assert [p["image_id"] for p in said] == [101, 102, 103]
    plain = Image.open(own / "hands/images/test/000101.png")
    drawn = np.asarray(Image.open(own / "found/000101.png").resize(plain.size, Image.Resampling.BOX), dtype=int)
    assert np.abs(drawn - np.asarray(plain)).max() > 20


def test_what_does_not_fit_the_skeleton_is_named(own: Path) -> None:
    (own / "hands.yaml").write_text(RECIPE.format(keypoints=17))
    with pytest.raises(ConfigError, match=r"keypoints 17, and the data has 3; set task\.network\.keypoints=3"):
        train(["hands.yaml"])
    (own / "hands.yaml").write_text(RECIPE.format(keypoints=3).replace("  custom_skeleton: hand.yaml\n", ""))
    with pytest.raises((ConfigError, DataError), match="17"):
        train(["hands.yaml"])
