"""The mapping between image and crop: against its formula, scipy's and Pillow's samplers, and the mirror image."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from vision.pose.crops import crop_matrix, inverse, mapped, region, to_image, with_aspect
from vision.pose.warping import warped

SIZE = (48, 64)
numbers = st.floats(-200, 400)
lengths = st.floats(5, 500)


def picture(height: int = 90, width: int = 120, seed: int = 0) -> np.ndarray:
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random((height, width, 3)), (2, 2, 0))
    return (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


@given(numbers, numbers, lengths, lengths, st.floats(0.5, 2))
def test_a_region_covers_its_padded_box_with_the_crops_aspect(
    x: float, y: float, w: float, h: float, padding: float
) -> None:
    centre, sides = region((x, y, w, h), SIZE, padding)
    assert np.allclose(centre, [x + w / 2, y + h / 2])
    assert sides[0] / sides[1] == pytest.approx(SIZE[0] / SIZE[1])
    slack = sides - padding * np.array([w, h])
    assert min(slack) == pytest.approx(0, abs=1e-6) and max(slack) >= -1e-6  # no larger than it must be


def test_the_aspect_of_a_region() -> None:
    assert with_aspect(np.array([30.0, 10.0]), (100, 50)).tolist() == [30, 15]
    assert with_aspect(np.array([10.0, 30.0]), (100, 50)).tolist() == [60, 30]


@given(numbers, numbers, lengths, st.floats(-180, 180), numbers, numbers)
def test_the_map_is_the_formula(cx: float, cy: float, width: float, angle: float, x: float, y: float) -> None:
    sides = with_aspect(np.array([width, 1.0]), SIZE)
    r = np.radians(angle)
    expected = [
        (SIZE[0] - 1) / sides[0] * (np.cos(r) * (x - cx) - np.sin(r) * (y - cy) + sides[0] / 2),
        (SIZE[1] - 1) / sides[1] * (np.sin(r) * (x - cx) + np.cos(r) * (y - cy) + sides[1] / 2),
    ]
    matrix = crop_matrix(np.array([cx, cy]), sides, SIZE, angle)
    placed = mapped(matrix, np.array([x, y]))
    assert np.allclose(placed, expected, rtol=1e-9, atol=1e-6)
    assert np.allclose(mapped(inverse(matrix), placed), [x, y], atol=1e-6)


def test_the_ends_of_a_region_are_the_outer_pixels() -> None:
    centre, sides = np.array([40.0, 50.0]), np.array([30.0, 40.0])
    matrix = crop_matrix(centre, sides, SIZE)
    assert np.allclose(mapped(matrix, centre - sides / 2), [0, 0])
    assert np.allclose(mapped(matrix, centre + sides / 2), [SIZE[0] - 1, SIZE[1] - 1])


@pytest.mark.parametrize("kind", [np.float64, np.float32, torch.float64])
def test_crop_coordinates_come_back(kind: object) -> None:
    rng = np.random.default_rng(0)
    centre, sides = rng.uniform(-50, 300, (5, 2)), rng.uniform(20, 400, (5, 1)) * [3, 4]
    points = rng.uniform(-100, 400, (5, 17, 2))
    placed = np.stack([mapped(crop_matrix(c, s, SIZE), p) for c, s, p in zip(centre, sides, points, strict=True)])
    scored = np.concatenate([placed, rng.random((5, 17, 1))], axis=-1)
    if kind is torch.float64:
        back = to_image(*(torch.from_numpy(a) for a in (scored, centre, sides)), SIZE).numpy()
    else:
        back = to_image(scored.astype(kind), centre.astype(kind), sides.astype(kind), SIZE)
        assert back.dtype == kind
    assert np.allclose(back[..., :2], points, atol=1e-3) and np.allclose(back[..., 2], scored[..., 2])
    assert np.allclose(to_image(placed, centre, sides, SIZE), points)


CASES = [
    (np.array([60.3, 44.8]), 40.0, 0.0), (np.array([60.0, 45.0]), 30.0, 25.0), (np.array([10.5, 80.2]), 90.0, -70.0),
    (np.array([118.0, 2.0]), 60.0, 180.0), (np.array([60.0, 45.0]), 400.0, 10.0), (np.array([60.0, 45.0]), 6.0, 45.0),
]  # fmt: skip


def sources(matrix: np.ndarray) -> np.ndarray:
    """Where in the image each pixel of the crop comes from, shape ``[2, H, W]``."""
    columns, rows = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    return np.moveaxis(mapped(inverse(matrix), np.stack([columns, rows], axis=-1)), -1, 0)


@pytest.mark.parametrize(("centre", "width", "angle"), CASES)
def test_warping_is_what_scipy_samples(centre: np.ndarray, width: float, angle: float) -> None:
    image = picture()
    matrix = crop_matrix(centre, with_aspect(np.array([width, 1.0]), SIZE), SIZE, angle)
    x, y = sources(matrix)
    planes = [
        ndimage.map_coordinates(image[..., c].astype(float), [y, x], order=1, mode="grid-constant") for c in range(3)
    ]
    made = warped(image, matrix, SIZE)
    assert made.dtype == np.uint8 and made.shape == (64, 48, 3)
    assert np.abs(made - np.stack(planes, axis=-1)).max() <= 0.502  # rounded to bytes
    assert made.any()


@pytest.mark.parametrize(("centre", "width", "angle"), CASES)
def test_warping_is_what_pillow_samples(centre: np.ndarray, width: float, angle: float) -> None:
    image = picture(seed=1)
    matrix = crop_matrix(centre, with_aspect(np.array([width, 1.0]), SIZE), SIZE, angle)
    back = inverse(matrix)
    back[:, 2] += 0.5 - back[:, :2].sum(axis=1) / 2  # Pillow counts from the corner of the first pixel
    transform, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    theirs = np.asarray(Image.fromarray(image).transform(SIZE, transform, tuple(back.ravel()), bilinear)).astype(int)
    x, y = sources(matrix)
    well_inside = (x > 1) & (x < 118) & (y > 1) & (y < 88)
    difference = warped(image, matrix, SIZE) - theirs
    assert set(np.unique(difference[well_inside])) <= {0, 1}  # Pillow cuts fractions off


def test_a_region_beside_the_image_is_black() -> None:
    for centre in ((-300.0, 40.0), (500.0, 40.0), (60.0, -300.0), (60.0, 1000.0)):
        matrix = crop_matrix(np.array(centre), with_aspect(np.array([60.0, 1.0]), SIZE), SIZE, 20)
        assert not warped(picture(), matrix, SIZE).any()


def test_a_crop_of_the_image_itself_is_the_image() -> None:
    image = picture(64, 48)
    centre, sides = np.array([47 / 2, 63 / 2]), np.array([47.0, 63.0])
    assert np.array_equal(warped(image, crop_matrix(centre, sides, SIZE), SIZE), image)


def test_the_crop_of_a_mirror_image_is_the_mirror_image_of_the_crop() -> None:
    """The unbiased mapping commutes with mirroring, without any shift."""
    image = picture()
    centre, sides = np.array([50.25, 40.5]), with_aspect(np.array([50.0, 1.0]), SIZE)
    there = np.array([119 - centre[0], centre[1]])
    one = warped(image, crop_matrix(centre, sides, SIZE, 30), SIZE)
    other = warped(np.ascontiguousarray(image[:, ::-1]), crop_matrix(there, sides, SIZE, -30), SIZE)
    assert np.abs(one[:, ::-1].astype(int) - other).max() <= 1


def test_a_positive_angle_turns_the_content_clockwise() -> None:
    image = np.zeros((101, 101, 3), np.uint8)
    image[50, 70:90] = 255  # to the right of the centre
    centre, sides = np.array([50.0, 50.0]), np.array([100.0, 100.0])
    crop = warped(image, crop_matrix(centre, sides, (101, 101), 90), (101, 101))
    assert crop[70:90, 50].min() == 255 and crop[50, 70:90].max() == 0  # now below it
