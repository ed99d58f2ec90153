"""Draw the pictures of the README: python docs/pictures.py --tbcnet RUN --digits RUN.

Only images that are free to publish are shown: scenes that the package makes itself, and scikit-learn's digits. Which
ones is not chosen by how well they went: they are the first of their test splits.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vision.classification.task import Classification
from vision.engine.checkpoint import load_weights
from vision.engine.command import run_command
from vision.engine.config import load
from vision.engine.prediction import Picture
from vision.engine.registry import build
from vision.engine.run import RunFolder
from vision.engine.task import Batch, Task
from vision.engine.train import load_run, single_run
from vision.infrared.modules import InfraredSynthetic
from vision.infrared.task import InfraredTargets
from vision.report.figures import contact_sheet

IMAGES = Path(__file__).parent / "images"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description="Draw docs/images/*.png from trained runs; runs that are not given are left as they are."
    )
    p.add_argument("--tbcnet", type=Path, metavar="RUN", help="a run whose network is a tbcnet")
    p.add_argument("--digits", type=Path, metavar="RUN", help="a run of digits_cnn")
    p.add_argument("-o", "--output", type=Path, default=IMAGES, help="folder (default: docs/images)")
    return p


@torch.no_grad()
def drawn(task: Task, batch: Batch) -> list[tuple[Picture, bool]]:
    """The samples of a batch with what the network says, and whether it is right where it names a class."""
    task.eval()
    predictions, truths = task.predict(batch), task.truths(batch)
    shown = zip(predictions, task.pictures(batch), truths, strict=True)
    return [(p.draw(picture, truth), getattr(p, "label", None) in (None, truth)) for p, picture, truth in shown]


def detections(folder: Path, scenes: int = 4, size: int = 192) -> Picture:
    """Synthetic scenes, the first of the test split, with the targets a trained TBC-Net finds in them."""
    run = RunFolder(single_run(folder))
    network = build(load(run.config).tree["task"]["network"], "network")
    load_weights(network, run.best)
    data = InfraredSynthetic(size=size, scenes=scenes)
    task = InfraredTargets(data, network, loss="softiou", semantic=False)
    images = task.test_data()
    assert images is not None
    batch = task.collate([images[index] for index in range(scenes)])
    return contact_sheet([picture for picture, _ in drawn(task, batch)], columns=2, gap=8)


def digits(folder: Path, first: int = 18, columns: int = 9) -> Picture:
    """The first test digits with the class a trained network gives them, then those it takes for another, if any."""
    task = load_run(folder, "best", [])[2]
    assert isinstance(task, Classification)
    images = task.test_data()
    assert images is not None
    everything = task.collate([images[index] for index in range(len(images))])  # type: ignore[arg-type]
    judged = drawn(task, everything)
    wrong = [picture for picture, right in judged[first:] if not right]
    return contact_sheet([picture for picture, _ in judged[:first]] + wrong[:columns], columns=columns)


def save(picture: Picture, path: Path, step: int = 8) -> None:
    """Writes a small PNG: levels in steps of ``step``, and a palette of exactly the colours that are left."""
    levels = np.minimum(np.rint(picture / step) * step, 255).astype(np.uint8)
    colours, places = np.unique(levels.reshape(-1, 3), axis=0, return_inverse=True)
    image = Image.fromarray(levels)
    if len(colours) <= 256:
        image = Image.fromarray(places.reshape(picture.shape[:2]).astype(np.uint8), "P")
        image.putpalette(colours.tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    if arguments.tbcnet:
        save(detections(arguments.tbcnet), arguments.output / "detections.png")
    if arguments.digits:
        save(digits(arguments.digits), arguments.output / "digits.png")
    return 0


if __name__ == "__main__":
    run_command(main)
