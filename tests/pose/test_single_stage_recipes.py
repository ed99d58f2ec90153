"""The shipped recipes of DHRNet and CID against the schedules of their releases."""

from typing import Any

import pytest

from vision.engine.config import config_folder, load

CID_FROM_IMAGENET: dict[str, Any] = {"weights": "imagenet", "lr": 1e-3, "batch": 40, "flip_test": True}
COCO = {**CID_FROM_IMAGENET, "splits": ("train2017", "val2017"), "epochs": 140, "milestones": [90, 120], "nms": 0.8}
CROWDPOSE = {**CID_FROM_IMAGENET, "splits": ("trainval", "test"), "epochs": 300, "milestones": [200, 260], "nms": 0.8}
OCHUMAN = {**CID_FROM_IMAGENET, "splits": ("val", "test"), "epochs": 140, "milestones": [90, 120], "nms": 0.7}
RELEASED_OCHUMAN: dict[str, Any] = {
    "weights": "runs/dhrnet_w32_coco/checkpoints/best.safetensors", "lr": 5e-4, "batch": 20, "flip_test": False,
    "splits": ("val", "test"), "epochs": 20, "milestones": [10], "nms": 0.7,
}  # fmt: skip
SCHEDULES: dict[str, dict[str, Any]] = {
    "dhrnet_w32_coco": COCO,
    "dhrnet_w48_coco": COCO,
    "cid_w32_coco": COCO,
    "dhrnet_w32_crowdpose": CROWDPOSE,
    "cid_w32_crowdpose": CROWDPOSE,
    "dhrnet_w32_ochuman": RELEASED_OCHUMAN,
    "cid_w32_ochuman": OCHUMAN,
}
SIZES = {"dhrnet_w48_coco": ("hrnet_w48", 48), "dhrnet_w32_crowdpose": ("hrnet_w32", None)}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_the_published_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COCO_WEIGHTS", raising=False)
    tree = load(config_folder() / "pose" / f"{name}.yaml").tree
    task, data, trainer = tree["task"], tree["data"], tree["trainer"]
    assert {
        "weights": task["network"]["weights"],
        "lr": tree["optimizer"]["lr"],
        "batch": trainer["reference_batch"],
        "flip_test": task["flip_test"],
        "splits": (data["train_splits"][0], data["test_split"]),
        "epochs": trainer["epochs"],
        "milestones": tree["schedule"]["milestones"],
        "nms": task["nms"],
    } == SCHEDULES[name]


@pytest.mark.parametrize("name", SCHEDULES)
def test_what_the_releases_have_in_common(name: str) -> None:
    """Adam without weight decay, no warm-up, no clipping, no average of weights, float32, squares of 512 pixels."""
    tree = load(config_folder() / "pose" / f"{name}.yaml").tree
    network, data = tree["task"]["network"], tree["data"]
    assert tree["optimizer"].items() <= {"type": "adam", "lr": tree["optimizer"]["lr"], "weight_decay": 0.0}.items()
    assert tree["schedule"]["type"] == "multistep"
    assert not tree["schedule"].get("warmup_epochs") and tree["schedule"].get("factor", 0.1) == 0.1
    assert not {"clip_norm", "ema", "precision"} & tree["trainer"].keys()
    assert data["size"] == 512 and not {"augmentation", "smallest_area", "test_size"} & data.keys()
    assert network.get("attention", "release") == "release"
    assert network.get("dual_path", True) == (not name.startswith("cid"))
    assert network["keypoints"] == (14 if data["layout"] == "crowdpose" else 17)
    assert (network["backbone"], network.get("channels")) == SIZES.get(name, ("hrnet_w32", None))
