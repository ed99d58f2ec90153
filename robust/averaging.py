"""Stochastic weight averaging: the equal mean of a network's weights over the last epochs, as a part of the network."""

import copy
import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vision.engine.evaluation import to_device
from vision.engine.loading import load, size_of
from vision.engine.task import StepContext, Task


class WeightAverage(nn.Module):
    r"""Trains one network and answers with the mean of its weights.

    .. math:: \bar\theta_n = \bar\theta_{n-1} + (\theta_n - \bar\theta_{n-1}) / n

    In training mode it is the trained network, in eval mode the average, once there is one. Both lie in a checkpoint,
    so whatever judges or exports the weights sees the average.

    Args:
        network: what is trained.

    Attributes:
        trained: the network itself; attacks of training go to it.
        average: the mean, without gradients and always in eval mode.
        count: how many epochs are in the mean, int64 scalar.

    Source: Izmailov et al. 2018, arXiv 1803.05407; for adversarial training Chen et al., ICLR 2021.
    """

    count: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.trained = network
        self.average = copy.deepcopy(network).requires_grad_(False).eval()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self._begun = False  # a copy of count that a forward pass reads without waiting for a GPU

    @property
    def num_classes(self) -> int:
        """How many logits the network gives."""
        return int(self.trained.num_classes)  # type: ignore[arg-type]

    def train(self, mode: bool = True) -> "WeightAverage":
        """Sets the trained network's mode; the average stays in eval mode."""
        super().train(mode)
        self.average.eval()
        self._begun = bool(self.count > 0)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[N, C]`` of images ``[N, ...]``."""
        return self.average(images) if self._begun and not self.training else self.trained(images)

    @torch.no_grad()
    def add(self) -> None:
        """Takes the trained weights into the mean; BatchNorm statistics are then those of before: renew them."""
        self.count += 1
        share = 1.0 / int(self.count)
        for mean, now in zip(self.average.parameters(), self.trained.parameters(), strict=True):
            mean.lerp_(now.detach(), share)
        self._begun = True


@torch.no_grad()
def renew_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Sets every BatchNorm's running statistics to the mean of the batches', each weighed by its size.

    After ``n`` samples a batch of ``b`` counts ``b / (n + b)``. Other layers stay in their mode.

    Args:
        network: its modes and momenta are restored.
        batches: images ``[b, ...]``, on the network's device; nothing is done where the network has no BatchNorm.
    """
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    before = [(norm, norm.training, norm.momentum) for norm in norms]
    seen = 0
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
        for images in batches:
            for norm in norms:
                norm.momentum = len(images) / (seen + len(images))
            network(images)
            seen += len(images)
    finally:
        for norm, mode, momentum in before:
            norm.training, norm.momentum = mode, momentum


def epoch_images(task: Task, epoch: int, last: StepContext | None) -> Iterator[Tensor]:
    """All training images once, augmented and mixed, in as many batches as an epoch has updates.

    They are the same in every process, and in a run that was resumed: an epoch's updates are told by the clock, where
    the sizes of the batches that a process has seen are not all of theirs.

    Args:
        task: its training data, on its device.
        epoch: that was finished, from 1.
        last: the clock at the last update; None takes all images in one batch.
    """
    dataset = task.train_data()
    size = size_of(dataset, "training")
    order = np.random.default_rng(epoch).permutation(size).tolist()
    step = math.ceil(size / ((last.step + 1) // epoch if last is not None else 1))
    places = [order[i : i + step] for i in range(0, size, step)]
    for batch in load(dataset, places, ("swa", epoch), task.collate, 0):
        yield to_device(batch, task.device)["image"]
