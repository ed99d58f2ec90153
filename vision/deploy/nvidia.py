"""The two libraries that build and run engines on NVIDIA's GPUs, behind one interface: TensorRT and TensorRT-RTX."""

import sys
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from vision.engine.errors import DeviceError, UserError

KINDS = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx_bindings"}
"""The module of each; the extra that installs it has the kind's name."""


@dataclass(frozen=True)
class Library:
    """One of them.

    Attributes:
        kind: ``tensorrt`` or ``tensorrt-rtx``.
        module: its Python module.
        logger: what it logs to; each library keeps the first that it is given.
        said: its warnings and errors; cleared before each step.
    """

    kind: str
    module: Any
    logger: Any
    said: list[str]

    @property
    def version(self) -> str:
        """Of the library."""
        return str(self.module.__version__)

    @property
    def ahead(self) -> bool:
        """Whether engines are built ahead of time, without a GPU."""
        return self.kind == "tensorrt-rtx"


def library(kind: str) -> Library:
    """One of :data:`KINDS`.

    Raises:
        UserError: it is not installed, or its shared libraries cannot be loaded.
    """
    try:
        module = import_module(KINDS[kind])
    except ImportError as error:
        raise UserError(
            f"{KINDS[kind]} cannot be imported ({error}); engines need the extra '{kind}': python -m pip install "
            f'"triptych[{kind}]"' + ", which fetches NVIDIA's own wheels" * (kind == "tensorrt")
        ) from error
    return _opened(kind, module)


@cache
def _opened(kind: str, module: Any) -> Library:
    said: list[str] = []

    class Log(module.ILogger):
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            if severity <= module.ILogger.ERROR:
                said.append(text)

    return Library(kind, module, Log(), said)


def gpu() -> str | None:
    """The name of the GPU at hand, as PyTorch tells it; None without one."""
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def require_gpu(doing: str) -> str:
    """The name of the GPU at hand.

    Args:
        doing: what it is needed for.

    Raises:
        DeviceError: there is none.
    """
    name = gpu()
    if name is None:
        raise DeviceError(
            f"{doing} needs an NVIDIA GPU, and PyTorch sees none on this {sys.platform} machine; do it where there is "
            "one (python tools/doctor.py tells), or export with --format onnx and run that on the CPU"
        )
    return name
