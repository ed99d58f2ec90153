"""The tasks of TBC-Net: training the target extraction module, and before that the semantic constraint module."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vision.engine.checkpoint import load_weights
from vision.engine.data import Sample
from vision.engine.deployment import Deployment, images_graph
from vision.engine.errors import ConfigError
from vision.engine.exported import Given, name_of
from vision.engine.folding import deployed
from vision.engine.prediction import Picture
from vision.engine.registry import register
from vision.engine.task import Batch, Losses, Metric, StepContext, Task
from vision.infrared.clutter import ClutterRecord, clutter_record, clutter_summary
from vision.infrared.detection import detect
from vision.infrared.exported import read_gray
from vision.infrared.losses import PRESETS, Region, TBCLoss, Weights
from vision.infrared.metrics import MatchRecord, match_targets, score, score_by
from vision.infrared.modules import InfraredData, ScmScenes
from vision.infrared.roc import CurveRecord, curve_record, roc
from vision.infrared.targets import SMALLEST_SIDE, Count, Targets, counts_of, visible
from vision.infrared.tbcnet import SCM, freeze
from vision.report.figures import enlarge, to_picture

COUNTS = ("images", "targets")
"""What :func:`~vision.infrared.metrics.score` gives besides figures of merit; kept in a table."""


@dataclass(frozen=True)
class _Record:
    """All that the figures of one image need."""

    match: MatchRecord
    curve: CurveRecord
    clutter: ClutterRecord


class TargetMetric(Metric):
    """IoU, nIoU, Pd, Fa and the other figures of the field, with curves and bins."""

    primary = "IoU"
    others: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("nIoU", "Pd", "F1", "precision", "AUC_pixel", "AUC_target"), "max"),
        **dict.fromkeys(("Fa", "Fa_legacy", "false_regions"), "min"),
    }

    def measure(self, prediction: Targets, batch: Batch, position: int) -> _Record:
        mask, raw = batch["mask"][position].cpu().numpy(), batch["raw"][position].cpu().numpy()
        p = prediction.probability
        return _Record(
            match_targets(p > prediction.threshold, mask, image=raw),
            curve_record(p, mask),
            clutter_record(raw, p, mask),
        )

    def score(self, records: list[_Record]) -> dict[str, float]:
        curves, clutter = roc(r.curve for r in records), clutter_summary(r.clutter for r in records)
        figures = {name: value for name, value in score(r.match for r in records).items() if name not in COUNTS}
        figures |= {name: curves[name] for name in ("AUC_pixel", "AUC_target") if curves[name] is not None}
        return figures | {name: clutter[name] for name in ("SCRG", "BSF") if math.isfinite(clutter[name])}

    def tables(self, records: list[_Record]) -> dict[str, Any]:
        curves = roc(r.curve for r in records)
        matches = [r.match for r in records]
        counts = {name: value for name, value in score(matches).items() if name in COUNTS}
        counts |= {k: v for k, v in clutter_summary(r.clutter for r in records).items() if k not in ("SCRG", "BSF")}
        by_fa = sorted((fa, pd) for fa, pd in zip(curves["Fa"], curves["Pd"], strict=True) if fa > 0)
        fa, pd = [list(axis) for axis in zip(*by_fa, strict=True)] if by_fa else ([], [])
        return {
            "counts": {"type": "bins", "title": "Counts", "columns": list(counts), "rows": [list(counts.values())]},
            "roc_target": _curve("Targets: Pd against Fa", "Fa (x 1e-6)", "Pd", fa, pd, log_x=True),
            "roc_pixel": _curve(
                "Pixels: ROC", "false positive rate", "true positive rate", curves["FPR"], curves["TPR"]
            ),
            "by_size": _bins("Pd by target size (pixels)", score_by(matches, "size")),
            "by_contrast": _bins("Pd by local contrast (SCR)", score_by(matches, "contrast")),
        }


def _curve(
    title: str, x_label: str, y_label: str, x: list[float], y: list[float], log_x: bool = False
) -> dict[str, Any]:
    return {"type": "curve", "title": title, "x_label": x_label, "y_label": y_label, "x": x, "y": y, "log_x": log_x}


def _bins(title: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    columns = ["from", "below", "targets", "found", "Pd"]
    values = [[r["low"], r["high"], r["targets"], r["found"], r["Pd"]] for r in rows]
    return {"type": "bins", "title": title, "columns": columns, "rows": values}


@register("infrared_targets")
class InfraredTargets(Task):
    """TBC-Net's second stage: the TEM learns to extract targets, constrained by a frozen SCM where one is given.

    Args:
        data: crops to train on, images to judge on.
        network: gives one logit a pixel, ``[N, C, H, W] -> [N, 1, H, W]``; usually ``tbcnet``.
        loss: preset of the joint loss: ``paper``, ``balanced`` or ``softiou``. Soft IoU is one ratio of sums over the
            images of a pass, as in the benchmark it comes from, so that several processes or accumulated passes do not
            exactly make the update of one large batch; the other two do.
        weights: of region, structure, background and semantic term, in place of the preset's.
        region: region loss in place of the preset's.
        semantic: whether the semantic term is used; false is the ablation without the SCM.
        semantic_start: training progress at which the semantic term begins, in place of the preset's.
        semantic_warmup: share of the training over which it grows.
        scm: weights of a pre-trained SCM; needed for training where the semantic weight is above 0.
        scm_classes: how many classes that SCM has.
        threshold: a pixel is a target where its probability is above it.
        min_area: smaller regions are no detections, pixels.

    Raises:
        ConfigError: a semantic term without SCM, an SCM that nothing uses, or channels that do not fit the data.
        CheckpointError: before training begins, where the SCM's weights do not fit.
    """

    data: InfraredData

    def __init__(
        self,
        data: InfraredData,
        network: nn.Module,
        loss: Literal["paper", "balanced", "softiou"] = "balanced",
        weights: Weights | None = None,
        region: Region | None = None,
        semantic: bool = True,
        semantic_start: float | None = None,
        semantic_warmup: float = 0.2,
        scm: Path | None = None,
        scm_classes: int = 5,
        threshold: float = 0.5,
        min_area: int = 1,
    ) -> None:
        super().__init__()
        self.data, self.network, self.threshold, self.min_area = data, network, threshold, min_area
        preset = PRESETS[loss]
        first, second, third, fourth = weights or preset.weights
        start = preset.semantic_start if semantic_start is None else semantic_start
        self.loss = TBCLoss(
            (first, second, third, fourth if semantic else 0.0), region or preset.region, start, semantic_warmup
        )
        if self.loss.needs_scm and scm is None:
            raise ConfigError(
                "task.scm is missing: the semantic term needs the weights of a pre-trained SCM; train one with "
                "configs/infrared/scm.yaml, or set task.semantic=false"
            )
        if scm is not None and not self.loss.needs_scm:
            raise ConfigError("task.scm is given but the semantic term is off; leave it out, or set task.semantic=true")
        given = getattr(network, "in_channels", data.in_channels)
        if given != data.in_channels:
            raise ConfigError(
                f"task.network takes {given} channels and the data gives {data.in_channels}; "
                f"set task.network.in_channels={data.in_channels} or change data.high_pass"
            )
        self.scm: SCM | None = None
        self._scm_file, self._scm_classes = scm, scm_classes

    def before_training(self) -> None:
        if self._scm_file is not None:
            scm = SCM(self._scm_classes)
            load_weights(scm, self._scm_file)
            self.scm = freeze(scm)

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        target = batch["intensity"] if self.data.target_mode == "intensity" else batch["mask"]
        yield self.loss(self.network(batch["image"]), target, batch["count"], self.scm, context.progress)

    def predict(self, batch: Batch) -> list[Targets]:
        images = batch["image"]
        if isinstance(images, Tensor):
            maps = list(self.network(images).float().sigmoid())
        else:  # sizes differ
            maps = [self.network(image[None])[0].float().sigmoid() for image in images]
        return [
            Targets(name, detect(p, self.threshold, self.min_area), p, self.threshold)
            for name, p in ((name, m[0].cpu().numpy()) for name, m in zip(batch["id"], maps, strict=True))
        ]

    def metric(self) -> Metric:
        return TargetMetric()

    def example_input(self) -> Tensor:
        return torch.zeros(1, self.data.in_channels, 256, 256)

    def deployment(self, folded: bool = True) -> Deployment:
        """The TEM alone; the SCM only serves training."""
        example = torch.randn(2, self.data.in_channels, 64, 80, generator=torch.Generator().manual_seed(0))
        network = deployed(self.network, lambda network: network(example), folded)
        graph = images_graph(network, example, ("logits",), True, smallest=SMALLEST_SIDE)
        return Deployment((graph,), self.before(), self.after())

    def pictures(self, batch: Batch) -> list[Picture]:
        return [to_picture(visible(raw.cpu().numpy())) for raw in batch["raw"]]

    def truths(self, batch: Batch) -> list[NDArray[np.bool_]]:
        return [mask.cpu().numpy() for mask in batch["mask"]]

    def read_input(self, given: Given, name: str | None = None) -> Sample:
        name = name or name_of(given)
        raw = self.data.read(given, name)
        return {"id": name, "image": self.data.transform(raw), "raw": torch.from_numpy(raw)}

    def before(self) -> dict[str, Any]:
        """How a gray image becomes the network's input, for what runs without PyTorch."""
        data = self.data
        return {
            "type": "infrared", "bits": getattr(data, "bits", None), "normalise": data.normalise, "mean": data.mean,
            "std": data.std, "high_pass": data.high_pass,
        }  # fmt: skip

    def after(self) -> dict[str, Any]:
        """What the network's logits mean, for what runs without PyTorch."""
        return {"type": "targets", "threshold": self.threshold, "min_area": self.min_area}


