"""One command from a teacher's run to a temperature and a weight: attacks, cached logits, the search, its picture."""

import hashlib
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robust.adversarial import AdversarialClassification, Attack
from robust.calibration import Calibration, search_calibration
from vision.classification.data import ClassificationDataset
from vision.engine.distributed import World
from vision.engine.errors import ConfigError
from vision.engine.evaluation import to_device
from vision.engine.files import make_folder, replacing, write_json
from vision.engine.loading import load
from vision.engine.registry import register
from vision.engine.run import RunFolder
from vision.engine.seeding import seed_everything, seed_of
from vision.engine.train import load_run

log = logging.getLogger(__name__)

Logits = NDArray[np.float32]
Labels = NDArray[np.int64]


@register("calibration_search", kind="step")
@dataclass
class CalibrationSearch:
    """Finds the temperature and the teacher's share for calibrated labels; never looks at test images.

    The best and the last checkpoint of one adversarial run are attacked on the validation split, the best one also on
    the training images without augmentation. Logits are kept in ``logits/``, under a name that tells what they are of,
    so that a search that was interrupted, or is repeated with another constraint, does not attack again. Written are
    ``calibration.json`` and ``surface.png``.

    Args:
        teacher: the run folder, such as ``${stages.teacher.run}``.
        minimum_accuracy: as in :func:`~robust.calibration.search_calibration`; None lifts it.
        attack: PGD-10 from a random start by default.
        val_images: attack at most this many validation images, evenly spread; None all.
        train_images: the same of training images. The release attacks all of both.
        batch_size: of the attacks.
        seed: of their starts.

    Raises:
        ConfigError: the folder is no adversarial run, or the constraint cannot be met.

    Deviation: the release scores on test images; this takes the validation split, which the best checkpoint was chosen
    on too.

    Source: Dong, Liu & Shang, arXiv 2110.03135, section 5; the authors' release.
    """

    teacher: str
    minimum_accuracy: float | None = 0.9
    attack: Attack = field(default_factory=Attack)
    val_images: int | None = None
    train_images: int | None = None
    batch_size: int = 256
    seed: int = 0

    def run(self, folder: Path) -> dict[str, Any]:
        """Searches, and writes into ``folder``; what later stages may refer to is returned."""
        for name in ("val_images", "train_images", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"calibration_search.{name}: {value} is below 1")
        best_val, labels = self._logits(folder, "best", "val")
        last_val, _ = self._logits(folder, "last", "val")
        best_train, train_labels = self._logits(folder, "best", "train")
        found = search_calibration(best_val, last_val, labels, best_train, train_labels, self.minimum_accuracy)
        result: dict[str, Any] = {
            "temperature": found.temperature,
            "weight": found.weight,
            "nll": found.nll,
            "train_accuracy": found.train_accuracy,
            "one_hot_proxy_nll": float(found.nll_surface[_nearest(found.temperatures, 1.0), 0]),
            "validation_images": len(labels),
            "train_images": len(train_labels),
        }
        about = {**result, "minimum_accuracy": self.minimum_accuracy, "teacher": self.teacher, "split": "val"}
        write_json(folder / "calibration.json", about)
        draw_surface(found, folder / "surface.png")
        log.info("temperature %.4g, weight %.2f: NLL %.4f, labels right on %.1f %% of training images",
                 found.temperature, found.weight, found.nll, 100 * found.train_accuracy)  # fmt: skip
        return result

    def rehearse(self, folder: Path) -> dict[str, Any]:
        """:meth:`run` on a few images and one step, for a dry run, whose fresh weights meet no constraint."""
        attack = replace(self.attack, steps=1, restarts=1)
        return replace(self, attack=attack, val_images=8, train_images=8, minimum_accuracy=None).run(folder)

    def _logits(self, folder: Path, checkpoint: str, split: str) -> tuple[Logits, Labels]:
        run = RunFolder(Path(self.teacher))
        config, recipe, task, file = load_run(run.path, checkpoint, [])
        if not isinstance(task, AdversarialClassification):
            raise ConfigError(f"{self.teacher}: '{recipe.task['type']}' is no adversarial run; calibration needs one")
        dataset: Any = task.train_data() if split == "train" else task.val_data()
        dataset = ClassificationDataset(dataset.images, task.data.prepare(train=False))  # without augmentation
        places = list(range(len(dataset)))
        most = self.train_images if split == "train" else self.val_images
        if most is not None and most < len(places):
            places = np.linspace(0, len(places) - 1, most).astype(int).tolist()
        about = (file.read_bytes(), config.yaml, self.attack, task.threat, len(places), self.batch_size, self.seed)
        digest = hashlib.sha256("|".join(_told(each) for each in about).encode()).hexdigest()[:16]
        cache = folder / "logits" / f"{checkpoint}_{split}_{digest}.npz"
        if cache.is_file():
            log.info("logits of %s on %s images: taken from %s", checkpoint, split, cache.name)
            with np.load(cache, allow_pickle=False) as archive:
                return archive["logits"], archive["labels"]
        device = World(torch.device("cpu")).on(recipe.trainer.device).device
        task.to(device)
        found = self._attacked(task, dataset, places, device, recipe.trainer.workers, (checkpoint, split))
        make_folder(cache.parent)
        with replacing(cache) as temporary, temporary.open("wb") as stream:
            np.savez(stream, logits=found[0], labels=found[1])
        return found

    def _attacked(
        self, task: AdversarialClassification, dataset: Any, places: list[int], device: torch.device, workers: int,
        name: tuple[str, str],
    ) -> tuple[Logits, Labels]:  # fmt: skip
        task.eval()
        batches = [places[i : i + self.batch_size] for i in range(0, len(places), self.batch_size)]
        log.info("attacking %s on %d %s images", name[0], len(places), name[1])
        logits, labels = [], []
        for indices, batch in zip(
            batches, load(dataset, batches, (self.seed, *name), task.collate, workers), strict=True
        ):
            batch = to_device(batch, device)
            seed_everything(seed_of(self.seed, *name, indices[0]))
            attacked = self.attack.run(task.network, batch["image"], batch["label"], task.threat)
            with torch.no_grad():
                logits.append(task.network(attacked).float().cpu().numpy())
            labels.append(batch["label"].cpu().numpy())
        return np.concatenate(logits), np.concatenate(labels)


