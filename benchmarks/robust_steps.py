"""What a step of robust training costs, ours and with torchattacks: python benchmarks/robust_steps.py [-o FILE].

Each step attacks a batch of noise, backpropagates and updates a PreActResNet; all take turns in one process, so that
whatever else the machine does falls on all. On a CPU it is one thread and its processor time, on a GPU wall time.
Theirs is a training step of a few lines whose attack comes from torchattacks, which has no APART: that stands beside
PGD-10. It needs ``pip install --no-deps torchattacks``.
"""

import argparse
import copy
import datetime
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds its siblings by the name tests use

from benchmarks.collect import RESULTS, check
from robust.adversarial import AdversarialClassification, trades_loss
from robust.apart_task import ApartClassification
from robust.calibrated import LabelCalibration
from robust.calibration import calibration_loss
from vision.classification import Normalised
from vision.classification.data import ClassificationData, Split
from vision.classification.images import Images
from vision.classification.preact_resnet import preact_resnet
from vision.engine.checkpoint import save_weights
from vision.engine.command import run_command
from vision.engine.environment import git_commit, machine_summary
from vision.engine.errors import UserError
from vision.engine.files import write_json
from vision.engine.task import Batch, StepContext

EPS, STEP = 8 / 255, 2 / 255
APART_AIM = 0.25
"""Of a step of PGD-10, as APART's authors claim."""

Step = Callable[[], None]


@dataclass(kw_only=True, eq=False)
class Noise(ClassificationData):
    """Random bytes as images of 3x32x32, with random labels; enough for one batch."""

    count: int = 128
    normalise: bool = False
    crop_padding: int = 4
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)

    @property
    def classes(self) -> list[str]:
        return [str(k) for k in range(10)]

    @property
    def image_size(self) -> int:
        return 32

    @property
    def in_channels(self) -> int:
        return 3

    def listing(self, split: Split) -> Images:
        pixels = torch.randint(0, 256, (self.count, 3, 32, 32), dtype=torch.uint8)
        return Images([str(i) for i in range(self.count)], torch.randint(0, 10, (self.count,)), pixels, 3)

    def partition(self, split: Split) -> Any:
        images = self.listed("train")
        return images, torch.arange(len(images)).numpy()


def updated(network: nn.Module, loss: Callable[[], Tensor]) -> Step:
    """Backpropagates a loss and updates the network by SGD."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def ours(task: AdversarialClassification, batch: Batch, device: torch.device) -> Step:
    """A task's step as the trainer makes it."""
    task.to(device).train()
    task.before_training()
    context = StepContext(1, 10, 0)

    def loss() -> Tensor:
        (losses,) = task.training_step(batch, context)
        return torch.stack([value for name, value in losses.items() if not name.startswith("_")]).sum()

    update = updated(task.trained, loss)

    def step() -> None:
        update()
        task.after_step(context)

    return step


