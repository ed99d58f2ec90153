"""Top-down samples: joints lie where the picture shows them, splits stay apart, and limits do what they say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from tests.pose.layouts import document, joints_in, person, write
from vision.engine.errors import ConfigError, DataError
from vision.engine.registry import build
from vision.engine.seeding import seed_generators
from vision.pose.augmentation import TopDownAugmentation
from vision.pose.crops import to_image
from vision.pose.data import MEAN, STD, TopDownCrops, TopDownData, as_input
from vision.pose.keypoints import skeleton
from vision.pose.splits import held_out

FIELDS = {"id", "image", "keypoints", "visible", "center", "scale", "image_id", "box", "box_score", "file"}


def shown(sample: dict[str, Any]) -> np.ndarray:
    """A sample's picture in bytes, ``[H, W, 3]``."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (255 * (sample["image"] * std + mean)).round().byte().permute(1, 2, 0).numpy()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """30 training images with two people each, 4 test images with one."""
    people = [person(2 * k + i, k, (8 + i, 6, 30, 40)) for k in range(1, 31) for i in (0, 1)]
    write(tmp_path, "train2017", document(people, images=30))
    test = [person(1000 + k, k) for k in range(101, 105)]
    return write(tmp_path, "val2017", document(test, images=4, first=101))


def made(root: Path, **options: Any) -> TopDownData:
    return TopDownData(root=str(root), **{"validation": 0.2, **options})


# samples


def test_a_sample_holds_what_it_should(root: Path) -> None:
    data = made(root, input_size=(48, 64))
    sample = data.test()[2]
    assert set(sample) == FIELDS
    assert sample["id"] == "103/1103" and sample["image_id"] == 103 and sample["box_score"] == 1.0
    assert sample["file"] == str(root / "images/val2017/000103.png")
    assert sample["box"].tolist() == [8, 6, 30, 40]
    shapes = {"image": (3, 64, 48), "keypoints": (17, 2), "visible": (17,), "center": (2,), "scale": (2,)}
    for field, shape in shapes.items():
        assert tuple(sample[field].shape) == shape and sample[field].dtype == torch.float32, field
    assert sample["center"].tolist() == [23, 26]
    assert sample["scale"].tolist() == pytest.approx([37.5, 50])  # 1.25 of the box, which has the crop's aspect
    back = to_image(sample["keypoints"][None], sample["center"][None], sample["scale"][None], (48, 64))
    assert np.allclose(back[0], np.reshape(joints_in((8, 6, 30, 40)), (17, 3))[:, :2], atol=1e-4)


def test_unlabelled_joints_are_zero_everywhere(tmp_path: Path) -> None:
    joints = joints_in((8, 6, 30, 40))
    joints[3:6] = [500, 500, 0]
    root = write(tmp_path, "train2017", document([person(1, 1, keypoints=joints), person(2, 2)]))
    for augmented in (True, False):
        sample = made(root, overfit=True, augmented=augmented).train()[0]
        hidden = sample["visible"] == 0
        assert hidden.sum() == 1 and sample["visible"].sum() == 32 and not sample["keypoints"][hidden].any()


def test_normalisation_is_torchvisions() -> None:
    crop = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    theirs = v2.Normalize(MEAN, STD)(torch.from_numpy(crop).permute(2, 0, 1).float() / 255)
    mine = as_input(crop)
    assert torch.allclose(mine, theirs, atol=1e-5) and mine.is_contiguous()


