"""Files from strangers that would run code if they could: planted payloads, each of which makes a file.

python benchmarks/reliability/strangers.py

Whatever a file is given to, the payload must not have run and a clear error must come; files that are odd but hold
nothing to run may also be taken. A new entrance is one more function in ``ENTRANCES``.
"""

import json
import pickle
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script finds its siblings by the name tests use

from benchmarks.reliability.children import run
from benchmarks.reliability.exported_strangers import a_package_on_purpose, exports
from benchmarks.reliability.file_mutations import make_cifar, make_events
from benchmarks.reliability.outcomes import Expected, Outcome, conduct, judged, options
from benchmarks.reliability.payloads import (
    CANARY,
    CODE,
    LIVE,
    Payload,
    Stranger,
    array,
    calls,
    object_array,
    pickles,
    writes,
)
from benchmarks.reliability.recipes import TEACHER, write_recipe
from robust.corruptions import corruption_accuracy
from robust.data_quality import read_rank
from tools import convert, train
from tools import eval as judge
from vision.classification.networks import DigitsCNN
from vision.classification.subset import read_subset
from vision.classification.weights import load_weights
from vision.engine.command import run_command
from vision.pose.people import BoxesOfFile
from vision.pose.samples import PEOPLE

# -- entrances -----------------------------------------------------------------------------------------------------

TAGS = {
    "!!python/object/apply": f"description: !!python/object/apply:os.mkdir [{CANARY}]",
    "!!python/object/new": f"description: !!python/object/new:os.mkdir [{CANARY}]",
    "!!python/name": "description: !!python/name:os.mkdir",
    "!!python/module": "description: !!python/module:antigravity",
    "a local tag": f"description: !os.mkdir {CANARY}",
    "a tag in a key": f"? !!python/object/apply:os.mkdir [{CANARY}]\n: 1",
    "a tag by %TAG": f"%TAG ! tag:yaml.org,2002:python/object/apply:\n---\ndescription: !os.mkdir [{CANARY}]",
}
VALUES = {
    "a shell's $( )": ("output", f"$(mkdir {CANARY})", "accepted"),
    "backticks": ("output", f"`mkdir {CANARY}`", "accepted"),
    "${ } with a command": ("output", f"${{$(mkdir {CANARY})}}", "refused"),
    "${ } with Python": ("output", f"${{{CODE}}}", "refused"),
    "${x:-} with a command": ("output", f"${{NO_SUCH:-$(mkdir {CANARY})}}", "accepted"),
    "${stages.} with Python": ("output", f"${{stages.{CODE}}}", "refused"),
    "a number by eval": ("seed", CODE, "refused"),
    "a resolver": ("output", f"${{oc.env:{CANARY}}}", "refused"),
}
TYPES = ("os.mkdir", "os.system", "builtins.exec", "subprocess.Popen", "tools.train", "vision.engine.registry.build",
         "torch.load", "__import__", "antigravity")  # fmt: skip


def recipes() -> Iterator[Stranger]:
    """Recipes with tags, variables and names of things that Python could import."""

    def told(case: str, edit: Callable[[str], str], expected: Expected = "refused") -> Stranger:
        def plant(folder: Path) -> None:
            file = write_recipe("regularised_classification", folder)
            (folder / "recipe.yaml").write_text(edit(file.read_text()))

        return Stranger("recipe", case, plant, train.main, ("recipe.yaml", "--dry-run"), ("recipe.yaml",), expected)

    for case, line in TAGS.items():
        front = line.startswith("%")
        yield told(case, lambda text, line=line, front=front: f"{line}\n{text}" if front else f"{text}{line}\n")
    for case, (key, value, expected) in VALUES.items():
        yield told(case, lambda text, key=key, value=value: f"{text}{key}: {json.dumps(value)}\n", expected)  # type: ignore[arg-type]
    for name in TYPES:
        for block in ("type: adam", "type: digits_cnn", "type: regularised_classification"):
            yield told(
                f"{block.split()[1]} becomes {name}",
                lambda text, name=name, block=block: text.replace(block, f"type: {name}"),
            )