def theirs(network: nn.Module, batch: Batch, attack: str, loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Step:
    """A step whose attack is that of torchattacks; ``loss`` takes images, attacked images and labels."""
    try:
        import torchattacks  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError("torchattacks is not installed; pip install --no-deps torchattacks") from error
    network.train()
    made = getattr(torchattacks, attack)(network, eps=EPS, alpha=STEP, steps=10)
    return updated(network, lambda: loss(batch["image"], made(batch["image"], batch["label"]), batch["label"]))


def steps(options: argparse.Namespace, folder: Path) -> dict[str, Step]:
    """Every step by its name."""
    torch.manual_seed(0)
    device = torch.device(options.device)
    data = Noise(count=options.batch)
    images = data.listed("train")
    pixels = images.pixels
    assert isinstance(pixels, Tensor)
    batch = {"id": images.ids, "image": pixels.float().to(device) / 255, "label": images.labels.to(device)}
    weights = folder / "teacher.safetensors"

    def fresh() -> nn.Module:
        torch.manual_seed(0)
        return preact_resnet(options.width, options.blocks)

    def normalised() -> nn.Module:
        return Normalised(fresh(), data.mean, data.std).to(device)

    save_weights(weights, normalised(), {})
    teacher = copy.deepcopy(normalised()).eval().requires_grad_(False)
    plain, balanced, taught = normalised(), normalised(), normalised()

    def calibrated(x: Tensor, attacked: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            given = teacher(attacked)
        return calibration_loss(taught(attacked), given, y, 2.0, 0.5)

    return {
        "PGD-10 AT": ours(AdversarialClassification(data, fresh(), "pgd"), batch, device),
        "TRADES": ours(AdversarialClassification(data, fresh(), "trades"), batch, device),
        "label calibration": ours(LabelCalibration(data, fresh(), [str(weights)]), batch, device),
        "APART": ours(ApartClassification(data, fresh(), ["stages.*.conv1"]), batch, device),
        "PGD-10 AT, torchattacks": theirs(plain, batch, "PGD", lambda x, a, y: F.cross_entropy(plain(a), y)),
        "TRADES, torchattacks": theirs(
            balanced, batch, "TPGD", lambda x, a, y: trades_loss(balanced(x), balanced(a), y)
        ),
        "label calibration, torchattacks": theirs(taught, batch, "PGD", calibrated),
    }


PAIRS: tuple[tuple[str, str, float | None], ...] = (
    ("PGD-10 AT", "PGD-10 AT, torchattacks", None),
    ("TRADES", "TRADES, torchattacks", None),
    ("label calibration", "label calibration, torchattacks", None),
    ("label calibration", "PGD-10 AT", None),
    ("APART", "PGD-10 AT", APART_AIM),
    ("APART", "PGD-10 AT, torchattacks", APART_AIM),
)
"""What is timed, against what, and the aim of the ratio."""


def seconds(step: Step, cuda: bool) -> float:
    """Of one step: processor time on a CPU, wall time on a GPU."""
    clock = time.perf_counter if cuda else time.process_time
    if cuda:
        torch.cuda.synchronize()
    begun = clock()
    step()
    if cuda:
        torch.cuda.synchronize()
    return clock() - begun


def measure(made: dict[str, Step], rounds: int, cuda: bool, what: str) -> list[dict[str, Any]]:
    """Rounds of all steps in turn; a row for each pair."""
    for step in made.values():
        step()  # warm-up
    times = [{name: seconds(step, cuda) for name, step in made.items()} for _ in range(rounds)]
    rows = []
    for name, against, aim in PAIRS:
        mine, other = (1000 * statistics.median(each[key] for each in times) for key in (name, against))
        ratio = statistics.median(each[name] / each[against] for each in times)
        print(f"{name} {mine:.1f} ms, {against} {other:.1f} ms, ratio {ratio:.3f}", flush=True)
        figures = {"ours": round(mine, 3), "theirs": round(other, 3), "ratio": round(ratio, 4)}
        rows.append({"what": f"{name}, {what}", "against": against, **figures, "aim": aim, "repeats": rounds})
    return rows


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Time training steps under attack, ours beside those with torchattacks.")
    p.add_argument("--device", default="cpu", help="cpu or cuda, default: %(default)s")
    p.add_argument("--width", type=int, default=16, help="of the PreActResNet; 64 for that of papers")
    p.add_argument("--blocks", type=int, default=1, help="in each of its four stages; 2 for that of papers")
    p.add_argument("--batch", type=int, default=64, help="images, default: %(default)s")
    p.add_argument("--rounds", type=int, default=10, help="of all steps in turn, default: %(default)s")
    p.add_argument("-o", "--output", type=Path, default=RESULTS / "robust_steps.json", help="default: %(default)s")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = parser().parse_args(argv)
    torch.set_num_threads(1)
    cuda = options.device != "cpu"
    what = f"PreActResNet-{8 * options.blocks + 2} of width {options.width}, batch {options.batch}"
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(steps(options, Path(folder)), options.rounds, cuda, what)
    document = {
        "kind": "comparison",
        "title": "A step of robust training",
        "command": "python benchmarks/robust_steps.py",
        "unit": f"{'wall' if cuda else 'CPU'} ms an update",
        "better": "lower",
        "note": (
            "Attack, both passes and update, float32, 3x32x32; attacks of 10 steps at 8/255. APART makes two passes a "
            "step, PGD-10 eleven; the aim is its authors' claim. "
            f"{'One GPU' if cuda else 'One CPU thread, its processor time'}. "
            "Medians over rounds of all in turn; the ratio is the median of each round's."
        ),
        "rows": rows,
        "machine": machine_summary(),
        "commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    check(document, "robust_steps")
    write_json(options.output, document)
    print(options.output)
    return 0


if __name__ == "__main__":
    run_command(main)
