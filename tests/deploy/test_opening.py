"""A network in one line of Python: a run says what tools/predict.py says, an exported file what the runner says."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import robust
import snn
import vision
from tools.predict import main as predict
from vision.deploy import shipped
from vision.deploy.opening import opened
from vision.deploy.shipped import networks_below, place_of
from vision.engine.config import load
from vision.engine.distributed import World
from vision.engine.errors import ConfigError, DataError, UserError
from vision.engine.registry import entries
from vision.engine.train import dry_run

PEOPLE = Path(vision.__file__).parent / "samples/people/images"
MAMKPD = """
name: mamkpd_samples
task: {type: top_down_pose, network: {type: mamkpd_t, input_size: [64, 96]}, codec: {type: udp_heatmap}}
data: {type: sample_people, input_size: [64, 96]}
optimizer: {type: adamw, lr: 1e-3}
schedule: {type: constant}
trainer: {steps: 2, batch_size: 2}
"""
SYNTHETIC = """
name: synthetic
task: {type: infrared_targets, network: {type: tbcnet, tem: lite}, loss: softiou, semantic: false}
data: {type: infrared_synthetic, patch: 48, size: 48, scenes: 2, length: 4}
optimizer: {type: adam, lr: 1e-3}
schedule: {type: constant}
trainer: {steps: 2, batch_size: 2}
"""
ROBUST = """
name: robust_digits
task: {type: adversarial_classification, network: {type: digits_cnn, width: 8}, method: pgd, threat: {eps: 0.1}}
data: {type: digits, normalise: false, limit: 64}
optimizer: {type: adam, lr: 1e-3}
schedule: {type: constant}
trainer: {steps: 2, batch_size: 16}
"""
RECIPES: dict[str, tuple[str, ...]] = {
    "classification": ("digits_cnn", "data.limit=64", "task.network.width=8"),
    "snn": ("stop_digits", "data.limit=64", "task.network.hidden=[16]"),
    "whole": ("dhrnet_w18s_samples", "data.size=64", "task.network.output_size=16"),
}
LOAD: dict[str, Callable[..., Any]] = {
    "classification": vision.classification.load, "snn": snn.load, "robust": robust.load,
    "infrared": vision.infrared.load, "whole": vision.pose.load, "top_down": vision.pose.load,
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of one update of every system."""
    root = tmp_path_factory.mktemp("runs")
    recipes = dict(RECIPES)
    for name, text in (("top_down", MAMKPD), ("infrared", SYNTHETIC), ("robust", ROBUST)):
        (root / f"{name}.yaml").write_text(text)
        recipes[name] = (str(root / f"{name}.yaml"),)
    for name, (recipe, *overrides) in recipes.items():
        (root / name).mkdir()
        dry_run(load(recipe, overrides), root / name, False, World(torch.device("cpu")))
    return {name: root / name for name in recipes}


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grey photograph of equal channels, which every system takes."""
    path = tmp_path_factory.mktemp("photo") / "photo_12.png"
    with Image.open(PEOPLE / "cameraman.jpg") as image:
        image.convert("L").resize((96, 72)).convert("RGB").save(path)
    return path


@pytest.mark.parametrize("kind", LOAD)
def test_a_run_says_what_the_command_says(kind: str, runs: dict[str, Path], photo: Path, tmp_path: Path) -> None:
    assert predict([str(runs[kind]), str(photo), "-o", str(tmp_path), "--device", "cpu"]) == 0
    (expected,) = json.loads((tmp_path / "predictions.json").read_text())
    network = LOAD[kind](runs[kind], device="cpu")
    said = network(photo)
    assert {"file": str(photo), **json.loads(json.dumps(said.to_dict()))} == expected
    with Image.open(tmp_path / "photo_12.png") as drawn:
        np.testing.assert_array_equal(np.asarray(drawn), said.draw(network.picture(photo)))
    if said.in_coco:
        assert said.to_coco() == json.loads((tmp_path / "coco_results.json").read_text())


@pytest.mark.parametrize("kind", LOAD)
def test_a_file_an_image_pixels_and_a_list_are_predicted_alike(kind: str, runs: dict[str, Path], photo: Path) -> None:
    network = LOAD[kind](runs[kind], device="cpu")
    with Image.open(photo) as image:
        image.load()
        pixels = np.asarray(image)
    expected = _plain(network(photo))
    assert [_plain(each) for each in network([str(photo), image, pixels])] == [expected] * 3


def _plain(said: Any) -> dict[str, Any]:
    return {key: value for key, value in said.to_dict().items() if key not in ("id", "image_id")}


def test_people_in_boxes(runs: dict[str, Path], photo: Path, tmp_path: Path) -> None:
    rows = [{"image_id": 12, "bbox": [5, 6, 40, 50], "score": 0.75}, {"image_id": 12, "bbox": [30, 1, 30, 30]}]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    arguments = [str(runs["top_down"]), str(photo), "-o", str(tmp_path), "--device", "cpu"]
    assert predict([*arguments, "--boxes", str(tmp_path / "boxes.json")]) == 0
    (expected,) = json.loads((tmp_path / "predictions.json").read_text())
    network = vision.pose.load(runs["top_down"], device="cpu")
    said = network(photo, [[*row["bbox"], row.get("score", 1.0)] for row in rows])
    assert said.to_dict()["people"] == expected["people"] and said.image_id == 12
    assert network(photo, []).to_coco() == []
    with pytest.raises(DataError, match=r"box 0 is .* outside the picture"):
        network(photo, [[500, 0, 5, 5]])
    with pytest.raises(ConfigError, match="looks at whole images"):
        vision.infrared.load(runs["infrared"], device="cpu")(photo, [[0, 0, 5, 5]])


def test_what_has_no_rows_of_coco_says_why(runs: dict[str, Path], photo: Path) -> None:
    with pytest.raises(UserError, match=r"Targets has no COCO results: a target is found by its centre"):
        vision.infrared.load(runs["infrared"], device="cpu")(photo).to_coco()
    with pytest.raises(UserError, match=r"SpikeScores has no COCO results: .* no classes of whole images"):
        snn.load(runs["snn"], device="cpu")(photo).to_coco()


@pytest.mark.parametrize(
    ("loader", "kind", "fix"),
    [("top_down", "classification", "vision.classification"), ("infrared", "whole", "vision.pose"),
     ("snn", "robust", "vision.classification"), ("classification", "snn", "snn"),
     ("robust", "infrared", "vision.infrared")],
)  # fmt: skip
def test_a_run_of_another_system_is_refused(loader: str, kind: str, fix: str, runs: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=rf"{kind}: has a network of the task .*; open it with {fix}\.load$"):
        LOAD[loader](runs[kind])


def test_checkpoints_by_name_and_by_file(runs: dict[str, Path], photo: Path, tmp_path: Path) -> None:
    run = runs["classification"]
    best = vision.classification.load(run)(photo)
    for path, checkpoint in ((run, "last"), (run / "checkpoints/last.safetensors", "best")):
        assert vision.classification.load(path, checkpoint)(photo).to_dict() == best.to_dict()
    with pytest.raises(ConfigError, match="is a checkpoint already"):
        opened(run / "checkpoints/last.safetensors", checkpoint="last")
    (tmp_path / "alone.safetensors").write_bytes((run / "checkpoints/last.safetensors").read_bytes())
    with pytest.raises(ConfigError, match="no checkpoint of a run: expected RUN/checkpoints/NAME"):
        opened(tmp_path / "alone.safetensors")
    with pytest.raises(ConfigError, match="no such file or folder; expected a run's folder"):
        opened(tmp_path / "nothing")


def test_names_of_networks_that_ship(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: Path
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/digits").symlink_to(runs["classification"])
    monkeypatch.setattr(shipped, "MODELS", tmp_path / "models")
    assert place_of("digits") == tmp_path / "models/digits"
    assert (
        vision.classification.load("digits")(photo).label
        == vision.classification.load(runs["classification"])(photo).label
    )
    with pytest.raises(ConfigError, match=r"with the package come digits .did you mean 'digits'"):
        place_of("digts")


def test_the_networks_below_a_folder(runs: dict[str, Path]) -> None:
    assert networks_below(runs["snn"].parent) == sorted(runs.values())


def test_registered_networks_by_pattern() -> None:
    assert vision.list_models("mamkpd*") == ["mamkpd_b", "mamkpd_l", "mamkpd_s", "mamkpd_t"]
    assert vision.list_models() == [entry.name for entry in entries("network")]
    assert vision.list_models("nothing*") == []


# -- exported files ----------------------------------------------------------------------------------------------------

BLOCKED = """
import json, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "scipy", "timm", "spikingjelly"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
import robust, snn, vision
packages = {"vision.pose": vision.pose, "vision.infrared": vision.infrared, "snn": snn, "robust": robust,
            "vision.classification": vision.classification}
