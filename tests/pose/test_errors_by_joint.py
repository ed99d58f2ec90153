"""Kinds of errors: poses made with known mistakes, and the rule written out place by place."""

import math
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vision.pose.coco_eval import Found, Truth
from vision.pose.errors_by_joint import KINDS, joint_errors
from vision.pose.keypoints import skeleton

FIGURE = skeleton("coco")
AREA = 10_000.0
APART = 400.0  # between people: far beyond every similarity
NAMES = {name: i for i, name in enumerate(FIGURE.joints)}


def people(count: int, seed: int = 0) -> Truth:
    """People side by side in one image, joints 60 px or more apart."""
    places = np.array([[60.0 * (k % 5), 60.0 * (k // 5)] for k in range(17)])
    joints = np.stack([np.concatenate([places + [APART * g, 0], np.full((17, 1), 2.0)], 1) for g in range(count)])  # noqa: RUF005
    boxes = np.array([[APART * g, 0, 240, 180] for g in range(count)], dtype=float)
    return Truth(
        images=np.array([1, 2]), image=np.ones(count, np.int64), keypoints=joints, boxes=boxes,
        areas=np.full(count, AREA), crowd=np.zeros(count, bool), labelled=np.full(count, 17),
    )  # fmt: skip


def at(similarity: float, joint: str) -> float:
    """Pixels from a joint's place at which it is so similar."""
    return 2 * FIGURE.sigmas[NAMES[joint]] * math.sqrt(-2 * AREA * math.log(similarity))


def counts(truth: Truth, poses: np.ndarray) -> dict[str, dict[str, int]]:
    found = Found.of([1] * len(poses), poses, np.linspace(1, 0.5, len(poses)))
    errors = joint_errors(truth, found, FIGURE.sigmas, FIGURE.flip_index)
    return {
        name: {kind: int(n) for kind, n in zip(KINDS, row, strict=True) if n}
        for name, row in zip(FIGURE.joints, errors.counts, strict=True)
    }


def test_each_kind() -> None:
    truth = people(2)
    poses = truth.keypoints[..., :2].copy()
    poses[0, NAMES["nose"], 0] += at(0.86, "nose")
    poses[0, NAMES["left_eye"], 0] += at(0.84, "left_eye")
    poses[0, NAMES["right_eye"], 1] += at(0.51, "right_eye")
    poses[0, NAMES["left_ear"], 1] += at(0.49, "left_ear")
    poses[0, NAMES["left_wrist"]] = truth.keypoints[0, NAMES["right_wrist"], :2]
    poses[0, NAMES["left_hip"]] = truth.keypoints[1, NAMES["left_hip"], :2]
    poses[0, NAMES["right_knee"]] = truth.keypoints[1, NAMES["left_knee"], :2]
    poses[0, NAMES["left_ankle"]] = truth.keypoints[0, NAMES["left_knee"], :2]  # another joint: a miss
    result = counts(truth, poses)
    expected = {
        "nose": "good", "left_eye": "jitter", "right_eye": "jitter", "left_ear": "miss", "left_wrist": "inversion",
        "left_hip": "swap", "right_knee": "swap", "left_ankle": "miss",
    }  # fmt: skip
    for name in FIGURE.joints:
        kind = expected.get(name, "good")
        assert result[name] == ({"good": 2} if kind == "good" else {"good": 1, kind: 1}), name


def test_own_place_wins_a_tie() -> None:
    truth = people(1)
    truth.keypoints[0, NAMES["left_eye"]] = truth.keypoints[0, NAMES["right_eye"]]
    assert counts(truth, truth.keypoints[..., :2])["left_eye"] == {"good": 1}


def test_unlabelled_joints_are_neither_judged_nor_candidates() -> None:
    truth = people(2)
    truth.keypoints[0, NAMES["left_eye"], 2] = 0
    truth.keypoints[1, NAMES["nose"], 2] = 0
    poses = truth.keypoints[..., :2].copy()
    poses[0, NAMES["right_eye"]] = poses[0, NAMES["left_eye"]]
    poses[0, NAMES["nose"]] = poses[1, NAMES["nose"]]
    result = counts(truth, poses)
    assert result["left_eye"] == {"good": 1}
    assert result["right_eye"] == {"good": 1, "miss": 1}
    assert result["nose"] == {"miss": 1}


def test_who_is_matched() -> None:
    truth = people(3)
    truth = replace(truth, crowd=np.array([False, True, False]), labelled=np.array([17, 17, 17]))
    poses = truth.keypoints[[0, 0, 1, 2], :, :2].copy()
    poses[0] += 3  # the better score comes first, whatever comes nearer
    poses[3] += 3000
    found = Found.of([1] * 4, poses, np.array([0.9, 0.8, 0.7, 0.6]))
    errors = joint_errors(truth, found, FIGURE.sigmas, FIGURE.flip_index)
    assert (errors.people, errors.found) == (2, 1)
    assert errors.labelled.tolist() == [1] * 17
    expected = [math.exp(-18 / (2 * AREA * (2 * sigma) ** 2)) for sigma in FIGURE.sigmas]
    assert np.allclose(errors.similarity, expected)
    nobody = joint_errors(truth, Found.from_rows([]), FIGURE.sigmas, FIGURE.flip_index)
    assert (nobody.people, nobody.found, nobody.counts.sum()) == (2, 0, 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_against_the_rule_written_out(seed: int) -> None:
    """One pose and its person at position 0, others beside; every candidate place looked at by itself."""
    rng = np.random.default_rng(seed)
    truth = people(3)
    truth.keypoints[..., :2] = rng.uniform(0, 120, (3, 17, 2))
    truth.keypoints[..., 2] = rng.integers(0, 3, (3, 17))
    truth.keypoints[:, 0, 2] = 2
    truth = replace(truth, areas=rng.uniform(2000, 20000, 3), labelled=(truth.keypoints[..., 2] > 0).sum(1))
    pose = truth.keypoints[0, :, :2] + rng.normal(0, 10, (17, 2))
    pose[rng.random(17) < 0.3] = rng.uniform(0, 120, 2)
    alone = replace(truth, areas=truth.areas, crowd=np.array([False, False, False]))
    found = Found.of([1], pose[None], np.ones(1))
    errors = joint_errors(alone, found, FIGURE.sigmas, FIGURE.flip_index)

    def near(joint: int, person: int, place: int) -> float:
        x, y, visible = truth.keypoints[person, place]
        squared = (pose[joint][0] - x) ** 2 + (pose[joint][1] - y) ** 2
        return math.exp(-squared / (2 * truth.areas[person] * (2 * FIGURE.sigmas[joint]) ** 2)) if visible else -1.0

    alike = [np.mean([near(k, g, k) for k in range(17) if truth.keypoints[g, k, 2]]) for g in range(3)]
    person = int(np.argmax(alike))
    assert errors.found == (alike[person] >= 0.1)
    for k in range(17):
        if not errors.found or not truth.keypoints[person, k, 2]:
            assert errors.counts[k].sum() == 0
            continue
        mirror = FIGURE.flip_index[k]
        own, inverted = near(k, person, k), near(k, person, mirror)
        others = max(near(k, g, place) for g in range(3) if g != person for place in (k, mirror))
        best = max(own, inverted, others)
        kind = "swap"
        if best < 0.5:
            kind = "miss"
        elif own == best:
            kind = "good" if own >= 0.85 else "jitter"
        elif inverted == best:
            kind = "inversion"
        assert errors.counts[k].tolist() == [int(each == kind) for each in KINDS], (FIGURE.joints[k], own, others)
