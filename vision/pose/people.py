"""Where the people of a picture are: in boxes from a file, in the whole picture, or where a detector finds them.

Each is a :data:`~vision.engine.task.Regions`: called with a picture and its name, it gives boxes (left, top, width and
height in pixels) with scores.
"""

import json
import logging
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from vision.engine.checkpoint import read_weights
from vision.engine.errors import CheckpointError, ConfigError, DataError, nearest
from vision.engine.prediction import Picture, Regions
from vision.pose.annotations import overlaps
from vision.pose.images import number_in
from vision.pose.records import Box

log = logging.getLogger(__name__)

PERSON = 1
"""The category of persons in COCO, and in what torchvision's detectors say."""
BOX_SCORE = 0.3
"""Boxes that are less sure are left out, unless asked for."""
UNSHIFTED = {"fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn", "retinanet_resnet50_fpn"}
"""Detectors whose released weights were trained with BatchNorm's epsilon at 0."""


def regions_of(
    given: str, least: float = BOX_SCORE, device: torch.device | None = None, model: str | None = None
) -> Regions:
    """What ``--boxes`` names: ``image``, a JSON file of boxes, or the weights of a detector of torchvision.

    Args:
        given: the option's value.
        least: score below which boxes are left out.
        device: where a detector runs.
        model: torchvision's name of the detector; by default told from the file's name.

    Raises:
        ConfigError: it is none of these.
        DataError: a file of boxes that cannot be used.
        CheckpointError: weights that cannot be used.
    """
    if given == "image":
        return whole_picture
    suffix = Path(given).suffix.lower()
    if suffix == ".json":
        return BoxesOfFile(Path(given), least)
    if suffix in (".pth", ".pt", ".safetensors"):
        return Detector(Path(given), model, least, device)
    raise ConfigError(
        f"--boxes {given}: expected 'image', a .json file of boxes, or a .pth or .safetensors file of a detector"
    )


def whole_picture(picture: Picture, name: str) -> list[tuple[Box, float]]:
    """One box: all of the picture, for pictures of one person each."""
    return [((0.0, 0.0, float(picture.shape[1]), float(picture.shape[0])), 1.0)]


class BoxesOfFile:
    """Boxes from a JSON file: COCO annotations, or rows of detections.

    Rows are ``{"bbox": [x, y, w, h], "score": s}`` with a ``file_name``, or an ``image_id``: then that of the image
    of COCO annotations, or the number that a picture's name ends in. Rows of a category other than COCO's person, and
    crowds, are passed over.

    Args:
        path: the file.
        least: score below which boxes are left out; a row without one counts as 1.

    Raises:
        DataError: no such file, no JSON, or a row that is no box.
    """

    def __init__(self, path: Path, least: float = BOX_SCORE) -> None:
        self.path = path
        tree = _read(path)
        rows = tree.get("annotations") if isinstance(tree, dict) else tree
        if not isinstance(rows, list):
            raise DataError(f"{path}: expected a list of boxes, or COCO annotations with 'images' and 'annotations'")
        images = tree.get("images", []) if isinstance(tree, dict) else []
        self._ids = {str(image["file_name"]).rpartition("/")[2]: int(image["id"]) for image in images}
        by_name: dict[str, list[tuple[Box, float]]] = defaultdict(list)
        by_id: dict[int, list[tuple[Box, float]]] = defaultdict(list)
        for position, row in enumerate(rows):
            box, score = self._box(position, row)
            if score < least or row.get("category_id", PERSON) != PERSON or row.get("iscrowd", 0):
                continue
            if "file_name" in row:
                by_name[str(row["file_name"]).rpartition("/")[2]].append((box, score))
            else:
                by_id[int(row["image_id"])].append((box, score))
        self._by_name, self._by_id = dict(by_name), dict(by_id)

    def _box(self, position: int, row: Any) -> tuple[Box, float]:
        where = f"{self.path}: row {position}"
        if not isinstance(row, dict) or not ("file_name" in row or isinstance(row.get("image_id"), int)):
            raise DataError(f"{where}: expected 'bbox' with a 'file_name' or a whole 'image_id'")
        values = [*row["bbox"], row.get("score", 1.0)] if isinstance(row.get("bbox"), list) else []
        if len(values) != 5 or not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
            raise DataError(f"{where}: bbox is {row.get('bbox')!r}, expected four finite numbers: x, y, width, height")
        x, y, w, h, score = map(float, values)
        if w <= 0 or h <= 0:
            raise DataError(f"{where}: the box has a width of {w:g} and a height of {h:g}; both must be above 0")
        return (x, y, w, h), score

    def image_id(self, name: str) -> int | None:
        """The id of an image in this file, by its name, or by the number that ends it."""
        return self._ids.get(Path(name).name, number_in(name))

    def __call__(self, picture: Picture, name: str) -> list[tuple[Box, float]]:
        own = Path(name).name
        number = self.image_id(name)
        found = self._by_name.get(own) or (self._by_id.get(number) if number is not None else None)
        if not found:
            log.warning("%s: %s holds no box for it", name, self.path)
            return []
        kept = [(box, score) for box, score in found if overlaps(box, picture.shape[1], picture.shape[0])]
        if len(kept) < len(found):
            size = f"{picture.shape[1]} x {picture.shape[0]}"
            log.warning(
                "%s: %d of %d boxes of %s lie outside the picture of %s: left out; are they of another size of it?",
                name, len(found) - len(kept), len(found), self.path, size,
            )  # fmt: skip
        return kept


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: is not JSON ({error.msg}); is the file whole?") from error


