"""Annotation files in COCO's JSON form, as COCO, CrowdPose, AP-10K and OCHuman's conversions write them."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from vision.engine.errors import DataError
from vision.pose.keypoints import Skeleton
from vision.pose.records import Box, ImageRecord, Instance, Joints, PoseSet, Problem

CROWDPOSE_AREA = 0.53
"""CrowdPose's files hold no areas: its evaluation takes this share of the box."""

VISIBILITIES = (0, 1, 2)


def read_coco(root: Path, split: str, skeleton: Skeleton) -> PoseSet:
    """COCO's layout; see :func:`vision.pose.annotations.read_pose_set`."""
    path = annotation_file(
        root, split, [f"annotations/person_keypoints_{split}.json", f"annotations/{split}.json", f"{split}.json"]
    )
    return read_coco_file(path, image_folders(root, path.stem.removeprefix("person_keypoints_")), skeleton)


def read_crowdpose(root: Path, split: str, skeleton: Skeleton) -> PoseSet:
    """CrowdPose's layout; its areas are :data:`CROWDPOSE_AREA` of the boxes."""
    names = [f"{folder}{prefix}crowdpose_{split}.json" for folder in ("annotations/", "json/", "anno/", "")
             for prefix in ("", "mmpose_")]  # fmt: skip
    path = annotation_file(root, split, names)
    found = read_coco_file(path, [root / "images", root], skeleton)
    for person in (p for people in found.instances.values() for p in people):
        person.area = CROWDPOSE_AREA * person.box[2] * person.box[3]
    found.problems = [p for p in found.problems if p.kind != "area estimated"]
    return found


def read_ap10k(root: Path, split: str, skeleton: Skeleton) -> PoseSet:
    """AP-10K's layout; the animals of all species are of one kind."""
    names = [f"annotations/ap10k-{split}.json", f"annotations/ap10k-{split}-split1.json"]
    path = annotation_file(root, split, names)
    return read_coco_file(path, [root / "data", root / "images", root], skeleton)


def annotation_file(root: Path, split: str, names: Iterable[str]) -> Path:
    """The first of the files that is there; a split that ends in ``.json`` is itself the file, from ``root`` on.

    Raises:
        DataError: none is there.
    """
    candidates = [root / split] if split.endswith(".json") else [root / name for name in names]
    for path in candidates:
        if path.is_file():
            return path
    raise DataError(f"{root}: no annotations of the split '{split}'; looked for {', '.join(map(str, candidates))}")


def image_folders(root: Path, split: str) -> list[Path]:
    """Where the images of a COCO split may lie: folders whose name the split begins with, longest first, then all."""
    found = [
        folder
        for parent in (root / "images", root)
        if parent.is_dir()
        for folder in parent.iterdir()
        if folder.is_dir() and split.startswith(folder.name)
    ]
    return [*sorted(found, key=lambda folder: -len(folder.name)), root / "images", root]


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it cannot be read, or is no JSON; one that ends too early is said to be cut off.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        end = len(text.rstrip()) <= error.pos + 1 or "Unterminated string" in error.msg
        reason = "it ends too early, so it was cut off" if end else error.msg
        raise DataError(f"{path}:{error.lineno}: is not whole JSON ({reason}); fetch the file again") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, a number of thousands of digits, nested too deeply
        raise DataError(f"{path}: is not JSON ({error}); give the unpacked annotation file") from error


def read_coco_file(path: Path, folders: list[Path], skeleton: Skeleton) -> PoseSet:
    """One annotation file in COCO's form.

    Args:
        path: the file.
        folders: where its images may lie; the first that has a file counts, and the first folder where none has.
        skeleton: of every person.

    Raises:
        DataError: as :func:`vision.pose.annotations.read_pose_set`.
    """
    document = read_json(path)
    if not isinstance(document, dict):
        raise DataError(f"{path}: expected COCO's form, a mapping of images, annotations and categories")
    for key in ("images", "annotations"):
        if not isinstance(document.get(key), list):
            raise DataError(f"{path}: '{key}' is missing; expected COCO's form with images, annotations, categories")
        if not document[key]:
            raise DataError(f"{path}: holds no {key}; give a split that has some")
    categories = _categories(path, document.get("categories"), skeleton)
    wanted = [*categories]  # a list, as a broken id may be of any type
    rows = [row for row in document["annotations"] if not categories or _of(row, "category_id") in wanted]
    if not any(_of(row, "keypoints") for row in rows):
        raise DataError(
            f"{path}: none of its {len(document['annotations'])} annotations has keypoints; give a keypoint file such "
            "as person_keypoints_train2017.json"
        )
    reader = _Reader(PoseSet(skeleton, {}, {}, path), folders)
    for row in document["images"]:
        reader.add_image(row)
    for row in rows:
        reader.add_person(row)
    return reader.found


def _of(row: Any, key: str) -> Any:
    return row.get(key) if isinstance(row, dict) else None


