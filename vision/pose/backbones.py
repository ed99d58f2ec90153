"""Networks of the timm library as pose networks: baselines behind the same decoders, data and evaluation."""

import logging
import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse
from torch.fx.proxy import TraceError

from vision.engine.checkpoint import differences, read_weights
from vision.engine.errors import CheckpointError, ConfigError, nearest
from vision.engine.registry import register
from vision.pose.decoders import DecoderName, build_decoder
from vision.pose.network import PoseNetwork
from vision.pose.transfer import POSITIONS, resized_positions

log = logging.getLogger(__name__)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRANSFORMERS = ["vision_transformer", "deit"]
"""The modules of timm whose networks are plain vision transformers."""


class ConvFeatures(nn.Module):
    """The last map of a convolutional network; of an HRNet the map of its first branch, at a quarter of the size.

    Args:
        model: timm's name.
        options: of timm's constructor.

    Attributes:
        network: timm's.
        channels: C.
        stride: image pixels from one cell to the next.
        whole: image sides are padded to a multiple of this.

    Deviation: of an HRNet the fusions of the last stage into other branches than the first are left out, as in the
    published pose networks.
    """

    def __init__(self, model: str, in_channels: int, options: dict[str, Any]) -> None:
        super().__init__()
        high_resolution = model.startswith("hrnet")
        if high_resolution:
            options = {"feature_location": "", **options}
        index = 1 if high_resolution else -1
        self.network = _create(model, in_chans=in_channels, features_only=True, out_indices=(index,), **options)
        if high_resolution:
            last: Any = self.network.stage4[-1]  # type: ignore[index]
            last.fuse_layers = last.fuse_layers[:1]
        info = self.network.feature_info
        self.channels, self.stride = int(info.channels()[-1]), int(info.reduction()[-1])  # type: ignore[union-attr,operator]
        self.whole = 32

    def forward(self, images: Tensor) -> Tensor:
        """``[N, in_channels, H, W] -> [N, C, H / stride, W / stride]``."""
        (features,) = self.network(images)
        return features.permute(0, 3, 1, 2) if features.shape[1] != self.channels else features

    def deploy(self) -> None:
        """Folds batch norms into the convolutions right before them, where the network can be traced for it."""
        if isinstance(self.network, fx.GraphModule):
            return
        try:
            self.network = fuse(self.network)
        except (TraceError, TypeError, NotImplementedError) as error:
            log.warning("batch norms of the backbone stay as they are: it cannot be traced (%s)", error)


