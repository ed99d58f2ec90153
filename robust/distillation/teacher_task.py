"""The task of teachers: classification with SoTeacher's regularisers, or the ones they are compared with."""

from collections.abc import Iterator

import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset

from robust.averaging import WeightAverage, epoch_images, renew_statistics
from robust.distillation.indexed import IndexedDataset
from robust.distillation.regularisers import Regularisation, Regularisers
from vision.classification.data import ClassificationData
from vision.classification.task import Classification
from vision.engine.data import Sample
from vision.engine.errors import ConfigError
from vision.engine.loading import size_of
from vision.engine.registry import register
from vision.engine.task import Batch, Losses, StepContext


@register("regularised_classification")
class RegularisedClassification(Classification):
    r"""A classifier trained to be a teacher: cross-entropy and the terms of :class:`Regularisers`.

    .. math:: L = \mathrm{CE} + w_{CR}(k) L_{CR} + \lambda_{LR} L_{LR}

    Args:
        data: images with labels.
        network: gives one logit a class.
        regularise: which terms; by default both of SoTeacher.
        swa_start: epochs to finish before weights are averaged at the end of each further one, with BatchNorm
            statistics renewed on the training data; 149 of 240 in the authors' code, whose mean begins with epoch 150.
            None never averages.
        label_smoothing: share of each label spread evenly over all classes, in [0, 1).

    Raises:
        ConfigError: a number out of range, or a network that does not fit the data.

    Source: Dong, Liu & Shang, arXiv 2206.06661, and the authors' code.
    """

    def __init__(
        self,
        data: ClassificationData,
        network: nn.Module,
        regularise: Regularisers | None = None,
        swa_start: int | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(data, network, label_smoothing)
        if swa_start is not None and swa_start < 0:
            raise ConfigError(f"task.swa_start: {swa_start} is below 0; it counts epochs before the averaging")
        self.options, self.swa_start = regularise or Regularisers(), swa_start
        if swa_start is not None:
            self.network = WeightAverage(network)
        self.regularisation: Regularisation | None = None
        self._now: StepContext | None = None

    @property
    def trained(self) -> nn.Module:
        """The network that learns: without the average around it, where there is one."""
        return self.network.trained if isinstance(self.network, WeightAverage) else self.network

    def train_data(self) -> "Dataset[Sample]":
        data = super().train_data()
        return IndexedDataset(data) if self.options.indexed else data

    def before_training(self) -> None:
        samples = size_of(self.train_data(), "training")
        self.regularisation = Regularisation(self.options, samples, len(self.data.classes))

    def before_step(self, context: StepContext) -> None:
        self._now = context
        if self.regularisation is not None:
            self.regularisation.before_step(context)

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        if self.regularisation is None:  # a step without a trainer
            self.before_training()
        assert self.regularisation is not None
        logits = self.trained(batch["image"])
        losses = {"cross_entropy": F.cross_entropy(logits, batch["label"], label_smoothing=self.label_smoothing)}
        confidence = logits.detach().float().softmax(1).amax(1).mean()
        yield losses | self.regularisation.losses(self.trained, logits, batch) | {"_confidence": confidence}

    def after_epoch(self, epoch: int) -> None:
        if isinstance(self.network, WeightAverage) and self.swa_start is not None and epoch > self.swa_start:
            self.network.add()
            renew_statistics(self.network.average, epoch_images(self, epoch, self._now))
