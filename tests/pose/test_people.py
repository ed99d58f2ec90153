"""Where the people of a picture are: boxes from files, the whole picture, a detector."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models import get_model

from vision.engine.errors import CheckpointError, ConfigError, DataError
from vision.pose.images import number_in
from vision.pose.people import BoxesOfFile, Detector, numbers_of, regions_of, whole_picture

PICTURE = np.zeros((40, 60, 3), np.uint8)


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def row(image: int | str, *box: float, score: float | None = 0.9, **more: Any) -> dict[str, Any]:
    key = {"file_name": image} if isinstance(image, str) else {"image_id": image}
    return {**key, "bbox": list(box), **({} if score is None else {"score": score}), **more}


def test_the_whole_picture_is_one_box() -> None:
    assert whole_picture(PICTURE, "a.png") == [((0.0, 0.0, 60.0, 40.0), 1.0)]
    assert regions_of("image")(PICTURE, "a.png") == whole_picture(PICTURE, "a.png")


def test_detections_belong_to_the_picture_whose_name_ends_in_their_image_id(tmp_path: Path) -> None:
    rows = [row(785, 1, 2, 3, 4), row(785, 5, 6, 7, 8, score=0.4), row(139, 0, 0, 9, 9)]
    boxes = BoxesOfFile(write(tmp_path / "d.json", rows))
    assert boxes(PICTURE, "val2017/000000000785.jpg") == [((1, 2, 3, 4), 0.9), ((5, 6, 7, 8), 0.4)]
    assert boxes(PICTURE, "COCO_val2014_000000000139.jpg") == [((0, 0, 9, 9), 0.9)]


def test_unsure_boxes_other_categories_and_crowds_are_left_out(tmp_path: Path) -> None:
    rows = [
        row(1, 1, 1, 5, 5, score=0.29), row(1, 2, 2, 5, 5, score=0.3), row(1, 3, 3, 5, 5, category_id=18),
        row(1, 4, 4, 5, 5, iscrowd=1), row(1, 6, 6, 5, 5, score=None, category_id=1),
    ]  # fmt: skip
    path = write(tmp_path / "d.json", rows)
    assert [box[0] for box, _ in BoxesOfFile(path)(PICTURE, "1.png")] == [2, 6]
    assert [box[0] for box, _ in BoxesOfFile(path, 0.0)(PICTURE, "1.png")] == [1, 2, 6]


def test_boxes_outside_the_picture_are_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [row(1, -5, 30, 6, 60), row(1, 60, 0, 9, 9), row(1, 0, 40, 9, 9), row(2, 99, 99, 5, 5)]
    boxes = BoxesOfFile(write(tmp_path / "d.json", rows))
    with caplog.at_level(logging.WARNING):
        assert boxes(PICTURE, "1.png") == [((-5, 30, 6, 60), 0.9)]
        assert boxes(PICTURE, "2.png") == []
    assert f"1.png: 2 of 3 boxes of {tmp_path / 'd.json'} lie outside the picture of 60 x 40: left out" in caplog.text
    assert "2.png: 1 of 1 boxes" in caplog.text


def test_coco_annotations_name_their_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree = {
        "images": [{"id": 7, "file_name": "people/me.png"}, {"id": 8, "file_name": "you.png"}],
        "annotations": [row(7, 1, 2, 3, 4, score=None, category_id=1)],
    }
    boxes = BoxesOfFile(write(tmp_path / "c.json", tree))
    assert boxes(PICTURE, "elsewhere/me.png") == [((1, 2, 3, 4), 1.0)]
    assert boxes.image_id("me.png") == 7
    with caplog.at_level(logging.WARNING):
        assert boxes(PICTURE, "you.png") == []
    assert "you.png: " in caplog.text
    assert "holds no box for it" in caplog.text


def test_rows_may_name_their_file(tmp_path: Path) -> None:
    boxes = BoxesOfFile(write(tmp_path / "d.json", [row("a/me.png", 1, 2, 3, 4)]))
    assert boxes(PICTURE, "b/me.png") == [((1, 2, 3, 4), 0.9)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"image_id": 1, "bbox": [1, 2', "d.json:1: is not JSON"),
        ("3", "expected a list of boxes, or COCO annotations"),
        ('[{"bbox": [1, 2, 3, 4]}]', "row 0: expected 'bbox' with a 'file_name' or a whole 'image_id'"),
        ('[{"image_id": 1, "bbox": [1, 2, 3]}]', r"row 0: bbox is \[1, 2, 3\], expected four finite numbers"),
        ('[{"image_id": 1, "bbox": [1, 2, NaN, 4]}]', "row 0: bbox is .*expected four finite numbers"),
        ('[{"image_id": 1, "bbox": [1, 2, 0, 4]}]', "row 0: the box has a width of 0 and a height of 4"),
    ],
)
def test_files_that_hold_no_boxes_are_told(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "d.json").write_text(content)
    with pytest.raises(DataError, match=said):
        BoxesOfFile(tmp_path / "d.json")


def test_what_is_neither_boxes_nor_a_detector(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: cannot be read: No such file"):
        regions_of(str(tmp_path / "none.json"))
    with pytest.raises(ConfigError, match=r"--boxes everyone: expected 'image', a \.json file of boxes"):
        regions_of("everyone")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of torchvision's smallest detector, as it would release them; random, and seeing people anywhere."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("detector") / "ssdlite320_mobilenet_v3_large_coco-0.pth"
    state = get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None).state_dict()
    for name, value in state.items():
        if "classification_head" in name and name.endswith(".bias") and value.numel() % 91 == 0:
            value.view(-1, 91)[:, 1] += 5.0
    torch.save(state, path)
    return path


def test_a_detector_gives_torchvisions_own_boxes_of_people(weights: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    network = get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None)
    network.load_state_dict(torch.load(weights, weights_only=True))
    with torch.no_grad():
        (found,) = network.eval()([torch.from_numpy(picture).permute(2, 0, 1) / 255])
    people = found["labels"] == 1
    wanted = sorted(zip(found["boxes"][people].tolist(), found["scores"][people].tolist(), strict=True))
    assert wanted, "random weights see someone"
    given = regions_of(str(weights), least=0.0)(picture, "a.png")
    corners = sorted(([x, y, x + w, y + h], s) for (x, y, w, h), s in given)
    assert [box for box, _ in corners] == [pytest.approx(box, abs=1e-3) for box, _ in wanted]
    assert [score for _, score in corners] == pytest.approx([score for _, score in wanted], abs=1e-5)
    sure = Detector(weights, least=wanted[0][1])(picture, "a.png")
    assert {score for _, score in sure} == {s for _, s in corners if s >= wanted[0][1]}


def test_a_detector_of_no_name_and_one_of_another_network(weights: Path, tmp_path: Path) -> None:
    unknown = tmp_path / "mine.pth"
    unknown.write_bytes(weights.read_bytes())
    with pytest.raises(ConfigError, match=r"mine\.pth: which detector's weights are these\? name it with --detector"):
        Detector(unknown)
    assert Detector(unknown, "ssdlite320_mobilenet_v3_large").least == 0.3
    with pytest.raises(CheckpointError, match=r"mine\.pth: not the weights of ssd300_vgg16"):
        Detector(unknown, "ssd300_vgg16")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        Detector(tmp_path / "ssd300_vgg16.pth")


def test_numbers_of_images_follow_one_rule_for_all(tmp_path: Path) -> None:
    files = [Path("b/000000000785.jpg"), Path("a/000000000139.jpg")]
    assert list(numbers_of(files).values()) == [785, 139]
    assert list(numbers_of([*files, Path("me.jpg")]).values()) == [1, 2, 3]
    assert list(numbers_of([Path("a/1.jpg"), Path("b/1.jpg")]).values()) == [1, 2], "not the same id twice"
    tree = {"images": [{"id": 40, "file_name": "me.jpg"}, {"id": 41, "file_name": "you.jpg"}], "annotations": []}
    boxes = BoxesOfFile(write(tmp_path / "c.json", tree))
    assert list(numbers_of([Path("you.jpg"), Path("me.jpg")], boxes).values()) == [41, 40]


def test_numbers_in_names() -> None:
    assert [number_in(name) for name in ("x/0042.png", "clip.mp4#3", "me.png", "12me.png")] == [42, 3, None, None]
