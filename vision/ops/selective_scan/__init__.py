"""The selective scan of Mamba and its four-direction form: compiled for CPU and CUDA, traceable, exportable."""

from vision.ops.selective_scan import registration  # noqa: F401  (tells PyTorch about the operators)
from vision.ops.selective_scan.backends import backend, facts, force_backend
from vision.ops.selective_scan.errors import BackendError, ScanError
from vision.ops.selective_scan.image import ss2d
from vision.ops.selective_scan.lowering import onnx_form
from vision.ops.selective_scan.scan import selective_scan, selective_state_update

__all__ = [
    "BackendError",
    "ScanError",
    "backend",
    "facts",
    "force_backend",
    "onnx_form",
    "selective_scan",
    "selective_state_update",
    "ss2d",
]
