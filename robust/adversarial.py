"""Adversarial training as a task: standard, FGSM, PGD-AT and TRADES, with weight averaging, judged under attack."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from robust.attacks import Loss, Start, check_search, pgd, untouched
from robust.averaging import WeightAverage, epoch_images, renew_statistics
from robust.threat import ThreatModel
from robust.tracking import StabilityRecord
from vision.classification import Normalised, metrics
from vision.classification.data import ClassificationData
from vision.classification.scores import Scores
from vision.classification.task import Classification, ClassificationMetric
from vision.engine.data import Sample
from vision.engine.deployment import Run
from vision.engine.errors import ConfigError
from vision.engine.registry import register
from vision.engine.task import Batch, Losses, Metric, StepContext

Method = Literal["standard", "fgsm", "pgd", "trades"]


@dataclass(frozen=True)
class Attack:
    """How an attack searches; where it may search says the threat model.

    Args:
        steps: gradient steps.
        step_size: of each, in image range; None for eps / 4 (2/255 of 8/255, as published), and eps where there is one.
        start: ``zero`` (the image) or ``random`` (uniform in the ball).
        loss: ``ce``, ``margin``, or ``kl`` from the clean prediction.
        restarts: random starts, of which each image keeps the worst.

    Raises:
        ConfigError: numbers that make no sense.
    """

    steps: int = 10
    step_size: float | None = None
    start: Start = "random"
    loss: Loss = "ce"
    restarts: int = 1

    def __post_init__(self) -> None:
        check_search(self.steps, self.step_size or 0.0, self.start, self.loss, self.restarts)
        if self.loss == "targeted":
            raise ConfigError("attack.loss: targeted needs a target for each image; expected ce, margin or kl")

    def run(self, network: nn.Module, images: Tensor, labels: Tensor, threat: ThreatModel) -> Tensor:
        """Attacked images, as :func:`robust.attacks.pgd` gives them."""
        step_size = self.step_size
        if step_size is None:
            step_size = threat.eps if self.steps == 1 else threat.eps / 4
        return pgd(
            network, images, labels, threat, steps=self.steps, step_size=step_size, start=self.start, loss=self.loss,
            restarts=self.restarts,
        )  # fmt: skip


ATTACKS: dict[Method, Attack | None] = {
    "standard": None,
    "fgsm": Attack(steps=1, start="zero"),
    "pgd": Attack(),
    "trades": Attack(loss="kl"),
}
"""What each method trains against unless the recipe says otherwise."""


@dataclass
class AttackedScores(Scores):
    """What a classifier says about an image, and about the same image under attack.

    Attributes:
        attacked_logits: of the attacked image, float32 ``[C]``; None where its label is not known. Not written to
            files.
        attacked_label: the most probable class under attack.
    """

    attacked_logits: NDArray[np.float32] | None = None
    attacked_label: str | None = None

    def to_dict(self) -> dict[str, Any]:
        found = super().to_dict()
        return found if self.attacked_label is None else {**found, "attacked_label": self.attacked_label}


class RobustMetric(ClassificationMetric):
    """Accuracy, NLL and calibration on clean and on attacked images; a checkpoint is chosen by robust accuracy."""

    primary = "robust_accuracy"
    others: ClassVar[dict[str, str]] = {
        "accuracy": "max", "nll": "min", "ece": "min", "robust_nll": "min", "robust_ece": "min",
    }  # fmt: skip

    def measure(self, prediction: Scores, batch: Batch, position: int) -> Any:
        logits, label = super().measure(prediction, batch, position)
        assert isinstance(prediction, AttackedScores) and prediction.attacked_logits is not None
        return logits, label, prediction.attacked_logits

    def score(self, records: list[Any]) -> dict[str, float]:
        attacked, labels = np.stack([r[2] for r in records]), np.array([r[1] for r in records], dtype=np.int64)
        robust = {
            "robust_accuracy": metrics.top_k(attacked, labels, 1),
            "robust_nll": metrics.nll(attacked, labels),
            "robust_ece": metrics.ece(attacked, labels),
        }
        return robust | super().score([r[:2] for r in records])

    def tables(self, records: list[Any]) -> dict[str, Any]:
        found = super().tables([(r[2], r[1]) for r in records])
        for table in found.values():
            table["title"] += ", under attack"
        return found


def trades_loss(clean_logits: Tensor, adversarial_logits: Tensor, labels: Tensor, beta: float = 6.0) -> Tensor:
    r"""The loss of TRADES, mean over the batch.

    .. math:: \mathrm{CE}(f(x), y) + \beta \, \mathrm{KL}\big(p(x) \,\|\, p(x')\big)

    Args:
        clean_logits: :math:`f(x)`, ``[N, C]``.
        adversarial_logits: :math:`f(x')`, ``[N, C]``.
        labels: int64, ``[N]``.
        beta: weight of robustness against accuracy.

    Source: Zhang et al. 2019, arXiv 1901.08573, equation 5.
    """
    clean, adversarial = clean_logits.log_softmax(1), adversarial_logits.log_softmax(1)
    divergence = F.kl_div(adversarial, clean, reduction="batchmean", log_target=True)
    return F.cross_entropy(clean_logits, labels) + beta * divergence


@register("adversarial_classification")
class AdversarialClassification(Classification):
    """A network trained on images that are attacked while it learns.

    ``standard`` trains on clean images, ``fgsm`` and ``pgd`` on the cross-entropy of attacked ones, ``trades`` on
    :func:`trades_loss`. Attacks see the network in eval mode. Images come in [0, 1] (``data.normalise: false``) and the
    task puts the data's mean and std into the network, so that eps is in image range. After every epoch accuracy is
    measured clean and under ``judge``. An exponential moving average of the weights is the trainer's ``ema``.

    Args:
        data: images with labels, not normalised.
        network: gives one logit a class for normalised images.
        method: see above.
        threat: norm and radius, in training and judging.
        attack: of training; None for the method's own: PGD-10 with steps of eps / 4 from a random start, for ``fgsm``
            one step of eps from the image.
        judge: of validation and test; 10 steps from the image, without chance, as the authors choose checkpoints.
        beta: of TRADES.
        clean_share: how much the cross-entropy of clean images counts beside that of attacked ones, in [0, 1]; a pass
            over clean images is made only above 0.
        swa_start: epochs to finish before weights are averaged at the end of each further one; None never averages.
            The release averages from its epoch of index 81 on, which is 81 here.
        label_smoothing: share of each label spread evenly over all classes, in [0, 1).
        track_stability: note for each sample in which epochs its attacked image was right
            (:class:`~robust.data_quality.StabilityTracker`); the step ``stability_rank`` makes subsets of it.
        track_in_eval: judge those images once more, in eval mode, instead of by the pass that trains.

    Raises:
        ConfigError: normalised data, an attack that does not fit the method, or a number out of range.

    Source: Madry et al., arXiv 1706.06083; Zhang et al., arXiv 1901.08573; the recipe of Dong et al., arXiv 2110.03135.
    """

    def __init__(
        self,
        data: ClassificationData,
        network: nn.Module,
        method: Method = "pgd",
        threat: ThreatModel | None = None,
        attack: Attack | None = None,
        judge: Attack | None = None,
        beta: float = 6.0,
        clean_share: float = 0.0,
        swa_start: int | None = None,
        label_smoothing: float = 0.0,
        track_stability: bool = False,
        track_in_eval: bool = False,
    ) -> None:
        super().__init__(data, network, label_smoothing)
        _check_options(data, network, method, attack, beta, clean_share, swa_start)
        if not isinstance(network, Normalised):
            network = Normalised(network, data.mean, data.std)
        self.network = network if swa_start is None else WeightAverage(network)
        self.method, self.threat = method, threat or ThreatModel()
        self.attack = attack or ATTACKS[method]
        self.judge = judge or Attack(start="zero")
        self.beta, self.clean_share, self.swa_start = beta, clean_share, swa_start
        if track_in_eval and not track_stability:
            raise ConfigError("task.track_in_eval: nothing is tracked; set track_stability: true")
        self.stability = StabilityRecord(data) if track_stability else None
        self.track_in_eval = track_in_eval
        self._now: StepContext | None = None

    @property
    def trained(self) -> nn.Module:
        """The network that learns: without the average around it, where there is one."""
        return self.network.trained if isinstance(self.network, WeightAverage) else self.network

    def before_step(self, context: StepContext) -> None:
        self._now = context

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        yield self.losses(batch, self.attacked(batch), context)

    def attacked(self, batch: Batch) -> Tensor:
        """The batch's images after the attack of training; themselves where the method makes none."""
        images: Tensor = batch["image"]
        if self.attack is None:
            return images
        return self.attack.run(self.trained, images, batch["label"], self.threat)

    def losses(self, batch: Batch, attacked: Tensor, context: StepContext) -> Losses:
        """What is trained on, from clean and attacked images; the method's own loss."""
        images, labels = batch["image"], batch["label"]
        if self.method == "trades":
            clean = self.trained(images)
            logits = self.trained(attacked)
            losses = {"trades": trades_loss(clean, logits, labels, self.beta)}
        else:
            logits = self.trained(attacked)
            share = 1 - self.clean_share
            losses = {"cross_entropy": share * F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)}
            if self.clean_share:
                losses["clean"] = self.clean_share * F.cross_entropy(
                    self.trained(images), labels, label_smoothing=self.label_smoothing
                )
        losses["_accuracy"] = self.answered(batch, attacked, logits.detach())
        return losses

    def answered(self, batch: Batch, attacked: Tensor, logits: Tensor) -> Tensor:
        """The share of attacked images that a training step got right; tells the stability record, where one is kept.

        Every method passes its attacked images and its logits ``[N, C]`` on them through here, once a step.
        """
        if self.stability is not None:
            self.stability.see(batch, self._in_eval(attacked) if self.track_in_eval else logits)
        return (logits.argmax(1) == batch["label"]).float().mean()

    @torch.no_grad()
    def _in_eval(self, images: Tensor) -> Tensor:
        with untouched(self.trained):
            return self.trained(images)

    def before_training(self) -> None:
        if self.stability is not None:
            self.stability.begin()

    def predict(self, batch: Batch) -> list[Scores]:
        found = super().predict(batch)
        if "label" not in batch:
            return found
        attacked = self.judge.run(self.network, batch["image"], batch["label"], self.threat)
        logits = self.network(attacked).float().cpu().numpy()
        return [
            AttackedScores(s.id, s.label, s.confidence, s.probabilities, s.logits, row, self.data.classes[row.argmax()])
            for s, row in zip(found, logits, strict=True)
        ]

    def predict_exported(self, batch: Batch, run: Run) -> list[Scores]:
        """On clean images: an exported graph has no gradients to attack by."""
        with self.exported(run):
            return super().predict(batch)

    def metric(self) -> Metric:
        return RobustMetric(self.data.classes)

    def exported_metric(self, dataset: "Dataset[Sample]") -> Metric:
        return ClassificationMetric(self.data.classes)

    def after_epoch(self, epoch: int) -> None:
        if self.stability is not None:
            self.stability.end_epoch()
        if isinstance(self.network, WeightAverage) and self.swa_start is not None and epoch > self.swa_start:
            self.network.add()
            renew_statistics(self.network.average, epoch_images(self, epoch, self._now))  # clean ones


def _check_options(
    data: ClassificationData,
    network: nn.Module,
    method: Method,
    attack: Attack | None,
    beta: float,
    clean_share: float,
    swa_start: int | None,
) -> None:
    if data.normalise and not isinstance(network, Normalised):
        raise ConfigError(
            "data.normalise: adversarial training needs images in [0, 1]; set data.normalise: false, "
            "the task puts data.mean and data.std into the network"
        )
    if data.normalise:
        raise ConfigError("data.normalise: the network normalises by itself; set data.normalise: false")
    if method == "standard" and attack is not None:
        raise ConfigError("task.attack: the method standard makes no attack; remove it, or take fgsm, pgd or trades")
    if method == "trades" and attack is not None and attack.loss != "kl":
        raise ConfigError(f"task.attack.loss: '{attack.loss}', but trades attacks the divergence; set loss: kl")
    if method == "fgsm" and attack is not None and attack.steps != 1:
        raise ConfigError(f"task.attack.steps: fgsm takes 1 step, not {attack.steps}; for more take method: pgd")
    if method == "trades" and clean_share:
        raise ConfigError("task.clean_share: trades has clean images in its own loss; remove it and set beta")
    if not 0 <= beta < float("inf") or not 0 <= clean_share <= 1:
        raise ConfigError(f"task: beta {beta} must be 0 or more and clean_share {clean_share} within [0, 1]")
    if swa_start is not None and swa_start < 0:
        raise ConfigError(f"task.swa_start: {swa_start} is below 0; it counts epochs before the averaging")
