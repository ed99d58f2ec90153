"""The stage that exports: its file is what it says, and its figures are those of ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from vision.deploy.runner import Predictor
from vision.deploy.step import ExportToOnnx
from vision.engine.config import from_tree
from vision.engine.distributed import World
from vision.engine.errors import ConfigError
from vision.engine.files import read_json
from vision.engine.train import load_run, train_recipe

RECIPE = {
    "name": "small",
    "task": {"type": "classification", "network": {"type": "digits_cnn", "width": 4}},
    "data": {"type": "digits", "limit": 64},
    "optimizer": {"type": "adam", "lr": 1e-2},
    "schedule": {"type": "constant"},
    "trainer": {"epochs": 2, "batch_size": 32},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    train_recipe(from_tree(RECIPE), folder, False, World(torch.device("cpu")))
    return folder


def test_the_figure_is_that_of_the_file_run_by_itself(trained: Path, tmp_path: Path) -> None:
    found = ExportToOnnx(trained, limit=40, draw=3).run(tmp_path)

    task = load_run(trained, "best", [])[2].eval()
    samples = [task.val_data()[i] for i in range(40)]
    session = onnxruntime.InferenceSession(tmp_path / "exported" / "model.onnx")
    images = np.stack([sample["image"].numpy() for sample in samples])
    (logits,) = session.run(None, {session.get_inputs()[0].name: images})
    right = np.mean(logits.argmax(1) == np.array([int(sample["label"]) for sample in samples]))

    result = read_json(tmp_path / "eval" / "onnx" / "result.json")
    assert found["figure"] == "accuracy"
    assert result["metrics"]["accuracy"] == pytest.approx(right)
    assert found["in_onnxruntime"] == pytest.approx(right)
    assert result["in_torch"]["accuracy"] == pytest.approx(found["in_torch"])
    assert result["samples"] == 40
    assert 0 <= found["largest_difference"] < 1e-4


def test_pictures_are_those_the_runner_draws(trained: Path, tmp_path: Path) -> None:
    ExportToOnnx(trained, limit=8, draw=2).run(tmp_path)

    drawn = sorted((tmp_path / "eval" / "onnx" / "examples").glob("*.png"))
    assert len(drawn) == 2
    task, predictor = load_run(trained, "best", [])[2], Predictor(tmp_path / "exported")
    batch = task.collate([task.val_data()[i] for i in range(2)])
    for name, picture, truth in zip(batch["id"], task.pictures(batch), task.truths(batch), strict=True):
        (file,) = [f for f in drawn if f.stem == "".join(c if c.isalnum() or c in "-_." else "_" for c in name)]
        with Image.open(file) as image:
            np.testing.assert_array_equal(np.asarray(image), predictor(picture).draw(picture, truth))


def test_a_dry_run_exports_nothing(trained: Path, tmp_path: Path) -> None:
    assert ExportToOnnx(trained).rehearse(tmp_path) == {}
    assert not list(tmp_path.iterdir())


def test_numbers_that_mean_nothing_are_refused(trained: Path) -> None:
    with pytest.raises(ConfigError, match="limit 0"):
        ExportToOnnx(trained, limit=0)