def _categories(path: Path, given: Any, skeleton: Skeleton) -> set[int]:
    """The categories that have joints; empty where the file has none that tell."""
    with_joints = [c for c in given if _of(c, "keypoints")] if isinstance(given, list) else []
    for category in with_joints:
        if not isinstance(category["keypoints"], list) or not isinstance(category.get("id"), int):
            raise DataError(f"{path}: a category needs a whole number as id and a list of keypoints, got {category}")
        if len(category["keypoints"]) != skeleton.count:
            raise DataError(
                f"{path}: its category '{category.get('name')}' has {len(category['keypoints'])} joints, the skeleton "
                f"'{skeleton.name}' {skeleton.count}; choose the skeleton of this data"
            )
    return {category.get("id") for category in with_joints}


@dataclass
class _Reader:
    """Adds the rows of a file to what was found so far, or tells why not."""

    found: PoseSet
    folders: list[Path]

    def __post_init__(self) -> None:
        self.people: set[int] = set()
        self.files = {f: {e.name for e in f.iterdir()} if f.is_dir() else set() for f in self.folders}

    def problem(self, kind: str, where: str, detail: str, image: int | None = None, person: int | None = None) -> None:
        self.found.problems.append(Problem(kind, where, detail, image, person))

    def add_image(self, row: Any) -> None:
        key, name = _of(row, "id"), _of(row, "file_name")
        sides = _of(row, "width"), _of(row, "height")
        sized = all(_is_number(side) and 0 < side < math.inf for side in sides)
        if not isinstance(key, int) or not isinstance(name, str) or not sized:
            self.problem("broken record", f"image {key}", "needs id, file_name, and width and height above 0")
            return
        if key in self.found.images:
            self.problem("id given twice", f"image {key}", f"{self.found.images[key].path.name} and {name}", key)
            return
        extra = {"crowdIndex": row["crowdIndex"]} if "crowdIndex" in row else {}
        self.found.images[key] = ImageRecord(key, self.path_of(name), int(sides[0]), int(sides[1]), extra)
        self.found.instances[key] = []

    def path_of(self, name: str) -> Path:
        for folder, files in self.files.items():
            if name in files or ("/" in name and (folder / name).is_file()):
                return folder / name
        return self.folders[0] / name

    def add_person(self, row: Any) -> None:
        key, image = _of(row, "id"), _of(row, "image_id")
        where = f"person {key} of image {image}"
        if not isinstance(key, int) or not isinstance(image, int):
            self.problem("broken record", where, "needs id and image_id, both whole numbers")
        elif image not in self.found.images:
            self.problem("image not listed", where, "there is no such image in the file", image, key)
        elif key in self.people:
            self.problem("id given twice", where, "another person has this id", image, key)
        else:
            self.people.add(key)
            self.found.instances[image].append(self.person(row, key, image, where))

    def person(self, row: dict[str, Any], key: int, image: int, where: str) -> Instance:
        box = _box(row.get("bbox"))
        if box is None:
            self.problem("broken record", where, f"bbox is {row.get('bbox')}, expected four numbers", image, key)
            box = (math.nan, math.nan, math.nan, math.nan)
        keypoints = self.joints(row.get("keypoints"), where, image, key)
        crowd = bool(row.get("iscrowd", 0))
        extra = {"category": row["category_id"]} if "category_id" in row else {}
        area = row.get("area")
        if not _is_number(area):
            self.problem("area estimated", where, f"{CROWDPOSE_AREA} of its box", image, key)
            area = CROWDPOSE_AREA * box[2] * box[3]
        made = Instance(key, image, box, keypoints, float(area), crowd, extra)
        if row.get("segmentation") and (crowd or not made.labelled):  # what training masks out
            extra["segmentation"] = row["segmentation"]
        return made

    def joints(self, given: Any, where: str, image: int, key: int) -> Joints | None:
        if not given:
            return None
        if not isinstance(given, list) or not all(map(_is_number, given)):
            self.problem("broken record", where, "keypoints are not a list of numbers", image, key)
            return None
        expected = 3 * self.found.skeleton.count
        if len(given) != expected:
            detail = f"{len(given)} numbers, expected {expected}: x, y and visibility of {expected // 3} joints"
            self.problem("wrong joint count", where, detail, image, key)
            return None
        joints = np.array(given, dtype=np.float32).reshape(-1, 3)
        if not np.isin(joints[:, 2], VISIBILITIES).all() and np.isfinite(joints).all():
            self.problem("broken record", where, "a visibility is none of 0, 1 and 2", image, key)
            return None
        return joints


def _is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a number that a float holds; nan and infinity are, and are found when they are examined."""
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63)


def _box(given: Any) -> Box | None:
    if not isinstance(given, list) or len(given) != 4 or not all(map(_is_number, given)):
        return None
    left, top, width, height = (float(value) for value in given)
    return left, top, width, height
