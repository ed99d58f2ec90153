"""From a task to a folder of exported files that were shown to be equal to it."""

import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from vision.deploy import tensorrt, torch_package
from vision.deploy.description import KEY, SIDECAR, parsed
from vision.deploy.divergence import first_divergence, layer_values
from vision.deploy.half import in_half
from vision.deploy.nvidia import KINDS
from vision.deploy.onnx import OPSET, onnx_model, save
from vision.deploy.parity import Parity, compare, for_batches, modules_of, runner_of
from vision.deploy.profiles import Span
from vision.deploy.quantise import in_int8, require_enough
from vision.deploy.session import Feeds, OnnxSession, Session
from vision.deploy.sidecar import Origin, sidecar
from vision.deploy.sizes import Size, at_size, fitted
from vision.engine.data import Sample
from vision.engine.deployment import Deployment, DeploymentError, Graph
from vision.engine.files import make_folder, read_text, to_json, write_json
from vision.engine.loading import size_of
from vision.engine.task import Task

log = logging.getLogger(__name__)

FORMATS = ("onnx", *KINDS, "torch")
PRECISIONS = ("fp32", "fp16", "int8")
CALIBRATED_AT_ONCE = 4
"""Samples of a batch whose ranges are noted: every value inside the network is held at the same time, 7 GB for MamKPD
and 16 people."""
SPREAD = 5.0
"""A layer diverges where it differs by this many times less than the outputs may; errors grow from layer to layer."""


@dataclass(frozen=True)
class Options:
    """How a network is exported.

    Attributes:
        kind: ``onnx``, ``tensorrt``, ``tensorrt-rtx`` or ``torch``.
        precision: ``fp32``, ``fp16`` or ``int8``.
        scan_form: of selective scans in ONNX: ``scan``, ``chunked`` or ``node``.
        size: H and W of images; None leaves them open where the network takes any.
        calibration: training samples that ranges of int8 are taken from.
        limit: samples that parity is judged on.
        split: of these samples.
        profile: of engines, what open axes may be, by letter.
        timing_cache: of TensorRT, a file that spares it timing kernels twice.
    """

    kind: str = "onnx"
    precision: str = "fp32"
    scan_form: str = "scan"
    size: Size | None = None
    calibration: int = 128
    limit: int = 64
    split: str = "val"
    profile: Mapping[str, Span] = field(default_factory=dict)
    timing_cache: Path | None = None


def export(task: Task, origin: Origin, folder: Path, options: Options) -> Parity:
    """Exports a task's network into a folder, and judges the files on real samples.

    The files take the folder's place once they have passed; what does not pass lies in ``NAME.rejected`` beside it,
    with its ``parity.json``.

    Raises:
        DeploymentError: it cannot be exported, or the files are not equal to the network.
        DataError: the data has no samples to judge on.
    """
    _require_known(options)
    task = task.cpu().eval()
    if options.precision == "int8":  # before the work, not after it
        require_enough(size_of(_calibration(task, options), "train"))
    deployment, reference = task.deployment(), task.deployment(folded=False)
    if options.size is not None:
        deployment = at_size(deployment, options.size)
    rejected = folder.with_name(f"{folder.name}.rejected")
    shutil.rmtree(rejected, ignore_errors=True)
    make_folder(rejected)
    made = _write(task, deployment, origin, rejected, options)
    if made.session is None:
        log.warning("%s: nothing here runs the scans' nodes, so that the file was not compared", folder.name)
        _take_place(rejected, folder)
        return Parity(options.precision, options.split, 1, {}, "", {}, {})
    parity = compare(
        task, samples(task, options), reference, deployment, runner_of(made.session, deployment), options.precision,
        options.split,
    )  # fmt: skip
    if reasons := parity.reasons():
        parity.divergence = made.locate(parity, deployment)
    write_json(rejected / "parity.json", parity.to_dict())
    if reasons:
        raise DeploymentError(_refusal(reasons, parity, rejected))
    for told in parity.by_float64():
        log.warning("%s: the network amplifies rounding: %s", folder.name, told)
    if options.kind in KINDS:
        _add_engines(deployment, origin, rejected, options)
    _take_place(rejected, folder)
    return parity


def _require_known(options: Options) -> None:
    if options.kind in KINDS:
        tensorrt.require_buildable(options.kind, options.precision, options.scan_form, options.timing_cache)
    elif options.profile or options.timing_cache is not None:
        given = "--profile" if options.profile else "--timing-cache"
        raise DeploymentError(f"{given} is of engines: add --format {' or '.join(KINDS)}, or leave it out")
    if options.kind == "torch" and options.precision != "fp32":
        raise DeploymentError(f"--precision {options.precision}: packages of PyTorch are exported in fp32 only")
    if options.scan_form == "node" and options.precision != "fp32":
        raise DeploymentError("--scan-form node: nodes that others implement are exported in fp32 only")


def _refusal(reasons: list[str], parity: Parity, where: Path) -> str:
    at = "; ".join(f"it begins in layer '{d['layer']}' ({d['kind']})" for d in parity.divergence.values())
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return (
        f"the exported files are not equal to the network: {reasons[0]}{more}{'; ' + at if at else ''}; "
        f"they were left in {where} with parity.json"
    )


