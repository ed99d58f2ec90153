"""An exported graph in 8-bit integers, by ONNX Runtime's static quantisation."""

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vision.deploy.islands import name_nodes, scan_island
from vision.deploy.session import Feeds
from vision.engine.deployment import DeploymentError

FEWEST = 32
"""Samples at least: of n samples and one more, the one more holds the largest activation with probability 1 / (n + 1),
so that with 32 a range is too narrow for one new sample in 33."""

KINDS = ("Conv", "Gemm", "MatMul", "Add", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool", "Relu", "LeakyRelu")
"""Operators that are quantised: those with weights, and what lies between them, so that integers go on."""


def in_int8(model: Any, feeds: Iterable[Feeds], count: int) -> Any:
    """A quantised copy of an ``onnx.ModelProto``: weights by channel, activations by tensor, as Q and DQ nodes.

    Ranges are the smallest and largest values seen. Weights have 7 bits: on processors without VNNI, the products of
    8-bit weights overflow 16-bit sums, and the same file would compute something else there. The layers that give the
    outputs, and selective scans, stay in float32.

    Args:
        model: in float32.
        feeds: inputs by name, of real training samples.
        count: how many samples they hold.

    Raises:
        DeploymentError: fewer than :data:`FEWEST` samples.
    """
    require_enough(count)
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    name_nodes(copied)
    kept = scan_island(copied) | _last_layers(copied)
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        onnx.save(copied, str(before))
        with _without_advice():
            quantize_static(
                str(before), str(after), _Reader(iter(feeds)), quant_format=QuantFormat.QDQ, per_channel=True,
                reduce_range=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                op_types_to_quantize=list(KINDS), nodes_to_exclude=sorted(kept),
            )  # fmt: skip
        return onnx.load(str(after))


ADVICE = ("pre-processing before quantization", "is out-of-range for weight")
"""What ONNX Runtime says for nothing: the exporter has simplified the model, and vectors have one range anyway."""


@contextmanager
def _without_advice() -> Iterator[None]:
    """Without :data:`ADVICE`."""

    def other(record: logging.LogRecord) -> bool:
        return not any(each in record.getMessage() for each in ADVICE)

    root = logging.getLogger()
    root.addFilter(other)
    try:
        yield
    finally:
        root.removeFilter(other)


def require_enough(count: int) -> None:
    """Refuses a calibration set that is too small.

    Raises:
        DeploymentError: fewer than :data:`FEWEST` samples.
    """
    if count < FEWEST:
        raise DeploymentError(
            f"int8 needs at least {FEWEST} training samples to find the ranges of activations by, got {count}: with n "
            "samples a new one exceeds a range with probability 1/(n+1); raise --calibration, or give the data more of "
            "them (data.limit, say)"
        )


class _Reader:
    """The calibration samples as ONNX Runtime asks for them."""

    def __init__(self, feeds: Iterator[Feeds]) -> None:
        self.feeds = feeds

    def get_next(self) -> Any:
        """The next inputs, or None at the end."""
        return next(self.feeds, None)


def _last_layers(model: Any) -> set[str]:
    """The nodes with weights from which outputs are reached without passing another."""
    makers = {output: node for node in model.graph.node for output in node.output}
    found: set[str] = set()
    waiting, seen = [value.name for value in model.graph.output], set()
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type in ("Conv", "Gemm", "MatMul", "ConvTranspose"):
            found.add(node.name)
        else:
            waiting += list(node.input)
    return found
