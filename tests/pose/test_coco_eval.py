"""Average precision: published numbers, both evaluators against each other and against the libraries used plainly."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_coco_eval import COCO as FastCOCO
from faster_coco_eval import COCOeval_faster
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vision.engine.errors import DataError
from vision.pose.coco_eval import CROWDING, Evaluator, Found, Truth, evaluate, evaluator_in_use
from vision.pose.keypoints import skeleton

EVALUATORS: list[Evaluator] = ["pycocotools", "faster-coco-eval"]
COCO_NAMES = ["AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL"]
SIGMAS = skeleton("coco").sigmas


def golden(data_root: Path, case: str) -> tuple[dict[str, Any], Any, Any]:
    folder = data_root / "golden_eval"
    expected = json.loads((folder / "expected.json").read_text())[case]
    return expected, *(json.loads((folder / expected[key]).read_text()) for key in ("gt", "dt"))


def plain(truth: dict[str, Any], rows: list[dict[str, Any]], kind: str) -> list[float]:
    """pycocotools as its own documentation uses it."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        judged = COCOeval(coco, coco.loadRes(rows), kind)
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return judged.stats.tolist()


@pytest.mark.data
@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize(
    ("case", "key", "tolerance"),
    [
        ("cocoapi_keypoints", "published", 5.001e-4),  # three decimals are published
        ("cocoapi_keypoints", "pycocotools_2_0_11", 1e-12),
        ("fce_keypoints", "published", 1e-12),
        ("mmpose_coco4", "pycocotools_2_0_11", 1e-12),
    ],
)
def test_published(data_root: Path, case: str, key: str, tolerance: float, evaluator: Evaluator) -> None:
    expected, truth, rows = golden(data_root, case)
    figures = evaluate(Truth.from_coco(truth), Found.from_rows(rows), SIGMAS, evaluator=evaluator)
    assert list(figures) == COCO_NAMES
    assert list(figures.values()) == pytest.approx(expected[key], abs=tolerance)
    if tolerance < 1e-6:
        assert list(figures.values()) == pytest.approx(plain(truth, rows, "keypoints"), abs=1e-12)


@pytest.mark.data
@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_published_crowdpose(data_root: Path, evaluator: Evaluator) -> None:
    expected, truth, rows = golden(data_root, "crowdpose_example")
    sigmas = skeleton("crowdpose").sigmas
    assert list(sigmas) == expected["sigmas"]
    figures = evaluate(Truth.from_coco(truth), Found.from_rows(rows), sigmas, "crowdpose", evaluator)
    published = expected["published"]
    for name, value in figures.items():
        key = name if name.split("_")[-1] in CROWDING else {2: f"{name}_all"}.get(len(name), f"{name[:2]}_{name[2:]}")
        assert value == pytest.approx(published.pop(key), abs=5.1e-5 if "_" in name else 1e-12), name
    assert not published


@pytest.mark.data
@pytest.mark.parametrize("case", ["cocoapi_bbox", "cocoapi_segm"])
def test_published_boxes_and_masks(data_root: Path, case: str) -> None:
    """The two libraries themselves, in the versions installed, on what is not poses."""
    expected, truth, rows = golden(data_root, case)
    kind = expected["iouType"]
    assert plain(truth, [dict(row) for row in rows], kind) == pytest.approx(expected["published"], abs=1e-9)
    coco = FastCOCO(truth)
    judged = COCOeval_faster(coco, coco.loadRes(rows), kind)
    judged.run()
    assert judged.stats.tolist()[:12] == pytest.approx(expected["published"], abs=1e-9)


