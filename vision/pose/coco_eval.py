"""Average precision and recall of poses: COCO, OCHuman and AP-10K alike, and CrowdPose with its levels of crowding.

Two evaluators give the same numbers: ``pycocotools``, the reference, and ``faster-coco-eval``, whose matching and
accumulation are C++. For the latter, similarities are computed here, array by array; the tests hold the two equal.
"""

import contextlib
import importlib.util
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vision.engine.errors import DataError
from vision.pose.oks import extent, oks_matrix

Array = NDArray[np.float64]
Ids = NDArray[np.int64]
Style = Literal["coco", "crowdpose"]
Evaluator = Literal["auto", "faster-coco-eval", "pycocotools"]

MOST = 20
"""Poses of an image that count, the best ones."""

CROWDING = {"easy": (0.0, 0.2), "medium": (0.2, 0.8), "hard": (0.8, float("inf"))}
"""CrowdPose's levels by the crowd index of an image, ``low <= index < high``, as its evaluation code has them; the
paper speaks of 0.1 instead of 0.2."""

CROWDPOSE_AREA = 0.53
"""Share of a box that CrowdPose takes for the area of a person."""


@dataclass(frozen=True)
class Truth:
    """The annotated people of a data set as arrays.

    Attributes:
        images: ids of all images, also of those without anyone.
        image: id of each person's image, ``[G]``.
        keypoints: x, y and visibility, float64, ``[G, K, 3]``.
        boxes: left, top, width, height, ``[G, 4]``.
        areas: pixels squared, ``[G]``.
        crowd: whether it is a region of many people, ``[G]``.
        labelled: how many joints are, ``[G]``; a person without any is neither missed nor a mistake to find.
        crowding: CrowdPose's crowd index by image id; of the images that have one.
    """

    images: Ids
    image: Ids
    keypoints: Array
    boxes: Array
    areas: Array
    crowd: NDArray[np.bool_]
    labelled: NDArray[np.int64]
    crowding: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def from_coco(cls, document: Mapping[str, Any]) -> "Truth":
        """From a COCO annotation dictionary, such as ``PoseSet.to_coco()`` gives; categories are not told apart.

        Where a person's ``area`` is missing, as in CrowdPose, it is 0.53 of its box.
        """
        rows = document["annotations"]
        boxes = _stack([row["bbox"] for row in rows], (4,))
        keypoints = _stack([row["keypoints"] for row in rows], (-1, 3))
        areas = [row.get("area", CROWDPOSE_AREA * box[2] * box[3]) for row, box in zip(rows, boxes, strict=True)]
        counts = [row.get("num_keypoints", -1) for row in rows]
        labelled = np.array(counts, dtype=np.int64)
        return cls(
            images=np.array(sorted(image["id"] for image in document["images"]), dtype=np.int64),
            image=np.array([row["image_id"] for row in rows], dtype=np.int64),
            keypoints=keypoints,
            boxes=boxes,
            areas=np.array(areas, dtype=np.float64),
            crowd=np.array([bool(row.get("iscrowd", 0)) for row in rows], dtype=bool),
            labelled=np.where(labelled < 0, (keypoints[..., 2] > 0).sum(1), labelled),
            crowding={i["id"]: float(i["crowdIndex"]) for i in document["images"] if "crowdIndex" in i},
        )

    @cached_property
    def rows(self) -> dict[int, NDArray[np.intp]]:
        """Positions of each image's people, by image id."""
        return grouped(self.image)


@dataclass(frozen=True)
class Found:
    """Poses found in the images of a data set as arrays.

    Attributes:
        image: id of each pose's image, ``[D]``.
        keypoints: x and y, float64, ``[D, K, 2]``.
        scores: of each pose, ``[D]``.
        areas: pixels squared, ``[D]``: the extent of all joints, or of the box where results have one. A pose that
            matches nobody counts against the figures of its own size only.
    """

    image: Ids
    keypoints: Array
    scores: Array
    areas: Array

    @classmethod
    def of(cls, image: Iterable[int], keypoints: NDArray[Any], scores: NDArray[Any]) -> "Found":
        """Poses ``[D, K, 2]`` or ``[D, K, 3]``, with the extent of their joints as area."""
        joints = np.asarray(keypoints, dtype=np.float64)[..., :2]
        ids = np.array(list(image), dtype=np.int64)
        return cls(ids, joints, np.asarray(scores, dtype=np.float64), extent(joints))

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]], joints: int = 17) -> "Found":
        """From the rows of a COCO results file; ``joints`` says how many where there are no rows."""
        keypoints = _stack([row["keypoints"] for row in rows], (-1 if rows else joints, 3))
        scores = np.array([row["score"] for row in rows], dtype=np.float64)
        found = cls.of((row["image_id"] for row in rows), keypoints, scores)
        if rows and rows[0].get("bbox"):
            boxes = _stack([row["bbox"] for row in rows], (4,))
            return replace(found, areas=boxes[:, 2] * boxes[:, 3])
        return found

    @cached_property
    def rows(self) -> dict[int, NDArray[np.intp]]:
        """Positions of each image's poses, by image id."""
        return grouped(self.image)


