"""Small data sets in COCO's layout, made for a test."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vision.pose.keypoints import Skeleton, skeleton

COCO = skeleton("coco")


def joints_in(box: tuple[float, float, float, float], count: int = COCO.count) -> list[float]:
    """``count`` visible joints spread over a box, as an annotation lists them."""
    left, top, width, height = box
    return [value for k in range(count)
            for value in (left + width * ((7 * k) % count) / count, top + height * k / count, 2)]  # fmt: skip


def person(key: int, image: int, box: tuple[float, ...] = (8, 6, 30, 40), **changed: Any) -> dict[str, Any]:
    """One annotation; a field given as None is left out."""
    row = {
        "id": key, "image_id": image, "category_id": 1, "bbox": list(box), "area": 0.5 * box[2] * box[3],
        "iscrowd": 0, "keypoints": joints_in(box), "num_keypoints": COCO.count,
    }  # fmt: skip
    return {name: value for name, value in {**row, **changed}.items() if value is not None}


def document(
    people: list[dict[str, Any]], images: int = 2, size: tuple[int, int] = (64, 48), first: int = 1,
    joints: Skeleton = COCO,
) -> dict[str, Any]:  # fmt: skip
    """An annotation file: images ``first``, ``first + 1``, ... of ``size`` (width, height)."""
    return {
        "images": [
            {"id": key, "file_name": f"{key:06d}.png", "width": size[0], "height": size[1]}
            for key in range(first, first + images)
        ],
        "annotations": people,
        "categories": [{"id": 1, "name": "person", "keypoints": list(joints.joints)}],
    }


def write(root: Path, split: str, content: dict[str, Any], pictures: bool = True) -> Path:
    """Writes an annotation file and a picture of noise for each of its images; returns the root."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"person_keypoints_{split}.json").write_text(json.dumps(content))
    folder = root / "images" / split
    folder.mkdir(parents=True, exist_ok=True)
    for image in content["images"] if pictures else ():
        noise = np.random.default_rng(image["id"]).integers(
            0, 256, (image["height"], image["width"], 3), dtype=np.uint8
        )
        Image.fromarray(noise).save(folder / image["file_name"])
    return root
