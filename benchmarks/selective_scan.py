"""The selective scan on one CPU thread, beside other ways to compute it: python benchmarks/selective_scan.py [-o FILE].

All ways take turns in one process on the same inputs; what counts is the least CPU time of each over the rounds, so
that whatever else the machine does is left out as far as it can be. Ours are compared with

- the loop over steps of ``vision.ops.selective_scan.reference`` (``unbind``, eager PyTorch);
- a two-level scan: chunks of about sqrt(L) steps side by side, then the chunks one after the other; eager, and compiled
  by torch.compile with ``--compile`` (tens of seconds a shape);
- mambapy's parallel scan, where it can be imported: ``pip install --no-deps --target DIR mambapy`` and PYTHONPATH=DIR;
- two floors, measured in the same process: the bytes that have to be moved at the rate of a copy, and the multiply-adds
  of the algorithm at the rate of a matrix product. Neither can be reached; they say what is left.

The fused image scan is compared with the unfused form on our own scan: four ordered copies, one scan, a merge; both
with the projection that makes step sizes, B and C, from the image to the merged output.
"""

import argparse
import contextlib
import ctypes
import datetime
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds its siblings by the name tests use

from vision.engine.environment import git_commit, machine_summary
from vision.engine.files import write_json
from vision.ops.cross_scan import cross_merge, cross_scan
from vision.ops.selective_scan import BackendError, backend, force_backend, reference, selective_scan, ss2d
from vision.ops.selective_scan.backends import CPU_ISAS

RESULT = Path(__file__).parent / "results" / "selective_scan.json"

# Multiplications and multiply-adds of our algorithm: of a state at a step, and of a channel at a step.
SLOTS = {"forward": (8, 18), "forward and backward": (24, 43)}
# Numbers moved, of a channel at a step: u, delta, y; and again, with grad_y, grad_u and grad_delta.
NUMBERS = {"forward": 3, "forward and backward": 8}


Aims = tuple[float | None, float | None]
"""How many times as fast ours must be, and would better be."""
NO_AIMS: Aims = (None, None)
ERROR = "largest relative L2 error against float64, over outputs, gradients and the shapes below"
LARGEST_ERROR = 1e-6


@dataclass(frozen=True)
class Case:
    """A shape, and how many times as fast as the loop it must be and would better be, if anything.

    Both aims are of the forward pass, and of the forward and the backward pass.
    """

    batch: int
    channels: int
    steps: int
    states: int
    groups: int
    must: tuple[float, float] | None = None
    stretch: tuple[float, float] | None = None

    def aims(self, index: int) -> Aims:
        """Of the forward pass (0), or of both passes (1)."""
        return (self.must and self.must[index], self.stretch and self.stretch[index])

    def __str__(self) -> str:
        sizes = f"N={self.batch} D={self.channels} L={self.steps} S={self.states}"
        return sizes + (f" G={self.groups}" if self.groups > 1 else "")


CASES = (
    Case(1, 192, 768, 16, 1, (20, 15), (30, 25)),
    Case(1, 192, 3072, 16, 1, (20, 15), (30, 25)),
    Case(1, 384, 768, 1, 4, (10, 8), (15, 14)),
    Case(1, 192, 196, 16, 1),
    Case(8, 192, 196, 16, 1),
    Case(1, 192, 768, 8, 1),
    Case(1, 384, 3136, 1, 4),
    Case(32, 96, 196, 1, 1),
)
IMAGES: tuple[tuple[int, int, int, int, tuple[float, float] | None], ...] = (
    (8, 192, 28, 1, (2.0, 3.0)),  # as fast as the unfused form, must and stretch
    (1, 96, 56, 1, None),
    (1, 192, 28, 1, None),
    (1, 384, 14, 1, None),
    (1, 192, 56, 16, None),
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Time the selective scan on one CPU thread beside other ways.")
    p.add_argument("-o", "--output", type=Path, default=RESULT, metavar="FILE", help="the JSON file")
    p.add_argument("--rounds", type=int, default=15, help="turns that each way takes")
    p.add_argument(
        "--compile", action="store_true", help="the two-level scan through torch.compile too, where there are aims"
    )
    p.add_argument("--only", default="", metavar="TEXT", help="cases whose name holds this")
    return p


# ---- The ways -------------------------------------------------------------------------------------------------------

Scan = Callable[..., Tensor]
"""(u, delta, A, B, C, D, bias), channels-last, to y."""


def ours(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor) -> Tensor:
    y = selective_scan(u, delta, A, B, C, D, None, bias, True, layout="bld", force_backend="compiled")
    assert isinstance(y, Tensor)
    return y


def ours_channels_first(*inputs: Tensor) -> Tensor:
    u, delta, A, B, C, D, bias = inputs
    y = selective_scan(u, delta, A, B, C, D, None, bias, True, force_backend="compiled")
    assert isinstance(y, Tensor)
    return y


def loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor) -> Tensor:
    return reference.selective_scan(u, delta, A, B, C, D, None, bias, None, True)[0]


