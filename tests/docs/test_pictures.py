"""The pictures: small, shown on a page, and drawn by the script from any run of their kind."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from robust.loading import Attackable
from tests.docs.pages import CHECKOUT, PAGES
from tests.docs.runs import demo_stage
from tools.train import main as train
from vision.engine.checkpoint import save_weights
from vision.infrared import TBCNet
from vision.pose.samples import PEOPLE

IMAGES = sorted((CHECKOUT / "docs" / "images").glob("*"))


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pictures", CHECKOUT / "docs" / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.name)
def test_each_is_small_and_on_a_page(image: Path) -> None:
    assert image.suffix == (".jpg" if image.stem == "poses" else ".png"), "JPEG for photographs"
    assert image.stat().st_size < 200_000
    assert any(f"images/{image.name})" in page.read_text(encoding="utf-8") for page in PAGES)


def test_all_together_are_small() -> None:
    assert len(IMAGES) > 4
    assert sum(image.stat().st_size for image in IMAGES) < 600_000


def test_detections_are_drawn_from_a_run_without_its_scm(pictures: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    run = tmp_path / "tem"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(
        "# sha256: 0\nname: tem\ntask: {type: infrared_targets, network: {type: tbcnet}}\n"
    )
    save_weights(run / "checkpoints" / "best.safetensors", TBCNet("lite"), {})
    assert pictures.main(["--tbcnet", str(run), "-o", str(tmp_path)]) == 0
    drawn = np.asarray(Image.open(tmp_path / "detections.png").convert("RGB"))
    assert drawn.shape[0] > 600
    assert drawn.shape[1] > 1200


def test_digits_show_the_first_of_the_test_split_and_then_mistakes(
    pictures: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train([str(CHECKOUT / "configs/classification/mlp_digits.yaml"), "trainer.epochs=1", "data.limit=40"])
    assert pictures.main(["--digits", "runs/mlp_digits", "-o", str(tmp_path)]) == 0
    with Image.open(tmp_path / "digits.png") as drawn:
        assert drawn.mode == "P"
        colours = np.unique(np.asarray(drawn.convert("RGB")).reshape(-1, 3), axis=0)
    assert len(colours) <= 256


def test_poses_are_drawn_on_each_photograph(pictures: ModuleType, tmp_path: Path) -> None:
    assert pictures.main(["--pose", str(demo_stage("dhrnet", tmp_path / "run")), "-o", str(tmp_path)]) == 0
    sizes = [Image.open(file).size for file in sorted(PEOPLE.glob("images/*.jpg"))]
    with Image.open(tmp_path / "poses.jpg") as drawn:
        assert drawn.size == (sum(round(400 * width / height) for width, height in sizes), 400)


def test_spikes_stand_beside_the_digits(pictures: ModuleType, tmp_path: Path) -> None:
    assert pictures.main(["--spikes", str(demo_stage("stop", tmp_path / "run")), "-o", str(tmp_path)]) == 0
    with Image.open(tmp_path / "spikes.png") as drawn:
        assert drawn.width > 3 * (112 + 92 + 6 * 24), "three digits, the names of layers, six time steps"


def test_both_networks_are_attacked_with_the_radius_of_the_second(
    pictures: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    radii, attacked = [], Attackable.attacked

    def noted(self: Attackable, *given: Any, **named: Any) -> Any:
        radii.append(named["eps"])
        return attacked(self, *given, **named)

    monkeypatch.setattr(Attackable, "attacked", noted)
    runs = [str(demo_stage(stage, tmp_path / stage)) for stage in ("digits", "robust_teacher")]
    assert pictures.main(["--attack", *runs, "-o", str(tmp_path)]) == 0
    assert radii == [0.2] * 6, "of configs/_base/robust_digits.yaml"
    with Image.open(tmp_path / "attack.png") as drawn:
        assert drawn.width == 3 * 3 * 96 + 2 * 24


def test_a_saved_picture_is_the_picture_in_few_levels(pictures: ModuleType, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    picture[:10] = (46, 196, 114)
    pictures.save(picture, tmp_path / "a.png")
    kept = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    assert np.abs(kept - picture).max() <= 4
