"""Selective scans in exported files: one file serves images of several sizes, and half precision keeps the states."""

from typing import Any

import pytest
import torch

from vision.deploy.half import in_half
from vision.deploy.islands import scan_island
from vision.engine.deployment import Graph
from vision.pose.ss2d import SS2D

onnx = pytest.importorskip("onnx", reason="no onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="no onnxruntime")
pytest.importorskip("onnxscript", reason="no onnxscript")

from vision.deploy.onnx import onnx_model  # noqa: E402 (it needs what is asked for above)

SIZES = ((1, 6, 9), (3, 12, 7), (1, 40, 30))


@pytest.fixture(scope="module", params=["scan", "chunked"])
def pair(request: pytest.FixtureRequest) -> tuple[SS2D, Any]:
    torch.manual_seed(0)
    layer = SS2D(8, 1, 2.0, True).eval().requires_grad_(False)
    axes = {"x": {0: "N", 1: "H", 2: "W"}}
    return layer, onnx_model(Graph("model", layer, (torch.randn(2, 5, 7, 8),), ("x",), ("y",), axes), request.param)


def largest_error(layer: SS2D, model: Any) -> float:
    """Over all sizes, in shares of the largest value."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch, height, width in SIZES:
        x = torch.randn(batch, height, width, 8, generator=torch.Generator().manual_seed(width))
        with torch.no_grad():
            expected = layer.double()(x.double())
            layer.float()
        (found,) = session.run(None, {"x": x.numpy()})
        worst = max(worst, float((torch.from_numpy(found) - expected).abs().max() / expected.abs().max()))
    return worst


def test_one_file_serves_several_lengths(pair: tuple[SS2D, Any]) -> None:
    assert {node.domain for node in pair[1].graph.node} <= {"", "ai.onnx"}
    assert largest_error(*pair) < 1e-5


def test_half_precision_keeps_the_scan_in_float32(pair: tuple[SS2D, Any]) -> None:
    layer, model = pair
    halved = in_half(model)
    assert largest_error(layer, halved) < 5e-3
    kinds = {node.op_type for node in model.graph.node if node.name in scan_island(model)}
    assert {"Scan", "Exp"} <= kinds
    assert "MatMul" not in kinds
