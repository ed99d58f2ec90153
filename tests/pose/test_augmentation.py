"""Augmentation: its distributions, the rules of the half body, and that joints stay where they are in the picture."""

import numpy as np
import pytest
from scipy import ndimage, stats

from tests.pose.layouts import joints_in
from vision.engine.errors import ConfigError
from vision.pose.augmentation import (
    NONE,
    TopDownAugmentation,
    half_body,
    mirrored,
    moved,
    recoloured,
    truncated_normal,
)
from vision.pose.keypoints import skeleton

COCO = skeleton("coco")
ALWAYS = TopDownAugmentation(half_body=1.0)
NOISE = np.random.default_rng(5).integers(0, 256, (64, 48, 3), dtype=np.uint8)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def body(*hidden: int) -> np.ndarray:
    joints = np.reshape(joints_in((100, 50, 60, 120)), (17, 3)).astype(np.float32)
    joints[list(hidden)] = 0
    return joints


def test_draws_are_normal_and_cut_off() -> None:
    drawn = truncated_normal(rng(), 20000)
    assert len(drawn) == 20000 and np.abs(drawn).max() <= 1
    assert stats.kstest(drawn, stats.truncnorm(-1, 1).cdf).pvalue > 0.01


def test_the_recipe_is_the_default() -> None:
    centre, sides = np.array([100.0, 200.0]), np.array([80.0, 40.0])
    made = [moved(rng(seed), centre, sides, TopDownAugmentation()) for seed in range(4000)]
    shifts = np.array([(c - centre) / sides for c, _, _ in made])
    factors = np.array([s[0] / sides[0] for _, s, _ in made])
    angles = np.array([angle for _, _, angle in made])
    assert np.abs(shifts).max() <= 0.16 and 0.5 <= factors.min() < 0.52 and 1.48 < factors.max() <= 1.5
    assert 75 < np.abs(angles).max() <= 80
    assert np.mean(shifts.any(axis=1)) == pytest.approx(0.3, abs=0.03)
    assert np.mean(angles != 0) == pytest.approx(0.6, abs=0.03)
    cut = stats.truncnorm(-1, 1).std()
    assert factors.mean() == pytest.approx(1, abs=0.02) and factors.std() == pytest.approx(0.5 * cut, rel=0.05)
    assert angles[angles != 0].std() == pytest.approx(80 * cut, rel=0.05)
    shifted = shifts[shifts.any(axis=1)]
    assert shifted.std(axis=0) == pytest.approx(0.16 * cut, rel=0.1)
    assert abs(np.corrcoef(shifted.T)[0, 1]) < 0.1
    assert all(np.allclose(s / sides, s[0] / sides[0]) for _, s, _ in made)  # the shape stays


def test_none_moves_nothing() -> None:
    centre, sides, angle = moved(rng(), np.array([1.0, 2.0]), np.array([3.0, 4.0]), NONE)
    assert centre.tolist() == [1, 2] and sides.tolist() == [3, 4] and angle == 0
    assert half_body(rng(), body(), COCO, NONE) is None


# half body


def test_a_half_is_centred_on_its_joints() -> None:
    points = body()
    for seed in range(20):
        found = half_body(rng(seed), points, COCO, ALWAYS)
        assert found is not None
        centre, sides = found
        halves = {name: points[index, :2] for name, index in (("u", COCO.upper_indices), ("l", COCO.lower_indices))}
        assert any(
            np.allclose(centre, half.mean(axis=0)) and np.allclose(sides, 1.5 * np.ptp(half, axis=0))
            for half in halves.values()
        )


def is_upper(found: tuple[np.ndarray, np.ndarray] | None, points: np.ndarray) -> bool:
    assert found is not None
    upper = points[[j for j in COCO.upper_indices if points[j, 2]], :2]
    return bool(np.allclose(found[0], upper.mean(axis=0)))


def test_the_upper_half_is_preferred() -> None:
    points = body()
    share = np.mean([is_upper(half_body(rng(seed), points, COCO, ALWAYS), points) for seed in range(2000)])
    assert share == pytest.approx(0.7, abs=0.04)


def test_it_happens_with_its_probability() -> None:
    share = np.mean([half_body(rng(s), body(), COCO, TopDownAugmentation()) is not None for s in range(2000)])
    assert share == pytest.approx(0.3, abs=0.04)


def test_who_lacks_joints_stays_whole_or_shows_the_other_half() -> None:
    assert half_body(rng(), body(*range(9)), COCO, ALWAYS) is None  # 8 joints
    for hidden, upper in (((11, 12, 13, 14), True), ((1, 2, 3, 4, 5, 6, 7, 8), None), (tuple(range(8)), True)):
        points = body(*hidden)
        found = [half_body(rng(seed), points, COCO, ALWAYS) for seed in range(30)]
        kinds = {is_upper(each, points) for each in found}
        assert kinds == ({upper} if len(hidden) == 4 else {True, False})
    points = body(*range(10))  # one upper joint is not enough, so the lower half is shown
    wanted = TopDownAugmentation(half_body=1.0, half_body_joints=5)
    assert not any(is_upper(half_body(rng(seed), points, COCO, wanted), points) for seed in range(30))
    points = body(*range(10), 11, 12, 13, 14)
    assert half_body(rng(), points, COCO, TopDownAugmentation(half_body=1.0, half_body_joints=3)) is None


