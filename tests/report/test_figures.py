"""Drawing on pictures, held to what each pixel must be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vision.report.figures import (
    DARK,
    FOUND,
    NEUTRAL,
    TRUTH,
    WRONG,
    banner,
    circles,
    contact_sheet,
    enlarge,
    outline,
    scale_to,
    side_by_side,
    to_picture,
)

GREY = np.full((40, 60, 3), 100, np.uint8)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (height, width, 3), dtype=np.uint8)


def test_to_picture_from_every_layout() -> None:
    grey = np.array([[0.0, 0.5, 1.0, 0.2], [2.0, -1.0, np.nan, 0.4]])
    expected = np.array([[0, 128, 255, 51], [255, 0, 0, 102]], np.uint8)
    for values in (grey, grey[None], np.stack([grey] * 3), np.stack([grey] * 3, axis=-1)):
        assert np.array_equal(to_picture(values), np.stack([expected] * 3, axis=-1))
    picture = noise(5, 7)
    assert np.array_equal(to_picture(picture), picture)
    assert np.array_equal(to_picture(picture.transpose(2, 0, 1)), picture)


@pytest.mark.parametrize("shape", [(4,), (2, 4, 4), (4, 4, 2), (1, 2, 3, 4)])
def test_to_picture_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one or three channels"):
        to_picture(np.zeros(shape))


def test_enlarge_repeats_pixels() -> None:
    picture = noise(5, 7)
    expected = np.kron(picture, np.ones((3, 3, 1), np.uint8))
    assert np.array_equal(enlarge(picture, 13), expected)
    assert np.array_equal(enlarge(picture, 5), picture)


@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 500))
def test_scale_is_the_smallest_that_reaches(height: int, width: int, side: int) -> None:
    factor = scale_to((height, width), side)
    assert factor * min(height, width) >= side
    assert factor == 1 or (factor - 1) * min(height, width) < side


@given(arrays(bool, (9, 11)), st.integers(1, 2))
def test_outline_is_what_touches_the_mask(mask: np.ndarray, width: int) -> None:
    picture = noise(9, 11)
    drawn = outline(picture, mask, TRUTH, width)
    for row in range(9):
        for column in range(11):
            around = mask[max(row - width, 0) : row + width + 1, max(column - width, 0) : column + width + 1]
            expected = TRUTH if around.any() and not mask[row, column] else tuple(picture[row, column])
            assert tuple(drawn[row, column]) == expected


def test_outline_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"mask of shape \[3, 3\]"):
        outline(GREY, np.zeros((3, 3), bool), TRUTH)


def test_circle_is_a_ring_around_the_centre() -> None:
    drawn = circles(GREY, [(20.0, 30.0)], FOUND, radius=8)
    rows, columns = np.nonzero((drawn != GREY).any(axis=-1))
    distances = np.hypot(rows - 20, columns - 30)
    assert len(rows) > 30
    assert (abs(distances - 8) <= 1).all()
    assert {tuple(drawn[r, c]) for r, c in zip(rows, columns, strict=True)} == {FOUND}
    angles = np.sort(np.arctan2(rows - 20, columns - 30))
    assert np.diff(angles).max() < 0.3  # closed


@pytest.mark.parametrize(("column", "right"), [(15.0, True), (50.0, False)])
def test_score_stands_where_there_is_room(column: float, right: bool) -> None:
    drawn = circles(GREY, [(20.0, column)], FOUND, [0.5], radius=6)
    patch = np.nonzero((drawn == DARK).all(axis=-1))[1]
    assert patch.size > 0
    assert ((patch > column + 6) if right else (patch < column - 6)).all()


def test_scores_must_match() -> None:
    with pytest.raises(ValueError, match="1 scores for 2 centres"):
        circles(GREY, [(1.0, 1.0), (2.0, 2.0)], FOUND, [0.5])


def test_banner_leaves_the_picture_whole() -> None:
    picture = noise(40, 60)
    for text in ("cat", "a very long label that cannot fit into sixty pixels"):
        drawn = banner(picture, text, WRONG)
        band = drawn[:-40]
        assert np.array_equal(drawn[-40:], picture)
        assert (band == WRONG).all(axis=-1).mean() > 0.4  # mostly background
        assert not (band == WRONG).all()  # with something written
        assert (band[:, -2:] == WRONG).all()  # that ends inside


def test_sheet_places_pictures_in_reading_order() -> None:
    pictures = [noise(4, 5, 1), noise(6, 3, 2), noise(2, 2, 3)]
    sheet = contact_sheet(pictures, columns=2, gap=1)
    expected = np.full((13, 11, 3), 255, np.uint8)
    expected[0:4, 0:5], expected[0:6, 6:9], expected[7:9, 0:2] = pictures
    assert np.array_equal(sheet, expected)
    assert contact_sheet(pictures[:1], columns=5).shape == (4, 5, 3)


def test_side_by_side_has_titles_above() -> None:
    left, right = noise(40, 60, 1), noise(40, 60, 2)
    drawn = side_by_side([left, right], ["truth", "found"], gap=4)
    assert np.array_equal(drawn[-40:, :60], left)
    assert np.array_equal(drawn[-40:, -60:], right)
    assert (drawn[0] == NEUTRAL).all(axis=-1).sum() == 120
    with pytest.raises(ValueError, match="1 titles for 2 pictures"):
        side_by_side([left, right], ["truth"])
    with pytest.raises(ValueError, match="0 pictures"):
        contact_sheet([], 3)


def test_nothing_is_drawn_on_the_argument() -> None:
    picture = noise(40, 60)
    before = picture.copy()
    for drawn in (
        outline(picture, np.eye(40, 60, dtype=bool), TRUTH),
        circles(picture, [(9.0, 9.0)], FOUND),
        banner(picture, "x"),
        enlarge(picture, 80),
        contact_sheet([picture], 1),
        to_picture(picture),
    ):
        drawn.setflags(write=True)
        drawn[:] = 7
    assert np.array_equal(picture, before)


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_what_is_no_picture_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected a picture, uint8"):
        banner(wrong, "x")
