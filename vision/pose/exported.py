"""Poses where the network is an exported file: an image, and boxes, in; poses out. Nothing here needs PyTorch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from vision.engine.exported import Boxes, ExportedSystem, Given, Run, as_image, checked_boxes, refuse_boxes, whole
from vision.engine.prediction import Picture
from vision.pose.crops import as_input, crop_matrix, inverse, mapped, region, to_image, upright
from vision.pose.decoding import (
    Found,
    decode_heatmap,
    decode_simcc,
    decode_udp,
    mirrored_maps,
    mirrored_rows,
)
from vision.pose.enlarged import enlarged, require_compact, short_side
from vision.pose.finding import decode_poses, find_centres
from vision.pose.images import number_in, read_rgb
from vision.pose.keypoints import Skeleton
from vision.pose.oks import extent, oks_nms, rescored
from vision.pose.prediction import Poses

MOST = 32
"""Crops in one pass of the network."""

Arrays = tuple[NDArray[Any], ...]


def read_photograph(given: Given, name: str) -> Picture:
    """RGB pixels ``[H, W, 3]`` of what a user gives; a file is turned by its EXIF orientation, as a viewer shows it.

    Raises:
        DataError: it cannot be read.
    """
    if isinstance(given, str | Path):
        return read_rgb(given, "upright")
    return np.asarray(as_image(given, name).convert("RGB"))


def number_of(name: str) -> int:
    """The number that a name ends in; 0 where there is none."""
    return number_in(name) or 0


class Decoding(Protocol):
    """What a codec does with the network's outputs."""

    def mirrored(self, outputs: Arrays, flip_index: Sequence[int]) -> Arrays:
        """The outputs for mirrored crops as those of the crops themselves."""
        ...

    def decode(self, outputs: Arrays) -> Found:
        """Joints in pixels of the crop, and scores."""
        ...


class _Heatmaps:
    """Of the codecs ``heatmap`` and ``udp_heatmap``."""

    def __init__(self, after: Mapping[str, Any]) -> None:
        self.size = [whole(side) for side in after["input_size"]]
        self.dark = (float(after["sigma"]), int(after["blur"])) if after["type"] == "udp_heatmap" else None

    def mirrored(self, outputs: Arrays, flip_index: Sequence[int]) -> Arrays:
        return (mirrored_maps(outputs[0], flip_index),)

    def decode(self, outputs: Arrays) -> Found:
        (maps,) = outputs
        return decode_heatmap(maps, self.size) if self.dark is None else decode_udp(maps, self.size, *self.dark)


class _Rows:
    """Of the codec ``simcc``."""

    def __init__(self, after: Mapping[str, Any]) -> None:
        self.size, self.bins = ([int(side) for side in after[key]] for key in ("input_size", "bins"))
        self.sigma, self.beta = [float(value) for value in after["sigma"]], float(after["beta"])

    def mirrored(self, outputs: Arrays, flip_index: Sequence[int]) -> Arrays:
        return mirrored_rows((outputs[0], outputs[1]), flip_index)

    def decode(self, outputs: Arrays) -> Found:
        return decode_simcc((outputs[0], outputs[1]), self.size, self.bins, self.sigma, self.beta)


