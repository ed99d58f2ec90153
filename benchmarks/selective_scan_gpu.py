"""The selective scan on one GPU, beside its floors and mamba-ssm: python benchmarks/selective_scan_gpu.py [-o FILE].

Every way is recorded into a CUDA graph, so that what is timed is the GPU's work and not Python's, and the graphs take
turns; what counts is the median over rounds. Ours are compared with

- two floors: the bytes that have to be moved, at the rate of a large copy measured in the same process; and the
  exponentials and logarithms of the algorithm, at the rate of the special-function units (16 a clock and processor, at
  the clock that nvidia-smi gives as the highest). Neither can be reached;
- mamba-ssm's kernel on the same numbers, where it can be imported, with inputs laid out as it wants them;
- for the image scan, the unfused form on our own scan: four ordered copies, one scan, a merge.
"""

import argparse
import datetime
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds its siblings by the name tests use

from vision.engine.environment import git_commit, machine_summary
from vision.engine.files import write_json
from vision.ops.selective_scan import backend, mamba, selective_scan, ss2d

RESULT = Path(__file__).parent / "results" / "selective_scan_gpu.json"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
SPECIAL_PER_CLOCK = 16  # special functions that a processor of compute capability 8.0 or 9.0 starts each clock
AIMS = {"forward": 2.0, "backward": 3.0, "mamba-ssm": 1.0, "unfused": 1 / 3}  # ours / theirs, at most

Way = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A scan of a sequence, and the network whose shape it is."""

    network: str
    batch: int
    channels: int
    steps: int
    states: int
    groups: int

    def __str__(self) -> str:
        return f"{self.network}: N={self.batch} D={self.channels} L={self.steps} S={self.states} G={self.groups}"


CASES = (
    Case("VMamba-T 1", 32, 384, 3136, 1, 4),
    Case("VMamba-T 1", 128, 384, 3136, 1, 4),
    Case("VMamba-T 2", 32, 768, 784, 1, 4),
    Case("VMamba-T 3", 32, 1536, 196, 1, 4),
    Case("VMamba-T 4", 32, 3072, 49, 1, 4),
    Case("VMamba v0 1", 32, 768, 3136, 16, 4),
    Case("Vim-S", 32, 1536, 197, 16, 2),
    Case("long", 32, 384, 3072, 16, 1),
    Case("long, one sequence", 1, 384, 3072, 16, 1),
    Case("VMamba-T 1, one image", 1, 384, 3136, 1, 4),
)
IMAGES = ((32, 96, 56, 1), (32, 192, 28, 1), (32, 384, 14, 1), (32, 768, 7, 1), (32, 192, 56, 16), (1, 96, 56, 1))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Time the selective scan on one GPU beside its floors and mamba-ssm.")
    p.add_argument("-o", "--output", type=Path, default=RESULT, metavar="FILE", help="the JSON file")
    p.add_argument("--dtype", choices=DTYPES, default="float16", help="of inputs and outputs")
    p.add_argument("--rounds", type=int, default=50, help="turns that each way takes")
    p.add_argument("--clock", type=float, metavar="MHZ", help="of the special-function units; else nvidia-smi is asked")
    p.add_argument("--only", default="", metavar="TEXT", help="cases whose name holds this")
    return p


# ---- Timing ---------------------------------------------------------------------------------------------------------


def record(way: Way, times: int = 4) -> torch.cuda.CUDAGraph:
    """A graph of a way, several times over."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            way()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            way()
    return graph


def median_times(ways: dict[str, Way], rounds: int, times: int = 4) -> dict[str, float]:
    """Microseconds of each on the GPU, the median over rounds in which they take turns."""
    graphs = {name: record(way, times) for name, way in ways.items()}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, graph in graphs.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            found[name].append(start.elapsed_time(end) * 1e3 / times)
    return {name: statistics.median(values) for name, values in found.items()}


def copy_rate() -> float:
    """Bytes a second that the GPU reads and writes, copying 1 GB."""
    source = torch.ones(2**28, device="cuda")
    target = torch.empty_like(source)
    return 2 * 2**30 / median_times({"": lambda: target.copy_(source)}, 9)[""] * 1e6


