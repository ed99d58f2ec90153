"""Poses: what every pose network says about an image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, overload

import numpy as np
from numpy.typing import NDArray

from vision.engine.prediction import Picture, Prediction
from vision.pose.keypoints import Skeleton
from vision.report.figures import side_by_side
from vision.report.poses import Drawn, draw_poses, zoomed

SMALLEST = 320
"""Pictures whose longer side is shorter, pixels, are enlarged before something is drawn on them."""

DRAWN = 0.1
"""People whose score is below this share of the highest one of the picture are not drawn."""


Floats = NDArray[np.floating[Any]]


def drawn_as(skeleton: Skeleton) -> Drawn:
    """The lines and sides of a skeleton; the first joint of a flip pair is the left one."""
    sides = [skeleton.indices(side) for side in zip(*skeleton.flip_pairs, strict=True)] or [[], []]
    return Drawn(skeleton.limb_indices, frozenset(sides[0]), frozenset(sides[1]))


@dataclass
class Poses(Prediction):
    """The people found in an image, or in one box of it; coordinates in pixels of the image.

    Attributes:
        image_id: the image's.
        keypoints: x, y and score of each joint, float32, ``[P, K, 3]``.
        scores: of each person, float32, ``[P]``.
        boxes: left, top, width and height of each person, float32, ``[P, 4]``; ``[0, 4]`` where there are none.
        box_scores: of each box, float32, ``[P]``; ``[0]`` where there are none.
        skeleton: whose joints they are.
    """

    in_coco: ClassVar[bool] = True

    image_id: int
    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    box_scores: NDArray[np.float32]
    skeleton: Skeleton = field(repr=False)

    @classmethod
    def joined(cls, name: str, image_id: int, parts: "Sequence[Poses]", skeleton: Skeleton) -> "Poses":
        """The people of several predictions for one image as one; of none, nobody."""
        nobody = cls.nobody(name, image_id, skeleton)
        rows = {
            key: np.concatenate([getattr(part, key) for part in (nobody, *parts)])
            for key in ("keypoints", "scores", "boxes", "box_scores")
        }
        return cls(name, image_id, skeleton=skeleton, **rows)

    @classmethod
    def nobody(cls, name: str, image_id: int, skeleton: Skeleton) -> "Poses":
        """An image without people."""
        empty = np.zeros
        return cls(
            name, image_id, empty((0, skeleton.count, 3), np.float32), empty(0, np.float32),
            empty((0, 4), np.float32), empty(0, np.float32), skeleton,
        )  # fmt: skip

    def draw(self, image: Picture, truth: Any = None) -> Picture:
        """The skeletons of people on the image, left side blue, right side orange, what is unsure fainter.

        People who are far less sure than the surest (a tenth) are left out here; the numbers have them.

        Args:
            image: the whole image, ``[H, W, 3]``.
            truth: the true joints of the same people, ``[P, K, 3]`` with visibility last. With it, the part around
                the people is shown enlarged twice: what was found, and what is true.
        """
        kept = self.scores >= DRAWN * self.scores.max(initial=0.0)
        keypoints = self.keypoints[kept]
        if truth is None:
            longer = max(image.shape[:2])
            scale = max(1, -(-SMALLEST // longer))
            enlarged = image.repeat(scale, axis=0).repeat(scale, axis=1)
            boxes = _larger(self.boxes[kept], scale) if len(self.boxes) else None
            return draw_poses(enlarged, _moved(keypoints, scale), drawn_as(self.skeleton), boxes)
        known = np.array(truth, dtype=np.float64).reshape(-1, self.skeleton.count, 3)
        part, place = zoomed(image, self._around(keypoints, known, image))
        known[..., 2] /= 2  # a hidden joint is drawn fainter than a visible one
        shown = [_moved(joints, place[0], place[1:]) for joints in (keypoints, known)]
        pictures = [
            draw_poses(part, shown[0], drawn_as(self.skeleton)),
            draw_poses(part, shown[1], drawn_as(self.skeleton), sure=1.0),
        ]
        return side_by_side(pictures, ["found", "true"])

    def _around(self, found: Floats, truth: Floats, image: Picture) -> Sequence[float]:
        """The box that is shown beside the truth: that of all boxes, else of all joints, else the whole image."""
        if len(self.boxes):
            corner, end = self.boxes[:, :2].min(0), (self.boxes[:, :2] + self.boxes[:, 2:]).max(0)
            return [*corner.tolist(), *(end - corner).tolist()]
        seen = np.concatenate([joints[joints[..., 2] > 0][:, :2] for joints in (found, truth)])
        if len(seen) > 1:
            return [*seen.min(0).tolist(), *np.ptp(seen, axis=0).tolist()]
        return [0.0, 0.0, float(image.shape[1]), float(image.shape[0])]

    def to_coco(self) -> list[dict[str, Any]]:
        """Rows of a COCO results file, one a person.

        Without boxes: COCO's evaluation would take a result's size from its box, where a published one has none.
        """
        return [
            {
                "image_id": self.image_id,
                "category_id": 1,
                "keypoints": [round(float(v), 3) for v in joints.ravel()],
                "score": round(float(score), 6),
            }
            for joints, score in zip(self.keypoints, self.scores, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        people = [{key: row[key] for key in ("keypoints", "score")} for row in self.to_coco()]
        for position, (box, score) in enumerate(zip(self.boxes, self.box_scores, strict=True)):
            people[position]["box"] = [round(float(v), 3) for v in box]
            people[position]["box_score"] = round(float(score), 6)
        return {"id": self.id, "image_id": self.image_id, "people": people}


def _moved(keypoints: NDArray[Any], scale: float, corner: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Joints in a picture that shows the part from ``corner`` (a pixel's centre) on, ``scale`` times as large."""
    moved = np.array(keypoints, dtype=np.float64)
    if corner is None:  # pixels repeated: the first pixel's centre moves to the middle of its copies
        moved[..., :2] = (moved[..., :2] + 0.5) * scale - 0.5
    else:
        moved[..., :2] = (moved[..., :2] - corner) * scale
    return moved


def _larger(boxes: NDArray[np.float32] | None, scale: int) -> NDArray[np.float64] | None:
    if boxes is None:
        return None
    return np.concatenate([(boxes[:, :2] + 0.5) * scale - 0.5, boxes[:, 2:] * scale], axis=1)


class OnDemand(Sequence[Picture]):
    """Pictures that are read when they are looked at, as only a few of a batch are ever drawn.

    Args:
        read: gives the picture at a position.
        size: how many there are.
    """

    def __init__(self, read: Callable[[int], Picture], size: int) -> None:
        self._read, self._size = read, size

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> list[Picture]: ...
    def __getitem__(self, index: int | slice) -> Picture | list[Picture]:
        if isinstance(index, slice):
            return [self._read(i) for i in range(*index.indices(self._size))]
        if not -self._size <= index < self._size:
            raise IndexError(index)
        return self._read(index % self._size)
