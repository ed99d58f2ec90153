"""What SoTeacher's terms cost in a training step: python benchmarks/soteacher_steps.py [--seconds S] [--device cuda].

The same network, batch and optimiser, with cross-entropy alone and with the Lipschitz and the consistency term of the
published recipe in force, in turns. What counts of time is the median over turns of the ratio: of CPU seconds on one
thread, or of seconds on a GPU. Memory is what is kept for the backward pass, and the bank; on a GPU the most that its
allocator held.
"""

import argparse
import datetime
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds its siblings by the name tests use

from benchmarks.collect import RESULTS, check
from robust.distillation import Regularisation, Regularisers
from vision.classification import wide_resnet
from vision.engine.command import run_command
from vision.engine.distributed import pick_device
from vision.engine.environment import git_commit, machine_summary
from vision.engine.files import write_json

AIM = 1.05
SAMPLES, CLASSES, BATCH = 50_000, 100, 64
NETWORKS = {"WRN-16-2": (16, 2), "WRN-40-2": (40, 2)}

Step = Callable[[], Tensor]
"""Makes one update; returns the loss."""


def steps_of(depth: int, width: int, device: torch.device) -> dict[str, tuple[Step, Regularisation | None]]:
    """An update of the plain teacher and one of SoTeacher's, each of a network of its own."""
    torch.manual_seed(0)
    batch: dict[str, Any] = {
        "image": torch.randn(BATCH, 3, 32, 32, device=device),
        "label": torch.randint(CLASSES, (BATCH,), device=device),
        "index": torch.randperm(SAMPLES)[:BATCH].to(device),
    }
    regularisation = Regularisation(Regularisers(), SAMPLES, CLASSES).to(device)
    assert regularisation.bank is not None
    regularisation.bank.end_epoch(1, 240)  # in the first epoch the consistency term is zero

    def make(terms: Regularisation | None) -> Step:
        network = wide_resnet(depth, width, CLASSES).to(device)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)

        def step() -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            logits = network(batch["image"])
            loss = F.cross_entropy(logits, batch["label"])
            for term in (terms.losses(network, logits, batch) if terms is not None else {}).values():
                loss = loss + term
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    return {"theirs": (make(None), None), "ours": (make(regularisation), regularisation)}


def clock(device: torch.device) -> float:
    """CPU seconds of this process, or seconds once the GPU has finished."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def timed(step: Step, device: torch.device, repeats: int) -> float:
    """Milliseconds an update."""
    begun = clock(device)
    for _ in range(repeats):
        step()
    return 1000 * (clock(device) - begun) / repeats


def kept(step: Step, state: nn.Module | None, device: torch.device) -> float:
    """Megabytes of an update: saved for the backward pass with the bank, or the most that the GPU held."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() / 1e6
    held: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        step()
    bank = sum(value.nbytes for value in state.state_dict().values()) if state is not None else 0
    return (sum(held.values()) + bank) / 1e6


def compare(name: str, device: torch.device, seconds: float) -> list[dict[str, Any]]:
    """Time and memory of one network's updates."""
    ways = steps_of(*NETWORKS[name], device)
    memory = {way: kept(step, state, device) for way, (step, state) in ways.items()}
    repeats = 20 if device.type == "cuda" else 1
    rounds: list[dict[str, float]] = []
    begun = time.perf_counter()
    while len(rounds) < 6 or (len(rounds) % 2 or time.perf_counter() - begun < seconds):
        order = ("ours", "theirs") if len(rounds) % 2 else ("theirs", "ours")
        rounds.append({way: timed(ways[way][0], device, repeats) for way in order})
    each = {way: statistics.median(found[way] for found in rounds) for way in ways}
    ratio = statistics.median(found["ours"] / found["theirs"] for found in rounds)
    what = f"{name}, batch {BATCH}, {CLASSES} classes, {SAMPLES:,} samples"
    print(f"{what}: {ratio:.4f} of the time over {len(rounds)} turns", flush=True)
    return [
        row(f"a step of {what}, ms", each["ours"], each["theirs"], ratio, AIM, len(rounds)),
        row(f"memory of a step of {what}, MB", memory["ours"], memory["theirs"], memory["ours"] / memory["theirs"]),
    ]


def row(
    what: str, ours: float, theirs: float, ratio: float, aim: float | None = None, repeats: int = 1
) -> dict[str, Any]:
    """One line of the comparison."""
    told = {"ours": round(ours, 3), "theirs": round(theirs, 3), "ratio": round(ratio, 4)}
    return {"what": what, "against": "cross-entropy alone", **told, "aim": aim, "repeats": repeats}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Time and memory of a SoTeacher step beside a plain one.")
    p.add_argument("--seconds", type=float, default=60.0, help="of taking turns, a network; default: %(default)s")
    p.add_argument("--device", default="cpu", help="cpu (one thread) or cuda; default: %(default)s")
    p.add_argument("-o", "--output", type=Path, default=RESULTS / "soteacher_steps.json", help="default: %(default)s")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    device = pick_device(arguments.device)
    torch.set_num_threads(1)
    measured = "peak of the allocator" if device.type == "cuda" else "what is kept for the backward pass, and the bank"
    document = {
        "kind": "comparison",
        "title": "SoTeacher's terms in a training step",
        "command": "python benchmarks/soteacher_steps.py",
        "unit": "ms or MB",
        "better": "lower",
        "note": f"Medians over turns; the ratio is the median of each turn's. Memory: {measured}.",
        "rows": [line for name in NETWORKS for line in compare(name, device, arguments.seconds)],
        "machine": machine_summary(),
        "commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    check(document, "soteacher_steps")
    write_json(arguments.output, document)
    print(arguments.output)
    return 0


if __name__ == "__main__":
    run_command(main)
