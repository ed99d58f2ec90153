"""Exported files: what is in them, that they equal PyTorch, and that wrong ones are refused with the layer named."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.deploy.conftest import digits
from vision.deploy import export as exporting
from vision.deploy.export import Options, export
from vision.deploy.quantise import FEWEST
from vision.deploy.schemas import PARITY, SIDECAR
from vision.deploy.session import OnnxSession
from vision.deploy.sidecar import Origin
from vision.engine.deployment import DeploymentError, Graph, images_graph
from vision.engine.errors import UserError
from vision.engine.task import Task

onnx = pytest.importorskip("onnx", reason="no onnx")
pytest.importorskip("onnxruntime", reason="no onnxruntime")
pytest.importorskip("onnxscript", reason="no onnxscript")

ORIGIN = Origin("classification", "digits", "0" * 64, 12, {"val": {"accuracy": 0.5}})


def images(task: Task, count: int) -> Tensor:
    samples = task.val_data()
    return torch.stack([samples[i]["image"] for i in range(count)])


@pytest.fixture(scope="module")
def folder(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs") / "export" / "onnx-fp32"
    export(task, ORIGIN, made, Options(limit=20))
    return made


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return onnx.load(str(folder / "model.onnx"))


# ---- the files ------------------------------------------------------------------------------------------------------


def test_the_file_gives_what_the_network_gives_for_any_batch(task: Task, folder: Path) -> None:
    session = OnnxSession({"model": folder / "model.onnx"})
    for count in (1, 7):
        x = images(task, count)
        with torch.no_grad():
            expected = task.network(x)
        found = session.run("model", {"image": x.numpy()})["logits"]
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_both_descriptions_hold_to_their_schema_and_are_one(folder: Path, model: Any) -> None:
    sidecar = json.loads((folder / "model.json").read_text())
    jsonschema.validate(sidecar, SIDECAR)
    assert json.loads({e.key: e.value for e in model.metadata_props}["triptych"]) == sidecar
    assert sidecar["graphs"]["model"]["inputs"]["image"]["shape"] == ["N", 1, 8, 8]
    assert sidecar["graphs"]["model"]["outputs"]["logits"]["shape"] == ["N", 10]
    assert (sidecar["run"]["step"], sidecar["trained"], sidecar["opset"]) == (12, True, 18)
    assert model.opset_import[0].version == 18


def test_parity_holds_to_its_schema_and_to_what_is_measured_by_hand(task: Task, folder: Path) -> None:
    parity = json.loads((folder / "parity.json").read_text())
    jsonschema.validate(parity, PARITY)
    x = images(task, 20)
    with torch.no_grad():
        expected = task.network(x).numpy()
    found = OnnxSession({"model": folder / "model.onnx"}).run("model", {"image": x.numpy()})["logits"]
    told = parity["graphs"]["model"]["outputs"]["logits"]
    assert told["scale"] == pytest.approx(np.abs(expected).max(), rel=1e-5)
    assert told["largest"] <= 1e-4 * told["scale"]
    assert told["largest"] == pytest.approx(np.abs(found - expected).max(), abs=1e-6)
    assert (told["numbers"], parity["samples"], parity["passed"]) == (200, 20, True)
    labels = [int(task.val_data()[i]["label"]) for i in range(20)]
    assert parity["metric"]["before"]["accuracy"] == pytest.approx((expected.argmax(1) == labels).mean())


def test_batchnorm_is_folded_and_nothing_of_the_machine_is_told(folder: Path, model: Any) -> None:
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert "BatchNormalization" not in kinds
    assert kinds.count("Conv") == 3
    told = (folder / "model.onnx").read_bytes()
    assert b'File "' not in told
    assert str(Path(__file__).parents[2]).encode() not in told


def test_half_precision(task: Task, tmp_path: Path) -> None:
    parity = export(task, ORIGIN, tmp_path / "half", Options(precision="fp16", limit=20)).to_dict()
    model = onnx.load(str(tmp_path / "half" / "model.onnx"))
    kinds = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert parity["graphs"]["model"]["outputs"]["logits"]["largest"] > 0


def test_integers_have_a_scale_a_channel_and_the_last_layer_stays(task: Task, tmp_path: Path) -> None:
    export(task, ORIGIN, tmp_path / "int8", Options(precision="int8", calibration=FEWEST, limit=20))
    graph = onnx.load(str(tmp_path / "int8" / "model.onnx")).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    read = {node.input[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    kernels = [tensor for tensor in graph.initializer if len(tensor.dims) == 4]
    assert {tensor.data_type for tensor in kernels} == {onnx.TensorProto.INT8}
    assert [list(weights[read[k.name].input[1]].dims) for k in kernels] == [[k.dims[0]] for k in kernels]
    assert max(int(np.abs(onnx.numpy_helper.to_array(kernel)).max()) for kernel in kernels) <= 64
    last = next(node for node in graph.node if node.op_type in ("Gemm", "MatMul"))
    assert weights[last.input[1]].data_type == onnx.TensorProto.FLOAT


# ---- refused --------------------------------------------------------------------------------------------------------


def test_a_planted_wrong_weight_is_caught_and_its_layer_named(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(graph: Graph, form: str | None = None) -> Any:
        model = real(graph, form)
        second = [node for node in model.graph.node if node.op_type == "Conv"][1]
        weight = next(tensor for tensor in model.graph.initializer if tensor.name == second.input[1])
        values = onnx.numpy_helper.to_array(weight).copy()
        values[3] *= -1
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return model

    real = exporting.onnx_model
    monkeypatch.setattr(exporting, "onnx_model", planted)
    with pytest.raises(DeploymentError, match=r"not equal to the network.*begins in layer 'layers\.3' \(Conv2d\)"):
        export(task, ORIGIN, tmp_path / "wrong", Options(limit=8))
    assert not (tmp_path / "wrong").exists()
    parity = json.loads((tmp_path / "wrong.rejected" / "parity.json").read_text())
    jsonschema.validate(parity, PARITY)
    assert not parity["passed"]
    assert parity["divergence"]["model"]["layer"] == "layers.3"


def test_too_few_samples_to_calibrate_on(task: Task, tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match=f"at least {FEWEST} training samples.*got 31.*raise --calibration"):
        export(task, ORIGIN, tmp_path / "few", Options(precision="int8", calibration=31))


def test_a_data_set_too_small_to_calibrate_on(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="got 12"):
        export(digits(limit=12), ORIGIN, tmp_path / "few", Options(precision="int8"))


def test_a_size_that_the_network_cannot_take(task: Task, tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="--size 9x8: this network takes images of 8x8 pixels only"):
        export(task, ORIGIN, tmp_path / "size", Options(size=(9, 8)))


@pytest.mark.parametrize(("options", "said"), [
    (Options(kind="tensorrt"), "tensorrt"),
    (Options(kind="torch", precision="fp16"), "fp32 only"),
    (Options(scan_form="node", precision="int8"), "fp32 only"),
])  # fmt: skip
def test_what_cannot_be_combined(task: Task, tmp_path: Path, options: Options, said: str) -> None:
    with pytest.raises(UserError, match=said):
        export(task, ORIGIN, tmp_path / "no", options)


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_it_says_how_to_install_it(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf'{name} cannot be imported.*pip install "triptych\[export\]"'):
        exporting.onnx_model(task.deployment().graphs[0])


@torch.library.custom_op("triptych_tests::odd", mutates_args=())
def odd(x: Tensor) -> Tensor:
    return x + 1


@odd.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Odd(nn.Module):
    """A network with an operator that ONNX does not have."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.triptych_tests.odd(x)  # type: ignore[no-any-return]


