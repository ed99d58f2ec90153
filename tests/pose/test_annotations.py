"""The published layouts read into one form: counts, conventions, and files that are not what they should be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.io import savemat

from tests.pose.layouts import document, joints_in, person, write
from vision.engine.errors import DataError
from vision.pose.annotations import PoseSet, merged, read_detections, read_pose_set
from vision.pose.keypoints import skeleton
from vision.pose.mpii_layout import OFFICIAL


def dumped(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def evaluated(pose_set: PoseSet, rows: list[dict[str, Any]]) -> float:
    truth = COCO()
    truth.dataset = pose_set.to_coco()
    truth.createIndex()
    judge = COCOeval(truth, truth.loadRes(rows), "keypoints")
    judge.params.kpt_oks_sigmas = np.array(pose_set.skeleton.sigmas)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return float(judge.stats[0])


# COCO


def test_coco_counts_and_fields(tmp_path: Path) -> None:
    people = [
        person(1, 1), person(2, 1, keypoints=[0] * 51, segmentation=[[1, 1, 2, 1, 2, 2]]),
        person(3, 2, iscrowd=1, segmentation={"counts": [0, 9], "size": [3, 3]}),
        person(4, 2, segmentation=[[0, 0, 1]]),
    ]  # fmt: skip
    read = read_pose_set("coco", write(tmp_path, "val2017", document(people, images=3)), "val2017")
    assert [len(each) for each in read.instances.values()] == [2, 2, 0]
    assert [p.id for p in read.people] == [1, 4] and read.problems == []
    assert read.images[2].path == tmp_path / "images/val2017/000002.png" and read.images[2].path.is_file()
    first, unlabelled, crowd, last = (p for each in read.instances.values() for p in each)
    assert first.box == (8, 6, 30, 40) and first.area == 600 and first.labelled == 17
    assert np.array_equal(first.keypoints, np.reshape(joints_in((8, 6, 30, 40)), (17, 3)).astype(np.float32))
    assert crowd.crowd and crowd.extra["segmentation"]["counts"] == [0, 9]
    assert "segmentation" in unlabelled.extra and "segmentation" not in last.extra


def test_images_of_a_further_file_lie_in_the_folder_its_name_begins_with(tmp_path: Path) -> None:
    write(tmp_path, "train2017", document([person(1, 1)], images=1))
    dumped(tmp_path / "annotations/person_keypoints_train2017_more.json", document([person(1, 1)], images=1))
    for split in ("train2017_more", "annotations/person_keypoints_train2017_more.json"):
        assert read_pose_set("coco", tmp_path, split).images[1].path == tmp_path / "images/train2017/000001.png"


def test_the_official_place_of_images_is_found_too(tmp_path: Path) -> None:
    write(tmp_path, "val2017", document([person(1, 1)], images=1))
    (tmp_path / "images/val2017").rename(tmp_path / "val2017")
    assert read_pose_set("coco", tmp_path, "val2017").images[1].path == tmp_path / "val2017/000001.png"


def test_pycocotools_takes_what_is_written_for_it(tmp_path: Path) -> None:
    people = [person(k, 1 + k % 2, (2 * k, 3, 20 + k, 40), segmentation=None) for k in range(1, 6)]
    read = read_pose_set("coco", write(tmp_path, "val", document(people)), "val")
    rows = [
        {"image_id": p.image_id, "category_id": 1, "keypoints": p.keypoints.ravel().tolist(), "score": 1.0}
        for p in read.people
    ]
    assert evaluated(read, rows) == pytest.approx(1.0)
    rows[0]["keypoints"] = (np.array(rows[0]["keypoints"]) + 500).tolist()
    assert evaluated(read, rows) < 1


def test_real_counts(data_root: Path) -> None:
    """Against the numbers counted when the data was collected."""
    root = data_root / "coco_keypoints"
    expected = {  # images, annotations, people with joints, crowds
        "train2017": (170, 733, 477, 16), "val2017": (192, 740, 422, 18),
        "train2017_extra_areaest": (21, 54, 54, 0), "val2017_extra_areaest": (95, 338, 338, 0),
    }  # fmt: skip
    for split, counts in expected.items():
        read = read_pose_set("coco", root, split)
        people = [p for each in read.instances.values() for p in each]
        assert (len(read.images), len(people), len(read.people), sum(p.crowd for p in people)) == counts
        assert read.problems == [] and all(image.path.is_file() for image in read.images.values())


def test_real_truth_as_its_own_answer_scores_one(data_root: Path) -> None:
    read = read_pose_set("coco", data_root / "coco_keypoints", "val2017")
    rows = [
        {"image_id": p.image_id, "category_id": 1, "keypoints": p.keypoints.ravel().tolist(), "score": 1.0}
        for p in read.people
    ]
    assert evaluated(read, rows) == pytest.approx(1.0)


# CrowdPose, AP-10K


def crowdpose_person(key: int, image: int) -> dict[str, Any]:
    return person(key, image, keypoints=joints_in((8, 6, 30, 40), 14), area=None)


@pytest.mark.parametrize("folder", ["annotations", "json", "anno", "."])
def test_crowdpose(tmp_path: Path, folder: str) -> None:
    content = document([crowdpose_person(1, 1)], images=1, joints=skeleton("crowdpose"))
    content["images"][0]["crowdIndex"] = 0.7
    dumped(tmp_path / folder / "crowdpose_val.json", content)
    read = read_pose_set("crowdpose", tmp_path, "val")
    assert read.images[1].extra == {"crowdIndex": 0.7} and read.to_coco()["images"][0]["crowdIndex"] == 0.7
    assert read.people[0].area == pytest.approx(0.53 * 30 * 40) and read.problems == []
    assert read.images[1].path == tmp_path / "images/000001.png"


def test_ap10k_animals_of_all_kinds(tmp_path: Path) -> None:
    content = document([person(1, 1, category_id=3), person(2, 1, category_id=9)], images=1)
    joints = list(skeleton("ap10k").joints)
    content["categories"] = [
        {"id": 3, "name": "dog", "keypoints": joints},
        {"id": 9, "name": "cat", "keypoints": joints},
    ]
    dumped(tmp_path / "annotations/ap10k-train-split1.json", content)
    for split in ("train", "train-split1"):
        read = read_pose_set("ap10k", tmp_path, split)
        assert [p.extra["category"] for p in read.people] == [3, 9]
        assert {row["category_id"] for row in read.to_coco()["annotations"]} == {1}
        assert read.images[1].path == tmp_path / "data/000001.png"


# OCHuman


def ochuman_document() -> dict[str, Any]:
    names = [*reversed(skeleton("coco").joints), "head", "neck"]
    points = [value for k in range(19) for value in (10 + k, 20 + k, k % 4)]
    whole = {"bbox": [5, 6, 45, 66], "keypoints": points, "segms": {"outer": [[1]]}, "max_iou": 0.6}
    images = [
        {"image_id": f"{key:04d}", "file_name": f"{key:04d}.jpg", "width": 100, "height": 80,
         "annotations": [whole, {**whole, "segms": None}, {**whole, "keypoints": None}]}
        for key in (3, 1, 2)
    ]  # fmt: skip
    images.append({**images[0], "image_id": "0004", "annotations": [{**whole, "segms": None}]})
    return {"keypoint_names": names, "images": images}


def test_ochumans_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dumped(tmp_path / "ochuman.json", ochuman_document())
    monkeypatch.setattr("vision.pose.ochuman_layout.VALIDATION_IMAGES", 2)
    read = read_pose_set("ochuman", tmp_path, "all")
    assert [image.path.name for image in read.images.values()] == ["0001.jpg", "0002.jpg", "0003.jpg"]
    assert len(read.people) == 3  # those with joints and a mask
    first = read.people[0]
    assert first.box == (5, 6, 40, 60) and first.area == 2400
    # joint 16 of COCO stands first in the file; hidden by others (3) is COCO's 1, hidden by itself (2) COCO's 2
    assert first.keypoints is not None
    assert first.keypoints[:, 0].tolist() == [10 + 16 - k for k in range(17)]
    assert first.keypoints[[16, 15, 14, 13], 2].tolist() == [0, 2, 2, 1]
    assert [len(read_pose_set("ochuman", tmp_path, split).images) for split in ("val", "test")] == [2, 1]
    with pytest.raises(DataError, match="expected val, test or all"):
        read_pose_set("ochuman", tmp_path, "train")
    broken = ochuman_document()
    del broken["images"][1]["width"]
    dumped(tmp_path / "ochuman.json", broken)
    with pytest.raises(DataError, match=r"image 0001 is broken \(KeyError\('width'\)\)"):
        read_pose_set("ochuman", tmp_path, "all")
    dumped(tmp_path / "ochuman.json", {"images": []})
    with pytest.raises(DataError, match="is not OCHuman's own file"):
        read_pose_set("ochuman", tmp_path, "all")


def test_ochumans_coco_files(tmp_path: Path) -> None:
    dumped(tmp_path / "ochuman_coco_format_val_range_0.00_1.00.json", document([person(1, 1)], images=1))
    read = read_pose_set("ochuman", tmp_path, "val")
    assert len(read.people) == 1 and read.skeleton.name == "ochuman"


# MPII


def mpii_rows(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {"image": f"{k // 2:04d}.jpg", "center": [200.0 + k, 150.0], "scale": 1.5,
         "joints": (rng.integers(1, 300, (16, 2)) + 0.5).tolist(), "joints_vis": [int(j != 3) for j in range(16)]}
        for k in range(count)
    ]  # fmt: skip


def test_mpii_counts_from_0_and_knows_the_heads(tmp_path: Path) -> None:
    rows = mpii_rows(3)
    dumped(tmp_path / "annot/valid.json", rows)
    corners = np.zeros((2, 2, 3))
    corners[1, 0], corners[1, 1] = [30, 60, 90], [40, 80, 120]
    savemat(tmp_path / "annot/gt_valid.mat", {"headboxes_src": corners})
    for split in ("valid", "val"):
        read = read_pose_set("mpii", tmp_path, split)
        assert len(read.images) == 2 and [len(each) for each in read.instances.values()] == [2, 1]
        first = read.people[0]
        assert first.keypoints is not None and np.allclose(first.keypoints[0, :2], np.array(rows[0]["joints"][0]) - 1)
        assert first.keypoints[3].tolist() == [0, 0, 0] and first.labelled == 15
        assert first.box == (199 - 150, 149 + 22.5 - 150, 300, 300)  # side 200 s, 15 s lower
        assert [p.extra["head"] for p in read.people] == pytest.approx([0.6 * 50, 0.6 * 100, 0.6 * 150])


def test_mpii_heads_of_other_people_are_refused(tmp_path: Path) -> None:
    dumped(tmp_path / "annot/valid.json", mpii_rows(3))
    savemat(tmp_path / "annot/gt_valid.mat", {"headboxes_src": np.zeros((2, 2, 5))})
    with pytest.raises(DataError, match="does not fit the 3 persons"):
        read_pose_set("mpii", tmp_path, "valid")


def struct(**fields: Any) -> dict[str, Any]:
    return fields


def official(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows in the nested structs of MPII's own file, with an image of the test split."""

    def annotated(row: dict[str, Any]) -> dict[str, Any]:
        points = [
            struct(x=x, y=y, id=k, is_visible=1) for k, (x, y) in enumerate(row["joints"]) if row["joints_vis"][k]
        ]
        return struct(x1=0.0, y1=0.0, x2=30.0, y2=40.0, scale=row["scale"], annopoints=struct(point=points),
                      objpos=struct(x=row["center"][0], y=row["center"][1]))  # fmt: skip

    names = sorted({row["image"] for row in rows})
    scenes = [struct(image=struct(name=n), annorect=[annotated(r) for r in rows if r["image"] == n]) for n in names]
    scenes.append(struct(image=struct(name="test.jpg"), annorect=[struct(x1=0.0)]))
    return {"RELEASE": struct(annolist=scenes, img_train=np.array([1] * len(names) + [0]))}


