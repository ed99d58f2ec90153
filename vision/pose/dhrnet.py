r"""DHRNet: everyone's pose in one pass over the image (Dang et al., arXiv 2404.14025), and CID, which it builds on.

HRNet features at stride 4; a 1x1 convolution finds joints and centres of all people (IIA); the feature vector at a
centre turns a shared map into that person's own (GFD); people and joints exchange information (DIM,
:mod:`vision.pose.relations`); a 1x1 convolution gives the person's heatmaps.

The paper's text was not available to us: layers, axes and constants are those of the released code, and state-dict
names agree with its checkpoints one to one. CID (Wang and Zhang, CVPR 2022) is the same network without DIM.
"""

import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge
from torch import Tensor, nn

from vision.engine.registry import register
from vision.pose.hrnet import concatenated_features, fold_batchnorm, hrnet, widths
from vision.pose.peaks import find_centres
from vision.pose.relations import Attention, DualPath, Grouping, pointwise

Whole = Annotated[int, Ge(1)]

PRIOR = 0.01
"""Probability that every map begins training with: bias -4.595."""

BACKBONE = "backbone."
"""Before every name of the backbone's tensors."""

OFFSET_SCALE = 32.0
"""Cells that relative offsets to a centre are divided by."""


def probability(logits: Tensor) -> Tensor:
    """Sigmoid in float32 (or wider), clamped to [1e-4, 1 - 1e-4], as the losses and the decoding take it."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid().clamp(1e-4, 1 - 1e-4)


def _prior_bias(convolution: nn.Conv2d) -> None:
    assert convolution.bias is not None
    nn.init.constant_(convolution.bias, -math.log((1 - PRIOR) / PRIOR))


class People(NamedTuple):
    """Centres of people found in a batch, image by image, surest first.

    Attributes:
        coords: cell of each centre, row then column, int64, shape ``[P, 2]``.
        image: position of its image in the batch, int64, shape ``[P]``.
        scores: probability of each centre, shape ``[P]``.
    """

    coords: Tensor
    image: Tensor
    scores: Tensor


class Detections(NamedTuple):
    """What :meth:`DHRNet.detect` finds.

    Attributes:
        heatmaps: probabilities of each person's joints, shape ``[P, K, h, w]``.
        people: their centres.
    """

    heatmaps: Tensor
    people: People


class InstanceAbstraction(nn.Module):
    """IIA: maps of K joints and, last, of the centres of everyone: ``[N, F, h, w] -> [N, K + 1, h, w]`` logits."""

    def __init__(self, features: int, keypoints: int) -> None:
        super().__init__()
        self.keypoint_center_conv = nn.Conv2d(features, keypoints + 1, 1)
        nn.init.normal_(self.keypoint_center_conv.weight, std=0.001)
        _prior_bias(self.keypoint_center_conv)

    def forward(self, features: Tensor) -> Tensor:
        """Logits of joints and centres."""
        return self.keypoint_center_conv(features)


class ChannelAttention(nn.Module):
    """A weight of each channel from the person vector: ``[P, F] -> [P, C]``; no sigmoid, no norm."""

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.atn = nn.Linear(features, channels)

    def forward(self, vectors: Tensor) -> Tensor:
        """Channel weights of each person."""
        return self.atn(vectors)


class SpatialAttention(nn.Module):
    r"""A mask over cells, from similarity to the person vector and the offset to the person's centre.

    .. math:: m = \sigma(\mathrm{conv}_{5 \times 5}[\langle X, q \rangle, (c_x - x) / 32, (c_y - y) / 32])
    """

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.atn = nn.Linear(features, channels)
        self.conv = nn.Conv2d(3, 1, 5, padding=2)

    def forward(self, similarity: Tensor, coords: Tensor) -> Tensor:
        """Masks ``[P, h, w]`` from similarities ``[P, h, w]`` and centres ``[P, 2]`` (row, column)."""
        height, width = similarity.shape[-2:]
        rows = torch.arange(height, device=coords.device)
        columns = torch.arange(width, device=coords.device)
        below = ((coords[:, 0, None] - rows) / OFFSET_SCALE).to(similarity.dtype)
        right = ((coords[:, 1, None] - columns) / OFFSET_SCALE).to(similarity.dtype)
        offsets = (right[:, None, :].expand_as(similarity), below[:, :, None].expand_as(similarity))
        mask: Tensor = self.conv(torch.stack((similarity, *offsets), dim=1))
        return mask.sigmoid().squeeze(1)


class GlobalFeatureDecoupling(nn.Module):
    r"""GFD: one map for each person out of a map shared by all, then that person's heatmaps.

    .. math::
        X = \mathrm{conv\_down}(f), \quad
        \mathrm{cond}_p = \mathrm{ReLU}(W [X \odot a(v_p); X \odot m_p] + b), \quad
        J_p = \mathrm{ReLU}(\mathrm{conv}(\mathrm{cond}_p))

    with :math:`v_p` the features at the centre, :math:`a` the channel and :math:`m_p` the spatial attention; then DIM
    and the heatmaps. :math:`W` is split into its halves and applied to :math:`X` before what is particular to a person,
    so that the ``2 C`` channels of the concatenation are never made; the result is the same.

    Args:
        features: F.
        keypoints: K.
        channels: C.
        dual_path: whether there is a DIM; without it this is CID's head.
        attention: of DIM.
        scale: of DIM.
    """

    def __init__(
        self, features: int, keypoints: int, channels: int, dual_path: bool, attention: Attention, scale: float
    ) -> None:
        super().__init__()
        self.conv_down = nn.Conv2d(features, channels, 1)
        self.c_attn = ChannelAttention(features, channels)
        self.s_attn = SpatialAttention(features, channels)
        self.fuse_attn = nn.Conv2d(2 * channels, channels, 1)
        self.heatmap_conv = nn.Conv2d(channels, keypoints, 1)
        if dual_path:
            self.pre_heatmap_conv = nn.Conv2d(channels, keypoints, 1)
            self.dual_relation = DualPath(channels, keypoints, attention, scale)
        self.dual_path = dual_path
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=0.001)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        _prior_bias(self.heatmap_conv)

    def decoupled(self, shared: Tensor, vectors: Tensor, coords: Tensor, groups: Grouping | None = None) -> Tensor:
        """The map of each person, ``[P, C, h, w]``; arguments as of :meth:`forward`."""
        size, channels = shared.shape[-2:], shared.shape[1]
        by_channel, by_space = self.fuse_attn.weight.flatten(1).split(channels, dim=1)
        gates = by_channel * self.c_attn(vectors)[:, None, :]  # [P, C, C]
        queries = self.s_attn.atn(vectors)
        spatial = by_space @ shared.flatten(2)  # [N, C, L]
        if groups is None:
            x = shared[0].flatten(1)
            similarity = queries @ x
            own = (gates.flatten(0, 1) @ x).unflatten(0, (-1, channels))
        else:
            x = shared.flatten(2)[groups.image]
            similarity = torch.bmm(queries[:, None, :], x).squeeze(1)
            own, spatial = torch.bmm(gates, x), spatial[groups.image]
        mask = self.s_attn(similarity.unflatten(1, size), coords).flatten(1)
        assert self.fuse_attn.bias is not None
        return (
            torch.addcmul(own, spatial, mask[:, None, :]).add_(self.fuse_attn.bias[:, None]).relu_().unflatten(2, size)
        )

    def forward(self, shared: Tensor, vectors: Tensor, coords: Tensor, groups: Grouping | None = None) -> Tensor:
        """Heatmap logits of each person.

        Args:
            shared: ``conv_down`` of the features, shape ``[N, C, h, w]``.
            vectors: features at the centres, shape ``[P, F]``.
            coords: the centres' cells, row then column, shape ``[P, 2]``.
            groups: the image of each person; None where ``N`` is 1.

        Returns:
            Shape ``[P, K, h, w]``.
        """
        cond = self.decoupled(shared, vectors, coords, groups)
        if self.dual_path:
            joints = pointwise(self.pre_heatmap_conv, cond.flatten(2)).relu_().unflatten(2, cond.shape[-2:])
            cond = self.dual_relation(cond, joints, vectors, groups)
        return pointwise(self.heatmap_conv, cond.flatten(2)).unflatten(2, cond.shape[-2:])


@dataclass(frozen=True)
class Search:
    """How centres of people are looked for; the released values.

    Attributes:
        most: people an image, at most.
        threshold: a centre's probability is above it.
        kernel: side of the window that centre maps and heatmaps are smoothed over; odd.
    """

    most: int = 30
    threshold: float = 0.01
    kernel: int = 3

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"most: got {self.most}, expected at least 1")
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold: got {self.threshold}, expected a probability in [0, 1)")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel: got {self.kernel}, expected an odd number of cells")


@register("dhrnet")
class DHRNet(nn.Module):
    """DHRNet: HRNet features, centres, a map for each person, and dual-path interaction between people and joints.

    With W32 and COCO's 17 joints 29,370,514 parameters, 7,427 of them more than CID.

    Args:
        keypoints: joints of a person.
        backbone: an HRNet of timm: ``hrnet_w32``, ``hrnet_w48``, ``hrnet_w18_small``, ...
        channels: of a person's map; by default 48 for ``hrnet_w48`` and 32 for any other.
        attention: axes of the softmax in DIM: ``release`` as in the released code, needed for its checkpoints;
            ``keys`` over what is attended to, as the figures suggest.
        dual_path: whether there is a DIM; false is CID.
        output_size: side of a training map, which inner products in DIM are divided by; 128 for images of 512 pixels.
        search: how centres are looked for at inference; by default as in the released code.
        weights: what training begins from: ``imagenet`` for timm's backbone, which is fetched where it is not at hand,
            or a file of an HRNet, CID or DHRNet, released or ours; null begins with fresh weights.

    Raises:
        ConfigError: no such backbone.
        ValueError: fewer than one keypoint, channel or cell.

    Source: the released code. Deviation: fresh backbones have timm's initialisation, which can be trained from
    scratch; the released code draws every weight from N(0, 0.001) and relies on a checkpoint.
    """

    def __init__(
        self,
        keypoints: Whole = 17,
        backbone: str = "hrnet_w32",
        channels: Whole | None = None,
        attention: Attention = "release",
        dual_path: bool = True,
        output_size: Whole = 128,
        search: Search | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if channels is None:
            channels = 48 if backbone == "hrnet_w48" else 32
        for name, value in (("keypoints", keypoints), ("channels", channels), ("output_size", output_size)):
            if value < 1:
                raise ValueError(f"{name}: got {value}, expected at least 1")
        self.keypoints, self.channels, self.search = keypoints, channels, search or Search()
        self.model, self.weights = backbone, weights
        self.backbone = hrnet(backbone)
        self.width = sum(widths(self.backbone))
        self.iia = InstanceAbstraction(self.width, keypoints)
        self.gfd = GlobalFeatureDecoupling(self.width, keypoints, channels, dual_path, attention, float(output_size))

    def features(self, images: Tensor) -> Tensor:
        """Normalised images ``[N, 3, H, W]`` to features ``[N, F, ceil(H / 4), ceil(W / 4)]``."""
        return concatenated_features(self.backbone, images)

    def maps(self, features: Tensor) -> Tensor:
        """Logits of everyone's joints and, as the last channel, of centres: ``[N, K + 1, h, w]``."""
        return self.iia(features)

    def vectors(self, features: Tensor, people: People) -> Tensor:
        """Features at the centres of people: ``[P, F]``."""
        return features[people.image, :, people.coords[:, 0], people.coords[:, 1]]

    def heatmaps(self, features: Tensor, people: People, vectors: Tensor | None = None) -> Tensor:
        """Heatmap logits ``[P, K, h, w]`` of people in a batch of features ``[N, F, h, w]``."""
        found = self.vectors(features, people) if vectors is None else vectors
        groups = None if len(features) == 1 else Grouping(people.image, len(features))
        return self.gfd(self.gfd.conv_down(features), found, people.coords, groups)

    def find(self, centres: Tensor) -> People:
        """People by the probabilities of centres, ``[N, h, w]``."""
        return People(*find_centres(centres, self.search.most, self.search.threshold, self.search.kernel))

    def detect(self, images: Tensor, flip_index: list[int] | None = None) -> Detections:
        """Everyone in a batch of images.

        Args:
            images: normalised, shape ``[N, 3, H, W]``.
            flip_index: for a flip test, the joint that each joint is in a mirror image: centre maps of an image and
                its mirror image are averaged before the search, heatmaps after it.

        Returns:
            Heatmaps and centres; images do not influence each other.
        """
        count = len(images)
        if flip_index is None:
            features = self.features(images)
            people = self.find(probability(self.maps(features)[:, -1]))
            return Detections(probability(self.heatmaps(features, people)), people)
        features = self.features(torch.cat((images, images.flip(-1))))
        features = torch.cat((features[:count], features[count:].flip(-1)))
        centres = probability(self.maps(features)[:, -1])
        people = self.find((centres[:count] + centres[count:]) / 2)
        both = People(
            people.coords.repeat(2, 1), torch.cat((people.image, people.image + count)), people.scores.repeat(2)
        )
        heatmaps = probability(self.heatmaps(features, both))
        found = len(people.image)
        return Detections((heatmaps[:found] + heatmaps[found:, flip_index]) / 2, people)

    def forward(self, images: Tensor) -> Tensor:
        """Confidence maps of the surest people of every image, in a form of fixed size.

        Args:
            images: normalised, shape ``[N, 3, H, W]``.

        Returns:
            Shape ``[N, M, K, h, w]``, ``M = search.most``: the heatmaps of person ``m`` of an image, times the
            probability of its centre; zero where there are fewer people. :meth:`detect` has no empty places.
        """
        heatmaps, people = self.detect(images)
        order = torch.arange(len(people.image), device=images.device)
        before = torch.searchsorted(people.image, people.image)
        slots = heatmaps.new_zeros(len(images), self.search.most, *heatmaps.shape[1:])
        return slots.index_put((people.image, order - before), heatmaps * people.scores[:, None, None, None])

    def before_training(self) -> None:
        """Loads what training begins from; see :func:`vision.pose.beginning.begin_from`.

        Raises:
            CheckpointError: a file that cannot be read or is of another network.
        """
        from vision.pose.beginning import begin_from  # it stands above this module

        if self.weights is not None:
            begin_from(self, self.weights)

    def deploy(self) -> "DHRNet":
        """Folds BatchNorm into convolutions, in place, for inference; outputs are equal up to rounding."""
        fold_batchnorm(self.eval())
        return self


