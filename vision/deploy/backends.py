"""A subject made ready to be called by a backend, in a precision, on a device; or a refusal with the fix."""

import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vision.deploy.half import in_half
from vision.deploy.naming import BACKENDS, PRECISIONS
from vision.deploy.nvidia import KINDS
from vision.deploy.onnx import onnx_model, save
from vision.deploy.parity import runner_of
from vision.deploy.quantise import FEWEST, in_int8
from vision.deploy.session import PROVIDERS, OnnxSession, onnxruntime
from vision.deploy.subjects import Subject, description_of
from vision.engine.deployment import DeploymentError, Graph, Run
from vision.engine.errors import ConfigError, DeviceError
from vision.engine.task import Task

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
DTYPE_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "int8"}
TAKES = {
    "eager": ("fp32", "bf16", "fp16"),
    "compiled": ("fp32", "bf16", "fp16"),
    "onnxruntime": ("fp32", "fp16", "int8"),
    "aoti": ("fp32",),
    "tensorrt": ("fp32", "fp16"),
}
"""The precisions of each backend."""

MODEL = "model"
RANDOM_RANGES = ", ranges from random inputs: its outputs are of no use"


@dataclass(frozen=True)
class How:
    """How a subject is run.

    Attributes:
        backend: ``eager``, ``compiled``, ``onnxruntime``, ``aoti`` or ``tensorrt``.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        device: ``cpu`` or ``cuda``.
        batch: inputs at once.
        threads: of the CPU.
    """

    backend: str
    precision: str = "fp32"
    device: str = "cpu"
    batch: int = 1
    threads: int = 1

    def check(self) -> None:
        """Refuses what cannot be had.

        Raises:
            ConfigError: an unknown name, a precision that the backend does not have, a number below 1.
            DeviceError: a device or library that is not there.
        """
        if self.backend not in BACKENDS or self.precision not in PRECISIONS:
            raise ConfigError(
                f"backend '{self.backend}' in '{self.precision}': expected one of {', '.join(BACKENDS)} in one of "
                f"{', '.join(PRECISIONS)}"
            )
        if self.precision not in TAKES[self.backend]:
            others = [name for name, taken in TAKES.items() if self.precision in taken]
            raise ConfigError(
                f"{self.backend} has no {self.precision} (it has {', '.join(TAKES[self.backend])}); "
                f"{self.precision} runs in {', '.join(others)}"
            )
        if min(self.batch, self.threads) < 1:
            raise ConfigError(f"batch {self.batch}, threads {self.threads}: expected 1 or more")
        if self.device not in ("cpu", "cuda"):
            raise ConfigError(f"device '{self.device}': expected cpu or cuda")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise DeviceError("device cuda: torch sees no GPU here; use --device cpu, or see tools/doctor.py")
        self._need_libraries()

    def _need_libraries(self) -> None:
        if self.backend == "onnxruntime":
            _need("onnxruntime", "export")
            if self.device == "cuda" and PROVIDERS["cuda"] not in onnxruntime().get_available_providers():
                raise DeviceError(
                    "onnxruntime on cuda: this onnxruntime is built for CPUs; python -m pip install onnxruntime-gpu"
                )
        if self.backend == "tensorrt":
            if not any(importlib.util.find_spec(module) for module in KINDS.values()):
                _need("tensorrt", "tensorrt")
            if self.device != "cuda":
                raise DeviceError("tensorrt runs on NVIDIA GPUs only: add --device cuda, or use onnxruntime on a CPU")
        if self.backend in ("aoti", "compiled") and self.device == "cpu" and not _has_compiler():
            raise DeviceError(
                f"{self.backend} needs a C++ compiler on a CPU (g++ or clang++): install one, or use eager"
            )


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in ("g++", "c++", "clang++"))


