"""Synthetic scenes: exact masks and counts, the contrast asked for, determinism, and plausible spectra."""

import numpy as np
import pytest
from scipy import ndimage

from vision.infrared.backgrounds import fractal_noise
from vision.infrared.synthesis import (
    Image,
    SynthTargets,
    cut_targets,
    gaussian_target,
    procedural_background,
    scm_scene,
    target_mask,
)


def components(mask: np.ndarray) -> int:
    return int(ndimage.label(mask, np.ones((3, 3)))[1])


def noisy_background(rng: np.random.Generator, level: float = 0.3, sigma: float = 0.05) -> Image:
    return (level + sigma * rng.standard_normal((96, 96))).astype(np.float32)


def real_like_cutouts() -> list[Image]:
    """Two blobs on a slope, cut out as from an annotated image."""
    image = np.linspace(0.2, 0.3, 64, dtype=np.float32)[:, None].repeat(64, axis=1)
    mask = np.zeros((64, 64), dtype=bool)
    mask[10:13, 20:24] = mask[40:46, 41:44] = True
    return cut_targets(image + np.float32(0.4) * mask, mask)


@pytest.fixture(params=["gaussian", "patch"])
def synth(request: pytest.FixtureRequest) -> SynthTargets:
    return SynthTargets(request.param, cutouts=real_like_cutouts())


def test_no_target_leaves_the_background_alone(synth: SynthTargets) -> None:
    background = noisy_background(np.random.default_rng(0))
    scene = synth.insert(np.random.default_rng(1), background, count=0)
    assert np.array_equal(scene.image, background) and scene.image is not background
    assert not scene.mask.any() and not scene.intensity.any() and scene.count == 0


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_mask_has_as_many_components_as_asked(synth: SynthTargets, count: int) -> None:
    rng = np.random.default_rng(count)
    for _ in range(20):
        scene = synth(rng, procedural_background(rng, 96, 112), count)
        assert scene.count == count == components(scene.mask) == len(scene.targets)


def test_area_of_one_target_is_3_to_120_pixels(synth: SynthTargets) -> None:
    rng = np.random.default_rng(0)
    background = noisy_background(rng)
    areas = [synth.insert(rng, background, 1).mask.sum() for _ in range(300)]
    assert min(areas) >= 3 and max(areas) <= 120
    assert len(set(areas)) > 8


def test_contrast_is_the_ratio_asked_for(synth: SynthTargets) -> None:
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(200):
        background = noisy_background(rng)
        scene = synth.insert(rng, background, 1)
        target = scene.targets[0]
        window = background[max(target.row - 15, 0) : target.row + 16, max(target.column - 15, 0) : target.column + 16]
        measured = (scene.image - background).max() / window.std()
        assert 2 * 0.7 <= measured <= 8 * 1.3
        assert measured == pytest.approx(target.scr, rel=0.3)
        ratios.append((scene.image[scene.intensity == 1].max() - window.mean()) / window.std() / target.scr)
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.1)  # from the image alone; noise averages out


def test_amplitude_is_bounded_by_the_headroom_and_from_below() -> None:
    rng = np.random.default_rng(0)
    flat = np.full((40, 40), 0.2, dtype=np.float32)
    assert SynthTargets(scr=(2, 2)).insert(rng, flat, 1).targets[0].amplitude == pytest.approx(0.08)
    assert SynthTargets(scr=(60, 60)).insert(rng, flat + 0.3, 1).targets[0].amplitude == pytest.approx(0.5)
    assert SynthTargets(scr=(60, 60)).insert(rng, flat + 0.75, 1).targets[0].amplitude == pytest.approx(0.15)


def test_centres_keep_their_distance() -> None:
    rng = np.random.default_rng(0)
    synth = SynthTargets()
    for _ in range(50):
        targets = synth.insert(rng, np.full((70, 90), 0.3, dtype=np.float32), 4).targets
        points = np.array([(t.row, t.column) for t in targets])
        assert points.min() >= 8 and (points < np.array([62, 82])).all()
        distances = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
        assert distances[~np.eye(4, dtype=bool)].min() >= 12


def test_seed_decides_everything(synth: SynthTargets) -> None:
    background = noisy_background(np.random.default_rng(9))
    first, again, other = (synth(np.random.default_rng(seed), background, 2) for seed in (5, 5, 6))
    assert np.array_equal(first.image, again.image) and np.array_equal(first.mask, again.mask)
    assert first.targets == again.targets
    assert not np.array_equal(first.image, other.image)


def test_ranges_and_types(synth: SynthTargets) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        scene = synth(rng, procedural_background(rng, 64, 80))
        assert scene.image.dtype == scene.intensity.dtype == np.float32 and scene.mask.dtype == bool
        assert scene.image.min() >= 0 and scene.image.max() <= 1
        assert scene.intensity.max() == (1.0 if scene.count else 0.0)
        assert (scene.intensity[scene.mask] > 0).all()


def test_numbers_of_targets_follow_their_distribution() -> None:
    rng = np.random.default_rng(0)
    background = np.full((80, 80), 0.3, dtype=np.float32)
    synth = SynthTargets()
    counts = np.bincount([synth.insert(rng, background).count for _ in range(800)], minlength=5) / 800
    np.testing.assert_allclose(counts, np.array([1, 3, 2, 1, 1]) / 8, atol=0.06)