def special_rate(megahertz: float | None) -> float:
    """Special functions a second."""
    if megahertz is None:
        query = ["nvidia-smi", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits", "--id=0"]
        megahertz = float(subprocess.run(query, check=True, capture_output=True, text=True).stdout)
    return torch.cuda.get_device_properties(0).multi_processor_count * SPECIAL_PER_CLOCK * megahertz * 1e6


# ---- Scans of sequences ---------------------------------------------------------------------------------------------


def scan_inputs(case: Case, dtype: torch.dtype) -> list[Tensor]:
    """u, delta, A, B, C, D and bias, channels-last."""
    make = torch.Generator("cuda").manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=make, device="cuda")

    rows, shared = (case.batch, case.steps, case.channels), (case.batch, case.steps, case.groups, case.states)
    A = -torch.arange(1.0, case.states + 1, device="cuda").repeat(case.channels, 1)
    u, delta, B, C = normal(*rows), normal(*rows) - 3, normal(*shared), normal(*shared)
    u, delta, B, C = (t.to(dtype) for t in (u, delta, B, C))
    return [u, delta, A, B, C, normal(case.channels), normal(case.channels) * 0.1]


def channels_first(inputs: list[Tensor]) -> list[Tensor]:
    """The same numbers with steps innermost, as mamba-ssm takes them."""
    u, delta, A, B, C, D, bias = inputs
    B, C = (t.permute(0, 2, 3, 1).contiguous() for t in (B, C))
    return [u.transpose(1, 2).contiguous(), delta.transpose(1, 2).contiguous(), A, B, C, D, bias]


def ours(*inputs: Tensor) -> Tensor:
    u, delta, A, B, C, D, bias = inputs
    y = selective_scan(u, delta, A, B, C, D, None, bias, True, layout="bld", force_backend="compiled")
    assert isinstance(y, Tensor)
    return y


def ours_channels_first(*inputs: Tensor) -> Tensor:
    u, delta, A, B, C, D, bias = inputs
    y = selective_scan(u, delta, A, B, C, D, None, bias, True, force_backend="compiled")
    assert isinstance(y, Tensor)
    return y


def theirs(*inputs: Tensor) -> Tensor:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    u, delta, A, B, C, D, bias = inputs
    return selective_scan_fn(u, delta, A, B, C, D=D, z=None, delta_bias=bias, delta_softplus=True)


def with_gradients(scan: Callable[..., Tensor], inputs: list[Tensor]) -> Way:
    leaves = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in inputs]
    grad_y = torch.ones_like(scan(*leaves).detach())
    return lambda: torch.autograd.grad(scan(*leaves), leaves, grad_y)


def backward_alone(inputs: list[Tensor]) -> Way:
    """Our backward operator, after a forward pass that kept the states."""
    u, delta, A, B, C, D, bias = inputs
    operators, given = torch.ops.triptych, (u, delta, A, B, C, D, None, bias, None)
    y, _, states = operators.selective_scan_fwd(*given, True)
    grad_y = torch.ones_like(y)
    return lambda: operators.selective_scan_bwd(grad_y, None, *given, states, True, False)


def floors(case: Case, width: int, rates: tuple[float, float]) -> dict[str, dict[str, float]]:
    """Microseconds of each pass that memory and special functions take at least; ``width`` bytes a number."""
    elements = case.batch * case.steps * case.channels
    shared = 2 * case.batch * case.steps * case.groups * case.states
    saved = elements * case.states / 64 * 4
    moved = {
        "forward": (3 * elements + shared) * width,
        "backward": (5 * elements + 2 * shared) * width + saved,  # u, delta, grad_y; grad_u, grad_delta
    }
    special = {"forward": elements * (case.states + 2), "backward": elements * (case.states + 3)}
    return {
        what: {"memory": moved[what] / rates[0] * 1e6, "special functions": special[what] / rates[1] * 1e6}
        for what in moved
    }


def row(what: str, against: str, mine: float, other: float, aim: float | None, rounds: int) -> dict[str, Any]:
    print(f"{what:74s} {against:28s} {mine:9.1f} {other:9.1f} {mine / other:7.2f}", flush=True)
    return {
        "what": what,
        "against": against,
        "ours": round(mine, 2),
        "theirs": round(other, 2),
        "ratio": round(mine / other, 4),
        "aim": aim,
        "repeats": rounds,
    }