def test_an_operator_without_a_form_in_onnx_is_named_with_the_way_round() -> None:
    graph = images_graph(Odd().eval(), torch.zeros(2, 1, 4, 4), ("y",), any_size=False)
    with pytest.raises(DeploymentError, match=r"no form of the operator triptych_tests.odd.*--format torch"):
        exporting.onnx_model(graph)


def test_a_failed_export_leaves_an_earlier_one(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "model.onnx").write_text("earlier")
    monkeypatch.setattr(exporting, "onnx_model", lambda *_: (_ for _ in ()).throw(DeploymentError("no")))
    with pytest.raises(DeploymentError, match="no"):
        export(task, ORIGIN, tmp_path / "kept", Options())
    assert (tmp_path / "kept" / "model.onnx").read_text() == "earlier"


# ---- a package of PyTorch -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_package_of_pytorch(task: Task, tmp_path: Path) -> None:
    from vision.deploy.torch_package import PackageSession, compiler

    try:
        compiler()
    except DeploymentError:
        pytest.skip("no C++ compiler")
    parity = export(task, ORIGIN, tmp_path / "torch", Options(kind="torch", limit=20)).to_dict()
    assert parity["passed"]
    sidecar = json.loads((tmp_path / "torch" / "model.json").read_text())
    jsonschema.validate(sidecar, SIDECAR)
    assert sidecar["needs"] == {"torch": torch.__version__, "triptych kernels": False}
    loaded = torch._inductor.aoti_load_package(str(tmp_path / "torch" / "model.pt2"))
    x = images(task, 5)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), task.network(x), rtol=1e-4, atol=1e-5)
    session = PackageSession({"model": tmp_path / "torch" / "model.pt2"}, task.deployment())
    turned = np.asfortranarray(x.numpy())  # as pixels are that come from [H, W, C]
    (logits,) = session.run("model", {"image": turned}).values()
    with torch.no_grad():
        np.testing.assert_allclose(logits, task.network(x).numpy(), rtol=1e-4, atol=1e-5)


