"""Everyone in a photograph at once, from the command line: trained, judged, converted, drawn, as COCO results."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from torch import nn

from tests.cli.launching import Commands, predictions, result
from vision.engine.checkpoint import save_weights
from vision.engine.video import Video, VideoWriter
from vision.pose.dhrnet import DHRNet
from vision.pose.samples import PEOPLE

PHOTOGRAPH = PEOPLE / "images" / "group" / "four_people.jpg"
TRUTH = PEOPLE / "annotations" / "person_keypoints_group.json"
MOST = 6
RECIPE = f"""
name: everyone
task:
  type: single_stage_pose
  network:
    {{type: dhrnet, backbone: hrnet_w18_small, channels: 16, output_size: 32, search: {{most: {MOST}, threshold: 0.0}},
      weights: lively.safetensors}}
  nms: null
data: {{type: sample_people_whole, size: 128}}
optimizer: {{type: sgd, lr: 1e-6}}
trainer: {{steps: 1, batch_size: 4}}
"""


def lively(file: Path) -> None:
    """Weights whose maps have many peaks, as trained ones have: fresh ones are near constant."""
    torch.manual_seed(0)
    network = DHRNet(backbone="hrnet_w18_small", channels=16, output_size=32)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train().features(torch.randn(4, 3, 128, 128))
    for module in (*network.gfd.modules(), network.iia.keypoint_center_conv):
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    save_weights(file, network, {})


@pytest.fixture(scope="module")
def trained_everyone(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a single-stage network that made an update; to be read, not to be changed."""
    folder = tmp_path_factory.mktemp("everyone")
    lively(folder / "lively.safetensors")
    (folder / "everyone.yaml").write_text(RECIPE)
    done = commands.run("train", "everyone.yaml", cwd=folder)
    assert done.status == 0, done.err
    return folder / "runs" / "everyone"


def written(folder: Path, name: str = "predictions.json") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / name).read_text())
    return found


def test_several_people_of_a_photograph_are_those_of_the_evaluation(
    commands: Commands, trained_everyone: Path, tmp_path: Path
) -> None:
    done = commands.run("predict", trained_everyone, PHOTOGRAPH, "-o", "out", cwd=tmp_path)
    assert done.status == 0, done.err
    (said,) = written(tmp_path / "out")
    (judged,) = (p for p in predictions(trained_everyone, "val") if p["image_id"] == 4)
    assert 1 < len(said["people"]) == len(judged["people"]) <= MOST
    for one, other in zip(said["people"], judged["people"], strict=True):
        np.testing.assert_allclose(one["keypoints"], other["keypoints"], atol=0.05)
        assert "box" not in one

    drawn, plain = (
        np.asarray(Image.open(f).convert("RGB"), int) for f in (tmp_path / "out/four_people.png", PHOTOGRAPH)
    )
    changed = (np.abs(drawn - plain) > 0).any(2)
    assert drawn.shape == plain.shape and 0 < changed.mean() < 0.9

    rows = written(tmp_path / "out", "coco_results.json")
    truth = COCO(str(TRUTH))
    for row in rows:
        row["image_id"] = 4  # a photograph that has no number in its name is image 1
    assert len(truth.loadRes(rows).getAnnIds()) == len(said["people"])
    assert {len(row["keypoints"]) for row in rows} == {51}


def test_every_frame_of_a_video_is_looked_at_whole(commands: Commands, trained_everyone: Path, tmp_path: Path) -> None:
    picture = np.asarray(Image.open(PHOTOGRAPH).convert("RGB").resize((128, 128)))
    with VideoWriter(tmp_path / "walk.mp4", Fraction(10)) as writer:
        for step in range(2):
            writer.write(np.roll(picture, 9 * step, axis=1))
    done = commands.run("predict", trained_everyone, "walk.mp4", "-o", "out", cwd=tmp_path)
    assert done.status == 0, done.err
    said = written(tmp_path / "out")
    assert [p["frame"] for p in said] == [0, 1]
    assert all(1 < len(p["people"]) <= MOST for p in said)
    assert len(list(Video(tmp_path / "out" / "walk.mp4"))) == 2


def test_boxes_are_refused(commands: Commands, trained_everyone: Path, tmp_path: Path) -> None:
    done = commands.run("predict", trained_everyone, PHOTOGRAPH, "--boxes", "image", "-o", "out", cwd=tmp_path)
    assert "looks at whole images; leave out --boxes" in done.error


def test_a_checkpoint_there_and_back_is_judged_the_same(
    commands: Commands, trained_everyone: Path, tmp_path: Path
) -> None:
    best = trained_everyone / "checkpoints" / "best.safetensors"
    for source, target in ((best, "released.pth"), ("released.pth", "ours.safetensors")):
        done = commands.run("convert", source, "-o", target, cwd=tmp_path)
        assert done.status == 0, done.err
    done = commands.run(
        "eval", trained_everyone, "--split", "val", "--checkpoint", tmp_path / "ours.safetensors", "--name", "back",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.status == 0, done.err
    assert result(trained_everyone, "back")["metrics"] == result(trained_everyone, "val")["metrics"]
    assert predictions(trained_everyone, "back") == predictions(trained_everyone, "val")


@pytest.mark.parametrize("other", ["task.network.channels=24", "task.network.backbone=hrnet_w18_small_v2"])
def test_a_checkpoint_of_another_width_is_refused(
    commands: Commands, trained_everyone: Path, tmp_path: Path, other: str
) -> None:
    (tmp_path / "everyone.yaml").write_text(RECIPE)
    best = trained_everyone / "checkpoints" / "best.safetensors"
    done = commands.run("eval", "everyone.yaml", other, "--split", "val", "--checkpoint", best, cwd=tmp_path)
    assert done.status == 2
    assert "best.safetensors" in done.error
