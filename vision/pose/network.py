"""What the top-down networks share: features, a decoder, weights to begin from, and deployment."""

import logging
from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vision.engine.errors import ConfigError
from vision.pose.decoders import STRIDE, Decoder, Output
from vision.pose.transfer import transfer_weights

log = logging.getLogger(__name__)

CROPS_A_THREAD = 4
"""Of a batch on a CPU, in inference: features of more do not fit into its caches; with 8 MamKPD-L is a tenth slower."""


class PoseNetwork(nn.Module, ABC):
    """Features of a crop, then a decoder: the base of what learns the keypoints of one person.

    Args:
        decoder: takes what :meth:`features` gives.
        input_size: width and height of a crop, in pixels.
        in_channels: channels of the image.
        weights: file of weights of such a network to begin training from, whatever its joints and input size.

    Attributes:
        keypoints: K.
        input_size: as given; other sizes are taken too, unless the decoder is bound to one.
        in_channels: as given.
        output_stride: image pixels from one cell of a heatmap to the next.

    Raises:
        ConfigError: sizes that are not positive.
    """

    def __init__(self, decoder: Decoder, input_size: tuple[int, int], in_channels: int, weights: str | None) -> None:
        super().__init__()
        if min(*input_size, in_channels) < 1:
            raise ConfigError(f"input_size {list(input_size)}, in_channels {in_channels}: expected 1 or more")
        self.keypoints = decoder.keypoints
        self.input_size, self.in_channels, self.output_stride = tuple(input_size), in_channels, STRIDE
        self.weights = weights
        self.decoder = decoder

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Images ``[N, in_channels, H, W]`` to the map that the decoder takes, ``[N, C, h, w]``."""

    def forward(self, images: Tensor) -> Output:
        """What the decoder makes of a batch of normalised crops.

        Args:
            images: float, shape ``[N, in_channels, H, W]``.

        Returns:
            Heatmaps ``[N, K, ceil(H / 4), ceil(W / 4)]``; of the decoder ``simcc`` two tensors, along x ``[N, K, 2 W]``
            and along y ``[N, K, 2 H]``.

        Raises:
            ConfigError: the decoder is bound to the input size, and the images have another.
        """
        if not self.training and (most := _crops_at_once(images)):
            parts = [self._whole(part) for part in images.split(most)]
            if isinstance(parts[0], tuple):
                columns, rows = zip(*parts, strict=True)
                return torch.cat(columns), torch.cat(rows)
            return torch.cat(parts)  # type: ignore[arg-type]
        return self._whole(images)

    def _whole(self, images: Tensor) -> Output:
        output = self.decoder(self.features(images))
        if isinstance(output, tuple):
            return output
        return output.narrow(2, 0, -(-images.shape[-2] // STRIDE)).narrow(3, 0, -(-images.shape[-1] // STRIDE))

    def before_training(self) -> None:
        """Loads the weights that training begins from, where a file was given, and logs what was kept of it.

        Called by the task when training begins: a network that is only judged needs no such file.

        Raises:
            CheckpointError: the file cannot be read, or is of another network.
        """
        if self.weights is not None:
            log.info("%s", transfer_weights(self, self.weights))

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay should leave alone; see :func:`parameter_groups`."""
        kept = {name for name, parameter in self.named_parameters() if parameter.ndim <= 1}
        for prefix, module in self.named_modules():
            own = getattr(module, "no_weight_decay", None)
            if module is not self and callable(own):
                kept |= {f"{prefix}.{name}" for name in own()}
        return kept

    def deploy(self) -> Self:
        """Makes the network faster for inference, in place: batch norms and parallel branches fold into convolutions.

        Outputs are the same up to rounding. The network is in evaluation mode from here on and cannot be trained; names
        in its state dict differ.
        """
        self.eval()
        for module in list(self.modules()):
            if module is not self and callable(fold := getattr(module, "deploy", None)):
                fold()
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.weight.data = channels_last(module.weight.data)
        return self


def _crops_at_once(images: Tensor) -> int | None:
    """How many crops of a batch to go on with at a time, where they do not see each other; None for all of them."""
    in_python = not (torch.compiler.is_compiling() or torch.jit.is_tracing())  # what is traced keeps any batch
    if in_python and not torch.is_grad_enabled() and images.device.type == "cpu":
        most = CROPS_A_THREAD * torch.get_num_threads()
        return most if most < len(images) else None
    return None


def fold_batch_norms(layers: nn.Sequential) -> None:
    r"""Folds every batch norm of a deployed network's layers into the convolution right before it, in place.

    .. math:: W' = W \gamma / \sigma, \qquad b' = (b - \mu) \gamma / \sigma + \beta

    Args:
        layers: in evaluation mode; convolutions and transposed convolutions are recognised.
    """
    for index in reversed(range(1, len(layers))):
        before, norm = layers[index - 1], layers[index]
        if type(norm) is nn.BatchNorm2d and isinstance(before, nn.Conv2d | nn.ConvTranspose2d):
            layers[index - 1] = fuse_conv_bn_eval(before, norm, isinstance(before, nn.ConvTranspose2d))
            del layers[index]


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Two groups for an optimiser: what weight decay applies to, and what it leaves alone.

    Left alone are parameters with one axis (biases, the weights of norms) and those that the network's own
    ``no_weight_decay()`` names (of a state space model: its decay rates, skips and step sizes).

    Args:
        network: its parameters that ask for a gradient are taken.

    Returns:
        Groups without an empty one; the second has ``weight_decay`` 0.

    Source: VMamba's and timm's convention.
    """
    named = getattr(network, "no_weight_decay", None)
    apart = set(named()) if callable(named) else set()
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            (kept if parameter.ndim <= 1 or name in apart else decayed).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def nchw(x: Tensor) -> Tensor:
    """``[N, H, W, C]`` as ``[N, C, H, W]``, the same memory."""
    return x.permute(0, 3, 1, 2)


def nhwc(x: Tensor) -> Tensor:
    """``[N, C, H, W]`` as ``[N, H, W, C]``; the same memory, contiguous where that of ``x`` is channels-last."""
    return x.permute(0, 2, 3, 1)


def channels_last(x: Tensor) -> Tensor:
    """``x`` in channels-last memory, the order that every layer here is fastest with."""
    return x.contiguous(memory_format=torch.channels_last)
