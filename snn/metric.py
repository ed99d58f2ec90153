"""Scores of a spiking classifier: accuracy over time steps, how it fires, and what work it does."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from snn.energy import energy_card, energy_nj
from snn.scores import Layers, SpikeScores, first_settled
from vision.classification import metrics
from vision.engine.task import Batch, Metric


@dataclass(frozen=True)
class _Record:
    logits: NDArray[np.float32]
    label: int
    by_step: tuple[int, ...]
    rates: tuple[float, ...]
    operations: tuple[float, ...]
    layers: Layers


def _tied(logits: NDArray[np.float32]) -> bool:
    """Whether the highest score is that of several classes, of which only the order chose one."""
    return bool((logits == logits.max()).sum() > 1)


class SpikingMetric(Metric):
    """Accuracy, ties, when answers settle, firing rate, synaptic operations and energy; tables by layer and step.

    Args:
        classes: their names.
    """

    primary = "accuracy"
    others: ClassVar[dict[str, str]] = dict.fromkeys(
        ("tied", "decided", "firing_rate", "synaptic_operations", "energy_nj"), "min"
    )

    def __init__(self, classes: list[str]) -> None:
        super().__init__()
        self.classes = classes

    def measure(self, prediction: SpikeScores, batch: Batch, position: int) -> _Record:
        assert prediction.layers is not None
        return _Record(
            prediction.logits, int(batch["label"][position]), tuple(prediction.by_step),
            tuple(prediction.rates.values()), tuple(prediction.operations.values()), prediction.layers,
        )  # fmt: skip

    def score(self, records: list[_Record]) -> dict[str, float]:
        layers, steps = records[0].layers, len(records[0].by_step)
        sizes = np.array(list(layers.neurons.values()), float)
        rates = np.mean([r.rates for r in records], axis=0)
        return {
            "accuracy": float(np.mean([r.by_step[-1] == r.label for r in records])),
            "tied": float(np.mean([_tied(r.logits) for r in records])),
            "decided": float(np.mean([first_settled(list(r.by_step)) for r in records])),
            "firing_rate": float((rates * sizes).sum() / sizes.sum()),
            "synaptic_operations": float(np.mean([sum(r.operations) for r in records])),
            "energy_nj": energy_nj(self._operations(records), layers.analogue, float(sizes.sum()) * steps),
        }

    def tables(self, records: list[_Record]) -> dict[str, Any]:
        layers, steps = records[0].layers, len(records[0].by_step)
        right = np.array([[answer == r.label for answer in r.by_step] for r in records])
        rates = np.mean([r.rates for r in records], axis=0)
        rows = [
            [name, float(rate), layers.thresholds[name], layers.leaks[name], layers.neurons[name]]
            for name, rate in zip(layers.neurons, rates, strict=True)
        ]
        updates = float(sum(layers.neurons.values())) * steps
        found: dict[str, Any] = {
            "early_exit": {
                "type": "curve",
                "title": "Accuracy over time steps",
                "x_label": "time steps",
                "y_label": "accuracy",
                "x": list(range(1, steps + 1)),
                "y": right.mean(axis=0).tolist(),
            },
            "layers": {
                "type": "bins",
                "title": "Layers: spikes a neuron and step, mean threshold, leak",
                "columns": ["layer", "firing rate", "threshold", "leak", "neurons"],
                "rows": rows,
            },
            "energy": energy_card(self._operations(records), layers.analogue, layers.macs, updates),
        }
        if len(self.classes) <= 100:
            logits = np.stack([r.logits for r in records])
            matrix = metrics.confusion_matrix(logits, np.array([r.label for r in records], dtype=np.int64))
            found["confusion"] = {
                "type": "matrix",
                "title": "Confusion (rows: true class, columns: predicted)",
                "labels": self.classes,
                "values": matrix.tolist(),
            }
        return found

    @staticmethod
    def _operations(records: list[_Record]) -> dict[str, float]:
        means = np.mean([r.operations for r in records], axis=0)
        return dict(zip(records[0].layers.macs, means.tolist(), strict=True))
