"""What infrared networks say of an image, and how it is prepared for them. Nothing here needs PyTorch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from vision.engine.prediction import Picture, Prediction
from vision.infrared.detection import Detection
from vision.report.figures import FOUND, TRUTH, circles, enlarge, outline, scale_to, side_by_side, to_picture

Gray = NDArray[np.float32]
"""Gray values in [0, 1], shape ``[H, W]``."""

SMALLEST_SIDE = 16
"""Pixels that an image must have along each side."""

LEAST_DEVIATION = 1e-3
"""What a deviation is taken for where it is smaller."""


@dataclass
class Targets(Prediction):
    """The targets found in an image.

    Attributes:
        detections: centroids, areas and scores, surest first.
        probability: the extracted target image, float32 ``[H, W]`` in [0, 1]; not written to files.
        threshold: that detections lie above.
    """

    why_not_coco: ClassVar[str] = (
        "a target is found by its centre, and boxes of a few pixels would hardly ever overlap as COCO's scores ask"
    )

    detections: list[Detection]
    probability: NDArray[np.float32] = field(repr=False)
    threshold: float = 0.5

    def draw(self, image: Picture, truth: Any = None) -> Picture:
        """Circles around what was found, the outline of ``truth`` (a mask) where given, and the target image beside."""
        scale = scale_to(image.shape[:2], 240)
        centres = [(d.row * scale + (scale - 1) / 2, d.col * scale + (scale - 1) / 2) for d in self.detections]
        drawn = enlarge(image, 240)
        if truth is not None:
            drawn = outline(drawn, np.kron(truth, np.ones((scale, scale), dtype=bool)), TRUTH)
        drawn = circles(drawn, centres, FOUND, [d.score for d in self.detections], radius=10.0 + scale)
        found = "found" if truth is None else "found (orange), true (green)"
        extracted = enlarge(to_picture(self.probability), 240)
        return side_by_side([drawn, extracted], [found, "extracted target image"])

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, "threshold": self.threshold, "detections": [asdict(d) for d in self.detections]}


@dataclass
class Count(Prediction):
    """How many targets a target image holds.

    Attributes:
        label: the most probable class; the last one means "this many or more".
        probabilities: of all classes.
    """

    label: int
    probabilities: list[float]


def counts_of(ids: Sequence[str], logits: NDArray[np.floating[Any]]) -> list[Count]:
    """The predictions of a batch from logits ``[N, C]``."""
    wide = np.asarray(logits, dtype=np.float64)
    shares = np.exp(wide - wide.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    return [
        Count(name, int(row.argmax()), [round(p, 6) for p in row.tolist()])
        for name, row in zip(ids, shares, strict=True)
    ]


def too_small(name: str, shape: tuple[int, ...]) -> str:
    """What an error says of an image of too few pixels."""
    return f"{name}: {shape[0]}x{shape[1]} pixels; at least {SMALLEST_SIDE} on each side needed"


def visible(raw: Gray) -> Gray:
    """Gray values that an eye can tell apart: a range below a quarter, as deep images have it, is stretched to all."""
    low, high = float(raw.min()), float(raw.max())
    return (raw - low) / (high - low) if 0 < high - low < 0.25 else raw


def as_input(
    image: Gray,
    mode: Literal["image", "dataset"] = "image",
    mean: float | None = None,
    std: float | None = None,
    high_pass: bool = False,
) -> NDArray[np.float32]:
    """What a network takes: :func:`vision.infrared.tbcnet.normalise`, and on demand ``with_high_pass``, by NumPy.

    Args:
        image: gray values in [0, 1], shape ``[H, W]``.
        mode: ``image`` by its own mean and deviation, ``dataset`` by ``mean`` and ``std``.
        mean: for ``dataset``.
        std: for ``dataset``.
        high_pass: append the high-pass channel.

    Returns:
        float32, shape ``[C, H, W]``, C 1 or 2.
    """
    wide = image.astype(np.float64)
    if mode == "image":
        mean, std = float(wide.mean()), float(wide.std())
    elif mean is None or std is None:
        raise ValueError("normalisation by a data set needs its mean and std")
    normal = (wide - mean) / max(std, LEAST_DEVIATION)
    planes = [normal, normal - _blurred(normal)] if high_pass else [normal]
    return np.stack(planes).astype(np.float32)


def _blurred(plane: NDArray[np.float64], sigma: float = 5.0) -> NDArray[np.float64]:
    """A Gaussian's average around each pixel, edges replicated; the kernel reaches ``4 sigma``."""
    radius = round(4 * sigma)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        size = plane.shape[axis]
        padded = np.pad(plane, [(radius, radius) if k == axis else (0, 0) for k in (0, 1)], mode="edge")
        parts = (padded[i : i + size] if axis == 0 else padded[:, i : i + size] for i in range(len(kernel)))
        plane = sum((w * part for w, part in zip(kernel, parts, strict=True)), np.zeros_like(plane))
    return plane
