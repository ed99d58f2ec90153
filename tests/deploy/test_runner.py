"""Exported files: predictions without PyTorch, and what is refused."""

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.conftest import CHECKOUT
from tests.deploy import stubs
from vision.deploy import runner
from vision.deploy.description import SIDECAR
from vision.deploy.runner import SYSTEMS, Predictor
from vision.deploy.session import OnnxSession
from vision.engine.errors import ConfigError, DataError, DeviceError, ExportedFileError, UserError

BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

ALLOWED = {"vision", "snn", "numpy", "PIL", "onnxruntime", *sys.stdlib_module_names}

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ImportError(f"{name} is not needed here")

sys.meta_path.insert(0, Refuse())
import hashlib, json
from vision.deploy.runner import Predictor
for folder, image in json.loads(sys.argv[1]):
    predictor = Predictor(folder)
    prediction = predictor(image)
    drawn = prediction.draw(predictor.picture(image))
    print(json.dumps([prediction.to_dict(), hashlib.sha256(drawn.tobytes()).hexdigest()]))
for name in ("torch", "torchvision", "timm", "matplotlib", "scipy", "sklearn", "pydantic", "yaml", "onnx"):
    assert name not in sys.modules, name
"""


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An export of every kind."""
    root = tmp_path_factory.mktemp("exports")
    return {kind: make(root / kind) for kind, make in stubs.KIND.items()}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A file for every kind."""
    root = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    photo, gray, recording = root / "photo_7.png", root / "gray.png", root / "events.npz"
    Image.fromarray(rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(photo)
    Image.fromarray(rng.integers(0, 256, (24, 30), dtype=np.uint8)).save(gray)
    x, y, p = (rng.integers(0, most, 200) for most in (12, 10, 2))
    np.savez(recording, t=np.arange(200), x=x, y=y, p=p)
    others = {"targets": gray, "count": gray, "spikes": recording}
    return {kind: str(others.get(kind, photo)) for kind in stubs.KIND}


def test_every_kind_that_the_runner_knows_has_a_stub() -> None:
    assert set(SYSTEMS) == set(stubs.KIND)


def test_predictions_need_neither_pytorch_nor_anything_but_onnxruntime_numpy_and_pillow(
    exports: dict[str, Path], inputs: dict[str, str]
) -> None:
    pairs = [(str(exports[kind]), inputs[kind]) for kind in exports]
    process = subprocess.run(
        [sys.executable, "-c", BLOCKED, json.dumps(pairs)], cwd=CHECKOUT, capture_output=True, text=True, timeout=250
    )
    assert process.returncode == 0, process.stderr
    for line, (folder, image) in zip(process.stdout.splitlines(), pairs, strict=True):
        predictor = Predictor(folder)
        prediction = predictor(image)
        drawn = prediction.draw(predictor.picture(image))
        assert json.loads(line) == [
            json.loads(json.dumps(prediction.to_dict())),
            hashlib.sha256(drawn.tobytes()).hexdigest(),
        ]


@pytest.mark.parametrize("kind", sorted(set(stubs.KIND) - {"spikes", "count"}))
def test_a_file_an_image_and_pixels_are_predicted_alike(
    kind: str, exports: dict[str, Path], inputs: dict[str, str]
) -> None:
    predictor = Predictor(exports[kind])
    with Image.open(inputs[kind]) as image:
        image.load()
        pixels = np.asarray(image)
    expected = _plain(predictor(inputs[kind]))
    for given in (Path(inputs[kind]), image, pixels):
        assert _plain(predictor(given)) == expected
    first, second = predictor([inputs[kind], pixels])
    assert _plain(first) == _plain(second) == expected


def _plain(prediction: Any) -> dict[str, Any]:
    return {key: value for key, value in prediction.to_dict().items() if key not in ("id", "image_id")}


def test_one_file_is_enough_and_finds_the_others_beside(
    exports: dict[str, Path], inputs: dict[str, str], tmp_path: Path
) -> None:
    photo = inputs["single_stage"]
    expected = Predictor(exports["single_stage"])(photo).to_dict()
    for graph in ("image", "people"):
        assert Predictor(exports["single_stage"] / f"{graph}.onnx")(photo).to_dict() == expected
    alone = tmp_path / "renamed.onnx"
    alone.write_bytes((exports["classes"] / "model.onnx").read_bytes())
    assert Predictor(alone)(photo).to_dict() == Predictor(exports["classes"])(photo).to_dict()
    (tmp_path / "people.onnx").write_bytes((exports["single_stage"] / "people.onnx").read_bytes())
    with pytest.raises(ExportedFileError, match=r"image.onnx: no such file; it holds the graph 'image'"):
        Predictor(tmp_path / "people.onnx")
    (tmp_path / "people.onnx").rename(tmp_path / "other.onnx")
    with pytest.raises(ExportedFileError, match=r"was renamed; its graphs are image.onnx, people.onnx"):
        Predictor(tmp_path / "other.onnx")


def test_files_of_two_exports_are_not_mixed(exports: dict[str, Path], tmp_path: Path) -> None:
    for name in ("image.onnx", "people.onnx"):
        (tmp_path / name).write_bytes((exports["single_stage"] / name).read_bytes())
    other = onnx.load(tmp_path / "people.onnx")
    tree = json.loads(other.metadata_props[0].value)
    onnx.helper.set_model_props(other, {"triptych": json.dumps({**tree, "run": "another"})})
    onnx.save(other, tmp_path / "people.onnx")
    with pytest.raises(ExportedFileError, match=r"people.onnx: is of another export than .*image.onnx"):
        Predictor(tmp_path / "image.onnx")


# -- boxes -------------------------------------------------------------------------------------------------------------


def test_people_in_boxes(exports: dict[str, Path], inputs: dict[str, str]) -> None:
    predictor, photo = Predictor(exports["udp_heatmap"]), inputs["udp_heatmap"]
    boxes = [[1.0, 2.0, 30.0, 40.0], [20.0, 5.0, 30.0, 30.0, 0.5]]
    two = predictor(photo, [[*boxes[0], 1.0], boxes[1]])
    assert two.image_id == 7 and two.keypoints.shape == (2, 3, 3) and two.box_scores.tolist() == [1.0, 0.5]
    for position, box in enumerate(boxes):
        one = predictor(photo, [box])
        np.testing.assert_allclose(one.keypoints[0], two.keypoints[position], rtol=1e-5)
    assert predictor(photo, []).keypoints.shape == (0, 3, 3)
    whole = predictor(photo)
    np.testing.assert_array_equal(whole.boxes, [[0, 0, 70, 50]])
    many = predictor(photo, [boxes[0]] * 70)  # more than one pass
    np.testing.assert_allclose(many.keypoints, np.repeat(predictor(photo, [boxes[0]]).keypoints, 70, 0), rtol=1e-5)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[1, 2, 3]], r"boxes of shape \[1, 3\]"),
        ([[1, 2, 3, 0]], "box 0 is .*width and height above 0"),
        ([[1, 2, 3, float("nan")]], "finite"),
        ([[100, 2, 3, 4]], "outside the picture of 70 x 50"),
        ([["a", 2, 3, 4]], "boxes are not numbers"),
    ],
)
def test_boxes_that_are_none(boxes: Any, message: str, exports: dict[str, Path], inputs: dict[str, str]) -> None:
    with pytest.raises(DataError, match=message):
        Predictor(exports["heatmap"])(inputs["heatmap"], boxes)


@pytest.mark.parametrize("kind", ["classes", "targets", "count", "single_stage", "spikes"])
def test_networks_of_whole_images_take_no_boxes(kind: str, exports: dict[str, Path], inputs: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="leave out the boxes"):
        Predictor(exports[kind])(inputs[kind], [[0, 0, 5, 5]])


def test_a_list_needs_boxes_for_each(exports: dict[str, Path], inputs: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="1 sets for 2 images"):
        Predictor(exports["heatmap"])([inputs["heatmap"]] * 2, [[[0, 0, 5, 5]]])


# -- what is refused ---------------------------------------------------------------------------------------------------


def change(folder: Path, target: Path, **changes: Any) -> Path:
    """The export ``folder`` with another description."""
    target.mkdir()
    model = onnx.load(folder / "model.onnx")
    tree = {**json.loads((folder / SIDECAR).read_text()), **changes}
    onnx.helper.set_model_props(model, {"triptych": json.dumps(tree)})
    onnx.save(model, target / "model.onnx")
    return target / "model.onnx"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "written in format 2, and this version reads up to 1; install a newer triptych"),
        ({"format": "one"}, "has no 'format'"),
        ({"graphs": {}}, "damaged: no graphs"),
        ({"graphs": {"model": {"file": "../model.onnx", "inputs": {}, "outputs": {}}}}, "not the name of a file"),
        ({"graphs": {"step": {"file": "model.onnx", "inputs": {}, "outputs": {}}}}, "has no graph 'model', only step"),
        ({"before": {}}, "knows no predictions"),
        ({"after": {"type": "os.system", "classes": ["a"]}}, "of 'image' to 'os.system', .*knows no predictions"),
        ({"after": {"type": "classes"}}, "damaged: 'classes' is missing; export the run again"),
        ({"before": {"type": "image", "size": "wide"}}, "damaged: .*export the run again"),
        ({"before": {"type": "image", "size": 10**9, "channels": 3}}, "damaged: 1000000000 is not between 1 and 16384"),
        ({"before": {"type": "image", "size": math.inf, "channels": 3}}, "damaged: cannot convert float infinity"),
        ({"graphs": {"model": {"file": "model.onnx", "inputs": {"x": {"shape": [1], "dtype": "load"}}}}},
         "damaged: dtype 'load' is none of bool"),
    ],
)  # fmt: skip
def test_a_description_that_cannot_be_used(
    changes: dict[str, Any], message: str, exports: dict[str, Path], tmp_path: Path
) -> None:
    file = change(exports["classes"], tmp_path / "changed", **changes)
    with pytest.raises(ExportedFileError, match=message):
        Predictor(file)


def test_a_skeleton_that_is_none_is_told_with_the_file(exports: dict[str, Path], tmp_path: Path) -> None:
    after = json.loads((exports["udp_heatmap"] / SIDECAR).read_text())["after"]
    file = change(exports["udp_heatmap"], tmp_path / "changed", after={**after, "skeleton": {"name": "x"}})
    with pytest.raises(ExportedFileError, match=r"model\.onnx: its description is damaged: not a skeleton: .*joints"):
        Predictor(file)


def test_files_that_are_no_exports(exports: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ExportedFileError, match="no such file or folder"):
        Predictor(tmp_path / "model.onnx")
    with pytest.raises(ExportedFileError, match=r"holds no model.json"):
        Predictor(tmp_path)
    whole = (exports["classes"] / "model.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ExportedFileError, match=r"cut.onnx: ONNX Runtime .* cannot load it"):
        Predictor(tmp_path / "cut.onnx")
    foreign = onnx.load(exports["classes"] / "model.onnx")
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(ExportedFileError, match="without Triptych's description"):
        Predictor(tmp_path / "foreign.onnx")
    onnx.helper.set_model_props(foreign, {"triptych": "{"})
    onnx.save(foreign, tmp_path / "damaged.onnx")
    with pytest.raises(ExportedFileError, match="description is damaged"):
        Predictor(tmp_path / "damaged.onnx")


def test_onnx_runtime_keeps_no_record_of_its_use(exports: dict[str, Path], tmp_path: Path) -> None:
    code = f"from vision.deploy.runner import Predictor; Predictor({str(exports['classes'])!r})"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "ORT_"))}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(CHECKOUT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=250)
    assert not list(tmp_path.rglob("*onnxruntime*"))


def test_images_that_the_network_cannot_take(exports: dict[str, Path], tmp_path: Path) -> None:
    small = np.zeros((8, 30), np.uint8)
    with pytest.raises(DataError, match="8x30 pixels; at least 16 on each side"):
        Predictor(exports["targets"])(small)
    run = runner._Run(Predictor(exports["targets"]), "photo.png")
    with pytest.raises(
        DataError, match=r"photo.png: input 'image' is \[1, 2, 8, 30\], .*\[N, 2, H, W\], H and W at least 16"
    ):
        run("model", np.zeros((1, 2, 8, 30), np.float32))
    with pytest.raises(DataError, match=r"is \[1, 3, 20, 30\]"):
        run("model", np.zeros((1, 3, 20, 30), np.float32))
    with pytest.raises(DataError, match="no such file"):
        Predictor(exports["heatmap"])(str(tmp_path / "no.png"))
    for given, told in ((7, "got int"), (np.zeros((4, 4), np.float32), r"float32 \[4, 4\]")):
        with pytest.raises(DataError, match=told):
            Predictor(exports["classes"])(given)
    with pytest.raises(DataError, match="got ndarray, expected an npz file of events"):
        Predictor(exports["spikes"])(small)


def test_a_graph_that_predicting_does_not_need_may_be_missing(
    exports: dict[str, Path], inputs: dict[str, str], tmp_path: Path
) -> None:
    graphs = json.loads((exports["spikes"] / SIDECAR).read_text())["graphs"]
    step = {"step": {"file": "step.onnx", "inputs": {}, "outputs": {}}}
    file = change(exports["spikes"], tmp_path / "whole", graphs={**graphs, **step})
    expected = Predictor(exports["spikes"])(inputs["spikes"]).to_dict()
    assert Predictor(file)(inputs["spikes"]).to_dict() == expected


def test_a_package_of_pytorch_is_not_for_the_runner(exports: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / SIDECAR).write_text((exports["classes"] / SIDECAR).read_text().replace("model.onnx", "model.pt2"))
    with pytest.raises(ExportedFileError, match=r"model.pt2: is no ONNX file; export the run with --format onnx"):
        Predictor(tmp_path)


def test_devices_and_threads(exports: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    file = exports["classes"] / "model.onnx"
    with pytest.raises(DeviceError, match="got 'tpu', expected one of cpu, cuda"):
        Predictor(file, device="tpu")
    with pytest.raises(DeviceError, match="threads: got 0"):
        Predictor(file, threads=0)
    with pytest.raises(DeviceError, match="has no NoSuchProvider"):
        OnnxSession({"model": file}, providers=["NoSuchProvider"])
    session = OnnxSession({"model": file}, threads=1, providers=["CPUExecutionProvider"])
    with pytest.raises(ExportedFileError, match=r"cannot run it on image float32 \[1, 3, 4, 4\]"):
        session.run("model", {"image": np.zeros((1, 3, 4, 4), np.float32)})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r'pip install "triptych\[export\]"'):
        Predictor(file)
