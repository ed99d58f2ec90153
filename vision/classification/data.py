"""What every classification data set shares: splits held out by a seed, limits, augmentation, normalisation."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vision.classification.augment import Augmentation, augmentations
from vision.classification.images import Images, Indices, first
from vision.classification.pixels import Resize
from vision.classification.subset import read_subset
from vision.engine.data import DataModule, Sample
from vision.engine.errors import ConfigError, DataError

Split = Literal["train", "val", "test"]
Transform = Callable[[Tensor], Tensor]
"""Of a uint8 image ``[C, H, W]``."""
OnError = Literal["stop", "skip"]


class ClassificationDataset(Dataset[Sample]):
    """Images as samples ``{id: str, image: float32 [C, H, W], label: int64 scalar}``.

    Args:
        images: what it holds.
        transforms: of each uint8 image, before it becomes floating point in [0, 1].
        mean: taken off each channel then; None does not normalise.
        std: each channel is divided by it.
    """

    def __init__(
        self, images: Images, transforms: list[Transform], mean: Tensor | None = None, std: Tensor | None = None
    ) -> None:
        self.images = images
        self.transforms = transforms
        self.mean, self.std = mean, std

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image = self.images.read(index)
        for transform in self.transforms:
            image = transform(image)
        image = image.float().div_(255)
        if self.mean is not None and self.std is not None:
            image.sub_(self.mean).div_(self.std)
        return {"id": self.images.ids[index], "image": image, "label": self.images.labels[index]}


@dataclass(kw_only=True, eq=False)
class ClassificationData(DataModule):
    """The options and the splitting that all classification data sets share.

    Args:
        validation: held out of the training images: a share below 1, or a number of images. 0 holds out none, and
            then there is nothing to choose a checkpoint on. Test images are never used.
        seed: of what is held out; independent of the run's seed, so that runs compare.
        augment: applied to training images, in this order (:data:`~vision.classification.augment.Augmentation`).
        crop_padding: pixels on each side, of the augmentation ``crop``.
        normalise: ``(x - mean) / std``; false leaves images in [0, 1], for a network that normalises itself.
        mean: one value a channel, for images in [0, 1].
        std: one value a channel.
        limit: keep at most this many images of each split, for quick runs.
        balanced: the limit takes classes in turn; false takes the first images in order.
        subset: a file of the training images to train on, by their places in the official order
            (:func:`~vision.classification.subset.read_subset`); those held out for validation stay held out. None
            trains on all.

    Attributes:
        resize: how an image of another size, a user's, is brought to ``image_size``.
    """

    resize: ClassVar[Resize] = "stretch"
    validation: float = 0.1
    seed: int = 7
    augment: tuple[Augmentation, ...] = ()
    crop_padding: int = 4
    normalise: bool = True
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    limit: int | None = None
    balanced: bool = True
    subset: str | None = None
    _kept: dict[Split, Images] = field(default_factory=dict, init=False, repr=False)
    _listed: dict[Split, Images] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.mean) != self.in_channels or len(self.std) != self.in_channels:
            raise ConfigError(
                f"data.mean has {len(self.mean)} and data.std {len(self.std)} values; give {self.in_channels} of each"
            )
        if min(self.std) <= 0:
            raise ConfigError(f"data.std: {list(self.std)} must all be above 0")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"data.limit: {self.limit} is below 1; leave it out to keep all images")
        if self.crop_padding < 0:
            raise ConfigError(f"data.crop_padding: {self.crop_padding} is below 0")
        if self.validation < 0 or (self.validation >= 1 and self.validation != int(self.validation)):
            raise ConfigError(
                f"data.validation: {self.validation} is neither a share in [0, 1) nor a whole number of images"
            )

    @property
    @abstractmethod
    def classes(self) -> list[str]:
        """The name of each class, by label."""

    @property
    @abstractmethod
    def image_size(self) -> int:
        """Rows and columns of a sample's image, in pixels."""

    @property
    @abstractmethod
    def in_channels(self) -> int:
        """Channels of a sample's image."""

    @abstractmethod
    def listing(self, split: Split) -> Images:
        """All images of an official split; ``val`` is asked for only where :meth:`partition` says so."""

    def train(self) -> Dataset[Sample]:
        """Training samples, augmented."""
        return self._dataset("train")

    def val(self) -> Dataset[Sample]:
        """Validation samples, held out of the training images.

        Raises:
            DataError: ``validation`` is 0.
        """
        return self._dataset("val")

    def test(self) -> Dataset[Sample] | None:
        """Test samples."""
        return self._dataset("test")

    @property
    def skipped(self) -> dict[str, list[str]]:
        """Names of images left out because they cannot be decoded, by split, of the splits used so far."""
        return {split: list(images.skipped) for split, images in self._kept.items() if images.skipped}

    def partition(self, split: Split) -> tuple[Images, Indices]:
        """The images a split is taken from, and the positions of its own among them."""
        if split == "test":
            images = self.listed("test")
            return images, np.arange(len(images))
        images = self.listed("train")
        return images, self.parted(images.labels, np.arange(len(images)), split)

    def parted(self, labels: Tensor, indices: Indices, split: Split) -> Indices:
        """Those of ``indices`` that are for training, or those that are held out for validation."""
        count = self.count(self.validation, len(indices), "data.validation")
        if count == 0:
            if split == "train":
                return indices
            raise DataError("data.validation is 0, so there is no validation split; 0.1 holds out 10 % of train")
        held = self.held_out(labels.numpy()[indices], count)
        return indices[held] if split == "val" else np.setdiff1d(indices, indices[held])

    def held_out(self, labels: np.ndarray, count: int) -> Indices:
        """Positions of ``count`` images to hold out, with each class in proportion, ascending."""
        return stratified(labels, count, self.seed)

    def prepare(self, train: bool) -> list[Transform]:
        """What brings an image to ``image_size`` before augmentation; nothing where all images have that size."""
        return []

    def load(self, images: Images) -> Images:
        """The last word on what is kept; by default all."""
        return images

    def listed(self, split: Split) -> Images:
        """:meth:`listing`, read once."""
        if split not in self._listed:
            self._listed[split] = self.listing(split)
        return self._listed[split]

    @staticmethod
    def count(share: float, total: int, what: str) -> int:
        """How many of ``total`` a share below 1 or a number is, rounded half up.

        Raises:
            DataError: none are left, or a share above 0 comes to none.
        """
        count = int(share * total + 0.5) if share < 1 else int(share)
        if count >= total or (share > 0 and count == 0):
            raise DataError(
                f"{what}: {share} holds out {count} of {total} images; change it so that both sides have some"
            )
        return count

    def _dataset(self, split: Split) -> ClassificationDataset:
        if split not in self._kept:
            images, indices = self.partition(split)
            if split == "train" and self.subset is not None:
                indices = np.intersect1d(indices, read_subset(Path(self.subset).expanduser(), len(images)))
            images = self.load(images.take(first(images.labels, indices, self.limit, self.balanced)))
            if not len(images):
                raise DataError(f"the {split} split is empty; expected at least one image that can be read")
            self._kept[split] = images
        transforms = self.prepare(train=split == "train")
        if split == "train":
            transforms += augmentations(self.augment, self.image_size, self.crop_padding)
        if not self.normalise:
            return ClassificationDataset(self._kept[split], transforms)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return ClassificationDataset(self._kept[split], transforms, mean, std)


def stratified(labels: np.ndarray, count: int, seed: int) -> Indices:
    """Positions of ``count`` images with each class in proportion (scikit-learn's stratified split), ascending.

    Args:
        labels: shape ``[N]``.
        count: how many to choose.
        seed: decides which.

    Raises:
        DataError: too few images of a class, or fewer images than classes on one side.
    """
    from sklearn.model_selection import train_test_split  # slow to import, and CIFAR does not need it

    try:
        _, chosen = train_test_split(np.arange(len(labels)), test_size=count, random_state=seed, stratify=labels)
    except ValueError as error:
        raise DataError(f"cannot hold out {count} of {len(labels)} images by class: {error}") from error
    return np.sort(chosen)
