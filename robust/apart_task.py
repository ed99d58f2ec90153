"""APART as a training method: two passes a step, state for every image, strengths that climb the loss."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from robust.adversarial import AdversarialClassification, Attack
from robust.apart import Apart, Ascent, BnUpdate, Perturbed, Side, ZeroGrad
from robust.cyclic import cycled_momentum, triangle
from robust.directions import Directions, Windows, pad
from robust.threat import ThreatModel
from vision.classification.data import ClassificationData
from vision.engine.errors import ConfigError
from vision.engine.registry import register
from vision.engine.task import Batch, Losses, StepContext

log = logging.getLogger(__name__)


@register("apart")
class ApartClassification(AdversarialClassification):
    """Adversarial training by learnt perturbations: 2 passes a step where PGD-10 takes 11.

    See :class:`robust.apart.Apart` for the step, :class:`robust.apart.Ascent` for the strengths. Each training image,
    padded by ``data.crop_padding`` grey pixels, keeps a direction; the task itself crops and mirrors both alike, so
    ``data.augment`` must be empty. The strengths' rate and momentum follow a triangle over the run; the published
    recipe gives the network's the schedule ``triangular``, with the same shape.

    Args:
        data: images with labels, not normalised.
        network: gives one logit a class for normalised images.
        layers: names or patterns of the modules of ``network`` to perturb at (``stages.*.conv1``); empty perturbs the
            image alone.
        side: whether what enters those modules is perturbed, or what leaves them.
        eps: bound of the image's perturbation in training; published as 0.031.
        step: first step size along the image's gradient.
        start_scale: first scale of the stored direction.
        layer_step: first step size of each layer.
        strength_lr: peak rate of the ascent. What matters is rate times decay times updates, published as
            5e-8 x 400 x 11,730 = 0.23: a shorter run wants a higher rate.
        strength_decay: pull of the strengths to 0.
        cycles: triangles of the strengths' rate over the run; give the network's schedule as many.
        bn_update: whether BatchNorm's running statistics see both passes, or the ``second`` only.
        zero_grad: as in :class:`robust.apart.Ascent`; ``zero`` needs the two options below.
        network_lr: peak rate of the network's optimiser, for ``zero``.
        network_decay: its weight decay, for ``zero``.
        directions: a ``.npy`` file to keep the images' directions in; None keeps them in memory. A run at its first
            update draws those of a file that is there anew.
        threat: norm and radius in judging.
        judge: of validation and test.
        swa_start: as in :class:`~robust.adversarial.AdversarialClassification`.
        track_stability: likewise.
        track_in_eval: likewise.

    Raises:
        ConfigError: augmented data, a layer the network does not have, a number out of range, or 16-bit floats whose
            losses are scaled.

    Deviation: the images are normalised inside the network, where the release does not normalise; the random numbers
    are torch's alone.

    Source: Li, Liu, Dong & Shang, arXiv 2010.08034; the authors' release.
    """

    def __init__(
        self,
        data: ClassificationData,
        network: nn.Module,
        layers: Sequence[str] = (),
        side: Side = "input",
        eps: float = 0.031,
        step: float = 1e-4,
        start_scale: float = 1e-4,
        layer_step: float = 0.0,
        strength_lr: float = 5e-8,
        strength_decay: float = 400.0,
        cycles: int = 1,
        bn_update: BnUpdate = "both",
        zero_grad: ZeroGrad = "none",
        network_lr: float | None = None,
        network_decay: float | None = None,
        directions: str | None = None,
        threat: ThreatModel | None = None,
        judge: Attack | None = None,
        swa_start: int | None = None,
        track_stability: bool = False,
        track_in_eval: bool = False,
    ) -> None:
        super().__init__(
            data, network, "standard", threat, None, judge, swa_start=swa_start, track_stability=track_stability,
            track_in_eval=track_in_eval,
        )  # fmt: skip
        if data.augment:
            raise ConfigError("data.augment: apart crops and mirrors by itself; set data.augment: []")
        if strength_lr < 0 or strength_decay < 0 or cycles < 1:
            raise ConfigError(
                f"task: strength_lr {strength_lr} and strength_decay {strength_decay} must be 0 or more, "
                f"cycles {cycles} 1 or more"
            )
        if (zero_grad == "zero") != (network_lr is not None and network_decay is not None):
            raise ConfigError("task.zero_grad: 'zero' goes with network_lr and network_decay, and 'none' without them")
        self.apart = Apart(
            self.trained, [f"network.{name}" for name in layers], side, eps, step, start_scale, layer_step, bn_update
        )
        self.ascent = Ascent(list(self.apart.parameters()), strength_decay, zero_grad)
        self.strength_lr, self.network_lr, self.network_decay = strength_lr, network_lr or 0.0, network_decay or 0.0
        self.cycles = cycles
        self._file, self._seed = directions, int(torch.randint(2**31, ()))
        self.directions: Directions | None = None
        self._places: dict[str, int] = {}
        self._pending: list[tuple[np.ndarray, Tensor, Windows, Tensor, Perturbed]] = []

    def before_training(self) -> None:
        super().before_training()
        self._make_directions()

    def _make_directions(self) -> Directions:
        if self.directions is not None:
            return self.directions
        dataset: Any = self.train_data()
        self._places = {name: place for place, name in enumerate(dataset.images.ids)}
        size = self.data.image_size + 2 * self.data.crop_padding
        file = None if self._file is None else Path(self._file).expanduser()
        self.directions = Directions(len(self._places), (self.data.in_channels, size, size), self._seed, file)
        return self.directions

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The network's parameters; the strengths have an ascent of their own."""
        return [{"params": [p for p in self.trained.parameters() if p.requires_grad]}]

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        images, labels, padding = batch["image"], batch["label"], self.data.crop_padding
        kind = images.device.type
        if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16:
            raise ConfigError("trainer.precision: fp16 scales losses and so apart's ascent; take float32 or bf16")
        directions = self._make_directions()
        if directions.used and context.step == 0:
            log.warning("%s holds directions of another run or try; they are drawn anew", directions.file)
            directions.begin(self._seed)
        places = np.array([self._places[name] for name in batch["id"]])
        stored = directions.read(places, images.device)
        windows = Windows.draw(len(images), (self.data.image_size,) * 2, padding, images.device)
        cut = windows.cut(stored)
        found = self.apart.perturbed(windows.cut(pad(images, padding)), cut, labels)
        self._pending.append((places, stored, windows, cut, found))
        strengths = {f"_{name}": found.loss.new_tensor(value) for name, value in self.strengths().items()}
        accuracy = self.answered(batch, found.images.detach(), found.logits.detach())
        yield {"cross_entropy": found.loss, "_accuracy": accuracy, **strengths}

    def after_step(self, context: StepContext) -> None:
        renewed = [
            (places[used], windows.write(stored, self.apart.refreshed(cut, found))[used].cpu())
            for places, stored, windows, cut, found in self._pending
            if (used := _used(found)).any()
        ]
        self._pending = []
        for places, values in _of_all_processes(renewed):
            self._make_directions().write(places, values)
        share = triangle(context.step, context.total_steps, self.cycles)
        momentum = cycled_momentum(share)
        self.ascent.ascend(self.strength_lr * share, momentum)
        self.ascent.decay(self.network_lr * share, momentum, self.network_decay)

    def strengths(self) -> dict[str, float]:
        """Every learnt strength by name, the layers' by their names in the recipe's network."""
        return {name.removeprefix("network."): value for name, value in self.apart.strengths().items()}


def _used(found: Perturbed) -> np.ndarray:
    """Samples that the loss depends on; one that only keeps another process company has no gradient."""
    assert found.images.grad is not None
    return np.asarray(found.images.grad.flatten(1).any(1).cpu())


def _of_all_processes(renewed: list[tuple[np.ndarray, Tensor]]) -> list[tuple[np.ndarray, Tensor]]:
    """Every process's new directions, so that each holds them all."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return renewed
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, renewed)
    return [each for own in gathered for each in own]
