r"""The dual-path interaction of DHRNet: what people of one image, and joints of one person, tell each other.

Two orders are computed and fused (Dang et al., arXiv 2404.14025; axes and constants from the released code): first
people, then joints, and first joints, then people. Letters: ``P`` people of all images of a batch, ``C`` channels of a
person's map, ``K`` joints, ``L = h w`` cells, ``M = C + K``. Maps are flattened to ``[P, C, L]`` here.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Attention = Literal["release", "keys"]


@dataclass(frozen=True)
class Grouping:
    """Which image each person of a batch is in; people of different images never interact.

    Attributes:
        image: positions of images in the batch, int64, shape ``[P]``, in any order.
        count: images in the batch.
    """

    image: Tensor
    count: int

    @property
    def same(self) -> Tensor:
        """Whether two people are in one image: bool, shape ``[P, P]``."""
        return self.image[:, None] == self.image[None, :]

    def softmax(self, scores: Tensor) -> Tensor:
        """Softmax over the people of each image: shape ``[P, ...]``, without lists or a wait for the device."""
        flat = scores.flatten(1)
        index = self.image[:, None].expand_as(flat)
        lowest = flat.new_full((self.count, flat.shape[1]), -torch.inf)
        highest = lowest.scatter_reduce(0, index, flat.detach(), "amax")
        exponentials = (flat - highest[self.image]).exp()
        sums = torch.zeros_like(lowest).index_add(0, self.image, exponentials)
        return (exponentials / sums[self.image]).view_as(scores)


def pointwise(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution as a matrix product: ``[P, C, L] -> [P, D, L]``."""
    return gated_pointwise(convolution, None, x)


def gated_pointwise(convolution: nn.Conv2d, gate: Tensor | None, *maps: Tensor) -> Tensor:
    r"""A 1x1 convolution of concatenated maps whose channels are first multiplied by a gate of each person.

    .. math:: y_p = W \, \mathrm{diag}(g_p) \, [x_{1,p}; x_{2,p}; ...] + b

    The gate goes into the weights, so that neither the concatenation nor its gated copy is ever made.

    Args:
        convolution: 1x1, ``M`` channels to ``D``, with a bias.
        gate: :math:`g`, shape ``[P, M]``; None for ones.
        maps: each ``[P, M_i, L]``, with channels that sum to ``M``.

    Returns:
        Shape ``[P, D, L]``.
    """
    weight = convolution.weight.flatten(1)
    weight = weight.expand(maps[0].shape[0], -1, -1) if gate is None else weight * gate[:, None, :]
    assert convolution.bias is not None
    total = convolution.bias[:, None]
    for part, x in zip(weight.split([x.shape[1] for x in maps], dim=2), maps, strict=True):
        total = torch.baddbmm(total, part, x)
    return total


def products(first: Tensor, second: Tensor, scale: float) -> Tensor:
    """Matrix products ``first second^T / scale``, divided before they are rounded: ``[B, X, L], [B, Y, L]``."""
    return torch.baddbmm(first.new_zeros(()), first, second.transpose(1, 2), beta=0, alpha=1 / scale)


class CrossInstance(nn.Module):
    r"""CIM: every channel of a person's map is rebuilt from that channel of everyone in the image. No parameters.

    .. math:: R_c = X_c X_c^T / s + V V^T / F, \quad Y_c = A_c X_c, \quad \mathrm{out} = \mathrm{ReLU}(Y + X)

    with :math:`X_c` of shape ``[P, L]`` and :math:`A` the softmax of :math:`R` over channels (``release``) or over
    people (``keys``). The largest thing made besides maps is :math:`R`, ``C P^2`` numbers.

    Args:
        attention: ``release`` takes the softmax over the channel axis, as the released code does; then the term
            :math:`V V^T`, the same for all channels, has no effect and is not computed. ``keys`` takes it over the
            people attended to.
        scale: :math:`s`.

    Deviation: with ``keys``, F is the number of features; the released code has 480 for any backbone.
    """

    def __init__(self, attention: Attention = "release", scale: float = 128.0) -> None:
        super().__init__()
        self.attention, self.scale = attention, scale

    def forward(self, x: Tensor, vectors: Tensor, groups: Grouping | None = None) -> Tensor:
        """Maps ``[P, C, L]`` and person vectors ``[P, F]`` to maps ``[P, C, L]``; no groups: all are of one image."""
        channels = x.transpose(0, 1)
        relation = products(channels, channels, self.scale)
        if self.attention == "release":
            weights = relation.softmax(dim=0)
            if groups is not None:
                weights = weights * groups.same
        else:
            relation = relation + vectors @ vectors.T / vectors.shape[1]
            if groups is not None:
                relation = relation.masked_fill(~groups.same, -torch.inf)
            weights = relation.softmax(dim=2)
        own = torch.eye(x.shape[0], dtype=weights.dtype, device=weights.device)
        return torch.bmm((weights + own).to(x.dtype), channels).relu_().transpose(0, 1)  # (A + 1) X is Y + X


