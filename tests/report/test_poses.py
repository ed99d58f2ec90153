"""Skeletons on pictures: where they are drawn, in which colours, and what is left out."""

import numpy as np
import pytest
from numpy.typing import NDArray

from vision.report.figures import DARK
from vision.report.poses import LEFT, MIDDLE, RIGHT, Drawn, draw_poses, zoomed

BODY = Drawn(limbs=[(0, 1), (0, 2), (1, 2)], left=frozenset({1}), right=frozenset({2}))


def gray(height: int = 120, width: int = 160, value: int = 128) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


def one(*joints: tuple[float, float, float]) -> NDArray[np.float32]:
    return np.array([joints], np.float32)


def near(pixel: NDArray[np.uint8], colour: tuple[int, int, int], by: int = 12) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() <= by)


def test_limbs_take_the_colour_of_their_side_and_the_middle_where_sides_meet() -> None:
    drawn = draw_poses(gray(), one((80, 20, 1), (40, 100, 1), (120, 100, 1)), BODY)
    assert near(drawn[60, 60], LEFT)
    assert near(drawn[60, 100], RIGHT)
    assert near(drawn[100, 80], MIDDLE)
    assert near(drawn[100, 40], LEFT)
    assert near(drawn[100, 120], RIGHT)
    assert near(drawn[20, 80], MIDDLE)


def test_a_joint_is_drawn_centred_at_its_place_also_between_pixels() -> None:
    alone = Drawn(limbs=[], left=frozenset(), right=frozenset())
    for x, y in ((40.0, 50.0), (40.4, 50.7), (61.5, 33.25)):
        change = np.abs(draw_poses(gray(), one((x, y, 1)), alone).astype(int) - 128).sum(2).astype(float)
        rows, columns = np.mgrid[:120, :160]
        centre = ((columns * change).sum() / change.sum(), (rows * change).sum() / change.sum())
        assert centre == pytest.approx((x, y), abs=0.2)


def test_a_dark_edge_sets_a_skeleton_off_from_a_picture_of_its_own_colour() -> None:
    picture = np.full((120, 160, 3), RIGHT, np.uint8)
    drawn = draw_poses(picture, one((20, 60, 1), (0, 0, 0), (140, 60, 1)), BODY)
    column = drawn[50:70, 60].astype(int).sum(1)
    assert column.min() < sum(RIGHT) - 150
    assert sum(DARK) < sum(RIGHT)


@pytest.mark.parametrize("score", [0.0, -1.0, float("nan")])
def test_joints_without_a_score_are_left_out_with_their_limbs(score: float) -> None:
    picture = gray()
    assert np.array_equal(draw_poses(picture, one((80, 20, score), (40, 100, score), (9, 9, score)), BODY), picture)
    drawn = draw_poses(picture, one((80, 20, 1), (40, 100, score), (120, 100, 1)), BODY)
    assert near(drawn[60, 100], RIGHT)
    assert np.array_equal(drawn[:, :70], picture[:, :70])


def test_what_is_unsure_is_fainter_but_there() -> None:
    change = [
        np.abs(draw_poses(gray(), one((80, 20, s), (40, 100, s), (0, 0, 0)), BODY)[60, 60].astype(int) - 128).sum()
        for s in (0.01, 0.15, 0.3, 0.9)
    ]
    assert 10 < change[0] < change[1] < change[2] == change[3]


def test_joints_beyond_the_picture_and_nobody_at_all() -> None:
    picture = gray()
    assert np.array_equal(draw_poses(picture, np.zeros((0, 3, 3)), BODY), picture)
    far = draw_poses(picture, one((-500, -500, 1), (-400, 900, 1), (-900, 100, 1)), BODY)
    assert np.array_equal(far, picture)


def test_a_box_goes_along_its_edges_and_the_picture_is_left_as_it_was() -> None:
    picture = gray()
    drawn = draw_poses(picture, np.zeros((1, 3, 3)), BODY, np.array([[20, 30, 50, 40]]))
    changed = np.argwhere((drawn != picture).any(2))
    assert changed.min(0).tolist() == [30, 20]
    assert changed.max(0) == pytest.approx([70, 70], abs=1)
    assert np.array_equal(drawn[35:65, 25:65], picture[35:65, 25:65])
    assert (picture == 128).all()


def test_arrays_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected keypoints \[P, K, 3\]; given \[3, 2\]"):
        draw_poses(gray(), np.zeros((3, 2)), BODY)


@pytest.mark.parametrize("box", [(30, 20, 60, 40), (30.3, 20.6, 33.3, 71.7), (60, 50, 8, 8)])
def test_a_zoomed_part_shows_each_pixel_where_it_says(box: tuple[float, ...]) -> None:
    """A picture whose values are its coordinates tells where each pixel of the part comes from."""
    rows, columns = np.mgrid[:120, :160]
    picture = np.stack([columns, rows, np.zeros_like(rows)], 2).astype(np.uint8)
    part, (scale, left, top) = zoomed(picture, box, padding=1.0, height=200)
    v, u = np.mgrid[: part.shape[0], : part.shape[1]]
    x, y = u / scale + left, v / scale + top
    inside = (x > 3) & (x < 155) & (y > 3) & (y < 115)
    assert inside.mean() > 0.5
    assert np.abs(part[..., 0] - x)[inside].max() < 1.2
    assert np.abs(part[..., 1] - y)[inside].max() < 1.2
    assert abs(np.mean((part[..., 0] - x)[inside])) < 0.1
    assert part.shape[0] <= 200
    assert part.shape[1] <= 400


def test_a_part_that_reaches_beyond_the_picture_is_filled_there() -> None:
    picture = gray(40, 40, 200)
    part, (scale, left, top) = zoomed(picture, (30, 30, 40, 40), padding=1.0, height=80)
    assert (scale, left, top) == (2.0, 30.0, 30.0)
    assert part.shape == (80, 80, 3)
    assert (part == 200).all(), "filled with the picture's mean"
