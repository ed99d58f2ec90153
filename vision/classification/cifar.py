"""CIFAR-10 and CIFAR-100 from the official python batches or from npz files."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from vision.classification.augment import Augmentation
from vision.classification.cifar_batches import read_batch
from vision.classification.cifar_names import CIFAR10_CLASSES, CIFAR100_CLASSES
from vision.classification.data import ClassificationData, OnError, Split
from vision.classification.images import Images, Indices, check_labels
from vision.classification.npz import npz_keys, read_npz
from vision.engine.errors import DataError
from vision.engine.registry import register

Layout = Literal["auto", "batches", "npz", "npz_jpeg"]


@dataclass(kw_only=True, eq=False)
class Cifar(ClassificationData):
    """What CIFAR-10 and CIFAR-100 share.

    Validation images are ``default_rng(seed).choice(N, count, replace=False)`` of the training images in their
    official order; with seed 7 and a share of 0.1 those are the ones of the label-calibration release.

    Args:
        root: the folder that holds the batches' folder (or that folder itself), or an npz file or its folder.
        layout: ``batches`` is the official python version, read without running any pickled code. ``npz`` holds
            ``train_images`` and ``test_images`` (uint8 ``[N, 32, 32, 3]``), their labels and their official places
            ``train_index`` and ``test_index``; it may be a part of CIFAR. ``npz_jpeg`` holds every image as a JPEG
            stream (``train_jpeg``, ``train_offsets``, ...): accuracy on lossy copies is lower and is not comparable
            with published numbers, or with a network trained on exact pixels. ``auto`` takes what is there, and asks
            where there are several.
        on_error: a JPEG stream that cannot be decoded stops, or is left out, named and counted.
    """

    root: str
    layout: Layout = "auto"
    on_error: OnError = "stop"
    augment: tuple[Augmentation, ...] = ("crop", "flip")

    folder: ClassVar[str]
    train_files: ClassVar[tuple[str, ...]]
    test_files: ClassVar[tuple[str, ...]]
    label_key: ClassVar[str]
    label_array: ClassVar[str]

    @property
    def image_size(self) -> int:
        """32 pixels."""
        return 32

    @property
    def in_channels(self) -> int:
        """Three: RGB."""
        return 3

    def held_out(self, labels: np.ndarray, count: int) -> Indices:
        """Positions of ``count`` images chosen without regard to their class, ascending."""
        return np.sort(np.random.default_rng(self.seed).choice(len(labels), count, replace=False))

    def listing(self, split: Split) -> Images:
        """All images of the official train or test split.

        Raises:
            DataError: the files are missing, ambiguous, damaged or of another data set.
        """
        found = self._find()
        layout, path = self._choose(found)
        if layout == "batches":
            return self._read_batches(path, split)
        return self._read_npz(path, split) if layout == "npz" else self._read_jpeg(path, split)

    def load(self, images: Images) -> Images:
        """Decodes JPEG streams into one tensor; exact images are one already."""
        if isinstance(images.pixels, torch.Tensor):
            return images
        if self.on_error == "skip":
            images = images.without_corrupt()
        pixels = torch.empty(len(images), 3, 32, 32, dtype=torch.uint8)
        for index in range(len(images)):
            image = images.read(index)
            if image.shape != (3, 32, 32):
                raise DataError(f"{images.ids[index]}: has {list(image.shape[1:])} pixels, expected [32, 32]")
            pixels[index] = image
        return Images(images.ids, images.labels, pixels, 3, images.skipped)

    def _find(self) -> list[tuple[Layout, Path]]:
        root = Path(self.root).expanduser()
        if not root.exists():
            raise DataError(f"{root}: there is no such folder or file; check data.root")
        found: list[tuple[Layout, Path]] = []
        for folder in (root, root / self.folder):
            if (folder / self.train_files[0]).is_file() or (folder / self.test_files[0]).is_file():
                found.append(("batches", folder))
        for path in self._archives():
            keys = npz_keys(path)
            if "train_images" in keys:
                found.append(("npz", path))
            elif "train_jpeg" in keys:
                found.append(("npz_jpeg", path))
        return found

    def _archives(self) -> list[Path]:
        root = Path(self.root).expanduser()
        return [root] if root.is_file() else sorted(root.glob("*.npz"))

    def _choose(self, found: list[tuple[Layout, Path]]) -> tuple[Layout, Path]:
        fitting = [entry for entry in found if self.layout in ("auto", entry[0])]
        if not fitting:
            archive = "an npz file with 'train_images' or 'train_jpeg'"
            wanted = f"'{self.folder}', or {archive}" if self.layout == "auto" else f"the layout '{self.layout}'"
            layouts = [layout for layout, _ in found]
            other = [f"{path.name} without them" for path in self._archives()]
            raise DataError(
                f"{self.root}: holds no CIFAR as {wanted} (found: {', '.join(layouts or other) or 'nothing'}); "
                "check data.root and data.layout"
            )
        if len(fitting) > 1:
            there = ", ".join(f"{layout} ({path.name})" for layout, path in fitting)
            raise DataError(
                f"{self.root}: holds CIFAR several times: {there}; choose by data.layout or a file as data.root"
            )
        return fitting[0]

    def _read_batches(self, folder: Path, split: Split) -> Images:
        names = self.train_files if split == "train" else self.test_files
        parts = [read_batch(folder / name, self.label_key) for name in names]
        labels = [
            check_labels(own, len(self.classes), str(folder / n)) for n, (_, own) in zip(names, parts, strict=True)
        ]
        pixels = torch.from_numpy(np.concatenate([images for images, _ in parts]))
        return Images(_ids(split, np.arange(len(pixels))), torch.cat(labels), pixels, 3)

    def _read_npz(self, path: Path, split: Split) -> Images:
        images, labels, index = f"{split}_images", f"{split}_{self.label_array}", f"{split}_index"
        arrays = read_npz(
            path,
            {images: ("uint8", (None, 32, 32, 3)), labels: ("integer", (None,)), index: ("integer", (None,))},
        )
        if not len(arrays[images]) == len(arrays[labels]) == len(arrays[index]):
            raise DataError(f"{path}: '{images}', '{labels}' and '{index}' differ in length")
        if len(np.unique(arrays[index])) != len(arrays[index]):
            raise DataError(f"{path}: '{index}' names an image twice")
        pixels = torch.from_numpy(arrays[images]).permute(0, 3, 1, 2).contiguous()
        return Images(_ids(split, arrays[index]), check_labels(arrays[labels], len(self.classes), str(path)), pixels, 3)

    def _read_jpeg(self, path: Path, split: Split) -> Images:
        stream, offsets, labels = f"{split}_jpeg", f"{split}_offsets", f"{split}_labels"
        arrays = read_npz(
            path, {stream: ("uint8", (None,)), offsets: ("integer", (None,)), labels: ("integer", (None,))}
        )
        bounds = arrays[offsets]
        if len(bounds) != len(arrays[labels]) + 1:
            raise DataError(
                f"{path}: {len(arrays[labels])} labels need {len(arrays[labels]) + 1} {offsets}, not {len(bounds)}"
            )
        if bounds[0] != 0 or bounds[-1] != len(arrays[stream]) or np.any(np.diff(bounds) < 0):
            raise DataError(f"{path}: '{offsets}' do not rise from 0 to the {len(arrays[stream])} bytes of '{stream}'")
        data = arrays[stream].tobytes()
        streams = [data[start:end] for start, end in pairwise(bounds)]
        ids = _ids(split, np.arange(len(streams)))
        return Images(ids, check_labels(arrays[labels], len(self.classes), str(path)), streams, 3)


def _ids(split: Split, places: np.ndarray) -> list[str]:
    return [f"{split}/{place:05d}" for place in places]


@register("cifar10")
@dataclass(kw_only=True, eq=False)
class Cifar10(Cifar):
    """CIFAR-10: 60,000 colour images of 32x32 pixels in ten classes.

    ``root`` holds ``cifar-10-batches-py`` as torchvision unpacks it, or an npz form. A sample's id is its split and
    its official place, such as ``train/00042``.

    Source: A. Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """

    mean: tuple[float, ...] = (0.49139968, 0.48215841, 0.44653091)
    std: tuple[float, ...] = (0.24703223, 0.24348513, 0.26158784)

    folder = "cifar-10-batches-py"
    train_files = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")
    test_files = ("test_batch",)
    label_key = "labels"
    label_array = "labels"

    @property
    def classes(self) -> list[str]:
        """Airplane to truck."""
        return list(CIFAR10_CLASSES)


@register("cifar100")
@dataclass(kw_only=True, eq=False)
class Cifar100(Cifar):
    """CIFAR-100: 60,000 colour images of 32x32 pixels in a hundred (fine) classes.

    ``root`` holds ``cifar-100-python`` as torchvision unpacks it, or an npz form. A sample's id is its split and its
    official place.

    Source: A. Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """

    mean: tuple[float, ...] = (0.50707516, 0.48654887, 0.44091784)
    std: tuple[float, ...] = (0.26733429, 0.25643846, 0.27615047)

    folder = "cifar-100-python"
    train_files = ("train",)
    test_files = ("test",)
    label_key = "fine_labels"
    label_array = "fine"

    @property
    def classes(self) -> list[str]:
        """The fine classes, apple to worm."""
        return list(CIFAR100_CLASSES)
