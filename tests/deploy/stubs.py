"""Exports of a few operators each, one of every kind that the runner knows, written by hand with onnx alone."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vision.deploy.description import KEY, SIDECAR
from vision.pose.keypoints import Skeleton

CLASSES = ["ant", "bee", "cow", "dog", "elk", "fox"]
SKELETON = Skeleton(
    "arrow", ("left_tip", "right_tip", "tail"), (("left_tip", "right_tip"),), (("left_tip", "tail"),), (0.05,) * 3
)
STATISTICS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
KINDS = {np.float32: TensorProto.FLOAT, np.int64: TensorProto.INT64}


class Writer:
    """An ONNX graph as it is written."""

    def __init__(self, **inputs: tuple[list[int | str], type]) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs = inputs

    def weights(self, *shape: int, scale: float = 1.0) -> str:
        return self.constant((scale * self.rng.standard_normal(shape)).astype(np.float32))

    def constant(self, values: Any) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def __call__(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        output = name or f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def model(self, **outputs: list[int | str]) -> onnx.ModelProto:
        ports = [helper.make_tensor_value_info(n, KINDS[kind], shape) for n, (shape, kind) in self.inputs.items()]
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in outputs.items()]
        graph = helper.make_graph(self.nodes, "graph", ports, ends, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def write(folder: Path, after: dict[str, Any], before: dict[str, Any], **models: onnx.ModelProto) -> Path:
    """An export of these graphs: its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    graphs = {name: {"file": f"{name}.onnx", **_ports(model)} for name, model in models.items()}
    tree = {"format": 1, "triptych": "0", "task": "stub", "graphs": graphs, "before": before, "after": after}
    (folder / SIDECAR).write_text(json.dumps(tree))
    for name, model in models.items():
        helper.set_model_props(model, {KEY: json.dumps(tree)})
        onnx.save(model, folder / f"{name}.onnx")
    return folder


def _ports(model: onnx.ModelProto) -> dict[str, Any]:
    return {
        "inputs": {port.name: _port(port) for port in model.graph.input},
        "outputs": {port.name: _port(port) for port in model.graph.output},
    }


def _port(port: onnx.ValueInfoProto) -> dict[str, Any]:
    kind = port.type.tensor_type
    shape = [axis.dim_param or axis.dim_value for axis in kind.shape.dim]
    return {"shape": shape, "dtype": helper.tensor_dtype_to_np_dtype(kind.elem_type).name, "smallest": 16}


def classifier(folder: Path, size: int = 12) -> Path:
    w = Writer(image=(["N", 3, size, size], np.float32))
    w("MatMul", w("Flatten", "image"), w.weights(3 * size * size, len(CLASSES), scale=0.05), name="logits")
    before = {"type": "image", "size": size, "channels": 3, "resize": "short_side", **STATISTICS}
    return write(folder, {"type": "classes", "classes": CLASSES}, before, model=w.model(logits=["N", len(CLASSES)]))


def targets(folder: Path) -> Path:
    w = Writer(image=(["N", 2, "H", "W"], np.float32))
    w("Conv", "image", w.weights(1, 2, 3, 3, scale=0.3), pads=[1, 1, 1, 1], name="logits")
    before = {"type": "infrared", "bits": None, "normalise": "image", "mean": None, "std": None, "high_pass": True}
    after = {"type": "targets", "threshold": 0.6, "min_area": 2}
    return write(folder, after, before, model=w.model(logits=["N", 1, "H", "W"]))


def counting(folder: Path) -> Path:
    w = Writer(image=(["N", 1, "H", "W"], np.float32))
    w("MatMul", w("Flatten", w("GlobalAveragePool", "image")), w.weights(1, 4), name="logits")
    after = {"type": "count", "classes": 4}
    return write(folder, after, {"type": "target_image"}, model=w.model(logits=["N", 4]))


