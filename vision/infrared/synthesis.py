"""Synthetic infrared scenes: small targets laid on a background, with exact masks, and backgrounds out of nothing.

That the training data of TBC-Net are synthesised is published (arXiv 2001.05852); the recipe here is our choice.
Images are float32 ``[H, W]`` in [0, 1]; all randomness comes from the generator that is passed in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from vision.infrared.backgrounds import Image, procedural_background
from vision.infrared.detection import label_regions

Mask = NDArray[np.bool_]

__all__ = [
    "Image",
    "InsertedTarget",
    "Mask",
    "Scene",
    "SynthTargets",
    "count_components",
    "cut_targets",
    "draw_centres",
    "gaussian_target",
    "patch_target",
    "procedural_background",
    "scm_scene",
    "target_mask",
]

COUNTS = (0, 1, 1, 1, 2, 2, 3, 4)
BORDER = 8  # smallest distance of a target's centre from the border, pixels
SEPARATION = 12.0  # smallest distance between two centres, pixels
WINDOW = 12  # a target is drawn on a window of 2 * 12 + 1 pixels
AREA = (3, 120)  # allowed pixels in the mask of one target
RELATIVE_EDGE, ABSOLUTE_EDGE = 0.35, 0.02
ATTEMPTS = 100

_OFFSETS = np.arange(-WINDOW, WINDOW + 1, dtype=np.float32)


@dataclass(frozen=True)
class InsertedTarget:
    """A drawn target: its centre in pixels, the gray value added at its brightest pixel, and the SCR asked for."""

    row: int
    column: int
    amplitude: float
    scr: float


@dataclass(frozen=True)
class Scene:
    """A synthetic scene.

    Attributes:
        image: float32 ``[H, W]`` in [0, 1].
        mask: bool ``[H, W]``, pixels of targets.
        intensity: float32 ``[H, W]`` in [0, 1]: the added layer divided by its maximum (zero without targets).
        count: number of targets, equal to the 8-connected components of the mask.
        targets: what was inserted where.
    """

    image: Image
    mask: Mask
    intensity: Image
    count: int
    targets: tuple[InsertedTarget, ...]


def count_components(mask: NDArray[np.generic]) -> int:
    """Number of 8-connected components of a ``[H, W]`` mask."""
    return len(label_regions(mask))


def target_mask(layer: Image) -> Mask:
    r"""Mask of a layer of targets: :math:`T > 0.35 \max_{9 \times 9} T` and :math:`T > 0.02`.

    Args:
        layer: :math:`T`, float32, shape ``[H, W]``, zero where there is no target.

    Returns:
        Bool, shape ``[H, W]``.
    """
    return (layer > ABSOLUTE_EDGE) & (layer > RELATIVE_EDGE * ndimage.maximum_filter(layer, 9, mode="constant"))


def gaussian_target(rng: Generator) -> Image:
    """A rotated anisotropic Gaussian off the pixel grid, about 2 to 10 pixels across.

    ``sx ~ U(0.6, 1.8)``, ``sy = sx U(0.6, 1.6)``, angle ``U(0, pi)``, offset ``U(-0.5, 0.5)`` each way.

    Returns:
        float32, shape ``[25, 25]``; its brightest pixel is 1, so that the contrast asked for is the one on the grid.
    """
    sx = rng.uniform(0.6, 1.8)
    sy = sx * rng.uniform(0.6, 1.6)
    angle = rng.uniform(0.0, np.pi)
    offset_row, offset_column = rng.uniform(-0.5, 0.5, size=2)
    rows, columns = _OFFSETS[:, None] - np.float32(offset_row), _OFFSETS[None, :] - np.float32(offset_column)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = (cos * columns + sin * rows) / np.float32(sx), (cos * rows - sin * columns) / np.float32(sy)
    shape = np.exp(-0.5 * (along**2 + across**2))
    return shape / shape.max()


def cut_targets(image: Image, mask: Mask) -> list[Image]:
    """Cut real targets out of an image, for the ``patch`` mode.

    A cut-out is the image minus the median of its surroundings, clipped at 0, times a soft mask, divided by its
    maximum. Targets beyond 3 to 81 pixels or 15 pixels on a side, and those darker than their surroundings, are left.

    Args:
        image: float32, shape ``[H, W]``, in [0, 1].
        mask: bool, shape ``[H, W]``.

    Returns:
        float32 arrays of shape ``[h, w]`` with maximum 1.
    """
    labels = label_regions(mask).labels
    cutouts = []
    for index, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        own = labels[rows, columns] == index
        if not AREA[0] <= own.sum() <= 81 or max(own.shape) > 15:
            continue
        window = tuple(slice(max(s.start - 4, 0), s.stop + 4) for s in (rows, columns))
        surroundings = image[window][~mask[window]]
        soft = ndimage.gaussian_filter((labels[window] == index).astype(np.float32), 0.7)
        cutout = np.clip(image[window] - np.median(surroundings), 0.0, None) * soft / soft.max()
        if cutout.max() > ABSOLUTE_EDGE:
            cutouts.append((cutout / cutout.max()).astype(np.float32))
    return cutouts


def patch_target(rng: Generator, cutout: Image) -> Image:
    """A real cut-out ``[h, w]`` rotated, mirrored and scaled by ``U(0.7, 1.3)``: float32 ``[25, 25]`` of maximum 1."""
    angle, scale = rng.uniform(0.0, 2 * np.pi), rng.uniform(0.7, 1.3)
    mirror = 1.0 if rng.random() < 0.5 else -1.0
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    matrix = np.array([[cos, -sin * mirror], [sin, cos * mirror]])
    centre = (np.array(cutout.shape) - 1) / 2
    shape = ndimage.affine_transform(
        cutout, matrix, offset=centre - matrix @ (WINDOW, WINDOW), output_shape=(2 * WINDOW + 1,) * 2, order=1
    )
    return shape / max(float(shape.max()), 1e-6)


def draw_centres(rng: Generator, count: int, height: int, width: int) -> list[tuple[int, int]] | None:
    """Centres at least 8 px from the border and 12 px apart, or None when this draw found no room."""
    if count and min(height, width) <= 2 * BORDER:
        return None
    centres: list[tuple[int, int]] = []
    for _ in range(20 * count):
        if len(centres) == count:
            break
        row, column = int(rng.integers(BORDER, height - BORDER)), int(rng.integers(BORDER, width - BORDER))
        if all((row - r) ** 2 + (column - c) ** 2 >= SEPARATION**2 for r, c in centres):
            centres.append((row, column))
    return centres if len(centres) == count else None


def _paste(layer: Image, shape: Image, row: int, column: int, amplitude: float) -> None:
    top, left = row - WINDOW, column - WINDOW
    rows = slice(max(top, 0), min(row + WINDOW + 1, layer.shape[0]))
    columns = slice(max(left, 0), min(column + WINDOW + 1, layer.shape[1]))
    visible = shape[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    np.maximum(layer[rows, columns], np.float32(amplitude) * visible, out=layer[rows, columns])


class SynthTargets:
    r"""Lay small targets on a target-free background.

    A target's amplitude follows from the signal-to-clutter ratio asked for and the standard deviation of the
    background in 31x31 pixels around its centre,

    .. math:: A = \max(\mathrm{SCR} \cdot \max(\sigma_{local}, 0.01),\ 0.08), \quad A \le \max(1 - b_{centre},\ 0.15),

    and the image is :math:`\mathrm{clip}(b + T, 0, 1)` with :math:`T` the pixel-wise maximum of the targets. A scene is
    drawn again when its mask has not as many components as targets were asked for.

    Args:
        mode: ``gaussian`` blobs, or ``patch``: real cut-outs.
        cutouts: from :func:`cut_targets`; needed by ``patch``.
        counts: the numbers of targets that are drawn from, each equally likely.
        scr: range of the signal-to-clutter ratio.
        blur: largest sigma of the optical blur in pixels; 0 is none.
        noise: largest sigma of the sensor noise; 0 is none.
        gain: largest relative change of contrast about mid-gray.
        offset: largest change of brightness.

    Raises:
        ValueError: ``patch`` without cut-outs, a negative or empty range.

    Source: our choice. Deviation from a plain Gaussian: a shape is scaled to 1 at its brightest pixel, since sampling
    a narrow blob off its centre would lose up to two thirds of the contrast; a shape whose mask would have fewer than
    3 or more than 120 pixels is drawn again.
    """

    def __init__(
        self,
        mode: Literal["gaussian", "patch"] = "gaussian",
        cutouts: Sequence[Image] = (),
        counts: Sequence[int] = COUNTS,
        scr: tuple[float, float] = (2.0, 8.0),
        blur: float = 0.6,
        noise: float = 0.01,
        gain: float = 0.1,
        offset: float = 0.05,
    ) -> None:
        if mode not in ("gaussian", "patch"):
            raise ValueError(f"mode: got {mode!r}, expected 'gaussian' or 'patch'")
        if mode == "patch" and not cutouts:
            raise ValueError("mode 'patch' needs cutouts; cut_targets() takes them from images with masks")
        if not counts or min(counts) < 0:
            raise ValueError(f"counts: got {tuple(counts)}, expected at least one number, none negative")
        if not 0 < scr[0] <= scr[1] or min(blur, noise, gain, offset) < 0:
            raise ValueError(f"scr {scr} must rise from above 0; blur, noise, gain and offset must not be negative")
        self.mode = mode
        self.cutouts = tuple(cutouts)
        self.counts = tuple(counts)
        self.scr = scr
        self.blur, self.noise, self.gain, self.offset = blur, noise, gain, offset

    def __call__(self, rng: Generator, background: Image, count: int | None = None) -> Scene:
        """A scene with sensor effects: targets, then blur, noise, gain and offset.

        Args:
            rng: the only source of randomness.
            background: target-free, float32, shape ``[H, W]``, in [0, 1].
            count: number of targets; drawn from ``counts`` when None.

        Raises:
            ValueError: no room for so many targets.
        """
        scene = self.insert(rng, background, count)
        return Scene(self._sense(rng, scene.image), scene.mask, scene.intensity, scene.count, scene.targets)

    def insert(self, rng: Generator, background: Image, count: int | None = None) -> Scene:
        """A scene without sensor effects: without targets the image equals the background. As :meth:`__call__`."""
        wanted = int(rng.choice(self.counts)) if count is None else count
        layer = np.zeros_like(background)
        if wanted == 0:
            return Scene(background.copy(), np.zeros(background.shape, dtype=bool), layer, 0, ())
        for _ in range(ATTEMPTS):
            centres = draw_centres(rng, wanted, *background.shape)
            if centres is None:
                continue
            layer.fill(0.0)
            targets = tuple(self._add(rng, layer, background, row, column) for row, column in centres)
            mask = target_mask(layer)
            if count_components(mask) == wanted:
                image = np.clip(background + layer, 0.0, 1.0)
                return Scene(image, mask, layer / layer.max(), wanted, targets)
        height, width = background.shape
        raise ValueError(
            f"no room for {wanted} targets on {height}x{width} pixels: centres must lie {BORDER} px from the border "
            f"and {SEPARATION:.0f} px apart; take a larger image or fewer targets"
        )

    def _add(self, rng: Generator, layer: Image, background: Image, row: int, column: int) -> InsertedTarget:
        scr = rng.uniform(*self.scr)
        around = background[max(row - 15, 0) : row + 16, max(column - 15, 0) : column + 16]
        amplitude = max(scr * max(float(around.std()), 0.01), 0.08)
        amplitude = min(amplitude, max(1.0 - float(background[row, column]), 0.15))
        _paste(layer, self.draw_shape(rng), row, column, amplitude)
        return InsertedTarget(row, column, amplitude, scr)

    def draw_shape(self, rng: Generator) -> Image:
        """One target: float32 ``[25, 25]`` of maximum 1, of 3 to 120 pixels."""
        for _ in range(ATTEMPTS):
            if self.mode == "gaussian":
                shape = gaussian_target(rng)
            else:
                shape = patch_target(rng, self.cutouts[rng.integers(len(self.cutouts))])
            mask = target_mask(shape)
            if AREA[0] <= np.count_nonzero(mask) <= AREA[1] and count_components(mask) == 1:
                return shape
        raise ValueError(f"no target of {AREA[0]} to {AREA[1]} pixels in {ATTEMPTS} draws; check the cut-outs")

    def _sense(self, rng: Generator, image: Image) -> Image:
        """Optical blur, sensor noise, gain and offset; the drawn strengths are uniform up to the largest."""
        blur, noise = rng.uniform(0.0, self.blur), rng.uniform(0.0, self.noise)
        gain, offset = 1 + rng.uniform(-self.gain, self.gain), rng.uniform(-self.offset, self.offset)
        if blur > 0.2:  # a narrower kernel is the identity to 4 digits
            image = ndimage.gaussian_filter(image, blur)
        if noise > 0:
            image = image + np.float32(noise) * rng.standard_normal(image.shape, dtype=np.float32)
        return np.clip(np.float32(gain) * (image - np.float32(0.5)) + np.float32(0.5 + offset), 0.0, 1.0)


_SHAPES = SynthTargets()


def scm_scene(rng: Generator, size: int | tuple[int, int], intensity: bool = False) -> tuple[Image, int]:
    """A target image for the pre-training of the semantic constraint module; no image of a sensor is needed.

    The classes 0, 1, 2, 3 and "four or more" (4 or 5 targets) are equally likely. The mask is softened by a Gaussian of
    sigma 0.3 to 0.8 half of the time, scaled by ``U(0.6, 1)``, and gets clutter ``|N(0, s)|``, ``s ~ U(0, 0.02)``.

    Args:
        rng: the only source of randomness.
        size: side, or (height, width), in pixels; 64 or more leaves room for five targets.
        intensity: take the layer of targets divided by its maximum in place of the mask.

    Returns:
        The target image, float32 ``[H, W]`` in [0, 1], and its number of targets, 0 to 5.

    Raises:
        ValueError: no room for the targets.

    Source: our choice.
    """
    height, width = (size, size) if isinstance(size, int) else size
    count = int(rng.integers(0, 5))
    count += int(count == 4 and rng.random() < 0.5)
    image = _target_image(rng, height, width, count, intensity)
    if rng.random() < 0.5:
        image = ndimage.gaussian_filter(image, rng.uniform(0.3, 0.8))
    clutter = np.abs(rng.standard_normal((height, width), dtype=np.float32))
    cluttered = np.float32(rng.uniform(0.6, 1.0)) * image + np.float32(rng.uniform(0.0, 0.02)) * clutter
    return np.clip(cluttered, 0.0, 1.0), count


def _target_image(rng: Generator, height: int, width: int, count: int, intensity: bool) -> Image:
    layer = np.zeros((height, width), dtype=np.float32)
    for _ in range(ATTEMPTS):
        centres = draw_centres(rng, count, height, width)
        if centres is None:
            continue
        layer.fill(0.0)
        for row, column in centres:
            _paste(layer, _SHAPES.draw_shape(rng), row, column, rng.uniform(0.3, 1.0))
        mask = target_mask(layer)
        if count_components(mask) == count:
            return layer / max(float(layer.max()), 1e-6) if intensity else mask.astype(np.float32)
    raise ValueError(f"no room for {count} targets on {height}x{width} pixels; take a larger size")
