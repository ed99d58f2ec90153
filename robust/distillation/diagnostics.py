"""What tells a good teacher before any student is trained: calibration, confidence, agreement of views, layer terms."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset

from robust.averaging import WeightAverage
from robust.distillation.lipschitz import lipschitz_terms
from vision.classification import metrics
from vision.classification.task import Classification
from vision.engine.config import Config
from vision.engine.data import Sample
from vision.engine.environment import machine_summary
from vision.engine.errors import ConfigError
from vision.engine.evaluation import to_device
from vision.engine.files import make_folder, write_json
from vision.engine.loading import load, size_of
from vision.engine.recipe import Recipe
from vision.engine.registry import register
from vision.engine.train import load_run

Logits = NDArray[np.float32]


@torch.no_grad()
def logits_of(
    task: Classification, dataset: "Dataset[Sample]", view: int = 0, limit: int | None = None, batch_size: int = 256
) -> tuple[Logits, NDArray[np.int64]]:
    """The network's logits ``[N, C]`` and the labels ``[N]``, in eval mode.

    Args:
        task: whose network it is.
        dataset: in order; augmented where it augments, each sample from a seed of its own.
        view: another number is another augmentation.
        limit: so many samples at equal distances, as data may lie by class; None takes all.
        batch_size: samples in a forward pass.
    """
    size = size_of(dataset, "diagnosed")
    chosen = np.linspace(0, size - 1, min(size, limit or size)).round().astype(int).tolist()
    places = [chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size)]
    training = task.training
    task.eval()
    found, labels = [], []
    try:
        for batch in load(dataset, places, ("view", view), task.collate, 0):
            batch = to_device(batch, task.device)
            found.append(task.network(batch["image"]).float().cpu().numpy())
            labels.append(batch["label"].cpu().numpy())
    finally:
        task.train(training)
    return np.concatenate(found), np.concatenate(labels)


def softmax(logits: Logits) -> NDArray[np.float64]:
    """Probabilities ``[N, C]``."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    probabilities: NDArray[np.float64] = shifted / shifted.sum(1, keepdims=True)
    return probabilities


def total_variation(one: Logits, other: Logits) -> float:
    r"""How far two predictions are apart: the mean over samples of :math:`\frac 1 2 \sum_c |p_c - q_c|`, in [0, 1].

    Example:
        >>> total_variation(np.array([[0.0, 0.0]]), np.array([[50.0, 0.0]]))
        0.5
    """
    return float(np.abs(softmax(one) - softmax(other)).sum(1).mean() / 2)


def diagnose(task: Classification, limit: int | None = None, held_out_limit: int | None = None) -> dict[str, Any]:
    """What is to be known of a teacher.

    Args:
        task: with its trained network.
        limit: images of the training data that are looked at, at equal distances; None takes all.
        held_out_limit: likewise of the validation data.

    Returns:
        ``val_accuracy``, ``val_nll``, ``val_ece``: on images not trained on. ``train_confidence``: the mean largest
        probability of augmented training images; ``train_nll``: their cross-entropy with the labels.
        ``view_distance``: :func:`total_variation` between two augmented views of them (0 agree); ``view_agreement``:
        the share given the same class. ``lipschitz_sum`` and ``lipschitz``: the sum of layer terms, and by layer.
    """
    held_out, labels = logits_of(task, task.val_data(), limit=held_out_limit)
    one, train_labels = logits_of(task, task.train_data(), 0, limit)
    other, _ = logits_of(task, task.train_data(), 1, limit)
    terms = {name: float(term.detach()) for name, term in lipschitz_terms(_answering(task.network)).items()}
    return {
        "val_accuracy": metrics.top_k(held_out, labels),
        "val_nll": metrics.nll(held_out, labels),
        "val_ece": metrics.ece(held_out, labels),
        "train_confidence": float(softmax(one).max(1).mean()),
        "train_nll": metrics.nll(one, train_labels),
        "view_distance": total_variation(one, other),
        "view_agreement": float((one.argmax(1) == other.argmax(1)).mean()),
        "lipschitz_sum": sum(terms.values()),
        "lipschitz": terms,
    }


def _answering(network: nn.Module) -> nn.Module:
    return network.average if isinstance(network, WeightAverage) and int(network.count) else network


@register("teacher_diagnostics", kind="step")
@dataclass(frozen=True)
class TeacherDiagnostics:
    """Looks at a trained teacher: calibration, confidence, agreement of augmented views, terms of the Lipschitz sum.

    Attributes:
        run_folder: of the teacher.
        checkpoint: ``last`` or ``best``.
        limit: training images that are looked at, at equal distances; null takes all.
    """

    run_folder: Path
    checkpoint: Literal["last", "best"] = "last"
    limit: int | None = 2000

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"step.limit: {self.limit} is below 1; null looks at all training images")

    def rehearse(self, folder: Path) -> dict[str, Any]:
        """Looks at two images of each kind and keeps nothing, for a dry run."""
        diagnose(self._teacher()[2], 2, 2)
        return {}

    def _teacher(self) -> tuple[Config, Recipe, Classification, Path]:
        config, recipe, task, file = load_run(self.run_folder, self.checkpoint, [])
        if not isinstance(task, Classification):
            raise ConfigError(f"step.run_folder: {self.run_folder} is no run of a classifier")
        return config, recipe, task, file

    def run(self, folder: Path) -> dict[str, Any]:
        """The figures of :func:`diagnose`, also as an evaluation in ``folder``; layers' terms go to ``layers.json``.

        Raises:
            ConfigError: the run is no classifier's.
        """
        config, recipe, task, file = self._teacher()
        figures = diagnose(task, self.limit)
        write_json(folder / "layers.json", figures.pop("lipschitz"))
        about = {
            "split": "val",
            "name": recipe.name,
            "samples": size_of(task.val_data(), "diagnosed"),
            "metrics": figures,
            "tables": {},
            "checkpoint": self.checkpoint,
            "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "data": recipe.data,
            "seed": recipe.seed,
            "primary": "val_accuracy",
            "mode": "max",
            "network": recipe.task.get("network"),
            "parameters": sum(p.numel() for p in _answering(task.network).parameters()),
            "machine": machine_summary(),
            "config_sha256": config.hash,
        }
        make_folder(folder / "eval" / "diagnostics")
        write_json(folder / "eval" / "diagnostics" / "result.json", about)
        return figures
