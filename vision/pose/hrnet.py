"""HRNet features at a quarter of the image's size: timm's network under the names of the released checkpoints.

The high-resolution network keeps branches at strides 4 to 32 to its end (Sun et al., CVPR 2019). Single-stage pose
networks (DEKR, CID, DHRNet) take all branches of its last stage, enlarged to the first one's size and concatenated.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vision.engine.errors import ConfigError, nearest

STRIDE = 4
"""Image pixels from one cell of a feature map to the next."""

WHOLE = 32
"""Image sides are made a multiple of this, the stride of the lowest branch."""


def hrnet(model: str = "hrnet_w32") -> nn.Module:
    """A fresh HRNet of timm without any head; its state dict has the names of the released HRNet files.

    ``hrnet_w32`` has 29,305,536 parameters, ``hrnet_w48`` 65,325,120, ``hrnet_w18_small`` 1,477,920.

    Args:
        model: its name in timm.

    Returns:
        A module that maps images ``[N, 3, H, W]``, sides a multiple of 32, to the four branches of the last stage:
        ``[N, C_i, H / 2^(i+2), W / 2^(i+2)]``. ``module.feature_info.channels()`` lists the widths.

    Raises:
        ConfigError: no such HRNet in timm.
    """
    import timm as library  # slow to import, and most recipes do not need it

    known = library.list_models("hrnet*")
    if model not in known:
        raise ConfigError(f"backbone: timm has no HRNet '{model}'{nearest(model, known)}; it has {', '.join(known)}")
    network: nn.Module = library.create_model(
        model, pretrained=False, features_only=True, feature_location="", out_indices=(1, 2, 3, 4)
    )
    return network


def widths(backbone: nn.Module) -> list[int]:
    """Channels of the branches that :func:`hrnet` gives."""
    channels: list[int] = backbone.feature_info.channels()  # type: ignore[union-attr,operator]
    return channels


def concatenated_features(backbone: nn.Module, images: Tensor) -> Tensor:
    """All branches, enlarged bilinearly (corners not aligned) to the first one's size, as channels of one map.

    Images whose sides are no multiple of 32 are padded with zeros (the mean colour) to the right and bottom, and the
    map is cropped to the image.

    Args:
        backbone: from :func:`hrnet`.
        images: normalised, shape ``[N, 3, H, W]``.

    Returns:
        Features of shape ``[N, F, ceil(H / 4), ceil(W / 4)]`` with ``F`` the sum of the widths (480 for W32).

    Raises:
        ValueError: an image smaller than the stride of the map.
    """
    height, width = images.shape[-2:]
    if not torch.compiler.is_compiling() and min(height, width) < STRIDE:
        raise ValueError(f"image of {height}x{width} pixels: at least {STRIDE} on each side needed, the feature stride")
    branches = backbone(F.pad(images, (0, -width % WHOLE, 0, -height % WHOLE)))
    size = branches[0].shape[-2:]
    enlarged = [F.interpolate(b, size=size, mode="bilinear", align_corners=False) for b in branches[1:]]
    features = torch.cat([branches[0], *enlarged], dim=1)
    return features.narrow(2, 0, -(-height // STRIDE)).narrow(3, 0, -(-width // STRIDE))


def fold_batchnorm(network: nn.Module) -> nn.Module:
    r"""Folds every BatchNorm that follows a convolution into it, in place: for inference only.

    .. math:: W' = W \gamma / \sqrt{\sigma^2 + \epsilon}, \quad b' = \beta - \mu \gamma / \sqrt{\sigma^2 + \epsilon}

    Pairs are found by HRNet's names: ``convN`` with ``bnN`` in a block, and neighbours in an ``nn.Sequential``.

    Args:
        network: in evaluation mode.

    Returns:
        The same network; its outputs are equal up to rounding.

    Raises:
        ValueError: the network is in training mode.
    """
    if network.training:
        raise ValueError("BatchNorm can only be folded for inference: call eval() first")
    for module in list(network.modules()):
        children = dict(module.named_children())
        names = list(children)
        pairs = [(name, name.replace("conv", "bn")) for name in names if name.startswith("conv")]
        if isinstance(module, nn.Sequential):
            pairs += list(pairwise(names))
        for convolution, norm in pairs:
            first, second = children[convolution], children.get(norm)
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                setattr(module, convolution, fuse_conv_bn_eval(first, second))
                setattr(module, norm, nn.Identity())
    return network