def _told(value: Any) -> str:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)


def _nearest(values: NDArray[np.float64], value: float) -> int:
    return int(np.argmin(np.abs(values - value)))


def draw_surface(found: Calibration, path: Path) -> None:
    """Draws the NLL over temperature and weight, what the constraint forbids greyed out, and the choice as a star.

    Args:
        found: what a search found.
        path: a ``.png`` file.
    """
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    nll = found.nll_surface
    top = float(np.quantile(nll, 0.8))
    levels = np.linspace(float(nll.min()), top, 24) if top > nll.min() else 8
    drawn = axes.contourf(found.weights, found.temperatures, nll, levels=levels, cmap="viridis", extend="max")
    figure.colorbar(drawn, label="NLL of the calibrated label (nats)")
    if not found.allowed.all():
        axes.contourf(found.weights, found.temperatures, ~found.allowed, levels=[0.5, 1.5], colors="0.6", alpha=0.75)
        axes.plot([], [], "s", color="0.6", label=f"labels right on less than {found.minimum_accuracy:.0%}")
    label = f"T = {found.temperature:.3g}, weight {found.weight:.2f}, NLL {found.nll:.3f}"
    axes.plot(found.weight, found.temperature, "*", color="tab:red", markersize=14, label=label, clip_on=False)
    axes.set(xlabel="weight of the teacher", ylabel="temperature", yscale="log")
    axes.legend(loc="lower left", fontsize="small")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
