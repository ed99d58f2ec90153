"""A small example of every registered task, for the tests that every task keeps to.

A new task needs an entry in ``SMALL``: its block, a data block, and how to write a file that its ``read_input`` takes.
A further example of a task has a name of its own.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pose import layouts
from vision.engine.checkpoint import save_weights
from vision.engine.registry import build
from vision.engine.task import Task

Block = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A task small enough to test.

    Attributes:
        task: its block.
        data: its data's block, or a function that makes its files and then gives the block.
        write: writes a file for ``read_input``; None where the task does not predict from files.
        one_update: whether two processes make the update of one: a loss that is a mean over samples, and nothing
            random in the network.
    """

    task: Block
    data: Block | Callable[[], Block]
    write: Callable[[Path], None] | None = None
    one_update: bool = True
    augmented: bool = True
    """Whether the data draws its training samples; false where the task does, from what the data gives."""


def write_digit(path: Path) -> None:
    from sklearn.datasets import load_digits

    Image.fromarray((load_digits().images[0] * 15).astype(np.uint8)).save(path)


def write_infrared(path: Path) -> None:
    row, column = np.mgrid[:37, :53]
    spot = np.exp(-((row - 20) ** 2 + (column - 30) ** 2) / 4)
    Image.fromarray((60 + 150 * spot).astype(np.uint8)).save(path)


def write_person(path: Path) -> None:
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(path)


@cache
def people() -> Block:
    """Eight images of noise with a person each."""
    folder = Path(tempfile.mkdtemp(prefix="people"))
    everyone = [layouts.person(key, key, (4.0 + key, 5.0, 24.0 + key, 36.0)) for key in range(1, 9)]
    layouts.write(folder, "people", layouts.document(everyone, images=8))
    return {"type": "coco_pose", "root": str(folder), "train_splits": ["people"], "test_split": None, "overfit": True,
            "input_size": [32, 48]}  # fmt: skip


def whole_images() -> Block:
    """The same images, whole; squares of 64 pixels."""
    kept = {key: value for key, value in people().items() if key not in ("type", "input_size")}
    return {**kept, "type": "pose_images", "size": 64, "smallest_area": 0.0}


def everyone(network: str, **options: Any) -> Case:
    """A single-stage network: a threshold of 0 finds someone even with fresh weights; losses are ratios of sums."""
    search = {"most": 3, "threshold": 0.0}
    block = {"type": network, "backbone": "hrnet_w18_small", "search": search, **options}
    return Case({"type": "single_stage_pose", "network": block}, whole_images, write_person, one_update=False)


def teacher_weights() -> str:
    """A file of fresh weights of the digits network of width 8."""
    torch.manual_seed(1)
    file = Path(tempfile.mkdtemp(prefix="teacher")) / "teacher.safetensors"
    save_weights(file, build({"type": "digits_cnn", "width": 8}, "network"), {})
    return str(file)


SMALL = {
    "classification": Case(
        {"type": "classification", "network": {"type": "digits_cnn", "width": 8}},
        {"type": "digits", "limit": 12, "augment": ["crop"], "crop_padding": 1},
        write_digit,
    ),
    "infrared_targets": Case(
        # with a bias of 0 even fresh weights find something
        {"type": "infrared_targets", "network": {"type": "tbcnet", "head_bias": 0.0}, "semantic": False},
        {"type": "infrared_synthetic", "patch": 48, "size": 56, "scenes": 6, "length": 12},
        write_infrared,
    ),
    "top_down_pose": Case(
        {"type": "top_down_pose", "network": {"type": "mamkpd_t", "input_size": [32, 48], "drop_path": 0.0}},
        people,
        write_person,
    ),
    "target_counting": Case(
        {"type": "target_counting", "network": {"type": "scm", "classes": 4}},
        {"type": "scm_scenes", "size": 64, "length": 12, "held_out": 6},
        write_infrared,
    ),
    "single_stage_pose": everyone("dhrnet", channels=16, output_size=16),
    "single_stage_pose of cid": everyone("cid", channels=32),
    "adversarial_classification": Case(
        task={
            "type": "adversarial_classification",
            "network": {"type": "digits_cnn", "width": 8, "norm": "none"},
            "attack": {"steps": 2, "start": "zero"},
            "judge": {"steps": 2, "start": "zero"},
        },
        data={"type": "digits", "normalise": False, "limit": 12, "augment": ["crop"], "crop_padding": 1},
        write=write_digit,
    ),
    "label_calibration": Case(
        task={
            "type": "label_calibration",
            "network": {"type": "digits_cnn", "width": 8, "norm": "none"},
            "attack": {"steps": 2, "start": "zero"},
            "judge": {"steps": 2, "start": "zero"},
            "teachers": [teacher_weights()],
            "teacher_network": {"type": "digits_cnn", "width": 8},
            "weight": 0.2,
        },
        data={"type": "digits", "normalise": False, "limit": 12, "augment": ["crop"], "crop_padding": 1},
        write=write_digit,
    ),
    "apart": Case(
        task={
            "type": "apart",
            "network": {"type": "digits_cnn", "width": 8, "norm": "none"},
            "judge": {"steps": 2, "start": "zero"},
            "layers": ["layers.2"],
            "strength_lr": 1e-5,
        },
        data={"type": "digits", "normalise": False, "limit": 12, "crop_padding": 1},
        write=write_digit,
        one_update=False,
        augmented=False,
    ),
    "regularised_classification": Case(
        {"type": "regularised_classification", "network": {"type": "digits_cnn", "width": 8}},
        {"type": "digits", "limit": 12, "augment": ["crop"], "crop_padding": 1},
        write_digit,
    ),
    "distillation": Case(
        {
            "type": "distillation",
            "network": {"type": "digits_cnn", "width": 8},
            "teacher": {"type": "digits_cnn", "width": 8},
            "teacher_weights": teacher_weights(),
        },
        {"type": "digits", "limit": 12, "augment": ["crop"], "crop_padding": 1},
        write_digit,
    ),
    "spiking_classification": Case(
        {
            "type": "spiking_classification",
            "network": {"type": "spiking_mlp", "inputs": 64, "hidden": [24, 16], "steps": 4},
        },
        {"type": "digits", "limit": 12, "augment": ["crop"], "crop_padding": 1},
        write_digit,
    ),
}


def case_of(name: str) -> Case:
    if name not in SMALL:
        pytest.fail(f"the task '{name}' has no example; add one to SMALL of tests/contract/cases.py")
    return SMALL[name]


def small_task(name: str) -> Task:
    """The example of a task, the same each time."""
    case = case_of(name)
    torch.manual_seed(0)
    data = case.data if isinstance(case.data, dict) else case.data()
    built: Task = build(case.task, "task", data=build(data, "data"))
    return built
