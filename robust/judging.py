"""The step ``robust_evaluation``: best and last weights of a run under several attacks, and what lies between them."""

import hashlib
import logging
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robust.adversarial import Attack
from robust.corruptions import corruption_accuracy
from robust.evaluation import ATTACKS, AttackName, Judged, judge, sweep
from robust.masking import check_gradients
from robust.pictures import magnified
from robust.threat import ThreatModel
from vision.classification import Normalised
from vision.classification.task import Classification
from vision.engine.checkpoint import load_weights
from vision.engine.distributed import World
from vision.engine.errors import ConfigError
from vision.engine.evaluation import Evaluation, write_evaluation
from vision.engine.registry import register
from vision.engine.run import RunFolder
from vision.engine.train import load_run, single_run

log = logging.getLogger(__name__)

Checkpoint = Literal["best", "last"]
RADII = tuple(k / 255 for k in (0, 1, 2, 4, 6, 8, 12, 16))
"""The radii of a sweep, in image range."""

EXAMPLES = 6


@register("robust_evaluation", kind="step")
@dataclass(kw_only=True)
class RobustEvaluation:
    """Judges a run's best and last weights, clean and under attack, and reports their difference.

    For each it writes ``eval/<checkpoint>/`` with the figures, the accuracy over eps, what makes gradients suspicious,
    examples with the change magnified, and ``attacks/<attack>.jsonl``, an example a row. Interrupted, it goes on where
    it was. ``gap`` in the result is best minus last: robust overfitting, where it is above 0.

    Args:
        trained: a run folder.
        checkpoints: which weights.
        split: ``test``, or ``val`` (on which the best were chosen).
        attacks: of each (:data:`robust.evaluation.ATTACKS`; ``square`` and ``autoattack`` through pyautoattack).
        threat: None takes the run's own, or 8/255 in linf where it has none.
        limit: judge the first so many images.
        autoattack_limit: judge AutoAttack and Square on the first so many, being slow; None for all.
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
    autoattack_limit: int | None = None
    sweep: tuple[float, ...] = RADII
    few: int = 200
    batch_size: int = 128
    corruptions: str | None = None
    device: str = "auto"
    seed: int = 0
    prefix: str = ""
    overrides: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for name in ("limit", "autoattack_limit", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"robust_evaluation.{name}: {value} is below 1")
        if not self.checkpoints or not self.attacks or len(set(self.attacks)) != len(self.attacks):
            raise ConfigError("robust_evaluation: give at least one checkpoint, and attacks of different names")
        if self.few < 0:
            raise ConfigError(f"robust_evaluation.few: {self.few} is below 0")

    def run(self, folder: Path) -> dict[str, Any]:
        """Judges into ``folder``; figures by checkpoint, and ``gap``."""
        task = self._task()
        device = World(torch.device("cpu")).on(self.device).device
        run = RunFolder(single_run(Path(self.trained)))
        result: dict[str, dict[str, float]] = {}
        for checkpoint in self.checkpoints:
            file = run.checkpoints / f"{checkpoint}.safetensors"
            load_weights(task.network, file)
            network = in_image_range(task).to(device).eval()
            result[checkpoint] = self._judge(task, network, file, RunFolder(folder), checkpoint)
        if "best" in result and "last" in result:
            kept = [k for k in result["best"] if k in result["last"]]
            result["gap"] = {k: result["best"][k] - result["last"][k] for k in kept}
        return result

    def rehearse(self, folder: Path) -> dict[str, Any]:
        """:meth:`run` on one image by the attacks that take no more than 20 steps, for a dry run."""
        short = tuple(a for a in self.attacks if a in ATTACKS and ATTACKS[a].steps <= 20) or ("clean",)
        return replace(self, attacks=short, limit=1, few=0, corruptions=None).run(folder)

    def _task(self) -> Classification:
        task = load_run(Path(self.trained), self.checkpoints[0], list(self.overrides))[2]
        if not isinstance(task, Classification):
            raise ConfigError(f"{self.trained}: a run of the task '{type(task).__name__}' names no classes of images")
        return task

    def _judge(
        self, task: Classification, network: nn.Module, file: Path, folder: RunFolder, checkpoint: str
    ) -> dict[str, float]:
        task.data.normalise = False  # the network does it
        threat: ThreatModel = self.threat or getattr(task, "threat", None) or ThreatModel()
        dataset = task.data.val() if self.split == "val" else task.data.test()
        if dataset is None:
            raise ConfigError(f"{self.trained}: its data has no test split; set split: val")
        place = folder.eval_dir(self.prefix + checkpoint)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        device = next(network.parameters()).device
        figures: dict[str, float] = {}
        judged: dict[str, Judged] = {}
        for name in self.attacks:
            limit = self.limit
            if name in ("autoattack", "square") and self.autoattack_limit is not None:
                limit = min(self.autoattack_limit, limit or self.autoattack_limit)
            judged[name] = judge(
                network, dataset, name, threat, place / "attacks" / f"{name}.jsonl", weights=digest, limit=limit,
                batch_size=self.batch_size, seed=self.seed, device=device,
            )  # fmt: skip
            figures |= judged[name].figures
            log.info("%s: %s %.4f (%d images)", checkpoint, name, judged[name].accuracy, len(judged[name].rows))
        samples = max(len(j.rows) for j in judged.values())
        about: dict[str, Any] = {
            "split": self.split, "checkpoint": checkpoint, "weights_sha256": digest, "threat": asdict(threat),
            "images": {name: len(j.rows) for name, j in judged.items()}, "primary": self.attacks[-1], "mode": "max",
        }  # fmt: skip
        tables: dict[str, Any] = {}
        pictures: dict[str, bytes] = {}
        if self.few:
            images, labels = _first(dataset, min(self.few, samples), device)
            pictures = magnified(network, images[:EXAMPLES], labels[:EXAMPLES], threat, task.data.classes)
            if self.sweep:
                tables["sweep"] = _curve(self.sweep, sweep(network, images, labels, threat, self.sweep), threat)
            if threat.eps:
                about["checks"] = asdict(check_gradients(network, images, labels, threat))
                figures["masking_warnings"] = float(len(about["checks"]["warnings"]))
                for warning in about["checks"]["warnings"]:
                    log.warning("%s: masked gradients? %s", checkpoint, warning)
        if self.corruptions is not None:
            figures |= corruption_accuracy(network, Path(self.corruptions), self.batch_size, self.limit)
        write_evaluation(place, Evaluation(figures, samples, 0.0, tables, _rows(judged), pictures), about)
        return figures


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


def _curve(radii: tuple[float, ...], accuracies: list[float], threat: ThreatModel) -> dict[str, Any]:
    return {
        "type": "curve",
        "title": "Accuracy over eps",
        "x": [255 * eps for eps in radii],
        "y": accuracies,
        "x_label": f"eps in 1/255, {threat.norm}",
        "y_label": f"accuracy under PGD-{Attack(steps=20).steps}",
    }
