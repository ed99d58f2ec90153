"""Spiking classification where the network is an exported file. Nothing here needs PyTorch."""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn.events import at_size, checked, event_picture, given_events, to_frames
from snn.scores import SpikeScores, scores_of
from vision.classification.exported import ImageReader
from vision.classification.pixels import Pixels, as_picture
from vision.engine.exported import Boxes, ExportedSystem, Given, Run, refuse_boxes, whole
from vision.engine.prediction import Picture

Frames = NDArray[np.float32]
"""Counts of events, shape ``[T, 2, H, W]``."""


class ExportedSpiking(ExportedSystem):
    """Scores of a spiking network: ``before`` of type ``image`` or ``frames``, ``after`` of type ``spikes``.

    What only a look inside the network tells (firing rates, operations, rasters) is empty.
    """

    def __init__(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        self.classes, self.output = [str(name) for name in after["classes"]], after["output"]
        if self.output not in ("spikes", "logits", "leaky"):
            raise ValueError(f"output {self.output!r}")
        self.reader = _Images(before) if before["type"] == "image" else _Recordings(before)

    def read(self, given: Given, name: str) -> Pixels | Frames:
        return self.reader.read(given, name)

    def picture(self, seen: Any) -> Picture:
        return self.reader.picture(seen)

    def predict(self, run: Run, seen: Any, name: str, number: int | None, boxes: Boxes | None) -> SpikeScores:
        refuse_boxes(boxes)
        (outputs,) = run("model", self.reader.input_of(seen, name))
        return scores_of([name], outputs, self.output, self.classes)[0]


class _Images:
    """Static images, shown as they are, or as random spikes."""

    def __init__(self, before: Mapping[str, Any]) -> None:
        self.images = ImageReader(before)
        self.steps = whole(before["steps"]) if before["encoding"] == "poisson" else None

    def read(self, given: Given, name: str) -> Pixels:
        return self.images.read(given, name)

    def picture(self, seen: Pixels) -> Picture:
        return as_picture(seen)

    def input_of(self, seen: Pixels, name: str) -> Frames:
        """The image ``[1, C, H, W]``, or its spikes ``[1, T, C, H, W]``."""
        image = self.images.input_of(seen)
        return image if self.steps is None else poisson(image[0], self.steps, name)[None]


class _Recordings:
    """Recordings of an event camera."""

    def __init__(self, before: Mapping[str, Any]) -> None:
        self.steps, self.height, self.width = (whole(before[key]) for key in ("frames", "height", "width"))
        self.size = None if before["size"] is None else whole(before["size"])
        self.split_by, self.duration = before["split_by"], before["duration"]
        if self.split_by not in ("number", "time"):
            raise ValueError(f"split_by {self.split_by!r}")

    def read(self, given: Given, name: str) -> Frames:
        """Frames of an npz file with arrays ``t``, ``x``, ``y`` and ``p``, or of :class:`~snn.events.Events`."""
        events = given_events(given, name)
        checked(events, self.height, self.width, name)
        frames = to_frames(events, self.steps, self.height, self.width, self.split_by, self.duration)
        return frames if self.size is None else at_size(frames, self.size)

    def picture(self, seen: Frames) -> Picture:
        return event_picture(seen)

    def input_of(self, seen: Frames, name: str) -> Frames:
        """Frames ``[1, T, 2, H, W]``."""
        return seen[None]


def poisson(image: Frames, steps: int, name: str) -> Frames:
    """The random spikes that :func:`snn.encoders.poisson` draws for a sample of this name: ``[T, C, H, W]``.

    PyTorch's generator is a Mersenne twister whose every number gives the 24 bits of one spike's threshold.

    Args:
        image: intensities in [0, 1], ``[C, H, W]``.
        steps: T.
        name: of the sample.
    """
    twister = np.random.RandomState(zlib.crc32(name.encode()))
    drawn = twister.randint(0, 2**32, (steps, *image.shape), dtype=np.uint32)
    thresholds = (drawn & np.uint32(2**24 - 1)).astype(np.float32) * np.float32(2.0**-24)
    return (thresholds < image).astype(np.float32)
