"""The step ``robust_evaluation``: best and last weights of a run under several attacks, and what lies between them."""

import hashlib
import logging
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robust.adversarial import Attack
from robust.autoattack import library_version
from robust.averaging import WeightAverage
from robust.corruptions import corruption_accuracy
from robust.evaluation import ATTACKS, AttackName, Judged, judge, sweep
from robust.masking import check_gradients, contradictions
from robust.pictures import magnified
from robust.threat import ThreatModel
from vision.classification import Normalised
from vision.classification.task import Classification
from vision.engine.checkpoint import load_weights
from vision.engine.config import Config
from vision.engine.distributed import World
from vision.engine.environment import machine_summary
from vision.engine.errors import ConfigError
from vision.engine.evaluation import Evaluation, write_evaluation
from vision.engine.recipe import Recipe
from vision.engine.registry import register
from vision.engine.run import RunFolder
from vision.engine.train import load_run, single_run

log = logging.getLogger(__name__)

Checkpoint = Literal["best", "last"]
RADII = tuple(k / 255 for k in (0, 1, 2, 4, 6, 8, 12, 16))
"""The radii of a sweep, in image range."""

SLOW: tuple[AttackName, ...] = ("pgd100", "square", "autoattack")
"""Attacks that ``slow_limit`` is about: hundreds to thousands of passes an image."""

EXAMPLES = 6