@pytest.fixture
def marked(tmp_path: Path) -> Path:
    """One person whose joints are disks in the picture, each with its own colour, left and right alike but for blue."""
    joints = np.zeros((17, 3), int)
    coco = skeleton("coco")
    rng = np.random.default_rng(1)
    cells = rng.permutation([(x, y) for x in range(5) for y in range(6)])[:17]
    joints[:, :2] = cells * 26 + 100
    joints[:, 2] = 2
    picture = np.zeros((400, 400, 3), np.uint8)
    rows, columns = np.mgrid[:400, :400]
    for k, (x, y, _) in enumerate(joints):
        pair = min(k, coco.flip_index[k])
        colour = (40 + 12 * pair, 255 - 10 * pair, 250 if coco.joints[k].startswith("left") else 60)
        picture[(rows - y) ** 2 + (columns - x) ** 2 <= 64] = colour
    root = write(tmp_path, "train2017", document([person(1, 1, (95, 95, 130, 160), keypoints=joints.ravel().tolist())],
                                                 images=1, size=(400, 400)), pictures=False)  # fmt: skip
    Image.fromarray(picture).save(root / "images/train2017/000001.png")
    return root


def test_augmented_joints_lie_where_the_picture_shows_them(marked: Path) -> None:
    """Over many draws of the whole recipe; in mirror images what was left is looked for at the right joint."""
    data = made(marked, overfit=True, augmentation=TopDownAugmentation(half_body=0.5, scale=(0.6, 1.2)))
    crops = data.train()
    looked_at, mirrored, regions = 0, 0, set()
    coco = skeleton("coco")
    for seed in range(60):
        seed_generators(seed)
        sample = crops[0]
        picture, joints = shown(sample), sample["keypoints"].numpy()
        regions.add(tuple(sample["scale"].tolist()))
        colours = {}
        for k, (x, y) in enumerate(np.rint(joints).astype(int)):
            if 2 <= x < 190 and 2 <= y < 254:
                pair = min(k, coco.flip_index[k])
                assert np.abs(picture[y, x, :2].astype(int) - (40 + 12 * pair, 255 - 10 * pair)).max() <= 3, (seed, k)
                colours[k] = picture[y, x, 2]
        turned = {k for k in colours if k and (colours[k] > 128) != coco.joints[k].startswith("left")}
        assert turned in (set(), set(colours) - {0})  # all sides are swapped, or none
        looked_at, mirrored = looked_at + len(colours), mirrored + bool(turned)
    assert looked_at > 500 and len(regions) == 60
    assert 20 <= mirrored <= 40


def test_a_sample_is_decided_by_the_global_seed_alone(root: Path) -> None:
    crops = made(root).train()

    def drawn(seed: int) -> torch.Tensor:
        seed_generators(seed)
        return crops[3]["image"]

    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))
    plain = made(root, augmented=False).train()
    assert torch.equal(plain[3]["image"], plain[3]["image"])


# splits


def images_of(dataset: Any) -> set[int]:
    return {int(subject.image.id) for subject in dataset.subjects}


def test_what_is_held_out_is_not_trained_on(root: Path) -> None:
    data = made(root)
    train, val, test = data.train(), data.val(), data.test()
    assert isinstance(train, TopDownCrops) and train.augmentation is not None and val.augmentation is None
    assert not images_of(train) & images_of(val) and images_of(train) | images_of(val) == set(range(1, 31))
    assert 0 < len(images_of(val)) < 15 and len(train) + len(val) == 60
    assert images_of(test) == {101, 102, 103, 104}
    assert set(val.ground_truth.images) == images_of(val) == set(data.ground_truth("val").images)
    assert set(data.reports) == {"train", "val", "test"} and data.reports["test"].people == 4


def test_holding_out_depends_on_the_image_alone() -> None:
    some, more = held_out(range(1000), 0.1, 7), held_out(range(3000), 0.1, 7)
    assert some == {key for key in more if key < 1000}
    assert len(more) == pytest.approx(300, abs=60) and some != held_out(range(1000), 0.1, 8)
    assert held_out(range(1000), 0.1, 7) < held_out(range(1000), 0.2, 7)


def test_further_files_are_for_training_alone(root: Path) -> None:
    more = document([person(1, 1), person(2, 2)], images=2)
    for image in more["images"]:
        image["file_name"] = f"more{image['id']}.png"
    (root / "annotations/person_keypoints_train2017_more.json").write_text(json.dumps(more))
    for key in (1, 2):
        Image.new("RGB", (64, 48)).save(root / f"images/train2017/more{key}.png")
    alone, both = made(root), made(root, extra_splits=("train2017_more",))
    assert len(both.train()) == len(alone.train()) + 2
    assert [s.id for s in both.val().subjects] == [s.id for s in alone.val().subjects]
    assert len({s.id for s in both.train().subjects}) == len(both.train())
    assert sum("more" in s.image.path.name for s in both.train().subjects) == 2


