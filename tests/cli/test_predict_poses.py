"""``tools/predict.py`` on people: boxes from files, videos, COCO results."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from tests.cli.launching import Commands, predictions
from vision.engine.video import Video, VideoWriter
from vision.pose.samples import PEOPLE

ANNOTATIONS = PEOPLE / "annotations" / "person_keypoints_people.json"
RECIPE = """
name: people
task: {type: top_down_pose, network: {type: mamkpd_t, input_size: [48, 64], drop_path: 0.0}}
data: {type: sample_people, input_size: [48, 64]}
optimizer: {type: adamw, lr: 1e-3}
trainer: {steps: 2, batch_size: 3}
"""


@pytest.fixture(scope="module")
def trained_people(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a pose network that made two updates."""
    folder = tmp_path_factory.mktemp("people")
    (folder / "people.yaml").write_text(RECIPE)
    done = commands.run("train", "people.yaml", cwd=folder)
    assert done.status == 0, done.err
    return folder / "runs" / "people"


def written(folder: Path, name: str = "predictions.json") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / name).read_text())
    return found


def test_people_in_the_boxes_of_a_file_are_those_of_the_evaluation(
    commands: Commands, trained_people: Path, tmp_path: Path
) -> None:
    done = commands.run("predict", trained_people, PEOPLE / "images", "--boxes", ANNOTATIONS, "-o", "out", cwd=tmp_path)
    assert done.status == 0, done.err
    said = written(tmp_path / "out")
    assert [(Path(p["file"]).stem, p["image_id"]) for p in said] == [
        ("astronaut", 1), ("cameraman", 2), ("grace_hopper", 3)
    ]  # fmt: skip
    judged = {p["image_id"]: p for p in predictions(trained_people, "val")}
    for prediction in said:
        (person,), (other,) = prediction["people"], judged[prediction["image_id"]]["people"]
        assert person["box"] == other["box"]
        np.testing.assert_allclose(person["keypoints"], other["keypoints"], atol=0.05)
        assert Image.open(tmp_path / "out" / f"{Path(prediction['file']).stem}.png").size[0] == 512
    truth = COCO(str(ANNOTATIONS))
    assert len(truth.loadRes(str(tmp_path / "out" / "coco_results.json")).getAnnIds()) == 3


def test_without_boxes_a_picture_is_one_person_and_numbers_come_from_names(
    commands: Commands, trained_people: Path, tmp_path: Path
) -> None:
    for number in (7, 40):
        Image.new("RGB", (30, 40), (number, 99, 120)).save(tmp_path / f"{number:05d}.png")
    done = commands.run("predict", trained_people, tmp_path, "-o", tmp_path / "out", cwd=tmp_path)
    assert done.status == 0, done.err
    said = written(tmp_path / "out")
    assert [p["image_id"] for p in said] == [7, 40]
    assert [[person["box"] for person in p["people"]] for p in said] == [[[0, 0, 30, 40]]] * 2
    assert [row["image_id"] for row in written(tmp_path / "out", "coco_results.json")] == [7, 40]
    assert Image.open(tmp_path / "out" / "00007.png").size == (240, 320), "small pictures are enlarged"


def test_several_people_of_a_picture_and_one_without(commands: Commands, trained_people: Path, tmp_path: Path) -> None:
    rows = [
        {"file_name": "astronaut.jpg", "bbox": [10, 10, 200, 300], "score": 0.9},
        {"file_name": "astronaut.jpg", "bbox": [200, 10, 200, 300], "score": 0.4},
        {"file_name": "cameraman.jpg", "bbox": [200, 10, 200, 300], "score": 0.2},
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    arguments = (PEOPLE / "images" / "astronaut.jpg", PEOPLE / "images" / "cameraman.jpg", "--boxes", "boxes.json")
    done = commands.run("predict", trained_people, *arguments, "-o", "out", cwd=tmp_path)
    assert "cameraman.jpg: boxes.json holds no box for it" in done.err
    assert [len(p["people"]) for p in written(tmp_path / "out")] == [2, 0]
    more = commands.run("predict", trained_people, *arguments, "--box-score", "0.1", "-o", "more", cwd=tmp_path)
    assert more.status == 0, more.err
    assert [len(p["people"]) for p in written(tmp_path / "more")] == [2, 1]


def test_a_video_becomes_a_drawn_video(commands: Commands, trained_people: Path, tmp_path: Path) -> None:
    picture = np.asarray(Image.open(PEOPLE / "images" / "astronaut.jpg").convert("RGB"))
    with VideoWriter(tmp_path / "walk.mp4", Fraction(10)) as writer:
        for step in range(3):
            writer.write(np.roll(picture, 5 * step, axis=1))
    done = commands.run("predict", trained_people, "walk.mp4", "-o", "out", cwd=tmp_path)
    assert done.status == 0, done.err
    said = written(tmp_path / "out")
    assert [(p["frame"], p["seconds"], p["image_id"]) for p in said] == [(0, 0.0, 0), (1, 0.1, 1), (2, 0.2, 2)]
    before, after = list(Video(tmp_path / "walk.mp4")), list(Video(tmp_path / "out" / "walk.mp4"))
    assert len(after) == 3
    difference = [np.abs(a.picture.astype(int) - b.picture).mean() for a, b in zip(before, after, strict=True)]
    assert 0.05 < min(difference) <= max(difference) < 40, "the same pictures, with something drawn on them"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--boxes", "none.json"), "none.json: cannot be read: No such file"),
        (("--boxes", "everyone"), "--boxes everyone: expected 'image', a .json file of boxes"),
        (("--boxes", "mine.pth"), "mine.pth: which detector's weights are these? name it with --detector"),
    ],
)
def test_mistakes_with_boxes(
    commands: Commands, trained_people: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = commands.run("predict", trained_people, PEOPLE / "images", *arguments, "-o", "out", cwd=tmp_path)
    assert said in done.error
    assert not (tmp_path / "out").exists()


def test_a_task_of_whole_images_takes_neither_boxes_nor_videos(
    commands: Commands, trained: Path, tmp_path: Path
) -> None:
    image = PEOPLE / "images" / "astronaut.jpg"
    done = commands.run("predict", trained, image, "--boxes", "image", "-o", "out", cwd=tmp_path)
    assert "the task 'Classification' looks at whole images; leave out --boxes" in done.error
    with VideoWriter(tmp_path / "walk.mp4", Fraction(10)) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8))
    done = commands.run("predict", trained, "walk.mp4", "-o", "out", cwd=tmp_path)
    assert "walk.mp4#0: the task 'Classification' does not predict from videos" in done.err
    assert "1 of 1 files could not be read" in done.error
