"""What kind of mistake is made at which joint: jitter, inversion, swap and miss."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vision.pose.coco_eval import MOST, Array, Found, Truth
from vision.pose.oks import joint_similarity, oks_matrix

MATCHED = 0.1
"""OKS from which on a pose is taken for an attempt at a person."""

NEAR, GOOD = 0.5, 0.85
"""Similarity of a joint from which on it is near a place, and good."""

KINDS = ("good", "jitter", "inversion", "swap", "miss")


@dataclass(frozen=True)
class JointErrors:
    """How the labelled joints of the people that were found came out, joint by joint.

    Attributes:
        counts: how many were good, jitter, inversion, swap and miss, ``[K, 5]``; a row sums up to the labelled joints.
        similarity: the sum of each joint's similarity to its true place, ``[K]``.
        people: people with a labelled joint.
        found: those of them that a pose was matched to.
    """

    counts: NDArray[np.int64]
    similarity: Array
    people: int
    found: int

    @property
    def labelled(self) -> NDArray[np.int64]:
        """How many joints were judged, ``[K]``."""
        total: NDArray[np.int64] = self.counts.sum(1)
        return total


def joint_errors(truth: Truth, found: Found, sigmas: Sequence[float], flip_index: Sequence[int]) -> JointErrors:
    r"""Sorts the joints of every matched pose by what they are nearest to.

    A pose is matched to the person it is most alike, best poses first, from an OKS of 0.1 on, each person once. With
    the similarity :math:`s = \exp(-d^2 / (2 a (2 \sigma_k)^2))` of a found joint to a place, where :math:`a` is the
    area of the person the place belongs to, the candidates are the joint's own true place, that of its mirror
    joint, and both of every other person of the image. The nearest candidate decides:

    - ``good``: its own place, :math:`s \ge 0.85`;
    - ``jitter``: its own place, :math:`0.5 \le s < 0.85`;
    - ``inversion``: the mirror joint of the same person, :math:`s \ge 0.5`;
    - ``swap``: the same or the mirror joint of another person, :math:`s \ge 0.5`;
    - ``miss``: nothing is near, :math:`s < 0.5` everywhere.

    Only joints that are labelled are judged, and only places of labelled joints are candidates.

    Args:
        truth: what is there; crowds and people without labelled joints are left out.
        found: what was found; the 20 best of an image count.
        sigmas: of the skeleton, ``[K]``.
        flip_index: for each joint its mirror joint, or itself.

    Source: Ronchi and Perona, ICCV 2017 (arXiv 1707.05388), as their published analysis code decides. Deviation: they
    look at people of 32² pixels and more, we at all.
    """
    joints = len(sigmas)
    counts, similarity, matched, people = np.zeros((joints, len(KINDS)), np.int64), np.zeros(joints), 0, 0
    judged = ~truth.crowd & (truth.labelled > 0)
    for image, everyone in truth.rows.items():
        rows = everyone[judged[everyone]]
        people += len(rows)
        poses = found.rows.get(image)
        if not len(rows) or poses is None:
            continue
        best = poses[np.argsort(-found.scores[poses], kind="stable")[:MOST]]
        there = truth.keypoints[rows]
        alike = oks_matrix(found.keypoints[best], there, truth.boxes[rows], truth.areas[rows], sigmas)
        for pose, person in _matches(alike):
            kinds, near = _sorted_joints(
                found.keypoints[best[pose]], there, truth.areas[rows], person, sigmas, flip_index
            )
            known = there[person, :, 2] > 0
            np.add.at(counts, (np.flatnonzero(known), kinds[known]), 1)
            similarity[known] += near[known]
            matched += 1
    return JointErrors(counts, similarity, people, matched)


def _matches(alike: Array) -> list[tuple[int, int]]:
    """Pairs of pose and person from OKS ``[D, G]``, best poses first."""
    pairs: list[tuple[int, int]] = []
    free = np.ones(alike.shape[1], dtype=bool)
    for pose, row in enumerate(alike):
        candidates = np.where(free, row, -1.0)
        person = int(candidates.argmax())
        if candidates[person] >= MATCHED:
            free[person] = False
            pairs.append((pose, person))
    return pairs


def _sorted_joints(
    pose: Array, there: Array, areas: Array, person: int, sigmas: Sequence[float], flip_index: Sequence[int]
) -> tuple[NDArray[np.int64], Array]:
    """The position in :data:`KINDS` of each joint of a pose, and its similarity to its own true place, both ``[K]``."""
    order = [person, *(i for i in range(len(there)) if i != person)]
    mirrored = there[:, list(flip_index)]
    places = np.concatenate([there[order], mirrored[order]])  # the own place comes first, so that it wins a tie
    near = joint_similarity(pose, places[..., :2], np.tile(areas[order], 2), sigmas)
    near = np.where(places[..., 2] > 0, near, -1.0)
    nearest, top = near.argmax(0), near.max(0)
    kinds = np.select(
        [top < NEAR, (nearest == 0) & (top >= GOOD), nearest == 0, nearest == len(there)],
        [KINDS.index(kind) for kind in ("miss", "good", "jitter", "inversion")],
        KINDS.index("swap"),
    )
    return kinds.astype(np.int64), near[0]
