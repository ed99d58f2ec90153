"""The losses of CID and DHRNet: focal losses on heatmaps, and a contrast between the people of an image."""

import torch
import torch.nn.functional as F
from torch import Tensor

ALPHA, BETA = 2, 4
TEMPERATURE = 0.05


def focal_loss(probability: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""The focal loss of CornerNet: cells near a peak count little as negatives.

    .. math::
        L = -\frac{1}{N_{pos}} \sum \begin{cases}
            (1 - p)^2 \log p & \text{where } t = 1 \\
            (1 - t)^4 \, p^2 \log(1 - p) & \text{elsewhere}
        \end{cases}

    Without any peak the sum over negatives is not divided.

    Args:
        probability: :math:`p`, in (0, 1).
        target: :math:`t`, in [0, 1], of the same shape.
        weight: of each cell, broadcast to that shape; 0 leaves a cell out, also of :math:`N_{pos}`.

    Returns:
        A scalar.

    Source: Law and Deng, CornerNet, ECCV 2018; with weights as in the released code of CID.

    Example:
        >>> focal_loss(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]))
        tensor(0.3466)
    """
    peak = (target == 1).to(probability.dtype)
    off = 1 - peak
    if weight is not None:
        peak, off = peak * weight, off * weight
    positive = (probability.log() * (1 - probability) ** ALPHA * peak).sum()
    negative = ((1 - probability).log() * probability**ALPHA * (1 - target) ** BETA * off).sum()
    return -(positive + negative) / peak.sum().clamp(min=1)


def contrast_loss(vectors: Tensor, image: Tensor) -> Tensor:
    r"""How well the vectors of an image's people can be told apart, a mean over all people.

    .. math:: L = -\frac{1}{P} \sum_p \log \frac{\exp(s_{pp} / \tau)}{\sum_{q \in I(p)} \exp(s_{pq} / \tau)}

    with :math:`s` the cosine similarity, :math:`I(p)` the people of the image and :math:`\tau = 0.05`; 0 where there
    is nobody.

    Args:
        vectors: shape ``[P, F]``.
        image: of each person, ``[P]``; people of different images are not compared.

    Returns:
        A scalar.

    Source: the released code of CID. Deviation: 0 in place of a division by zero without people.
    """
    unit = F.normalize(vectors.float() if vectors.dtype in (torch.float16, torch.bfloat16) else vectors, dim=1)
    similarity = unit @ unit.T / TEMPERATURE
    others = image[:, None] != image[None, :]
    log_share = similarity.masked_fill(others, -torch.inf).log_softmax(dim=1)
    return -log_share.diagonal().sum() / max(len(vectors), 1)
