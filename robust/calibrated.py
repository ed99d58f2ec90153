"""Adversarial training with calibrated labels: a student, its teachers' checkpoints, one temperature and one weight."""

import copy
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robust.adversarial import AdversarialClassification, Attack, trades_loss
from robust.averaging import WeightAverage
from robust.calibration import Form, calibration_loss, check_calibration, require_same_classes, teacher_distribution
from robust.threat import ThreatModel
from vision.classification import Normalised
from vision.classification.data import ClassificationData
from vision.engine.checkpoint import load_weights, read_weights
from vision.engine.errors import ConfigError
from vision.engine.registry import register
from vision.engine.task import Batch, Losses, StepContext


@register("label_calibration")
class LabelCalibration(AdversarialClassification):
    r"""A student trained on its attacked images with labels that teachers soften.

    The attack is against the student, with the assigned labels; teachers see the same attacked images, in eval mode.
    The loss is :func:`~robust.calibration.calibration_loss`, and for ``trades``, with teachers on the attacked images,
    :math:`(1 - \lambda)\,\mathrm{TRADES} + \lambda T^2\,\mathrm{CE}(p_t, z_s(x') / T)`. With T = 2 and
    lambda = 0.5 this is KD-AT; with what the step ``calibration_search`` finds it is KD-AT-Auto.

    Args:
        data: images with labels, not normalised.
        network: gives one logit a class for normalised images.
        teachers: weights files of networks that were trained alike, one or several; those without normalisation in them
            get the data's.
        temperature: T > 0.
        weight: lambda in [0, 1], the teachers' share of the label.
        loss: ``hinton`` is the release's, ``soft_label`` plain cross-entropy with the calibrated labels.
        teacher_network: the teachers' network where it is not the student's.
        method: what is attacked for, and with what loss: ``pgd``, ``fgsm``, ``trades`` or ``standard`` (clean images).
        threat: norm and radius, in training and judging.
        attack: of training; None for the method's own.
        judge: of validation and test.
        beta: of TRADES.
        swa_start: as in :class:`~robust.adversarial.AdversarialClassification`.
        track_stability: likewise.
        track_in_eval: likewise.

    Raises:
        ConfigError: no teacher, a teacher of other classes, a temperature or weight out of range, or what
            :class:`~robust.adversarial.AdversarialClassification` raises.
        CheckpointError: a teacher's weights cannot be read or do not fit.

    Source: Dong, Liu & Shang, arXiv 2110.03135, section 5; the authors' release.
    """

    def __init__(
        self,
        data: ClassificationData,
        network: nn.Module,
        teachers: list[str],
        temperature: float = 2.0,
        weight: float = 0.5,
        loss: Form = "hinton",
        teacher_network: nn.Module | None = None,
        method: Literal["standard", "fgsm", "pgd", "trades"] = "pgd",
        threat: ThreatModel | None = None,
        attack: Attack | None = None,
        judge: Attack | None = None,
        beta: float = 6.0,
        swa_start: int | None = None,
        track_stability: bool = False,
        track_in_eval: bool = False,
    ) -> None:
        super().__init__(
            data, network, method, threat, attack, judge, beta, swa_start=swa_start, track_stability=track_stability,
            track_in_eval=track_in_eval,
        )  # fmt: skip
        check_calibration(temperature, weight)
        if not teachers:
            raise ConfigError("task.teachers: name at least one weights file, such as ${stages.teacher.best}")
        if loss == "soft_label" and method == "trades":
            raise ConfigError("task.loss: soft_label is a cross-entropy; with method: trades take loss: hinton")
        if teacher_network is not None:
            require_same_classes(int(teacher_network.num_classes), len(data.classes))  # type: ignore[arg-type]
        self.files, self.temperature, self.weight, self.form = teachers, temperature, weight, loss
        # lists, so that teachers are neither trained nor saved nor put into train mode with the student
        self._mould = [teacher_network]
        self._teachers: list[nn.Module] = []

    def before_training(self) -> None:
        super().before_training()
        self._read_teachers()

    def _read_teachers(self) -> None:
        self._teachers = self._teachers or [self._read(file) for file in self.files]

    def _read(self, file: str) -> nn.Module:
        mould = self._mould[0]
        teacher = copy.deepcopy(self.trained)
        if mould is not None:
            ready = isinstance(mould, Normalised)
            teacher = copy.deepcopy(mould) if ready else Normalised(copy.deepcopy(mould), self.data.mean, self.data.std)
        held = read_weights(Path(file)).tensors
        names = held.keys()
        if any(name.startswith("average.") for name in names):
            teacher = WeightAverage(teacher)
        inside = isinstance(teacher, Normalised) and not {"mean", "std"} & names  # weights without normalisation
        target: nn.Module = teacher.network if inside else teacher  # type: ignore[assignment]
        _check_classes(held, target.state_dict(), len(self.data.classes))
        load_weights(target, Path(file))
        return teacher.requires_grad_(False).eval()

    @torch.no_grad()
    def teachers_logits(self, attacked: Tensor) -> list[Tensor]:
        """Each teacher's logits ``[N, C]`` on attacked images ``[N, in_channels, H, W]``."""
        self._read_teachers()
        return [teacher.to(attacked.device).eval()(attacked).float() for teacher in self._teachers]

    def losses(self, batch: Batch, attacked: Tensor, context: StepContext) -> Losses:
        labels, given = batch["label"], self.teachers_logits(attacked)
        if self.method == "trades":
            clean = self.trained(batch["image"])
            logits = self.trained(attacked)
            p = teacher_distribution(given, self.temperature)
            softened = F.cross_entropy(logits / self.temperature, p)
            losses = {
                "trades": (1 - self.weight) * trades_loss(clean, logits, labels, self.beta),
                "teacher": self.weight * self.temperature**2 * softened,
            }
        else:
            logits = self.trained(attacked)
            loss = calibration_loss(logits, given, labels, self.temperature, self.weight, self.form)
            losses = {"calibrated": loss}
        losses["_accuracy"] = self.answered(batch, attacked, logits.detach())
        return losses


def _check_classes(held: dict[str, Tensor], wanted: dict[str, Tensor], classes: int) -> None:
    """Refuses weights whose last tensor of one row a class has another number of rows."""
    last = [name for name, value in wanted.items() if value.ndim and len(value) == classes][-1:]
    if last and last[0] in held and held[last[0]].shape[1:] == wanted[last[0]].shape[1:]:
        require_same_classes(len(held[last[0]]), classes)
