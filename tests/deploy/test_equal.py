"""Each task says the same of a file as the runner does with the graphs of its deployment."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.contract.cases import SMALL, people, small_task, write_digit
from tests.deploy.equal import by_task, runner_of
from vision.classification.task import Classification
from vision.engine.registry import build
from vision.engine.task import Task
from vision.pose.dhrnet import DHRNet
from vision.pose.top_down import TopDown

PIXEL = 1e-2
"""How far a joint may be from PyTorch's, pixels."""

SCORE = 1e-4
"""How far a score or probability may be from PyTorch's."""


def require_same(task: Task, path: Path, folder: Path, boxes: Any = None) -> Any:
    """The runner's prediction, which is the task's, and draws the same picture."""
    predictor = runner_of(task, folder)
    regions = None if boxes is None else (lambda picture, name: [(tuple(box), 1.0) for box in boxes])
    expected, picture = by_task(task, str(path), 7, regions)
    found = predictor.predict(str(path), boxes, number=7)
    require_near(expected, found)
    np.testing.assert_array_equal(predictor.picture(str(path)), picture)
    if not getattr(expected, "rasters", None):
        ours, theirs = found.draw(picture), expected.draw(picture)
        assert ours.shape == theirs.shape
        assert (ours != theirs).mean() < 1e-3
    return found


def require_near(expected: Any, found: Any) -> None:
    """Two predictions alike; firing rates are not seen from outside a network."""
    assert type(found).__name__ == type(expected).__name__.replace("AttackedScores", "Scores")
    told = {key: value for key, value in expected.to_dict().items() if key != "firing_rate"}
    _require_near(told, found.to_dict(), "")


