"""Crops of single people with their joints: the samples of top-down pose estimation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt
from torch import Tensor
from torch.utils.data import Dataset

from vision.engine.data import Sample
from vision.engine.errors import ConfigError, DataError
from vision.engine.registry import register
from vision.pose.annotations import Box, Detections, PoseSet, read_detections, read_rgb
from vision.pose.augmentation import TopDownAugmentation, half_body, mirrored, moved, recoloured
from vision.pose.crops import PADDING, Size, Vector, centre_and_sides, crop_matrix, mapped, region, with_aspect
from vision.pose.images import RGB, Orientation
from vision.pose.keypoints import Skeleton
from vision.pose.records import ImageRecord, Joints
from vision.pose.splits import PoseData, Positive
from vision.pose.warping import warped

MEAN = (0.485, 0.456, 0.406)
"""ImageNet's mean of red, green and blue in [0, 1]."""

STD = (0.229, 0.224, 0.225)
"""ImageNet's deviation of red, green and blue in [0, 1]."""

TRUTH = "truth"

SMALLEST_SIDE = 32


@dataclass(frozen=True)
class Subject:
    """One box to look at.

    Attributes:
        id: unique within its data set.
        image: it is in.
        box: left, top, width and height in pixels of the image.
        score: the detector's, or 1 for an annotated box.
        keypoints: shape ``[K, 3]``, or None for a detector's box.
    """

    id: str
    image: ImageRecord
    box: Box
    score: float
    keypoints: Joints | None


def as_input(crop: RGB) -> Tensor:
    """A crop as a network takes it: bytes ``[H, W, 3]`` to float32 ``[3, H, W]``, less :data:`MEAN`, by :data:`STD`."""
    image = torch.from_numpy(crop).permute(2, 0, 1).float()  # laid out as the bytes are, which is the fastest
    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (MEAN, STD))
    return image.sub_(mean).div_(std).contiguous()