def _need(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise DeviceError(f"{module} is not installed: python -m pip install 'triptych[{extra}]'")


@dataclass
class Ready:
    """A subject that can be called again and again.

    Attributes:
        call: runs one batch, which lies ready on the device.
        how: what was asked for.
        about: what runs it: library and version under ``runs``, and ``dtype``, ``layout``.
        file: the exported file that runs; None of a network in PyTorch.
        folder: temporary files it needs.
    """

    call: Callable[[], Any]
    how: How
    about: dict[str, Any]
    file: Path | None = None
    folder: "tempfile.TemporaryDirectory[str] | None" = field(default=None, repr=False)


def ready(subject: Subject, how: How) -> Ready:
    """Makes a subject ready.

    Raises:
        UserError: it cannot be run like that; with the fix.
    """
    how.check()
    torch.set_num_threads(how.threads)
    inputs = subject.inputs(how.batch)
    if subject.file is not None:
        return _file(subject.file, subject, inputs, how)
    assert subject.graph is not None
    if how.backend in ("eager", "compiled"):
        return _torch(subject.graph.module, inputs, how)
    folder = tempfile.TemporaryDirectory(prefix="benchmark")
    made = _file(exported(subject.graph, inputs, how, Path(folder.name)), subject, inputs, how)
    made.folder = folder
    return made


def _torch(network: nn.Module, inputs: Mapping[str, Tensor], how: How) -> Ready:
    network = network.to(how.device)
    given = [t.to(how.device) for t in inputs.values()]
    run: Callable[..., Any] = torch.compile(network, dynamic=False) if how.backend == "compiled" else network

    def call() -> Any:
        with torch.inference_mode(), _cast(how):
            return run(*given)

    layout = "channels-last weights" if _is_channels_last(network) else "contiguous"
    return Ready(call, how, {"runs": f"torch {torch.__version__}", "dtype": _dtype_of(how), "layout": layout})


def _cast(how: How) -> AbstractContextManager[Any]:
    return nullcontext() if how.precision == "fp32" else torch.autocast(how.device, DTYPES[how.precision])


def _dtype_of(how: How) -> str:
    return "float32" if how.precision == "fp32" else f"autocast to {str(DTYPES[how.precision]).removeprefix('torch.')}"


def _is_channels_last(network: nn.Module) -> bool:
    kernels = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d)]
    wide = [k for k in kernels if k.shape[1] > 1 and k.shape[2] > 1]
    return bool(wide) and all(k.is_contiguous(memory_format=torch.channels_last) for k in wide)


def _file(file: Path, subject: Subject, inputs: Mapping[str, Tensor], how: How) -> Ready:
    if how.backend == "tensorrt":
        made = _engine_file(file, inputs, how)
    elif how.backend == "onnxruntime":
        made = _onnx_file(file, subject, inputs, how)
    else:
        made = _aoti_file(file, inputs, how)
    made.file = file
    return made


def _onnx_file(file: Path, subject: Subject, inputs: Mapping[str, Tensor], how: How) -> Ready:
    session = OnnxSession({MODEL: file}, how.device, how.threads)
    feeds = {key: value.numpy() for key, value in inputs.items()}
    made = subject.file is None and how.precision == "int8"
    about = {
        "runs": f"onnxruntime {onnxruntime().__version__}, {PROVIDERS[how.device]}",
        "dtype": DTYPE_NAMES[how.precision] + (RANDOM_RANGES if made else ""),
        "layout": "the runtime's own",
    }
    return Ready(lambda: session.run(MODEL, feeds), how, about)


def _engine_file(file: Path, inputs: Mapping[str, Tensor], how: How) -> Ready:
    from vision.deploy.engine_session import EngineSession

    told = description_of(file)
    graph = next((name for name, each in told.graphs.items() if each.file == file.name), None)
    if graph is None:
        raise ConfigError(f"{file}: was renamed; its graphs are {', '.join(g.file for g in told.graphs.values())}")
    session = EngineSession.of({graph: file}, told)
    feeds = {key: value.numpy() for key, value in inputs.items()}
    engines = told.text["engines"]
    about = {"runs": f"{engines['library']} {engines['version']}", "dtype": DTYPE_NAMES[how.precision],
             "layout": "the library's own"}  # fmt: skip
    return Ready(lambda: session.run(graph, feeds), how, about)


