"""Every registered task and network as ONNX: what the file gives is what PyTorch gives, at other sizes too."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.contract.cases import SMALL, small_task
from tests.contract.test_networks import NETWORKS, case_of
from vision.deploy.parity import modules_of
from vision.engine.deployment import Deployment, Graph, images_graph
from vision.engine.folding import deployed, takes_any_size
from vision.engine.registry import names

onnx = pytest.importorskip("onnx", reason="no onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="no onnxruntime")
pytest.importorskip("onnxscript", reason="no onnxscript")

from vision.deploy.onnx import onnx_model  # noqa: E402 (it needs what is asked for above)

FOUND_BY_DATA = {"cid", "dhrnet"}
"""Networks whose forward pass looks for people: exported as two graphs, by their task."""
LONG = {"mamkpd_t", "mamkpd_s", "mamkpd_b", "mamkpd_l", "top_down_pose", "spiking_resnet18", "spiking_vgg11"}
"""Those whose export takes a minute of a busy processor."""
SIZED = {"cifar_resnet", "preact_resnet18", "scm", "tbcnet", "timm", "wide_resnet"}
"""Those whose tasks leave the size of images open where the network takes any."""
MORE = {"N": 1, "P": 2, "H": 32, "W": 64, "h": 3, "w": 5}


def marked(all_names: list[str]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in all_names]


def run(model: Any, graph: Graph, inputs: tuple[Tensor, ...]) -> list[Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {name: x.numpy() for name, x in zip(graph.inputs, inputs, strict=True)})  # type: ignore


def larger(graph: Graph, seed: int = 1) -> tuple[Tensor, ...]:
    """Other inputs than the example, every dynamic axis longer, sides by whole multiples."""
    made, generator = [], torch.Generator().manual_seed(seed)
    for name, example in zip(graph.inputs, graph.example, strict=True):
        shape = list(example.shape)
        for axis, letter in graph.dynamic.get(name, {}).items():
            shape[axis] += MORE[letter] * (graph.multiple if letter in "HW" else 1)
        if example.dtype == torch.int64:
            made.append(torch.randint(4, shape, generator=generator))
        else:
            made.append(torch.rand(shape, generator=generator))
    return tuple(made)


def check(graph: Graph, trusted: Deployment) -> None:
    model = onnx_model(graph)
    onnx.checker.check_model(model)
    assert not {"BatchNormalization", "SelectiveScan"} & {node.op_type for node in model.graph.node}
    for inputs in (graph.example, larger(graph)):
        expected = modules_of(trusted)(graph.name, *inputs)
        for found, wanted in zip(run(model, graph, inputs), expected, strict=True):
            scale = float(wanted.abs().max()) or 1.0
            np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("name", marked(sorted({*names(kind="task"), *SMALL})))
def test_a_task(name: str) -> None:
    task = small_task(name).eval()
    trusted = task.deployment(folded=False)
    for graph in task.deployment().graphs:
        check(graph, trusted)


@pytest.mark.parametrize("name", marked(sorted(set(NETWORKS) - FOUND_BY_DATA)))
def test_a_network(name: str) -> None:
    case = case_of(name)
    network, images = case.build(), case.images(2)
    with torch.no_grad():
        network.train()(case.images())  # running statistics that are no identity
        network.eval()
    for part in network.modules():
        reset = getattr(part, "reset", None)
        if callable(reset):
            reset()
    folded, plain = (deployed(network, lambda n: n(images), folded=folded) for folded in (True, False))
    any_size = name in SIZED and takes_any_size(folded, images)
    graph = images_graph(folded, images, ("output",), any_size)
    check(graph, Deployment((images_graph(plain, images, ("output",), any_size),)))
