"""Networks in ONNX Runtime beside PyTorch, and what was aimed at for them: python benchmarks/deployment.py.

Everything is float32 on one CPU thread by its processor time, one sample at once, deployed (batch norms folded) on both
sides; the two take turns, A B, B A, and the ratio is the median of the rounds' with its interval of 95 %. Each part is
kept below ``--work`` as soon as it is measured: started again, the script goes on where it stopped; ``--only`` takes
parts by name, ``--again`` measures them anew.
"""

import argparse
import datetime
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds its siblings by the name tests use

from benchmarks.collect import RESULTS, check
from snn.deployment import Step, forget
from snn.deployment import graphs as spiking_graphs
from vision.deploy.backends import How, ready
from vision.deploy.comparing import Case, Found, count_of, measure
from vision.deploy.conditions import watched
from vision.deploy.naming import Name, parse
from vision.deploy.onnx import OPSET
from vision.deploy.statistics import Ratio, paired_ratio
from vision.deploy.subjects import Size, Subject, subject, subject_of
from vision.deploy.timing import Clock, alternate
from vision.engine.command import run_command
from vision.engine.deployment import Deployment
from vision.engine.environment import git_commit, machine_summary
from vision.engine.errors import ConfigError, UserError, nearest
from vision.engine.files import make_folder, read_json, write_json
from vision.engine.folding import deployed
from vision.engine.registry import build
from vision.pose.halves import graphs as pose_graphs

EAGER, ONNX = How("eager"), How("onnxruntime")
PEOPLE = 5
CAMERA: Size = (512, 640)
MATRIX = 1024
"""Rows and columns of the matrices whose product tells the machine's rate."""

NETWORKS: dict[str, tuple[str, Size | None]] = {
    **{f"MamKPD-{size.upper()}": (f"mamkpd_{size}", None) for size in "tsbl"},
    "TBC-Net lite": ("tbcnet", CAMERA),
    "ResNet-20": ("cifar_resnet:depth=20", (32, 32)),
    "ResNet-56": ("cifar_resnet:depth=56", (32, 32)),
    "WideResNet-28-10": ("wide_resnet:depth=28,width=10", (32, 32)),
}
WHOLE = {"DHRNet-W18s": "dhrnet:backbone=hrnet_w18_small", "DHRNet-W32": "dhrnet", "CID-W32": "cid"}

NOTE = (
    "float32, one CPU thread by its processor time, one sample at once, batch norms folded on both sides; medians over "
    "rounds that both took turns in, with the interval of 95 % of the ratio in brackets. Weights are untrained, which "
    "changes no time."
)


def plain(name: str) -> Callable[[], list[tuple[str, Subject]]]:
    """One of :data:`NETWORKS`."""

    def made() -> list[tuple[str, Subject]]:
        text, size = NETWORKS[name]
        found = subject_of(parse(text), size)
        shape = next(iter(found.shapes.values()))
        return [(f"{name}, {shape[-2]}x{shape[-1]}", found)]

    return made


def whole_images(name: str) -> Callable[[], list[tuple[str, Subject]]]:
    """Both halves of a network that finds everyone: an image, and people of one image."""

    def made() -> list[tuple[str, Subject]]:
        text = parse(WHOLE[name])
        torch.manual_seed(0)
        options = {"backbone": "hrnet_w18_small"} if text.options else {}
        images = torch.randn(2, 3, 64, 96)
        network = deployed(build({"type": text.what, **options}, "network"), lambda each: each.features(images))
        halves = Deployment(pose_graphs(network, images))
        return [
            (f"{name}, image of 512x512", subject(text, halves, (512, 512), "image")),
            (f"{name}, {PEOPLE} people of it", subject(text, halves, (512, 512), "people", PEOPLE)),
        ]

    return made


def spiking() -> list[tuple[str, Subject]]:
    """A VGG-11 of spiking neurons over all its time steps."""
    torch.manual_seed(0)
    network = build({"type": "spiking_vgg11"}, "network")
    images = torch.rand(2, 3, 32, 32)
    forget(network)
    made = deployed(network, lambda each: Step(each)(each.sequence(images)[0]))
    found = subject(Name("spiking_vgg11", "network"), Deployment(spiking_graphs(made, images, "image", "direct")), None)
    return [(f"Spiking VGG-11, 32x32, T = {network.steps}", found)]


SYSTEMS: dict[str, Callable[[], list[tuple[str, Subject]]]] = {
    **{name: plain(name) for name in NETWORKS},
    **{name: whole_images(name) for name in WHOLE},
    "Spiking VGG-11": spiking,
}