def test_target_mask_equals_its_definition() -> None:
    layer = SynthTargets().insert(np.random.default_rng(0), np.full((40, 48), 0.2, dtype=np.float32), 2).intensity
    expected = np.zeros(layer.shape, dtype=bool)
    for row, column in np.ndindex(*layer.shape):
        around = layer[max(row - 4, 0) : row + 5, max(column - 4, 0) : column + 5]
        expected[row, column] = layer[row, column] > 0.35 * around.max() and layer[row, column] > 0.02
    assert np.array_equal(target_mask(layer), expected)


def test_gaussian_targets_have_the_widths_asked_for() -> None:
    """Second moments of a sampled Gaussian: between the smallest and the largest admitted variance."""
    rng = np.random.default_rng(0)
    grid = np.indices((25, 25)).reshape(2, -1)
    widths = []
    for _ in range(300):
        shape = gaussian_target(rng)
        assert shape.max() == 1.0
        widths.extend(np.sqrt(np.linalg.eigvalsh(np.cov(grid, aweights=shape.ravel().astype(float)))))
    assert min(widths) > 0.05 and max(widths) < 1.8 * 1.6 * 1.02
    assert np.quantile(widths, 0.9) > 1.6  # wide ones do occur


def test_cutouts_hold_the_target_and_not_its_background() -> None:
    cutouts = real_like_cutouts()
    assert len(cutouts) == 2
    for cutout, area in zip(cutouts, (12, 18), strict=True):
        assert cutout.max() == 1.0 and cutout.min() >= 0
        assert abs((cutout > 0.5).sum() - area) <= 6
        assert cutout[0].max() < 0.05 and cutout[:, -1].max() < 0.05


def test_large_and_dark_targets_are_not_cut() -> None:
    image = np.full((60, 60), 0.5, dtype=np.float32)
    mask = np.zeros((60, 60), dtype=bool)
    mask[5:20, 5:20] = mask[40:43, 40:43] = True
    image[40:43, 40:43] = 0.2
    assert cut_targets(image, mask) == []


def test_no_room_is_an_error_that_names_the_sizes() -> None:
    with pytest.raises(ValueError, match="9 targets on 32x32"):
        SynthTargets().insert(np.random.default_rng(0), np.full((32, 32), 0.3, dtype=np.float32), 9)
    with pytest.raises(ValueError, match="1 targets on 16x40"):
        SynthTargets().insert(np.random.default_rng(0), np.full((16, 40), 0.3, dtype=np.float32), 1)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [({"mode": "patch"}, "cutouts"), ({"scr": (8, 2)}, "scr"), ({"counts": ()}, "counts"), ({"mode": "blob"}, "mode")],
)
def test_bad_settings_are_refused(arguments: dict[str, object], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        SynthTargets(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("exponent", [0.5, 1.5])
def test_fractal_noise_has_its_spectral_slope(exponent: float) -> None:
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None])
    power = np.mean([np.abs(np.fft.fft2(fractal_noise(rng, 64, 64, exponent))) ** 2 for _ in range(40)], axis=0)
    kept = frequency > 0
    slope = np.polyfit(np.log(frequency[kept]), np.log(power[kept]), 1)[0]
    assert slope == pytest.approx(-2 * exponent, abs=0.1)


def test_stretched_noise_varies_less_along_the_rows() -> None:
    noise = fractal_noise(np.random.default_rng(0), 128, 128, 1.25, stretch=4.0)
    assert np.abs(np.diff(noise, axis=1)).mean() < 0.7 * np.abs(np.diff(noise, axis=0)).mean()


@pytest.mark.parametrize("size", [(64, 64), (17, 301), (135, 96)])
def test_procedural_backgrounds_are_deterministic_images(size: tuple[int, int]) -> None:
    for seed in range(12):
        scene = procedural_background(np.random.default_rng(seed), *size)
        assert scene.shape == size and scene.dtype == np.float32
        assert np.isfinite(scene).all() and scene.min() >= 0 and scene.max() <= 1
        assert scene.std() > 1e-3
        assert np.array_equal(scene, procedural_background(np.random.default_rng(seed), *size))


@pytest.mark.parametrize("intensity", [False, True])
def test_scm_scenes_hold_the_number_of_targets_they_claim(intensity: bool) -> None:
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(300):
        image, count = scm_scene(rng, 80, intensity)
        assert image.shape == (80, 80) and image.dtype == np.float32 and image.min() >= 0 and image.max() <= 1
        if not intensity:  # softened, scaled and cluttered masks still part at 0.15
            assert components(image > 0.15) == count
        counts.append(min(count, 4))
    np.testing.assert_allclose(np.bincount(counts, minlength=5) / 300, 0.2, atol=0.07)


def test_scm_scenes_are_deterministic() -> None:
    first, again = (scm_scene(np.random.default_rng(3), (64, 96)) for _ in range(2))
    assert np.array_equal(first[0], again[0]) and first[1] == again[1]