class CountMetric(Metric):
    """Accuracy over all target images and within each class."""

    primary = "accuracy"

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def measure(self, prediction: Count, batch: Batch, position: int) -> tuple[int, int]:
        return prediction.label, min(int(batch["count"][position]), self.classes - 1)

    def score(self, records: list[tuple[int, int]]) -> dict[str, float]:
        matrix = self._matrix(records)
        figures = {"accuracy": float(np.trace(matrix) / matrix.sum())}
        for label, row in enumerate(matrix):
            if row.sum():
                figures[f"accuracy_{label}"] = float(row[label] / row.sum())
        return figures

    def tables(self, records: list[tuple[int, int]]) -> dict[str, Any]:
        labels = [str(k) for k in range(self.classes - 1)] + [f"{self.classes - 1}+"]
        title = "Confusion (rows: true count, columns: predicted)"
        return {
            "confusion": {"type": "matrix", "title": title, "labels": labels, "values": self._matrix(records).tolist()}
        }

    def _matrix(self, records: list[tuple[int, int]]) -> NDArray[np.int64]:
        matrix = np.zeros((self.classes, self.classes), dtype=np.int64)
        for predicted, true in records:
            matrix[true, predicted] += 1
        return matrix


@register("target_counting")
class TargetCounting(Task):
    """TBC-Net's first stage: the SCM learns to tell how many targets a target image holds.

    That the SCM is trained first and then frozen is published; that its classes are counts is our choice.

    Args:
        data: synthetic target images.
        network: usually ``scm``.
    """

    data: ScmScenes

    def __init__(self, data: ScmScenes, network: nn.Module) -> None:
        super().__init__()
        if not isinstance(network, SCM):
            raise ConfigError(f"task.network: expected scm, got {type(network).__name__}")
        self.data, self.network = data, network
        self.classes = network.classes

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        labels = batch["count"].clamp(max=self.classes - 1)
        yield {"cross_entropy": F.cross_entropy(self.network(batch["image"]), labels)}

    def predict(self, batch: Batch) -> list[Count]:
        return counts_of(batch["id"], self.network(batch["image"]).float().cpu().numpy())

    def metric(self) -> Metric:
        return CountMetric(self.classes)

    def example_input(self) -> Tensor:
        return torch.zeros(1, 1, self.data.size, self.data.size)

    def deployment(self, folded: bool = True) -> Deployment:
        side = max(self.data.size, SMALLEST_SIDE)
        example = torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(0))
        network = deployed(self.network, lambda network: network(example), folded)
        graph = images_graph(network, example, ("logits",), True, smallest=SMALLEST_SIDE)
        return Deployment((graph,), self.before(), self.after())

    def pictures(self, batch: Batch) -> list[Picture]:
        return [enlarge(to_picture(image.cpu().numpy()), 128) for image in batch["image"]]

    def read_input(self, given: Given, name: str | None = None) -> Sample:
        """A target image: gray values, 0 where there is no target."""
        name = name or name_of(given)
        return {"id": name, "image": torch.from_numpy(read_gray(given, name))[None]}

    def before(self) -> dict[str, Any]:
        """How a target image becomes the network's input, for what runs without PyTorch."""
        return {"type": "target_image"}

    def after(self) -> dict[str, Any]:
        """What the network's logits mean, for what runs without PyTorch."""
        return {"type": "count", "classes": self.classes}
