"""The augmentation of top-down training: which region a crop shows, its mirror image, and its colours."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le
from numpy.random import Generator
from PIL import Image, ImageFilter

from vision.engine.errors import ConfigError
from vision.pose.crops import Vector
from vision.pose.images import RGB
from vision.pose.keypoints import Skeleton
from vision.pose.records import Joints

Probability = Annotated[float, Ge(0), Le(1)]
Range = tuple[float, float]

KERNELS = (3, 5, 7)  # of both blurs


@dataclass(frozen=True, kw_only=True)
class TopDownAugmentation:
    """How training crops vary. The defaults are the field's usual recipe; the last options add the extras of RTMPose.

    Shift, scale and rotation are each drawn from a normal distribution with mean 0 and deviation 1, cut off at -1 and
    1, and then stretched to their range.

    Attributes:
        flip: probability of the mirror image.
        half_body: probability with which a person with enough joints is cut to the upper or the lower body.
        half_body_joints: labelled joints that a person needs for that.
        upper_joints: labelled joints that an upper body needs to be shown alone.
        lower_joints: labelled joints that a lower body needs to be shown alone.
        upper_preferred: probability of the upper body where both have enough.
        half_body_padding: what the sides of the box around the half's joints are multiplied by.
        shift: largest shift, relative to the padded box's width and height.
        shift_probability: of a shift.
        scale: smallest and largest factor of the region's sides; below 1 the person appears larger.
        scale_probability: of such a factor.
        rotation: largest angle, degrees.
        rotation_probability: of a rotation.
        hue: largest change, in steps of 2 degrees.
        saturation: largest change, of 255.
        value: largest change, of 255.
        blur: probability of a box blur with a kernel of 3, 5 or 7 pixels.
        median_blur: probability of a median filter with such a kernel.
        dropout: probability of one black rectangle.
        dropout_side: its smallest and largest width and height, relative to the crop's.

    Raises:
        ConfigError: a range that is upside down or reaches 0.

    Source: half-body from Wang et al., MSPN, 2019; the rest of the recipe and the extras from mmpose's RTMPose recipes.
    Each hue, saturation and value changes with probability 1/2, as in YOLOX.
    """

    flip: Probability = 0.5
    half_body: Probability = 0.3
    half_body_joints: Annotated[int, Ge(1)] = 9
    upper_joints: Annotated[int, Ge(1)] = 2
    lower_joints: Annotated[int, Ge(1)] = 3
    upper_preferred: Probability = 0.7
    half_body_padding: Annotated[float, Gt(0)] = 1.5
    shift: Annotated[float, Ge(0)] = 0.16
    shift_probability: Probability = 0.3
    scale: Range = (0.5, 1.5)
    scale_probability: Probability = 1.0
    rotation: Annotated[float, Ge(0), Le(180)] = 80.0
    rotation_probability: Probability = 0.6
    hue: Annotated[int, Ge(0), Le(90)] = 0
    saturation: Annotated[int, Ge(0), Le(255)] = 0
    value: Annotated[int, Ge(0), Le(255)] = 0
    blur: Probability = 0.0
    median_blur: Probability = 0.0
    dropout: Probability = 0.0
    dropout_side: Range = (0.2, 0.4)

    def __post_init__(self) -> None:
        for name, most in (("scale", float("inf")), ("dropout_side", 1.0)):
            low, high = getattr(self, name)
            if not 0 < low <= high <= most:
                bound = "" if most > 1 else " and at most 1"
                raise ConfigError(
                    f"augmentation.{name}: got {[low, high]}, expected the smaller first, both above 0{bound}"
                )


NONE = TopDownAugmentation(flip=0, half_body=0, shift_probability=0, scale_probability=0, rotation_probability=0)
"""Leaves every crop as it is."""


def truncated_normal(rng: Generator, count: int) -> Vector:
    """``count`` draws from a normal distribution of mean 0 and deviation 1, cut off at -1 and 1."""
    drawn = np.empty(0)
    while len(drawn) < count:
        more = rng.standard_normal(2 * count + 2)
        drawn = np.concatenate([drawn, more[np.abs(more) <= 1]])
    return drawn[:count]


def half_body(
    rng: Generator, keypoints: Joints, skeleton: Skeleton, options: TopDownAugmentation
) -> tuple[Vector, Vector] | None:
    """Centre and sides of one half of a person, or None where it stays whole.

    The centre is the mean of the half's labelled joints; the sides are those of the box around them, padded.

    Args:
        rng: draws.
        keypoints: shape ``[K, 3]``, pixels of the image.
        skeleton: tells the halves.
        options: probability and what a half needs.
    """
    labelled = keypoints[:, 2] > 0
    if labelled.sum() < options.half_body_joints or rng.random() >= options.half_body:
        return None
    upper = [joint for joint in skeleton.upper_indices if labelled[joint]]
    lower = [joint for joint in skeleton.lower_indices if labelled[joint]]
    halves = ((upper, options.upper_joints), (lower, options.lower_joints))
    enough = [half for half, least in halves if len(half) >= least]
    if not enough:
        return None
    preferred = enough[0 if rng.random() < options.upper_preferred else -1]
    points = keypoints[preferred, :2].astype(np.float64)
    sides = (points.max(axis=0) - points.min(axis=0)) * options.half_body_padding
    if sides.max() < 1:  # all in one place: nothing to show
        return None
    return points.mean(axis=0), sides


def moved(rng: Generator, centre: Vector, sides: Vector, options: TopDownAugmentation) -> tuple[Vector, Vector, float]:
    """A region shifted, scaled and rotated at random.

    Args:
        rng: draws.
        centre: pixels of the image.
        sides: of the padded box, before they get the crop's aspect.
        options: ranges and probabilities.

    Returns:
        Centre, sides and the rotation in degrees.
    """
    draws = truncated_normal(rng, 4)
    shifts, scales, rotates = rng.random(3) < (
        options.shift_probability,
        options.scale_probability,
        options.rotation_probability,
    )
    if shifts:
        centre = centre + draws[:2] * options.shift * sides
    low, high = options.scale
    factor = (low + high) / 2 + draws[2] * (high - low) / 2 if scales else 1.0
    return centre, sides * factor, float(draws[3] * options.rotation) if rotates else 0.0


def mirrored(image: RGB, keypoints: Joints, flip_index: list[int]) -> tuple[RGB, Joints]:
    """The mirror image of a crop, with left and right joints swapped.

    Args:
        image: uint8, shape ``[H, W, 3]``.
        keypoints: shape ``[K, 3]``, pixels of the crop; what is not labelled stays where it is.
        flip_index: of the skeleton.
    """
    turned = keypoints[flip_index]
    labelled = turned[:, 2] > 0
    turned[labelled, 0] = image.shape[1] - 1 - turned[labelled, 0]
    return np.ascontiguousarray(image[:, ::-1]), turned


def recoloured(rng: Generator, image: RGB, options: TopDownAugmentation) -> RGB:
    """The photometric extras: hue, saturation and value, blurs, and a black rectangle; each only where it is asked for.

    Args:
        rng: draws.
        image: uint8, shape ``[H, W, 3]``.
        options: ranges and probabilities.
    """
    if options.hue or options.saturation or options.value:
        image = _jittered(rng, image, options)
    blurs: tuple[tuple[float, Callable[[int], ImageFilter.Filter]], ...] = (
        (options.blur, lambda kernel: ImageFilter.BoxBlur(kernel // 2)),
        (options.median_blur, ImageFilter.MedianFilter),
    )
    for probability, kind in blurs:
        if probability and rng.random() < probability:
            image = np.array(Image.fromarray(image).filter(kind(int(rng.choice(KERNELS)))))
    if options.dropout and rng.random() < options.dropout:
        image = _with_hole(rng, image, options.dropout_side)
    return image


def _jittered(rng: Generator, image: RGB, options: TopDownAugmentation) -> RGB:
    # Pillow's hue has 256 steps round the circle, the options' has 180
    most = np.array([options.hue * 256 / 180, options.saturation, options.value])
    change = np.rint(rng.uniform(-1, 1, 3) * most * (rng.random(3) < 0.5)).astype(np.int16)
    if not change.any():
        return image
    planes = np.array(Image.fromarray(image).convert("HSV"), dtype=np.int16) + change
    planes[..., 0] %= 256
    planes[..., 1:] = planes[..., 1:].clip(0, 255)
    return np.array(Image.fromarray(planes.astype(np.uint8), mode="HSV").convert("RGB"))


def _with_hole(rng: Generator, image: RGB, side: Range) -> RGB:
    sides = [max(1, round(length * rng.uniform(*side))) for length in image.shape[:2]]
    top, left = (int(rng.integers(0, length - s + 1)) for length, s in zip(image.shape[:2], sides, strict=True))
    image = image.copy()
    image[top : top + sides[0], left : left + sides[1]] = 0
    return image
