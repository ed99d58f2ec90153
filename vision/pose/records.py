"""Annotated people: what every layout is read into, and what the evaluators are given."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision.engine.errors import DataError
from vision.pose.keypoints import Skeleton

Box = tuple[float, float, float, float]
"""Left, top, width and height, in pixels of the image."""

Joints = NDArray[np.float32]
"""Shape ``[K, 3]``: x, y in pixels and visibility (0 not labelled, 1 labelled and hidden, 2 visible)."""

Detections = dict[int, list[tuple[Box, float]]]
"""By image id, boxes with their scores."""


@dataclass
class Instance:
    """One annotated person (or animal).

    Attributes:
        id: unique within its set.
        image_id: of the image it is in.
        box: left, top, width, height, in pixels.
        keypoints: shape ``[K, 3]``: x, y in pixels, visibility 0 to 2; None where the record has none that fit.
        area: in pixels squared, for OKS.
        crowd: a region of many people rather than one person.
        extra: what only some layouts have: ``segmentation`` (polygons or RLE, as COCO writes them), ``head`` (float,
            the head's size in pixels that PCKh divides by), ``category`` (int, the id of the file).
    """

    id: int
    image_id: int
    box: Box
    keypoints: Joints | None
    area: float
    crowd: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def labelled(self) -> int:
        """How many joints are labelled."""
        return 0 if self.keypoints is None else int((self.keypoints[:, 2] > 0).sum())


@dataclass
class ImageRecord:
    """One image of an annotation file.

    Attributes:
        id: unique within its set.
        path: the file.
        width: as annotated, pixels; 0 where the layout does not tell.
        height: likewise.
        extra: what only some layouts have: ``crowdIndex`` of CrowdPose.
    """

    id: int
    path: Path
    width: int
    height: int
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """Something wrong with one record, found while reading or examining.

    Attributes:
        kind: what is wrong, one of :data:`vision.pose.examine.KINDS`.
        where: the record, such as ``person 12 of image 3``.
        detail: what was found.
        image_id: the image concerned, where it is known.
        instance_id: the person concerned, where it is one.
    """

    kind: str
    where: str
    detail: str = ""
    image_id: int | None = None
    instance_id: int | None = None


@dataclass
class PoseSet:
    """The annotated images of one split.

    Attributes:
        skeleton: of every person.
        images: by id.
        instances: by image id, also of images without anyone (an empty list).
        source: the annotation file, or the first of several.
        problems: what reading found wrong and left out; :func:`vision.pose.examine.examine` reports it.
    """

    skeleton: Skeleton
    images: dict[int, ImageRecord]
    instances: dict[int, list[Instance]]
    source: Path
    problems: list[Problem] = field(default_factory=list)

    @property
    def people(self) -> list[Instance]:
        """Everyone who is no crowd and has a labelled joint, in order of images and records."""
        return [i for each in self.instances.values() for i in each if not i.crowd and i.labelled]

    def only(self, image_ids: set[int]) -> "PoseSet":
        """The part with these images."""
        return PoseSet(
            self.skeleton,
            {key: image for key, image in self.images.items() if key in image_ids},
            {key: people for key, people in self.instances.items() if key in image_ids},
            self.source,
            [p for p in self.problems if p.image_id in image_ids or p.image_id not in self.images],
        )

    def to_coco(self) -> dict[str, Any]:
        """A COCO ground-truth dictionary with one category, 1, for pycocotools and its like."""
        joints = self.skeleton
        category = {
            "id": 1,
            "name": joints.name,
            "supercategory": joints.name,
            "keypoints": list(joints.joints),
            "skeleton": [[a + 1, b + 1] for a, b in joints.limb_indices],
        }
        images = [
            {"id": i.id, "file_name": i.path.name, "width": i.width, "height": i.height, **i.extra}
            for i in self.images.values()
        ]
        annotations = [self._row(person) for people in self.instances.values() for person in people]
        return {"info": {}, "images": images, "annotations": annotations, "categories": [category]}

    def _row(self, person: Instance) -> dict[str, Any]:
        keypoints = np.zeros((self.skeleton.count, 3)) if person.keypoints is None else person.keypoints
        return {
            "id": person.id,
            "image_id": person.image_id,
            "category_id": 1,
            "bbox": list(person.box),
            "area": person.area,
            "iscrowd": int(person.crowd),
            "keypoints": keypoints.astype(np.float64).ravel().tolist(),
            "num_keypoints": person.labelled,
            "segmentation": person.extra.get("segmentation", []),
        }


def merged(parts: list[PoseSet]) -> PoseSet:
    """Several sets as one, for example a split and further images for training.

    The first set keeps its ids. Where an id of a later one is taken, all ids of that set are counted on from the
    highest so far, so that they stay distinct.

    Raises:
        DataError: nothing to merge, different joints, or an image file that is in two sets.
    """
    if not parts:
        raise DataError("nothing to merge: give at least one set of annotations")
    whole = parts[0].only(set(parts[0].images))
    whole.problems = list(parts[0].problems)
    for part in parts[1:]:
        if part.skeleton.joints != whole.skeleton.joints:
            raise DataError(
                f"{part.source}: its joints differ from those of {whole.source}; merge sets of one skeleton"
            )
        files = {image.path for image in whole.images.values()}
        twice = [image.path for image in part.images.values() if image.path in files]
        if twice:
            raise DataError(
                f"{part.source}: {len(twice)} of its images are also in {whole.source}, such as {twice[0]}; "
                "leave them out of one of the two"
            )
        _append(whole, part)
    return whole


def _append(whole: PoseSet, part: PoseSet) -> None:
    """Adds ``part`` to ``whole``, with other ids where they are taken."""

    def shift(taken: set[int], new: set[int]) -> int:
        return max(taken) + 1 - min(new) if taken & new else 0

    people = {p.id for each in whole.instances.values() for p in each}
    step = shift(set(whole.images), set(part.images))
    person_step = shift(people, {p.id for each in part.instances.values() for p in each})
    for key, image in part.images.items():
        whole.images[key + step] = ImageRecord(key + step, image.path, image.width, image.height, image.extra)
        whole.instances[key + step] = [
            Instance(p.id + person_step, key + step, p.box, p.keypoints, p.area, p.crowd, p.extra)
            for p in part.instances.get(key, [])
        ]
    whole.problems += [
        Problem(
            p.kind, p.where, p.detail, None if p.image_id is None else p.image_id + step,
            None if p.instance_id is None else p.instance_id + person_step,
        )
        for p in part.problems
    ]  # fmt: skip
