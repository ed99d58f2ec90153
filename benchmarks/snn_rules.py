"""Memory and time of learning rules on one spiking network: python benchmarks/snn_rules.py [memory] [speed] [figure].

``memory`` writes results/snn_memory.json: the most that is kept for backpropagation during an update of VGG-11, of each
rule over the number of time steps, by ``snn.memory`` (saved tensors on a CPU, the allocator on a GPU). ``speed`` writes
results/snn_speed.json: CPU time (on a GPU: time) of an update at T = 6, STOP beside the others, and of inference at
T = 4 and 6, all steps of a layer at once beside step by step. The ways take turns, and what counts is the least time
of each, so that whatever else the machine does is left out as far as it can be. ``figure`` draws
docs/images/snn_memory.png from the first. Without a word all three are done.
"""

import argparse
import datetime
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds its siblings by the name tests use

from benchmarks.collect import RESULTS, check
from snn.memory import Row, measure
from snn.network import SpikingNetwork
from snn.networks import spiking_vgg11
from snn.rules import Learn, Rule, set_rule
from vision.engine.command import run_command
from vision.engine.distributed import pick_device
from vision.engine.environment import git_commit, machine_summary
from vision.engine.files import make_folder, read_json, write_json

IMAGE = Path(__file__).resolve().parents[1] / "docs" / "images" / "snn_memory.png"
STEPS = (1, 2, 4, 8, 16, 32)
WAYS: tuple[tuple[str, Rule, Learn], ...] = (
    ("STOP of W, T and L", "stop", "WTL"),
    ("STOP of W", "stop", "W"),
    ("OTTT", "ottt", "W"),
    ("SLTT", "sltt", "W"),
    ("BPTT of W, T and L", "bptt", "WTL"),
    ("BPTT of W", "bptt", "W"),
)
AGAINST = "BPTT of W, T and L"
FLAT, NO_SLOWER = 1.05, 1.0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Memory and time of STOP, OTTT, SLTT and BPTT on a spiking VGG-11.")
    p.add_argument("parts", nargs="*", choices=["memory", "speed", "figure", []], help="default: all three")
    p.add_argument("--batch", type=int, default=4, help="samples (default: 4)")
    p.add_argument("--width", type=int, default=64, help="channels of the first convolution (default: 64)")
    p.add_argument("--rounds", type=int, default=5, help="turns of the speed comparison (default: 5)")
    p.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    p.add_argument("-o", "--output", type=Path, default=RESULTS, help="folder (default: benchmarks/results)")
    p.add_argument("--image", type=Path, default=IMAGE, help="the drawing (default: docs/images/snn_memory.png)")
    return p


def document(title: str, unit: str, better: str, note: str, rows: list[dict[str, Any]], part: str) -> dict[str, Any]:
    """A document of a comparison."""
    return {
        "kind": "comparison",
        "title": title,
        "command": f"python benchmarks/snn_rules.py {part}",
        "unit": unit,
        "better": better,
        "note": note,
        "rows": rows,
        "machine": machine_summary(),
        "commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def row(
    what: str, against: str, ours: float, theirs: float, aim: float | None = None, repeats: int = 1
) -> dict[str, Any]:
    """One line of a comparison."""
    return {
        "what": what, "against": against, "ours": round(ours, 4), "theirs": round(theirs, 4),
        "ratio": round(ours / theirs, 4), "aim": aim, "repeats": repeats,
    }  # fmt: skip


def build(width: int, rule: Rule, learn: Learn, device: torch.device) -> SpikingNetwork:
    """The network, the same for every rule."""
    torch.manual_seed(0)
    network = spiking_vgg11(width=width)
    set_rule(network, rule, learn)
    return network.to(device)


def memory(batch: int, width: int, device: torch.device) -> dict[str, Any]:
    """Every rule at every number of steps, beside BPTT; and STOP at 16 beside itself at 4."""
    x = torch.rand(batch, 3, 32, 32, device=device)
    found: dict[str, dict[int, Row]] = {}
    for name, rule, learn in WAYS:
        network = build(width, rule, learn, device)
        found[name] = {steps: measure(network, rule, x, steps, repeats=0) for steps in STEPS}
    megabytes = {name: {t: r.bytes / 1e6 for t, r in rows.items()} for name, rows in found.items()}
    rows = [
        row(f"{name}, T = 16", f"{name}, T = 4", megabytes[name][16], megabytes[name][4], FLAT)
        for name, rule, _ in WAYS
        if rule == "stop"
    ]
    rows += [
        row(f"{name}, T = {t}", f"{AGAINST}, T = {t}", value, megabytes[AGAINST][t])
        for name, values in megabytes.items()
        if name != AGAINST
        for t, value in values.items()
    ]
    by = (
        "the allocator's peak over what was there before"
        if device.type == "cuda"
        else "tensors saved for the backward pass"
    )
    note = f"VGG-11 of width {width}, batch {batch}, 32x32 images; {by}, the most at once during one update."
    return document("Memory of an update of a spiking VGG-11, over time steps", "MB", "lower", note, rows, "memory")


