"""The task of students: labels, the teacher's soft labels, and what a distiller adds."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from robust.distillation.distiller import Distiller, LossWeights, TrainingSet, soft_label_loss
from robust.distillation.exchange import index_of
from robust.distillation.indexed import IndexedDataset
from robust.distillation.taps import Seen, Taps, look, taps_of
from robust.distillation.teacher import Teacher, load_teacher, require_classes, shown
from vision.classification.data import ClassificationData
from vision.classification.task import Classification
from vision.engine.data import Sample
from vision.engine.errors import ConfigError
from vision.engine.loading import size_of
from vision.engine.recipe import Block
from vision.engine.registry import OfKind, build, register
from vision.engine.task import Batch, Losses, StepContext


@register("distillation")
class Distillation(Classification):
    r"""A student that learns from labels and from a teacher.

    .. math:: L = \gamma \, \mathrm{CE} + \alpha \, \mathrm{KD}_T + \beta \, L_{\text{distiller}}

    The teacher sees the same augmented images, in eval mode and without gradients. Its weights are read when training
    begins; a trained student is judged and used without it.

    Args:
        data: images with labels.
        network: the student.
        teacher: the teacher's network.
        teacher_weights: of the teacher.
        distiller: how the teacher is imitated; the block of a registered distiller.
        weights: :math:`\gamma`, :math:`\alpha`, :math:`\beta`; by default the distiller's own.
        temperature: T of the soft labels.
        student_taps: what the distiller reads of the student, where it is not a known kind of network.
        teacher_taps: likewise of the teacher.
        cache_teacher: ask the teacher about each image once and keep its logits, ``samples * classes`` numbers; only
            without augmentation, and for a distiller that needs logits alone.
        label_smoothing: share of each label spread evenly over all classes, in [0, 1).

    Raises:
        ConfigError: networks, layers or options that do not fit each other or the data.

    Source: Hinton et al. 2015; each distiller its own; the authors' code of SoTeacher for the weights 0.5, 0.5, T = 4.
    """

    def __init__(
        self,
        data: ClassificationData,
        network: nn.Module,
        teacher: nn.Module,
        teacher_weights: str,
        distiller: Annotated[Block, OfKind("distiller")] | None = None,
        weights: LossWeights | None = None,
        temperature: float = 4.0,
        student_taps: Taps | None = None,
        teacher_taps: Taps | None = None,
        cache_teacher: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(data, network, label_smoothing)
        if not temperature > 0:
            raise ConfigError(f"task.temperature: {temperature} is not above 0")
        self.distiller: Distiller = build(distiller or {"type": "kd"}, "distiller")
        self.weights, self.temperature = weights or self.distiller.weights, temperature
        if min(asdict(self.weights).values()) < 0:
            raise ConfigError(f"task.weights: {asdict(self.weights)} must all be 0 or more")
        self.student_taps = self._read_by_distiller(network, student_taps, "student_taps")
        self.teacher = Teacher(teacher, self._read_by_distiller(teacher, teacher_taps, "teacher_taps"))
        self.teacher_weights = teacher_weights
        self._cached = self._cache(cache_teacher)
        require_classes(shown(teacher, Taps(), self.example_input()).logits, len(data.classes), "teacher")
        self.learned: nn.Module | None = None
        self._now: StepContext | None = None

    def _read_by_distiller(self, network: nn.Module, chosen: Taps | None, field: str) -> Taps:
        """Only what the distiller reads: hooks cost little, and a path nobody reads may not run."""
        if not self.distiller.reads:
            return Taps()
        try:
            every = taps_of(network, chosen)
        except ConfigError as error:
            raise ConfigError(f"task.{field}: {error}") from error
        return Taps(**{name: getattr(every, name) for name in self.distiller.reads})

    def _cache(self, wanted: bool) -> Tensor | None:
        if not wanted:
            return None
        if not self.distiller.teacher_only:
            raise ConfigError(
                f"task.cache_teacher: the distiller '{self.distiller.name}' reads more than logits; leave it out"
            )
        if self.data.augment:
            raise ConfigError(
                "task.cache_teacher: the teacher must see the same augmented image as the student; "
                "leave it out, or set data.augment: []"
            )
        return torch.empty(0)

    # -- training ------------------------------------------------------------------------------------------------

    def train_data(self) -> "Dataset[Sample]":
        data = super().train_data()
        return IndexedDataset(data) if self.distiller.indexed or self._cached is not None else data

    def before_training(self) -> None:
        load_teacher(self.teacher.network, Path(self.teacher_weights))
        example = self.example_input()
        student = shown(self.network, self.student_taps, example)
        teacher = shown(self.teacher.network, self.teacher.taps, example)
        require_classes(student.logits, len(self.data.classes), "network")
        self.distiller.require(student, teacher)
        samples, classes = size_of(self.train_data(), "training"), len(self.data.classes)
        self.distiller.prepare(student, teacher, TrainingSet(samples, classes, self._labels))
        self.learned = self.distiller.layers
        if self._cached is not None:
            self._cached = torch.full((samples, classes), torch.nan)

    def before_step(self, context: StepContext) -> None:
        self._now = context

    def after_epoch(self, epoch: int) -> None:
        """Refuses a run that would end before the student has its turn; only now is it known how long an epoch is.

        Raises:
            ConfigError: as many initial epochs as the run has, or more.
        """
        initial = self.distiller.initial_epochs
        if epoch != 1 or not initial or self._now is None:
            return
        epochs = math.ceil(self._now.total_steps / (self._now.step + 1))
        if epochs <= initial:
            raise ConfigError(
                f"task.distiller.initial_epochs: {initial} of {epochs} epochs would go to '{self.distiller.name}' "
                f"alone and none to the student's labels; set it below {epochs}, or train longer"
            )

    def _labels(self) -> Tensor:
        return IndexedDataset(super().train_data()).labels()

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        if self.learned is None:  # a step without a trainer
            self.before_training()
        views = self.distiller.views(batch["image"])
        student = look(self.network, self.student_taps, views).in_float32()
        teacher = self._ask(views, batch).in_float32()
        with torch.autocast(views.device.type, enabled=False):  # exponentials, and differences of near numbers
            losses = self._losses(student, teacher, batch, context)
        yield losses | self._unused(student)

    def _losses(self, student: Seen, teacher: Seen, batch: Batch, context: StepContext) -> Losses:
        if context.epoch < self.distiller.initial_epochs:
            return self.distiller.initial_losses(student, teacher, batch)
        images, labels = batch["image"], batch["label"]
        ours, theirs = student.logits[: len(images)], teacher.logits[: len(images)]
        losses: Losses = {
            "cross_entropy": self.weights.ce * F.cross_entropy(ours, labels, label_smoothing=self.label_smoothing)
        }
        if self.weights.kd:
            losses["soft_labels"] = self.weights.kd * soft_label_loss(ours, theirs, self.temperature)
        if self.weights.other:
            found = self.distiller.losses(student, teacher, batch)
            losses |= {name: self.weights.other * value for name, value in found.items()}
        losses["_agreement"] = (ours.detach().argmax(1) == theirs.argmax(1)).float().mean()
        return losses

    def _ask(self, views: Tensor, batch: Batch) -> Seen:
        if self._cached is None:
            return self.teacher.look(views)
        index = index_of(batch, "task.cache_teacher")
        self._cached = self._cached.to(views.device)
        if bool(self._cached[index].isnan().any()):
            self._cached[index] = self.teacher.look(views).logits.float()
        return Seen(self._cached[index], Taps(), {})

    def _unused(self, student: Seen) -> Losses:
        """Under DDP every parameter must take part; what an initial stage leaves out does so by a factor of 0."""
        if not (dist.is_available() and dist.is_initialized()) or self.learned is None:
            return {}
        learned = [p.sum() for p in self.learned.parameters()]
        return {"unused": 0.0 * (student.logits.sum() + sum(learned))}
