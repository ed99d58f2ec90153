"""Draw the pictures of the pages from trained runs: python docs/pictures.py --tbcnet RUN --pose RUN --spikes RUN ...

Only images that are free to publish are shown: scenes that the package makes itself, scikit-learn's digits, and the
photographs in vision/samples/people, in the public domain. Which ones is not chosen by how well they went: they are the
first of their test splits, and all of the photographs.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import robust
import vision.pose
from robust.pictures import panels
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
from vision.pose.samples import PEOPLE
from vision.report.figures import contact_sheet, side_by_side

IMAGES = Path(__file__).parent / "images"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description="Draw docs/images/*.png from trained runs; runs that are not given are left as they are."
    )
    p.add_argument("--tbcnet", type=Path, metavar="RUN", help="a run whose network is a tbcnet")
    p.add_argument("--digits", type=Path, metavar="RUN", help="a run of digits_cnn")
    p.add_argument("--pose", type=Path, metavar="RUN", help="a run of dhrnet_w18s_samples")
    p.add_argument("--spikes", type=Path, metavar="RUN", help="a run of stop_digits")
    p.add_argument("--attack", type=Path, nargs=2, metavar="RUN", help="runs on digits: ordinary, adversarial")
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


def poses(folder: Path, height: int = 400) -> Picture:
    """The photographs that ship with the package, with the joints that a single-stage network finds in them."""
    estimate = vision.pose.load(folder)
    shown = []
    for file in sorted(PEOPLE.glob("images/*.jpg")):
        image = Image.fromarray(estimate(file).draw(estimate.picture(file)))
        size = round(image.width * height / image.height), height
        shown.append(np.array(image.resize(size, Image.Resampling.LANCZOS)))
    return np.concatenate(shown, axis=1)


def spikes(folder: Path, first: int = 3) -> Picture:
    """The first test digits beside the spikes of the network that reads them: a row a neuron, a column a time step."""
    task = load_run(folder, "best", [])[2]
    images = task.test_data()
    assert images is not None
    return contact_sheet([p for p, _ in drawn(task, task.collate([images[k] for k in range(first)]))], first, gap=24)


def attacks(ordinary: Path, adversarial: Path, first: int = 3) -> Picture:
    """The first test digits, the change by PGD-20 magnified, and the attacked digits, a row a network.

    The radius is the one that the second network was trained against.
    """
    rows = []
    eps = float(load(RunFolder(single_run(adversarial)).config).tree["task"]["threat"]["eps"])
    for folder, name in ((ordinary, "ordinary training"), (adversarial, "adversarial training")):
        classifier, task = robust.load(folder), load_run(folder, "best", [])[2]
        images = task.test_data()
        assert images is not None
        batch = task.collate([images[k] for k in range(first)])
        shown = zip(task.pictures(batch), task.truths(batch), strict=True)
        found = [classifier.attacked(picture, truth, eps=eps) for picture, truth in shown]
        said = [panels(f.before, f.image, (f.clean.label, f.scores.label), f.truth, side=96) for f in found]
        rows.append(side_by_side([contact_sheet(said, first, gap=24)], [f"{name}, PGD-20, eps = {eps:g}"]))
    return contact_sheet(rows, columns=1, gap=8)


def save(picture: Picture, path: Path, step: int = 8) -> None:
    """Writes a small file: a JPEG of photographs; else a PNG, levels in steps of ``step``, of few colours a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jpg":
        Image.fromarray(picture).save(path, quality=88, optimize=True)
    else:
        as_png(picture, step).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


def as_png(picture: Picture, step: int) -> Image.Image:
    """The picture in few levels, with a palette of exactly the colours that are left where they are few."""
    levels = np.minimum(np.rint(picture / step) * step, 255).astype(np.uint8)
    colours, places = np.unique(levels.reshape(-1, 3), axis=0, return_inverse=True)
    image = Image.fromarray(levels)
    if len(colours) <= 256:
        image = Image.fromarray(places.reshape(picture.shape[:2]).astype(np.uint8), "P")
        image.putpalette(colours.tobytes())
    return image


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    if arguments.tbcnet:
        save(detections(arguments.tbcnet), arguments.output / "detections.png")
    if arguments.digits:
        save(digits(arguments.digits), arguments.output / "digits.png")
    if arguments.pose:
        save(poses(arguments.pose), arguments.output / "poses.jpg")
    if arguments.spikes:
        save(spikes(arguments.spikes), arguments.output / "spikes.png")
    if arguments.attack:
        save(attacks(*arguments.attack), arguments.output / "attack.png")
    return 0


if __name__ == "__main__":
    run_command(main)
