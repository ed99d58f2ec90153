"""Whole images with everyone in them: the samples of single-stage pose estimation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, MultipleOf
from numpy.typing import NDArray
from pycocotools import mask as rle
from torch import Tensor
from torch.utils.data import Dataset

from vision.engine.data import Sample
from vision.engine.errors import ConfigError
from vision.engine.registry import register
from vision.pose.annotations import PoseSet, read_rgb
from vision.pose.crops import Matrix, mapped
from vision.pose.data import as_input
from vision.pose.enlarged import enlarged, short_side
from vision.pose.finding import STRIDE
from vision.pose.images import RGB, Orientation
from vision.pose.keypoints import Skeleton
from vision.pose.records import Instance
from vision.pose.splits import PoseData
from vision.pose.targets import SMALLEST_AREA, box_radius, centres_of, chosen_people
from vision.pose.warping import warped
from vision.pose.whole_images import Factor, SingleStageAugmentation, Square, random_square

LEAST_POLYGON = 6
"""Numbers that a polygon of an annotation has at least: three corners."""


def ignored(people: Sequence[Instance], width: int, height: int) -> NDArray[np.bool_]:
    """Where an image shows people that nobody labelled: crowds, and people without any labelled joint.

    Args:
        people: all that are annotated; segmentations are polygons or RLE, as COCO writes them.
        width: of the image, pixels.
        height: of the image, pixels.

    Returns:
        Shape ``[height, width]``. Deviation from the released code, which looks at COCO's segmentations alone: where
        there is none, the box counts.
    """
    found = np.zeros((height, width), dtype=bool)
    for person in people:
        if not person.crowd and person.labelled:
            continue
        outline = person.extra.get("segmentation")
        if not outline:
            left, top, across, down = person.box
            found[max(int(top), 0) : max(int(top + down), 0), max(int(left), 0) : max(int(left + across), 0)] = True
        elif isinstance(outline, dict):
            whole = rle.frPyObjects(outline, height, width) if isinstance(outline["counts"], list) else outline
            found |= rle.decode(whole).astype(bool)
        else:
            polygons = [polygon for polygon in outline if len(polygon) >= LEAST_POLYGON]
            for each in rle.frPyObjects(polygons, height, width) if polygons else ():
                found |= rle.decode(each).astype(bool)
    return found


def corners_of(person: Instance) -> NDArray[np.float64]:
    """The corners of a person's box, row by row: ``[4, 2]``."""
    left, top, width, height = person.box
    right, bottom = left + width, top + height
    return np.array([[left, top], [right, top], [left, bottom], [right, bottom]])