def _expanded(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Decay and drive of every state, ``[N, L, D, S]``."""
    step = F.softplus(delta + bias)
    each = u.shape[2] // B.shape[2]
    wide = B if each == u.shape[2] else B.repeat_interleave(each, dim=2)
    return torch.exp(step[..., None] * A), (step * u)[..., None] * wide


def _read_out(states: Tensor, u: Tensor, C: Tensor, D: Tensor) -> Tensor:
    each = u.shape[2] // C.shape[2]
    wide = C if each == u.shape[2] else C.repeat_interleave(each, dim=2)
    return (states * wide).sum(-1) + D * u


def two_level(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor) -> Tensor:
    decay, drive = _expanded(u, delta, A, B, bias)
    length = u.shape[1]
    inner = math.isqrt(length - 1) + 1
    outer = -(-length // inner)
    pad = (0, 0, 0, 0, 0, outer * inner - length)
    decay = F.pad(decay, pad, value=1.0).unflatten(1, (outer, inner))
    drive = F.pad(drive, pad).unflatten(1, (outer, inner))
    state, whole, states, wholes = torch.zeros_like(drive[:, :, 0]), torch.ones_like(decay[:, :, 0]), [], []
    for a, b in zip(decay.unbind(2), drive.unbind(2), strict=True):
        state, whole = a * state + b, a * whole
        states.append(state)
        wholes.append(whole)
    before, carried = torch.zeros_like(state[:, 0]), []
    for a, b in zip(whole.unbind(1), state.unbind(1), strict=True):
        carried.append(before)
        before = a * before + b
    all_states = torch.stack(states, 2) + torch.stack(wholes, 2) * torch.stack(carried, 1)[:, :, None]
    return _read_out(all_states.flatten(1, 2)[:, :length], u, C, D)


def mambapy_scan() -> Scan | None:
    """The scan of mambapy in the place of ours; None where it cannot be imported."""
    try:
        from mambapy.pscan import pscan
    except ImportError:
        return None

    def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor) -> Tensor:
        return _read_out(pscan(*_expanded(u, delta, A, B, bias)), u, C, D)

    return scan


def keep_freed_memory() -> None:
    """Keeps the memory of freed tensors for the next ones, so that fresh pages are in no time; glibc only."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


# ---- Timing ---------------------------------------------------------------------------------------------------------


def least_times(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """CPU milliseconds of each, the least over rounds in which they take turns; short ones run several times a turn."""
    times = {}
    for name, way in ways.items():
        way()
        times[name] = _milliseconds(way)
    for _ in range(rounds):
        for name, way in ways.items():
            for _ in range(max(1, min(20, int(20 / times[name])))):
                times[name] = min(times[name], _milliseconds(way))
    return times


def _milliseconds(way: Callable[[], object]) -> float:
    start = time.process_time_ns()
    way()
    return (time.process_time_ns() - start) / 1e6


def copy_rate() -> float:
    """Bytes a second that one thread reads and writes, copying 64 MB."""
    source = torch.ones(2**24)
    target = torch.empty_like(source)
    return 2 * 2**26 / least_times({"": lambda: target.copy_(source)}, 9)[""] * 1e3


def multiply_add_rate() -> float:
    """Multiply-adds a second of one thread in a matrix product."""
    a = torch.randn(1024, 1024)
    return 1024**3 / least_times({"": lambda: a @ a}, 9)[""] * 1e3


# ---- Cases ----------------------------------------------------------------------------------------------------------


def scan_inputs(case: Case) -> list[Tensor]:
    make = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=make)

    rows, shared = (case.batch, case.steps, case.channels), (case.batch, case.steps, case.groups, case.states)
    A = -torch.arange(1.0, case.states + 1).repeat(case.channels, 1) * torch.exp(0.1 * normal(case.channels, 1))
    return [
        normal(*rows),
        normal(*rows) - 3,
        A,
        normal(*shared),
        normal(*shared),
        normal(case.channels),
        normal(case.channels) * 0.1,
    ]


def channels_first(inputs: list[Tensor]) -> list[Tensor]:
    """The same numbers with steps innermost, as mamba-ssm takes them."""
    u, delta, A, B, C, D, bias = inputs
    B, C = (t.permute(0, 2, 3, 1).contiguous() for t in (B, C))
    return [u.transpose(1, 2).contiguous(), delta.transpose(1, 2).contiguous(), A, B, C, D, bias]


def with_gradients(scan: Scan, inputs: list[Tensor]) -> Callable[[], object]:
    leaves = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in inputs]
    grad_y = torch.ones_like(scan(*leaves).detach())
    return lambda: torch.autograd.grad(scan(*leaves), leaves, grad_y)


