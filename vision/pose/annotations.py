"""Annotated people from the published layouts: COCO, CrowdPose, OCHuman, MPII and AP-10K; and boxes of a detector."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from vision.engine.errors import DataError
from vision.pose import coco_layout, mpii_layout, ochuman_layout
from vision.pose.coco_layout import read_json
from vision.pose.images import read_rgb
from vision.pose.keypoints import Skeleton
from vision.pose.keypoints import skeleton as named_skeleton
from vision.pose.records import Box, Detections, ImageRecord, Instance, Joints, PoseSet, Problem, merged

__all__ = [
    "Box",
    "Detections",
    "ImageRecord",
    "Instance",
    "Joints",
    "Layout",
    "PoseSet",
    "Problem",
    "merged",
    "read_detections",
    "read_pose_set",
    "read_rgb",
]

log = logging.getLogger(__name__)

Layout = Literal["coco", "crowdpose", "ochuman", "mpii", "ap10k"]

READERS: dict[Layout, Callable[[Path, str, Skeleton], PoseSet]] = {
    "coco": coco_layout.read_coco,
    "crowdpose": coco_layout.read_crowdpose,
    "ochuman": ochuman_layout.read_ochuman,
    "mpii": mpii_layout.read_mpii,
    "ap10k": coco_layout.read_ap10k,
}

PERSON = 1
"""The category of people in COCO's detection results."""


def read_pose_set(layout: Layout, root: str | Path, split: str, skeleton: Skeleton | str | None = None) -> PoseSet:
    """The annotations of one split; images are not opened.

    A record that cannot be used (a wrong number of joints, a broken box, an image that is not listed) is left out and
    told in ``problems``; :func:`vision.pose.examine.examine` counts them.

    Args:
        layout: how the files lie:

            - ``coco``: ``annotations/person_keypoints_<split>.json``; images in ``images/<split>``, ``<split>``,
              ``images`` or ``root``. A folder whose name the split begins with does too, so that
              ``train2017_more.json`` finds its images in ``train2017``.
            - ``crowdpose``: ``crowdpose_<split>.json`` in ``annotations``, ``json`` or ``anno``; ``images``.
            - ``ochuman``: ``ochuman_coco_format_<split>_range_0.00_1.00.json``, or ``ochuman.json`` with the splits
              ``val``, ``test`` and ``all``; ``images``.
            - ``mpii``: ``<split>.json`` or ``mpii_<split>.json`` in ``annot`` or ``annotations``, with ``gt_valid.mat``
              or ``mpii_gt_val.mat`` for the heads; or the official ``mpii_human_pose_v1_u12_1.mat``; ``images``.
            - ``ap10k``: ``annotations/ap10k-<split>.json``; ``train``, ``val`` and ``test`` mean the first of the
              three published divisions (``train-split1``); ``data``.
        root: the data set's folder.
        split: its name; or, with every layout of JSON files, the path of an annotation file, from ``root`` on.
        skeleton: of every person, or its name; by default that of the layout.

    Raises:
        DataError: no such folder or split; a file that is no JSON (cut off?), holds no annotations, or none with
            keypoints; another number of joints than the skeleton.
        SkeletonError: as :func:`vision.pose.keypoints.skeleton`.
    """
    if layout not in READERS:
        raise DataError(f"layout: got '{layout}', expected one of {', '.join(READERS)}")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; set the root to that of the data set")
    if not isinstance(skeleton, Skeleton):
        skeleton = named_skeleton(skeleton or layout)
    return READERS[layout](folder, split, skeleton)


def read_detections(path: str | Path, pose_set: PoseSet, unknown: Literal["stop", "skip"] = "stop") -> Detections:
    """A detector's boxes of people, in the form of COCO's detection results (such as the file with AP 56.4).

    A list of ``{"image_id": ..., "category_id": 1, "bbox": [left, top, width, height], "score": ...}``; boxes of other
    categories are left out.

    Args:
        path: the JSON file.
        pose_set: whose images the boxes belong to.
        unknown: what boxes of images that are not in ``pose_set`` do, and boxes that lie outside their image: ``stop``
            with their number, or ``skip`` them, which is logged.

    Returns:
        Boxes and scores by image id, in the file's order; images without a box are missing.

    Raises:
        DataError: not such a file, a box that is not four numbers, of no area or without a score, boxes of unknown
            images or outside their image, or no box at all.
    """
    path = Path(path).expanduser()
    rows = read_json(path)
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a list of boxes, each with image_id, bbox and score")
    found: Detections = {}
    strangers: list[int] = []
    outside: list[str] = []
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or "image_id" not in row:
            raise DataError(f"{path}: box {number} is {str(row)[:60]}; expected image_id, bbox and score")
        if row.get("category_id", PERSON) != PERSON:
            continue
        if row["image_id"] not in pose_set.images:
            strangers.append(row["image_id"])
            continue
        image = pose_set.images[row["image_id"]]
        box, score = _detection(path, number, row)
        if image.width and not overlaps(box, image.width, image.height):
            outside.append(f"{number}, {list(box)} of image {image.id} ({image.width} x {image.height})")
            continue
        found.setdefault(image.id, []).append((box, score))
    _tell_unusable(path, strangers, outside, pose_set, unknown)
    if not found:
        raise DataError(f"{path}: holds no box of category {PERSON} for the images of {pose_set.source.name}")
    return found


def _tell_unusable(
    path: Path, strangers: list[int], outside: list[str], pose_set: PoseSet, unknown: Literal["stop", "skip"]
) -> None:
    told = []
    if strangers:
        told.append(
            f"{len(strangers)} boxes are of {len(set(strangers))} images that {pose_set.source.name} does not list, "
            f"such as {strangers[0]}"
        )
    if outside:
        told.append(f"{len(outside)} boxes lie outside their image, such as box {outside[0]}")
    if told and unknown == "stop":
        raise DataError(
            f"{path}: {'; '.join(told)}; give the boxes of this split, or set data.on_error: skip to leave them out"
        )
    for line in told:
        log.warning("%s: %s: left out", path, line)


def overlaps(box: Box, width: float, height: float) -> bool:
    """Whether any part of a box lies in a picture of this size."""
    left, top, across, down = box
    return left < width and top < height and left + across > 0 and top + down > 0


def _detection(path: Path, number: int, row: dict[str, object]) -> tuple[Box, float]:
    box, score = row.get("bbox"), row.get("score")
    fine = isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) and math.isfinite(v) for v in box)
    if not (fine and isinstance(box, list) and box[2] > 0 and box[3] > 0):
        raise DataError(f"{path}: bbox of box {number} is {box}; expected left, top, width and height above 0")
    if not (isinstance(score, int | float) and math.isfinite(score)):
        raise DataError(f"{path}: score of box {number} is {score}; expected a number")
    return (float(box[0]), float(box[1]), float(box[2]), float(box[3])), float(score)
