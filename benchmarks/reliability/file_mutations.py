"""Small data sets with a file to damage: people in COCO's form, infrared images with masks, CIFAR arrays, events."""

import hashlib
import json
import logging
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.reliability import damage
from benchmarks.reliability.children import run
from benchmarks.reliability.outcomes import MEANS_OTHER, Expected
from vision.engine.registry import build
from vision.engine.seeding import seed_everything
from vision.pose.samples import PEOPLE

Change = Callable[[Path, random.Random], Path]
"""Damages a data set in its folder; returns the file it damaged."""


@dataclass(frozen=True)
class FileMutation:
    """Something wrong with one file.

    Attributes:
        name: what.
        apply: does it.
        expected: what must come of it.
        names: an error must hold one of these, or the file's name.
        may_differ: samples may then be others without a word: the file says something else, or no format could tell.
        random: another seed damages otherwise.
    """

    name: str
    apply: Change
    expected: Expected = "refused"
    names: tuple[str, ...] = ()
    may_differ: bool = False
    random: bool = False


@dataclass(frozen=True)
class DataSet:
    """A data set to damage.

    Attributes:
        make: writes it into a folder.
        block: its data block, by its folder.
        mutations: what can be wrong with it.
    """

    make: Callable[[Path], None]
    block: Callable[[str], dict[str, Any]]
    mutations: list[FileMutation] = field(default_factory=list)


def made(kind: str, folder: Path) -> Path:
    """A fresh data set of a kind; returns the folder."""
    SETS[kind].make(folder)
    return folder


def digest(kind: str, root: str) -> str:
    """SHA-256 of all samples of all splits, each drawn from a seed of its own."""
    data, found = build(SETS[kind].block(root), "data"), hashlib.sha256()
    for split in (data.train(), data.val(), data.test()):
        for index in range(len(split) if split is not None else 0):
            seed_everything(index)
            for key, value in sorted(split[index].items()):
                tensor = isinstance(value, torch.Tensor)
                found.update(
                    key.encode()
                    + (value.contiguous().numpy().tobytes() if tensor else repr(value).replace(root, "").encode())
                )
    return found.hexdigest()


def print_digest(arguments: list[str] | None) -> int:
    """The process that tells a clean data set's :func:`digest`."""
    assert arguments is not None
    print(f"digest {digest(*arguments)}")
    return 0


def samples_of(kind: str, place: Path, folder: Path) -> str:
    """:func:`digest` of a clean data set, told by a process of its own."""
    ended = run(print_digest, [kind, str(place)], folder, folder / "clean.log")
    if ended.status != 0:
        raise RuntimeError(ended.said)
    return ended.said.rpartition("digest ")[2].strip().replace(str(place), "")


def check_data(arguments: list[str] | None) -> int:
    """A case's whole process: reads every sample; refuses samples that differ from the clean ones without a word."""
    assert arguments is not None
    kind, root, clean, rule = arguments
    told: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    logging.getLogger().addHandler(Ear(logging.INFO))
    found = digest(kind, root)
    if found != clean and rule == "same" and not told:
        print("samples differ, and nothing was said")
        return MEANS_OTHER
    return 0


# -- people --------------------------------------------------------------------------------------------------------

_ANNOTATIONS = "annotations/person_keypoints_people.json"
_PHOTO = "images/astronaut.jpg"


def _rows(name: str, change: Callable[[dict[str, Any]], Any]) -> Change:
    """Changes the annotation document, or its first row where ``name`` is a list in it."""

    def apply(folder: Path, luck: random.Random) -> Path:
        file = folder / _ANNOTATIONS
        document = json.loads(file.read_text())
        change(document[name][0] if name else document)
        file.write_text(json.dumps(document))
        return file

    return apply


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda row: row.__setitem__(key, value)