@register("cid")
def cid(
    keypoints: Whole = 17,
    backbone: str = "hrnet_w32",
    channels: Whole | None = None,
    search: Search | None = None,
    weights: str | None = None,
) -> DHRNet:
    """CID: DHRNet without the dual-path interaction; the baseline of its ablation. W32 has 29,363,087 parameters.

    Args:
        keypoints: joints of a person.
        backbone: an HRNet of timm.
        channels: of a person's map; by default 48 for ``hrnet_w48`` and 32 for any other.
        search: how centres are looked for at inference; by default as in the released code.
        weights: what training begins from, as of ``dhrnet``.

    Source: Wang and Zhang, "Contextual instance decoupling for robust multi-person pose estimation", CVPR 2022.
    """
    return DHRNet(keypoints, backbone, channels, dual_path=False, search=search, weights=weights)


class ImageStage(nn.Module):
    """The first half for export: an image to its features, centre probabilities and shared map.

    Args:
        network: its weights are shared.
    """

    def __init__(self, network: DHRNet) -> None:
        super().__init__()
        self.backbone, self.iia, self.conv_down = network.backbone, network.iia, network.gfd.conv_down

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[N, 3, H, W]`` to features ``[N, F, h, w]``, centres ``[N, h, w]`` and shared map ``[N, C, h, w]``."""
        features = concatenated_features(self.backbone, images)
        return features, probability(self.iia(features)[:, -1]), self.conv_down(features)


class PeopleStage(nn.Module):
    """The second half for export: people of one image, any number of them, to their heatmaps.

    Between the halves, centres are looked for (:func:`vision.pose.peaks.find_centres`) and the features at them
    gathered.

    Args:
        network: its weights are shared.
    """

    def __init__(self, network: DHRNet) -> None:
        super().__init__()
        self.gfd = network.gfd

    def forward(self, shared: Tensor, vectors: Tensor, coords: Tensor) -> Tensor:
        """Shared map ``[1, C, h, w]``, vectors ``[P, F]`` and centres ``[P, 2]`` to probabilities ``[P, K, h, w]``."""
        return probability(self.gfd(shared, vectors, coords))
