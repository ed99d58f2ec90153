"""What a spiking classifier says of a sample. Nothing here needs PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from snn.raster import beside, raster_picture
from vision.classification.scores import Scores, most_probable
from vision.engine.prediction import Picture

Output = Literal["spikes", "logits", "leaky"]
"""How a network ends: spiking neurons; a linear layer; a linear layer whose logits leak and add up over time."""


@dataclass(frozen=True)
class Layers:
    """What all samples of an evaluation share.

    Attributes:
        neurons: of each spiking layer, how many.
        thresholds: of each, the mean over its neurons.
        leaks: of each.
        macs: of each synapse, one dense pass, padding left out.
        analogue: of each, whether its input is real-valued.
    """

    neurons: dict[str, int]
    thresholds: dict[str, float]
    leaks: dict[str, float]
    macs: dict[str, int]
    analogue: dict[str, bool]


@dataclass
class SpikeScores(Scores):
    """What a spiking classifier says of a sample, and how it came to it.

    Attributes:
        answers: the class after each time step.
        decided: the first step from which the answer no longer changes, from 1.
        firing_rate: spikes a neuron and step, over all neurons; None where the neurons are not seen, as in an exported
            network, whose ``operations``, ``rates``, ``rasters`` and ``layers`` are empty too.
        operations: synaptic operations of each layer; not written to files.
        rates: spikes a neuron and step of each layer; not written.
        rasters: spikes of some neurons of each layer, ``[T, K]``; not written.
        by_step: the class number after each step; not written.
        layers: what the network is; not written.
    """

    answers: list[str] = field(default_factory=list)
    decided: int = 0
    firing_rate: float | None = None
    operations: dict[str, float] = field(default_factory=dict, repr=False)
    rates: dict[str, float] = field(default_factory=dict, repr=False)
    rasters: dict[str, NDArray[np.uint8]] = field(default_factory=dict, repr=False)
    by_step: list[int] = field(default_factory=list, repr=False)
    layers: Layers | None = field(default=None, repr=False)

    def draw(self, image: Picture, truth: Any = None) -> Picture:
        """The input with the label on it, and the raster of every layer beside."""
        labelled = super().draw(image, truth)
        return beside(labelled, raster_picture(self.rasters)) if self.rasters else labelled

    def to_dict(self) -> dict[str, Any]:
        found = super().to_dict() | {"answers": self.answers, "decided": self.decided}
        return found if self.firing_rate is None else found | {"firing_rate": round(self.firing_rate, 6)}


def first_settled(by_step: list[int]) -> int:
    """The first step, from 1, from which the answer no longer changes.

    Example:
        >>> first_settled([3, 1, 7, 7]), first_settled([2, 2])
        (3, 1)
    """
    last = len(by_step)
    while last > 1 and by_step[last - 2] == by_step[-1]:
        last -= 1
    return last


def scores_by_step(outputs: NDArray[np.float32], ends: Output) -> NDArray[np.float32]:
    """What classes are judged by after each step, ``[T, N, C]``: mean spikes or logits so far, or the readout.

    Args:
        outputs: of every step, ``[T, N, C]``.
        ends: how the network ends.
    """
    if ends == "leaky":
        return outputs
    counts = np.arange(1, len(outputs) + 1, dtype=np.float32)[:, None, None]
    return np.cumsum(outputs, axis=0, dtype=np.float32) / counts


def scores_of(
    ids: Sequence[str], outputs: NDArray[np.float32], ends: Output, classes: Sequence[str]
) -> list[SpikeScores]:
    """The predictions of a batch, without what only a look inside the network tells.

    Args:
        ids: of the samples.
        outputs: of every step, ``[T, N, C]``.
        ends: how the network ends.
        classes: their names.
    """
    scores = scores_by_step(outputs, ends)
    logits = scores[-1] * np.float32(len(outputs) if ends == "spikes" else 1)  # counts of spikes
    found = []
    for name, row, by_step in zip(ids, logits, scores.argmax(2).T.tolist(), strict=True):
        shares = most_probable(row, classes)
        label = next(iter(shares))
        found.append(
            SpikeScores(
                name, label, shares[label], shares, row, [classes[k] for k in by_step], first_settled(by_step),
                by_step=by_step,
            )
        )  # fmt: skip
    return found