def grouped(ids: Ids) -> dict[int, NDArray[np.intp]]:
    """Where each id stands, in order."""
    if not len(ids):
        return {}
    order = np.argsort(ids, kind="stable")
    values, starts = np.unique(ids[order], return_index=True)
    return dict(zip(values.tolist(), np.split(order, starts[1:]), strict=True))


def _stack(values: list[Any], shape: tuple[int, ...]) -> Array:
    """A float64 array of rows of the given shape; of no rows, one of none."""
    if values:
        return np.array(values, dtype=np.float64).reshape(len(values), *shape)
    return np.zeros((0, *(max(side, 1) for side in shape)))


def evaluator_in_use(evaluator: Evaluator = "auto") -> str:
    """The name and version of the evaluator that ``evaluator`` means here, such as ``faster-coco-eval 1.8.0``."""
    if evaluator == "auto":
        installed = importlib.util.find_spec("faster_coco_eval") is not None
        evaluator = "faster-coco-eval" if installed else "pycocotools"
    return f"{evaluator} {version(evaluator)}"


def evaluate(
    truth: Truth,
    found: Found,
    sigmas: Sequence[float],
    style: Style = "coco",
    evaluator: Evaluator = "auto",
) -> dict[str, float]:
    """Average precision and recall by object keypoint similarity, over thresholds .50, .55, ... .95.

    Args:
        truth: what is there.
        found: what was found; the 20 best of an image count.
        sigmas: of the skeleton, ``[K]``.
        style: ``coco``, also for OCHuman and AP-10K; or ``crowdpose``, whose areas are 0.53 of the box and which
            tells images by crowding instead of people by size.
        evaluator: ``auto`` is ``faster-coco-eval`` where it is installed, else ``pycocotools``;
            :func:`evaluator_in_use` says which.

    Returns:
        ``AP``, ``AP50``, ``AP75``, ``AR``, ``AR50``, ``AR75``, each in [0, 1]; ``APM``, ``APL``, ``ARM``, ``ARL`` of
        people of 32² to 96² pixels and above; or ``AP_easy``, ``AP_medium``, ``AP_hard``. What is undefined, since
        nobody of that kind is annotated, is left out.

    Raises:
        DataError: poses of images that are not in ``truth``, of another number of joints, or that are not finite.
    """
    _check(truth, found, sigmas)
    if style == "crowdpose":
        truth = replace(truth, areas=truth.boxes[:, 2] * truth.boxes[:, 3] * CROWDPOSE_AREA)
    run = _reference if evaluator_in_use(evaluator).startswith("pycocotools") else _fast
    accumulate = run(truth, found, np.asarray(sigmas, dtype=np.float64))
    precision, recall = accumulate(truth.images)
    figures: dict[str, float] = {}
    for prefix, values in (("AP", precision), ("AR", recall)):
        figures |= {prefix: _mean(values[..., 0]), f"{prefix}50": _mean(values[0, ..., 0]),
                    f"{prefix}75": _mean(values[5, ..., 0])}  # fmt: skip
        if style == "coco":
            figures |= {f"{prefix}M": _mean(values[..., 1]), f"{prefix}L": _mean(values[..., 2])}
    if style == "crowdpose":
        for level, (low, high) in CROWDING.items():
            some = [image for image in truth.images.tolist() if low <= truth.crowding.get(image, -1.0) < high]
            figures[f"AP_{level}"] = _mean(accumulate(np.array(some))[0][..., 0]) if some else np.nan
    return {name: value for name, value in figures.items() if not np.isnan(value)}


