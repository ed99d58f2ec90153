"""An exported graph in half precision, its inputs and outputs still float32."""

from typing import Any

from vision.deploy.islands import name_nodes, scan_island


def in_half(model: Any) -> Any:
    """A copy of an ``onnx.ModelProto`` that computes in float16, by ONNX Runtime's converter.

    Selective scans stay in float32 (:func:`vision.deploy.islands.scan_island`), and so does what the converter leaves.

    Args:
        model: in float32.
    """
    import onnx
    from onnxruntime.transformers import float16

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    name_nodes(copied)
    blocked = [*float16.DEFAULT_OP_BLOCK_LIST, "Scan", "Loop"]
    return float16.convert_float_to_float16(
        copied, keep_io_types=True, op_block_list=blocked, node_block_list=sorted(scan_island(copied))
    )
