"""How single-stage networks see whole images: golden maps, and squares that follow from the options."""

import numpy as np
import pytest

from vision.engine.errors import ConfigError
from vision.pose.crops import inverse, mapped
from vision.pose.enlarged import enlarged, short_side
from vision.pose.whole_images import SingleStageAugmentation, Square, random_square


@pytest.mark.parametrize(
    ("height", "width", "size", "centre", "scale"),
    [
        (480, 640, (704, 512), (320, 240), (3.3, 2.4)),
        (640, 480, (512, 704), (240, 320), (2.4, 3.3)),
        (427, 640, (768, 512), (320, 214), (3.2025, 2.135)),
        (333, 500, (768, 512), (250, 167), (2.4975, 1.665)),
        (1080, 1920, (960, 512), (960, 540), (10.125, 5.4)),
        (512, 512, (512, 512), (256, 256), (2.56, 2.56)),
    ],
)
def test_golden_test_sizes(
    height: int, width: int, size: tuple[int, int], centre: tuple[int, int], scale: tuple[float, float]
) -> None:
    found = enlarged(width, height)
    assert (found.size, found.centre) == (size, centre)
    assert found.scale == pytest.approx(scale)


def test_golden_test_map_and_back() -> None:
    matrix = enlarged(640, 427).matrix
    expected = [[1.19906323, 0, 0.29976581], [0, 1.19906323, -0.59953162]]
    np.testing.assert_allclose(matrix, expected, atol=5e-9)
    np.testing.assert_allclose(mapped(inverse(matrix), np.array([100.0, 50.0])), [83.1484375, 42.19921875])


def test_golden_training_maps() -> None:
    turned = Square(np.array([320.0, 240.0]), 480.0, 15.0, False).matrix(128)
    expected = [[0.25758022, 0.06901841, -34.9900894], [-0.06901841, 0.25758022, 24.26663897]]
    np.testing.assert_allclose(turned, expected, atol=6e-8)
    straight = Square(np.array([320.0, 240.0]), 480.0, 0.0, False).matrix(512)
    np.testing.assert_allclose(straight, [[1.0666667, 0, -85.333333], [0, 1.0666667, 0]], atol=5e-7)
    assert np.linalg.det(straight[:, :2]) == pytest.approx(1.13777778, abs=5e-9)


def test_squares_keep_to_their_ranges() -> None:
    rng, options = np.random.default_rng(0), SingleStageAugmentation()
    squares = [random_square(rng, 640, 480, options) for _ in range(2000)]
    sides = np.array([s.side for s in squares]) / 480
    assert 0.75 <= sides.min() < 0.76 and 1.49 < sides.max() <= 1.5
    angles = np.array([s.rotation for s in squares])
    assert -30 <= angles.min() < -29 and 29 < angles.max() <= 30
    shifts = np.array([s.centre - (320, 240) for s in squares])
    assert (shifts == shifts.round()).all()
    relative = shifts / np.array([s.side for s in squares])[:, None]
    assert -0.2 <= relative.min() < -0.19 and 0.19 < relative.max() < 0.2
    assert 0.45 < np.mean([s.flip for s in squares]) < 0.55


def test_without_augmentation_the_square_holds_the_middle_or_everything() -> None:
    rng = np.random.default_rng(0)
    for base, side in (("short", 480), ("long", 640)):
        options = SingleStageAugmentation(scale=(1, 1), base=base, rotation=0, translation=0, flip=0)  # type: ignore[arg-type]
        assert random_square(rng, 640, 480, options) == Square(pytest.approx([320, 240]), side, 0.0, False)


def test_a_range_upside_down_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"augmentation\.scale"):
        SingleStageAugmentation(scale=(1.5, 0.75))


def test_other_scales_are_multiples_of_64() -> None:
    assert [short_side(512, factor) for factor in (0.5, 1.0, 1.3, 2.0)] == [256, 512, 704, 1024]
