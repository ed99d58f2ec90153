"""Static images as sequences of inputs: shown again and again, as random spikes, or row by row."""

import zlib
from typing import Literal

import torch
from torch import Tensor

from vision.engine.errors import DataError

Encoding = Literal["direct", "poisson", "rows"]


def direct(images: Tensor, steps: int) -> Tensor:
    """The same image at every step, real-valued, without a copy: ``[N, C, H, W]`` to ``[N, T, C, H, W]``.

    The first layer then computes with real numbers and acts as the encoder.
    """
    return images.unsqueeze(1).expand(-1, steps, *[-1] * (images.ndim - 1))


def poisson(images: Tensor, steps: int, ids: list[str] | None = None) -> Tensor:
    """Independent spikes, each with the pixel's intensity as its probability: ``[N, T, C, H, W]`` of 0 and 1.

    Args:
        images: intensities in [0, 1], ``[N, C, H, W]``.
        steps: T.
        ids: draw each sample's spikes from its name, so that an evaluation depends on nothing else; None draws from
            torch's global generator.

    Raises:
        DataError: intensities outside [0, 1].
    """
    if float(images.min()) < 0 or float(images.max()) > 1:
        raise DataError(
            f"task.encoding: poisson needs intensities in [0, 1], got {float(images.min()):.3g} to "
            f"{float(images.max()):.3g}; set data.normalise=false"
        )
    shape = (steps, *images.shape[1:])
    if ids is None:
        drawn = torch.rand(len(images), *shape, device=images.device)
    else:
        seeds = [torch.Generator().manual_seed(zlib.crc32(name.encode())) for name in ids]
        drawn = torch.stack([torch.rand(shape, generator=seed) for seed in seeds]).to(images.device)
    return (drawn < images.unsqueeze(1)).to(images.dtype)


def rows(images: Tensor) -> Tensor:
    """One row of pixels a step: ``[N, C, H, W]`` to ``[N, T = H, C, 1, W]``."""
    return images.transpose(1, 2).unsqueeze(3)
