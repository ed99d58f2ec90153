"""Metrics: the golden table on real masks, brute force on random ones, closed forms, scikit-learn for the curves."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score, roc_auc_score

from vision.infrared.classical import classical_baselines, z_score_response
from vision.infrared.clutter import clutter_record, clutter_summary, signal_to_clutter
from vision.infrared.detection import detect, label_regions
from vision.infrared.metrics import MatchRecord, match_targets, score, score_by
from vision.infrared.roc import curve_record, roc

Array = np.ndarray
SQUARE = np.ones((3, 3))


def shifted(rows: int, columns: int) -> Callable[[Array], Array]:
    return lambda mask: ndimage.shift(mask.astype(np.uint8), (rows, columns), order=0, cval=0) > 0


# prediction from the true mask: IoU, nIoU, Pd, Fa, legacy Fa (x 1e-6), unmatched regions
GOLDEN_FROM_MASK: dict[str, tuple[Callable[[Array], Array], tuple[float, ...]]] = {
    "truth": (lambda mask: mask, (1, 1, 1, 0, 0, 0)),
    "right_2": (shifted(0, 2), (0.48377399, 0.38940339, 1, 0, 0, 0)),
    "down_2_right_2": (shifted(2, 2), (0.30047276, 0.21262485, 1, 0, 0, 0)),
    "right_3": (shifted(0, 3), (0.33079546, 0.23484858, 0.00380228, 574.8752, 574.88, 262)),
    "dilated": (lambda m: ndimage.binary_dilation(m, SQUARE), (0.53074393, 0.47633576, 0.98479087, 5.8997, 5.90, 1)),
    "eroded": (lambda m: ndimage.binary_erosion(m, SQUARE), (0.37640048, 0.25782616, 0.85171103, 2.1266, 1.99, 7)),
    "empty": (np.zeros_like, (0, 0, 0, 0, 0, 0)),
}
GOLDEN_FROM_IMAGE = {
    "top_hat_9": (0.27510496, 0.52921063, 0.92395437, 639.0170, 634.70, 412),
    "top_hat_5": (0.22518778, 0.42875082, 0.86311787, 388.8982, 383.20, 472),
    "local_z_score": (0.30695642, 0.40386477, 0.80608365, 5.2137, 5.21, 17),
}


@pytest.fixture(scope="module")
def real_test_split(data_root: Path) -> list[tuple[Array, Array]]:
    root = data_root / "sirst"
    names = (root / "splits" / "nuaa50_test.txt").read_text().split()
    pairs = []
    for name in names:
        image = np.asarray(Image.open(root / "images" / f"{name}.png"), dtype=np.float32) / 255
        pairs.append((image, np.asarray(Image.open(root / "masks" / f"{name}.png")) > 127))
    return pairs


def assert_golden(records: list[MatchRecord], golden: tuple[float, ...]) -> None:
    figures = score(records)
    assert figures["IoU"] == pytest.approx(golden[0], abs=1e-8)
    assert figures["nIoU"] == pytest.approx(golden[1], abs=1e-8)
    assert figures["Pd"] == pytest.approx(golden[2], abs=1e-8)
    assert figures["Fa"] == pytest.approx(golden[3], abs=1e-4)
    assert figures["Fa_legacy"] == pytest.approx(golden[4], abs=6e-3)
    assert sum(record.false_regions for record in records) == golden[5]
    assert (figures["images"], figures["targets"]) == (214, 263)
    assert sum(record.true for record in records) == 8_390
    assert sum(record.pixels for record in records) == 14_577_078


@pytest.mark.data
@pytest.mark.parametrize("name", GOLDEN_FROM_MASK)
def test_golden_table_of_altered_masks(real_test_split: list[tuple[Array, Array]], name: str) -> None:
    alter, golden = GOLDEN_FROM_MASK[name]
    assert_golden([match_targets(alter(mask), mask) for _, mask in real_test_split], golden)


@pytest.mark.data
def test_golden_table_of_classical_detectors(real_test_split: list[tuple[Array, Array]]) -> None:
    records: dict[str, list[MatchRecord]] = {name: [] for name in GOLDEN_FROM_IMAGE}
    for image, mask in real_test_split:
        for name, prediction in classical_baselines(image).items():
            records[name].append(match_targets(prediction, mask))
    for name, golden in GOLDEN_FROM_IMAGE.items():
        assert_golden(records[name], golden)


def random_masks(seed: int, images: int = 6) -> list[tuple[Array, Array]]:
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(images):
        mask = ndimage.binary_dilation(rng.random((40, 50)) > 0.996, SQUARE)
        noise = ndimage.binary_dilation(rng.random((40, 50)) > 0.998, np.ones((2, 2)))
        pairs.append((np.roll(mask, rng.integers(-2, 3, 2), (0, 1)) | noise, mask))
    return pairs


def test_pixel_figures_equal_scikit_learn() -> None:
    pairs = random_masks(0)
    figures = score([match_targets(*pair) for pair in pairs])
    predicted, true = (np.concatenate([pair[k].ravel() for pair in pairs]) for k in (0, 1))
    assert figures["IoU"] == pytest.approx(jaccard_score(true, predicted))
    assert figures["nIoU"] == pytest.approx(np.mean([jaccard_score(t.ravel(), p.ravel()) for p, t in pairs]))
    assert figures["pixAcc"] == pytest.approx(recall_score(true, predicted))
    assert figures["precision"] == pytest.approx(precision_score(true, predicted))
    assert figures["F1"] == pytest.approx(f1_score(true, predicted))


def brute_force_match(predicted: Array, true: Array, distance: float) -> tuple[int, int, int]:
    """Found targets, false pixels and legacy false pixels, region by region with plain loops."""
    regions = {"p": predicted, "t": true}
    described: dict[str, list[tuple[float, float, int]]] = {}
    for key, mask in regions.items():
        labels, count = ndimage.label(mask, SQUARE)
        described[key] = [(*ndimage.center_of_mass(labels == k), int((labels == k).sum())) for k in range(1, count + 1)]
    left = list(described["p"])
    matched_areas = []
    for row, column, _ in described["t"]:
        for region in left:
            if ((region[0] - row) ** 2 + (region[1] - column) ** 2) ** 0.5 < distance:
                left.remove(region)
                matched_areas.append(region[2])
                break
    false = sum(area for *_, area in left)
    legacy = sum(area for *_, area in described["p"] if area not in matched_areas)
    return len(matched_areas), false, legacy


@pytest.mark.parametrize("seed", range(5))
def test_matching_equals_brute_force(seed: int) -> None:
    for predicted, true in random_masks(seed):
        record = match_targets(predicted, true)
        assert (sum(record.target_found), record.false_pixels, record.false_pixels_legacy) == brute_force_match(
            predicted, true, 3.0
        )


def test_a_centroid_at_three_pixels_is_no_match() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[5, 5] = True
    assert match_targets(np.roll(mask, 2, 1), mask).target_found == (True,)
    assert match_targets(np.roll(mask, 3, 1), mask).target_found == (False,)
    assert match_targets(np.roll(mask, 3, 1), mask, distance=3.01).target_found == (True,)


def test_a_prediction_serves_one_target_only() -> None:
    true, predicted = np.zeros((20, 20), dtype=bool), np.zeros((20, 20), dtype=bool)
    true[5, 5] = true[5, 7] = predicted[5, 6] = True
    record = match_targets(predicted, true)
    assert record.target_found == (True, False) and record.false_regions == 0


def test_legacy_false_alarm_forgets_a_region_as_large_as_a_matched_one() -> None:
    true, predicted = np.zeros((20, 20), dtype=bool), np.zeros((20, 20), dtype=bool)
    true[2:4, 2:4] = predicted[2:4, 2:4] = True
    predicted[10:12, 10:12] = predicted[15, 15] = True
    record = match_targets(predicted, true)
    assert (record.false_pixels, record.false_pixels_legacy, record.false_regions) == (5, 1, 2)
    figures = score([record])
    assert figures["Fa"] == pytest.approx(5 / 400 * 1e6) and figures["Fa_legacy"] == pytest.approx(1 / 400 * 1e6)


def test_empty_image_and_prediction_is_perfect() -> None:
    empty = np.zeros((16, 16), dtype=bool)
    figures = score([match_targets(empty, empty)])
    assert [figures[name] for name in ("IoU", "nIoU", "Pd", "pixAcc", "precision", "F1")] == [1.0] * 6
    assert figures["Fa"] == figures["false_regions"] == 0


def test_missing_everything_has_no_precision() -> None:
    mask = np.eye(16, dtype=bool)
    figures = score([match_targets(np.zeros_like(mask), mask)])
    assert [figures[name] for name in ("IoU", "nIoU", "Pd", "pixAcc", "precision", "F1")] == [0.0] * 6


def test_score_does_not_depend_on_order_and_records_travel() -> None:
    records = [match_targets(*pair) for pair in random_masks(1)]
    sent = pickle.loads(pickle.dumps(records))
    assert score(reversed(sent)) == pytest.approx(score(records), rel=1e-12)
    assert len(pickle.dumps(records[0])) < 2_000


def test_no_record_and_unequal_sizes_are_errors() -> None:
    with pytest.raises(ValueError, match="at least one record"):
        score([])
    with pytest.raises(ValueError, match="differ in size"):
        match_targets(np.zeros((4, 5)), np.zeros((5, 4)))


def test_bins_hold_every_target_once() -> None:
    rng = np.random.default_rng(0)
    records = [match_targets(*pair, image=rng.random((40, 50))) for pair in random_masks(2)]
    for by in ("size", "contrast"):
        rows = score_by(records, by)  # type: ignore[arg-type]
        assert sum(row["targets"] for row in rows) == score(records)["targets"]
        assert sum(row["found"] for row in rows) == sum(sum(record.target_found) for record in records)
    areas = np.array([area for record in records for area in record.target_areas])
    found = np.array([hit for record in records for hit in record.target_found])
    for row in score_by(records, "size", edges=(0, 9, 10, 30)):
        own = (areas >= row["low"]) & (areas < row["high"])
        assert row["targets"] == own.sum()
        assert row["Pd"] == (pytest.approx(found[own].mean()) if own.any() else None)


def test_contrast_bins_need_the_image_and_take_flat_backgrounds() -> None:
    mask = np.zeros((30, 30), dtype=bool)
    mask[10:12, 10:12] = True
    with pytest.raises(ValueError, match="image"):
        score_by([match_targets(mask, mask)], "contrast")
    infinite, undefined = mask.astype(float), np.zeros((30, 30))
    rows = score_by([match_targets(mask, mask, image=plane) for plane in (infinite, undefined)], "contrast")
    assert [row["targets"] for row in rows] == [1, 0, 0, 0, 1]


def test_signal_to_clutter_is_that_of_box_and_ring() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((80, 90))
    mask = np.zeros((80, 90), dtype=bool)
    mask[40:43, 50:54] = mask[45:47, 60] = True
    ring = np.zeros_like(mask)
    ring[20:63, 30:74] = True
    ring[40:43, 50:54] = ring[45:47, 60] = False
    expected = abs(image[40:43, 50:54].mean() - image[ring].mean()) / image[ring].std()
    assert signal_to_clutter(image, mask)[0] == pytest.approx(expected)


def test_clutter_gains_of_scaled_clutter() -> None:
    """A response that keeps the target and halves the clutter doubles both figures."""
    rng = np.random.default_rng(0)
    mask = np.zeros((80, 80), dtype=bool)
    mask[30:33, 30:33] = True
    clutter = rng.standard_normal((80, 80))
    ring = np.zeros_like(mask)
    ring[10:53, 10:53] = True
    clutter -= clutter[ring & ~mask].mean()
    clutter[mask] = 5.0
    halved = np.where(mask, 5.0, 0.5 * clutter)
    record = clutter_record(clutter, halved, mask)
    assert record.scr_gains == pytest.approx((2.0,)) and record.background_suppression == pytest.approx(2.0)


def test_clutter_summary_counts_infinite_and_undefined_values() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((60, 60), dtype=bool)
    mask[30:33, 30:33] = True
    noise = rng.random((60, 60))
    clean, nothing = mask.astype(float), np.zeros((60, 60))
    summary = clutter_summary([clutter_record(noise, response, mask) for response in (noise, clean, nothing)])
    assert summary["SCRG"] == pytest.approx(1.0) and (summary["SCRG_infinite"], summary["SCRG_undefined"]) == (1, 0)
    assert summary["BSF"] == np.inf and summary["BSF_infinite"] == 2
    flat_input = clutter_summary([clutter_record(clean, noise, mask)])
    assert flat_input["SCRG_undefined"] == 1 and np.isnan(flat_input["SCRG"])


def test_pixel_curve_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    masks = [mask for _, mask in random_masks(3)]
    maps = [np.clip(0.3 * rng.random(mask.shape) + 0.4 * mask * rng.random(mask.shape), 0, 1) for mask in masks]
    curve = roc([curve_record(p, m, bins=50) for p, m in zip(maps, masks, strict=True)])
    cells = np.floor(np.concatenate([p.ravel() for p in maps]) * 50)
    expected = roc_auc_score(np.concatenate([m.ravel() for m in masks]), cells)
    assert curve["AUC_pixel"] == pytest.approx(expected, abs=1e-12)
    assert curve["TPR"][0] == curve["FPR"][0] == 0 and curve["TPR"][-1] == curve["FPR"][-1] == 1


def test_target_curve_equals_matching_at_each_threshold() -> None:
    rng = np.random.default_rng(0)
    pairs = random_masks(4)
    maps = [0.6 * p + 0.4 * rng.random(p.shape) for p, _ in pairs]
    curve = roc([curve_record(m, t, thresholds=(0.2, 0.5, 0.7)) for m, (_, t) in zip(maps, pairs, strict=True)])
    for k, threshold in enumerate((0.2, 0.5, 0.7)):
        figures = score([match_targets(m > threshold, t) for m, (_, t) in zip(maps, pairs, strict=True)])
        assert curve["Pd"][k] == pytest.approx(figures["Pd"]) and curve["Fa"][k] == pytest.approx(figures["Fa"])


def test_target_area_is_that_of_the_best_step_curve() -> None:
    """Two thresholds: Pd 1/2 without a false alarm, then Pd 1 at Fa 400; up to 1000 that is (200 + 600) / 1000."""
    true, probability = np.zeros((50, 50), dtype=bool), np.zeros((50, 50))
    true[10, 10] = true[30, 30] = True
    probability[10, 10], probability[30, 30], probability[45, 45] = 0.9, 0.3, 0.3
    record = curve_record(probability, true, thresholds=(0.1, 0.5))
    curve = roc([record], fa_limit=1000.0)
    assert curve["Pd"] == [1.0, 0.5] and curve["Fa"] == pytest.approx([400.0, 0.0])
    assert curve["AUC_target"] == pytest.approx(0.8)
    assert roc([record], fa_limit=200.0)["AUC_target"] == pytest.approx(0.5)


def test_regions_equal_scipy() -> None:
    mask = random_masks(5)[0][0]
    regions = label_regions(mask)
    labels, count = ndimage.label(mask, SQUARE)
    assert len(regions) == count
    np.testing.assert_array_equal(regions.areas, ndimage.sum_labels(mask, labels, range(1, count + 1)))
    np.testing.assert_allclose(regions.centroids, ndimage.center_of_mass(mask, labels, range(1, count + 1)))


def test_detect_lists_centroids_areas_and_scores() -> None:
    probability = np.zeros((20, 30))
    probability[4:6, 10:13] = 0.6
    probability[15, 20] = 0.95
    probability[0, 0] = 0.5  # not above the threshold
    first, second = detect(probability)
    assert (first.row, first.col, first.area, first.score) == (15, 20, 1, 0.95)
    assert (second.row, second.col, second.area, second.score) == (4.5, 11, 6, 0.6)
    assert [d.area for d in detect(probability, min_area=2)] == [6]
    assert detect(np.zeros((20, 30))) == []


def test_z_score_equals_its_definition_inside() -> None:
    image = np.random.default_rng(0).random((48, 50))
    window = image[24 - 15 : 24 + 16, 25 - 15 : 25 + 16]
    smooth = ndimage.gaussian_filter(image, 1.0)[24, 25]
    assert z_score_response(image)[24, 25] == pytest.approx((smooth - window.mean()) / (window.std() + 0.01))