def errors_of(inputs: list[Tensor]) -> dict[str, float]:
    """The largest relative L2 error of our output and gradients against float64, by instruction set."""
    exact = _output_and_gradients(loop, [t.double() for t in inputs])
    found = {}
    for name in instruction_sets():
        with force_backend(name):
            pairs = zip(exact, _output_and_gradients(ours, inputs), strict=True)
            found[name] = max(((mine.double() - true).norm() / true.norm()).item() for true, mine in pairs)
    return found


def instruction_sets() -> list[str]:
    """Those that this processor has, as :class:`force_backend` takes them."""
    found = []
    for isa in CPU_ISAS:
        with contextlib.suppress(BackendError), force_backend(f"cpu-{isa}"):
            found.append(f"cpu-{isa}")
    return found


def _output_and_gradients(scan: Scan, inputs: list[Tensor]) -> list[Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    y = scan(*leaves)
    grad_y = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad_y)]


def row(what: str, against: str, mine: float, other: float, aims: Aims, rounds: int) -> dict[str, Any]:
    print(f"{what:62s} {against:28s} {mine:9.3f} {other:10.3f} {other / mine:7.1f}x", flush=True)
    return {
        "what": what,
        "against": against,
        "ours": round(mine, 4),
        "theirs": round(other, 4),
        "ratio": round(mine / other, 5),
        "aim": aims[0] and round(1 / aims[0], 5),
        "stretch": aims[1] and round(1 / aims[1], 5),
        "repeats": rounds,
    }


def scan_rows(case: Case, options: argparse.Namespace, rates: tuple[float, float]) -> list[dict[str, Any]]:
    inputs = scan_inputs(case)
    others: dict[str, Scan] = {"loop over steps (unbind)": loop, "two-level scan": two_level}
    mambapy = mambapy_scan()
    if mambapy is not None:
        others["mambapy's parallel scan"] = mambapy
    if options.compile and case.must:
        others["two-level scan, compiled"] = torch.compile(two_level, fullgraph=True, dynamic=False)
    rows = []
    for index, what in enumerate(("forward", "forward and backward")):
        first = channels_first(inputs)
        if index == 0:
            ways: dict[str, Callable[[], object]] = {
                name: lambda scan=scan: scan(*inputs) for name, scan in others.items()
            }
            ways |= {"ours": lambda: ours(*inputs), "first": lambda first=first: ours_channels_first(*first)}
            with torch.no_grad():
                times = least_times(ways, options.rounds)
        else:
            ways = {name: with_gradients(scan, inputs) for name, scan in others.items()}
            ways |= {"ours": with_gradients(ours, inputs), "first": with_gradients(ours_channels_first, first)}
            times = least_times(ways, options.rounds)
        elements = case.batch * case.steps * case.channels
        per_state, per_channel = SLOTS[what]
        floors = {
            "floor of memory": elements * NUMBERS[what] * 4 / rates[0] * 1e3,
            "floor of multiply-adds": elements * (per_state * case.states + per_channel) / rates[1] * 1e3,
        }
        for layout, key in (("(N, L, D)", "ours"), ("(N, D, L)", "first")):
            for name in others:
                aims = case.aims(index) if name.startswith("loop") else NO_AIMS
                rows.append(row(f"{what}, {case}, {layout}", name, times[key], times[name], aims, options.rounds))
        for name, floor in floors.items():
            rows.append(row(f"{what}, {case}, (N, L, D)", name, times["ours"], floor, NO_AIMS, options.rounds))
    return rows


