"""Engines: every kind of network built by TensorRT-RTX where it is installed; the rest by a stand-in of TensorRT."""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

from tests.contract.cases import small_task
from tests.deploy import fake_tensorrt as fake
from tools.export import main
from vision.deploy import engine_session, nvidia
from vision.deploy.description import parsed
from vision.deploy.engine_session import EngineSession
from vision.deploy.export import Options, export
from vision.deploy.profiles import Span, shapes_of, spans
from vision.deploy.runner import Predictor, exported, is_engine
from vision.deploy.schemas import SIDECAR
from vision.deploy.sidecar import Origin, sidecar
from vision.deploy.sizes import at_size
from vision.deploy.tensorrt import build_engine, require_buildable
from vision.engine.deployment import Deployment, DeploymentError, Graph
from vision.engine.errors import ConfigError, DeviceError, ExportedFileError, UserError
from vision.engine.folding import deployed
from vision.engine.task import Task
from vision.pose.mamkpd import MamKPD

onnx = pytest.importorskip("onnx", reason="no onnx")
pytest.importorskip("onnxruntime", reason="no onnxruntime")
pytest.importorskip("onnxscript", reason="no onnxscript")

from vision.deploy.half import in_half  # noqa: E402 (it needs what is asked for above)
from vision.deploy.onnx import OPSET, onnx_model  # noqa: E402