def test_an_image_cannot_be_trained_and_judged_on(root: Path) -> None:
    with pytest.raises(DataError, match="4 images of the split 'val2017' are also trained on, such as"):
        made(root, train_splits=("train2017", "val2017")).train()
    with pytest.raises(DataError, match="30 images of the split 'train2017' are also trained on"):
        made(root, val_split="train2017").train()
    assert len(made(root, val_split="val2017").train()) == 60


def test_holding_out_everything_or_nothing_is_told(tmp_path: Path) -> None:
    root = write(tmp_path, "train2017", document([person(1, 1)], images=1))
    with pytest.raises(DataError, match=r"data\.validation: 0\.1 holds out 0 of 1 images"):
        made(root, validation=0.1, test_split=None).train()
    with pytest.raises(ConfigError, match="train_splits is empty"):
        made(root, train_splits=())


def test_without_a_test_split(root: Path) -> None:
    data = made(root, test_split=None)
    assert data.test() is None and len(data.train()) > 0
    with pytest.raises(DataError, match="no test split"):
        data.ground_truth("test")


def test_overfitting_is_judged_on_the_very_people(root: Path) -> None:
    data = made(root, overfit=True, train_persons=5)
    train, val, test = data.train(), data.val(), data.test()
    assert [s.id for s in train.subjects] == [s.id for s in val.subjects] == [s.id for s in test.subjects]
    truth = val.ground_truth
    assert len(train) == 5 == sum(map(len, truth.instances.values())) and len(truth.images) == 3


def test_limits(root: Path) -> None:
    data = made(root, train_images=4, eval_images=2)
    assert len(images_of(data.train())) == 4 and len(data.train()) == 8
    assert set(data.ground_truth("test").images) == {101, 102} and len(data.ground_truth("val").images) == 2
    assert len(made(root, train_persons=3).train()) == 3


def test_bad_annotations_stop_or_are_skipped(root: Path) -> None:
    (root / "images/val2017/000102.png").unlink()
    with pytest.raises(DataError, match="1 × missing image"):
        made(root).test()
    data = made(root, on_error="skip")
    assert images_of(data.test()) == {101, 103, 104} and set(data.ground_truth("test").images) == {101, 103, 104}
    assert data.reports["test"].counts == {"missing image": 1}


# boxes of a detector


@pytest.fixture
def detected(root: Path) -> Iterator[Path]:
    rows = [{"image_id": 101, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5},
            {"image_id": 103, "category_id": 1, "bbox": [5, 6, 30, 20], "score": 0.25},
            {"image_id": 101, "category_id": 1, "bbox": [2, 2, 3, 4], "score": 0.125}]  # fmt: skip
    (root / "boxes.json").write_text(json.dumps(rows))
    yield root


def test_detected_boxes_have_no_joints(detected: Path) -> None:
    data = made(detected, boxes="boxes.json", input_size=(64, 64))
    test = data.test()
    assert [(s["id"], s["box_score"]) for s in test] == [("101/0", 0.5), ("101/1", 0.125), ("103/0", 0.25)]
    assert set(test[0]) == FIELDS and not test[0]["keypoints"].any() and not test[0]["visible"].any()
    assert test[2]["scale"].tolist() == [37.5, 37.5]
    assert len(data.ground_truth("test").images) == 4  # who was not found counts as missed
    assert all(s.keypoints is not None for s in data.val().subjects)
    alone = made(detected, boxes="boxes.json", detected_only=True)
    assert set(alone.test().ground_truth.images) == {101, 103}


