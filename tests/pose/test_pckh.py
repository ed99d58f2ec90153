"""PCKh against a count by hand and by loops."""

import math

import numpy as np
import pytest

from vision.engine.errors import DataError
from vision.pose.keypoints import skeleton
from vision.pose.pckh import pckh

JOINTS = skeleton("mpii").joints


def people(count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    truth = np.concatenate([np.random.default_rng(0).uniform(0, 300, (count, 16, 2)), np.full((count, 16, 1), 2.0)], -1)
    return truth, truth[..., :2].copy()


def test_by_hand() -> None:
    truth, found = people(2)
    heads = np.array([40.0, 80.0])
    found[0, JOINTS.index("left_knee"), 0] += 20.0  # exactly half of the head: met at 0.5
    found[1, JOINTS.index("left_knee"), 1] += 40.1
    found[1, JOINTS.index("right_ankle"), 1] += 8.5  # met at 0.5, not at 0.1
    found[0, JOINTS.index("pelvis"), 0] += 500  # not in the mean
    truth[0, JOINTS.index("left_wrist"), 2] = 0  # not labelled
    found[0, JOINTS.index("left_wrist"), 0] += 500
    result = pckh(found, truth, heads, JOINTS)
    counted = 2 * 14 - 1
    assert result.mean.tolist() == pytest.approx([(counted - 1) / counted, (counted - 3) / counted])
    assert result.by_joint[:, JOINTS.index("left_knee")].tolist() == [0.5, 0.0]
    assert result.by_joint[0, JOINTS.index("pelvis")] == 0.5
    assert result.labelled[JOINTS.index("left_wrist")] == 1


def test_by_loops() -> None:
    rng = np.random.default_rng(1)
    truth, found = people(40)
    truth[..., 2] = rng.integers(0, 3, (40, 16))
    found += rng.normal(0, 10, found.shape)
    heads = rng.uniform(20, 60, 40)
    result = pckh(found, truth, heads, JOINTS, (0.5, 0.2, 0.1))
    for t, threshold in enumerate((0.5, 0.2, 0.1)):
        met = total = 0
        for n in range(40):
            for k in range(16):
                if truth[n, k, 2] > 0 and JOINTS[k] not in ("pelvis", "thorax"):
                    total += 1
                    met += math.dist(found[n, k], truth[n, k, :2]) / heads[n] <= threshold
        assert result.mean[t] == pytest.approx(met / total)


def test_joint_that_nobody_has() -> None:
    truth, found = people()
    truth[:, 3, 2] = 0
    result = pckh(found, truth, np.full(3, 30.0), JOINTS)
    assert np.isnan(result.by_joint[:, 3]).all() and result.mean.tolist() == [1, 1]


def test_refused() -> None:
    truth, found = people()
    with pytest.raises(DataError, match="1 of 3 people have no head size"):
        pckh(found, truth, np.array([10.0, 0.0, 10.0]), JOINTS)
    truth[..., 2] = 0
    with pytest.raises(DataError, match="nobody has a labelled joint"):
        pckh(found, truth, np.ones(3), JOINTS)
    found[0, 0, 0] = np.nan
    with pytest.raises(DataError, match="not finite"):
        pckh(found, truth, np.ones(3), JOINTS)
