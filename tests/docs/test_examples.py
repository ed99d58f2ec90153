"""Code on the pages: Python runs, recipes hold."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.deploy import stubs
from tests.docs.pages import CHECKOUT, PAGES, blocks
from tests.docs.runs import demo_stage
from vision.engine.config import load
from vision.engine.distributed import World
from vision.engine.train import dry_run

PYTHON = [(page, text) for page in PAGES for text in blocks(page, "python")]
YAML = [(page, text) for page in PAGES for text in blocks(page, "yaml")]


def test_there_are_examples() -> None:
    assert len(PYTHON) >= 3
    assert len(YAML) >= 4


@pytest.mark.parametrize(("page", "text"), PYTHON, ids=[page.stem for page, _ in PYTHON])
def test_python_runs(
    page: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for stage in re.findall(r"runs/demo/(\w+)", text):
        demo_stage(stage, tmp_path / "runs/demo" / stage)
    stubs.classifier(tmp_path / "runs/digits_cnn/export/onnx-fp32")
    stubs.KIND["udp_heatmap"](tmp_path / "runs/mamkpd_t_coco_quick/export/onnx-fp32")
    if 'load("runs/digits_cnn")' in text:
        small = load("digits_cnn", ["data.limit=64", "task.network.width=8"])
        dry_run(small, tmp_path / "runs/digits_cnn", False, World(torch.device("cpu")))
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "photo.png")
    shutil.copytree(CHECKOUT / "vision/samples", tmp_path / "vision/samples")
    if "@register(" in text:
        compile(text, str(page), "exec")  # tests/contract builds a model of one's own; here its name must not stay
        return
    exec(compile(text, str(page), "exec"), {"__name__": "example"})
    assert capsys.readouterr().out, "an example shows something"


@pytest.mark.parametrize(("page", "text"), YAML, ids=[page.stem for page, _ in YAML])
def test_recipes_hold(page: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block whose first line names a file is a whole recipe, and is read as that file beside the shipped ones."""
    tree = yaml.safe_load(text)
    first = text.splitlines()[0]
    if not first.startswith("# configs/"):
        assert tree is None or "name" not in tree or "extends" in tree, f"{page.name}: a recipe says its file in line 1"
        return
    monkeypatch.delenv("TRIPTYCH_DATA", raising=False)
    shutil.copytree(CHECKOUT / "configs", tmp_path / "configs")
    path = tmp_path / first.removeprefix("# ")
    assert not path.exists(), f"{first}: a shipped recipe has that name"
    path.write_text(text)
    load(path).check()


def test_the_demo_leaves_the_weights_that_the_readme_loads() -> None:
    for name in ("demo", "demo_real"):
        demo = load(CHECKOUT / f"configs/{name}.yaml")
        (stage,) = [stage for stage in demo.tree["stages"] if stage["name"] == "tbcnet"]
        assert demo.name == "demo"
        assert stage["task"]["network"]["tem"] == "lite"
