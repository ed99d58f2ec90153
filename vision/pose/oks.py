"""Object keypoint similarity of any skeleton, non-maximum suppression by it, and rescoring."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]

SURE = 0.2
"""Joints whose score is not above it do not count for the score of a pose."""


def joint_similarity(found: Floats, truth: Floats, area: float | Floats, sigmas: Sequence[float] | Floats) -> Array:
    r"""How near each joint is to where it should be, measured by how precisely people can place it.

    .. math:: \exp\left(-\frac{d_k^2}{2 \, a \, (2 \sigma_k)^2}\right)

    Args:
        found: pixels, shape ``[..., K, 2]``.
        truth: pixels, shape ``[..., K, 2]``; the leading axes broadcast.
        area: :math:`a` of the true person in pixels squared, a number or of the leading shape.
        sigmas: of the skeleton, ``[K]``.

    Returns:
        Shape ``[..., K]``, in [0, 1].

    Source: COCO's keypoint evaluation, in its order of operations.

    Example:
        >>> joint_similarity(np.array([[3.0, 4.0]]), np.zeros((1, 2)), 100.0, [0.25]).round(4)
        array([0.6065])
    """
    variances = (np.asarray(sigmas, dtype=np.float64) * 2) ** 2
    offset = np.asarray(found, dtype=np.float64) - np.asarray(truth, dtype=np.float64)
    squared = offset[..., 0] ** 2 + offset[..., 1] ** 2
    scale = np.asarray(area, dtype=np.float64)[..., None] + np.spacing(1)
    result: Array = np.exp(-(squared / variances / scale / 2))
    return result


def oks(
    found: Floats, truth: Floats, visible: NDArray[Any], area: float | Floats, sigmas: Sequence[float] | Floats
) -> Array:
    """Object keypoint similarity: the mean of :func:`joint_similarity` over labelled joints; NaN where none is.

    Args:
        found: pixels, shape ``[..., K, 2]``.
        truth: pixels, shape ``[..., K, 2]``.
        visible: above 0 where a joint is labelled, shape ``[..., K]``.
        area: of the true person in pixels squared, a number or of the leading shape.
        sigmas: of the skeleton, ``[K]``.

    Returns:
        Of the leading shape, in [0, 1].
    """
    similarity = joint_similarity(found, truth, area, sigmas)
    labelled = np.broadcast_to(np.asarray(visible) > 0, similarity.shape)
    count = labelled.sum(-1)
    mean: Array = np.where(count > 0, (similarity * labelled).sum(-1) / np.maximum(count, 1), np.nan)
    return mean


def oks_matrix(found: Array, truth: Array, boxes: Array, areas: Array, sigmas: Sequence[float] | Array) -> Array:
    """OKS of every pose found with every true person of one image, as COCO's evaluation has it, to the last bit.

    For a person without any labelled joint, distances are those outside the person's box enlarged by its own size on
    every side, over all joints.

    Args:
        found: float64, shape ``[D, K, 2]``.
        truth: float64, shape ``[G, K, 3]``, visibility last.
        boxes: left, top, width, height of the true persons, ``[G, 4]``.
        areas: of the true persons, ``[G]``.
        sigmas: of the skeleton, ``[K]``.

    Returns:
        Shape ``[D, G]``.
    """
    near = joint_similarity(found[:, None], truth[..., :2], areas, sigmas)
    result = np.empty(near.shape[:2])
    for column, (joints, box, area) in enumerate(zip(truth, boxes, areas, strict=True)):
        labelled = joints[:, 2] > 0
        if labelled.any():  # what does not count is taken out before the sum, whose rounding depends on its length
            counted = near[:, column] if labelled.all() else np.compress(labelled, near[:, column], 1)
        else:
            low, high = box[:2] - box[2:], box[:2] + 2 * box[2:]
            outside = np.maximum(low - found, 0) + np.maximum(found - high, 0)
            counted = joint_similarity(outside, np.zeros(2), area, sigmas)
        result[:, column] = counted.sum(1) / counted.shape[1]
    return result


def extent(keypoints: Floats) -> Array:
    """The area of the box around all joints of each pose ``[..., K, 2]``, in pixels squared."""
    sides = np.ptp(np.asarray(keypoints, dtype=np.float64)[..., :2], axis=-2)
    area: Array = sides[..., 0] * sides[..., 1]
    return area


def oks_nms(
    keypoints: Floats, scores: Floats, areas: Floats, sigmas: Sequence[float] | Floats, threshold: float
) -> NDArray[np.intp]:
    """Greedy non-maximum suppression: a pose is dropped where a better one is more alike than ``threshold``.

    The likeness of two poses is their OKS over all joints with the mean of their areas.

    Args:
        keypoints: of the poses of one image, shape ``[P, K, 2]``.
        scores: of each pose, ``[P]``.
        areas: of each pose in pixels squared, ``[P]``: that of its box, or its :func:`extent`.
        sigmas: of the skeleton, ``[K]``.
        threshold: in [0, 1]; 0.9 usually for boxes of a detector, 0.8 or 0.7 for single-stage networks.

    Returns:
        Positions of the poses that are kept, best first; of equal scores the earlier.

    Source: the evaluation code of SimpleBaseline and HRNet.
    """
    joints = np.asarray(keypoints, dtype=np.float64)[..., :2]
    sizes = np.asarray(areas, dtype=np.float64)
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    if len(order) < 2:
        return order
    alike = joint_similarity(joints[:, None], joints, (sizes[:, None] + sizes) / 2, sigmas).mean(-1) > threshold
    dropped = np.zeros(len(order), dtype=bool)
    kept: list[np.intp] = []
    for pose in order:
        if not dropped[pose]:
            kept.append(pose)
            dropped |= alike[pose]
    return np.array(kept, dtype=np.intp)


def rescored(box_scores: Floats, joint_scores: Floats, sure: float = SURE) -> Array:
    r"""The score of a pose in a detector's box: :math:`s_{box} \cdot \mathrm{mean}\{s_k : s_k > 0.2\}`.

    Args:
        box_scores: shape ``[P]``.
        joint_scores: shape ``[P, K]``.
        sure: what a joint's score must exceed to count.

    Returns:
        Shape ``[P]``; 0 for a pose without a sure joint.

    Source: the evaluation code of SimpleBaseline and HRNet.

    Example:
        >>> rescored(np.array([0.5]), np.array([[0.9, 0.3, 0.1]]))
        array([0.3])
    """
    joints = np.asarray(joint_scores)
    counted = joints > sure  # in their own precision: a float32 of 0.2 is not above 0.2
    mean = (joints * counted).sum(-1, dtype=np.float64) / np.maximum(counted.sum(-1), 1)
    score: Array = np.asarray(box_scores, dtype=np.float64) * mean
    return score