ORIGIN = Origin("classification", "digits", "0" * 64, 12)


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-in for TensorRT, on a machine with a GPU."""
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setattr(nvidia, "gpu", lambda: "NVIDIA H0")
    monkeypatch.setattr(engine_session, "DEVICE", "cpu")
    monkeypatch.setattr(engine_session, "_stream", lambda: 0)
    monkeypatch.setattr(engine_session, "_wait", lambda: None)
    yield
    nvidia._opened.cache_clear()


# ---- every kind of network, by TensorRT-RTX -------------------------------------------------------------------------


def rtx() -> nvidia.Library:
    pytest.importorskip("tensorrt_rtx_bindings", reason="no tensorrt-rtx: pip install 'triptych[tensorrt-rtx]'")
    return nvidia.library("tensorrt-rtx")


def build(deployment: Deployment, form: str | None = None) -> dict[str, Any]:
    """Engines of every graph in both precisions; those in half precision, by graph."""
    library = rtx()
    text = json.dumps(sidecar(deployment, ORIGIN, "onnx", "fp32", form, OPSET, {}))
    description, built = parsed(text, "here"), {}
    for graph in deployment.graphs:
        plain = onnx_model(graph, form)
        profile = shapes_of(description.graphs[graph.name], spans(description, {}))
        for model in (plain, in_half(plain)):
            built[graph.name] = build_engine(library, model.SerializeToString(), profile, graph.name)
            assert len(built[graph.name].plan) > 1000
            assert built[graph.name].layers >= len(model.graph.node) // 2
    return built


@pytest.mark.parametrize("form", ["scan", "chunked"])
def test_mamkpd(form: str) -> None:
    rtx()
    torch.manual_seed(0)
    network = MamKPD(8, (8, 16, 16), (1, 0, 0), 8, 3, (32, 32), "simcc", 1, 2.0, True, 0.0, 0.0, 3, None).eval()
    images = torch.randn(2, 3, 32, 32)
    network = deployed(network, lambda each: each(images))
    outputs = ("columns", "rows")
    build(Deployment((Graph("model", network, (images,), ("image",), outputs, {"image": {0: "N"}}),)), form)


@pytest.mark.parametrize("name", ["classification", "target_counting", "spiking_classification"])
def test_a_task(name: str) -> None:
    rtx()
    deployment = small_task(name).eval().deployment()
    assert set(build(deployment)) == ({"model", "step"} if name == "spiking_classification" else {"model"})


@pytest.mark.slow
def test_dhrnet_at_one_size() -> None:
    rtx()
    deployment = small_task("single_stage_pose").eval().deployment()
    assert set(build(at_size(deployment, (64, 96)))) == {"image", "people"}


def test_tbcnet_at_one_size_and_the_way_round_where_any_is_open() -> None:
    rtx()
    deployment = small_task("infrared_targets").eval().deployment()
    build(at_size(deployment, (64, 80)))
    with pytest.raises(DeploymentError, match=r"graph 'model': tensorrt-rtx .* cannot build it: .*--size HxW"):
        build(deployment)


def test_a_node_that_it_does_not_know_is_named() -> None:
    library = rtx()
    node = onnx.helper.make_node("SelectiveScan", ["x"], ["y"], name="blocks.3/scan", domain="triptych")
    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 3]) for name in "xy"]
    opsets = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid("triptych", 1)]
    graph = onnx.helper.make_graph([node], "graph", ports[:1], ports[1:])
    content = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    with pytest.raises(DeploymentError, match=r"graph 'g': tensorrt-rtx .* SelectiveScan at 'blocks.3/scan'.*--format"):
        build_engine(library, content, {}, "g")


def test_an_export_holds_onnx_engine_and_both_descriptions(task: Task, tmp_path: Path) -> None:
    library = rtx()
    export(task, ORIGIN, tmp_path / "made", Options("tensorrt-rtx", limit=8, profile={"N": Span(1, 4, 8)}))
    told = json.loads((tmp_path / "made" / "model.json").read_text())
    jsonschema.validate(told, SIDECAR)
    assert (told["kind"], told["graphs"]["model"]["file"]) == ("tensorrt-rtx", "model.engine")
    assert told["engines"]["version"] == library.version
    assert (tmp_path / "made" / "model.engine").stat().st_size == told["engines"]["graphs"]["model"]["bytes"]
    assert exported(tmp_path / "made") and is_engine(tmp_path / "made")
    rgb = np.zeros((8, 8, 3), dtype=np.uint8)
    assert Predictor(tmp_path / "made" / "model.onnx")(rgb).to_dict() is not None
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match=r"running model.engine needs an NVIDIA GPU.*--format onnx"):
            Predictor(tmp_path / "made" / "model.engine")


# ---- everything else, by the stand-in -------------------------------------------------------------------------------


def test_what_is_stored_beside_an_engine(task: Task, tmp_path: Path, faked: None) -> None:
    cache = tmp_path / "timing.cache"
    options = Options("tensorrt", limit=8, profile={"N": Span(1, 4, 8)}, timing_cache=cache)
    export(task, ORIGIN, tmp_path / "made", options)
    files = ["model.engine", "model.json", "model.onnx", "parity.json"]
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == files
    assert (tmp_path / "made" / "model.engine").read_bytes() == fake.PLAN
    told = json.loads((tmp_path / "made" / "model.json").read_text())
    jsonschema.validate(told, SIDECAR)
    shapes = [[1, 1, 8, 8], [4, 1, 8, 8], [8, 1, 8, 8]]
    digest = hashlib.sha256((tmp_path / "made" / "model.onnx").read_bytes()).hexdigest()
    assert told["engines"] == {
        "library": "tensorrt", "version": "10.99", "built_for": "NVIDIA H0", "sizes": {"N": [1, 4, 8]},
        "graphs": {"model": {"layers": 7, "bytes": len(fake.PLAN), "profile": {"image": shapes},
                             "onnx_sha256": digest}},
    }  # fmt: skip
    assert fake.Builder.last.flags == 1 << fake.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert fake.Builder.last.config.cleared == ["tf32"]
    assert fake.Builder.last.config.profiles == [{"image": tuple(map(tuple, shapes))}]
    assert cache.read_bytes() == b"+"
    export(task, ORIGIN, tmp_path / "again", options)
    assert cache.read_bytes() == b"++"
    cache.write_bytes(b"damaged")
    with pytest.raises(DeploymentError, match=r"--timing-cache: .*delete the file"):
        export(task, ORIGIN, tmp_path / "damaged", options)
    assert not (tmp_path / "damaged").exists()


def test_a_session_runs_what_an_engine_was_built_for(tmp_path: Path, faked: None) -> None:
    (tmp_path / "model.engine").write_bytes(fake.PLAN)
    about = {"version": "10.99", "built_for": "NVIDIA H0",
             "graphs": {"model": {"profile": {"image": [[1, 3], [2, 3], [4, 3]]}}}}  # fmt: skip
    library = nvidia.library("tensorrt")
    session = EngineSession({"model": tmp_path / "model.engine"}, library, about)
    for count in (1, 4):
        image = np.random.default_rng(0).normal(size=(3, count)).astype(np.float32).T  # not contiguous
        np.testing.assert_array_equal(session.run("model", {"image": image})["logits"], 2 * image)
    with pytest.raises(ConfigError, match=r"'image' is \[5, 3\], and the engine was built for"):
        session.run("model", {"image": np.zeros((5, 3), np.float32)})
    (tmp_path / "model.engine").write_bytes(b"other")
    with pytest.raises(
        ExportedFileError, match=r"10.99 cannot load it \(magic tag.*for NVIDIA H0: export the run again"
    ):
        EngineSession({"model": tmp_path / "model.engine"}, library, about)
    with pytest.raises(ExportedFileError, match="no such file"):
        EngineSession({"model": tmp_path / "none.engine"}, library, about)


def test_a_predictor_takes_an_engine(task: Task, tmp_path: Path, faked: None) -> None:
    export(task, ORIGIN, tmp_path / "made", Options("tensorrt", limit=8))
    for path in (tmp_path / "made", tmp_path / "made" / "model.engine"):
        assert isinstance(Predictor(path).session, EngineSession)
    with pytest.raises(DeviceError, match=r"threads 2: model.engine runs on the GPU alone"):
        Predictor(tmp_path / "made", threads=2)
    (tmp_path / "made" / "model.engine").rename(tmp_path / "made" / "other.engine")
    with pytest.raises(ExportedFileError, match=r"was renamed; its graphs are model.engine"):
        Predictor(tmp_path / "made" / "other.engine")
    (tmp_path / "made" / "model.json").unlink()
    with pytest.raises(ExportedFileError, match=r"holds no model.json"):
        Predictor(tmp_path / "made" / "other.engine")


def test_errors_of_the_parser_and_the_builder(faked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    library = nvidia.library("tensorrt")
    errors = (("Scan", "blocks.0/scan", "In node 3 with name: a: no\n plugin"), *[("Mod", f"m{i}", "x") for i in "123"])
    monkeypatch.setattr(fake.OnnxParser, "errors", errors)
    with pytest.raises(DeploymentError, match=r"Scan at 'blocks.0/scan' \(.*no plugin\).*Mod at 'm2' \(x\) and 1 more"):
        build_engine(library, b"", {}, "g")
    monkeypatch.setattr(fake.OnnxParser, "errors", ())
    monkeypatch.setattr(fake.Builder, "plan", None)
    monkeypatch.setattr(fake.Builder, "says", "out of workspace")
    for high, way in ((9, "fix the size of images with --size HxW, or run the ONNX file"), (8, "run the ONNX file: -")):
        with pytest.raises(
            DeploymentError, match=f"graph 'g': tensorrt 10.99 cannot build it: out of workspace; {way}"
        ):
            build_engine(library, b"", {"x": ((1, 1, 8, 8), (1, 1, 8, 8), (2, 1, 8, high))}, "g")


@pytest.mark.parametrize(("kind", "module"), nvidia.KINDS.items())
def test_without_the_library(kind: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf'{module} cannot be imported.*pip install "triptych\[{kind}\]"'):
        require_buildable(kind, "fp32", "scan", None)


def test_what_engines_do_not_have(task: Task, tmp_path: Path, faked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for options, words in (
        (Options("tensorrt", "int8"), "--precision int8: engines are built in fp32 or fp16"),
        (Options("tensorrt", scan_form="node"), "no engine knows this node"),
        (Options(profile={"N": Span(1, 2, 3)}), "--profile is of engines"),
        (Options(timing_cache=tmp_path / "t"), "--timing-cache is of engines"),
        (Options("tensorrt", limit=8, profile={"H": Span(8, 8, 8)}), "profile H: .*no such open axis, only N"),
    ):
        with pytest.raises(UserError, match=words):
            export(task, ORIGIN, tmp_path / "no", options)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", fake)
    with pytest.raises(DeploymentError, match="--timing-cache: TensorRT-RTX times nothing"):
        require_buildable("tensorrt-rtx", "fp32", "scan", tmp_path / "t")
    monkeypatch.setattr(nvidia, "gpu", lambda: None)
    require_buildable("tensorrt-rtx", "fp32", "scan", None)
    with pytest.raises(DeviceError, match=r"building with TensorRT.*needs an NVIDIA GPU, and PyTorch sees none"):
        require_buildable("tensorrt", "fp32", "scan", None)


def test_the_command_says_that_nothing_was_run(
    tmp_path: Path, faked: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", fake)
    monkeypatch.setattr(nvidia, "gpu", lambda: None)
    recipe = ["configs/classification/digits_cnn.yaml", "data.limit=16", "task.network.width=4", "--limit", "4"]
    made = tmp_path / "made"
    assert main([*recipe, "--format", "tensorrt-rtx", "--profile", "N=1:2:4", "-o", str(made)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == ["engine built, not run: parity.json compares the ONNX file it was built from", f"{made}/model.json"]
    told = json.loads((made / "model.json").read_text())
    assert told["needs"] == {"tensorrt-rtx": "10.99", "gpu": "ahead of time"}
    assert told["engines"]["sizes"] == {"N": [1, 2, 4]}
