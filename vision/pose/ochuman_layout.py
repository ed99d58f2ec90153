"""OCHuman: its COCO-format files, and its own ``ochuman.json``."""

from pathlib import Path
from typing import Any

import numpy as np

from vision.engine.errors import DataError
from vision.pose.coco_layout import annotation_file, read_coco_file, read_json
from vision.pose.keypoints import Skeleton
from vision.pose.records import ImageRecord, Instance, Joints, PoseSet, Problem

VALIDATION_IMAGES = 2500
"""The first images, by id, that have a person with joints and a mask are validation, the others test."""

_VISIBILITY = {0: 0, 1: 2, 2: 2, 3: 1}  # missing; visible; hidden by itself; hidden by others -> COCO's


def read_ochuman(root: Path, split: str, skeleton: Skeleton) -> PoseSet:
    """OCHuman's layout; see :func:`vision.pose.annotations.read_pose_set`."""
    folders = [root / "images", root]
    own = next((path for path in (root / "annotations/ochuman.json", root / "ochuman.json") if path.is_file()), None)
    name = f"ochuman_coco_format_{split}_range_0.00_1.00.json"
    names = [f"annotations/{name}", name]
    if own is None or split.endswith(".json") or any((root / name).is_file() for name in names):
        return read_coco_file(annotation_file(root, split, names), folders, skeleton)
    return read_own(own, folders[0], split, skeleton)


def read_own(path: Path, folder: Path, split: str, skeleton: Skeleton) -> PoseSet:
    """The persons of ``ochuman.json`` that have joints and a mask, as its published COCO files hold them.

    Args:
        path: the file.
        folder: of the images.
        split: ``val``, ``test`` or ``all``.
        skeleton: whose joints are taken, by their names in the file.

    Raises:
        DataError: another split, or a file of another form.
    """
    if split not in ("val", "test", "all"):
        raise DataError(f"{path}: got the split '{split}', expected val, test or all")
    document = read_json(path)
    try:
        names = list(document["keypoint_names"])
        order = [names.index(joint) for joint in skeleton.joints]
        images = sorted(document["images"], key=lambda image: image["image_id"])
        complete = [(i, [p for p in i["annotations"] if p["keypoints"] and p["segms"]]) for i in images]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is not OCHuman's own file for the skeleton '{skeleton.name}' ({error})") from error
    complete = [(image, people) for image, people in complete if people]
    parts = {"val": slice(0, VALIDATION_IMAGES), "test": slice(VALIDATION_IMAGES, None), "all": slice(None)}
    found, number = PoseSet(skeleton, {}, {}, path), 0
    for key, (image, people) in enumerate(complete[parts[split]], start=1):
        try:
            found.images[key] = ImageRecord(key, folder / image["file_name"], int(image["width"]), int(image["height"]))
            found.instances[key] = []
            for person in people:
                number += 1
                _add(found, key, number, person, order, len(names))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}: the record of image {image['image_id']} is broken ({error!r}); mend it"
            ) from error
    if not found.images:
        raise DataError(f"{path}: holds nobody with joints and a mask in the split '{split}'")
    return found


def _add(found: PoseSet, image: int, number: int, row: dict[str, Any], order: list[int], count: int) -> None:
    left, top, right, bottom = (float(value) for value in row["bbox"])
    box = (left, top, right - left, bottom - top)
    keypoints: Joints | None = None
    if len(row["keypoints"]) == 3 * count:
        keypoints = np.array(row["keypoints"], dtype=np.float32).reshape(count, 3)[order]
        keypoints[:, 2] = [_VISIBILITY.get(int(value), 0) for value in keypoints[:, 2]]
    else:
        detail = f"{len(row['keypoints'])} numbers, expected {3 * count}"
        found.problems.append(Problem("wrong joint count", f"person {number} of image {image}", detail, image, number))
    found.instances[image].append(Instance(number, image, box, keypoints, box[2] * box[3]))
