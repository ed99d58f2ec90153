"""Trained weights from files of tensors: this package's state dicts and the released CIFAR ResNets."""

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from vision.engine.checkpoint import read_weights as read_checkpoint
from vision.engine.errors import CheckpointError


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file, without running any code of it.

    Understood are a bare state dict and one under the key ``state_dict``; the prefix ``module.`` that
    ``DataParallel`` puts before every name is taken off. The released CIFAR ResNets (``resnet20-12fca82f`` and its
    kin) need nothing more: :class:`~vision.classification.cifar_resnet.CifarResNet` uses their names.

    Args:
        path: a ``.safetensors`` file, or one written by ``torch.save``.

    Raises:
        CheckpointError: no such file, not readable as tensors only, or not a state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such weights file")
    state: object
    try:
        if path.suffix == ".safetensors":
            state = read_checkpoint(path).tensors
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: cannot be read as a file of tensors only: {reason}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: holds no state dict (names to tensors), at the top or under 'state_dict'")
    return {name.removeprefix("module."): value for name, value in state.items()}


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Loads :func:`read_weights` into ``network``, every name and shape exactly.

    ``num_batches_tracked`` may be missing from the file: old files lack it, and only BatchNorm with a cumulative
    average reads it.

    Args:
        network: changed in place.
        path: as in :func:`read_weights`.

    Raises:
        CheckpointError: the file cannot be read, or its names or shapes differ from the network's; the first few
            differences are named.
    """
    state = read_weights(path)
    own = network.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in own]
    shapes = [
        f"{name} is {list(state[name].shape)}, expected {list(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    for what, found in (("lacks", missing), ("has unknown", unknown), ("differs in shape:", shapes)):
        if found:
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            raise CheckpointError(
                f"{path}: does not fit {type(network).__name__}: {what} {', '.join(found[:3])}{more}; "
                "check the network's type, depth, width and classes"
            )
    network.load_state_dict({**own, **state})