Rows = list[dict[str, Any]]


def row(what: str, against: str, ours: float, theirs: float, ratio: Ratio, aim: float | None = None) -> dict[str, Any]:
    """A row of a comparison."""
    interval = ratio.interval
    return {
        "what": what,
        "against": against,
        "ours": float(f"{ours:.5g}"),
        "theirs": float(f"{theirs:.5g}"),
        "ratio": float(f"{ratio.value:.5g}"),
        "interval": None if interval is None else [float(f"{end:.5g}") for end in (interval.low, interval.high)],
        "aim": aim,
        "repeats": ratio.rounds,
    }


def compared(found: Found, what: str, against: str, aim: float | None = None) -> dict[str, Any]:
    """A row of two things that took turns."""
    ours, theirs = (each["samples_a_second"] for each in found.rows[:2])
    return row(what, against, ours, theirs, found.ratio(), aim)


Outcome = tuple[Rows, list[str]]


def in_turn(cases: Sequence[Case], options: argparse.Namespace) -> Found:
    """Two things, by the processor time of one thread."""
    return measure(cases, options.rounds, options.seconds, "cpu")


def backends(name: str, options: argparse.Namespace) -> Outcome:
    """A system in ONNX Runtime beside PyTorch."""
    rows, warnings = [], []
    for what, found in SYSTEMS[name]():
        both = in_turn([Case(found, ONNX), Case(found, EAGER)], options)
        rows.append(compared(both, what, "PyTorch, eager"))
        warnings += both.warnings
    return rows, warnings


def pose(options: argparse.Namespace) -> Outcome:
    """MamKPD-L beside HRNet-W32, both in ONNX Runtime."""
    ours = subject_of(parse("mamkpd_l"))
    theirs = subject_of(parse("timm_pose:model=hrnet_w32"))
    found = in_turn([Case(ours, ONNX), Case(theirs, ONNX)], options)
    return [compared(found, "MamKPD-L, 256x192", "HRNet-W32", 0.7)], found.warnings


def matrix_rate(options: argparse.Namespace) -> Outcome:
    """TBC-Net lite in ONNX Runtime, as a share of what the machine does at its best.

    That is the fastest of a matrix product in PyTorch, one in ONNX Runtime and a 1x1 convolution of as many operations:
    which library is the slower one differs from processor to processor.
    """
    found = subject_of(parse("tbcnet"), CAMERA)
    counted = count_of(found)
    assert counted is not None
    network = ready(found, ONNX)
    a, b = torch.randn(2, MATRIX, MATRIX).unbind()
    image, kernels = torch.randn(1, MATRIX, 32, MATRIX // 32), b[:, :, None, None].contiguous()
    calls = [network.call, lambda: a @ b, product(a, b), lambda: torch.conv2d(image, kernels)]
    with watched(1) as conditions, torch.inference_mode():
        timings = alternate(calls, Clock("cpu", torch.device("cpu")), options.rounds, options.seconds)
    ours, *others = (
        [macs / seconds / 1e9 for seconds in timed.medians]
        for macs, timed in zip((counted.macs, *[MATRIX**3] * 3), timings, strict=True)
    )
    told = ("product of matrices in PyTorch", "product of matrices in ONNX Runtime", "1x1 convolution in PyTorch")
    best, name = max(zip(others, told, strict=True), key=lambda other: statistics.median(other[0]))
    against = f"float32 {name}, {MATRIX}³ MACs"
    middle = (statistics.median(ours), statistics.median(best))
    return [row("TBC-Net lite, 512x640", against, *middle, paired_ratio(ours, best), 0.4)], conditions.warnings()


def product(a: torch.Tensor, b: torch.Tensor) -> Callable[[], Any]:
    """A call that multiplies two matrices in ONNX Runtime, on one thread."""
    import onnx
    import onnxruntime

    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "ac"]
    weight = onnx.numpy_helper.from_array(b.numpy(), "b")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["a", "b"], ["c"])], "product", *([e] for e in ends), [weight]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)])
    model.ir_version = 10
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": a.numpy()})


def int8(options: argparse.Namespace) -> Outcome:
    """TBC-Net lite in int8 beside float32, both in ONNX Runtime."""
    found = subject_of(parse("tbcnet"), CAMERA)
    both = in_turn([Case(found, How("onnxruntime", "int8")), Case(found, ONNX)], options)
    return [compared(both, "TBC-Net lite in int8, 512x640", "the same in float32", 2.0)], both.warnings


