"""Infrared targets where the network is an exported file: an image in, detections out. Nothing here needs PyTorch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from vision.engine.errors import DataError
from vision.engine.exported import Boxes, ExportedSystem, Given, Run, refuse_boxes
from vision.engine.prediction import Picture
from vision.infrared.detection import detect
from vision.infrared.reading import as_float, pixels_of, read_infrared
from vision.infrared.targets import (
    SMALLEST_SIDE,
    Count,
    Gray,
    Targets,
    as_input,
    counts_of,
    too_small,
    visible,
)
from vision.report.figures import enlarge, to_picture


def read_gray(given: Given, name: str, bits: int | None = None) -> Gray:
    """Gray values in [0, 1] of a file, a Pillow image, or of pixels.

    Args:
        given: also uint8 ``[H, W]``, or float ``[H, W]`` in [0, 1].
        name: what an error calls it.
        bits: significant bits of an image of more than 8.

    Raises:
        DataError: as :func:`vision.infrared.reading.read_infrared`, or too few pixels.
    """
    if isinstance(given, np.ndarray):
        raw = _of_array(given, name)
    elif isinstance(given, Image.Image):
        raw = as_float(pixels_of(given, name, bits))
    else:
        raw = read_infrared(given, bits)
    if min(raw.shape) < SMALLEST_SIDE:
        raise DataError(too_small(name, raw.shape))
    return raw


def _of_array(values: np.ndarray, name: str) -> Gray:
    if values.dtype == np.uint8 and values.ndim in (2, 3) and values.shape[2:] in ((), (3,)):
        return as_float(pixels_of(Image.fromarray(values), name))
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
        raise DataError(
            f"{name}: pixels are {values.dtype} {list(values.shape)}, expected uint8 [H, W] or [H, W, 3], "
            "or floating point [H, W] in [0, 1]"
        )
    if not (np.isfinite(values).all() and values.min(initial=0) >= 0 and values.max(initial=0) <= 1):
        raise DataError(f"{name}: floating-point pixels must lie in [0, 1]; rescale them")
    return values.astype(np.float32)


class ExportedTargets(ExportedSystem):
    """Targets in images of any size: ``before`` of type ``infrared``, ``after`` of type ``targets``."""

    def __init__(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        self.bits, self.how = before["bits"], before["normalise"]
        self.mean, self.std, self.high_pass = before["mean"], before["std"], bool(before["high_pass"])
        self.threshold, self.min_area = float(after["threshold"]), int(after["min_area"])
        if self.how not in ("image", "dataset"):
            raise ValueError(f"normalise {self.how!r}")

    def read(self, given: Given, name: str) -> Gray:
        return read_gray(given, name, self.bits)

    def picture(self, seen: Gray) -> Picture:
        return to_picture(visible(seen))

    def predict(self, run: Run, seen: Gray, name: str, number: int | None, boxes: Boxes | None) -> Targets:
        refuse_boxes(boxes)
        (logits,) = run("model", as_input(seen, self.how, self.mean, self.std, self.high_pass)[None])
        probability = sigmoid(logits[0, 0])
        found = detect(probability, self.threshold, self.min_area)
        return Targets(name, found, probability, self.threshold)


def sigmoid(logits: Gray) -> Gray:
    r""":math:`1 / (1 + e^{-x})` in float32, without overflow."""
    small = np.exp(-np.abs(logits))
    result: Gray = np.where(logits >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)
    return result


class ExportedCounting(ExportedSystem):
    """Counts of targets in target images: ``before`` of type ``target_image``, ``after`` of type ``count``."""

    def __init__(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        self.classes = int(after["classes"])

    def read(self, given: Given, name: str) -> Gray:
        return read_gray(given, name)

    def picture(self, seen: Gray) -> Picture:
        return enlarge(to_picture(seen), 128)

    def predict(self, run: Run, seen: Gray, name: str, number: int | None, boxes: Boxes | None) -> Count:
        refuse_boxes(boxes)
        (logits,) = run("model", seen[None, None])
        return counts_of([name], logits)[0]
