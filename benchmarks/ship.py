"""Turn trained runs into the networks that ship with the package: python benchmarks/ship.py [NAME...].

A network that ships is the run of the recipe of its name: of ``runs/NAME`` what predicting and judging need goes to
``vision/models/NAME``, as the run left it, with a card that is written from it. ``make models`` trains all of them,
judges them, and calls this. What a card says beside the run's own words and figures stands in :data:`TOLD`.
"""

import argparse
import hashlib
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds its siblings by the name tests use

from benchmarks.collect import records_of
from benchmarks.figures import Documents, table
from vision.deploy.shipped import MODELS
from vision.engine.command import run_command
from vision.engine.errors import DataError
from vision.engine.files import read_json, write_atomically, write_json
from vision.engine.train import single_run
from vision.report.card import card
from vision.report.runs import group_by_seed, read_runs

WEIGHTS = "checkpoints/best.safetensors"
COPIED = ("config.yaml", "environment.json", "metrics.jsonl", WEIGHTS)
OF_THIS_MACHINE = re.compile(rb"(?<![\w.}])/(?:home|root|srv|tmp|work|mnt|media|var|usr|opt|Users)/")
FIGURES = {
    "accuracy": "accuracy {:.1%}",
    "clean": "clean {:.1%}",
    "pgd20": "PGD-20 {:.1%}",
    "autoattack": "AutoAttack {:.1%}",
    "IoU": "IoU {:.1%}",
    "Pd": "Pd {:.1%}",
    "Fa": "Fa {:.1f} ×10⁻⁶",
}
"""Figures that the table of all networks shows, in this order."""

DIGITS_DATA = (
    "The training part of scikit-learn's 8x8 digits: E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten "
    "Digits*, UCI Machine Learning Repository, 1998, CC BY 4.0. The validation part chose the weights."
)
DIGITS_NOT = (
    "Anything but single digits that fill an image as those of the data do, light on black, averaged down to 8x8 "
    "pixels: not for photographs, MNIST's framing, letters, or several digits; it names a digit whatever it is shown."
)


@dataclass(frozen=True)
class Told:
    """What no run knows of itself.

    Attributes:
        load: the function that opens the network.
        sample: an image that ships with the package, to try it on.
        data: what it was trained on, whose that is, and under which terms.
        good: what it is good for.
        bad: what it is not good for.
        judged: what evaluations other than ``val`` and ``test`` are on, by name.
    """

    load: str
    sample: str
    data: str
    good: str
    bad: str
    judged: dict[str, str]


def _digits(load: str, good: str, bad: str = "", judged: dict[str, str] | None = None) -> Told:
    sample = "vision/samples/digits/digit_0003_is_3.png"
    return Told(load, sample, DIGITS_DATA, good, f"{DIGITS_NOT}{bad}", judged or {})


TOLD: dict[str, Told] = {
    "digits_cnn": _digits(
        "vision.classification.load",
        "Trying classification, export and the benchmark tool at once, and as an undefended network to attack.",
    ),
    "soteacher_digits": _digits(
        "vision.classification.load",
        "Seeing what a small student keeps of its SoTeacher teacher.",
        " That the teacher made it better is not shown: see docs/distillation.md.",
    ),
    "robust_digits": _digits(
        "robust.load",
        "Seeing adversarial training at work: attack it and `digits_cnn` with the same eps. How far the search moved "
        "its labels from one-hot is the option `weight` below; that calibration helped here is not shown.",
        " Its robustness is measured within eps = 0.1 in linf alone, not for other norms, larger eps or changes that "
        "are not small, such as a shift by a pixel.",
        {"robust-best": "the test split under attack, linf, eps = 0.1"},
    ),
    "stop_digits": _digits(
        "snn.load",
        "Looking at spikes: the raster of `tools/demo.py`, synaptic operations, export of a spiking network.",
        " Not for event cameras: it is shown the same image at every time step.",
    ),
    "tbcnet_lite_synthetic": Told(
        "vision.infrared.load",
        "vision/samples/infrared/scene.png",
        "Synthetic scenes and target images alone, drawn by the package (`vision.infrared.synthesis`, "
        "`vision.infrared.backgrounds`): nobody else's data, no terms. SIRST and msistd80 below were judged, never "
        "trained on.",
        "Trying detection, export and the benchmark tool at once, and as a start for training on images of your own.",
        "Real infrared images, as a detector to rely on: it has never seen one, and the figures of `sirst` and "
        "`msistd80` beside those of `test` measure what that costs. Train on real images instead: "
        "configs/infrared/tbcnet_lite_sirst.yaml.",
        {
            "test": "synthetic scenes",
            "sirst": "SIRST, nuaa50_test: real images, never trained on",
            "msistd80": "msistd80: real images, never trained on",
        },
    ),
}
"""The networks that ship."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description="Put trained runs into vision/models, each with its card.",
        epilog="example: python benchmarks/ship.py tbcnet_lite_synthetic",
    )
    p.add_argument("names", nargs="*", metavar="NAME", help=f"default: all, {', '.join(TOLD)}")
    p.add_argument("--runs", type=Path, default=Path("runs"), help="where the runs lie (default: runs)")
    p.add_argument("--cards", action="store_true", help="only write the cards of what ships already anew")
    return p


def ship(name: str, run: Path, models: Path = MODELS) -> Path:
    """Copies what predicting and judging need of a run, and writes its card.

    Args:
        name: of the network, its recipe and its folder.
        run: the run's folder, or that of a pipeline whose last training counts.
        models: the folder of the networks that ship.

    Returns:
        The network's folder.

    Raises:
        DataError: the run was not judged on its test split, was trained from files that no commit has, or tells of a
            folder of this machine.
    """
    source, folder = single_run(run), models / name
    results = {file.parent.name: read_json(file) for file in sorted(source.glob("eval/*/result.json"))}
    if "test" not in results:
        raise DataError(f"{source}: was not judged on its test split; finish the run with --resume")
    commit = str(read_json(source / "environment.json")["git_commit"])
    if "+" in commit:
        raise DataError(
            f"{source}: was trained with changes that commit {commit[:12]} does not have; commit, and train"
        )
    shutil.rmtree(folder, ignore_errors=True)
    for part in COPIED:
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / part, folder / part)
    for evaluation, result in results.items():
        (folder / "eval" / evaluation).mkdir(parents=True)
        data = {key: value for key, value in result["data"].items() if key != "root"}
        write_json(folder / "eval" / evaluation / "result.json", {**result, "data": data})
    for file in files_of(folder):
        if found := OF_THIS_MACHINE.search(file.read_bytes()):
            raise DataError(f"{file}: tells of a folder of this machine ({found[0].decode()}...); run tools/ from here")
    write_card(name, models)
    return folder


def files_of(folder: Path) -> list[Path]:
    """All files of a network but its card."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "README.md")