PARTS: dict[str, Callable[[argparse.Namespace], Outcome]] = {
    **{name: (lambda options, name=name: backends(name, options)) for name in SYSTEMS},  # type: ignore[misc]
    "pose": pose,
    "matrix rate": matrix_rate,
    "int8": int8,
}
DOCUMENTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "deployment_backends": ("Networks in ONNX Runtime beside PyTorch", "samples a second", tuple(SYSTEMS)),
    "deployment_pose": ("MamKPD beside HRNet-W32 in ONNX Runtime", "crops a second", ("pose",)),
    "deployment_matrix_rate": ("TBC-Net in ONNX Runtime beside the machine's rate", "GMAC/s", ("matrix rate",)),
    "deployment_int8": ("TBC-Net in int8 beside float32", "frames a second", ("int8",)),
}
"""What is written: title, unit, and the parts whose rows it has."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Measure networks in ONNX Runtime beside PyTorch, and beside their aims.")
    p.add_argument("--only", metavar="PART,...", help=f"some of: {', '.join(PARTS)}")
    p.add_argument("--rounds", type=int, default=8, help="turns that each takes (default: %(default)s)")
    p.add_argument("--seconds", type=float, default=8.0, help="that each is timed for (default: %(default)s)")
    p.add_argument(
        "--work", type=Path, default=Path("runs/deployment"), help="where parts are kept, default: %(default)s"
    )
    p.add_argument("--again", action="store_true", help="measure parts that are kept there once more")
    p.add_argument("-o", "--output", type=Path, default=RESULTS, metavar="DIR", help="where the JSON files go")
    return p


def chosen(text: str | None) -> list[str]:
    """The parts that were asked for.

    Raises:
        ConfigError: there is no such part.
    """
    wanted = list(PARTS) if text is None else [part.strip() for part in text.split(",")]
    for name in wanted:
        if name not in PARTS:
            raise ConfigError(f"--only: no part '{name}'{nearest(name, PARTS)}; expected some of {', '.join(PARTS)}")
    return wanted


def file_of(name: str, work: Path) -> Path:
    """Where a part is kept."""
    return work / f"{name.lower().replace(' ', '_')}.json"


def take(name: str, options: argparse.Namespace) -> str:
    """Measures a part and keeps it; what went wrong, in words, or nothing."""
    file = file_of(name, options.work)
    if file.is_file() and not options.again and read_json(file)["commit"] == git_commit():
        print(f"{name}: kept from before", flush=True)
        return ""
    try:
        rows, warnings = PARTS[name](options)
    except UserError as error:
        print(f"{name}: {error}", flush=True)
        return f"{name}: {error}"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    machine = {**machine_summary(), "threads": 1}
    write_json(file, {"rows": rows, "warnings": warnings, "machine": machine, "commit": git_commit(), "date": now})
    for each in rows:
        print(f"{each['what']}: {each['ratio']:.3g} of {each['against']} {each['interval']}", flush=True)
    for line in warnings:
        print(f"warning: {line}", flush=True)
    return ""


def document(title: str, unit: str, kept: list[dict[str, Any]]) -> dict[str, Any]:
    """A results document of parts that are kept, all of one commit."""
    busy = any("busy" in line for part in kept for line in part["warnings"])
    return {
        "kind": "comparison",
        "title": title,
        "command": "python benchmarks/deployment.py",
        "unit": unit,
        "better": "higher",
        "note": NOTE + " The machine was busy with other work meanwhile." * busy,
        "rows": [each for part in kept for each in part["rows"]],
        **{key: kept[-1][key] for key in ("machine", "commit", "date")},
    }


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = parser().parse_args(argv)
    parts = chosen(options.only)
    torch.set_num_threads(1)
    for folder in (options.work, options.output):
        make_folder(folder)
    failed = [text for name in parts if (text := take(name, options))]
    for name, (title, unit, own) in DOCUMENTS.items():
        files = [file_of(part, options.work) for part in own]
        kept = [read_json(file) for file in files if file.is_file()]
        kept = [part for part in kept if part["commit"] == git_commit()]
        if kept and set(own) & set(parts):
            made = document(title, unit, kept)
            check(made, name)
            write_json(options.output / f"{name}.json", made)
            print(options.output / f"{name}.json")
    if failed:
        raise UserError(f"{len(failed)} of {len(parts)} parts could not be measured: {'; '.join(failed)}")
    return 0


if __name__ == "__main__":
    run_command(main)
