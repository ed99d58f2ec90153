"""Data sets of TBC-Net: training crops, real and synthetic, and full-size images for evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset

from vision.engine.errors import DataError
from vision.infrared.backgrounds import procedural_background
from vision.infrared.detection import Detection, detect, label_regions
from vision.infrared.reading import (
    InfraredSample,
    IRSTFolder,
    Mask,
    Pixels,
    as_float,
    read_backgrounds,
    read_infrared,
    validation_split,
)
from vision.infrared.synthesis import SynthTargets, count_components
from vision.infrared.targets import SMALLEST_SIDE
from vision.infrared.tbcnet import normalise, with_high_pass

Image = NDArray[np.float32]

__all__ = [
    "Detection",
    "IRSTFolder",
    "InfraredCrops",
    "InfraredImages",
    "InfraredSample",
    "InputTransform",
    "detect",
    "intensity_layer",
    "read_backgrounds",
    "read_infrared",
    "validation_split",
]

FREE_AREA_ATTEMPTS = 5
SMALLEST_SCENE = 48  # side that leaves room for four targets 12 px apart and 8 px from the border


@dataclass(frozen=True)
class InputTransform:
    """From an image in [0, 1] to what the network takes: normalisation and, on demand, the high-pass channel.

    Attributes:
        mode: normalisation, ``image`` or ``dataset`` (see :func:`vision.infrared.tbcnet.normalise`).
        mean: for ``dataset``.
        std: for ``dataset``.
        high_pass: append the high-pass channel.
    """

    mode: Literal["image", "dataset"] = "image"
    mean: float | None = None
    std: float | None = None
    high_pass: bool = False

    def __call__(self, image: Image) -> Tensor:
        """``[H, W]`` to ``[C, H, W]`` with ``C`` 1, or 2 with the high-pass channel."""
        normal = normalise(torch.from_numpy(np.ascontiguousarray(image)), self.mode, self.mean, self.std)[None]
        return with_high_pass(normal) if self.high_pass else normal


def intensity_layer(image: Image, mask: Mask) -> Image:
    """Intensity target of a real image: each target's contrast to its surroundings, divided by the image's maximum.

    The contrast is the absolute difference from the median of 4 pixels around the target's box. A pixel of the mask
    gets at least 0.1, so that it stays foreground.

    Args:
        image: float32, shape ``[H, W]``, in [0, 1].
        mask: bool, shape ``[H, W]``.

    Returns:
        float32, shape ``[H, W]``, in [0, 1]; 0 outside the mask.

    Source: our choice; only a synthetic scene knows its true layer.
    """
    layer = np.zeros_like(image)
    labels = label_regions(mask).labels
    for index, box in enumerate(ndimage.find_objects(labels), start=1):
        window = tuple(slice(max(side.start - 4, 0), side.stop + 4) for side in box)
        around = image[window][~mask[window]]
        own = labels[window] == index
        layer[window][own] = np.abs(image[window][own] - (np.median(around) if around.size else 0))
    return np.where(mask, np.maximum(layer / max(float(layer.max()), 1e-6), 0.1), 0).astype(np.float32)


@dataclass(frozen=True)
class _Crop:
    """A crop before augmentation; ``target`` is the intensity layer where that is asked for, else the mask."""

    name: str
    image: Image
    mask: Mask
    target: Image | Mask


class InfraredCrops(Dataset[dict[str, Any]]):
    """Training crops: a mixture of real images and synthetic scenes, flipped and transposed at random.

    A sample is a dict of ``id`` (str), ``image`` (float32 ``[C, h, w]``, normalised), ``mask`` (float32 ``[1, h, w]``),
    ``intensity`` (float32 ``[1, h, w]``, with ``target_mode='intensity'``) and ``count`` (int64, targets in the crop).
    All randomness comes from one draw of torch's global generator at the start of each sample.

    Args:
        samples: real images with masks, for example an :class:`IRSTFolder`; may be empty with ``synthetic='only'``.
        patch: side of a crop, pixels; at least 16, with synthetic scenes 48.
        synthetic: ``mixed`` real and synthetic, ``none`` real alone, ``only`` synthetic alone.
        p_real: share of real crops in the mixture.
        p_target: probability with which a real crop is made to contain a target pixel.
        synth: draws the targets.
        backgrounds: target-free images for synthetic scenes (:func:`read_backgrounds`).
        procedural: share of synthetic scenes on procedural backgrounds; the others lie on ``backgrounds`` and on free
            areas of ``samples`` in equal parts. Where a source is missing, too small or without a free area, the next
            one is taken, procedural last.
        target_mode: ``mask``, or ``intensity`` to add the intensity layer.
        transform: normalisation.
        pad: what a crop of a smaller image is filled up with, right and below: ``zero`` (after normalisation: the
            mean) or ``reflect``.
        length: samples an epoch; by default as many as ``samples``, or 1000 without any.

    Raises:
        DataError: no samples where real crops are asked for, or a value out of range.

    Source: mixture, crop and augmentation follow BasicIRSTD's protocol where it has one; the synthetic share is our
    choice.
    """

    def __init__(
        self,
        samples: Sequence[InfraredSample],
        patch: int = 256,
        synthetic: Literal["mixed", "none", "only"] = "mixed",
        p_real: float = 0.6,
        p_target: float = 0.5,
        synth: SynthTargets | None = None,
        backgrounds: Sequence[Pixels] = (),
        procedural: float = 0.2,
        target_mode: Literal["mask", "intensity"] = "mask",
        transform: InputTransform | None = None,
        pad: Literal["zero", "reflect"] = "zero",
        length: int | None = None,
    ) -> None:
        _one_of("synthetic", synthetic, ("mixed", "none", "only"))
        _one_of("target_mode", target_mode, ("mask", "intensity"))
        _one_of("pad", pad, ("zero", "reflect"))
        for name, share in (("p_real", p_real), ("p_target", p_target), ("procedural", procedural)):
            if not 0 <= share <= 1:
                raise DataError(f"{name}: got {share}, expected a share between 0 and 1")
        if patch < SMALLEST_SIDE:
            raise DataError(f"patch: got {patch}, expected at least {SMALLEST_SIDE} pixels")
        if patch < SMALLEST_SCENE and synthetic != "none":
            raise DataError(
                f"patch: got {patch}; synthetic scenes need {SMALLEST_SCENE} pixels, or set synthetic to 'none'"
            )
        if length is not None and length < 1:
            raise DataError(f"length: got {length}, expected at least 1")
        if not len(samples) and synthetic != "only":
            raise DataError(f"synthetic '{synthetic}' needs real samples and got none; give some, or set it to 'only'")
        self.samples, self.backgrounds = samples, backgrounds
        self.patch, self.pad, self.target_mode = patch, pad, target_mode
        self.p_real = {"mixed": p_real, "none": 1.0, "only": 0.0}[synthetic]
        self.p_target, self.procedural = p_target, procedural
        self.synth = synth or SynthTargets()
        self.transform = transform or InputTransform()
        self.length = length or len(samples) or 1000
        self._target_pixels = [np.argwhere(sample.mask) for sample in samples]
        self._intensities = [intensity_layer(as_float(s.pixels), s.mask) for s in samples if target_mode == "intensity"]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.length:
            raise IndexError(f"sample {index} of {self.length}")
        rng = np.random.default_rng(int(torch.randint(2**63 - 1, (1,)).item()))
        real = rng.random() < self.p_real
        crop = self._real(rng, index % len(self.samples)) if real else self._synthetic(rng)
        return self._finish(rng, crop, f"{crop.name}/{index}")

    def _real(self, rng: Generator, index: int) -> _Crop:
        sample, pixels = self.samples[index], self._target_pixels[index]
        held = pixels[rng.integers(len(pixels))] if len(pixels) and rng.random() < self.p_target else None
        window = _window(rng, sample.mask.shape, self.patch, held)
        mask = sample.mask[window]
        target = self._intensities[index][window] if self.target_mode == "intensity" else mask
        return _Crop(sample.name, as_float(sample.pixels[window]), mask, target)

    def _synthetic(self, rng: Generator) -> _Crop:
        scene = self.synth(rng, self._background(rng))
        return _Crop("synthetic", scene.image, scene.mask, scene.intensity)

    def _background(self, rng: Generator) -> Image:
        """A target-free crop of the patch's size, or smaller where its source is."""
        if rng.random() >= self.procedural:
            supplied_first = rng.random() < 0.5
            for source in (self._supplied, self._free_area) if supplied_first else (self._free_area, self._supplied):
                background = source(rng)
                if background is not None:
                    return background
        return procedural_background(rng, self.patch, self.patch)

    def _supplied(self, rng: Generator) -> Image | None:
        if not len(self.backgrounds):
            return None
        pixels = self.backgrounds[int(rng.integers(len(self.backgrounds)))]
        if min(pixels.shape) < SMALLEST_SCENE:
            return None
        return as_float(pixels[_window(rng, pixels.shape, self.patch)])

    def _free_area(self, rng: Generator) -> Image | None:
        for _ in range(FREE_AREA_ATTEMPTS if len(self.samples) else 0):
            sample = self.samples[int(rng.integers(len(self.samples)))]
            window = _window(rng, sample.mask.shape, self.patch)
            if min(sample.mask.shape) >= SMALLEST_SCENE and not sample.mask[window].any():
                return as_float(sample.pixels[window])
        return None

    def _finish(self, rng: Generator, crop: _Crop, name: str) -> dict[str, Any]:
        flip_rows, flip_columns, transpose = rng.random(3) < 0.5
        steps = (-1 if flip_rows else 1, -1 if flip_columns else 1)

        def augment(plane: NDArray[Any]) -> NDArray[Any]:
            turned = plane[:: steps[0], :: steps[1]]
            return np.ascontiguousarray(turned.T if transpose else turned)

        mask = self._fill(augment(crop.mask))
        image = self.transform(augment(crop.image))
        if image.shape[-2:] != mask.shape:
            image = torch.from_numpy(np.stack([self._fill(plane) for plane in image.numpy()]))
        sample = {
            "id": name,
            "image": image,
            "mask": torch.from_numpy(mask.astype(np.float32))[None],
            "count": torch.tensor(count_components(mask)),
        }
        if self.target_mode == "intensity":
            sample["intensity"] = torch.from_numpy(self._fill(augment(crop.target).astype(np.float32)))[None]
        return sample

    def _fill(self, plane: NDArray[Any]) -> NDArray[Any]:
        missing = [(0, max(self.patch - side, 0)) for side in plane.shape]
        if not any(after for _, after in missing):
            return plane
        return np.pad(plane, missing, mode="constant" if self.pad == "zero" else "reflect")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise DataError(f"{name}: got {value!r}, expected one of {', '.join(known)}")