for package, folder, image in json.loads(sys.argv[1]):
    print(json.dumps(packages[package].load(folder)(image).to_dict()))
"""


def test_exported_files_need_no_pytorch(tmp_path: Path, photo: Path) -> None:
    pytest.importorskip("onnx", reason="no onnx")
    pytest.importorskip("onnxruntime", reason="no onnxruntime")
    from tests.deploy import stubs
    from vision.deploy.runner import Predictor

    kinds = {"udp_heatmap": "vision.pose", "single_stage": "vision.pose", "targets": "vision.infrared",
             "classes": "robust"}  # fmt: skip
    jobs = [(package, str(stubs.KIND[kind](tmp_path / kind)), str(photo)) for kind, package in kinds.items()]
    jobs.append(("vision.classification", str(tmp_path / "classes/model.onnx"), str(photo)))
    call = [sys.executable, "-c", BLOCKED, json.dumps(jobs)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    for line, (_, folder, image) in zip(done.stdout.splitlines(), jobs, strict=True):
        assert json.loads(line) == json.loads(json.dumps(Predictor(folder)(image).to_dict()))
    with pytest.raises(ConfigError, match="an exported file has no gradients to attack by; load the run"):
        robust.load(tmp_path / "classes").attacked(photo)
    with pytest.raises(
        ConfigError, match=r"which vision\.pose\.load does not take; open it with vision\.classification"
    ):
        vision.pose.load(tmp_path / "classes")
    with pytest.raises(ConfigError, match="is an exported network; leave out the checkpoint"):
        vision.pose.load(tmp_path / "udp_heatmap", "last")