def _mean(values: Array) -> float:
    """The mean of what is defined, as COCO has it: -1 is not."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else float("nan")


def _check(truth: Truth, found: Found, sigmas: Sequence[float]) -> None:
    strangers = np.setdiff1d(found.image, truth.images)
    if len(strangers):
        raise DataError(
            f"poses were found in {len(strangers)} images that are not annotated, such as image {strangers[0]}; "
            "evaluate on the data set that was predicted"
        )
    for what, array in (("annotated people", truth.keypoints), ("poses", found.keypoints)):
        if len(array) and array.shape[1] != len(sigmas):
            raise DataError(f"{what} have {array.shape[1]} joints, the skeleton has {len(sigmas)}")
    finite = np.isfinite(found.keypoints).all((1, 2)) & np.isfinite(found.scores)
    if not finite.all():
        raise DataError(
            f"{(~finite).sum()} of {len(finite)} poses hold a number that is not finite, such as one of image "
            f"{found.image[~finite][0]}; the network's output is broken"
        )


Accumulate = Callable[[Ids], tuple[Array, Array]]
"""From image ids to precision ``[T, R, A]`` and recall ``[T, A]``: thresholds, levels of recall, sizes."""


def _reference(truth: Truth, found: Found, sigmas: Array) -> Accumulate:
    """The whole evaluation by pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def index(document: dict[str, Any]) -> Any:
        coco = COCO()
        coco.dataset = document
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCOeval(*(index(d) for d in _documents(truth, found, with_joints=True)), "keypoints")
    coco.params.kpt_oks_sigmas = sigmas

    def accumulate(images: Ids) -> tuple[Array, Array]:
        coco.params.imgIds = images.tolist()
        with contextlib.redirect_stdout(io.StringIO()):
            coco.evaluate()
            coco.accumulate()
        return coco.eval["precision"][:, :, 0, :, 0], coco.eval["recall"][:, 0, :, 0]

    return accumulate


def _fast(truth: Truth, found: Found, sigmas: Array) -> Accumulate:
    """Similarities as arrays, the rest by faster-coco-eval."""
    from faster_coco_eval import COCO, COCOeval_faster

    def nothing(*_: Any) -> None:
        """Prints nothing."""

    def similarities(image: int, _category: int) -> Array | list[float]:
        people, poses = truth.rows.get(image), found.rows.get(image)
        if people is None or poses is None:
            return []
        best = poses[np.argsort(-found.scores[poses], kind="stable")[:MOST]]
        return oks_matrix(
            found.keypoints[best], truth.keypoints[people], truth.boxes[people], truth.areas[people], sigmas
        )

    there, seen = (COCO(document, print_function=nothing) for document in _documents(truth, found, with_joints=False))
    coco = COCOeval_faster(there, seen, "keypoints", print_function=nothing)
    coco.computeOks = similarities
    coco.params.catIds = [1]

    def accumulate(images: Ids) -> tuple[Array, Array]:
        coco.params.imgIds = images.tolist()
        coco.evaluate()
        coco.accumulate()
        return coco.eval["precision"][:, :, 0, :, 0], coco.eval["recall"][:, 0, :, 0]

    return accumulate


def _documents(truth: Truth, found: Found, with_joints: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """What both evaluators read. Ids count from 1: an annotation 0 would never be taken for matched."""
    shared = {"images": [{"id": i} for i in truth.images.tolist()], "categories": [{"id": 1, "name": "person"}]}
    people = [
        {"id": id, "image_id": image, "category_id": 1, "area": area, "iscrowd": int(crowd), "num_keypoints": labelled}
        for id, (image, area, crowd, labelled) in enumerate(
            zip(truth.image.tolist(), truth.areas.tolist(), truth.crowd.tolist(), truth.labelled.tolist(), strict=True),
            start=1,
        )
    ]
    poses = [
        {"id": id, "image_id": image, "category_id": 1, "area": area, "score": score}
        for id, (image, area, score) in enumerate(
            zip(found.image.tolist(), found.areas.tolist(), found.scores.tolist(), strict=True), start=1
        )
    ]
    if with_joints:
        for person, box, joints in zip(people, truth.boxes.tolist(), truth.keypoints, strict=True):
            person |= {"bbox": box, "keypoints": joints.ravel().tolist()}
        flat = np.concatenate([found.keypoints, np.ones_like(found.keypoints[..., :1])], -1)
        for pose, joints in zip(poses, flat, strict=True):
            pose["keypoints"] = joints.ravel().tolist()
    return {**shared, "annotations": people}, {**shared, "annotations": poses}