def _window(
    rng: Generator, shape: tuple[int, ...], patch: int, held: NDArray[np.int64] | None = None
) -> tuple[slice, slice]:
    """A random window of at most ``patch`` pixels a side; around the pixel ``held`` where that is given."""
    starts = []
    for axis, side in enumerate(shape):
        first, last = 0, max(side - patch, 0)
        if held is not None:
            first, last = max(first, int(held[axis]) - patch + 1), min(last, int(held[axis]))
        starts.append(int(rng.integers(first, last + 1)))
    return slice(starts[0], starts[0] + patch), slice(starts[1], starts[1] + patch)


class InfraredImages(Dataset[dict[str, Any]]):
    """Images at full size, for evaluation.

    A sample is a dict of ``id`` (str), ``image`` (float32 ``[C, H, W]``, normalised), ``raw`` (float32 ``[H, W]`` in
    [0, 1]) and ``mask`` (bool ``[H, W]``). Sizes differ from image to image.

    Args:
        samples: images with masks, for example an :class:`IRSTFolder`.
        transform: normalisation, the same as in training.
    """

    def __init__(self, samples: Sequence[InfraredSample], transform: InputTransform | None = None) -> None:
        self.samples = samples
        self.transform = transform or InputTransform()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        raw = as_float(sample.pixels)
        return {
            "id": sample.name,
            "image": self.transform(raw),
            "raw": torch.from_numpy(raw),
            "mask": torch.from_numpy(sample.mask),
        }
