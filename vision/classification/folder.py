"""Images in one folder a class, for training on one's own pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from vision.classification.data import ClassificationData, OnError, Split, Transform
from vision.classification.images import BroughtTo, Images, Indices, log
from vision.classification.pixels import Resize
from vision.engine.errors import ConfigError, DataError, nearest
from vision.engine.registry import register

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".pgm", ".ppm", ".tif", ".tiff", ".webp"}
"""What a file must end in to be taken for an image, in any case."""


@register("image_folder")
@dataclass(kw_only=True, eq=False)
class ImageFolder(ClassificationData):
    """``root/train/<class>/*.png``, with ``root/val`` and ``root/test`` alike where they exist.

    Classes are the folder names in alphabetical order. Without ``root/val``, ``validation`` holds out a share of the
    training images, each class in proportion. Without ``root/test`` there is no test split. Names that begin with a
    dot are passed over. Images become ``size`` x ``size``: the short side is resized, the middle is kept (training
    with the augmentation ``resized_crop`` takes a random window instead). A sample's id is its path below ``root``.

    Args:
        root: the folder.
        size: rows and columns after resizing, in pixels.
        grey: one channel instead of three.
        class_names: the folder names in order of label; by default alphabetical. Given, the data set's classes are
            known where the images are not.
        on_error: a file that is not an image or cannot be decoded stops, or is left out, named and counted; leaving
            out decodes every image once beforehand.
    """

    resize: ClassVar[Resize] = "short_side"
    root: str
    size: int = 224
    grey: bool = False
    class_names: tuple[str, ...] | None = None
    on_error: OnError = "stop"
    validation: float = 0.0
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1:
            raise ConfigError(f"data.size: {self.size} is below 1")
        if self.class_names is not None and len(set(self.class_names)) != len(self.class_names):
            raise ConfigError(f"data.class_names: {list(self.class_names)} names a class twice")

    @property
    def classes(self) -> list[str]:
        """The names of the class folders, by label."""
        if self.class_names is not None:
            return list(self.class_names)
        return [folder.name for folder in self._class_folders("train")]

    @property
    def image_size(self) -> int:
        """``size``."""
        return self.size

    @property
    def in_channels(self) -> int:
        """One where ``grey``, else three."""
        return 1 if self.grey else 3

    def partition(self, split: Split) -> tuple[Images, Indices]:
        """A folder of its own, or a part of ``train``.

        Raises:
            DataError: both a validation folder and a share to hold out, or neither.
        """
        own = self._path("val").is_dir()
        if own and self.validation > 0:
            raise DataError(f"{self._path('val')} exists and data.validation is {self.validation}; use one of them")
        if split == "val" and not own and self.validation == 0:
            raise DataError(f"{self._path('val')}: there is no such folder; add it, or set data.validation: 0.1")
        if split == "test" or (split == "val" and own):
            images = self.listed(split)
            return images, np.arange(len(images))
        return super().partition(split)

    def test(self) -> torch.utils.data.Dataset | None:
        """Test samples, or None where there is no ``root/test``."""
        return super().test() if self._path("test").is_dir() else None

    def listing(self, split: Split) -> Images:
        """The image files of a split's folder.

        Raises:
            DataError: a missing or empty folder, a class the training folder does not have or one that is lacking,
                or a file that is not an image.
        """
        self._check_classes(split)
        files: list[Path] = []
        labels: list[int] = []
        other: list[str] = []
        for label, name in enumerate(self.classes):
            before = len(files)
            for path in _files(self._path(split) / name):
                if path.suffix.lower() in SUFFIXES:
                    files.append(path)
                    labels.append(label)
                elif self.on_error == "stop":
                    raise DataError(
                        f"{path}: not an image file (one of {', '.join(sorted(SUFFIXES))}); remove it, "
                        "or set data.on_error: skip"
                    )
                else:
                    other.append(str(path.relative_to(self._root)))
            if len(files) == before:
                raise DataError(f"{self._path(split) / name}: holds no image; add some, or remove the class everywhere")
        if other:
            log.warning("skipped %d files in %s that are not images: %s", len(other), split, ", ".join(other))
        ids = [path.relative_to(self._root).as_posix() for path in files]
        return Images(ids, torch.tensor(labels), files, self.in_channels, tuple(other))

    def prepare(self, train: bool) -> list[Transform]:
        """Resizes the short side to ``size`` and keeps the middle."""
        if train and "resized_crop" in self.augment:
            return []
        return [BroughtTo(self.size, self.resize)]

    def load(self, images: Images) -> Images:
        """Leaves out images that cannot be decoded, where that is asked for."""
        return images.without_corrupt() if self.on_error == "skip" else images

    @property
    def _root(self) -> Path:
        return Path(self.root).expanduser()

    def _path(self, split: Split) -> Path:
        return self._root / split

    def _class_folders(self, split: Split) -> list[Path]:
        folder = self._path(split)
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such folder; expected {folder}/<class>/<image>: check data.root")
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        stray = [path for path in entries if not path.is_dir()]
        if stray:
            raise DataError(f"{stray[0]}: belongs to no class; move it into a class folder, or remove it")
        if not entries:
            raise DataError(f"{folder}: holds no class folder; expected {folder}/<class>/<image>")
        return entries

    def _check_classes(self, split: Split) -> None:
        found, known = [folder.name for folder in self._class_folders(split)], self.classes
        source = "data.class_names" if self.class_names is not None else str(self._path("train"))
        for name in found:
            if name not in known:
                raise DataError(f"{self._path(split) / name}: no such class in {source}{nearest(name, known)}")
        for name in known:
            if name not in found:
                raise DataError(
                    f"{self._path(split)}: lacks the class '{name}' of {source}; add it, or remove it there"
                )


def _files(folder: Path) -> list[Path]:
    below = folder.rglob("*")
    return sorted(p for p in below if p.is_file() and not any(n.startswith(".") for n in p.relative_to(folder).parts))