class PatchFeatures(nn.Module):
    """The tokens of a plain vision transformer, after its last norm, as a map.

    Args:
        model: timm's name.
        input_size: width and height of the crops its position embeddings are for; others are interpolated to.
        options: of timm's constructor.

    Attributes:
        network: timm's.
        channels: C.
        stride: side of a patch in pixels.
        whole: image sides are padded to a multiple of this.
        grid: rows and columns of the position embeddings.

    Source: ViTPose (Xu et al., NeurIPS 2022). Deviation: a class token, where the network has one, is kept, because its
    ImageNet weights know it; ViTPose drops it.
    """

    def __init__(self, model: str, in_channels: int, input_size: tuple[int, int], options: dict[str, Any]) -> None:
        super().__init__()
        named = re.search(r"patch(\d+)", model)
        side = int(options.get("patch_size") or (named[1] if named else 16))
        width, height = (-(-length // side) * side for length in input_size)
        options = {"img_size": (height, width), "dynamic_img_size": True, "global_pool": "", **options}
        self.network = _create(model, in_chans=in_channels, num_classes=0, **options)
        self.channels, self.stride, self.whole = int(self.network.num_features), side, side  # type: ignore[arg-type]
        self.grid = (height // side, width // side)

    def forward(self, images: Tensor) -> Tensor:
        """``[N, in_channels, H, W] -> [N, C, H / stride, W / stride]``."""
        tokens = self.network.forward_features(images)[:, self.network.num_prefix_tokens :]  # type: ignore
        return tokens.transpose(1, 2).unflatten(2, (images.shape[-2] // self.stride, images.shape[-1] // self.stride))


def _create(model: str, **options: Any) -> nn.Module:
    import timm as library  # slow to import, and most recipes do not need it

    try:
        network: nn.Module = library.create_model(model, pretrained=False, **options)
    except (TypeError, RuntimeError, AssertionError, ValueError, IndexError) as error:
        raise ConfigError(f"timm_pose.model: '{model}' cannot be built as features with {options}: {error}") from error
    return network


class TimmPose(PoseNetwork):
    """A network of timm, without its classifier, and a decoder.

    Args:
        backbone: gives the features.
        decoder: ``deconv``, ``simple`` or ``simcc``.
        keypoints: K.
        input_size: width and height of a crop in pixels.
        in_channels: channels of the image.
        hidden: channels of the deconv decoder.
        statistics: mean and standard deviation, one a channel, that timm's weights expect of images in [0, 1]; crops
            come with ImageNet's, and are converted.
        pretrained: timm's name of weights to fetch when training begins.
        backbone_weights: file of weights of the backbone to begin training from.
        weights: file of weights of such a pose network to begin training from.
    """

    gain: Tensor
    offset: Tensor

    def __init__(
        self,
        backbone: ConvFeatures | PatchFeatures,
        decoder: DecoderName,
        keypoints: int,
        input_size: tuple[int, int],
        in_channels: int,
        hidden: int,
        statistics: tuple[tuple[float, ...], tuple[float, ...]] | None,
        pretrained: str | None,
        backbone_weights: str | None,
        weights: str | None,
    ) -> None:
        width, height = (-(-side // backbone.whole) * backbone.whole // backbone.stride for side in input_size)
        size = (width, height)  # of the features, since sides are padded
        head = build_decoder(decoder, backbone.channels, backbone.stride, keypoints, input_size, hidden, size)
        super().__init__(head, input_size, in_channels, weights)
        self.backbone = backbone
        self.pretrained, self.backbone_weights = pretrained, backbone_weights
        mean, std = statistics or (IMAGENET_MEAN, IMAGENET_STD)
        pairs = list(zip(IMAGENET_MEAN, IMAGENET_STD, mean, std, strict=True))
        self.converts = statistics is not None and (tuple(mean), tuple(std)) != (IMAGENET_MEAN, IMAGENET_STD)
        for name, values in (
            ("gain", [ours / theirs for _, ours, _, theirs in pairs]),
            ("offset", [(ours - theirs) / scale for ours, _, theirs, scale in pairs]),
        ):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    @property
    def position_grid(self) -> tuple[int, int] | None:
        """Rows and columns of the position embeddings; None where there are none."""
        return getattr(self.backbone, "grid", None)

    def features(self, images: Tensor) -> Tensor:
        """``[N, in_channels, H, W] -> [N, C, h, w]``; sides are padded with zeros, the mean colour, to whole cells."""
        height, width = images.shape[-2:]
        whole = self.backbone.whole
        if height % whole or width % whole:
            images = F.pad(images, (0, -width % whole, 0, -height % whole))
        if self.converts:
            images = images * self.gain + self.offset
        features: Tensor = self.backbone(images)
        return features

    def before_training(self) -> None:
        """Loads the weights that training begins from, where some were asked for, and logs what was kept.

        Raises:
            CheckpointError: they cannot be read or fetched, or are of another network.
        """
        if self.backbone_weights is not None:
            file = read_weights(self.backbone_weights)
            self._load_backbone(file.tensors, str(file.path))
        elif self.pretrained is not None:
            self._load_backbone(_fetched(self.pretrained), f"timm's {self.pretrained}")
        super().before_training()

    def _load_backbone(self, held: dict[str, Tensor], origin: str) -> None:
        """Every tensor of the backbone from a whole network's; what only its classifier needs is left."""
        network = self.backbone.network
        own = network.state_dict()
        plain = {name.removeprefix("module.").replace(".", "_"): value for name, value in held.items()}
        found = {name: plain[key] for name in own if (key := name.replace(".", "_")) in plain}
        grid = self.position_grid
        for name in [name for name in found if name.endswith(POSITIONS) and grid is not None]:
            assert grid is not None
            if found[name].shape != own[name].shape:
                found[name] = resized_positions(found[name], grid, own[name].shape[1] - grid[0] * grid[1])
                log.info("%s: position embeddings interpolated to %dx%d patches", origin, *grid)
        wanted = {name: value for name, value in own.items() if not name.endswith("num_batches_tracked")}
        if wrong := differences(wanted, {name: found[name] for name in wanted if name in found}):
            raise CheckpointError(
                f"{origin}: does not fit the backbone: {wrong}; check task.network.model and in_channels"
            )
        network.load_state_dict({**own, **found})
        log.info("%s: %d tensors of the backbone kept; initialised afresh: the decoder", origin, len(found))


def _fetched(model: str) -> dict[str, Tensor]:
    import timm as library

    try:
        state: dict[str, Tensor] = library.create_model(model, pretrained=True).state_dict()
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"timm_pose.pretrained: the weights of '{model}' cannot be fetched ({reason}); check the network "
            "connection, or give a file as backbone_weights"
        ) from error
    return state


@register("timm_pose")
def timm_pose(
    model: str,
    keypoints: int = 17,
    input_size: tuple[int, int] = (192, 256),
    decoder: DecoderName = "deconv",
    hidden: int = 256,
    in_channels: int = 3,
    pretrained: bool = False,
    backbone_weights: str | None = None,
    weights: str | None = None,
    options: dict[str, Any] | None = None,
) -> TimmPose:
    """A network of timm as a pose network, such as ``hrnet_w32``, ``resnet50`` or ``vit_small_patch16_224``.

    With the ``deconv`` decoder these are the published baselines: of an HRNet the finest branch and one convolution
    (HRNet-W32, W48), of ResNet-50 SimpleBaseline, of a ViT the "classic" ViTPose.

    Args:
        model: ``architecture`` or ``architecture.tag`` of timm: a convolutional network or a plain vision transformer.
        keypoints: K, joints of the skeleton.
        input_size: width and height of a crop in pixels; other sizes are taken too, but not by ``simcc``.
        decoder: ``deconv`` or ``simple`` (heatmaps), or ``simcc`` (bins along each axis).
        hidden: channels of the ``deconv`` decoder's doublings.
        in_channels: channels of the image.
        pretrained: fetch timm's trained weights of the backbone when training begins (from its cache, else from the
            network).
        backbone_weights: file of trained weights of the backbone to begin training from, in timm's names; its
            classifier is left out.
        weights: file of weights of such a pose network to begin training from, whatever its joints and input size.
        options: anything else the model's constructor takes, such as ``drop_path_rate``.

    Raises:
        ConfigError: no such model (with the nearest name), one whose features no decoder takes, or more than one of
            ``pretrained``, ``backbone_weights`` and ``weights``.

    Source: Sun et al., CVPR 2019 (HRNet); Xiao et al., ECCV 2018 (SimpleBaseline); Xu et al., NeurIPS 2022 (ViTPose).
    """
    import timm as library  # slow to import, and most recipes do not need it

    architecture, _, _ = model.partition(".")
    if not library.is_model(architecture):
        raise ConfigError(f"timm_pose.model: there is no '{model}'{nearest(architecture, library.list_models())}")
    if pretrained + (backbone_weights is not None) + (weights is not None) > 1:
        raise ConfigError("timm_pose: give one of pretrained, backbone_weights and weights")
    backbone: ConvFeatures | PatchFeatures
    if library.models.is_model_in_modules(architecture, TRANSFORMERS):
        backbone = PatchFeatures(model, in_channels, input_size, options or {})
    else:
        backbone = ConvFeatures(model, in_channels, options or {})
    config = library.get_pretrained_cfg(model)
    statistics = (tuple(config.mean), tuple(config.std)) if config is not None and in_channels == 3 else None
    name = model if pretrained else None
    return TimmPose(
        backbone, decoder, keypoints, input_size, in_channels, hidden, statistics, name, backbone_weights, weights
    )