def _drop(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda row: row.pop(key)


def _joint(place: int, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda row: row["keypoints"].__setitem__(place, value)


def _bytes(name: str, change: damage.Damage) -> Change:
    def apply(folder: Path, luck: random.Random) -> Path:
        file = folder / name
        file.write_bytes(change(file.read_bytes(), luck))
        return file

    return apply


def _image(name: str, size: tuple[int, int], mode: str = "RGB", form: str | None = None) -> Change:
    def apply(folder: Path, luck: random.Random) -> Path:
        Image.new(mode, size).save(folder / name, form)
        return folder / name

    return apply


def _removed(name: str) -> Change:
    def apply(folder: Path, luck: random.Random) -> Path:
        (folder / name).unlink()
        return folder / name

    return apply


def _bomb(name: str) -> Change:
    """A PNG whose header claims 60,000 rows and columns."""

    def apply(folder: Path, luck: random.Random) -> Path:
        file = folder / name
        Image.new("L", (4, 4)).save(file, "PNG")
        content = bytearray(file.read_bytes())
        content[16:24] = (60_000).to_bytes(4, "big") * 2
        import zlib

        content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
        file.write_bytes(bytes(content))
        return file

    return apply


def _coco(name: str, where: str, change: Callable[[dict[str, Any]], Any], **more: Any) -> FileMutation:
    return FileMutation(name, _rows(where, change), **{"expected": "either", "names": ("person", "image"), **more})


_NAN = float("nan")
PEOPLE_MUTATIONS = [
    _coco("no images", "", _drop("images")),
    _coco("no annotations", "", _drop("annotations")),
    _coco("no categories", "", _drop("categories")),
    _coco("images is a mapping", "", _set("images", {})),
    _coco("annotations is null", "", _set("annotations", None)),
    _coco("categories is a number", "", _set("categories", 3)),
    _coco("an image without id", "images", _drop("id")),
    _coco("an image whose id is text", "images", _set("id", "one")),
    _coco("an image id that is a list", "images", _set("id", [1])),
    _coco("an image without file_name", "images", _drop("file_name")),
    _coco("a file_name that is a number", "images", _set("file_name", 7)),
    _coco("a file_name that leads elsewhere", "images", _set("file_name", "../../../etc/passwd"), expected="refused",
          names=("passwd",)),
    _coco("a width of zero", "images", _set("width", 0)),
    _coco("a width of text", "images", _set("width", "640")),
    _coco("a width that is not the file's", "images", _set("width", 33)),
    _coco("a height of NaN", "images", _set("height", _NAN)),
    _coco("a person without bbox", "annotations", _drop("bbox")),
    _coco("a bbox of three", "annotations", _set("bbox", [1, 2, 3])),
    _coco("a bbox of NaN", "annotations", _set("bbox", [_NAN] * 4)),
    _coco("a bbox of infinity", "annotations", _set("bbox", [0, 0, float("inf"), 10])),
    _coco("a bbox of negative size", "annotations", _set("bbox", [10, 10, -5, -5])),
    _coco("a bbox outside the image", "annotations", _set("bbox", [90000, 90000, 10, 10])),
    _coco("a bbox of text", "annotations", _set("bbox", "all of it")),
    _coco("an image_id that is not listed", "annotations", _set("image_id", 999)),
    _coco("an image_id of null", "annotations", _set("image_id", None)),
    _coco("a person without keypoints", "annotations", _drop("keypoints"), may_differ=True),
    _coco("keypoints of another number", "annotations", lambda row: row["keypoints"].pop()),
    _coco("keypoints of NaN", "annotations", _joint(0, _NAN)),
    _coco("keypoints of infinity", "annotations", _joint(1, float("inf"))),
    _coco("a keypoint that is 1e300", "annotations", _joint(0, 1e300)),
    _coco("a keypoint that is text", "annotations", _joint(3, "left")),
    _coco("a keypoint that is null", "annotations", _joint(4, None)),
    _coco("a visibility of 7", "annotations", _joint(2, 7)),
    _coco("a visibility of NaN", "annotations", _joint(2, _NAN)),
    _coco("an area that is text", "annotations", _set("area", "large")),
    _coco("a negative area", "annotations", _set("area", -4)),
    _coco("an area of NaN", "annotations", _set("area", _NAN)),
    _coco("a row that is a number", "", lambda d: d["annotations"].__setitem__(0, 3)),
    _coco("an image row that is null", "", lambda d: d["images"].__setitem__(0, None)),
    _coco("the same person twice", "", lambda d: d["annotations"].append(d["annotations"][0])),
    FileMutation("annotations cut off", _bytes(_ANNOTATIONS, damage.cut), random=True),
    FileMutation("annotations with flipped bytes", _bytes(_ANNOTATIONS, damage.flip_byte), "either",
                 ("person", "image"), may_differ=True, random=True),
    FileMutation("annotations of noise", _bytes(_ANNOTATIONS, damage.noise), random=True),
    FileMutation("annotations emptied", _bytes(_ANNOTATIONS, damage.emptied)),
    FileMutation("a JPEG cut off", _bytes(_PHOTO, damage.cut), random=True),
    FileMutation("a JPEG with flipped bytes", _bytes(_PHOTO, damage.flip_many), "either", may_differ=True, random=True),
    FileMutation("a JPEG of noise", _bytes(_PHOTO, damage.noise), random=True),
    FileMutation("a photograph of one pixel", _image(_PHOTO, (1, 1), form="JPEG"), "either", ("person", "image")),
    FileMutation("a photograph that is gone", _removed(_PHOTO)),
    FileMutation("a photograph that is a bomb", _bomb(_PHOTO)),
]  # fmt: skip

# -- infrared ------------------------------------------------------------------------------------------------------

_IR_IMAGE, _IR_MASK = "images/n2.png", "masks/n2.png"


def make_infrared(folder: Path) -> None:
    """Eight infrared images with masks; six to train on, two to test on."""
    for name in ("images", "masks", "splits"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(8):
        image = rng.integers(40, 60, (60, 70), dtype=np.uint8)
        mask = np.zeros_like(image)
        mask[10 + index : 13 + index, 30:33] = 255
        Image.fromarray(np.where(mask > 0, 250, image).astype(np.uint8)).save(folder / "images" / f"n{index}.png")
        Image.fromarray(mask).save(folder / "masks" / f"n{index}.png")
    (folder / "splits" / "train.txt").write_text("".join(f"n{index}\n" for index in range(6)))
    (folder / "splits" / "test.txt").write_text("n6\nn7\n")


def _infrared_block(root: str) -> dict[str, Any]:
    return {"type": "infrared_folder", "root": root, "patch": 48, "length": 8, "validation": 0.34}


def _text(name: str, content: bytes) -> Change:
    return _bytes(name, lambda before, luck: content)


INFRARED_MUTATIONS = [
    FileMutation("a mask of another size", _image(_IR_MASK, (71, 60), "L")),
    FileMutation("a mask of one pixel", _image(_IR_MASK, (1, 1), "L")),
    FileMutation("a mask that is gone", _removed(_IR_MASK), names=("masks/n2",)),
    FileMutation("a mask cut off", _bytes(_IR_MASK, damage.cut), random=True),
    FileMutation("a mask with a flipped byte", _bytes(_IR_MASK, damage.flip_byte), "either", random=True),
    FileMutation("an image that is gone", _removed(_IR_IMAGE), names=("images/n2",)),
    FileMutation("an image cut off", _bytes(_IR_IMAGE, damage.cut), random=True),
    FileMutation("an image with a flipped byte", _bytes(_IR_IMAGE, damage.flip_byte), "either", random=True),
    FileMutation("an image of noise", _bytes(_IR_IMAGE, damage.noise), random=True),
    FileMutation("an image that is a bomb", _bomb(_IR_IMAGE)),
    FileMutation("a split of no UTF-8", _text("splits/train.txt", b"n0\n\xff\xfe\n")),
    FileMutation("a split that is empty", _text("splits/train.txt", b"\n")),
    FileMutation("a split that names what is not there", _text("splits/train.txt", b"n0\nn99\n"), names=("n99",)),
    FileMutation("a split that names one twice", _text("splits/train.txt", b"n0\nn0\nn1\n")),
]

# -- CIFAR ---------------------------------------------------------------------------------------------------------


def make_cifar(folder: Path) -> None:
    """Forty images of noise in the npz form of CIFAR-10."""
    folder.mkdir(parents=True)
    rng, arrays = np.random.default_rng(0), {}
    for split in ("train", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(20) % 10
        arrays[f"{split}_index"] = np.arange(20)
    np.savez(folder / "cifar.npz", **arrays)


def _arrays(file_name: str, change: Callable[[dict[str, Any]], Any]) -> Change:
    def apply(folder: Path, luck: random.Random) -> Path:
        file = folder / file_name
        with np.load(file) as archive:
            arrays = dict(archive)
        change(arrays)
        np.savez(file, **arrays)
        return file

    return apply


def _array(file: str, key: str, change: Callable[[Any], Any]) -> Change:
    return _arrays(file, lambda arrays: arrays.__setitem__(key, change(arrays[key])))


def _at(place: int, value: Any) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array = array.copy()
        array[place] = value
        return array

    return change


_C = "cifar.npz"
CIFAR_MUTATIONS = [
    FileMutation("no images", _arrays(_C, lambda a: a.pop("train_images"))),
    FileMutation("no labels", _arrays(_C, lambda a: a.pop("train_labels"))),
    FileMutation("images of floats", _array(_C, "train_images", lambda a: a.astype(np.float32))),
    FileMutation("images of NaN", _array(_C, "train_images", lambda a: np.full(a.shape, np.nan))),
    FileMutation("images channels first", _array(_C, "train_images", lambda a: a.transpose(0, 3, 1, 2))),
    FileMutation("images of 31 rows", _array(_C, "train_images", lambda a: a[:, 1:])),
    FileMutation("a label too few", _array(_C, "train_labels", lambda a: a[1:])),
    FileMutation("a label of ten", _array(_C, "train_labels", _at(7, 10))),
    FileMutation("a negative label", _array(_C, "train_labels", _at(7, -1))),
    FileMutation("labels of floats", _array(_C, "train_labels", lambda a: a + 0.5)),
    FileMutation("labels of objects", _array(_C, "train_labels", lambda a: a.astype(object))),
    FileMutation("an index given twice", _array(_C, "train_index", _at(3, 4))),
    FileMutation("no image at all", _arrays(_C, lambda a: a.update({k: v[:0] for k, v in a.items()})),
                 names=("split", "image")),
    FileMutation("a file cut off", _bytes(_C, damage.cut), random=True),
    FileMutation("a file with a flipped byte", _bytes(_C, damage.flip_byte), "either", may_differ=False, random=True),
    FileMutation("a file of noise", _bytes(_C, damage.noise), random=True),
]  # fmt: skip

# -- events --------------------------------------------------------------------------------------------------------


def make_events(folder: Path) -> None:
    """Twenty recordings of sixty events each, packed in one npz file."""
    folder.mkdir(parents=True)
    rng, count = np.random.default_rng(0), 20 * 60
    np.savez(
        folder / "events.npz",
        x=rng.integers(0, 34, count, dtype=np.uint8), y=rng.integers(0, 34, count, dtype=np.uint8),
        p=np.packbits(rng.integers(0, 2, count, dtype=np.uint8)), dt=rng.integers(0, 90, count, dtype=np.int32),
        offsets=np.arange(0, count + 1, 60), label=np.arange(20) % 10,
    )  # fmt: skip


_E = "events.npz"
EVENT_MUTATIONS = [
    FileMutation("a column beyond the sensor", _array(_E, "x", _at(130, 34)), names=("events/", "x =")),
    FileMutation("a row beyond the sensor", _array(_E, "y", _at(130, 255)), names=("events/", "y =")),
    FileMutation("columns of int64", _array(_E, "x", lambda a: a.astype(np.int64))),
    FileMutation("a time that falls", _array(_E, "dt", _at(131, -5)), names=("events/", "sort by time")),
    FileMutation("a time beyond int32", _array(_E, "dt", lambda a: a.astype(np.int64) << 40)),
    FileMutation("polarities cut off", _array(_E, "p", lambda a: a[:-1])),
    FileMutation("offsets that fall", _array(_E, "offsets", _at(3, 1))),
    FileMutation("offsets beyond the end", _array(_E, "offsets", _at(20, 10**9))),
    FileMutation("a negative offset", _array(_E, "offsets", _at(0, -3))),
    FileMutation("a recording without events", _array(_E, "offsets", _at(3, 120)), names=("events/",)),
    FileMutation("a label too few", _array(_E, "label", lambda a: a[1:])),
    FileMutation("a label of ten", _array(_E, "label", _at(4, 10))),
    FileMutation("an array too few", _arrays(_E, lambda a: a.pop("dt"))),
    FileMutation("a file cut off", _bytes(_E, damage.cut), random=True),
    FileMutation("a file of noise", _bytes(_E, damage.noise), random=True),
]

SETS: dict[str, DataSet] = {
    "people": DataSet(
        lambda folder: shutil.copytree(PEOPLE, folder) and None,
        lambda root: {"type": "coco_pose", "root": root, "train_splits": ["people"], "test_split": None,
                      "overfit": True, "input_size": [48, 64]},
        PEOPLE_MUTATIONS,
    ),
    "infrared": DataSet(make_infrared, _infrared_block, INFRARED_MUTATIONS),
    "cifar": DataSet(make_cifar, lambda root: {"type": "cifar10", "root": root, "validation": 10}, CIFAR_MUTATIONS),
    "events": DataSet(
        make_events, lambda root: {"type": "events_npz", "root": root, "validation": 10}, EVENT_MUTATIONS
    ),
}  # fmt: skip
"""By name."""