def test_detected_boxes_of_the_first_images_alone(detected: Path) -> None:
    """The file of boxes is that of the whole split, also where only a part of it is judged."""
    test = made(detected, boxes="boxes.json", eval_images=2).test()
    assert [s.id for s in test.subjects] == ["101/0", "101/1"] and set(test.ground_truth.images) == {101, 102}
    rows = [{"image_id": 104, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]
    (detected / "last.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"last\.json: holds no box for the 2 images to judge on"):
        made(detected, boxes="last.json", eval_images=2).test()


def test_detected_boxes_of_images_that_are_left_out(detected: Path) -> None:
    (detected / "images/val2017/000103.png").unlink()
    test = made(detected, boxes="boxes.json", on_error="skip").test()
    assert {s.image.id for s in test.subjects} == {101} and set(test.ground_truth.images) == {101, 102, 104}


def test_options_that_nothing_uses_are_told(detected: Path) -> None:
    with pytest.raises(ConfigError, match=r"detected_only needs a detector's file"):
        made(detected, detected_only=True)
    with pytest.raises(ConfigError, match=r"data\.overfit judges on"):
        made(detected, boxes="boxes.json", overfit=True)
    with pytest.raises(ConfigError, match=r"data\.input_size"):
        made(detected, input_size=(16, 64))


# recipes and other skeletons


def test_a_recipe_builds_it(root: Path) -> None:
    block = {"type": "coco_pose", "root": str(root), "augmentation": {"rotation": 30.0, "scale": [0.8, 1.2]}}
    data = build(block, "data")
    assert isinstance(data, TopDownData) and data.augmentation == TopDownAugmentation(rotation=30.0, scale=(0.8, 1.2))
    with pytest.raises(ConfigError, match=r"augmentation\.rotatoin: unknown key \(did you mean 'rotation'\?\)"):
        build({**block, "augmentation": {"rotatoin": 30.0}}, "data")


def test_a_skeleton_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("joints: [head, left_tip, right_tip]\nflip_pairs: [[left_tip, right_tip]]\nsigmas: 0.05\n")
    figure = skeleton(str(own))
    people = [person(k, k, keypoints=joints_in((8, 6, 30, 40), 3)) for k in range(1, 21)]
    root = write(tmp_path, "train2017", document(people, images=20, joints=figure))
    data = made(root, custom_skeleton=str(own), test_split=None)
    assert data.skeleton == figure and data.train()[0]["keypoints"].shape == (3, 2)
    assert data.val().skeleton.count == 3


def test_another_layout_is_judged_without_anything_to_train_on(tmp_path: Path) -> None:
    """As OCHuman judges a network that was trained on COCO: its folder holds no training split."""
    rows = document([person(1, 1), person(2, 2)], images=2)
    root = write(tmp_path, "any", rows)
    (root / "ochuman_coco_format_test_range_0.00_1.00.json").write_text(json.dumps(rows))
    for picture in (root / "images/any").iterdir():
        picture.rename(root / "images" / picture.name)
    test = made(root, layout="ochuman", test_split="test").test()
    assert len(test) == 2 and test[0]["visible"].sum() > 0


def test_the_real_split(data_root: Path) -> None:
    """All labelled people to train on, nobody twice, none of them judged on; detections of the usual file."""
    data = TopDownData(
        root=str(data_root / "coco_keypoints"), extra_splits=("train2017_extra_areaest", "val2017_extra_areaest")
    )
    train, val, test = data.train(), data.val(), data.test()
    assert len(train) + len(val) == 477 + 54 + 338 and len(test) == 422
    assert len({s.id for s in train.subjects}) == len(train)
    files = [{s.image.path for s in each.subjects} for each in (train, val, test)]
    assert not files[0] & files[1] and not files[0] & files[2] and not files[1] & files[2]
    seed_generators(0)
    assert all(torch.isfinite(train[i]["image"]).all() for i in range(0, len(train), 100))
    boxes = "person_detection_results/COCO_val2017_detections_AP_H_56_person.json"
    detected = TopDownData(root=data.root, boxes=boxes, detected_only=True)
    assert len(detected.test()) == 2705 and len(detected.ground_truth("test").images) == 81
