"""Augmentations by name, all from torchvision and all drawing from torch's global generator only."""

from collections.abc import Callable, Sequence
from typing import Literal

from torchvision.transforms import v2

Augmentation = Literal["crop", "resized_crop", "flip", "rotate", "colour", "randaugment", "erase"]
"""What ``data.augment`` may list:

- ``crop``: pad with zeros by ``crop_padding`` pixels, then a random window of the image's size.
- ``resized_crop``: a random window of 8 to 100 % of the area and 3/4 to 4/3 in shape, resized.
- ``flip``: left-right, every second time.
- ``rotate``: by an angle from [-20, 20] degrees; corners become zero.
- ``colour``: brightness, contrast and saturation each by a factor from [0.6, 1.4].
- ``randaugment``: two random operations of strength 9 (arXiv 1909.13719).
- ``erase``: every fourth time a random rectangle becomes zero (arXiv 1708.04896).
"""

_BUILD: dict[Augmentation, Callable[[int, int], v2.Transform]] = {
    "crop": lambda size, padding: v2.RandomCrop(size, padding=padding or None),
    "resized_crop": lambda size, padding: v2.RandomResizedCrop(size, antialias=True),
    "flip": lambda size, padding: v2.RandomHorizontalFlip(),
    "rotate": lambda size, padding: v2.RandomRotation([-20.0, 20.0], interpolation=v2.InterpolationMode.BILINEAR),
    "colour": lambda size, padding: v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
    "randaugment": lambda size, padding: v2.RandAugment(num_ops=2, magnitude=9),
    "erase": lambda size, padding: v2.RandomErasing(p=0.25),
}


def augmentations(names: Sequence[Augmentation], size: int, padding: int) -> list[v2.Transform]:
    """The transforms of uint8 images ``[C, H, W]``, in the order of ``names``.

    Args:
        names: see :data:`Augmentation`.
        size: rows and columns of the image, in pixels.
        padding: pixels on each side, of ``crop``.
    """
    return [_BUILD[name](size, padding) for name in names]
