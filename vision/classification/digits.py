"""Handwritten digits: the 8x8 ones that come with scikit-learn, and MNIST from one npz file."""

from dataclasses import dataclass

import numpy as np
import torch

from vision.classification.data import ClassificationData, Split, stratified
from vision.classification.images import Images, Indices, check_labels
from vision.classification.npz import only_npz, read_npz
from vision.engine.errors import ConfigError, DataError
from vision.engine.registry import register


@dataclass(kw_only=True, eq=False)
class DigitPool(ClassificationData):
    """Digits that come without a test split: one is held out first, by class, then validation from the rest.

    Args:
        test_share: held out for test: a share below 1, or a number of images.
    """

    test_share: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.test_share <= 0 or (self.test_share >= 1 and self.test_share != int(self.test_share)):
            raise ConfigError(
                f"data.test_share: {self.test_share} is neither a share in (0, 1) nor a whole number of images"
            )

    @property
    def classes(self) -> list[str]:
        """``0`` to ``9``."""
        return [str(digit) for digit in range(10)]

    @property
    def in_channels(self) -> int:
        """One: grey."""
        return 1

    def partition(self, split: Split) -> tuple[Images, Indices]:
        """Every split is a part of the one pool."""
        pool = self.listed("train")
        labels = pool.labels.numpy()
        held = stratified(labels, self.count(self.test_share, len(labels), "data.test_share"), self.seed)
        if split == "test":
            return pool, held
        return pool, self.parted(pool.labels, np.setdiff1d(np.arange(len(labels)), held), split)


@register("digits")
@dataclass(kw_only=True, eq=False)
class Digits(DigitPool):
    """1,797 real handwritten digits of 8x8 pixels that come with scikit-learn; nothing is downloaded.

    The split is ours: by default 359 digits are for test and 144 of the others for validation, each class in
    proportion, chosen by ``seed``; 1,294 are left for training. Grey levels 0 to 16 become 0 to 255. A sample's id is
    ``digits/`` and its place in scikit-learn's order.

    Source: ``sklearn.datasets.load_digits``; E. Alpaydin, C. Kaynak, UCI Machine Learning Repository, 1998.
    """

    mean: tuple[float, ...] = (0.3053,)
    std: tuple[float, ...] = (0.3760,)

    @property
    def image_size(self) -> int:
        """8 pixels."""
        return 8

    def listing(self, split: Split) -> Images:
        """All digits."""
        from sklearn.datasets import load_digits  # slow to import

        bunch = load_digits()
        pixels = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
        ids = [f"digits/{i:04d}" for i in range(len(pixels))]
        return Images(ids, check_labels(bunch.target, 10, "load_digits"), pixels, 1)


@register("mnist_npz")
@dataclass(kw_only=True, eq=False)
class MnistNpz(DigitPool):
    """MNIST digits of 28x28 pixels from an npz file with ``images`` (uint8 ``[N, 28, 28]``) and ``labels`` (``[N]``).

    The file has no test split; ours takes each class in proportion, chosen by ``seed``. A sample's id is ``mnist/``
    and its place in the file.

    Args:
        root: the npz file, or a folder that holds exactly one.
    """

    root: str
    mean: tuple[float, ...] = (0.1307,)
    std: tuple[float, ...] = (0.3081,)

    @property
    def image_size(self) -> int:
        """28 pixels."""
        return 28

    def listing(self, split: Split) -> Images:
        """All digits of the file.

        Raises:
            DataError: no file, several, or one that does not hold what is expected.
        """
        path = only_npz(self.root)
        arrays = read_npz(path, {"images": ("uint8", (None, 28, 28)), "labels": ("integer", (None,))})
        if len(arrays["images"]) != len(arrays["labels"]):
            raise DataError(f"{path}: {len(arrays['images'])} images but {len(arrays['labels'])} labels")
        ids = [f"mnist/{i:05d}" for i in range(len(arrays["labels"]))]
        pixels = torch.from_numpy(arrays["images"]).unsqueeze(1)
        return Images(ids, check_labels(arrays["labels"], 10, str(path)), pixels, 1)