def image_rows(
    batch: int, channels: int, side: int, states: int, aims: Aims | None, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """The core of a VMamba block: from the convolution's output to the merged scans."""
    make = torch.Generator().manual_seed(0)
    rank, positions = max(1, channels // 16), side * side

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=make)

    x = normal(batch, positions, channels)
    sizes = [rank, states, states]
    projection = normal(4 * sum(sizes), channels) / channels**0.5
    rest = (normal(4, channels, rank) / rank**0.5, normal(4, channels) - 3)
    A, D = -torch.exp(normal(4, channels, states)), normal(4, channels)

    def core(fused: bool) -> Tensor:
        dts, B, C = F.linear(x, projection).unflatten(-1, (4, sum(sizes))).split(sizes, dim=-1)
        return ss2d(x, dts, *rest, A, B, C, D, side, side, fused=fused, force_backend="compiled")

    def as_published() -> Tensor:
        """In VMamba's order: copies first, then the projections of each direction, then the scan of (N, K D, L)."""
        xs = cross_scan(x, side, side).permute(0, 2, 3, 1).contiguous()  # (N, K, D, L)
        made = torch.einsum("nkdl,kcd->nkcl", xs, projection.unflatten(0, (4, sum(sizes))))
        dts, B, C = made.split(sizes, dim=2)
        delta = torch.einsum("nkrl,kdr->nkdl", dts, rest[0])
        flat = (A.flatten(0, 1), B.contiguous(), C.contiguous(), D.flatten(), None, rest[1].flatten(), True)
        y = selective_scan(xs.flatten(1, 2), delta.flatten(1, 2), *flat, force_backend="compiled")
        assert isinstance(y, Tensor)
        return cross_merge(y.unflatten(1, (4, -1)).permute(0, 3, 1, 2), side, side)

    def loops() -> Tensor:
        dts, B, C = F.linear(x, projection).unflatten(-1, (4, sum(sizes))).split(sizes, dim=-1)
        return reference.ss2d(x, dts, *rest, A, B, C, D, side, side)

    with torch.no_grad():
        torch.testing.assert_close(core(True), as_published(), rtol=1e-3, atol=1e-3)
        ways = {"ours": lambda: core(True), "unfused, our scan": lambda: core(False)}
        ways |= {"unfused in VMamba's order, our scan": as_published, "loop over steps (unbind)": loops}
        times = least_times(ways, options.rounds)
    what = f"image scan with its projection, N={batch} D={channels} {side}x{side} S={states}"
    of = {"unfused, our scan": aims or NO_AIMS}
    return [row(what, n, times["ours"], t, of.get(n, NO_AIMS), options.rounds) for n, t in times.items() if n != "ours"]


def main(argv: list[str] | None = None) -> int:
    options = parser().parse_args(argv)
    torch.set_num_threads(1)
    keep_freed_memory()
    rates = (copy_rate(), multiply_add_rate())
    print(f"{backend('cpu')}; copies {rates[0] / 1e9:.1f} GB/s, {rates[1] / 1e9:.1f} G multiply-adds/s; CPU ms")
    rows: list[dict[str, Any]] = []
    errors: dict[str, float] = {}
    for case in CASES:
        if options.only in str(case):
            rows += scan_rows(case, options, rates)
            for name, found in errors_of(scan_inputs(case)).items():
                errors[name] = max(errors.get(name, 0.0), found)
    for batch, channels, side, states, aims in IMAGES:
        if options.only in f"N={batch} D={channels} {side}x{side} S={states}":
            rows += image_rows(batch, channels, side, states, aims, options)
    for name, found in errors.items():
        print(f"{name}: {ERROR}: {found:.1e}")
    machine = machine_summary()
    write_json(
        options.output,
        {
            "kind": "comparison",
            "title": "The selective scan on one CPU thread",
            "command": "python benchmarks/selective_scan.py" + (" --compile" if options.compile else ""),
            "unit": "CPU ms",
            "better": "lower",
            "note": (
                f"Float32, {backend('cpu')}, one thread; the least CPU time of each way over rounds taken in turn. "
                f"Floors: a copy moves {rates[0] / 1e9:.1f} GB/s, a matrix product makes "
                f"{rates[1] / 1e9:.1f} G multiply-adds/s, both measured in the same process."
            ),
            "rows": rows,
            "errors": [
                {"what": f"{name}: {ERROR}", "value": float(f"{found:.1e}"), "aim": LARGEST_ERROR}
                for name, found in errors.items()
            ],
            "machine": machine,
            "commit": git_commit(),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
