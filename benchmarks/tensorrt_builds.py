"""Every full-size network parsed and built as engines of TensorRT-RTX: python benchmarks/tensorrt_builds.py.

Engines are built ahead of time, without a GPU, and are not run. ONNX files and rows are kept below ``--work`` as soon
as they are there: started again, the script goes on where it stopped; ``--only`` takes networks by name.
"""

import argparse
import datetime
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds its siblings by the name tests use

from benchmarks.collect import RESULTS, check, of_commits
from snn.deployment import Step, forget
from snn.deployment import graphs as spiking_graphs
from vision.deploy.description import parsed
from vision.deploy.half import in_half
from vision.deploy.naming import parse
from vision.deploy.nvidia import Library, library
from vision.deploy.onnx import OPSET, onnx_model
from vision.deploy.profiles import shapes_of, spans, told
from vision.deploy.sidecar import Origin, sidecar
from vision.deploy.sizes import at_size
from vision.deploy.subjects import Size, subject_of
from vision.deploy.tensorrt import build_engine
from vision.engine.command import run_command
from vision.engine.deployment import Deployment, DeploymentError, images_graph
from vision.engine.environment import git_commit, machine_summary
from vision.engine.errors import ConfigError, nearest
from vision.engine.files import make_folder, read_json, to_json, write_atomically, write_json
from vision.engine.folding import deployed
from vision.engine.registry import build
from vision.pose.halves import graphs as pose_graphs

KIND = "tensorrt-rtx"
CROP, WHOLE, OTHER = {"type": "crop"}, {"type": "whole", "short": 512}, {"type": "image"}
NOTE = (
    "Built, not run: without a GPU, ahead of time. Fresh weights, BatchNorm folded where it can be; layers are "
    "those of the parsed network; seconds of one processor for parsing and building. Sizes are smallest:best:largest "
    "of each open axis."
)
Made = tuple[Deployment, str | None]
"""Graphs, and the form of their scans."""


def plain(text: str, before: dict[str, Any], size: Size | None = None, form: str | None = None) -> Callable[[], Made]:
    """A registered network as one graph."""

    def make() -> Made:
        graph = subject_of(parse(text), size).graph
        assert graph is not None
        return Deployment((graph,), before), form

    return make


def whole(kind: str) -> Callable[[], Made]:
    """A single-stage network as its two graphs, for images of 512x512."""

    def make() -> Made:
        torch.manual_seed(0)
        images = torch.randn(2, 3, 64, 96)
        network = deployed(build({"type": kind}, "network"), lambda network: network.features(images))
        return at_size(Deployment(pose_graphs(network, images), WHOLE, {"most": 30}), (512, 512)), None

    return make


def spiking(steps: int) -> Callable[[], Made]:
    """Spiking VGG-11 as its two graphs."""

    def make() -> Made:
        torch.manual_seed(0)
        network = build({"type": "spiking_vgg11", "steps": steps}, "network")
        images = torch.rand(2, 3, 32, 32)
        forget(network)
        made = deployed(network, lambda each: Step(each)(each.sequence(images)[0]))
        return Deployment(spiking_graphs(made, images, "image", "direct"), OTHER), None

    return make


def any_size() -> Made:
    """TBC-Net with rows and columns open."""
    torch.manual_seed(0)
    network = build({"type": "tbcnet"}, "network").eval()
    images = torch.randn(2, 1, 64, 96)
    network = deployed(network, lambda each: each(images))
    return Deployment((images_graph(network, images, ("logits",), any_size=True, smallest=16),), OTHER), None


NETWORKS: dict[str, Callable[[], Made]] = {
    "ResNet-20, 32x32": plain("cifar_resnet:depth=20", OTHER, (32, 32)),
    "TBC-Net lite, 512x640": plain("tbcnet", OTHER, (512, 640)),
    "TBC-Net lite, any size": any_size,
    "TBC-Net std, 512x640": plain("tbcnet:tem=std", OTHER, (512, 640)),
    "MamKPD-T": plain("mamkpd_t", CROP, form="scan"),
    "EfficientNet-Lite0, pose": plain("timm_pose:model=tf_efficientnet_lite0,hidden=64", CROP),
    "Spiking VGG-11, T = 4": spiking(4),
    "Spiking VGG-11, T = 6": spiking(6),
    "DHRNet-W32, 512x512": whole("dhrnet"),
    "CID-W32, 512x512": whole("cid"),
    "ResNet-56, 32x32": plain("cifar_resnet:depth=56", OTHER, (32, 32)),
    "WideResNet-28-10, 32x32": plain("wide_resnet:depth=28,width=10", OTHER, (32, 32)),
    "MamKPD-S": plain("mamkpd_s", CROP, form="scan"),
    "MamKPD-B": plain("mamkpd_b", CROP, form="scan"),
    "MamKPD-L": plain("mamkpd_l", CROP, form="scan"),
    "MamKPD-T, chunked": plain("mamkpd_t", CROP, form="chunked"),
}