@register("robust_evaluation", kind="step")
@dataclass(kw_only=True)
class RobustEvaluation:
    """Judges a run's best and last weights, clean and under attack, and reports their difference.

    For each it writes ``eval/<checkpoint>/`` with the figures, the accuracy over eps, what makes gradients suspicious,
    examples with the change magnified, and ``attacks/<attack>.jsonl``, an example a row. Interrupted, it goes on where
    it was. ``gap`` in the result, and a table of the checkpoint judged second, are best minus last: robust overfitting,
    where it is above 0. Where both were asked for, ``overestimation`` is the accuracy under ``pgd20`` less that under
    ``autoattack``, on the images of the latter.

    Args:
        trained: a run folder.
        checkpoints: which weights.
        split: ``test``, or ``val`` (on which the best were chosen).
        attacks: of each (:data:`robust.evaluation.ATTACKS`; ``square`` and ``autoattack`` through pyautoattack).
        threat: None takes the run's own, or 8/255 in linf where it has none.
        limit: judge the first so many images.
        slow_limit: judge ``pgd100``, ``square`` and ``autoattack`` on the first so many; None for all. Where these are
            fewer than the others, the figures say how many (``autoattack_images``).
        sweep: radii at which the first ``few`` images are attacked by 20 steps; empty for none.
        few: images of the sweep, and of the checks on masked gradients; 0 for neither.
        batch_size: of the attacks.
        corruptions: a folder in the layout of CIFAR-10-C; None for none.
        device: ``auto`` takes a GPU where there is one.
        seed: of starts and searches.
        prefix: of the evaluations' names.
        overrides: ``a.b=c`` changes to the run's recipe, such as another ``data.root``.

    Raises:
        ConfigError: a run of another kind, or numbers out of range.
    """

    trained: str
    checkpoints: tuple[Checkpoint, ...] = ("best", "last")
    split: Literal["test", "val"] = "test"
    attacks: tuple[AttackName, ...] = ("clean", "pgd20", "pgd100", "autoattack")
    threat: ThreatModel | None = None
    limit: int | None = None
    slow_limit: int | None = None
    sweep: tuple[float, ...] = RADII
    few: int = 200
    batch_size: int = 128
    corruptions: str | None = None
    device: str = "auto"
    seed: int = 0
    prefix: str = ""
    overrides: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for name in ("limit", "slow_limit", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"robust_evaluation.{name}: {value} is below 1")
        if not self.checkpoints or not self.attacks or len(set(self.attacks)) != len(self.attacks):
            raise ConfigError("robust_evaluation: give at least one checkpoint, and attacks of different names")
        if self.few < 0:
            raise ConfigError(f"robust_evaluation.few: {self.few} is below 0")

    def run(self, folder: Path) -> dict[str, Any]:
        """Judges into ``folder``; figures by checkpoint, and ``gap``."""
        run = RunFolder(single_run(Path(self.trained)))
        config, recipe, task, _ = load_run(run.path, self.checkpoints[0], list(self.overrides))
        if not isinstance(task, Classification):
            raise ConfigError(f"{self.trained}: a run of the task '{type(task).__name__}' names no classes of images")
        device = World(torch.device("cpu")).on(self.device).device
        result: dict[str, dict[str, float]] = {}
        for checkpoint in self.checkpoints:
            file = run.checkpoints / f"{checkpoint}.safetensors"
            load_weights(task.network, file)
            network = in_image_range(task).to(device).eval()
            if recipe.trainer.channels_last:
                network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            about = {"checkpoint": checkpoint, **_origin(config, recipe, task, file)}
            result[checkpoint] = self._judge(task, network, RunFolder(folder), about, result)
        if len(result) > 1:
            result["gap"] = gap_of(result)
            log.info("best less last: %s", ", ".join(f"{k} {result['gap'][k]:+.4f}" for k in self.attacks))
        return result

    def rehearse(self, folder: Path) -> dict[str, Any]:
        """:meth:`run` on one image by the attacks that take no more than 20 steps, for a dry run."""
        short = tuple(a for a in self.attacks if a in ATTACKS and ATTACKS[a].steps <= 20) or ("clean",)
        return replace(self, attacks=short, limit=1, few=0, corruptions=None).run(folder)

    def _judge(
        self,
        task: Classification,
        network: nn.Module,
        folder: RunFolder,
        about: dict[str, Any],
        before: dict[str, dict[str, float]],
    ) -> dict[str, float]:
        begun = time.perf_counter()
        task.data.normalise = False  # the network does it
        threat: ThreatModel = self.threat or getattr(task, "threat", None) or ThreatModel()
        dataset = task.data.val() if self.split == "val" else task.data.test()
        if dataset is None:
            raise ConfigError(f"{self.trained}: its data has no test split; set split: val")
        place = folder.eval_dir(self.prefix + about["checkpoint"])
        device = next(network.parameters()).device
        judged = self._attacked(network, dataset, threat, place / "attacks", about)
        samples = max(len(j.rows) for j in judged.values())
        figures = figures_of(judged)
        warnings = {name: j.warnings for name, j in judged.items() if j.warnings}
        if contradicting := contradictions(judged):
            warnings["attacks"] = contradicting
        tables: dict[str, Any] = {}
        pictures: dict[str, bytes] = {}
        if self.few:
            images, labels = _first(dataset, min(self.few, samples), device)
            pictures = magnified(network, images[:EXAMPLES], labels[:EXAMPLES], threat, task.data.classes)
            if self.sweep:
                standing = sweep(network, images, labels, threat, self.sweep, batch_size=self.batch_size)
                tables["sweep"] = _curve(self.sweep, standing, threat, len(images))
            if threat.eps:
                checks = check_gradients(network, images, labels, threat)
                figures["masking_warnings"] = float(len(checks.warnings))
                about |= {"checks": asdict(checks)}
                warnings |= {"gradients": list(checks.warnings)} if checks.warnings else {}
        for name, texts in warnings.items():
            for text in texts:
                log.warning("%s, %s: %s", about["checkpoint"], name, text)
        if self.corruptions is not None:
            figures |= corruption_accuracy(network, Path(self.corruptions), self.batch_size, self.limit)
        if before:
            tables["gap"] = _gap_table({**before, about["checkpoint"]: figures})
        about |= {
            "split": self.split, "threat": asdict(threat), "primary": self.attacks[-1], "mode": "max",
            "counts": counts_of(judged),
            "images": {name: len(j.rows) for name, j in judged.items()}, "warnings": warnings,
            "library": library_version() if {"autoattack", "square"} & set(judged) else None,
        }  # fmt: skip
        seconds = time.perf_counter() - begun
        write_evaluation(place, Evaluation(figures, samples, seconds, tables, _rows(judged), pictures), about)
        return figures

    def _attacked(
        self, network: nn.Module, dataset: Any, threat: ThreatModel, folder: Path, about: dict[str, Any]
    ) -> dict[str, Judged]:
        """Every attack's rows, by its name."""
        judged: dict[str, Judged] = {}
        for name in self.attacks:
            limit = self.limit
            if name in SLOW and self.slow_limit is not None:
                limit = min(self.slow_limit, limit or self.slow_limit)
            judged[name] = judge(
                network, dataset, name, threat, folder / f"{name}.jsonl", weights=about["weights_sha256"], limit=limit,
                batch_size=self.batch_size, seed=self.seed,
            )  # fmt: skip
            images = len(judged[name].rows)
            log.info("%s: %s %.4f (%d images)", about["checkpoint"], name, judged[name].accuracy, images)
        return judged