class Detector:
    """Boxes around the people that a detector of torchvision finds.

    Args:
        weights: its state dict, as torchvision releases it: ``fasterrcnn_resnet50_fpn_coco-258fb6c6.pth``.
        model: torchvision's name; by default what the file's name begins with.
        least: score below which boxes are left out.
        device: where it runs; the CPU by default.

    Raises:
        ConfigError: torchvision has no detector of that name.
        CheckpointError: the weights cannot be read or are another network's.
    """

    def __init__(
        self, weights: Path, model: str | None = None, least: float = BOX_SCORE, device: torch.device | None = None
    ) -> None:
        from torchvision.models import detection, get_model, list_models  # slow to import, and few need it

        known = list_models(module=detection)
        name = model or max((n for n in known if weights.name.startswith(n)), key=len, default="")
        if name not in known:
            raise ConfigError(
                f"{weights}: which detector's weights are these? name it with --detector{nearest(name, known)}; "
                f"torchvision has {', '.join(known)}"
            )
        state = read_weights(weights).tensors
        network = get_model(name, weights=None, weights_backbone=None)
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(
                f"{weights}: not the weights of {name}: {str(error).splitlines()[1].strip()}"
            ) from error
        if name in UNSHIFTED and not any(key.endswith("num_batches_tracked") for key in state):
            for module in network.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eps = 0.0
        self.network, self.least = network.to(device or torch.device("cpu")).eval(), least

    @torch.no_grad()
    def __call__(self, picture: Picture, name: str) -> list[tuple[Box, float]]:
        device = next(self.network.parameters()).device
        image = torch.tensor(picture, device=device).permute(2, 0, 1).float() / 255
        (found,) = self.network([image])
        people = (found["labels"] == PERSON) & (found["scores"] >= self.least)
        boxes, scores = found["boxes"][people].tolist(), found["scores"][people].tolist()
        return [
            ((x, y, x1 - x, y1 - y), s) for (x, y, x1, y1), s in zip(boxes, scores, strict=True) if x1 > x and y1 > y
        ]


def numbers_of(files: list[Path], boxes: BoxesOfFile | None = None) -> dict[Path, int]:
    """Ids of images for COCO results: those of the boxes' file, else the numbers their names end in, else 1, 2, ...

    One rule holds for all files: the first that gives each an id of its own.

    Example:
        >>> list(numbers_of([Path("000000000785.jpg"), Path("000000000139.jpg")]).values())
        [785, 139]
        >>> list(numbers_of([Path("a.jpg"), Path("b7.jpg")]).values())
        [1, 2]
    """
    found = [boxes.image_id(file.name) if boxes else number_in(file.name) for file in files]
    if None in found or len(set(found)) != len(found):
        found = list(range(1, len(files) + 1))
    return {file: number for file, number in zip(files, found, strict=True) if number is not None}
