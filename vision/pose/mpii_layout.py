"""MPII Human Pose: the JSON files that the field trains on, and the official MATLAB file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from vision.engine.errors import DataError
from vision.pose.coco_layout import annotation_file, read_json
from vision.pose.keypoints import Skeleton
from vision.pose.records import Box, ImageRecord, Instance, Joints, PoseSet, Problem

PERSON_HEIGHT = 200.0
"""Pixels of a person of scale 1."""

LOWERED = 15.0
"""Pixels by which the centre of a person of scale 1 is moved down, so that no foot is cut off."""

HEAD = 0.6
"""Share of the head box's diagonal that PCKh calls the head's size."""

OFFICIAL = "mpii_human_pose_v1_u12_1.mat"
FIRST_PIXEL = 1.0  # MATLAB counts from 1


def read_mpii(root: Path, split: str, skeleton: Skeleton) -> PoseSet:
    """MPII's layout; see :func:`vision.pose.annotations.read_pose_set`.

    A person's box is a square of side 200 s around the annotated centre moved down by 15 s, for the annotated scale s.
    Coordinates are counted from 0. ``extra["head"]`` is 0.6 of the head box's diagonal, where the head is known.
    """
    folders = ("annot/", "annotations/", "")
    official = next((root / f"{f}{OFFICIAL}" for f in folders if (root / f"{f}{OFFICIAL}").is_file()), None)
    same = {"val": "valid", "valid": "val"}.get(split)
    names = [f"{folder}{prefix}{name}.json" for name in (split, same) if name for folder in folders
             for prefix in ("", "mpii_")]  # fmt: skip
    if official is not None and not any((root / name).is_file() for name in [*names, split]):
        return _read_official(official, root / "images", split, skeleton)
    path = annotation_file(root, split, names)
    return _read_json(path, root / "images", skeleton)


def _read_json(path: Path, folder: Path, skeleton: Skeleton) -> PoseSet:
    rows = read_json(path)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: expected a list of persons with image, center, scale, joints and joints_vis")
    if not any(row.get("joints") for row in rows):
        raise DataError(f"{path}: none of its {len(rows)} persons has joints; give a split that has, such as train")
    heads = _heads(path, len(rows))
    found = PoseSet(skeleton, {}, {}, path)
    images: dict[str, int] = {}
    for number, row in enumerate(rows):
        where = f"person {number}"
        try:
            image = images.setdefault(str(row["image"]), len(images))
            box = person_box(row["center"], row["scale"])
        except (KeyError, TypeError, ValueError) as error:
            found.problems.append(Problem("broken record", where, f"needs image, center and scale ({error})"))
            continue
        found.images.setdefault(image, ImageRecord(image, folder / str(row["image"]), 0, 0))
        keypoints = _joints(found, row, where, image, number)
        extra = {} if heads is None else {"head": float(heads[number])}
        found.instances.setdefault(image, []).append(
            Instance(number, image, box, keypoints, box[2] * box[3], False, extra)
        )
    return found


def person_box(center: Any, scale: float) -> Box:
    """The box of a person by the annotated centre (counted from 1) and scale.

    Example:
        >>> person_box([101.0, 201.0], 1.0)
        (0.0, 115.0, 200.0, 200.0)
    """
    x, y = (float(value) - FIRST_PIXEL for value in center)
    side = PERSON_HEIGHT * float(scale)
    return (x - side / 2, y + LOWERED * float(scale) - side / 2, side, side)


def _joints(found: PoseSet, row: dict[str, Any], where: str, image: int, number: int) -> Joints | None:
    joints, seen = row.get("joints"), row.get("joints_vis")
    count = found.skeleton.count
    if not joints:
        return None
    if _shape(joints) != (count, 2) or _shape(seen) != (count,):
        detail = f"joints of shape {_shape(joints)}, expected {(count, 2)}; joints_vis {_shape(seen)}, expected {count}"
        found.problems.append(Problem("wrong joint count", where, detail, image, number))
        return None
    keypoints = np.zeros((count, 3), dtype=np.float32)
    keypoints[:, :2] = np.asarray(joints, dtype=np.float32) - FIRST_PIXEL
    keypoints[:, 2] = 2.0 * (np.asarray(seen) > 0)
    keypoints[keypoints[:, 2] == 0] = 0
    return keypoints


def _shape(numbers: Any) -> tuple[int, ...] | None:
    """The shape of nested lists of numbers, None where they are something else."""
    try:
        return np.asarray(numbers, dtype=np.float64).shape
    except (TypeError, ValueError):
        return None


def _heads(path: Path, people: int) -> NDArray[np.float64] | None:
    """The head sizes that lie beside a validation split, in the order of its persons."""
    stem = path.stem.removeprefix("mpii_")
    for name in (f"gt_{stem}.mat", f"mpii_gt_{stem}.mat"):
        if (path.parent / name).is_file():
            corners = _load(path.parent / name).get("headboxes_src")
            if corners is None or corners.shape != (2, 2, people):
                raise DataError(f"{path.parent / name}: headboxes_src does not fit the {people} persons of {path.name}")
            corners = corners.astype(np.float64)
            return HEAD * np.linalg.norm(corners[1] - corners[0], axis=0)
    return None


def _load(path: Path, **options: bool) -> dict[str, Any]:
    try:
        return dict(loadmat(path, **options))
    except Exception as error:  # scipy raises many kinds
        raise DataError(f"{path}: is not a MATLAB file that scipy reads ({error}); fetch it again") from error


def _read_official(path: Path, folder: Path, split: str, skeleton: Skeleton) -> PoseSet:
    """The training images of the official file; it has no validation split, and the joints of test are not public."""
    if split != "train":
        raise DataError(
            f"{path}: has joints of the split 'train' alone; the usual validation split is that of valid.json"
        )
    release = _load(path, struct_as_record=False, squeeze_me=True).get("RELEASE")
    if release is None:
        raise DataError(f"{path}: holds no RELEASE; give MPII's own {OFFICIAL}")
    found, number = PoseSet(skeleton, {}, {}, path), 0
    for image, (scene, training) in enumerate(zip(release.annolist, release.img_train, strict=True)):
        people = [p for p in _each(scene.annorect) if _has(p, "scale") and _has(p, "objpos")] if training else []
        if people:
            found.images[image] = ImageRecord(image, folder / str(scene.image.name), 0, 0)
            found.instances[image] = []
        for person in people:
            box = person_box((person.objpos.x, person.objpos.y), person.scale)
            keypoints = _official_joints(person, skeleton.count)
            head = HEAD * float(np.hypot(person.x2 - person.x1, person.y2 - person.y1))
            made = Instance(number, image, box, keypoints, box[2] * box[3], False, {"head": head})
            found.instances[image].append(made)
            number += 1
    return found


def _each(value: Any) -> Iterator[Any]:
    """What a squeezed MATLAB array of structs holds: none, one or many."""
    yield from np.atleast_1d(value) if not (isinstance(value, np.ndarray) and value.size == 0) else []


def _has(struct: Any, field: str) -> bool:
    value = getattr(struct, field, None)
    return value is not None and np.size(value) > 0


def _official_joints(person: Any, count: int) -> Joints | None:
    if not _has(person, "annopoints") or not _has(person.annopoints, "point"):
        return None
    keypoints = np.zeros((count, 3), dtype=np.float32)
    for point in _each(person.annopoints.point):
        seen = 1.0 + float(np.size(getattr(point, "is_visible", ())) == 0 or int(point.is_visible) > 0)
        keypoints[int(point.id)] = (point.x - FIRST_PIXEL, point.y - FIRST_PIXEL, seen)
    return keypoints
