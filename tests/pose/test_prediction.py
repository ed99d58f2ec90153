"""What a pose network says: drawn, as COCO results, and several predictions of an image as one."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from tests.pose.layouts import document, person
from vision.engine.files import to_json
from vision.pose.keypoints import Skeleton, skeleton
from vision.pose.prediction import OnDemand, Poses, drawn_as
from vision.report.poses import LEFT, MIDDLE, RIGHT

BODY = skeleton("coco")


def poses(count: int, seed: int = 0, image_id: int = 7) -> Poses:
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform(2, 60, (count, 17, 3)).astype(np.float32)
    keypoints[..., 2] = rng.uniform(0.1, 1, (count, 17))
    boxes = rng.uniform(1, 30, (count, 4)).astype(np.float32)
    scores = rng.uniform(0.1, 1, (2, count)).astype(np.float32)
    return Poses(f"{image_id}/{seed}", image_id, keypoints, scores[0], boxes, scores[1], BODY)


def test_results_are_what_pycocotools_reads(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text(json.dumps(document([person(1, 7)], images=1, first=7)))
    said = poses(3)
    (tmp_path / "results.json").write_text(to_json(said.to_coco()))
    truth = COCO(str(tmp_path / "truth.json"))
    read = truth.loadRes(str(tmp_path / "results.json")).loadAnns([1, 2, 3])
    assert [row["image_id"] for row in read] == [7, 7, 7]
    np.testing.assert_allclose([row["score"] for row in read], said.scores, atol=1e-6)
    np.testing.assert_allclose(
        np.array([row["keypoints"] for row in read]).reshape(3, 17, 3), said.keypoints, atol=6e-4
    )
    extent = np.ptp(said.keypoints[..., :2], axis=1).prod(axis=1)
    np.testing.assert_allclose([row["area"] for row in read], extent, rtol=1e-3)


def test_a_dictionary_also_holds_boxes_and_nobody_is_an_empty_list() -> None:
    said = poses(2).to_dict()
    assert said["id"] == "7/0"
    assert [len(each["box"]) for each in said["people"]] == [4, 4]
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    assert Poses.nobody("a.png", 3, BODY).to_dict() == {"id": "a.png", "image_id": 3, "people": []}
    single_stage = Poses("a", 1, poses(2).keypoints, poses(2).scores, np.zeros((0, 4)), np.zeros(0), BODY)
    assert all("box" not in each for each in single_stage.to_dict()["people"])


def test_parts_are_joined_in_order() -> None:
    parts = [poses(1, seed) for seed in range(3)]
    whole = Poses.joined("a.png", 9, parts, BODY)
    assert (whole.id, whole.image_id) == ("a.png", 9)
    assert whole.to_coco() == [{**part.to_coco()[0], "image_id": 9} for part in parts]
    assert np.array_equal(whole.boxes, np.concatenate([part.boxes for part in parts]))
    assert Poses.joined("a.png", 9, [], BODY).keypoints.shape == (0, 17, 3)


def test_the_first_of_a_flip_pair_is_the_left_side() -> None:
    drawn = drawn_as(BODY)
    names = BODY.joints
    assert all(names[k].startswith("left") for k in drawn.left)
    assert all(names[k].startswith("right") for k in drawn.right)
    assert drawn.colour(names.index("left_knee"), names.index("left_hip")) == LEFT
    assert drawn.colour(names.index("nose"), names.index("right_eye")) == RIGHT
    assert drawn.colour(names.index("left_hip"), names.index("right_hip")) == MIDDLE
    assert drawn_as(Skeleton("line", ("a", "b"), (), (("a", "b"),), (0.1, 0.1))).colour(0, 1) == MIDDLE


def test_small_pictures_are_enlarged_and_joints_with_them() -> None:
    one = Skeleton("one", ("a",), (), (), (0.1,))
    said = Poses("a", 1, np.array([[[10, 20, 1]]], np.float32), np.ones(1), np.zeros((0, 4)), np.zeros(0), one)
    picture = np.full((64, 80, 3), 100, np.uint8)
    drawn = said.draw(picture)
    assert drawn.shape == (256, 320, 3)
    changed = np.argwhere((drawn != 100).any(2)).astype(float)
    assert changed.mean(0) == pytest.approx([20 * 4 + 1.5, 10 * 4 + 1.5], abs=0.3)


def test_beside_the_truth_the_part_around_the_people_is_shown() -> None:
    said = poses(2)
    said.boxes = np.array([[10, 10, 20, 20], [30, 20, 20, 30]], np.float32)
    picture = np.full((100, 100, 3), 100, np.uint8)
    truth = poses(2, seed=5).keypoints
    truth[..., 2] = 2
    before = truth.copy()
    drawn = said.draw(picture, truth)
    assert np.array_equal(truth, before)
    assert drawn.shape[1] == pytest.approx(2 * 320, abs=8), "40 x 40 pixels, padded and enlarged, twice"
    half = (drawn.shape[1] - 4) // 2
    assert not np.array_equal(drawn[40:, :half], drawn[40:, -half:])
    nothing = said.draw(picture, np.zeros((0, 17, 3)))
    assert nothing.shape == drawn.shape


def test_people_far_less_sure_than_the_surest_are_not_drawn() -> None:
    one = Skeleton("one", ("a",), (), (), (0.1,))
    picture = np.full((400, 400, 3), 100, np.uint8)
    joints = np.array([[[100, 100, 1]], [[300, 300, 1]]], np.float32)

    def changed(scores: list[float]) -> list[bool]:
        said = Poses("a", 1, joints, np.array(scores, np.float32), np.zeros((0, 4)), np.zeros(0), one)
        drawn = said.draw(picture) != 100
        return [bool(drawn[:200].any()), bool(drawn[200:].any())]

    assert changed([0.5, 0.06]) == [True, True]
    assert changed([0.5, 0.04]) == [True, False]
    assert changed([0.0, 0.0]) == [True, True]


def test_without_boxes_everyone_found_or_true_is_shown() -> None:
    one = Skeleton("one", ("a",), (), (), (0.1,))
    picture = np.zeros((400, 800, 3), np.uint8)
    said = Poses("a", 1, np.array([[[100, 100, 1]]], np.float32), np.ones(1), np.zeros((0, 4)), np.zeros(0), one)
    drawn = said.draw(picture, np.array([[[700, 150, 2]]], np.float32))
    middle = drawn.shape[1] // 4
    found, true = (half[:, 10:-10] for half in np.array_split(drawn[40:] > 60, 2, axis=1))
    assert found[:, :middle].any() and not found[:, middle:].any()
    assert true[:, middle:].any() and not true[:, :middle].any()
    assert drawn.shape[1] > 1200, "600 pixels between them, padded, twice"


def test_pictures_are_read_when_they_are_looked_at() -> None:
    read: list[int] = []

    def picture(index: int) -> np.ndarray:
        read.append(index)
        return np.full((1, 1, 3), index, np.uint8)

    pictures = OnDemand(picture, 4)
    assert len(pictures) == 4
    assert read == []
    assert pictures[2][0, 0, 0] == 2
    assert pictures[-1][0, 0, 0] == 3
    assert read == [2, 3]
    assert [int(p[0, 0, 0]) for p in pictures] == [0, 1, 2, 3]
    assert [int(p[0, 0, 0]) for p in pictures[1:3]] == [1, 2]
    with pytest.raises(IndexError):
        pictures[4]
