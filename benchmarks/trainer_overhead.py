"""What the trainer costs beside a bare loop: python benchmarks/trainer_overhead.py [-o FILE].

The same network, data, optimiser and batches, in a loop of a dozen lines over torch's own loader and in ours with its
schedule, seeding, checks and records. The two take turns in one process, so that whatever else the machine does falls
on both; what counts is the median over rounds of the ratio of CPU seconds. Neither evaluates nor writes checkpoints.
"""

import argparse
import datetime
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds its siblings by the name tests use

from benchmarks.collect import RESULTS, check
from vision.classification.cifar_resnet import cifar_resnet
from vision.engine.command import run_command
from vision.engine.data import DataModule, Sample
from vision.engine.distributed import World
from vision.engine.environment import git_commit, machine_summary
from vision.engine.files import write_json
from vision.engine.interrupt import Stop
from vision.engine.optim import constant
from vision.engine.recipe import TrainerOptions
from vision.engine.recorder import Recorder
from vision.engine.run import RunFolder
from vision.engine.task import Batch, Losses, Metric, StepContext, Task
from vision.engine.trainer import Trainer

AIM = 1.03
LOG_EVERY = 10


@dataclass(frozen=True)
class Case:
    """A network at a size, with the updates of a round."""

    what: str
    network: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch_size: int
    updates: int
    aim: float | None


CASES = (
    Case("ResNet-20, 3x32x32, batch 64", lambda: cifar_resnet(20, shortcut="A"), (3, 32, 32), 64, 4, AIM),
    Case(
        "two layers of 64, 1x8x8, batch 32",
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
        (1, 8, 8), 32, 200, None,
    ),
)  # fmt: skip


class Noise(Dataset[Sample]):
    """Random bytes as images, with random labels."""

    def __init__(self, size: int, shape: tuple[int, ...]) -> None:
        self.images = torch.randint(0, 256, (size, *shape), dtype=torch.uint8)
        self.labels = torch.randint(0, 10, (size,)).tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        return {"id": str(index), "image": self.images[index].float() / 255, "label": self.labels[index]}


class NoiseData(DataModule):
    """One data set for everything."""

    def __init__(self, noise: Noise) -> None:
        self.noise = noise

    def train(self) -> Dataset[Sample]:
        return self.noise

    def val(self) -> Dataset[Sample]:
        return self.noise


class Unjudged(Metric):
    """A metric that is never asked."""

    primary = "none"

    def measure(self, prediction: Any, batch: Batch, position: int) -> Any:
        return None

    def score(self, records: list[Any]) -> dict[str, float]:
        return {"none": 0.0}


class Classify(Task):
    """Cross-entropy."""

    def __init__(self, network: nn.Module, data: NoiseData) -> None:
        super().__init__()
        self.network, self.data = network, data

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        yield {"cross_entropy": F.cross_entropy(self.network(batch["image"]), batch["label"])}

    def predict(self, batch: Batch) -> list[Any]:
        return []

    def metric(self) -> Metric:
        return Unjudged()

    def example_input(self) -> Tensor:
        return self.data.noise[0]["image"][None]


def sgd(parameters: Any) -> torch.optim.Optimizer:
    """The optimiser of both."""
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=1e-4)


def bare(case: Case, noise: Noise) -> Callable[[], None]:
    """A round of the bare loop."""
    network = case.network()
    optimizer = sgd(network.parameters())
    network.train()

    def epoch() -> None:
        for step, batch in enumerate(DataLoader(noise, case.batch_size, shuffle=True)):
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(network(batch["image"]), batch["label"])
            loss.backward()
            optimizer.step()
            if (step + 1) % LOG_EVERY == 0:
                loss.item()

    return epoch


def ours(case: Case, noise: Noise, folder: Path) -> Callable[[], None]:
    """A round of the trainer, with its records."""
    run = RunFolder.create(folder, "name: overhead\n", "0")
    never = 10**9
    options = TrainerOptions(
        steps=never, evaluate_every_steps=never, batch_size=case.batch_size, log_every=LOG_EVERY, device="cpu"
    )
    task = Classify(case.network(), NoiseData(noise))
    trainer = Trainer(task, options, sgd, constant, World(torch.device("cpu")), run=run)
    recorder = Recorder(run, LOG_EVERY, never, console=False)
    epochs = iter(range(never))
    return lambda: trainer._epoch(next(epochs), 0, recorder, Stop())


def timed(run: Callable[[], None]) -> tuple[float, float]:
    """CPU and wall seconds of a round."""
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - cpu, time.perf_counter() - wall


def compare(case: Case, seconds: float) -> dict[str, Any]:
    """Rounds of both in turn (ours first, then the bare loop first, and so on) for about ``seconds``."""
    torch.manual_seed(0)
    noise = Noise(case.batch_size * case.updates, case.shape)
    with tempfile.TemporaryDirectory() as folder:
        loops = {"ours": ours(case, noise, Path(folder) / "run"), "theirs": bare(case, noise)}
        for loop in loops.values():
            loop()  # warm-up
        rounds: list[dict[str, tuple[float, float]]] = []
        begun = time.perf_counter()
        for order in cycle((("ours", "theirs"), ("theirs", "ours"))):
            rounds.append({name: timed(loops[name]) for name in order})
            if len(rounds) >= 6 and len(rounds) % 2 == 0 and time.perf_counter() - begun > seconds:
                break
    ratios = [[each["ours"][clock] / each["theirs"][clock] for each in rounds] for clock in (0, 1)]
    spread = statistics.quantiles(ratios[0], n=4)
    print(
        f"{case.what}: CPU ratio {statistics.median(ratios[0]):.4f} (quartiles {spread[0]:.4f}, {spread[2]:.4f}), "
        f"wall ratio {statistics.median(ratios[1]):.4f}, {len(rounds)} rounds"
    )
    each = {name: 1000 * statistics.median(r[name][0] for r in rounds) / case.updates for name in ("ours", "theirs")}
    row = {"what": case.what, "against": "a bare loop", **each, "ratio": statistics.median(ratios[0])}
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()} | {
        "aim": case.aim,
        "repeats": len(rounds),
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Time the trainer beside a bare loop, on one CPU thread.")
    p.add_argument("--seconds", type=float, default=40.0, help="for each network, default: %(default)s")
    p.add_argument("-o", "--output", type=Path, default=RESULTS / "trainer_overhead.json", help="default: %(default)s")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    torch.set_num_threads(1)
    document = {
        "kind": "comparison",
        "title": "The trainer beside a bare loop",
        "command": "python benchmarks/trainer_overhead.py",
        "unit": "CPU ms an update",
        "better": "lower",
        "note": "Medians over rounds taken in turn; the ratio is the median of each round's. On one thread.",
        "rows": [compare(case, arguments.seconds) for case in CASES],
        "machine": machine_summary(),
        "commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    check(document, "trainer_overhead")
    write_json(arguments.output, document)
    print(arguments.output)
    return 0


if __name__ == "__main__":
    run_command(main)
