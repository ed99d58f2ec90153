"""What runs the graphs of an exported network: a protocol, and ONNX Runtime behind it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vision.deploy.description import KEY
from vision.engine.errors import DeviceError, ExportedFileError, UserError

Feeds = Mapping[str, NDArray[Any]]

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""ONNX Runtime's names of devices."""


class Session(Protocol):
    """The graphs of one exported network, ready to run."""

    def run(self, graph: str, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """The outputs of a graph by name, from its inputs by name."""
        ...


def onnxruntime() -> Any:
    """The module ``onnxruntime``.

    Raises:
        UserError: it is not installed.
    """
    try:
        import onnxruntime as found
    except ImportError as error:
        raise UserError(
            f"onnxruntime cannot be imported ({error}); it runs exported files: "
            'python -m pip install "triptych[export]", or onnxruntime alone'
        ) from error
    return found


class OnnxSession:
    """Graphs run by ONNX Runtime.

    Args:
        files: the ONNX file of each graph.
        device: ``cpu`` or ``cuda``.
        threads: of the CPU, for one graph; None leaves that to ONNX Runtime.
        providers: ONNX Runtime's execution providers in order of preference, in place of the device's.

    Attributes:
        metadata: what each file says of itself, by graph; the text under ``triptych``, or None.

    Raises:
        DeviceError: a device or provider that this ONNX Runtime does not have.
        ExportedFileError: a file that is missing, damaged, or cannot be run.
        UserError: onnxruntime is not installed.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        device: str = "cpu",
        threads: int | None = None,
        providers: Sequence[str] | None = None,
    ) -> None:
        self._runtime, self._device = onnxruntime(), device
        self._providers = _providers(self._runtime, device, providers)
        if threads is not None and threads < 1:
            raise DeviceError(f"threads: got {threads}, expected 1 or more")
        self._options = self._runtime.SessionOptions()
        self._options.log_severity_level = 3  # errors
        if threads is not None:
            self._options.intra_op_num_threads = threads
            self._options.inter_op_num_threads = 1
        self._sessions: dict[str, Any] = {}
        self.metadata: dict[str, str | None] = {}
        for graph, path in files.items():
            self.load(graph, path)

    def load(self, graph: str, path: Path) -> None:
        """Adds the graph of a file.

        Raises:
            DeviceError: the device cannot be started.
            ExportedFileError: as the constructor.
        """
        if not path.is_file():
            raise ExportedFileError(f"{path}: no such file; it holds the graph '{graph}'")
        version = self._runtime.__version__
        try:
            made = self._runtime.InferenceSession(str(path), self._options, providers=self._providers)
        except Exception as error:  # ONNX Runtime has many kinds, none of which can be imported by name
            raise ExportedFileError(
                f"{path}: ONNX Runtime {version} cannot load it ({_first(error)}); is it whole, and an ONNX file?"
            ) from error
        if self._providers[0] not in made.get_providers():  # it falls back to another
            raise DeviceError(
                f"device '{self._device}': ONNX Runtime has {self._providers[0]} but could not start it; is there a "
                "GPU, and are CUDA and cuDNN of the version it wants?"
            )
        self._sessions[graph] = made
        self.metadata[graph] = made.get_modelmeta().custom_metadata_map.get(KEY)

    def rename(self, old: str, new: str) -> None:
        """Calls a graph by another name."""
        for kept in (self._sessions, self.metadata):
            kept[new] = kept.pop(old)

    def run(self, graph: str, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """The outputs of a graph by name.

        Raises:
            ExportedFileError: ONNX Runtime cannot run it on these inputs.
        """
        session = self._sessions[graph]
        names = [output.name for output in session.get_outputs()]
        contiguous = {name: np.ascontiguousarray(values) for name, values in feeds.items()}
        try:
            return dict(zip(names, session.run(names, contiguous), strict=True))
        except Exception as error:
            shapes = ", ".join(f"{name} {values.dtype} {list(values.shape)}" for name, values in feeds.items())
            raise ExportedFileError(
                f"graph '{graph}': ONNX Runtime cannot run it on {shapes}: {_first(error)}"
            ) from error


def _providers(runtime: Any, device: str, providers: Sequence[str] | None) -> list[str]:
    if providers is None:
        if device not in PROVIDERS:
            raise DeviceError(f"device: got '{device}', expected one of {', '.join(PROVIDERS)}")
        providers = [PROVIDERS[device]]
    there = runtime.get_available_providers()
    missing = [name for name in providers if name not in there]
    if missing or not providers:
        raise DeviceError(
            f"this onnxruntime has no {', '.join(missing) or 'provider'}, only {', '.join(there)}; for a GPU install "
            "onnxruntime-gpu in its place"
        )
    return list(providers)


def _first(error: Exception) -> str:
    """The first line of what an error says, not too long."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