class CrossJoint(nn.Module):
    r"""CJM: every joint's map of a person is rebuilt from the maps of the person's joints.

    .. math:: R_p = Q_p K_p^T / s, \quad \mathrm{out} = \mathrm{ReLU}(A_p V_p + M_p)

    with 1x1 convolutions of the maps :math:`M` to :math:`Q, K, V` and :math:`A` the softmax over the people of the
    image (``release``) or over joints (``keys``). With ``release`` and one person in the image, :math:`A = 1`.

    :math:`Q, K` and :math:`V` are never made: with weights :math:`W` and biases :math:`b`, and :math:`m` the sums of
    :math:`M` over cells,

    .. math::
        Q K^T = W_q (M M^T) W_k^T + (W_q m) b_k^T + b_q (W_k m)^T + L \, b_q b_k^T, \quad
        A V + M = (A W_v + 1) M + A b_v

    Args:
        keypoints: K.
        attention: as of :class:`CrossInstance`.
        scale: :math:`s`.
    """

    def __init__(self, keypoints: int, attention: Attention = "release", scale: float = 128.0) -> None:
        super().__init__()
        self.attention, self.scale = attention, scale
        self.kpts_conv_k = nn.Conv2d(keypoints, keypoints, 1)
        self.kpts_conv_q = nn.Conv2d(keypoints, keypoints, 1)
        self.kpts_conv_v = nn.Conv2d(keypoints, keypoints, 1)

    def forward(self, x: Tensor, groups: Grouping | None = None) -> Tensor:
        """Joint maps ``[P, K, L]`` to ``[P, K, L]``; no groups: all people are of one image."""
        relation = self._relation(x)
        if self.attention == "keys":
            weights = relation.softmax(dim=2)
        else:
            weights = relation.softmax(dim=0) if groups is None else groups.softmax(relation)
        value, bias = self.kpts_conv_v.weight.flatten(1), self.kpts_conv_v.bias
        assert bias is not None
        own = torch.eye(x.shape[1], dtype=weights.dtype, device=weights.device)
        return torch.baddbmm((weights @ bias)[:, :, None].to(x.dtype), (weights @ value + own).to(x.dtype), x).relu_()

    def _relation(self, x: Tensor) -> Tensor:
        """``Q K^T / s``, shape ``[P, K, K]``."""
        query, key = self.kpts_conv_q, self.kpts_conv_k
        assert query.bias is not None and key.bias is not None
        # the biases as one more column of the weights, for one more map that is 1 in every cell
        q, k = (torch.cat((c.weight.flatten(1), c.bias[:, None]), dim=1) for c in (query, key))  # type: ignore[index]
        sums = x.sum(dim=2)[:, :, None] / self.scale
        cells = torch.full_like(sums[:, :1], x.shape[2] / self.scale)
        upper = torch.cat((products(x, x, self.scale), sums), dim=2)
        extended = torch.cat((upper, torch.cat((sums.transpose(1, 2), cells), dim=2)), dim=1)
        return q @ extended @ k.T


