"""What a classifier says of an image. Nothing here needs PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision.engine.prediction import Picture, Prediction
from vision.report.figures import TRUTH, WRONG, banner, enlarge

SHOWN = 5
"""Classes a prediction names, most probable first."""


@dataclass
class Scores(Prediction):
    """The probabilities a classifier gives to an image's classes.

    Attributes:
        label: the most probable class.
        confidence: its probability.
        probabilities: of the five most probable classes, by name.
        logits: of all classes, float32 ``[C]``; not written to files.
    """

    label: str
    confidence: float
    probabilities: dict[str, float]
    logits: NDArray[np.float32]

    def draw(self, image: Picture, truth: Any = None) -> Picture:
        """The image with the label on it: green where it is the ``truth``, red where it is not."""
        text, image = f"{self.label} {self.confidence:.2f}", enlarge(image, 112)
        if truth is None:
            return banner(image, text)
        right = self.label == truth
        return banner(image, text if right else f"{text}, is {truth}", TRUTH if right else WRONG)

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "label": self.label,
            "confidence": round(self.confidence, 6),
            "probabilities": {name: round(p, 6) for name, p in self.probabilities.items()},
        }


def softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Probabilities from logits, along the last axis, in float64.

    Example:
        >>> softmax(np.array([0.0, np.log(3.0)])).round(6).tolist()
        [0.25, 0.75]
    """
    wide = np.asarray(logits, dtype=np.float64)
    shares = np.exp(wide - wide.max(-1, keepdims=True))
    result: NDArray[np.float64] = shares / shares.sum(-1, keepdims=True)
    return result


def most_probable(logits: NDArray[np.floating[Any]], classes: Sequence[str]) -> dict[str, float]:
    """The probabilities of the :data:`SHOWN` most probable classes of one sample; of equal ones the first.

    Args:
        logits: shape ``[C]``.
        classes: their names.
    """
    shares = softmax(logits)
    return {classes[k]: float(shares[k]) for k in np.argsort(-shares, kind="stable")[:SHOWN]}


def scores_of(ids: Sequence[str], logits: NDArray[np.float32], classes: Sequence[str]) -> list[Scores]:
    """The predictions of a batch.

    Args:
        ids: of the samples.
        logits: shape ``[N, C]``.
        classes: their names.
    """
    found = []
    for name, row in zip(ids, logits, strict=True):
        shares = most_probable(row, classes)
        label = next(iter(shares))
        found.append(Scores(name, label, shares[label], shares, row))
    return found
