"""Crops a second of MamKPD beside HRNet-W32 and ViT-S with the same decoder: python benchmarks/pose_networks.py.

Everything is timed in one process, the networks in turn, in inference mode on 192x256 crops without a flip test. On a
CPU it is one thread and its processor time; on a GPU (``--device cuda``) wall time with the precision asked for.
MamKPD is deployed, which is how it is meant to be used; an HRNet is timed as timm makes it, and deployed too.
"""

import argparse
import datetime
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds its siblings by the name tests use

from benchmarks.collect import RESULTS, check
from vision.engine.command import run_command
from vision.engine.environment import git_commit, machine_summary
from vision.engine.files import write_json
from vision.engine.registry import build

WIDTH, HEIGHT = 192, 256
OURS = {f"MamKPD-{size.upper()}": f"mamkpd_{size}" for size in "tsbl"}
THEIRS = {"HRNet-W32": "hrnet_w32", "ViT-S": "vit_small_patch16_224"}
DEPLOYED = "HRNet-W32, deployed"
AIM = 1.5
"""Of the largest MamKPD over an HRNet-W32, in crops a second."""


def networks() -> dict[str, nn.Module]:
    """Fresh networks by name, in evaluation mode; the speed does not depend on the weights."""
    torch.manual_seed(0)
    made: dict[str, nn.Module] = {}
    for name, registered in OURS.items():
        made[name] = build({"type": registered}, "network").deploy()
    for name, model in THEIRS.items():
        made[name] = build({"type": "timm_pose", "model": model}, "network").eval()
    made[DEPLOYED] = build({"type": "timm_pose", "model": THEIRS["HRNet-W32"]}, "network").deploy()
    return made


def crops_a_second(run: Callable[[Tensor], Any], images: Tensor, repeats: int) -> float:
    """Of ``repeats`` batches, one after another."""
    cuda = images.is_cuda
    clock = time.perf_counter if cuda else time.process_time
    if cuda:
        torch.cuda.synchronize()
    begun = clock()
    for _ in range(repeats):
        run(images)
    if cuda:
        torch.cuda.synchronize()
    return repeats * len(images) / (clock() - begun)


def measure(
    made: dict[str, nn.Module], batch: int, compiled: bool, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Rounds of all networks in turn, and a row for each of ours against each of the others."""
    device = torch.device(options.device)
    images = torch.randn(batch, 3, HEIGHT, WIDTH, device=device)
    repeats = max(1, (256 if device.type == "cuda" else 8) // batch)
    half = options.precision != "float32"
    cast = torch.autocast(device.type, getattr(torch, options.precision)) if half else nullcontext()
    with torch.inference_mode(), cast:
        runs: dict[str, Callable[[Tensor], Any]] = {}
        for name, network in made.items():
            runs[name] = torch.compile(network, dynamic=False) if compiled else network
            for _ in range(2):
                runs[name](images)
        rounds = [
            {name: crops_a_second(run, images, repeats) for name, run in runs.items()} for _ in range(options.rounds)
        ]
    how = f"batch {batch}, {'compiled' if compiled else 'eager'}"
    speeds = {name: statistics.median(each[name] for each in rounds) for name in made}
    for name, speed in speeds.items():
        print(f"{how}: {name} {speed:.2f} crops/s", flush=True)
    rows = []
    for ours in OURS:
        for theirs in (*THEIRS, DEPLOYED):
            ratio = statistics.median(each[ours] / each[theirs] for each in rounds)
            aim = AIM if (ours, theirs) == ("MamKPD-L", "HRNet-W32") else None
            rows.append(
                {
                    "what": f"{ours}, {how}",
                    "against": theirs,
                    "ours": round(speeds[ours], 3),
                    "theirs": round(speeds[theirs], 3),
                    "ratio": round(ratio, 3),
                    "aim": aim,
                    "repeats": options.rounds,
                }
            )
    return rows


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Time the top-down pose networks side by side.")
    p.add_argument("--device", default="cpu", help="cpu or cuda, default: %(default)s")
    p.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"], help="of autocast")
    p.add_argument("--batch", type=int, nargs="+", default=[1, 32], help="crops at once, default: 1 32")
    p.add_argument("--rounds", type=int, default=5, help="of all networks in turn, default: %(default)s")
    p.add_argument("--eager-only", action="store_true", help="leave torch.compile out")
    p.add_argument("-o", "--output", type=Path, default=RESULTS / "pose_networks.json", help="default: %(default)s")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = parser().parse_args(argv)
    torch.set_num_threads(1)
    made = {name: network.to(options.device) for name, network in networks().items()}
    rows: list[dict[str, Any]] = []
    for compiled in [False] if options.eager_only else [False, True]:
        for batch in options.batch:
            rows += measure(made, batch, compiled, options)
            torch.compiler.reset()
    where = "one CPU thread, by its processor time" if options.device == "cpu" else "one GPU"
    document = {
        "kind": "comparison",
        "title": "MamKPD beside HRNet-W32 and ViT-S",
        "command": "python benchmarks/pose_networks.py",
        "unit": "crops a second",
        "better": "higher",
        "note": (
            f"192x256 crops, {options.precision}, no flip test, {where}; all with the deconv decoder (an HRNet "
            "with its one convolution). MamKPD is deployed; the others are as timm makes them, but for the rows "
            "'deployed', where batch norms are folded and memory is channels-last as MamKPD's. Medians over rounds of "
            "all networks in turn; the ratio is the median of each round's. In eager mode on a CPU every network takes "
            "a batch in parts of 4 crops a thread, compiled as a whole. The paper's 1,492 frames a second of MamKPD-L "
            "on an RTX 4090 name no batch, precision or flip."
        ),
        "rows": rows,
        "machine": machine_summary(),
        "commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    check(document, "pose_networks")
    write_json(options.output, document)
    print(options.output)
    return 0


if __name__ == "__main__":
    run_command(main)
