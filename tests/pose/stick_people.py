"""A COCO data set of stick people, a bright dot at each joint, for tests that need no photographs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from PIL import Image

JOINTS = 17
SHAPE = np.array(
    [
        [0, -9], [1, -10], [-1, -10], [2, -9], [-2, -9], [4, -6], [-4, -6], [6, -2], [-6, -2], [6, 2], [-6, 2],
        [2, 2], [-2, 2], [3, 6], [-3, 6], [3, 10], [-3, 10],
    ],
    dtype=float,
)  # fmt: skip


def person(key: int, image: int, x: float, y: float, scale: float, hidden: tuple[int, ...] = ()) -> dict[str, Any]:
    """An annotation of someone who stands at (x, y), 20 times ``scale`` pixels tall."""
    joints = np.column_stack([SHAPE * scale + [x, y], np.full(JOINTS, 2.0)]).round(2)
    joints[list(hidden)] = 0
    box = [x - 7 * scale, y - 11 * scale, 14 * scale, 22 * scale]
    return {
        "id": key, "image_id": image, "category_id": 1, "bbox": box, "area": 0.5 * box[2] * box[3], "iscrowd": 0,
        "keypoints": joints.ravel().tolist(), "num_keypoints": JOINTS - len(hidden), "segmentation": [],
    }  # fmt: skip


def unlabelled(key: int, image: int, box: list[float], **fields: Any) -> dict[str, Any]:
    """An annotation without keypoints."""
    return {
        "id": key, "image_id": image, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0,
        "keypoints": [0] * 3 * JOINTS, "num_keypoints": 0, "segmentation": [], **fields,
    }  # fmt: skip


def picture(size: tuple[int, int], people: list[dict[str, Any]], rng: Generator) -> Image.Image:
    """Dim noise with a dot of its own colour at each labelled joint."""
    width, height = size
    pixels = rng.integers(0, 60, (height, width, 3)).astype(np.uint8)
    for each in people:
        for joint, (x, y, v) in enumerate(np.reshape(each["keypoints"], (-1, 3))):
            if v > 0:
                row, column = round(y), round(x)
                pixels[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3] = (
                    255,
                    90 + 9 * joint,
                    255 - 9 * joint,
                )
    return Image.fromarray(pixels)


def write_people(
    root: Path, splits: dict[str, list[tuple[tuple[int, int], list[dict[str, Any]]]]], seed: int = 0
) -> Path:
    """Writes splits of (size, people) in COCO's layout; images are numbered from 1 over all splits."""
    rng = np.random.default_rng(seed)
    for name, images in splits.items():
        (root / "images" / name).mkdir(parents=True, exist_ok=True)
        (root / "annotations").mkdir(exist_ok=True)
        rows, people = [], []
        for size, everyone in images:
            key = everyone[0]["image_id"] if everyone else 900 + len(rows)
            rows.append({"id": key, "file_name": f"{key:012d}.png", "width": size[0], "height": size[1]})
            people += everyone
            picture(size, everyone, rng).save(root / "images" / name / f"{key:012d}.png")
        category = {"id": 1, "name": "person", "keypoints": [str(i) for i in range(JOINTS)], "skeleton": []}
        document = {"images": rows, "annotations": people, "categories": [category]}
        (root / "annotations" / f"person_keypoints_{name}.json").write_text(json.dumps(document))
    return root


def small_set(root: Path) -> Path:
    """Four images to train on, three to judge on (one of them without anyone)."""
    train = [
        ((160, 120), [person(1, 1, 60, 60, 4), person(2, 1, 120, 70, 3, hidden=(9, 15))]),
        ((120, 160), [person(3, 2, 60, 80, 5)]),
        ((160, 120), [person(4, 3, 50, 60, 4), unlabelled(5, 3, [90, 20, 50, 80])]),
        ((160, 120), [person(6, 4, 80, 60, 4.5)]),
    ]
    val = [
        ((160, 120), [person(11, 11, 50, 60, 4), person(12, 11, 115, 62, 4)]),
        ((120, 160), [person(13, 12, 60, 80, 5)]),
        ((160, 120), []),
    ]
    return write_people(root, {"train2017": train, "val2017": val})