class TrainingSquares(Dataset[Sample]):
    """Squares of images with everyone in them, augmented.

    A sample is a dict of ``id`` (str), ``image`` (float32 ``[3, S, S]``, normalised), ``mask`` (float32 ``[1, s, s]``,
    ``s = S / 4``: 0 where people are not labelled and beyond the image) and, in cells of 4 pixels, the ``A`` labelled
    people: ``joints`` (float32 ``[A, K, 2]``), ``labelled`` (bool ``[A, K]``), ``radius`` (int64 ``[A]``), ``centres``
    (float32 ``[A, 2]``), ``centred`` (bool ``[A]``: large enough to have a centre), and those of them that are trained
    on one by one: ``chosen`` (int64 ``[P]``) with ``coords`` (int64 ``[P, 2]``: row and column). The task makes
    heatmaps of that, on its device.

    All randomness comes from one draw of torch's global generator at the start of each sample.

    Args:
        pose_set: the images, each with someone.
        size: S, pixels.
        augmentation: how squares vary.
        smallest_area: of a box, pixels squared of the square, below which a person has no centre.
        orientation: how images are read.
    """

    def __init__(
        self,
        pose_set: PoseSet,
        size: int,
        augmentation: SingleStageAugmentation,
        smallest_area: float = SMALLEST_AREA,
        orientation: Orientation = "stored",
    ) -> None:
        self.ground_truth, self.size, self.augmentation = pose_set, size, augmentation
        self.smallest_area, self.orientation = smallest_area, orientation
        self.image_ids = list(pose_set.images)
        self.flip_index = pose_set.skeleton.flip_index

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        record = self.ground_truth.images[self.image_ids[index]]
        rng = np.random.default_rng(int(torch.randint(2**63 - 1, (1,)).item()))
        image = read_rgb(record.path, self.orientation)
        height, width = image.shape[:2]
        square = random_square(rng, width, height, self.augmentation)
        everyone = self.ground_truth.instances[record.id]
        crop = warped(image, square.matrix(self.size), (self.size, self.size))
        if square.flip:
            crop = crop[:, ::-1].copy()
        return {
            "id": str(record.id),
            "image": as_input(crop),
            "mask": self._mask(everyone, (width, height), square),
            **self._people([p for p in everyone if not p.crowd and p.labelled], square, rng),
        }

    def _mask(self, everyone: Sequence[Instance], size: tuple[int, int], square: Square) -> Tensor:
        side = self.size // STRIDE
        shown = np.where(ignored(everyone, *size), 0, 255).astype(np.uint8)
        small = warped(shown[..., None], square.matrix(side), (side, side))[..., 0] > 127
        return torch.from_numpy((small[:, ::-1] if square.flip else small).astype(np.float32).copy())[None]

    def _people(self, people: Sequence[Instance], square: Square, rng: np.random.Generator) -> dict[str, Tensor]:
        side, matrix = self.size // STRIDE, square.matrix(self.size // STRIDE)
        known = np.array([p.keypoints for p in people], dtype=np.float64).reshape(len(people), -1, 3)
        joints, labelled = mapped(matrix, known[..., :2]), known[..., 2] > 0
        corners = mapped(matrix, np.array([corners_of(p) for p in people]).reshape(len(people), 4, 2))
        if square.flip:
            joints, labelled, corners = (
                joints[:, self.flip_index],
                labelled[:, self.flip_index],
                corners[:, [1, 0, 3, 2]],
            )
            joints[..., 0], corners[..., 0] = side - 1 - joints[..., 0], side - 1 - corners[..., 0]
        areas = np.array([p.box[2] * p.box[3] for p in people]) * (self.size / square.side) ** 2
        centred = (areas >= self.smallest_area) & labelled.any(1)
        centres = centres_of(joints, labelled)
        chosen, coords = chosen_people(centres, centred, areas, side, rng)
        return {
            "joints": torch.from_numpy(joints.astype(np.float32)),
            "labelled": torch.from_numpy(labelled),
            "radius": torch.tensor([box_radius(each, side) for each in corners], dtype=torch.int64),
            "centres": torch.from_numpy(centres.astype(np.float32)),
            "centred": torch.from_numpy(centred),
            "chosen": torch.tensor(chosen, dtype=torch.int64),
            "coords": torch.tensor(coords, dtype=torch.int64).view(-1, 2),
        }


def view_of(image: RGB, short: int) -> tuple[Tensor, Matrix]:
    """A whole image as the network takes it, ``[3, h, w]``, and the map from its pixels to the input's."""
    plan = enlarged(image.shape[1], image.shape[0], short)
    return as_input(warped(image, plan.matrix, plan.size)), plan.matrix


def whole_sample(name: str, image_id: int, image: RGB, short: int, scales: Sequence[float] = ()) -> Sample:
    """A whole image at test time, without a true answer.

    Args:
        name: the sample's id.
        image_id: of the image in results.
        image: uint8, shape ``[H, W, 3]``.
        short: the shorter side of the input, pixels.
        scales: other scales to look at it in as well.
    """
    views = [view_of(image, short), *(view_of(image, short_side(short, scale)) for scale in scales)]
    (first, matrix), *others = [(view, torch.from_numpy(m)) for view, m in views]
    more = [{"image": view, "matrix": m} for view, m in others]
    return {"id": name, "image_id": image_id, "image": first, "matrix": matrix, "more": more}


