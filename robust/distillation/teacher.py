"""A trained network that only answers: frozen, in eval mode, outside the student's task."""

from pathlib import Path

import torch
from torch import Tensor, nn

from robust.distillation.taps import Seen, Taps, look
from vision.engine.checkpoint import differences, load_weights, read_weights
from vision.engine.errors import CheckpointError, ConfigError

_AVERAGE = "average."


class Teacher:
    """A frozen network.

    It is no module, so that a task that holds it neither trains it nor writes it to checkpoints, nor puts it into
    training mode; every call makes sure of eval mode and asks for no gradients.

    Args:
        network: gives logits ``[N, C]``.
        taps: what to read of it.
    """

    def __init__(self, network: nn.Module, taps: Taps) -> None:
        self.network, self.taps = network.requires_grad_(False).eval(), taps

    @torch.no_grad()
    def look(self, images: Tensor) -> Seen:
        """Logits and features of images ``[N, ...]``, on their device."""
        self.network.to(images.device).eval()
        return look(self.network, self.taps, images).detached()


def load_teacher(network: nn.Module, weights: str | Path, average: str = _AVERAGE) -> None:
    """Loads a teacher's weights; of a run that averaged its weights, the average.

    Args:
        network: changed in place.
        weights: a file of a run, or of a state dict.
        average: what the names of averaged weights begin with.

    Raises:
        CheckpointError: the file cannot be read, or is another network's.
    """
    held = read_weights(weights)
    averaged = {name.removeprefix(average): value for name, value in held.tensors.items() if name.startswith(average)}
    if not averaged:
        load_weights(network, weights)
        return
    found = differences(network.state_dict(), averaged)
    if found:
        raise CheckpointError(f"{weights}: its averaged weights are another network's: {found}")
    network.load_state_dict(averaged)


@torch.no_grad()
def shown(network: nn.Module, taps: Taps, example: Tensor) -> Seen:
    """What a network shows of two images like ``example`` ``[1, ...]``, for their shapes; its modes stay."""
    modes = {module: module.training for module in network.modules()}
    try:
        return look(network.eval(), taps, example.expand(2, *example.shape[1:]))
    finally:
        for module, mode in modes.items():
            module.training = mode


def require_classes(logits: Tensor, classes: int, who: str) -> None:
    """Refuses a network with another number of logits.

    Raises:
        ConfigError: what it gives and what the data has.
    """
    if logits.ndim != 2 or logits.shape[1] != classes:
        raise ConfigError(
            f"task.{who} gives logits {list(logits.shape[1:])} and the data has {classes} classes; "
            f"set task.{who}.classes={classes}, with weights trained on them"
        )
