"""The command that exports, from a recipe and a run folder."""

import json
import logging
from pathlib import Path

import pytest
import torch

from tools.__main__ import main as triptych
from tools.export import main
from vision.engine.checkpoint import save_weights
from vision.engine.config import load
from vision.engine.errors import CheckpointError, ConfigError
from vision.engine.run import RunFolder
from vision.engine.train import build_task

pytest.importorskip("onnx", reason="no onnx")
pytest.importorskip("onnxruntime", reason="no onnxruntime")
pytest.importorskip("onnxscript", reason="no onnxscript")

RECIPE = "configs/classification/digits_cnn.yaml"
SMALL = ["data.limit=16", "task.network.width=4"]


def run_of(folder: Path, form: str = "") -> Path:
    """A run folder with weights, without the training."""
    config = load(RECIPE, [*SMALL, f"output={folder}", "name=run"])
    run = RunFolder.create(folder / "run", config.yaml, config.hash)
    torch.manual_seed(0)
    about = {"step": "7"} | ({"format": form} if form else {})
    save_weights(run.best, build_task(config.recipe()).network, about)
    return run.path


def test_a_recipe_that_was_never_trained_is_exported_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.WARNING):
        assert triptych(["export", RECIPE, *SMALL, "--limit", "4", "-o", str(tmp_path / "made")]) == 0
    assert "never trained" in caplog.text
    assert capsys.readouterr().out.strip() == str(tmp_path / "made" / "model.json")
    told = json.loads((tmp_path / "made" / "model.json").read_text())
    assert (told["trained"], told["run"]["step"], told["run"]["name"]) == (False, None, "digits_cnn")


def test_a_run_is_exported_into_its_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = run_of(tmp_path)
    assert main([str(run), "--limit", "4"]) == 0
    assert "never trained" not in caplog.text
    folder = run / "export" / "onnx-fp32"
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "model.onnx", "parity.json"]
    told = json.loads((folder / "model.json").read_text())
    assert (told["trained"], told["run"]["step"], told["run"]["name"]) == (True, 7, "run")
    assert told["run"]["config_hash"] == RunFolder(run).config_hash
    assert told["task"] == "classification"


def test_weights_of_another_version(tmp_path: Path) -> None:
    run = run_of(tmp_path, "triptych-weights-2")
    with pytest.raises(CheckpointError, match="format 'triptych-weights-2', and this version reads"):
        main([str(run)])


def test_weights_of_another_network(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="weights of another network"):
        main([str(run_of(tmp_path)), "task.network.width=8"])


def test_neither_a_run_nor_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run folder"):
        main([str(tmp_path)])


@pytest.mark.parametrize("wrong", [["--size", "8"], ["--limit", "0"], ["--precision", "fp8"], ["--scan-form", "loop"]])
def test_arguments_that_make_no_sense(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([RECIPE, *wrong])
    assert caught.value.code == 2
