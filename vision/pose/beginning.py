"""What DHRNet and CID begin training from: ImageNet's weights, a file of an HRNet, or of their own family."""

import logging

from torch import nn

from vision.engine.errors import CheckpointError
from vision.pose.convert import Kind, fitted, kind_of, read_released
from vision.pose.dhrnet import DHRNet

log = logging.getLogger(__name__)

IMAGENET = "imagenet"

JOINTS = ("iia.keypoint_center_conv", "gfd.heatmap_conv", "gfd.pre_heatmap_conv", "gfd.dual_relation")
"""Parts whose sizes follow from the number of joints, or that CID has not; they may stay fresh."""

LAST_FUSION = "stage4."
"""Whose last module has fewer fuse layers in top-down HRNets, which end in one branch; the others may stay fresh."""


def begin_from(network: DHRNet, weights: str) -> None:
    """Loads weights to begin training from, and logs what was kept of them.

    The prior biases of the heads are never touched by a backbone's file. (The released code initialises everything
    anew after it has loaded the backbone, and then loads the same file by names that no backbone's file has.)

    Args:
        network: changed in place.
        weights: ``imagenet``, or a file. Where ImageNet's weights cannot be had, that is logged as a warning, and
            training begins from scratch.

    Raises:
        CheckpointError: a file that cannot be read, of another width, or without anything that fits.
    """
    if weights == IMAGENET:
        _imagenet(network)
        return
    tensors = read_released(weights)
    kind = kind_of(tensors)
    part: nn.Module = network.backbone if kind == "hrnet" else network
    before = {name: value.clone() for name, value in part.state_dict().items()}
    fit = fitted(tensors, part, kind)
    strange = [name for name in (*fit.missing, *fit.shapes) if not _may_stay_fresh(name, kind)]
    if strange:
        part.load_state_dict(before)
        more = f" and {len(strange) - 4} more" if len(strange) > 4 else ""
        raise CheckpointError(
            f"{weights}: holds another network's weights: {', '.join(strange[:4])}{more}; its width must be that of "
            f"{network.model} and {network.channels} channels"
        )
    log.info("%s: %s", weights, "; ".join(fit.lines()))


def _may_stay_fresh(name: str, kind: Kind) -> bool:
    if kind == "hrnet":
        return name.startswith(LAST_FUSION) and ".fuse_layers." in name
    return name.startswith(JOINTS)


def _imagenet(network: DHRNet) -> None:
    import timm as library  # slow to import, and most recipes do not need it

    try:
        trained = library.create_model(
            network.model, pretrained=True, features_only=True, feature_location="", out_indices=(1, 2, 3, 4)
        )
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        log.warning(
            "ImageNet weights of %s cannot be fetched (%s): training begins from scratch, which wants more epochs; "
            "give a file as task.network.weights, or null to say that this is meant", network.model, reason,
        )  # fmt: skip
        return
    network.backbone.load_state_dict(trained.state_dict())
    log.info("the backbone begins with timm's ImageNet weights of %s", network.model)