def rows_of(name: str, precisions: list[str], work: Path, with_library: Library) -> list[dict[str, Any]]:
    """A row of each graph in each precision; what is kept is not built again."""
    rows, make = [], None
    for precision in precisions:
        kept = work / f"{precision}.json"
        if not kept.is_file():
            make = make or _exported(name, work)
            write_json(kept, [_row(name, graph, precision, make, work, with_library) for graph in make["graphs"]])
        rows += read_json(kept)
    return rows


def _exported(name: str, work: Path) -> dict[str, Any]:
    """The ONNX files of a network, and what the export says of itself."""
    told_in = work / "model.json"
    if not told_in.is_file():
        deployment, form = NETWORKS[name]()
        make_folder(work)
        for graph in deployment.graphs:
            write_atomically(work / f"{graph.name}.onnx", onnx_model(graph, form).SerializeToString())
        write_json(told_in, sidecar(deployment, Origin("none", name, trained=False), "onnx", "fp32", form, OPSET, {}))
    found: dict[str, Any] = read_json(told_in)
    return found


def _row(
    name: str, graph: str, precision: str, about: dict[str, Any], work: Path, with_library: Library
) -> dict[str, Any]:
    import onnx

    description = parsed(json.dumps(about), name)
    sizes = spans(description, {})
    content = (work / f"{graph}.onnx").read_bytes()
    if precision == "fp16":
        content = in_half(onnx.load_from_string(content)).SerializeToString()
    own = {axis for port in description.graphs[graph].inputs.values() for axis in port.shape}
    found = {
        "commit": git_commit(), "network": name, "graph": graph, "precision": precision,
        "scan_form": about["scan_form"], "nodes": len(onnx.load_from_string(content).graph.node),
        "sizes": told({letter: span for letter, span in sizes.items() if letter in own}),
    }  # fmt: skip
    try:
        engine = build_engine(with_library, content, shapes_of(description.graphs[graph], sizes), graph)
        found |= {"built": True, "layers": engine.layers, "seconds": round(engine.seconds, 2),
                  "bytes": len(engine.plan), "said": ""}  # fmt: skip
    except DeploymentError as error:
        found |= {"built": False, "layers": None, "seconds": None, "bytes": None, "said": str(error)}
    print(to_json(found), flush=True)
    return found


def document_of(rows: list[dict[str, Any]], version: str) -> dict[str, Any]:
    """A results document of kind ``engines``."""
    return {
        "kind": "engines",
        "title": "Engines of TensorRT-RTX",
        "command": "python benchmarks/tensorrt_builds.py",
        "note": NOTE + of_commits(rows, git_commit()),
        "library": KIND,
        "version": version,
        "run": False,
        "rows": rows,
        "untried": [name for name in NETWORKS if name not in {row["network"] for row in rows}],
        "machine": machine_summary(),
        "commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Parse and build every full-size network with TensorRT-RTX; runs nothing.")
    p.add_argument("--work", type=Path, default=Path("runs/tensorrt_builds"), help="default: %(default)s")
    p.add_argument("--only", action="append", metavar="NAME", help="a network; again for others")
    p.add_argument("--precision", action="append", choices=("fp32", "fp16"), help="again for both (default: both)")
    p.add_argument("-o", "--output", type=Path, default=RESULTS / "tensorrt_builds.json", help="default: %(default)s")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    unknown = [name for name in arguments.only or () if name not in NETWORKS]
    if unknown:
        raise ConfigError(
            f"--only '{unknown[0]}'{nearest(unknown[0], NETWORKS)}: expected one of {', '.join(NETWORKS)}"
        )
    torch.set_num_threads(1)
    with_library, rows = library(KIND), []
    for name in arguments.only or NETWORKS:
        folder = arguments.work / "".join(c if c.isalnum() else "_" for c in name)
        rows += rows_of(name, arguments.precision or ["fp32", "fp16"], folder, with_library)
        document = document_of(rows, with_library.version)
        check(document, "tensorrt_builds")
        write_json(arguments.output, document)
    print(arguments.output)
    return 0


if __name__ == "__main__":
    run_command(main)