def checkpoints() -> Iterator[Stranger]:
    """Weights to judge, to begin from, to convert and to teach with; resume states; odd safetensors."""
    for form, content in pickles().items():
        for suffix in ("pt", "pth", "bin", "safetensors"):
            name = f"w.{suffix}"
            yield Stranger("weights to judge", f"{form} as .{suffix}", _run_and(name, content), judge.main,
                           ("runs/run", "--checkpoint", name), (name,))  # fmt: skip
        yield Stranger("weights of a CIFAR ResNet", form, writes("w.pth", content),
                       lambda a: load_weights(DigitsCNN(), str((a or [""])[0])), ("w.pth",), ("w.pth",))  # fmt: skip
        yield Stranger(
            "weights to convert",
            form,
            writes("w.pth", content),
            convert.main,
            ("w.pth", "-o", "o.safetensors"),
            ("w.pth",),
        )
        yield Stranger(
            "a teacher's weights",
            form,
            _teacher(content),
            train.main,
            ("label_calibration.yaml", "--dry-run"),
            (TEACHER, "w.pth"),
        )
        yield Stranger(
            "resume state", form, _resume(content), train.main, ("recipe.yaml", "--resume"), ("last.resume",)
        )
    for case, metadata in {
        "metadata with a pickle": {"format": "pt", "pickle": pickle.dumps(Payload(), 0).decode("latin1")},
        "metadata with Python": {"format": CODE, "network": CODE, "task": CODE},
        "metadata of a megabyte": {"x": "y" * 1_000_000},
    }.items():
        content = save({"a": torch.zeros(1)}, metadata)
        yield Stranger("weights to judge", case, _run_and("w.safetensors", content), judge.main,
                       ("runs/run", "--checkpoint", "w.safetensors"), ("w.safetensors",))  # fmt: skip
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}).encode()
    for case, content in {
        "a header that is no whole one": struct.pack("<Q", 2**62) + b"{}",
        "a tensor larger than the file": struct.pack("<Q", len(header)) + header + bytes(4),
    }.items():
        yield Stranger("weights to judge", case, _run_and("w.safetensors", content), judge.main,
                       ("runs/run", "--checkpoint", "w.safetensors"), ("w.safetensors",))  # fmt: skip


def _plain_run(folder: Path) -> None:
    """A finished run of a digits classifier, made anew: its files hold nothing but what the recipe says."""
    (folder / "recipe.yaml").write_text(
        "name: run\ntask: {type: classification, network: {type: digits_cnn, width: 8}}\n"
        "data: {type: digits, limit: 40}\noptimizer: {type: adam, lr: 1e-3}\ntrainer: {steps: 2}\n"
    )


def _run_and(name: str, content: bytes) -> Callable[[Path], object]:
    def plant(folder: Path) -> None:
        _plain_run(folder)
        (folder / "runs" / "run" / "checkpoints").mkdir(parents=True)
        text = (folder / "recipe.yaml").read_text()
        (folder / "runs" / "run" / "config.yaml").write_text(f"# sha256: {'0' * 64}\n{text}")
        (folder / name).write_bytes(content)

    return plant


def _teacher(content: bytes) -> Callable[[Path], object]:
    def plant(folder: Path) -> None:
        file = write_recipe("label_calibration", folder)
        (folder / TEACHER).unlink()
        (folder / "w.pth").write_bytes(content)
        file.write_text(file.read_text().replace(TEACHER, "w.pth"))

    return plant


def _resume(content: bytes) -> Callable[[Path], object]:
    def plant(folder: Path) -> None:
        _plain_run(folder)
        ended = run(train.main, ["recipe.yaml"], folder, folder / "made.log")
        if ended.status != 0:
            raise RuntimeError(ended.said)
        (folder / "runs" / "run" / "checkpoints" / "last.resume").write_bytes(content)

    return plant


def arrays() -> Iterator[Stranger]:
    """Index files, ranks, packed images and events, and corrupted images, with pickled objects in them."""
    held = array(object_array())
    for form, content in {"npy of objects": held, **pickles()}.items():
        yield Stranger(
            "index file", f"{form} as .npy", writes("i.npy", content), calls(read_subset, 10), ("i.npy",), ("i.npy",)
        )
        yield Stranger(
            "index file", f"{form} as .txt", writes("i.txt", content), calls(read_subset, 10), ("i.txt",), ("i.txt",)
        )
        yield Stranger("rank", form, writes("r.npz", content), calls(read_rank), ("r.npz",), ("r.npz",))
    yield Stranger(
        "index file", "npz of objects", _npz("i.npz", "indices", held), calls(read_subset, 10), ("i.npz",), ("i.npz",)
    )
    yield Stranger("rank", "npz of objects", _npz("r.npz", "rank", held), calls(read_rank), ("r.npz",), ("r.npz",))
    yield Stranger("corrupted images", "npy of objects", _corrupted(held), calls(_judge_corruptions), ("c",), ("c/",))
    cifar = "{type: cifar10, root: data, validation: 5}"
    events = "{type: events_npz, root: data, validation: 5}"
    for name, make, key, block in (("cifar", make_cifar, "train_images", cifar), ("events", make_events, "x", events)):
        yield Stranger(
            f"{name} npz",
            "an array of objects",
            _packed(name, make, key, held, block),
            _read_block,
            ("block",),
            ("data/",),
        )


def _npz(name: str, key: str, content: bytes) -> Callable[[Path], object]:
    def plant(folder: Path) -> None:
        with zipfile.ZipFile(folder / name, "w") as file:
            file.writestr(f"{key}.npy", content)

    return plant


