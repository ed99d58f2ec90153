"""Exported ONNX files as engines of TensorRT or TensorRT-RTX."""

import hashlib
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vision.deploy.description import Description
from vision.deploy.nvidia import Library, library, require_gpu
from vision.deploy.profiles import Shape, Span, shapes_of, spans, told
from vision.engine.deployment import DeploymentError
from vision.engine.files import write_atomically

log = logging.getLogger(__name__)

Profile = Mapping[str, tuple[Shape, Shape, Shape]]
PRECISIONS = ("fp32", "fp16")
_CODES = re.compile(r"\s*(In node .*?:|\[.*?\]|IBuilder::\w+: |Error Code \d+: )\s*")


@dataclass(frozen=True)
class Engine:
    """A built engine.

    Attributes:
        plan: what is stored.
        layers: of the network as it was parsed, before the builder fuses them.
        seconds: processor time of parsing and building.
        cache: the timing cache after it; empty without one.
    """

    plan: bytes
    layers: int
    seconds: float
    cache: bytes = b""


def require_buildable(kind: str, precision: str, scan_form: str, timing_cache: Path | None) -> Library:
    """The library that builds such engines.

    Raises:
        DeploymentError: a precision or form of scans that engines do not have, or a timing cache for TensorRT-RTX.
        DeviceError: TensorRT without a GPU: it times kernels on the one that the engine is for.
        UserError: the library is not installed.
    """
    if precision not in PRECISIONS:
        raise DeploymentError(
            f"--precision {precision}: engines are built in {' or '.join(PRECISIONS)}; activations of int8 files are "
            "unsigned, and TensorRT reads signed ones only"
        )
    if scan_form == "node":
        raise DeploymentError("--scan-form node: no engine knows this node; take scan or chunked")
    found = library(kind)
    if timing_cache is not None and found.ahead:
        raise DeploymentError(
            "--timing-cache: TensorRT-RTX times nothing when it builds, but compiles where engines run; leave it out"
        )
    if not found.ahead:
        require_gpu("building with TensorRT, which times kernels on the GPU that the engine is for,")
    return found


def build(
    files: Mapping[str, Path],
    description: Description,
    with_library: Library,
    given: Mapping[str, Span],
    timing_cache: Path | None = None,
) -> dict[str, Any]:
    """Builds an engine of each ONNX file, ``NAME.engine`` beside ``NAME.onnx``.

    Numbers are computed in the types that the file says (the network is strongly typed), never in TF32: what keeps
    float32 in a file of half precision does so in its engine.

    Args:
        files: the ONNX file of each graph.
        description: of the export.
        with_library: builds them.
        given: sizes by letter, in place of :func:`vision.deploy.profiles.spans`' own.
        timing_cache: read where it exists, and written; TensorRT alone has one.

    Returns:
        What the engines were built with, for ``engines`` of the description.

    Raises:
        ConfigError: sizes that the network cannot take.
        DeploymentError: a file cannot be parsed or built; a timing cache that is not one.
    """
    sizes, graphs = spans(description, given), {}
    cache = timing_cache.read_bytes() if timing_cache is not None and timing_cache.is_file() else b""
    for name, file in files.items():
        profile, content = shapes_of(description.graphs[name], sizes), file.read_bytes()
        engine = build_engine(with_library, content, profile, name, None if timing_cache is None else cache)
        cache = engine.cache
        write_atomically(file.with_suffix(".engine"), engine.plan)
        graphs[name] = {
            "layers": engine.layers,
            "bytes": len(engine.plan),
            "profile": {key: [list(shape) for shape in shapes] for key, shapes in profile.items()},
            "onnx_sha256": hashlib.sha256(content).hexdigest(),
        }
        log.info("%s.engine: built in %.1f s of processor time, not run", file.stem, engine.seconds)
    if timing_cache is not None:
        write_atomically(timing_cache, cache)
    return {
        "library": with_library.kind,
        "version": with_library.version,
        "built_for": "ahead of time" if with_library.ahead else require_gpu("building with TensorRT"),
        "sizes": told(sizes),
        "graphs": graphs,
    }


def build_engine(
    with_library: Library, content: bytes, profile: Profile, name: str, cache: bytes | None = None
) -> Engine:
    """The engine of one ONNX file.

    Args:
        with_library: builds it.
        content: of the file.
        profile: smallest, best and largest shape of every input with open axes.
        name: of the graph, for errors.
        cache: a timing cache, empty for a new one; None builds without.

    Raises:
        DeploymentError: it cannot be parsed or built; ``cache`` is none.
    """
    trt, begun = with_library.module, time.process_time()
    with_library.said.clear()
    builder = trt.Builder(with_library.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, with_library.logger)
    if not parser.parse(content):
        raise DeploymentError(_unparsed(parser, with_library, name))
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    if profile:
        config.add_optimization_profile(_profile(builder, profile))
    if cache is not None:
        _attach(config, cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise DeploymentError(_unbuilt(with_library, name, profile))
    kept = bytes(config.get_timing_cache().serialize()) if cache is not None else b""
    return Engine(bytes(plan), int(network.num_layers), time.process_time() - begun, kept)


def _profile(builder: Any, profile: Profile) -> Any:
    made = builder.create_optimization_profile()
    for name, shapes in profile.items():
        made.set_shape(name, *shapes)
    return made


def _attach(config: Any, cache: bytes) -> None:
    made = config.create_timing_cache(cache)
    if made is None or not config.set_timing_cache(made, False):
        raise DeploymentError(
            "--timing-cache: is none of this TensorRT on this GPU; delete the file, and it is made anew"
        )


def _unparsed(parser: Any, with_library: Library, name: str) -> str:
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    shown = [f"{error.node_operator() or 'the file'} at '{error.node_name()}' ({_plain(error.desc())})"
             for error in errors[:3]]  # fmt: skip
    more = f" and {len(errors) - 3} more" if len(errors) > 3 else ""
    known = f"{with_library.kind} {with_library.version}"
    return (
        f"graph '{name}': {known} cannot read {'; '.join(shown) or 'the file'}{more}; "
        "replace the operator in the network, or run the ONNX file: --format onnx"
    )


def _unbuilt(with_library: Library, name: str, profile: Profile) -> str:
    reason = _plain(next(iter(with_library.said), "it says no reason"))
    sized = any(len(low) == 4 and low[2:] != high[2:] for low, _, high in profile.values())
    way = "fix the size of images with --size HxW, or " if sized else ""
    known = f"{with_library.kind} {with_library.version}"
    return f"graph '{name}': {known} cannot build it: {reason}; {way}run the ONNX file: --format onnx"


def _plain(text: str) -> str:
    """What a library says, in one line without its own addresses."""
    return " ".join(_CODES.sub("", text).split())[:300]