def scan_rows(case: Case, options: argparse.Namespace, rates: tuple[float, float]) -> list[dict[str, Any]]:
    inputs = scan_inputs(case, DTYPES[options.dtype])
    first = channels_first(inputs)
    with torch.no_grad():
        ways: dict[str, Way] = {
            "forward": lambda: ours(*inputs),
            "forward, (N, D, L)": lambda: ours_channels_first(*first),
            "backward": backward_alone(inputs),
        }
        if not mamba.unavailable():
            ways["theirs forward"] = lambda: theirs(*first)
        times = median_times(ways, options.rounds)
    both: dict[str, Way] = {"": with_gradients(ours, inputs), ", (N, D, L)": with_gradients(ours_channels_first, first)}
    if not mamba.unavailable():
        both["theirs"] = with_gradients(theirs, first)
    pairs = median_times(both, options.rounds)
    rows = []
    for what, lowest in floors(case, inputs[0].element_size(), rates).items():
        for name, floor in lowest.items():
            aim = AIMS[what] if floor == max(lowest.values()) else None
            rows.append(row(f"{what}, {case}", f"floor of {name}", times[what], floor, aim, options.rounds))
    if not mamba.unavailable():
        for layout in ("", ", (N, D, L)"):
            measured = {"forward": (times[f"forward{layout}"], times["theirs forward"])}
            measured["forward and backward"] = pairs[layout], pairs["theirs"]
            for what, (mine, other) in measured.items():
                rows.append(row(f"{what}{layout}, {case}", "mamba-ssm", mine, other, AIMS["mamba-ssm"], options.rounds))
    return rows


# ---- Scans of images ------------------------------------------------------------------------------------------------


def image_rows(batch: int, channels: int, side: int, states: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """From the low-rank step sizes, B and C of all directions to the sum of the four scans."""
    make = torch.Generator("cuda").manual_seed(0)
    dtype, rank, positions = DTYPES[options.dtype], max(1, channels // 16), side * side

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=make, device="cuda")

    x, dts = normal(batch, positions, channels), normal(batch, positions, 4, rank)
    B, C = normal(batch, positions, 4, states), normal(batch, positions, 4, states)
    x, dts, B, C = (t.to(dtype) for t in (x, dts, B, C))
    weight, bias = normal(4, channels, rank) / rank**0.5, normal(4, channels) - 3
    inputs = [x, dts, weight, bias, -torch.exp(normal(4, channels, states)), B, C, normal(4, channels)]

    def core(fused: bool) -> Callable[..., Tensor]:
        def image_scan(*given: Tensor) -> Tensor:
            x, dts, weight, bias, A, B, C, D = given
            return ss2d(x, dts, weight, bias, A, B, C, D, side, side, fused=fused, force_backend="compiled")

        return image_scan

    with torch.no_grad():
        ways: dict[str, Way] = {"ours": lambda: core(True)(*inputs), "unfused": lambda: core(False)(*inputs)}
        torch.testing.assert_close(ways["ours"](), ways["unfused"](), rtol=2e-2, atol=2e-2)
        forward = median_times(ways, options.rounds)
    both = median_times(
        {"ours": with_gradients(core(True), inputs), "unfused": with_gradients(core(False), inputs)}, options.rounds
    )
    shape = f"image N={batch} D={channels} {side}x{side} S={states}"
    return [
        row(f"{what}, {shape}", "unfused, our scan", times["ours"], times["unfused"], aim, options.rounds)
        for what, times, aim in (("forward", forward, AIMS["unfused"]), ("forward and backward", both, None))
    ]


def main(argv: list[str] | None = None) -> int:
    options = parser().parse_args(argv)
    if not torch.cuda.is_available() or backend("cuda") != "cuda":
        print(
            "a CUDA GPU and the compiled CUDA kernels are needed: TRIPTYCH_BUILD=cuda pip install -e .", file=sys.stderr
        )
        return 2
    rates = (copy_rate(), special_rate(options.clock))
    print(f"copies {rates[0] / 1e12:.2f} TB/s, {rates[1] / 1e12:.2f} T special functions/s; GPU us, ours / theirs")
    if mamba.unavailable():
        print(f"without mamba-ssm: {mamba.unavailable()}")
    rows = [line for case in CASES if options.only in str(case) for line in scan_rows(case, options, rates)]
    for image in IMAGES:
        if options.only in "image":
            rows += image_rows(*image, options)
    write_json(
        options.output,
        {
            "kind": "comparison",
            "title": "The selective scan on one GPU",
            "command": "python benchmarks/selective_scan_gpu.py",
            "unit": "us",
            "better": "lower",
            "note": (
                f"{options.dtype}; the median over rounds taken in turn, by CUDA graphs. Floors: a copy moves "
                f"{rates[0] / 1e12:.2f} TB/s, measured in the same process, and the special-function units make "
                f"{rates[1] / 1e12:.2f} T results/s."
            ),
            "rows": rows,
            "machine": machine_summary(),
            "commit": git_commit(),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