def clock(device: torch.device) -> float:
    """CPU seconds, or seconds on a GPU when it has come to rest."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def least(ways: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, float]:
    """The least seconds of each way over rounds taken in turn, after one that is not counted."""
    best = dict.fromkeys(ways, float("inf"))
    for turn in range(rounds + 1):
        for name, way in ways.items():
            begun = clock(device)
            way()
            if turn:
                best[name] = min(best[name], clock(device) - begun)
    return best


def speed(batch: int, width: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """Updates at T = 6, and inference at T = 4 and 6."""
    x = torch.rand(batch, 3, 32, 32, device=device)
    ways: dict[str, Callable[[], object]] = {}
    for name, rule, learn in WAYS:
        network = build(width, rule, learn, device)
        ways[name] = lambda network=network, rule=rule: measure(network, rule, x, 6, repeats=0)  # type: ignore[misc]
    found = least(ways, rounds, device)
    rows = []
    for name, rule, learn in WAYS:
        against = f"BPTT of {'W, T and L' if learn == 'WTL' else 'W'}"
        if rule != "bptt":
            aim = NO_SLOWER if rule == "stop" else None
            rows.append(row(f"update, T = 6: {name}", against, 1000 * found[name], 1000 * found[against], aim, rounds))
    network = build(width, "stop", "WTL", device).eval()
    for steps in (4, 6):
        network.steps = steps
        pair: dict[str, Callable[[], object]] = {"at once": lambda: network(x), "by step": lambda: stepwise(network, x)}
        with torch.no_grad():
            times = least(pair, rounds, device)
        what = f"inference, T = {steps}: {batch / times['at once']:.0f} images a second, all steps of a layer at once"
        rows.append(row(what, "step by step", 1000 * times["at once"], 1000 * times["by step"], None, rounds))
    unit = "ms" if device.type == "cuda" else "CPU ms"
    note = (
        f"VGG-11 of width {width}, batch {batch}, 32x32 images, float32; the least of each over rounds taken in turn."
    )
    return document("Time of an update of a spiking VGG-11", unit, "lower", note, rows, "speed")


def stepwise(network: SpikingNetwork, x: torch.Tensor) -> None:
    """Inference a step at a time."""
    network.reset()
    for _ in range(network.steps):
        network.step(x)
    network.reset()


def draw(found: dict[str, Any], path: Path) -> None:
    """The memory of every rule over time steps, both on logarithmic axes."""
    lines: dict[str, dict[int, float]] = {}
    for each in found["rows"]:
        for what, value in ((each["what"], each["ours"]), (each["against"], each["theirs"])):
            name, _, steps = what.rpartition(", T = ")
            lines.setdefault(name, {})[int(steps)] = value
    figure = Figure(figsize=(6.4, 3.6), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for names, values in _together(lines):
        steps = sorted(values)
        style = "--" if names.startswith("BPTT") else "-"
        axes.plot(steps, [values[t] for t in steps], style, marker="o", markersize=3.5, label=names)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(list(STEPS), [str(t) for t in STEPS])
    axes.set_xlabel("time steps T")
    axes.set_ylabel("kept for the backward pass, MB")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def _together(lines: dict[str, dict[int, float]]) -> list[tuple[str, dict[int, float]]]:
    """Lines that lie on each other as one, by all their names."""
    found: list[tuple[str, dict[int, float]]] = []
    for name, values in lines.items():
        for place, (names, others) in enumerate(found):
            if all(abs(values[t] / others[t] - 1) < 0.01 for t in values):
                found[place] = (f"{names}, {name}", others)
                break
        else:
            found.append((name, values))
    return found


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    parts = arguments.parts or ["memory", "speed", "figure"]
    torch.set_num_threads(1)
    device = pick_device(arguments.device)
    where = arguments.output
    for part in parts:
        if part == "figure":
            draw(read_json(where / "snn_memory.json"), arguments.image)
            print(arguments.image)
            continue
        if part == "memory":
            made = memory(arguments.batch, arguments.width, device)
        else:
            made = speed(arguments.batch, arguments.width, arguments.rounds, device)
        check(made, part)
        make_folder(where)
        write_json(where / f"snn_{part}.json", made)
        print(where / f"snn_{part}.json")
    return 0


if __name__ == "__main__":
    run_command(main)