class ExportedTopDown(ExportedSystem):
    """Poses of the people in boxes: ``before`` of type ``crop``, ``after`` of a codec's type."""

    def __init__(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        width, height = (whole(side) for side in before["input_size"])
        self.size, self.padding = (width, height), float(before["padding"])
        self.mean, self.std = before["mean"], before["std"]
        self.decoding: Decoding = _Rows(after) if after["type"] == "simcc" else _Heatmaps(after)
        self.flip_test, self.skeleton = bool(after["flip_test"]), Skeleton.of(after["skeleton"])

    def read(self, given: Given, name: str) -> Picture:
        return read_photograph(given, name)

    def picture(self, seen: Picture) -> Picture:
        return seen

    def predict(self, run: Run, seen: Picture, name: str, number: int | None, boxes: Boxes | None) -> Poses:
        """The poses in ``boxes``; without boxes one person fills the picture."""
        places, scores = checked_boxes(boxes, seen, name)
        number = number_of(name) if number is None else number
        parts = []
        for first in range(0, len(places), MOST):
            part = slice(first, first + MOST)
            parts.append(self._people(run, seen, name, number, places[part], scores[part]))
        return Poses.joined(name, number, parts, self.skeleton)

    def _people(
        self, run: Run, seen: Picture, name: str, number: int, boxes: NDArray[np.float64], scores: NDArray[np.float64]
    ) -> Poses:
        regions = [region(box, self.size, self.padding) for box in boxes.tolist()]
        crops = [upright(seen, crop_matrix(*each, self.size), self.size) for each in regions]
        images = np.stack([as_input(crop, self.mean, self.std) for crop in crops])
        outputs = run("model", images)
        if self.flip_test:
            other = self.decoding.mirrored(run("model", images[..., ::-1]), self.skeleton.flip_index)
            outputs = tuple((a + b) / 2 for a, b in zip(outputs, other, strict=True))
        joints, sure = self.decoding.decode(outputs)
        centres, sides = (np.stack(values).astype(np.float32) for values in zip(*regions, strict=True))
        keypoints = np.concatenate([to_image(joints, centres, sides, self.size), sure[..., None]], axis=-1)
        box_scores = scores.astype(np.float32)
        found = rescored(box_scores, sure).astype(np.float32)
        return Poses(name, number, keypoints, found, boxes.astype(np.float32), box_scores, self.skeleton)


class ExportedSingleStage(ExportedSystem):
    """Everyone's pose: ``before`` of type ``whole``, ``after`` of type ``single_stage``.

    The graph ``image`` gives features, centres and a shared map; centres are looked for and the features at them
    gathered; the graph ``people`` makes their heatmaps.
    """

    graphs: ClassVar[tuple[str, ...]] = ("image", "people")

    def __init__(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        short = whole(before["short"])
        self.shorts = [short, *(whole(short_side(short, float(scale))) for scale in before["scales"])]
        self.mean, self.std = before["mean"], before["std"]
        self.most, self.threshold, self.kernel = int(after["most"]), float(after["threshold"]), int(after["kernel"])
        self.flip_test, self.nms = bool(after["flip_test"]), after["nms"]
        self.skeleton = Skeleton.of(after["skeleton"])

    def read(self, given: Given, name: str) -> Picture:
        return read_photograph(given, name)

    def picture(self, seen: Picture) -> Picture:
        return seen

    def predict(self, run: Run, seen: Picture, name: str, number: int | None, boxes: Boxes | None) -> Poses:
        refuse_boxes(boxes)
        require_compact(seen.shape[1], seen.shape[0], name)
        parts = [self._at(run, seen, short) for short in self.shorts]
        joints, scores = (np.concatenate(each) for each in zip(*parts, strict=True))
        if self.nms is not None:
            kept = oks_nms(joints, scores, extent(joints), self.skeleton.sigmas, float(self.nms))
            joints, scores = joints[kept], scores[kept]
        none = np.zeros((0, 4), dtype=np.float32)
        return Poses(
            name, number_of(name) if number is None else number, joints, scores, none, none[:, 0], self.skeleton
        )

    def _at(self, run: Run, seen: Picture, short: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Joints in pixels of the picture and scores of poses, found with a shorter side of ``short`` pixels."""
        plan = enlarged(seen.shape[1], seen.shape[0], short)
        images = as_input(upright(seen, plan.matrix, plan.size), self.mean, self.std)[None]
        views = [run("image", images)]
        if self.flip_test:
            views.append(tuple(x[..., ::-1] for x in run("image", images[..., ::-1])))
        centres = np.stack([view[1][0] for view in views]).mean(axis=0, dtype=np.float32)
        cells, sure = find_centres(centres, self.most, self.threshold, self.kernel)
        if not len(cells):
            return np.zeros((0, self.skeleton.count, 3), np.float32), np.zeros(0, np.float32)
        maps = []
        for features, _, shared in views:
            vectors = np.ascontiguousarray(features[0, :, cells[:, 0], cells[:, 1]])
            maps.append(run("people", shared, vectors, cells)[0])
        heatmaps = maps[0] if len(maps) == 1 else (maps[0] + maps[1][:, self.skeleton.flip_index]) / 2
        joints, scores = decode_poses(heatmaps, sure, self.kernel)
        joints[..., :2] = mapped(inverse(plan.matrix), joints[..., :2])
        return joints, scores