def write_card(name: str, models: Path = MODELS) -> None:
    """Writes a network's card from its folder."""
    write_atomically(models / name / "README.md", card_of(name, models).encode())


def card_of(name: str, models: Path = MODELS) -> str:
    """The card: how to use the network, what it is and is not for, terms, what was measured, how to make it again."""
    folder, told = models / name, TOLD[name]
    (group,) = group_by_seed(read_runs([folder]))
    head, what = card(group).split("## What it is", 1)
    module = told.load.partition(".")[0]
    use = [
        *("```python", f"import {module}", "", f'network = {told.load}("{name}")'),
        *(f'print(network("{told.sample}").to_dict())', "```", ""),
        *("```sh", f"python tools/predict.py {name} {told.sample}", "```"),
    ]
    parts = {
        "Use": use,
        "Good for": [told.good],
        "Not for": [told.bad],
        "Training data and terms": [told.data],
        "Licence": ["Apache-2.0, the weights as all else here; trained by this project, from nobody's weights."],
    }
    if told.judged:
        parts["Evaluations below"] = [f"- `{evaluation}`: {on}" for evaluation, on in told.judged.items()]
    before = "".join(f"## {title}\n\n" + "\n".join(lines) + "\n\n" for title, lines in parts.items())
    return f"{head}{before}## What it is{what}{_again(name, folder)}"


def _again(name: str, folder: Path) -> str:
    """How the network is made again, and its files."""
    test = _records(folder)["test"]
    rows = [[f"`{n}`", f"{size:,}", f"`{digest}`"] for n, size, digest in digests(folder)]
    lines = [
        *("", "## How to make it again", "", "```sh", f"python tools/train.py {name}"),
        *(f"python benchmarks/ship.py {name}", "```", ""),
        f"{test['updates']:,} updates of {test['batch_size']} samples, best at update {test['best_update']:,}. Another "
        "machine computes other last digits, and so other weights. `make models` makes the other evaluations too.",
        *("", *table(["file", "bytes", "SHA-256"], rows, left=1)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def digests(folder: Path) -> Iterator[tuple[str, int, str]]:
    """Name, size in bytes and SHA-256 of a network's weights and recipe."""
    for part in (WEIGHTS, "config.yaml"):
        content = (folder / part).read_bytes()
        yield part, len(content), hashlib.sha256(content).hexdigest()


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    return {record["evaluation"]: record for record in records_of(folder)}


def models_block(_: str, documents: Documents) -> str:
    """The networks that ship: what opens each, its size and its figures."""
    rows = []
    for name in TOLD:
        records = _records(MODELS / name)
        for evaluation in ["test", *(key for key in records if key not in ("test", "val"))]:
            record, first = records[evaluation], evaluation == "test"
            shown = [
                text.format(record["metrics"][key]).replace("%", " %")
                for key, text in FIGURES.items()
                if key in record["metrics"]
            ]
            on = TOLD[name].judged.get(evaluation, "test split")
            rows.append(
                [
                    f"[`{name}`](../vision/models/{name}/README.md)" if first else "",
                    f"`{TOLD[name].load}`" if first else "",
                    f"{record['parameters']:,}" if first else "",
                    f"{on}, {record['samples']}",
                    ", ".join(shown),
                ]
            )
    return "\n".join(
        table(["network", "opened by", "parameters", "judged on, samples", "figures"], rows, left=5)
    ).rstrip()


def digests_block(_: str, documents: Documents) -> str:
    """The weights that ship, with size and SHA-256."""
    found = [(name, *next(iter(digests(MODELS / name)))) for name in TOLD]
    rows = [[f"`{name}/{part}`", f"{size:,}", f"`{digest}`"] for name, part, size, digest in found]
    return "\n".join(table(["file below `vision/models`", "bytes", "SHA-256"], rows, left=1)).rstrip()


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    for name in arguments.names or TOLD:
        if name not in TOLD:
            raise DataError(f"'{name}' is none of the networks that ship; expected one of {', '.join(TOLD)}")
        if arguments.cards:
            write_card(name)
        else:
            ship(name, arguments.runs / name)
        print(MODELS / name / "README.md")
    return 0


if __name__ == "__main__":
    run_command(main)
