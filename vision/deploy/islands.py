"""The parts of an exported graph that have to keep float32: scans, and what makes their decays and steps."""

from typing import Any

HEAVY = ("MatMul", "Gemm", "Conv", "ConvTranspose", "LayerNormalization", "Scan", "Loop")
"""Where a walk towards the inputs ends: what these give is as exact in half precision as the kernels' own inputs."""


def scan_island(model: Any) -> set[str]:
    """Names of the nodes of every ``Scan`` and of all that lies between it and the layers that feed it.

    A state decays by a factor near 1 at each of many steps; its distance from 1, rounded to 10 or 7 bits, would be
    wrong by a tenth and more.

    Args:
        model: an ``onnx.ModelProto`` whose nodes have names.
    """
    makers = {output: node for node in model.graph.node for output in node.output}
    island = {node.name: node for node in model.graph.node if node.op_type in ("Scan", "Loop")}
    waiting = list(island.values())
    while waiting:
        for source in waiting.pop().input:
            node = makers.get(source)
            if node is not None and node.op_type not in HEAVY and node.name not in island:
                island[node.name] = node
                waiting.append(node)
    return set(island)


def name_nodes(model: Any) -> None:
    """Gives every node without a name one, and nodes that share a name names of their own."""
    seen: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{number}"
        seen.add(node.name)