def as_records(value: Any) -> Any:
    """Lists of dictionaries as MATLAB's arrays of structs."""
    if isinstance(value, list):
        made = np.empty(len(value), dtype=[(name, object) for name in value[0]])
        for index, item in enumerate(value):
            for name in value[0]:
                made[name][index] = as_records(item[name])
        return made
    return {key: as_records(item) for key, item in value.items()} if isinstance(value, dict) else value


def test_the_official_file_says_what_the_json_says(tmp_path: Path) -> None:
    rows = mpii_rows(3)
    dumped(tmp_path / "json/annot/train.json", rows)
    (tmp_path / "mat").mkdir()
    savemat(tmp_path / "mat" / OFFICIAL, as_records(official(rows)))
    by_json, by_mat = (read_pose_set("mpii", tmp_path / kind, "train") for kind in ("json", "mat"))
    assert [i.path.name for i in by_json.images.values()] == [i.path.name for i in by_mat.images.values()]
    for one, other in zip(by_json.people, by_mat.people, strict=True):
        assert one.box == other.box and np.allclose(one.keypoints, other.keypoints) and other.extra["head"] == 30
    with pytest.raises(DataError, match="joints of the split 'train' alone"):
        read_pose_set("mpii", tmp_path / "mat", "valid")


def test_mpii_records_that_cannot_be_used(tmp_path: Path) -> None:
    rows = mpii_rows(5)
    rows[1]["joints"] = rows[1]["joints"][:14]
    rows[2]["joints"] = [[1, 2], [3]]
    del rows[3]["scale"]
    dumped(tmp_path / "annot/train.json", rows)
    read = read_pose_set("mpii", tmp_path, "train")
    assert [(p.kind, p.where.split(" of")[0]) for p in read.problems] == [
        ("wrong joint count", "person 1"), ("wrong joint count", "person 2"), ("broken record", "person 3"),
    ]  # fmt: skip
    assert len(read.people) == 2
    for content, told in (([{"image": "a.jpg", "center": [1, 2], "scale": 1}], "has joints"), ({}, "list of persons")):
        dumped(tmp_path / "annot/test.json", content)
        with pytest.raises(DataError, match=told):
            read_pose_set("mpii", tmp_path, "test")