class TopDownCrops(Dataset[Sample]):
    """Crops of single people.

    A sample is a dict of ``id`` (str), ``image`` (float32 ``[3, H, W]``, normalised), ``keypoints`` (float32
    ``[K, 2]``, pixels of the crop, pixel centres at whole numbers), ``visible`` (float32 ``[K]``: 0 not labelled,
    1 labelled and hidden, 2 visible), ``center`` and ``scale`` (float32 ``[2]``: centre and side lengths of the region
    shown, pixels of the image), ``image_id`` (int), ``box`` (float32 ``[4]``: left, top, width, height as given),
    ``box_score`` (float) and ``file`` (str). With a detector's boxes ``keypoints`` and ``visible`` are 0.

    All randomness comes from one draw of torch's global generator at the start of each sample.

    Args:
        subjects: what to look at.
        ground_truth: what predictions are judged by.
        size: of a crop, width and height.
        padding: what a box's sides are multiplied by.
        augmentation: None shows every box as it is.
        orientation: how images are read (:func:`~vision.pose.images.read_rgb`).
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        ground_truth: PoseSet,
        size: Size,
        padding: float = PADDING,
        augmentation: TopDownAugmentation | None = None,
        orientation: Orientation = "stored",
    ) -> None:
        self.subjects, self.ground_truth = subjects, ground_truth
        self.size, self.padding, self.orientation = size, padding, orientation
        self.augmentation = augmentation
        self.flip_index = self.skeleton.flip_index

    @property
    def skeleton(self) -> Skeleton:
        """The joints of every sample."""
        return self.ground_truth.skeleton

    def __len__(self) -> int:
        return len(self.subjects)

    def __getitem__(self, index: int) -> Sample:
        subject = self.subjects[index]
        image = read_rgb(subject.image.path, self.orientation)
        joints = subject.keypoints
        if joints is None:
            joints = np.zeros((self.skeleton.count, 3), dtype=np.float32)
        view = (
            self._plain(image, subject, joints) if self.augmentation is None else self._varied(image, subject, joints)
        )
        return {
            **view.sample(subject.id, subject.image.id, subject.box, subject.score),
            "keypoints": torch.from_numpy(view.joints[:, :2].copy()),
            "visible": torch.from_numpy(view.joints[:, 2].copy()),
            "file": str(subject.image.path),
        }

    def _plain(self, image: RGB, subject: Subject, joints: Joints) -> "View":
        return view_of(image, *region(subject.box, self.size, self.padding), self.size, joints)

    def _varied(self, image: RGB, subject: Subject, joints: Joints) -> "View":
        assert self.augmentation is not None  # else the crop is plain
        rng = np.random.default_rng(int(torch.randint(2**63 - 1, (1,)).item()))
        whole = centre_and_sides(subject.box, self.padding)
        half = half_body(rng, joints, self.skeleton, self.augmentation)
        centre, sides, rotation = moved(rng, *(half or whole), self.augmentation)
        view = view_of(image, centre, with_aspect(sides, self.size), self.size, joints, rotation)
        if rng.random() < self.augmentation.flip:
            view.crop, view.joints = mirrored(view.crop, view.joints, self.flip_index)
        view.crop = recoloured(rng, view.crop, self.augmentation)
        return view


@dataclass
class View:
    """A crop with its joints and the region it shows.

    Attributes:
        crop: uint8, shape ``[H, W, 3]``.
        joints: shape ``[K, 3]``: x, y in pixels of the crop, visibility; all 0 where not labelled.
        centre: of the region, pixels of the image.
        sides: of the region, pixels of the image.
    """

    crop: RGB
    joints: Joints
    centre: Vector
    sides: Vector

    def sample(self, name: str, image_id: int, box: Sequence[float], score: float) -> Sample:
        """What a network is given, and what it takes to bring its answer back."""
        return {
            "id": name,
            "image": as_input(self.crop),
            "center": torch.from_numpy(self.centre.astype(np.float32)),
            "scale": torch.from_numpy(self.sides.astype(np.float32)),
            "image_id": image_id,
            "box": torch.tensor(box, dtype=torch.float32),
            "box_score": float(score),
        }


def view_of(image: RGB, centre: Vector, sides: Vector, size: Size, joints: Joints, rotation: float = 0.0) -> View:
    """The crop of a region.

    Args:
        image: uint8, shape ``[h, w, 3]``.
        centre: of the region, pixels of the image.
        sides: of the region, pixels of the image.
        size: of the crop.
        joints: shape ``[K, 3]``, pixels of the image.
        rotation: degrees.
    """
    matrix = crop_matrix(centre, sides, size, rotation)
    return View(warped(image, matrix, size), _placed(joints, matrix), centre, sides)


def _placed(joints: Joints, matrix: np.ndarray) -> Joints:
    """Joints in pixels of the crop; what is not labelled stays at 0."""
    placed = joints.copy()
    labelled = joints[:, 2] > 0
    placed[labelled, :2] = mapped(matrix, joints[labelled, :2])
    placed[~labelled] = 0
    return placed


def annotated(pose_set: PoseSet) -> list[Subject]:
    """Everyone with a labelled joint, by the annotated box."""
    return [
        Subject(f"{p.image_id}/{p.id}", pose_set.images[p.image_id], p.box, 1.0, p.keypoints) for p in pose_set.people
    ]


@register("coco_pose")
@dataclass(kw_only=True, eq=False)
class TopDownData(PoseData):
    """Crops of single people from COCO, CrowdPose, OCHuman, MPII, AP-10K or data of your own in one of their layouts.

    Args:
        boxes: of the test split: ``truth``, or a file of detection results, from ``root`` on. Choosing uses the true
            boxes always.
        detected_only: judge on those test images alone that the detector's file has boxes for. Otherwise an image
            without boxes counts as people who were missed.
        input_size: width and height of a crop, pixels.
        padding: what the sides of a box are multiplied by.
        augmentation: of training crops; leave it out for the field's usual recipe.
        augmented: false trains on the crops as they are.
        train_persons: train on the first so many people alone, as if nobody else were in their images.

    Raises:
        ConfigError: a crop that is too small, or an option that nothing uses.
    """

    boxes: str = TRUTH
    detected_only: bool = False
    input_size: tuple[int, int] = (192, 256)
    padding: Annotated[float, Gt(0)] = PADDING
    augmentation: TopDownAugmentation = field(default_factory=TopDownAugmentation)
    augmented: bool = True
    train_persons: Positive | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.input_size) < SMALLEST_SIDE:
            raise ConfigError(
                f"data.input_size: {list(self.input_size)}; expected at least {SMALLEST_SIDE} pixels each"
            )
        if self.detected_only and self.boxes == TRUTH:
            raise ConfigError("data.detected_only needs a detector's file; give it as data.boxes")
        if self.overfit and self.boxes != TRUTH:
            raise ConfigError("data.overfit judges on the training people's own boxes; set data.boxes: truth")

    def train(self) -> Dataset[Sample]:
        """Crops of the people to train on, augmented."""
        kept = self.ground_truth("train")
        augmentation = self.augmentation if self.augmented else None
        return self.crops(annotated(kept), kept, augmentation)

    def val(self) -> Dataset[Sample]:
        """Crops of the people to choose on, by their true boxes."""
        kept = self.ground_truth("val")
        return self.crops(annotated(kept), kept)

    def test(self) -> Dataset[Sample] | None:
        """Crops of the people to judge on, or of what a detector found."""
        if self.test_split is None and not self.overfit:
            return None
        kept = self.ground_truth("test")
        return self.crops(annotated(kept) if self.boxes == TRUTH else self._detected(kept), kept)

    def crops(
        self, subjects: Sequence[Subject], ground_truth: PoseSet, augmentation: TopDownAugmentation | None = None
    ) -> TopDownCrops:
        """Crops as this block makes them."""
        return TopDownCrops(subjects, ground_truth, self.input_size, self.padding, augmentation, self.orientation)

    def limited(self, pose_set: PoseSet) -> PoseSet:
        pose_set = super().limited(pose_set)
        if self.train_persons is None:
            return pose_set
        chosen = pose_set.people[: self.train_persons]
        kept = pose_set.only({person.image_id for person in chosen})
        kept.instances = {key: [p for p in chosen if p.image_id == key] for key in kept.images}
        return kept

    def _for_judging(self) -> PoseSet:
        kept = super()._for_judging()
        return kept.only(set(self._boxes(kept))) if self.detected_only else kept

    def _boxes(self, pose_set: PoseSet) -> Detections:
        """The detector's boxes for some images of the test split."""
        path = Path(self.root).expanduser() / self.boxes
        found = read_detections(path, self.whole_test(), self.on_error)
        kept = {key: boxes for key, boxes in found.items() if key in pose_set.images}
        if not kept:
            raise DataError(f"{path}: holds no box for the {len(pose_set.images)} images to judge on")
        return kept

    def _detected(self, pose_set: PoseSet) -> list[Subject]:
        return [
            Subject(f"{key}/{number}", pose_set.images[key], box, score, None)
            for key, found in self._boxes(pose_set).items()
            for number, (box, score) in enumerate(found)
        ]
