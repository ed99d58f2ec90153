"""OKS against the definition joint by joint, suppression against brute force, golden values."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision.pose.keypoints import SKELETONS, skeleton
from vision.pose.oks import extent, joint_similarity, oks, oks_matrix, oks_nms, rescored

STAIRS = np.array([[10.0 + 5 * i, 20.0 + 7 * i] for i in range(17)])
COCO = skeleton("coco").sigmas


def by_definition(found: np.ndarray, truth: np.ndarray, area: float, sigmas: tuple[float, ...]) -> float:
    terms = [
        math.exp(-(math.dist(found[k], truth[k, :2]) ** 2) / (2 * area * (2 * sigmas[k]) ** 2))
        for k in range(len(sigmas))
        if truth[k, 2] > 0
    ]
    return sum(terms) / len(terms)


@pytest.mark.parametrize(("shift", "expected"), [(3, 0.9431483), (60, 0.00187087)])
def test_golden_stairs(shift: float, expected: float) -> None:
    area = extent(STAIRS)
    assert area == 80 * 112
    value = oks(STAIRS + np.array([shift, 0]), STAIRS, np.ones(17), area, COCO)
    assert value == pytest.approx(expected, rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(SKELETONS)))
def test_oks_of_any_skeleton(seed: int, name: str) -> None:
    rng, figure = np.random.default_rng(seed), skeleton(name)
    truth = np.concatenate(
        [rng.uniform(0, 100, (3, figure.count, 2)), rng.integers(0, 3, (3, figure.count, 1))], -1
    ).astype(np.float64)
    truth[:, 0, 2] = 1
    found = truth[:2, :, :2] + rng.normal(0, 8, (2, figure.count, 2))
    areas, boxes = rng.uniform(100, 9000, 3), rng.uniform(0, 100, (3, 4))
    matrix = oks_matrix(found, truth, boxes, areas, figure.sigmas)
    for d in range(2):
        for g in range(3):
            expected = by_definition(found[d], truth[g], areas[g], figure.sigmas)
            assert matrix[d, g] == pytest.approx(expected, rel=1e-9)
            single = oks(found[d], truth[g, :, :2], truth[g, :, 2], areas[g], figure.sigmas)
            assert single == pytest.approx(expected, rel=1e-9)


def test_person_without_labelled_joints() -> None:
    """Only what lies outside the box, enlarged by its size on every side, is a distance."""
    box = np.array([[100.0, 100.0, 50.0, 20.0]])
    found = np.array([[[60.0, 130.0]], [[205.0, 75.0]]])  # inside 50..200 x 80..140; 5 right and 5 above
    matrix = oks_matrix(found, np.zeros((1, 1, 3)), box, np.array([1000.0]), [0.1])
    assert matrix[:, 0] == pytest.approx([1.0, math.exp(-50 / (2 * 1000 * 0.04))])


def test_nobody_labelled_is_not_a_number() -> None:
    assert np.isnan(oks(STAIRS, STAIRS, np.zeros(17), 100.0, COCO))


def test_broadcasting() -> None:
    found = np.stack([STAIRS, STAIRS + 1])
    similarity = joint_similarity(found[:, None], found[None], np.array([[100.0, 400.0]]), COCO)
    assert similarity.shape == (2, 2, 17)
    assert np.all(similarity[[0, 1], [0, 1]] == 1)
    assert similarity[0, 1, 0] == pytest.approx(math.exp(-2 / (2 * 400 * 0.052**2)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 0.95))
def test_nms_against_brute_force(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    poses = STAIRS + rng.normal(0, 6, (rng.integers(1, 9), 17, 2)) + rng.choice([0, 40], (1, 1, 2))
    scores, areas = rng.choice([0.2, 0.5, 0.7], len(poses)), rng.uniform(2000, 9000, len(poses))
    kept: list[int] = []
    for i in sorted(range(len(poses)), key=lambda i: (-scores[i], i)):
        ones = np.ones((17, 1))
        alike = [
            by_definition(poses[i], np.concatenate([poses[j], ones], 1), (areas[i] + areas[j]) / 2, COCO) for j in kept
        ]
        if all(value <= threshold for value in alike):
            kept.append(i)
    assert oks_nms(poses, scores, areas, COCO, threshold).tolist() == kept


def test_nms_of_nobody() -> None:
    assert oks_nms(np.zeros((0, 17, 2)), np.zeros(0), np.zeros(0), COCO, 0.9).shape == (0,)


def test_rescored() -> None:
    joints = np.array([[0.9, 0.3, 0.2, 0.1], [0.1, 0.2, 0.0, 0.05], [1, 1, 1, 1]])
    assert rescored(np.array([0.5, 0.9, 0.25]), joints) == pytest.approx([0.5 * 0.6, 0.0, 0.25])