class SqueezeExcitation(nn.Module):
    """Gate of each channel from the means of all: ``[P, M] -> [P, M]`` in (0, 1); no bias, reduction 16."""

    def __init__(self, channels: int, ratio: int = 16) -> None:
        super().__init__()
        self.fc_layers = nn.Sequential(
            nn.Linear(channels, channels // ratio, bias=False),
            nn.ReLU(),
            nn.Linear(channels // ratio, channels, bias=False),
        )

    def forward(self, means: Tensor) -> Tensor:
        """Means over cells ``[P, M]`` to gates ``[P, M]``."""
        return self.fc_layers(means).sigmoid()


class ChannelGate(nn.Module):
    """CBAM's channel gate, from means and maxima over cells through one network; reduction 16, no bias."""

    def __init__(self, channels: int, ratio: int = 16) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Conv2d(channels, channels // ratio, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels // ratio, channels, 1, bias=False),
        )

    def forward(self, means: Tensor, maxima: Tensor) -> Tensor:
        """Two times ``[P, M]`` to gates ``[P, M]``."""
        both: Tensor = self.fc(means[..., None, None]) + self.fc(maxima[..., None, None])
        return both.sigmoid().flatten(1)


class SpatialGate(nn.Module):
    """CBAM's spatial gate, a 7x7 convolution of the mean and the maximum over channels; no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, mean: Tensor, maximum: Tensor) -> Tensor:
        """Two times ``[P, h, w]`` to gates ``[P, h, w]``."""
        gate: Tensor = self.conv1(torch.stack((mean, maximum), dim=1))
        return gate.sigmoid().squeeze(1)


class DualPath(nn.Module):
    """DIM: the dual-path interaction module.

    People first: CIM of the person maps, fused with the joint maps to K channels, then CJM. Joints first: CJM of the
    joint maps, fused with the person maps to C channels, then CIM. Both results pass CBAM's gates and a 1x1
    convolution, and are added to the person maps. Fusing is concatenation, squeeze-and-excitation, 1x1 convolution.

    Args:
        channels: C.
        keypoints: K.
        attention: as of :class:`CrossInstance`.
        scale: what inner products over cells are divided by; the side of a training map.

    Source: the released code; its figure draws the parts more alike than they are (CIM has no projections, CJM has).
    """

    def __init__(
        self, channels: int = 32, keypoints: int = 17, attention: Attention = "release", scale: float = 128.0
    ) -> None:
        super().__init__()
        if attention not in ("release", "keys"):
            raise ValueError(f"attention: got {attention!r}, expected 'release' or 'keys'")
        both = channels + keypoints
        if both < 16:
            raise ValueError(f"channels + keypoints: got {both}, expected at least 16, the reduction of the gates")
        self.cross_instance = CrossInstance(attention, scale)
        self.kpts_relation = CrossJoint(keypoints, attention, scale)
        self.kpts_relation_2 = CrossJoint(keypoints, attention, scale)
        self.se_block1 = SqueezeExcitation(both)
        self.se_block2 = SqueezeExcitation(both)
        self.ca = ChannelGate(both)
        self.sa = SpatialGate()
        self.inst_kpt_conv = nn.Conv2d(both, keypoints, 1)
        self.kpt_inst_conv = nn.Conv2d(both, channels, 1)
        self.feat_fusion_conv = nn.Conv2d(both, channels, 1)

    def forward(self, people: Tensor, joints: Tensor, vectors: Tensor, groups: Grouping | None = None) -> Tensor:
        """Person maps that know of each other.

        Args:
            people: shape ``[P, C, h, w]``.
            joints: shape ``[P, K, h, w]``.
            vectors: person vectors, shape ``[P, F]``.
            groups: the image of each person; None where all are of one.

        Returns:
            Shape ``[P, C, h, w]``.
        """
        x, j = people.flatten(2), joints.flatten(2)
        a = self.cross_instance(x, vectors, groups)
        people_first = self.kpts_relation(self._fused(self.se_block1, self.inst_kpt_conv, a, j), groups)
        b = self.kpts_relation_2(j, groups)
        joints_first = self.cross_instance(self._fused(self.se_block2, self.kpt_inst_conv, b, x), vectors, groups)
        gate = self.ca(_over_cells("mean", people_first, joints_first), _over_cells("amax", people_first, joints_first))
        first, second = (
            g * m
            for g, m in zip(
                gate[:, :, None].split([j.shape[1], x.shape[1]], dim=1), (people_first, joints_first), strict=True
            )
        )
        mean = (first.sum(1) + second.sum(1)) / gate.shape[1]
        highest = torch.maximum(first.amax(1), second.amax(1))
        size = people.shape[-2:]
        spatial = self.sa(mean.unflatten(1, size), highest.unflatten(1, size)).flatten(1)
        return self._added(x, spatial, first, second).unflatten(2, size)

    @staticmethod
    def _fused(gate: SqueezeExcitation, convolution: nn.Conv2d, first: Tensor, second: Tensor) -> Tensor:
        return gated_pointwise(convolution, gate(_over_cells("mean", first, second)), first, second)

    def _added(self, people: Tensor, spatial: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """``ReLU(conv(s [first; second]) + people)``, with the spatial gate applied after the convolution."""
        convolution = self.feat_fusion_conv
        assert convolution.bias is not None
        weights = (
            convolution.weight.flatten(1)
            .expand(people.shape[0], -1, -1)
            .split([first.shape[1], second.shape[1]], dim=2)
        )
        mixed = torch.baddbmm(torch.bmm(weights[0], first), weights[1], second)
        return torch.addcmul(people, mixed, spatial[:, None]).add_(convolution.bias[:, None]).relu_()


def _over_cells(how: str, first: Tensor, second: Tensor) -> Tensor:
    """The mean or the maximum of each channel of both maps: ``[P, M]``."""
    return torch.cat([getattr(x, how)(2) for x in (first, second)], dim=1)