def crowd_of_people(seed: int, images: int = 4) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """People of all kinds: crowds, without joints, tiny, of one score; images without people, or without poses."""
    rng = np.random.default_rng(seed)
    people: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for image in range(1, images + 1):
        for _ in range(rng.integers(0, 5)):
            joints = np.concatenate([rng.uniform(0, 200, (17, 2)).round(), rng.integers(0, 3, (17, 1))], 1)
            joints[:, 2] *= rng.random() > 0.2
            low, high = joints[:, :2].min(0), joints[:, :2].max(0)
            people.append({
                "id": 10 + len(people), "image_id": image, "category_id": 1, "iscrowd": int(rng.random() < 0.2),
                "area": float(rng.choice([500, 1024, 4000, 9216, 20000])), "bbox": [*low, *(high - low)],
                "keypoints": joints.ravel().tolist(), "num_keypoints": int((joints[:, 2] > 0).sum()),
            })  # fmt: skip
            for _ in range(rng.integers(0, 9)):
                moved = joints.copy()
                moved[:, :2] += rng.normal(0, rng.choice([0, 1, 4, 12]), (17, 2))
                rows.append({
                    "image_id": image, "category_id": 1, "keypoints": moved.ravel().tolist(),
                    "score": float(rng.choice([0.1, 0.5, 0.5, rng.random()])),
                })  # fmt: skip
    return {
        "images": [{"id": i, "crowdIndex": float(rng.random())} for i in range(1, images + 1)],
        "annotations": people,
        "categories": [{"id": 1, "name": "person"}],
    }, rows


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_evaluators_agree(seed: int) -> None:
    document, rows = crowd_of_people(seed)
    truth, found = Truth.from_coco(document), Found.from_rows(rows)
    for style in ("coco", "crowdpose"):
        reference, fast = (evaluate(truth, found, SIGMAS, style, evaluator) for evaluator in EVALUATORS)
        assert fast == pytest.approx(reference, abs=1e-12)
    if rows and document["annotations"]:
        stats = dict(zip(COCO_NAMES, plain(document, rows, "keypoints"), strict=True))
        defined = {name: value for name, value in stats.items() if value != -1}
        assert evaluate(truth, found, SIGMAS) == pytest.approx(defined, abs=1e-12)


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_only_the_twenty_best_count(evaluator: Evaluator) -> None:
    document, _ = crowd_of_people(3)
    person = document["annotations"][0] | {"iscrowd": 0, "num_keypoints": 17, "area": 2000.0}
    joints = np.array(person["keypoints"]).reshape(17, 3)
    joints[:, 2] = 2
    truth = Truth.from_coco(document | {"annotations": [person | {"keypoints": joints.ravel().tolist()}]})
    wrong = np.repeat(joints[None, :, :2] + 500, 20, 0)
    poses = np.concatenate([wrong, joints[None, :, :2]])
    found = Found.of([person["image_id"]] * 21, poses, np.arange(21, 0, -1) / 21)
    assert evaluate(truth, found, SIGMAS, evaluator=evaluator)["AR"] == 0
    found = Found.of([person["image_id"]] * 20, poses[1:], np.arange(20, 0, -1) / 20)
    assert evaluate(truth, found, SIGMAS, evaluator=evaluator)["AR"] == 1


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_truth_finds_itself(evaluator: Evaluator) -> None:
    """Also the person whose annotation is numbered 0, whom the reference by itself would never take for found."""
    document, _ = crowd_of_people(5)
    truth = Truth.from_coco(document)
    there = (truth.labelled > 0) & ~truth.crowd
    for number, person in enumerate(document["annotations"], start=-int(there.argmax())):
        person["id"] = number
    truth = Truth.from_coco(document)
    found = Found.of(truth.image[there], truth.keypoints[there], np.ones(there.sum()))
    figures = evaluate(truth, found, SIGMAS, evaluator=evaluator)
    assert set(figures) == set(COCO_NAMES)
    assert list(figures.values()) == pytest.approx([1.0] * 10, abs=1e-12)


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_nothing_found_and_nobody_there(evaluator: Evaluator) -> None:
    document, rows = crowd_of_people(7)
    nothing = Found.from_rows([])
    figures = evaluate(Truth.from_coco(document), nothing, SIGMAS, evaluator=evaluator)
    assert figures["AP"] == figures["AR"] == 0
    nobody = Truth.from_coco(document | {"annotations": []})
    for found in (nothing, Found.from_rows(rows)):
        assert evaluate(nobody, found, SIGMAS, evaluator=evaluator) == {}


def test_levels_of_crowding() -> None:
    """The level of an image: its people alone are found in it."""
    document, _ = crowd_of_people(11, images=3)
    joints = np.concatenate([np.random.default_rng(0).uniform(0, 99, (17, 2)), np.full((17, 1), 2)], 1)
    document["annotations"] = [
        {"id": i, "image_id": i, "bbox": [0, 0, 99, 99], "keypoints": joints.ravel().tolist()} for i in (1, 2, 3)
    ]
    for image, index in zip(document["images"], (0.199, 0.2, 0.8), strict=True):
        image["crowdIndex"] = index
    found = Found.of([1, 3], np.stack([joints, joints + 400]), np.ones(2))
    figures = evaluate(Truth.from_coco(document), found, SIGMAS, "crowdpose")
    assert [figures[f"AP_{level}"] for level in CROWDING] == pytest.approx([1, 0, 0])
    del document["images"][1]["crowdIndex"]
    assert "AP_medium" not in evaluate(Truth.from_coco(document), found, SIGMAS, "crowdpose")


def test_crowdpose_area_is_that_of_the_box() -> None:
    document, _ = crowd_of_people(2)
    for person in document["annotations"]:
        del person["area"]
    truth = Truth.from_coco(document)
    assert truth.areas == pytest.approx(0.53 * truth.boxes[:, 2] * truth.boxes[:, 3])


def test_refused() -> None:
    document, rows = crowd_of_people(9)
    truth, found = Truth.from_coco(document), Found.from_rows(rows)
    with pytest.raises(DataError, match="2 images that are not annotated, such as image 77"):
        evaluate(truth, Found.of([77, 78], np.zeros((2, 17, 2)), np.ones(2)), SIGMAS)
    with pytest.raises(DataError, match="17 joints, the skeleton has 14"):
        evaluate(truth, found, skeleton("crowdpose").sigmas)
    found.keypoints[1, 3, 0] = np.nan
    with pytest.raises(DataError, match=r"1 of \d+ poses hold a number that is not finite"):
        evaluate(truth, found, SIGMAS)


def test_evaluator_in_use() -> None:
    assert evaluator_in_use().startswith("faster-coco-eval 1.")
    assert evaluator_in_use("pycocotools").startswith("pycocotools 2.")
