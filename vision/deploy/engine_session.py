"""Engines of TensorRT and TensorRT-RTX behind the protocol of a session; memory and streams are PyTorch's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vision.deploy.description import Description
from vision.deploy.nvidia import KINDS, Library, library, require_gpu
from vision.deploy.profiles import require_inside
from vision.deploy.session import Feeds
from vision.engine.errors import DeviceError, ExportedFileError

DEVICE = "cuda"


class EngineSession:
    """Engines behind the protocol :class:`vision.deploy.session.Session`.

    Args:
        files: the engine of each graph.
        with_library: runs them.
        about: ``engines`` of the description: what they were built with.

    Raises:
        DeviceError: there is no GPU.
        ExportedFileError: an engine that is missing, damaged, or of another version or GPU.
    """

    def __init__(self, files: Mapping[str, Path], with_library: Library, about: Mapping[str, Any]) -> None:
        require_gpu(f"running {', '.join(file.name for file in files.values())}")
        self._library, self._about = with_library, about
        self._runtime = with_library.module.Runtime(with_library.logger)
        self._engines = {name: self._load(file) for name, file in files.items()}
        self._contexts = {name: engine.create_execution_context() for name, engine in self._engines.items()}

    @classmethod
    def of(
        cls, files: Mapping[str, Path], description: Description, device: str | None = None, threads: int | None = None
    ) -> "EngineSession":
        """The session of an export's engines.

        Args:
            files: the engine of each graph.
            description: of the export.
            device: ``cuda``, or None.
            threads: None.

        Raises:
            DeviceError: another device, threads, or no GPU.
            ExportedFileError: as the constructor; a description of no engines.
            UserError: the library is not installed.
        """
        names = ", ".join(file.name for file in files.values())
        require_gpu(f"running {names}")
        if device not in (None, DEVICE) or threads is not None:
            given = f"device '{device}'" if device not in (None, DEVICE) else f"threads {threads}"
            raise DeviceError(f"{given}: {names} runs on the GPU alone; leave it out, or take the ONNX file beside it")
        about = description.text.get("engines")
        if not isinstance(about, dict) or about.get("library") not in KINDS:
            raise ExportedFileError(f"{names}: the description tells no engines; export the run again")
        return cls(files, library(about["library"]), about)

    def _load(self, file: Path) -> Any:
        if not file.is_file():
            raise ExportedFileError(f"{file}: no such file; export the run again")
        self._library.said.clear()
        engine = self._runtime.deserialize_cuda_engine(file.read_bytes())
        if engine is None:
            said = next(iter(self._library.said), "it says no reason")
            raise ExportedFileError(
                f"{file}: {self._library.kind} {self._library.version} cannot load it ({said[:200]}); it was built by "
                f"{self._about.get('version')} for {self._about.get('built_for')}: export the run again on this machine"
            )
        return engine

    def run(self, graph: str, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """The outputs of a graph by name.

        Raises:
            ConfigError: a size that the engine was not built for.
            ExportedFileError: it cannot be run on these inputs.
        """
        profile = self._about["graphs"][graph]["profile"]
        for name, values in feeds.items():
            require_inside(profile, name, values.shape, f"graph '{graph}'")
        engine, context, stream = self._engines[graph], self._contexts[graph], _stream()
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        given = [name for name in names if engine.get_tensor_mode(name) == self._library.module.TensorIOMode.INPUT]
        held = {name: torch.from_numpy(np.ascontiguousarray(feeds[name])).to(DEVICE) for name in given}
        for name, tensor in held.items():
            context.set_input_shape(name, tuple(tensor.shape))
        found = {name: self._empty(graph, name) for name in names if name not in held}
        for name, tensor in {**held, **found}.items():
            context.set_tensor_address(name, tensor.data_ptr())
        _wait()  # for the copies, which another stream makes
        if not context.execute_async_v3(stream):
            raise ExportedFileError(
                f"graph '{graph}': {self._library.kind} cannot run it: {next(iter(self._library.said), 'no reason')}"
            )
        _wait()
        return {name: tensor.cpu().numpy() for name, tensor in found.items()}

    def _empty(self, graph: str, name: str) -> torch.Tensor:
        """Room for an output, whose shape follows from the inputs'."""
        shape = tuple(self._contexts[graph].get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise ExportedFileError(
                f"graph '{graph}': the shape of '{name}' does not follow from the inputs; take ONNX"
            )
        kind = self._library.module.nptype(self._engines[graph].get_tensor_dtype(name))
        return torch.empty(shape, dtype=torch.from_numpy(np.empty(0, kind)).dtype, device=DEVICE)


def _stream() -> int:
    return int(torch.cuda.current_stream().cuda_stream)


def _wait() -> None:
    torch.cuda.synchronize()