def crops(**after: Any) -> Callable[[Path], Path]:
    """Of heatmaps: crops of 32 x 48 pixels."""

    def heatmaps(folder: Path) -> Path:
        w = Writer(image=(["N", 3, 48, 32], np.float32))
        w("Conv", "image", w.weights(3, 3, 4, 4, scale=0.1), strides=[4, 4], name="maps")
        return write(folder, _person(**after), CROP, model=w.model(maps=["N", 3, 12, 8]))

    return heatmaps


CROP = {"type": "crop", "input_size": [32, 48], "padding": 1.25, **STATISTICS}


def _person(**after: Any) -> dict[str, Any]:
    return {"input_size": [32, 48], "flip_test": True, "skeleton": json.loads(json.dumps(asdict(SKELETON))), **after}


def simcc(folder: Path) -> Path:
    w = Writer(image=(["N", 3, 48, 32], np.float32))
    flat = w("Flatten", "image")
    for name, bins in (("x", 64), ("y", 96)):
        rows = w("MatMul", flat, w.weights(3 * 48 * 32, 3 * bins, scale=0.01))
        w("Reshape", rows, w.constant(np.array([-1, 3, bins])), name=name)
    after = _person(type="simcc", bins=[64, 96], sigma=[2.0, 2.4], beta=10.0)
    return write(folder, after, CROP, model=w.model(x=["N", 3, 64], y=["N", 3, 96]))


def single_stage(folder: Path) -> Path:
    image = Writer(image=(["N", 3, "H", "W"], np.float32))
    image("Conv", "image", image.weights(6, 3, 4, 4, scale=0.1), strides=[4, 4], name="features")
    centres = image("Sigmoid", image("Conv", "features", image.weights(1, 6, 1, 1)))
    image("Squeeze", centres, image.constant(np.array([1])), name="centres")
    image("Conv", "features", image.weights(3, 6, 1, 1), name="shared")
    people = Writer(shared=([1, 3, "h", "w"], np.float32), vectors=(["P", 6], np.float32), coords=(["P", 2], np.int64))
    own = people("MatMul", "vectors", people.weights(6, 3))
    places = people("Cast", "coords", to=TensorProto.FLOAT)
    own = people("Add", own, people("MatMul", places, people.weights(2, 3, scale=0.01)))
    gates = people("Unsqueeze", own, people.constant(np.array([2, 3])))
    people("Sigmoid", people("Mul", gates, "shared"), name="heatmaps")
    after = {"type": "single_stage", "most": 5, "threshold": 0.01, "kernel": 3, "flip_test": True, "nms": 0.8,
             "skeleton": _person()["skeleton"]}  # fmt: skip
    before = {"type": "whole", "short": 64, "scales": [1.5], **STATISTICS}
    return write(
        folder, after, before,
        image=image.model(features=["N", 6, "h", "w"], centres=["N", "h", "w"], shared=["N", 3, "h", "w"]),
        people=people.model(heatmaps=["P", 3, "h", "w"]),
    )  # fmt: skip


def events(folder: Path) -> Path:
    w = Writer(frames=(["N", 5, 2, 10, 10], np.float32))
    means = w("ReduceMean", "frames", w.constant(np.array([3, 4])), keepdims=0)
    scores = w("MatMul", means, w.weights(2, len(CLASSES), scale=9.0))
    w("Transpose", scores, perm=[1, 0, 2], name="outputs")
    before = {"type": "frames", "frames": 5, "height": 10, "width": 12, "size": 10, "split_by": "number",
              "duration": None}  # fmt: skip
    after = {"type": "spikes", "classes": CLASSES, "output": "logits"}
    return write(folder, after, before, model=w.model(outputs=[5, "N", len(CLASSES)]))


KIND: dict[str, Callable[[Path], Path]] = {
    "classes": classifier,
    "targets": targets,
    "count": counting,
    "heatmap": crops(type="heatmap"),
    "udp_heatmap": crops(type="udp_heatmap", sigma=1.0, blur=5),
    "simcc": simcc,
    "single_stage": single_stage,
    "spikes": events,
}
"""A writer of every kind of export."""