def _require_near(expected: Any, found: Any, where: str) -> None:
    if isinstance(expected, dict):
        assert list(expected) == list(found), where
        for key in expected:
            _require_near(expected[key], found[key], f"{where}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(expected) == len(found), where
        for place, (one, other) in enumerate(zip(expected, found, strict=True)):
            _require_near(one, other, f"{where}.{place}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=PIXEL if "keypoints" in where or "box" in where else SCORE), where
    else:
        assert found == expected, where


def lively(task: Task) -> Task:
    """The task with heads whose maps have peaks: those of fresh single-stage networks are flat but for rounding."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(task.network, DHRNet):
        for head in (task.network.iia, task.network.gfd):
            for name, weights in head.named_parameters():
                if name.endswith("weight"):
                    nn.init.normal_(weights, std=(0.5 / weights[0].numel()) ** 0.5, generator=generator)
    return task


@pytest.mark.parametrize("name", sorted(SMALL))
def test_every_task_is_what_the_runner_says(name: str, tmp_path: Path) -> None:
    write = SMALL[name].write
    assert write is not None
    path = tmp_path / "input_7.png"
    write(path)
    require_same(lively(small_task(name)), path, tmp_path / "export")


class Maps(nn.Module):
    """Heatmaps of a convolution over cells of 4 pixels."""

    def __init__(self, rows: bool) -> None:
        super().__init__()
        self.cells, self.rows = nn.Conv2d(3, 17, 4, stride=4), rows

    def forward(self, images: Tensor) -> Any:
        maps = self.cells(images)
        if not self.rows:
            return maps
        across, down = maps.mean(2), maps.mean(3)
        return across.repeat_interleave(8, 2), down.repeat_interleave(8, 2)


@pytest.mark.parametrize("codec", ["udp_heatmap", "quarter_heatmap", "simcc"])
@pytest.mark.parametrize("flip_test", [False, True])
def test_every_codec_in_boxes(codec: str, flip_test: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = TopDown(build(people(), "data"), Maps(codec == "simcc"), {"type": codec}, flip_test)
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(path)
    boxes = [[3.0, 4.0, 50.5, 70.0], [60.0, -5.0, 80.0, 60.0], [10.0, 10.0, 7.0, 9.0]]
    found = require_same(task, path, tmp_path / "export", boxes)
    assert found.keypoints.shape == (3, 17, 3)


def test_random_spikes_are_those_of_the_task(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = build({"type": "digits", "limit": 12, "normalise": False}, "data")
    block = {"type": "spiking_classification", "encoding": "poisson",
             "network": {"type": "spiking_mlp", "inputs": 64, "hidden": [24], "steps": 6}}  # fmt: skip
    path = tmp_path / "digit.png"
    write_digit(path)
    require_same(build(block, "task", data=data), path, tmp_path / "export")


def test_images_of_a_folder_data_set_are_cut_and_resized_alike(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for label in ("ant", "bee"):
        (tmp_path / "train" / label).mkdir(parents=True)
    data = build({"type": "image_folder", "root": str(tmp_path), "size": 20}, "data")
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 20 * 20, 2))
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 71, 3), dtype=np.uint8)).save(path)
    require_same(Classification(data, network), path, tmp_path / "export")


# -- real data ---------------------------------------------------------------------------------------------------------


@pytest.mark.data
def test_people_of_coco(data_root: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    root = str(data_root / "coco_keypoints")
    kept = {"train_splits": ["val2017"], "test_split": None}
    data = build({"type": "coco_pose", "root": root, "input_size": [96, 128], **kept}, "data")
    block = {"type": "top_down_pose", "network": {"type": "mamkpd_t", "input_size": [96, 128]}}
    task: Task = build(block, "task", data=data)
    dataset = task.data.val()
    for index in (0, 20):
        sample = dataset[index]
        require_same(task, Path(sample["file"]), tmp_path / str(index), [sample["box"].tolist()])


@pytest.mark.data
def test_everyone_of_a_photograph_of_coco(data_root: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    root = data_root / "coco_keypoints"
    data = build(
        {"type": "pose_images", "root": str(root), "size": 128, "train_splits": ["val2017"], "test_split": None,
         "test_scales": [1.5]},
        "data",
    )  # fmt: skip
    block = {"type": "single_stage_pose", "network": {"type": "dhrnet", "backbone": "hrnet_w18_small", "channels": 16,
             "search": {"most": 5, "threshold": 0.0}}}  # fmt: skip
    task = lively(build(block, "task", data=data))
    file = task.data.val()[3]["file"]
    assert len(require_same(task, Path(file), tmp_path / "export").scores)


@pytest.mark.data
def test_targets_of_sirst(data_root: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = build({"type": "infrared_folder", "root": str(data_root / "sirst"), "high_pass": True}, "data")
    network = {"type": "tbcnet", "head_bias": 0.0, "in_channels": 2}
    task: Task = build({"type": "infrared_targets", "network": network, "semantic": False}, "task", data=data)
    for path in sorted((data_root / "sirst" / "images").iterdir())[:3]:
        require_same(task, path, tmp_path / path.stem)


@pytest.mark.data
def test_images_of_cifar(data_root: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = build({"type": "cifar10", "root": str(data_root / "cifar10" / "cifar10_lossless_subset.npz")}, "data")
    task: Task = build(
        {"type": "classification", "network": {"type": "cifar_resnet8x4", "classes": 10}}, "task", data=data
    )
    images = data.listed("test")
    for index in (0, 1, 2):
        path = tmp_path / f"{index}.png"
        Image.fromarray(images.read(index).permute(1, 2, 0).numpy()).save(path)
        require_same(task, path, tmp_path / str(index))


@pytest.mark.data
def test_recordings_of_nmnist(data_root: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = build({"type": "events_npz", "root": str(data_root / "nmnist"), "frames": 4, "size": 20}, "data")
    network = {"type": "spiking_mlp", "inputs": 2 * 20 * 20, "hidden": [32], "steps": 4}
    task: Task = build({"type": "spiking_classification", "network": network}, "task", data=data)
    recordings = data.parts()[0]
    for index in (0, 1):
        events = recordings.read(index)
        path = tmp_path / f"{index}.npz"
        np.savez(path, t=events.t, x=events.x, y=events.y, p=events.p)
        require_same(task, path, tmp_path / str(index))