def test_joints_in_one_place_are_no_region() -> None:
    points = body()
    points[:, :2] = 7
    assert half_body(rng(), points, COCO, ALWAYS) is None


def test_a_skeleton_without_halves_stays_whole() -> None:
    from dataclasses import replace

    assert half_body(rng(), body(), replace(COCO, upper=(), lower=()), ALWAYS) is None


# mirror image


def test_a_mirror_image_swaps_sides() -> None:
    image, points = NOISE.copy(), body()
    turned, swapped = mirrored(image, points, COCO.flip_index)
    assert np.array_equal(turned, image[:, ::-1])
    left, right = COCO.joints.index("left_wrist"), COCO.joints.index("right_wrist")
    assert swapped[left].tolist() == [47 - points[right, 0], points[right, 1], points[right, 2]]
    again = mirrored(turned, swapped, COCO.flip_index)
    assert np.array_equal(again[0], image) and np.allclose(again[1], points)
    assert np.array_equal(points, body()) and np.array_equal(image, NOISE)  # what was given stays as it was


# colours


def test_colours_stay_unless_asked_for() -> None:
    assert recoloured(rng(), NOISE, TopDownAugmentation()) is NOISE


@pytest.mark.parametrize(
    "options", [{"hue": 5, "saturation": 30, "value": 30}, {"blur": 1.0}, {"median_blur": 1.0}, {"dropout": 1.0}]
)
def test_extras_change_the_picture_and_not_what_was_given(options: dict[str, float]) -> None:
    before = NOISE.copy()
    changed = [recoloured(rng(seed), NOISE, TopDownAugmentation(**options)) for seed in range(12)]
    assert all(each.shape == NOISE.shape and each.dtype == np.uint8 for each in changed)
    assert sum(not np.array_equal(each, NOISE) for each in changed) >= 9
    assert np.array_equal(NOISE, before)
    again = recoloured(rng(3), NOISE, TopDownAugmentation(**options))
    assert np.array_equal(again, changed[3])


def test_value_alone_keeps_gray_gray_and_stays_in_its_range() -> None:
    gray = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    for seed in range(40):
        changed = recoloured(rng(seed), gray, TopDownAugmentation(value=30, hue=5)).astype(int)
        assert np.ptp(changed, axis=2).max() == 0
        step = changed[128, 0, 0] - 128
        assert abs(step) <= 30 and np.array_equal(changed[:, 0, 0], np.clip(np.arange(256) + step, 0, 255))


def test_hue_turns_by_the_steps_asked_for() -> None:
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    turned = [recoloured(rng(seed), red, TopDownAugmentation(hue=60))[0, 0] for seed in range(200)]
    assert all(each.max() == 255 and each.min() == 0 for each in turned)  # full colours stay full
    assert all(each[0] >= each[1:].max() or each[0] < 255 for each in turned)
    assert any(each[1] > 200 for each in turned) and any(each[2] > 200 for each in turned)
    assert not any(each[1] == 255 and each[0] == 0 and each[2] > 8 for each in turned)  # no further than 120 degrees


@pytest.mark.parametrize(
    ("option", "oracle"), [("blur", ndimage.uniform_filter), ("median_blur", ndimage.median_filter)]
)
def test_blurs_against_scipy(option: str, oracle: object) -> None:
    for seed in range(6):
        made = recoloured(rng(seed), NOISE, TopDownAugmentation(**{option: 1.0})).astype(float)
        expected = [
            np.stack([oracle(NOISE[..., c].astype(float), size=k) for c in range(3)], axis=-1)  # type: ignore[operator]
            for k in (3, 5, 7)
        ]
        assert min(np.abs(made - each)[4:-4, 4:-4].max() for each in expected) <= 1


def test_the_hole_is_one_rectangle_of_its_size() -> None:
    white = np.full((200, 100, 3), 255, np.uint8)
    shares = []
    for seed in range(100):
        hole = (recoloured(rng(seed), white, TopDownAugmentation(dropout=1.0)) == 0).all(axis=2)
        rows, columns = hole.any(axis=1).sum(), hole.any(axis=0).sum()
        assert hole.sum() == rows * columns
        shares.append((rows / 200, columns / 100))
    assert 0.195 <= np.min(shares) < 0.23 and 0.37 < np.max(shares) <= 0.405
    assert np.mean([recoloured(rng(s), white, TopDownAugmentation(dropout=0.5)) is white for s in range(400)]) == (
        pytest.approx(0.5, abs=0.08)
    )


def test_ranges_upside_down_are_told() -> None:
    for options in ({"scale": (1.5, 0.5)}, {"scale": (0.0, 1.0)}, {"dropout_side": (0.2, 1.2)}):
        with pytest.raises(ConfigError, match=f"augmentation.{next(iter(options))}: got"):
            TopDownAugmentation(**options)  # type: ignore[arg-type]
