"""Measured pose runs on the pages: beside each other, apart from what was learnt by heart, absent until there."""

from typing import Any

import pytest

from benchmarks.collect import check
from benchmarks.pose_sections import UNMEASURED, beginning, poses, poses_block, readme_rows
from benchmarks.results_page import readme_block, results_page
from tests.benchmarks.test_results_page import record

Documents = dict[str, dict[str, Any]]
LITE0 = {"type": "timm_pose", "model": "tf_efficientnet_lite0", "hidden": 64,
         "backbone_weights": "../shared/data/imagenet_backbone/tf_efficientnet_lite0_imagenet.pt"}  # fmt: skip


def run(recipe: str, network: dict[str, Any], ap: float, **more: Any) -> dict[str, Any]:
    figures = {"AP": ap, "AP50": ap + 0.2, "AP75": ap - 0.05, "APL": ap + 0.01, "AR": ap + 0.1}
    data = {"type": "coco_pose", "root": "../shared/data/coco_keypoints", "test_split": "val2017", "boxes": "truth"}
    columns = ["joint", "labelled", "similarity", "good", "jitter", "inversion", "swap", "miss"]
    rows = [["nose", 9, 0.5, 0.5, 0.1, 0.1, 0.1, 0.2], ["all", 90, 0.6, 0.61, 0.05, 0.04, 0.03, 0.27]]
    bins = {"type": "bins", "title": "Joints of people, shares", "columns": columns, "rows": rows}
    scoring = {"type": "bins", "title": "Scoring", "columns": ["what", "value"], "rows": [["poses", "422"]]}
    about = {"data": data, "network": network, "samples": 422, "primary": "AP", "loss": None, "bins": [scoring, bins]}
    found = record(None, 0, figures, recipe=recipe, **{**about, **more})
    found["data"] = {**data, **more.get("data", {})}
    return found


@pytest.fixture
def documents() -> Documents:
    """The three files of the measured top-down runs, and one of a single-stage run."""
    quick = run("mamkpd_t_coco_quick", {"type": "mamkpd_t", "drop_path": 0.0}, 0.1234)
    records = {
        "mamkpd_t_coco_quick": [quick, {**quick, "evaluation": "val", "split": "val", "samples": 133}],
        "efficientnet_lite0_coco_quick": [run("efficientnet_lite0_coco_quick", LITE0, 0.2361)],
        "mamkpd_t_coco_overfit": [
            run("mamkpd_t_coco_overfit", {"type": "mamkpd_t"}, 0.9647, samples=64, data={"overfit": True})
        ],
        "dhrnet_w18s_coco_quick": [
            run("dhrnet_w18s_coco_quick", {"type": "dhrnet", "weights": None}, 0.0321, samples=81,
                data={"type": "pose_images", "boxes": None})
        ],
    }  # fmt: skip
    found: Documents = {name: {"kind": "runs", "note": "", "records": rows} for name, rows in records.items()}
    for name, document in found.items():
        check(document, name)
    return found


def test_networks_stand_beside_each_other(documents: Documents) -> None:
    rows = poses_block("top_down", documents).splitlines()
    where = "coco_keypoints, val2017, 422 people, true boxes"
    figures = "| 12.3 | 32.3 | 7.3 | – | 13.3 | 22.3 | 0 |"
    assert rows[2] == f"| MamKPD-T, `mamkpd_t_coco_quick` | scratch | {where} | 125,937 {figures}"
    assert rows[3].startswith(f"| EfficientNet-Lite0, `efficientnet_lite0_coco_quick` | ImageNet | {where} |")
    assert "overfit" not in "".join(rows[:4])


def test_what_was_learnt_by_heart_stands_apart(documents: Documents) -> None:
    before, after = poses_block("top_down", documents).split("Judged on the very people that were trained on")
    assert "| coco_keypoints, the 64 people it was trained on | 125,937 | 96.5 |" in after
    assert "96.5" not in before
    assert "`mamkpd_t_coco_quick`" not in after


def test_the_section_of_the_results_page(documents: Documents) -> None:
    page = results_page(documents)
    top_down, single = page.split("## Pose, top-down")[1].split("## Pose, single-stage")
    single = single.split("\n## ")[0]
    assert "| MamKPD-T, `mamkpd_t_coco_quick` | 90 | 61.0 | 5.0 | 4.0 | 3.0 | 27.0 |" in top_down
    budget = next(line for line in top_down.splitlines() if line.startswith("| `mamkpd_t_coco_quick` |"))
    assert "| 10,000 × 8 | 9,000 | 40.0 | 133 people | 422 people |" in budget
    assert "DHRNet" not in top_down
    where = "coco_keypoints, val2017, 81 images"
    assert f"| DHRNet, `dhrnet_w18s_coco_quick` | scratch | {where} | 125,937 | 3.2 |" in single
    assert "MamKPD" not in single


def test_rows_of_the_readme(documents: Documents) -> None:
    where = "coco_keypoints, val2017, 422 people, true boxes"
    assert readme_rows(documents)[1] == [
        "EfficientNet-Lite0, `efficientnet_lite0_coco_quick`, from ImageNet", where, "AP 23.6 %, AP50 43.6 %, one seed",
    ]  # fmt: skip
    block = readme_block(documents)
    assert f"| MamKPD-T, `mamkpd_t_coco_quick` | {where} | AP 12.3 %, AP50 32.3 %, one seed |" in block
    assert "| coco_keypoints, the 64 people it was trained on | AP 96.5 %" in block


def test_each_file_may_be_missing(documents: Documents) -> None:
    for name in documents:
        rest = {key: value for key, value in documents.items() if key != name}
        assert f"`{name}`" not in "\n".join(poses(rest))
    assert poses_block("top_down", {}) == poses_block("single_stage", {}) == UNMEASURED
    assert readme_rows({}) == []
    assert "\n".join(poses({})).count(UNMEASURED) == 2


def test_boxes_of_a_detector_are_told(documents: Documents) -> None:
    record = documents["mamkpd_t_coco_quick"]["records"][0]
    record["data"]["boxes"] = "person_detection_results/boxes.json"
    record["samples"] = 2705
    assert "| coco_keypoints, val2017, 2705 boxes of a detector |" in poses_block("top_down", documents)


@pytest.mark.parametrize(
    ("network", "told"),
    [
        ({}, "scratch"),
        ({"weights": None, "pretrained": False}, "scratch"),
        ({"weights": "imagenet"}, "ImageNet"),
        ({"backbone_weights": "a/tf_efficientnet_lite0_imagenet.pt"}, "ImageNet"),
        ({"weights": "runs/mine/best.safetensors"}, "`best.safetensors`"),
        ({"pretrained": True}, "timm's weights"),
    ],
)
def test_what_training_began_from(network: dict[str, Any], told: str) -> None:
    assert beginning(network) == told
