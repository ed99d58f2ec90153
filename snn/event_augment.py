"""Augmentation of event frames: every frame of a recording is moved alike."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from vision.engine.errors import ConfigError

EventAugmentation = Literal["flip", "roll", "rotate", "shear", "one_of"]
"""``flip`` left and right, every second time; ``roll`` by up to 5 pixels each way; ``rotate`` and ``shear`` by up to 30
degrees; ``one_of`` the last three, as is usual for CIFAR10-DVS."""

MOST_PIXELS, MOST_DEGREES = 5, 30.0


def flip(frames: Tensor) -> Tensor:
    """Mirrors columns, in half of all cases."""
    return frames.flip(-1) if torch.rand(()) < 0.5 else frames


def roll(frames: Tensor) -> Tensor:
    """Shifts rows and columns by whole pixels, what leaves on one side coming in on the other."""
    down, right = torch.randint(-MOST_PIXELS, MOST_PIXELS + 1, (2,)).tolist()
    return frames.roll((down, right), (-2, -1))


def rotate(frames: Tensor) -> Tensor:
    """Turns around the middle; the nearest pixel is taken, and what was outside is empty."""
    return F.rotate(frames, _angle(), InterpolationMode.NEAREST)


def shear(frames: Tensor) -> Tensor:
    """Slants rows; the nearest pixel is taken, and what was outside is empty."""
    return F.affine(frames, 0.0, [0, 0], 1.0, [_angle(), 0.0], InterpolationMode.NEAREST)


def one_of(frames: Tensor) -> Tensor:
    """Rolls, rotates or shears."""
    return (roll, rotate, shear)[int(torch.randint(3, ()))](frames)


def _angle() -> float:
    return float(torch.empty(()).uniform_(-MOST_DEGREES, MOST_DEGREES))


_ALL: dict[str, Callable[[Tensor], Tensor]] = {
    "flip": flip, "roll": roll, "rotate": rotate, "shear": shear, "one_of": one_of
}  # fmt: skip


def event_augmentations(names: tuple[str, ...]) -> list[Callable[[Tensor], Tensor]]:
    """What changes frames ``[T, 2, H, W]``, drawn from torch's global generator, in the order of the names.

    Raises:
        ConfigError: an unknown name.
    """
    for name in names:
        if name not in _ALL:
            raise ConfigError(f"data.augment: no '{name}'; expected any of {', '.join(get_args(EventAugmentation))}")
    return [_ALL[name] for name in names]
