"""Predictions of an exported file with onnxruntime, NumPy and Pillow alone: ``Predictor("model.onnx")(image)``."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision.deploy.description import SIDECAR, Description, Port, parsed, told
from vision.deploy.predicting import Predicting
from vision.deploy.session import OnnxSession, Session
from vision.engine.errors import DataError, ExportedFileError, UserError
from vision.engine.exported import Boxes, ExportedSystem, Given, name_of
from vision.engine.prediction import Picture, Prediction, Regions

ENGINE = ".engine"
"""What engines' files end in."""
TOP_DOWN = ("vision.pose.exported", "ExportedTopDown", ("crop",))
SYSTEMS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "classes": ("vision.classification.exported", "ExportedClassifier", ("image",)),
    "simcc": TOP_DOWN,
    "udp_heatmap": TOP_DOWN,
    "heatmap": TOP_DOWN,
    "single_stage": ("vision.pose.exported", "ExportedSingleStage", ("whole",)),
    "targets": ("vision.infrared.exported", "ExportedTargets", ("infrared",)),
    "count": ("vision.infrared.exported", "ExportedCounting", ("target_image",)),
    "spikes": ("snn.exported", "ExportedSpiking", ("image", "frames")),
}
"""For each ``after.type``, the class that makes predictions, and which ``before.type`` it takes. A file can only choose
among these: nothing else is ever imported for it."""