def figures_of(judged: dict[str, Judged]) -> dict[str, float]:
    """The figures of all attacks; how many images saw those that saw fewer; and by how much PGD-20 flatters."""
    samples = max(len(j.rows) for j in judged.values())
    found: dict[str, float] = {}
    for name, attack in judged.items():
        found |= attack.figures
        if len(attack.rows) < samples:
            found[f"{name}_images"] = float(len(attack.rows))
    if "pgd20" in judged and "autoattack" in judged:
        robust = {row.id: row.robust for row in judged["pgd20"].rows}
        both = [(robust[row.id], row.robust) for row in judged["autoattack"].rows if row.id in robust]
        found["overestimation"] = sum(pgd - auto for pgd, auto in both) / len(both)
    return found


def counts_of(judged: dict[str, Judged]) -> dict[str, int]:
    """How many images each figure of an attack is of that saw fewer than others did."""
    samples = max(len(j.rows) for j in judged.values())
    return {name: len(j.rows) for j in judged.values() if len(j.rows) < samples for name in j.figures}


def gap_of(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    """Best less last of every figure that both have; of accuracies above 0: robust overfitting."""
    best, last = figures["best"], figures["last"]
    return {k: best[k] - last[k] for k in best if k in last and not k.endswith("_images")}


def _gap_table(figures: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Both checkpoints' figures and their difference, for the report."""
    rows = [[k, figures["best"][k], figures["last"][k], gap] for k, gap in gap_of(figures).items()]
    title = "Best less last weights: robust overfitting where that of an accuracy is above 0"
    return {"type": "bins", "title": title, "columns": ["figure", "best", "last", "difference"], "rows": rows}


def _origin(config: Config, recipe: Recipe, task: Classification, file: Path) -> dict[str, Any]:
    """What was judged, in the words of an evaluation that ends a training."""
    network = task.network.trained if isinstance(task.network, WeightAverage) else task.network
    return {
        "name": recipe.name,
        "seed": recipe.seed,
        "data": recipe.data,
        "network": recipe.task.get("network"),
        "parameters": sum(p.numel() for p in network.parameters()),
        "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "config_sha256": config.hash,
        "machine": machine_summary(),
    }


def in_image_range(task: Classification) -> nn.Module:
    """The task's network as one of images in [0, 1]: with the data's normalisation before it where it lacks one."""
    return Normalised(task.network, task.data.mean, task.data.std) if task.data.normalise else task.network


def _rows(judged: dict[str, Judged]) -> list[dict[str, Any]]:
    """One line an example: what broke it under each attack."""
    lines: dict[str, dict[str, Any]] = {}
    for name, found in judged.items():
        for row in found.rows:
            lines.setdefault(row.id, {"id": row.id, "label": row.label})[name] = row.broken_by
    return list(lines.values())


def _first(dataset: Any, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    samples = [dataset[i] for i in range(count)]
    images = torch.stack([s["image"] for s in samples]).to(device)
    return images, torch.tensor([int(s["label"]) for s in samples], device=device)


def _curve(radii: tuple[float, ...], accuracies: list[float], threat: ThreatModel, images: int) -> dict[str, Any]:
    return {
        "type": "curve",
        "title": f"Accuracy over eps, first {images} images",
        "x": [255 * eps for eps in radii],
        "y": accuracies,
        "x_label": f"eps in 1/255, {threat.norm}",
        "y_label": f"accuracy under PGD-{Attack(steps=20).steps}",
    }