def _aoti_file(file: Path, inputs: Mapping[str, Tensor], how: How) -> Ready:
    from torch._inductor import aoti_load_package

    try:
        run = aoti_load_package(str(file))
    except Exception as error:
        raise ConfigError(f"{file}: no package that AOTInductor compiled: {error}") from error
    given = [t.to(how.device) for t in inputs.values()]

    def call() -> Any:
        with torch.inference_mode():
            return run(*given)

    about = {"runs": f"AOTInductor of torch {torch.__version__}", "dtype": DTYPE_NAMES[how.precision],
             "layout": "the compiler's own"}  # fmt: skip
    return Ready(call, how, about)


def exported(graph: Graph, inputs: Mapping[str, Tensor], how: How, folder: Path) -> Path:
    """Exports a graph; in int8 with ranges from random inputs, which is enough to time it and no more.

    Raises:
        ConfigError: a backend whose files are not made on the fly.
        DeploymentError: it cannot be exported.
    """
    if how.backend == "tensorrt":
        raise ConfigError(
            "tensorrt: engines are not built on the fly; run tools/export.py --format tensorrt or tensorrt-rtx, and "
            "give its engine"
        )
    if how.backend == "onnxruntime":
        return _to_onnx(graph, inputs, how.precision, folder)
    file, module = folder / f"{graph.name}.pt2", graph.module.to(how.device)
    try:
        with torch.no_grad():
            program = torch.export.export(module, tuple(t.to(how.device) for t in inputs.values()))
            torch._inductor.aoti_compile_and_package(program, package_path=str(file))
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DeploymentError(f"graph '{graph.name}' cannot be compiled by AOTInductor: {reason}") from error
    return file


def _to_onnx(graph: Graph, inputs: Mapping[str, Tensor], precision: str, folder: Path) -> Path:
    file, model = folder / f"{graph.name}.onnx", onnx_model(graph)
    if precision == "fp16":
        model = in_half(model)
    if precision == "int8":
        feeds = {key: value.numpy() for key, value in inputs.items()}
        model = in_int8(model, (feeds for _ in range(FEWEST)), FEWEST)
    save(model, file, {})
    return file


def graph_runner(task: Task, how: How, folder: Path) -> Run:
    """Runs the graphs of a task by a backend: tensors on the CPU in and out, of any number of samples or people.

    Args:
        task: with its weights.
        how: backend, precision, device, threads.
        folder: for files that have to be made.

    Raises:
        ConfigError: a backend or precision whose graphs are not made on the fly.
        UserError: it cannot be run as asked for.
    """
    how.check()
    deployment = task.deployment()
    if how.backend == "onnxruntime" and how.precision == "fp32":
        files = {graph.name: _to_onnx(graph, {}, how.precision, folder) for graph in deployment.graphs}
        return runner_of(OnnxSession(files, how.device, how.threads), deployment)
    if how.backend not in ("eager", "compiled"):
        raise ConfigError(
            f"{how.backend} in {how.precision}: a whole pipeline is not made on the fly; use eager, compiled, or "
            "onnxruntime in fp32"
        )
    modules: dict[str, Callable[..., Any]] = {}
    for graph in deployment.graphs:
        module = graph.module.to(how.device)
        modules[graph.name] = torch.compile(module) if how.backend == "compiled" else module

    def run(graph: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.inference_mode(), _cast(how):
            found = modules[graph](*(t.to(how.device) for t in inputs))
        return tuple(t.float().cpu() for t in (found if isinstance(found, tuple) else (found,)))

    return run