def _take_place(made: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    made.rename(folder)


def samples(task: Task, options: Options) -> "Dataset[Sample]":
    """The samples that parity is judged on: the first of the split, or all where it has fewer.

    Raises:
        DeploymentError: the data has no such split.
    """
    dataset = {"train": task.calibration_data, "val": task.val_data, "test": task.test_data}[options.split]()
    if dataset is None:
        raise DeploymentError(f"the data has no {options.split} split to compare on; take --split val")
    return _first(dataset, options.limit, options.split)


def _first(dataset: "Dataset[Sample]", count: int, what: str) -> "Dataset[Sample]":
    size = size_of(dataset, what)
    return dataset if size <= count else Subset(dataset, list(range(count)))


# ---- the files -----------------------------------------------------------------------------------------------------


@dataclass
class _Made:
    """Written files: what runs them, and for ONNX the models with the names of layers' values."""

    session: Session | None
    models: dict[str, Any]
    values: dict[str, dict[str, str]]

    def locate(self, parity: Parity, deployment: Deployment) -> dict[str, Any]:
        """The first diverging layer of every graph beyond its bound, by graph."""
        found = {}
        limit = parity.bound.largest / SPREAD
        for name, graph in parity.graphs.items():
            if name in self.models and graph.broken(parity.bound) and graph.worst[1]:
                first = first_divergence(deployment[name], self.models[name], self.values[name], graph.worst[1], limit)
                if first is not None:
                    found[name] = first
        return found


def _write(task: Task, deployment: Deployment, origin: Origin, folder: Path, options: Options) -> _Made:
    return (_write_torch if options.kind == "torch" else _write_onnx)(task, deployment, origin, folder, options)


def _write_torch(task: Task, deployment: Deployment, origin: Origin, folder: Path, options: Options) -> _Made:
    files = {graph.name: folder / f"{graph.name}.pt2" for graph in deployment.graphs}
    calling = [torch_package.package(graph, files[graph.name]) for graph in deployment.graphs]
    needs = {"torch": torch.__version__, "triptych kernels": any(calling)}
    write_json(folder / SIDECAR, sidecar(deployment, origin, "torch", "fp32", None, None, needs))
    return _Made(torch_package.PackageSession(files, deployment), {}, {})


def _write_onnx(task: Task, deployment: Deployment, origin: Origin, folder: Path, options: Options) -> _Made:
    plain = {graph.name: onnx_model(graph, options.scan_form) for graph in deployment.graphs}
    scans = any(node.op_type in ("Scan", "SelectiveScan") for model in plain.values() for node in model.graph.node)
    values = {name: layer_values(model) for name, model in plain.items()}
    models = _converted(task, deployment, plain, options)
    form = options.scan_form if scans else None
    needs = {"triptych::SelectiveScan": True} if form == "node" else {}
    about = sidecar(deployment, origin, "onnx", options.precision, form, OPSET, needs)
    for name, model in models.items():
        save(model, folder / f"{name}.onnx", {KEY: to_json(about)})
    write_json(folder / SIDECAR, about)
    files = {name: folder / f"{name}.onnx" for name in models}
    return _Made(None if form == "node" else OnnxSession(files), models, values)


def _add_engines(deployment: Deployment, origin: Origin, folder: Path, options: Options) -> None:
    """Engines of the ONNX files in a folder, which then describes them."""
    told = parsed(read_text(folder / SIDECAR), str(folder / SIDECAR))
    kind, precision, form = options.kind, options.precision, told.text["scan_form"]
    with_library = tensorrt.require_buildable(kind, precision, options.scan_form, options.timing_cache)
    files = {name: folder / graph.file for name, graph in told.graphs.items()}
    built = tensorrt.build(files, told, with_library, options.profile, options.timing_cache)
    needs = {kind: with_library.version, "gpu": built["built_for"]}
    about = sidecar(deployment, origin, kind, precision, form, OPSET, needs)
    write_json(folder / SIDECAR, {**about, "engines": built})


def _converted(task: Task, deployment: Deployment, plain: dict[str, Any], options: Options) -> dict[str, Any]:
    if options.precision == "fp16":
        return {name: in_half(model) for name, model in plain.items()}
    if options.precision == "int8":
        dataset = _calibration(task, options)
        count, feeds = size_of(dataset, "train"), _feeds(task, dataset, deployment)
        return {name: in_int8(model, _only(feeds, deployment[name]), count) for name, model in plain.items()}
    return plain


def _calibration(task: Task, options: Options) -> "Dataset[Sample]":
    return _first(task.calibration_data(), options.calibration, "train")


def _feeds(task: Task, dataset: "Dataset[Sample]", deployment: Deployment) -> list[tuple[str, Feeds]]:
    """What every graph is given when the task looks at these samples."""
    found: list[tuple[str, Feeds]] = []
    run = modules_of(deployment)

    def noting(name: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        graph = deployment[name]
        shown = fitted(graph, inputs)
        found.append((name, {key: x.detach().numpy().copy() for key, x in zip(graph.inputs, shown, strict=True)}))
        return run(name, *inputs)

    def look(batch: dict[str, Any]) -> None:
        task.predict_exported(batch, noting)
        task.drive_exported(batch, noting)

    for_batches(task, dataset, look, CALIBRATED_AT_ONCE)
    return found


def _only(feeds: list[tuple[str, Feeds]], graph: Graph) -> Iterator[Feeds]:
    """The inputs of one graph; its example where the task never ran it."""
    own = [given for name, given in feeds if name == graph.name]
    yield from own or [{name: x.numpy() for name, x in zip(graph.inputs, graph.example, strict=True)}]
