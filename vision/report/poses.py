"""Drawing skeletons on pictures: limbs and joints coloured by side, legible on small pictures and on busy ones.

Coordinates are x right, y down, pixel centres at integers. A picture is RGB, uint8, shape ``[H, W, 3]``; every function
returns a new one and leaves its arguments alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vision.engine.prediction import Picture
from vision.report.figures import DARK, Colour

LEFT: Colour = (64, 164, 255)
RIGHT: Colour = (255, 142, 36)
MIDDLE: Colour = (245, 245, 240)
"""Colours of the person's own left and right, and of what is neither."""

SURE = 0.3
"""A joint whose score is at least this is drawn fully; one below it fades."""
FAINTEST = 0.2
"""Opacity of a joint of score 0."""


@dataclass(frozen=True)
class Drawn:
    """How the joints of a skeleton are drawn.

    Attributes:
        limbs: pairs of joints that a line joins.
        left: joints of the person's left side.
        right: joints of the person's right side.
    """

    limbs: Sequence[tuple[int, int]]
    left: frozenset[int]
    right: frozenset[int]

    def colour(self, *joints: int) -> Colour:
        """The colour of a joint, or of a limb between two: of a side where none of them is of the other."""
        at_left, at_right = any(j in self.left for j in joints), any(j in self.right for j in joints)
        if at_left == at_right:
            return MIDDLE
        return LEFT if at_left else RIGHT


def draw_poses(
    picture: Picture,
    keypoints: NDArray[np.floating],
    drawn: Drawn,
    boxes: NDArray[np.floating] | None = None,
    sure: float = SURE,
) -> Picture:
    """People's skeletons on a picture; what a network is unsure of is fainter.

    Args:
        picture: ``[H, W, 3]``.
        keypoints: x, y and score of each joint, ``[P, K, 3]``, pixels; a joint whose score is not above 0 is left out.
        drawn: which joints a line joins, and sides.
        boxes: x, y, width and height of each person, ``[P, 4]``, drawn thinly; None draws none.
        sure: score from which a joint is drawn fully.

    Raises:
        ValueError: arrays of another shape.
    """
    people = np.asarray(keypoints, dtype=np.float64)
    if people.ndim != 3 or people.shape[2] != 3:
        raise ValueError(f"expected keypoints [P, K, 3]; given {list(people.shape)}")
    height, width = picture.shape[:2]
    fine = 3 if height * width <= 700_000 else 2  # drawn larger, then reduced: smooth lines
    layer = Image.new("RGBA", (width * fine, height * fine), (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    for box in np.asarray(boxes, dtype=np.float64).reshape(-1, 4) if boxes is not None else ():
        _box(pen, box, fine)
    for person in people[np.argsort([-_size(p) for p in people], kind="stable")]:  # small people above large ones
        _person(pen, person, drawn, fine, sure)
    base = Image.fromarray(picture).convert("RGBA")
    base.alpha_composite(layer.resize((width, height), Image.Resampling.BOX))
    return np.asarray(base.convert("RGB")).copy()


def _size(person: NDArray[np.float64]) -> float:
    """The longer side of what is seen of a person, pixels."""
    seen = person[_seen(person), :2]
    return float(np.ptp(seen, axis=0).max()) if len(seen) else 0.0


def _seen(person: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.isfinite(person).all(axis=1) & (person[:, 2] > 0)


def _box(pen: ImageDraw.ImageDraw, box: NDArray[np.float64], fine: int) -> None:
    x, y, w, h = ((value + 0.5) * fine - 0.5 if i < 2 else value * fine for i, value in enumerate(box.tolist()))
    pen.rectangle((x, y, x + max(w, 0.0), y + max(h, 0.0)), outline=(*MIDDLE, 140), width=fine)


def _person(pen: ImageDraw.ImageDraw, person: NDArray[np.float64], drawn: Drawn, fine: int, sure: float) -> None:
    seen = _seen(person)
    line = float(np.clip(_size(person) / 70.0, 1.3, 5.0))
    places = (person[:, :2] + 0.5) * fine - 0.5
    opacity = np.clip(person[:, 2] / sure, FAINTEST, 1.0) if sure > 0 else np.ones(len(person))

    def limb(a: int, b: int, colour: Colour, width: float, alpha: float) -> None:
        ends = (*places[a].tolist(), *places[b].tolist())
        pen.line(ends, fill=(*colour, round(255 * alpha)), width=max(1, round(width * fine)))

    def joint(k: int, colour: Colour, radius: float, alpha: float) -> None:
        more = max(1, round(2 * radius * fine)) - 1  # Pillow takes whole pixels: the first and the last
        x, y = (round(value - more / 2) for value in places[k].tolist())
        pen.ellipse((x, y, x + more, y + more), fill=(*colour, round(255 * alpha)))

    limbs = [(a, b) for a, b in drawn.limbs if seen[a] and seen[b]]
    joints = np.flatnonzero(seen).tolist()
    edge = max(0.7, 0.35 * line)
    for a, b in limbs:  # a dark edge under everything sets the skeleton off from any background
        limb(a, b, DARK, line + 2 * edge, 0.75 * min(opacity[a], opacity[b]))
    for k in joints:
        joint(k, DARK, 1.1 * line + edge, 0.75 * opacity[k])
    for a, b in limbs:
        limb(a, b, drawn.colour(a, b), line, min(opacity[a], opacity[b]))
    for k in joints:
        joint(k, drawn.colour(k), 1.1 * line, opacity[k])


def zoomed(
    picture: Picture, box: Sequence[float], padding: float = 1.25, height: int = 320
) -> tuple[Picture, NDArray[np.float64]]:
    """The part of a picture around a box, resized, and what takes pixels there.

    Args:
        picture: ``[H, W, 3]``.
        box: x, y, width, height, pixels.
        padding: how much larger than the box the part is.
        height: of the result, pixels; its width is at most twice that.

    Returns:
        The part (beyond the picture's border it is grey), and ``(scale, x, y)``: a pixel ``p`` of the picture lies at
        ``scale * (p - (x, y))`` there.
    """
    x, y, w, h = (float(v) for v in box)
    wide, high = max(w, 1.0) * padding, max(h, 1.0) * padding
    left, top = x + w / 2 - wide / 2, y + h / 2 - high / 2
    scale = min(height / high, 2 * height / wide)
    size = (max(1, round(wide * scale)), max(1, round(high * scale)))
    start = np.array([left, top]) + 0.5 - 0.5 / scale  # so that the first pixel's centre shows (left, top)
    end = start + np.array(size) / scale
    before = np.maximum(np.ceil(-start), 0).astype(int)
    after = np.maximum(np.ceil(end - picture.shape[1::-1]), 0).astype(int)
    larger = np.full((*(picture.shape[:2] + (before + after)[::-1]), 3), picture.mean(axis=(0, 1)), np.uint8)
    larger[before[1] : before[1] + picture.shape[0], before[0] : before[0] + picture.shape[1]] = picture
    part = Image.fromarray(larger).resize(size, Image.Resampling.LANCZOS, box=(*(start + before), *(end + before)))
    return np.asarray(part).copy(), np.array([scale, left, top])
