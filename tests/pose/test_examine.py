"""What is wrong with annotations: each kind found once, counted and named, and what is done about it."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.pose.layouts import document, joints_in, person, write
from vision.engine.errors import DataError
from vision.pose.annotations import read_pose_set
from vision.pose.examine import KINDS, Look, Report, examine, usable, without_errors

NAN = float("nan")
INSIDE = (8, 6, 30, 40)


def examined(root: Path, people: list[dict[str, Any]], look: Look = "header", images: int = 2) -> Report:
    return examine(read_pose_set("coco", write(root, "train", document(people, images)), "train"), look)


def moved(points: list[float], by: float) -> list[float]:
    return [value + by * (index % 3 == 0) for index, value in enumerate(points)]


@pytest.mark.parametrize(
    ("kind", "changed", "told"),
    [
        ("wrong joint count", {"keypoints": joints_in(INSIDE, 14)}, "42 numbers, expected 51"),
        ("not a number", {"keypoints": [NAN, *joints_in(INSIDE)[1:]]}, ""),
        ("not a number", {"bbox": [8, 6, NAN, 40]}, "nan"),
        ("not a number", {"area": float("inf")}, "inf"),
        ("box without area", {"bbox": [8, 6, 0, 40]}, "0 x 40"),
        ("box without area", {"bbox": [8, 6, 30, -4]}, "30 x -4"),
        ("person outside the image", {"bbox": [70, 6, 30, 40]}, "image 64 x 48"),
        ("person outside the image", {"bbox": [-40, 6, 30, 40]}, "image 64 x 48"),
        ("person outside the image", {"keypoints": moved(joints_in(INSIDE), 500)}, "image 64 x 48"),
        ("joint outside the image", {"keypoints": [-1, 6, 2, *joints_in(INSIDE)[3:]]}, "1 of 17"),
        ("broken record", {"bbox": [8, 6, 30]}, "expected four numbers"),
        ("broken record", {"bbox": None}, "expected four numbers"),
        ("broken record", {"keypoints": ["x"] * 51}, "not a list of numbers"),
        ("broken record", {"keypoints": [8, 6, 7, *joints_in(INSIDE)[3:]]}, "a visibility is none of 0, 1 and 2"),
        ("broken record", {"id": "one"}, "both whole numbers"),
        ("id given twice", {"id": 9}, "another person"),
        ("image not listed", {"image_id": 5}, "no such image"),
        ("without keypoints", {"keypoints": [0] * 51}, ""),
        ("without keypoints", {"keypoints": None}, ""),
        ("crowd", {"iscrowd": 1}, ""),
        ("area estimated", {"area": None}, ""),
    ],
)  # fmt: skip
def test_each_kind_of_record_is_found(tmp_path: Path, kind: str, changed: dict[str, Any], told: str) -> None:
    row = {**person(3, 1), **changed}
    row = {name: value for name, value in row.items() if value is not None}
    report = examined(tmp_path, [person(9, 1), person(10, 2), row])
    assert report.counts[kind] == 1
    problem = next(p for p in report.problems if p.kind == kind)
    assert told in problem.detail and f"image {row['image_id']}" in problem.where
    assert {p.kind for p in report.errors} == ({kind, "not a number"} & {p.kind for p in report.errors}) | (
        {kind} if KINDS[kind][0] else set()
    )


def test_sound_annotations_have_no_problem(tmp_path: Path) -> None:
    report = examined(tmp_path, [person(1, 1), person(2, 2)], "full")
    assert report.problems == [] and (report.images, report.people) == (2, 2)


@pytest.mark.parametrize("look", ["header", "full"])
def test_images_are_looked_at(tmp_path: Path, look: Look) -> None:
    root = write(tmp_path, "train", document([person(k, k) for k in range(1, 8)], images=7))
    folder = root / "images/train"
    (folder / "000001.png").unlink()
    (folder / "000002.png").write_text("words")
    whole = (folder / "000003.png").read_bytes()
    (folder / "000003.png").write_bytes(whole[:-400])
    Image.new("RGB", (64, 50)).save(folder / "000004.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (48, 64)).save(folder / "000005.png", exif=exif)
    report = examine(read_pose_set("coco", root, "train"), look)
    assert [(p.kind, p.image_id) for p in report.errors] == [
        ("missing image", 1), ("corrupt image", 2), ("corrupt image", 3), ("image of another size", 4),
        ("turned image", 5),
    ]  # fmt: skip
    assert report.people == 2
    assert all(str(folder / f"{p.image_id:06d}.png") == p.where for p in report.errors)
    upright = examine(read_pose_set("coco", root, "train"), look, "upright")
    assert 5 not in {p.image_id for p in upright.errors}
    assert examine(read_pose_set("coco", root, "train"), "none").errors == []


def test_only_a_full_look_finds_damage_inside(tmp_path: Path) -> None:
    root = write(tmp_path, "train", document([person(1, 1), person(2, 2)]))
    path = root / "images/train/000001.png"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)
    read = read_pose_set("coco", root, "train")
    assert examine(read, "header").errors == []
    assert [p.kind for p in examine(read, "full").errors] == ["corrupt image"]


def test_stop_names_everything_with_counts(tmp_path: Path) -> None:
    people = [person(k, 1, (8, 6, 0, 40)) for k in range(1, 6)] + [person(7, 2, keypoints=[1, 2, 2])]
    read = read_pose_set("coco", write(tmp_path, "train", document([*people, person(8, 2)])), "train")
    with pytest.raises(DataError) as error:
        usable(read, examine(read))
    lines = str(error.value).splitlines()
    assert lines[0].endswith("person_keypoints_train.json: 2 images, 1 people with labelled joints")
    assert "1 × wrong joint count: person 7 of image 2 (3 numbers, expected 51" in lines[1]
    assert "5 × box without area: person 1 of image 1 (0 x 40); " in lines[2] and ", ..." in lines[2]
    assert "person 4" not in lines[2] and "on_error: skip" in lines[-1]


def test_skip_leaves_out_and_logs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    people = [person(1, 1, (8, 6, 0, 40)), person(2, 1), person(3, 2), person(4, 3)]
    root = write(tmp_path, "train", document(people, images=3))
    (root / "images/train/000002.png").unlink()
    read = read_pose_set("coco", root, "train")
    with caplog.at_level(logging.WARNING):
        kept = usable(read, examine(read), "skip")
    assert [p.id for p in kept.people] == [2, 4] and list(kept.images) == [1, 3] and kept.problems == []
    assert "1 × missing image" in caplog.text and "1 × box without area" in caplog.text
    assert [p.id for p in read.people] == [1, 2, 3, 4]  # what was read stays as it was


def test_nobody_left_is_told(tmp_path: Path) -> None:
    read = read_pose_set("coco", write(tmp_path, "train", document([person(1, 1, (8, 6, 0, 40))])), "train")
    with pytest.raises(DataError, match="nobody in it has a labelled joint"):
        usable(read, examine(read), "skip")


def test_a_part_of_a_set_keeps_the_problems_of_its_images(tmp_path: Path) -> None:
    people = [person(1, 1), person(2, 2, keypoints=[1, 2, 2]), person(3, 1, keypoints=[1, 2, 2]), person(4, 9)]
    read = read_pose_set("coco", write(tmp_path, "train", document(people)), "train")
    assert [p.instance_id for p in read.only({1}).problems] == [3, 4]
    assert without_errors(read, examine(read)).people[0].id == 1


def test_mpii_sizes_come_from_the_files(tmp_path: Path) -> None:
    """Its annotations tell no sizes: a person outside is found by the file's."""
    (tmp_path / "annot").mkdir()
    (tmp_path / "images").mkdir()
    row = {"image": "a.png", "center": [30, 20], "scale": 0.1, "joints": [[30, 20]] * 16, "joints_vis": [1] * 16}
    away = {**row, "joints": [[300, 20]] * 16}
    import json

    (tmp_path / "annot/train.json").write_text(json.dumps([row, away]))
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "images/a.png")
    report = examine(read_pose_set("mpii", tmp_path, "train"))
    assert [(p.kind, p.instance_id) for p in report.problems] == [("person outside the image", 1)]


def test_the_report_as_a_record(tmp_path: Path) -> None:
    record = examined(tmp_path, [person(1, 1), person(2, 2, (8, 6, 0, 40))]).to_dict()
    assert record == {
        "source": "person_keypoints_train.json", "images": 2, "people": 1, "counts": {"box without area": 1},
        "errors": [{"kind": "box without area", "where": "person 2 of image 2", "detail": "0 x 40"}],
    }  # fmt: skip


def test_real_annotations_are_sound(data_root: Path) -> None:
    for split in ("train2017", "val2017", "train2017_extra_areaest", "val2017_extra_areaest"):
        report = examine(read_pose_set("coco", data_root / "coco_keypoints", split))
        assert report.errors == [], report.lines()