# files that are not what they should be


@pytest.mark.parametrize("share", [0.1, 0.37, 0.5, 0.9, 0.999])
def test_json_that_was_cut_off_says_so(tmp_path: Path, share: float) -> None:
    path = write(tmp_path, "val", document([person(1, 1)]), pictures=False) / "annotations/person_keypoints_val.json"
    text = path.read_text()
    path.write_text(text[: int(share * len(text))])
    with pytest.raises(DataError, match="cut off") as error:
        read_pose_set("coco", tmp_path, "val")
    assert str(path) in str(error.value)


def test_other_broken_json_says_where(tmp_path: Path) -> None:
    path = tmp_path / "annotations/person_keypoints_val.json"
    path.parent.mkdir()
    path.write_text('{"images": [],\n "annotations" [], "categories": []}\n')
    with pytest.raises(DataError, match=r"val\.json:2: is not whole JSON \(Expecting ':' delimiter\)"):
        read_pose_set("coco", tmp_path, "val")
    path.write_bytes(b"\x1f\x8b\xff\xfe" * 9)
    with pytest.raises(DataError, match="is not"):
        read_pose_set("coco", tmp_path, "val")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"annotations": []}, "holds no annotations"),
        ({"images": []}, "holds no images"),
        ({"annotations": None}, "'annotations' is missing"),
        ({"annotations": [person(1, 1, keypoints=None)]}, "none of its 1 annotations has keypoints"),
        ({"categories": [{"id": 1, "name": "hand", "keypoints": ["a"] * 21}]}, "'hand' has 21 joints, the skeleton"),
    ],
)  # fmt: skip
def test_a_file_without_what_is_needed(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    write(tmp_path, "val", {**document([person(1, 1)]), **change}, pictures=False)
    with pytest.raises(DataError) as error:
        read_pose_set("coco", tmp_path, "val")
    assert told in str(error.value) and "person_keypoints_val.json" in str(error.value)


def test_missing_folders_splits_and_layouts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_pose_set("coco", tmp_path / "none", "val")
    with pytest.raises(DataError, match=r"no annotations of the split 'val'; looked for .*person_keypoints_val\.json"):
        read_pose_set("coco", tmp_path, "val")
    with pytest.raises(DataError, match="layout: got 'voc'"):
        read_pose_set("voc", tmp_path, "val")  # type: ignore[arg-type]


# boxes of a detector


@pytest.fixture
def two_images(tmp_path: Path) -> PoseSet:
    return read_pose_set("coco", write(tmp_path, "val", document([person(1, 1)]), pictures=False), "val")


def box(image: int, **changed: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5, **changed}


def test_detections_by_image(tmp_path: Path, two_images: PoseSet) -> None:
    path = dumped(tmp_path / "boxes.json", [box(2), box(1, category_id=44), box(2, score=0.25)])
    assert read_detections(path, two_images) == {2: [((1, 2, 3, 4), 0.5), ((1, 2, 3, 4), 0.25)]}


def test_detections_of_unknown_images(tmp_path: Path, two_images: PoseSet) -> None:
    path = dumped(tmp_path / "boxes.json", [box(1), box(77), box(77), box(78)])
    with pytest.raises(
        DataError, match=r"3 boxes are of 2 images that person_keypoints_val\.json does not list, such as 77"
    ):
        read_detections(path, two_images)
    assert list(read_detections(path, two_images, "skip")) == [1]


def test_detections_outside_their_image(tmp_path: Path, two_images: PoseSet, caplog: pytest.LogCaptureFixture) -> None:
    """The pictures are 64 x 48: what touches them counts, what lies beside them does not."""
    beside = [[64, 0, 9, 9], [0, 48, 9, 9], [-9, 0, 9, 9], [0, -9, 9, 9]]
    path = dumped(tmp_path / "boxes.json", [box(1, bbox=[-8, -8, 9, 9]), *(box(1, bbox=b) for b in beside)])
    told = r"4 boxes lie outside their image, such as box 1, \[64.0, 0.0, 9.0, 9.0\] of image 1 \(64 x 48\)"
    with pytest.raises(DataError, match=rf"{told}; give the boxes of this split, or set data\.on_error: skip"):
        read_detections(path, two_images)
    with caplog.at_level("WARNING"):
        assert read_detections(path, two_images, "skip") == {1: [((-8, -8, 9, 9), 0.5)]}
    assert "4 boxes lie outside their image" in caplog.text


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([box(1, bbox=[1, 2, 0, 4])], r"bbox of box 0 is \[1, 2, 0, 4\]"),
        ([box(1), box(1, bbox=[1, 2, 3])], "bbox of box 1"),
        ([box(1, bbox=[1, float("nan"), 3, 4])], "bbox of box 0"),
        ([box(1, score=None)], "score of box 0"),
        ([box(1, category_id=2)], "holds no box of category 1"),
        ([], "holds no box"),
        (["words"], "box 0 is words"),
        ({"boxes": []}, "expected a list of boxes"),
    ],
)
def test_detections_that_cannot_be_used(tmp_path: Path, two_images: PoseSet, rows: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_detections(dumped(tmp_path / "boxes.json", rows), two_images)


def test_the_usual_detections_of_the_real_images(data_root: Path) -> None:
    root = data_root / "coco_keypoints"
    read = read_pose_set("coco", root, "val2017")
    found = read_detections(root / "person_detection_results/COCO_val2017_detections_AP_H_56_person.json", read)
    assert (len(found), sum(map(len, found.values()))) == (81, 2705)


def test_the_detections_of_the_golden_case(data_root: Path) -> None:
    folder = data_root / "golden_eval"
    read = read_pose_set("coco", folder, "mmpose_coco4_gt.json")
    found = read_detections(folder / "mmpose_coco4_det_AP_H_56.json", read)
    assert (len(found), sum(map(len, found.values()))) == (4, 118)


# several sets as one


def test_merging_keeps_ids_apart(tmp_path: Path) -> None:
    two = document([person(1, 1), person(2, 2)])
    parts = [
        read_pose_set("coco", write(tmp_path / name, "val", two, pictures=False), "val")
        for name in ("one", "two", "three")
    ]
    whole = merged(parts)
    assert list(whole.images) == [1, 2, 3, 4, 5, 6] and [p.id for p in whole.people] == [1, 2, 3, 4, 5, 6]
    assert all(p.image_id == key for key, each in whole.instances.items() for p in each)
    assert whole.images[5].path == tmp_path / "three/images/val/000001.png"
    assert list(parts[0].images) == [1, 2]  # the parts stay as they were


def test_merging_refuses_an_image_twice_and_other_joints(tmp_path: Path) -> None:
    root = write(tmp_path, "val", document([person(1, 1)]), pictures=False)
    part = read_pose_set("coco", root, "val")
    with pytest.raises(DataError, match=r"2 of its images are also in .*000001\.png"):
        merged([part, read_pose_set("coco", root, "val")])
    other = PoseSet(skeleton("mpii"), {}, {}, tmp_path)
    with pytest.raises(DataError, match="its joints differ from those of"):
        merged([part, other])
    with pytest.raises(DataError, match="nothing to merge"):
        merged([])


def test_pictures_written_for_these_tests_are_read(tmp_path: Path) -> None:
    read = read_pose_set("coco", write(tmp_path, "val", document([person(1, 1)])), "val")
    assert Image.open(read.images[1].path).size == (read.images[1].width, read.images[1].height)