def test_a_package_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: Task) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(DeploymentError, match="needs a C\\+\\+ compiler"):
        export(task, ORIGIN, tmp_path / "torch", Options(kind="torch"))


def test_loggers_are_as_before(task: Task) -> None:
    before = logging.getLogger("torch.onnx").level
    exporting.onnx_model(task.deployment().graphs[0])
    assert logging.getLogger("torch.onnx").level == before


# ---- sizes of images ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def infrared() -> Task:
    from tests.contract.cases import small_task

    return small_task("infrared_targets").eval()


def test_any_size_or_a_fixed_one_that_samples_are_resized_to(infrared: Task, tmp_path: Path) -> None:
    origin = Origin("infrared_targets", "tem", trained=False)
    export(infrared, origin, tmp_path / "open", Options(limit=2))
    export(infrared, origin, tmp_path / "fixed", Options(limit=2, size=(24, 40)))
    opened, fixed = (json.loads((tmp_path / name / "model.json").read_text()) for name in ("open", "fixed"))
    port = opened["graphs"]["model"]["inputs"]["image"]
    assert (port["shape"], port["smallest"], port["multiple"]) == (["N", 1, "H", "W"], 16, 1)
    assert opened["graphs"]["model"]["outputs"]["logits"]["shape"] == ["N", 1, "H", "W"]
    assert fixed["graphs"]["model"]["inputs"]["image"]["shape"] == ["N", 1, 24, 40]
    resized = [json.loads((tmp_path / name / "parity.json").read_text())["resized"] for name in ("open", "fixed")]
    assert resized == [False, True]
    x = torch.randn(1, 1, 37, 53, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = infrared.network(x).numpy()
    found = OnnxSession({"model": tmp_path / "open" / "model.onnx"}).run("model", {"image": x.numpy()})["logits"]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_a_size_below_the_smallest(infrared: Task, tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="--size 15x40: this network takes sides of at least 16 pixels"):
        export(infrared, Origin("infrared_targets", "tem"), tmp_path / "small", Options(size=(15, 40)))