def _corrupted(content: bytes) -> Callable[[Path], object]:
    def plant(folder: Path) -> None:
        (folder / "c").mkdir()
        (folder / "c" / "labels.npy").write_bytes(content)
        (folder / "c" / "fog.npy").write_bytes(content)

    return plant


def _judge_corruptions(folder: Path) -> None:
    corruption_accuracy(DigitsCNN().eval(), folder)


def _packed(name: str, make: Callable[[Path], None], key: str, content: bytes, block: str) -> Callable[[Path], object]:
    def plant(folder: Path) -> None:
        make(folder / "data")
        file = folder / "data" / f"{name}.npz"
        with zipfile.ZipFile(file) as before:
            held = {entry: before.read(entry) for entry in before.namelist()}
        with zipfile.ZipFile(file, "w") as after:
            for entry, old in held.items():
                after.writestr(entry, content if entry == f"{key}.npy" else old)
        (folder / "block").write_text(block)

    return plant


def _read_block(arguments: list[str] | None) -> int:
    import yaml

    from vision.engine.registry import build

    (file,) = arguments or []
    data = build(yaml.safe_load(Path(file).read_text()), "data")
    return 0 * len(data.train())


def annotations() -> Iterator[Stranger]:
    """Annotation files and boxes that are pickles; CIFAR's own pickles with a payload; images that are pickles."""
    people = "{type: coco_pose, root: data, train_splits: [people], test_split: null, overfit: true}"
    cifar = "{type: cifar10, root: data, validation: 5}"
    file = "annotations/person_keypoints_people.json"
    for form, content in pickles().items():
        yield Stranger("annotations", form, _in_copy(file, content, people), _read_block, ("block",), (file,))
        yield Stranger("boxes", form, writes("b.json", content), calls(BoxesOfFile), ("b.json",), ("b.json",))
        yield Stranger("CIFAR batches", form, _batches(content, cifar), _read_block, ("block",), ("data_batch_1",))


def _in_copy(name: str, content: bytes, block: str) -> Callable[[Path], object]:
    def plant(folder: Path) -> None:
        shutil.copytree(PEOPLE, folder / "data")
        (folder / "data" / name).write_bytes(content)
        (folder / "block").write_text(block)

    return plant


def _batches(content: bytes, block: str) -> Callable[[Path], object]:
    def plant(folder: Path) -> None:
        inside = folder / "data" / "cifar-10-batches-py"
        inside.mkdir(parents=True)
        for number in range(1, 6):
            (inside / f"data_batch_{number}").write_bytes(content)
        (folder / "block").write_text(block)

    return plant


def the_canary_works() -> Iterator[Stranger]:
    """That the payloads are live: unpickled as Python would, or opened as PyTorch would, each runs."""

    def unpickle(arguments: list[str] | None) -> int:
        (file,) = arguments or []
        try:
            torch.load(file, weights_only=False)
        except Exception:
            pickle.loads(Path(file).read_bytes())
        return 0

    for form, content in pickles().items():
        yield Stranger(LIVE, form, writes("w.pth", content), unpickle, ("w.pth",), ("w.pth",), "either")
    yield from a_package_on_purpose()


ENTRANCES: list[Callable[[], Iterator[Stranger]]] = [
    the_canary_works, recipes, checkpoints, arrays, annotations, exports,
]  # fmt: skip


def outcome_of(stranger: Stranger, folder: Path) -> Outcome:
    """Plants the file, gives it to what it is meant for, and looks for the canary."""
    stranger.plant(folder)
    ended = run(stranger.open, stranger.arguments, folder, folder / "log")
    ran = (folder / CANARY).exists()
    if stranger.entrance == LIVE:
        return Outcome(stranger.entrance, stranger.case, "ran, as it must here" if ran else "did not run", ran)
    if ran:
        return Outcome(stranger.entrance, stranger.case, "THE PAYLOAD RAN", False, ended.error)
    return judged(stranger.entrance, stranger.case, ended, stranger.expected, stranger.names)


def cases(arguments: Any, folder: Path) -> Iterator[Outcome]:
    """Every file at every entrance."""
    for entrance in (each for each in ENTRANCES if arguments.only in (None, each.__name__)):
        for stranger in islice(entrance(), arguments.first):
            place = folder / "stranger"
            place.mkdir()
            yield outcome_of(stranger, place)
            shutil.rmtree(place)


def parser() -> Any:
    """The command line."""
    p = options("Give files with planted payloads to everything that reads files; none may run.")
    p.add_argument("--only", choices=[each.__name__ for each in ENTRANCES], help="this entrance only")
    p.add_argument("--first", type=int, help="so many files of each entrance only")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    note = "Each payload would make a file; none may, and what held it must be refused with a clear error."
    return conduct("strangers", parser(), argv, cases, "Files from strangers", note)


if __name__ == "__main__":
    run_command(main)