class WholeImages(Dataset[Sample]):
    """Whole images, for evaluation.

    A sample is a dict of ``id`` (str), ``image_id`` (int), ``image`` (float32 ``[3, h, w]``, normalised), ``matrix``
    (float64 ``[2, 3]``: from pixels of the image to those of the input), ``more`` (the same at other scales),
    ``keypoints`` (float32 ``[P, K, 3]``: the labelled people, pixels of the image) and ``file`` (str). Sizes differ
    from image to image.

    Args:
        pose_set: the images, also those without anyone.
        short: the shorter side of the input, pixels.
        scales: other scales to look at them in as well.
        orientation: how images are read.
    """

    def __init__(
        self, pose_set: PoseSet, short: int, scales: Sequence[float] = (), orientation: Orientation = "stored"
    ) -> None:
        self.ground_truth, self.short, self.scales, self.orientation = pose_set, short, scales, orientation
        self.image_ids = list(pose_set.images)

    @property
    def skeleton(self) -> Skeleton:
        """The joints of every person."""
        return self.ground_truth.skeleton

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        record = self.ground_truth.images[self.image_ids[index]]
        image = read_rgb(record.path, self.orientation)
        people = [p for p in self.ground_truth.instances[record.id] if not p.crowd and p.labelled]
        joints = np.array([p.keypoints for p in people], dtype=np.float32).reshape(-1, self.skeleton.count, 3)
        return {
            **whole_sample(str(record.id), record.id, image, self.short, self.scales),
            "keypoints": torch.from_numpy(joints),
            "file": str(record.path),
        }


@register("pose_images")
@dataclass(kw_only=True, eq=False)
class SingleStageData(PoseData):
    """Whole images with everyone in them, from COCO, CrowdPose, OCHuman, AP-10K or data of your own in their layouts.

    Args:
        size: side of a training square, pixels.
        test_size: the shorter side of an image at test time, pixels; by default ``size``.
        test_scales: other scales at which an image is looked at as well, relative to ``test_size``; the poses of all
            are put together, and of those that are alike the surest is kept.
        augmentation: of training squares; leave it out for the released recipe.
        smallest_area: of a person's box, in pixels squared of the training square, below which it has no centre; by
            default 1024, and 0 for CrowdPose.

    Raises:
        ConfigError: MPII, which is judged by people's true boxes.

    Source: sizes, augmentation and filters of the released code; the way scales are put together is our choice.
    """

    size: Annotated[int, Ge(64), MultipleOf(32)] = 512
    test_size: Annotated[int, Ge(64), MultipleOf(32)] | None = None
    test_scales: tuple[Factor, ...] = ()
    augmentation: SingleStageAugmentation = field(default_factory=SingleStageAugmentation)
    smallest_area: Annotated[float, Ge(0)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layout == "mpii":
            raise ConfigError(
                "data.layout: 'mpii' is judged by PCKh in people's true boxes, which single-stage networks are not "
                "given; use coco, crowdpose, ochuman or ap10k, or a top-down recipe"
            )

    def train(self) -> Dataset[Sample]:
        """Squares of the images to train on, augmented."""
        least = self.smallest_area
        if least is None:
            least = 0.0 if self.layout == "crowdpose" else SMALLEST_AREA
        return TrainingSquares(self.ground_truth("train"), self.size, self.augmentation, least, self.orientation)

    def whole_train(self) -> Dataset[Sample]:
        """The images to train on, whole, as they are looked at when predicting."""
        return self._whole(self.ground_truth("train"))

    def val(self) -> Dataset[Sample]:
        """The images to choose on, whole."""
        return self._whole(self.ground_truth("val"))

    def test(self) -> Dataset[Sample] | None:
        """The images to judge on, whole."""
        if self.test_split is None and not self.overfit:
            return None
        return self._whole(self.ground_truth("test"))

    @property
    def short(self) -> int:
        """The shorter side of an image at test time, pixels."""
        return self.test_size or self.size

    def sample_of(self, image: RGB, name: str, image_id: int) -> Sample:
        """A user's image as this data's own images are looked at."""
        return whole_sample(name, image_id, image, self.short, self.test_scales)

    def _whole(self, pose_set: PoseSet) -> WholeImages:
        return WholeImages(pose_set, self.short, self.test_scales, self.orientation)


def rows_of(batch: dict[str, Any], key: str) -> list[Tensor]:
    """A tensor of each sample, whether the batch has them stacked or as a list."""
    return list(batch[key])
