"""What keeps float32 around a scan, in a graph written by hand."""

import pytest

from vision.deploy.islands import name_nodes, scan_island

onnx = pytest.importorskip("onnx", reason="no onnx")


def graph() -> object:
    make = onnx.helper.make_node
    state = onnx.helper.make_tensor_value_info("s", 1, [2])
    body = onnx.helper.make_graph([make("Add", ["s", "d"], ["n"])], "body", [state], [state])
    nodes = [
        make("MatMul", ["x", "w"], ["raw"], name="projection"),
        make("Softplus", ["raw"], ["step"], name="softplus"),
        make("Mul", ["step", "a"], ["exponent"], name="times"),
        make("Exp", ["exponent"], ["decay"], name="exp"),
        make("Relu", ["x"], ["beside"], name="beside"),
        make("Scan", ["first", "decay"], ["last", "all"], name="scan", body=body, num_scan_inputs=1),
        make("Mul", ["all", "beside"], ["y"], name="after"),
    ]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], []))


def test_an_island_ends_at_the_layers_that_feed_it() -> None:
    assert scan_island(graph()) == {"scan", "exp", "times", "softplus"}


def test_every_node_gets_a_name_of_its_own() -> None:
    model = graph()
    for node in model.graph.node:  # type: ignore[attr-defined]
        node.name = "" if node.op_type == "Mul" else "same"
    name_nodes(model)
    names = [node.name for node in model.graph.node]  # type: ignore[attr-defined]
    assert len(set(names)) == 7
    assert all(names)