class Predictor(Predicting[Any]):
    """An exported network that predicts on images, as its task does in PyTorch.

    Args:
        path: an exported ONNX file or engine, or the folder of an export. A network of several graphs finds the others
            beside.
        device: ``cpu`` or ``cuda``; None takes the CPU, and for engines the GPU.
        threads: of the CPU; None leaves that to the session.
        session: runs the graphs in place of ONNX Runtime.

    Attributes:
        description: what the file says of itself.

    Raises:
        ExportedFileError: a file that is missing, damaged, not exported by this package, or of a newer version of it.
        DeviceError: a device that is not there.
        UserError: onnxruntime is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        device: str | None = None,
        threads: int | None = None,
        session: Session | None = None,
    ) -> None:
        self.path = Path(path)
        opened = _Opened(self.path, session is None, device, threads)
        self.description, self.after = opened.description, opened.description.after
        self.system = _system_of(self.description, str(self.path))
        self.session = opened.session_of(self.system.graphs) if session is None else session

    def predict(
        self, image: Given, boxes: Boxes | None = None, name: str | None = None, number: int | None = None
    ) -> Prediction:
        called = name or name_of(image)
        seen = self.system.read(image, called)
        return self.predict_seen(seen, called, number, boxes)

    def predict_seen(self, seen: Any, name: str, number: int | None = None, boxes: Boxes | None = None) -> Prediction:
        """As :meth:`predict`, of what ``system.read`` gave."""
        return self.system.predict(_Run(self, name), seen, name, number, boxes)

    def picture(self, image: Given) -> Picture:
        return self.system.picture(self.system.read(image, name_of(image)))


@dataclass(frozen=True)
class ExportedFiles:
    """Predictions of an exported network on files and frames, drawn, for ``tools/predict.py``.

    Args:
        predictor: the network.
    """

    predictor: Predictor

    def file(self, path: str, number: int, regions: Regions | None) -> tuple[Prediction, Picture]:
        """The prediction for an image file."""
        return self._predict(self.predictor.system.read(path, path), path, number, regions)

    def frame(self, picture: Picture, name: str, number: int, regions: Regions | None) -> tuple[Prediction, Picture]:
        """The prediction for a frame of a video."""
        return self._predict(self.predictor.system.read(picture, name), name, number, regions)

    def _predict(self, seen: Any, name: str, number: int, regions: Regions | None) -> tuple[Prediction, Picture]:
        picture, boxes = self.predictor.system.picture(seen), None
        if regions is not None:
            boxes = [[*box, score] for box, score in regions(picture, name)]
        prediction = self.predictor.predict_seen(seen, name, number, boxes)
        return prediction, prediction.draw(picture)


class _Run:
    """Runs graphs by their inputs in order, in the types that the file asks for."""

    def __init__(self, predictor: Predictor, name: str) -> None:
        self.graphs, self.session, self.name = predictor.description.graphs, predictor.session, name

    def __call__(self, graph: str, *inputs: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        ports = self.graphs[graph]
        sizes: dict[str, int] = {}
        feeds = {
            name: _fitting(values, port, f"{self.name}: input '{name}'", sizes)
            for (name, port), values in zip(ports.inputs.items(), inputs, strict=True)
        }
        outputs = self.session.run(graph, feeds)
        return tuple(_as_float(outputs[name]) for name in ports.outputs)


def _fitting(values: NDArray[Any], port: Port, where: str, sizes: dict[str, int]) -> NDArray[Any]:
    """The input in the file's type.

    Raises:
        DataError: of a size that the network cannot take.
    """
    shape = list(values.shape)
    fits = len(shape) == len(port.shape)
    for side, axis in zip(shape, port.shape, strict=False):
        if isinstance(axis, int):
            fits = fits and side == axis
            continue
        fits = fits and side == sizes.setdefault(axis, side)
        if axis in ("H", "W"):
            fits = fits and side >= port.smallest and side % port.multiple == 0
    if not fits:
        bounds = f", H and W at least {port.smallest}" * (port.smallest > 1)
        bounds += f" and multiples of {port.multiple}" * (port.multiple > 1)
        wanted = ", ".join(map(str, port.shape))
        raise DataError(f"{where} is {shape}, and the exported network takes [{wanted}]{bounds}; resize the image")
    return values.astype(np.dtype(port.dtype), copy=False)


def _as_float(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(np.float32, copy=False) if np.issubdtype(values.dtype, np.floating) else values


class _Opened:
    """The files of an export: what they say of themselves, and the session that runs them.

    Args:
        path: a file of it, or its folder.
        by_file: an ONNX file is asked what it says; false takes the sidecar beside it.
        device: of the session.
        threads: of the session.
    """

    def __init__(self, path: Path, by_file: bool, device: str | None, threads: int | None) -> None:
        if not path.exists():
            raise ExportedFileError(f"{path}: no such file or folder")
        self.path, self.folder = path, path if path.is_dir() else path.parent
        self.device, self.threads, self.asked = device or "cpu", threads, device
        self.given = by_file and path.is_file() and path.suffix.lower() != ENGINE
        if self.given:
            self.session = OnnxSession({"": path}, self.device, threads)
            self.description = _of_metadata(self.session.metadata[""], path)
            return
        if not (self.folder / SIDECAR).is_file():
            raise ExportedFileError(
                f"{self.folder}: holds no {SIDECAR}; give an exported file, or the folder of an export"
            )
        self.description = parsed(_text_of(self.folder / SIDECAR), str(self.folder / SIDECAR))

    def session_of(self, graphs: Sequence[str]) -> Session:
        """What runs these graphs.

        Raises:
            ExportedFileError: a graph that is not there, no ONNX file, or one of another export.
        """
        known = self.description.graphs
        missing = [graph for graph in graphs if graph not in known]
        if missing:
            raise ExportedFileError(f"{self.path}: has no graph '{missing[0]}', only {', '.join(known)}")
        files = {graph: self.folder / known[graph].file for graph in graphs}
        if all(file.suffix == ENGINE for file in files.values()):
            return self._engines(files)
        if not self.given:
            foreign = [file for file in files.values() if file.suffix != ".onnx"]
            if foreign:
                raise ExportedFileError(f"{foreign[0]}: is no ONNX file; export the run with --format onnx")
            session = OnnxSession(files, self.device, self.threads)
        else:
            session = self._with(files)
        for graph, text in session.metadata.items():
            if _of_metadata(text, files[graph]).text != self.description.text:
                raise ExportedFileError(
                    f"{files[graph]}: is of another export than {self.path}; keep the files of one together"
                )
        return session

    def _engines(self, files: dict[str, Path]) -> Session:
        from vision.deploy.engine_session import EngineSession  # needs PyTorch and NVIDIA's libraries

        if self.path.is_file() and self.path not in files.values():
            names = ", ".join(file.name for file in files.values())
            raise ExportedFileError(f"{self.path}: was renamed; its graphs are {names}")
        return EngineSession.of(files, self.description, self.asked, self.threads)

    def _with(self, files: dict[str, Path]) -> OnnxSession:
        """The session of the given file, and of the others beside it; a single one may have another name."""
        own = next((graph for graph, file in files.items() if file.name == self.path.name), None)
        if own is None and len(self.description.graphs) > 1:
            names = ", ".join(graph.file for graph in self.description.graphs.values())
            if self.path.name not in names.split(", "):
                raise ExportedFileError(f"{self.path}: was renamed; its graphs are {names}")
            return OnnxSession(files, self.device, self.threads)
        own = own or next(iter(files))
        self.session.rename("", own)
        files[own] = self.path
        for graph, file in files.items():
            if graph != own:
                self.session.load(graph, file)
        return self.session


def _of_metadata(text: str | None, path: Path) -> Description:
    """The description among the metadata of an ONNX file.

    Raises:
        ExportedFileError: there is none, or a damaged one.
    """
    if text is None:
        raise ExportedFileError(
            f"{path}: is an ONNX file without Triptych's description; export the run with tools/export.py"
        )
    return parsed(text, str(path))


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportedFileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _system_of(description: Description, where: str) -> ExportedSystem:
    """What makes predictions of this description.

    Raises:
        ExportedFileError: a type that is not in :data:`SYSTEMS`; numbers or joints that are missing or make no sense.
    """
    kind, made = description.after.get("type"), description.before.get("type")
    if kind not in SYSTEMS or made not in SYSTEMS[kind][2]:
        known = ", ".join(f"{before} -> {after}" for after, (_, _, takes) in SYSTEMS.items() for before in takes)
        raise ExportedFileError(
            f"{where}: of '{made}' to '{kind}', of the task '{description.task}', this version knows no predictions, "
            f"only of {known}; its graphs can be run with onnxruntime"
        )
    module, name, _ = SYSTEMS[kind]
    try:
        system: ExportedSystem = getattr(importlib.import_module(module), name)(description.before, description.after)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, UserError) as error:
        raise ExportedFileError(f"{where}: its description is damaged: {told(error)}; export the run again") from error
    return system


def exported(path: str | Path) -> bool:
    """Whether a path is an exported file or folder, and not a run's folder."""
    path = Path(path)
    return path.suffix.lower() in (".onnx", ENGINE) or (path.is_dir() and (path / SIDECAR).is_file())


def is_engine(path: str | Path) -> bool:
    """Whether a path is an engine, or the folder of an export that holds one."""
    path = Path(path)
    return path.suffix.lower() == ENGINE or (path.is_dir() and any(path.glob(f"*{ENGINE}")))
