"""Classification where the network is an exported file: images in, scores out. Nothing here needs PyTorch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision.classification.pixels import Pixels, as_input, as_picture, brought_to, read_pixels
from vision.classification.scores import Scores, scores_of
from vision.engine.exported import Boxes, ExportedSystem, Given, Run, refuse_boxes, whole
from vision.engine.prediction import Picture


class ImageReader:
    """How an image becomes the network's input: ``before`` of type ``image``.

    Args:
        before: ``size``, ``channels``, ``resize``, ``mean`` and ``std``.
    """

    def __init__(self, before: Mapping[str, Any]) -> None:
        self.size, self.channels = whole(before["size"]), int(before["channels"])
        self.resize, self.mean, self.std = before["resize"], before["mean"], before["std"]
        if self.resize not in ("stretch", "short_side") or self.channels not in (1, 3):
            raise ValueError(f"resize {self.resize!r}, channels {self.channels}")
        for values in (self.mean, self.std):
            if values is not None and len(values) != self.channels:
                raise ValueError(f"{len(values)} values for {self.channels} channels")

    def read(self, given: Given, name: str) -> Pixels:
        """The pixels at the network's size, ``[H, W, C]``.

        Raises:
            DataError: not an image of 8 bits.
        """
        pixels = read_pixels(given, name, self.channels)
        size = self.size
        return pixels if pixels.shape[:2] == (size, size) else brought_to(pixels, size, self.resize)

    def input_of(self, pixels: Pixels) -> NDArray[np.float32]:
        """What the network takes, ``[1, C, H, W]``."""
        return as_input(pixels, self.mean, self.std)[None]


class ExportedClassifier(ExportedSystem):
    """Scores of images: ``before`` of type ``image``, ``after`` of type ``classes``."""

    def __init__(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        self.reader, self.classes = ImageReader(before), [str(name) for name in after["classes"]]

    def read(self, given: Given, name: str) -> Pixels:
        return self.reader.read(given, name)

    def picture(self, seen: Pixels) -> Picture:
        return as_picture(seen)

    def predict(self, run: Run, seen: Pixels, name: str, number: int | None, boxes: Boxes | None) -> Scores:
        refuse_boxes(boxes)
        (logits,) = run("model", self.reader.input_of(seen))
        return scores_of([name], logits, self.classes)[0]
