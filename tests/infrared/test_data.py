"""Reading infrared files and folders, the errors that name what is wrong, and what the data sets hand out."""

import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from vision.engine.errors import DataError
from vision.infrared.data import InfraredCrops, InfraredImages, InputTransform, intensity_layer
from vision.infrared.reading import (
    InfraredSample,
    IRSTFolder,
    list_images,
    read_backgrounds,
    read_infrared,
    read_mask,
    read_pixels,
    validation_split,
)
from vision.infrared.tbcnet import with_high_pass

GRAY = np.arange(20 * 24, dtype=np.uint8).reshape(20, 24)


def save(array: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of different size, the last without target, in the layout ``splits/``."""
    root = tmp_path / "set"
    rng = np.random.default_rng(0)
    for name, size in (("a", (70, 90)), ("b", (40, 52)), ("c", (64, 64))):
        mask = np.zeros(size, dtype=np.uint8)
        if name != "c":
            mask[20:23, 30:34] = 255
        save(rng.integers(30, 90, size, dtype=np.uint8) + (mask > 0) * np.uint8(120), root / "images" / f"{name}.png")
        save(mask, root / "masks" / f"{name}.png")
    (root / "splits").mkdir()
    (root / "splits" / "train.txt").write_text("a\nb\nc\n")
    return root


# --- files ---


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_8_bit_files_are_read_exactly(tmp_path: Path, suffix: str) -> None:
    image = read_infrared(save(GRAY, tmp_path / f"x{suffix}"))
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, GRAY.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_files_keep_their_depth(tmp_path: Path, suffix: str) -> None:
    deep = (np.arange(20 * 24, dtype=np.uint16) * 34).reshape(20, 24)
    path = save(deep, tmp_path / f"x{suffix}")
    np.testing.assert_allclose(read_infrared(path), deep / 65535, rtol=1e-6)
    np.testing.assert_allclose(read_infrared(path, bits=14), deep / 16383, rtol=1e-6)
    with pytest.raises(DataError, match="bits"):
        read_infrared(path, bits=12)


def test_float_tiff_must_lie_in_the_unit_range(tmp_path: Path) -> None:
    image = np.linspace(0, 1, 480, dtype=np.float32).reshape(20, 24)
    np.testing.assert_array_equal(read_infrared(save(image, tmp_path / "x.tif")), image)
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        read_infrared(save(image * 300, tmp_path / "y.tif"))


def test_equal_channels_are_one_gray(tmp_path: Path) -> None:
    path = save(np.stack([GRAY] * 3, axis=2), tmp_path / "x.png")
    np.testing.assert_array_equal(read_pixels(path), GRAY)
    rgba = np.concatenate([np.stack([GRAY] * 3, axis=2), np.full((*GRAY.shape, 1), 255, np.uint8)], axis=2)
    np.testing.assert_array_equal(read_pixels(save(rgba, tmp_path / "y.png")), GRAY)


def test_slightly_different_channels_are_weighted_as_in_itu_r_601(tmp_path: Path) -> None:
    colours = np.stack([GRAY // 2 + 6, GRAY // 2, GRAY // 2 + 3], axis=2)
    luma = colours @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read_pixels(save(colours, tmp_path / "x.png")) - luma).max() <= 1


def test_a_colour_map_is_refused(tmp_path: Path) -> None:
    colours = np.stack([GRAY, 255 - GRAY, GRAY // 3], axis=2)
    with pytest.raises(DataError, match=r"x\.png: a colour image"):
        read_infrared(save(colours, tmp_path / "x.png"))


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"not an image", lambda data: b""]
)
def test_a_corrupt_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    path = save(noise, tmp_path / "broken.png")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"broken\.png: not a readable image"):
        read_infrared(path)
    with pytest.raises(DataError, match=r"nowhere\.png: no such file"):
        read_infrared(tmp_path / "nowhere.png")


@pytest.mark.parametrize("values", [(0, 255), (0, 1), (10, 240)])
def test_masks_of_either_convention(tmp_path: Path, values: tuple[int, int]) -> None:
    truth = np.zeros((20, 24), dtype=bool)
    truth[3:5, 4:9] = True
    low, high = values
    path = save(np.where(truth, high, low).astype(np.uint8), tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(path), truth)


# --- folders ---


def test_folder_lists_the_split_in_order(folder: Path) -> None:
    data = IRSTFolder(folder, "train")
    assert data.names == ["a", "b", "c"] and not data.skipped
    assert [sample.pixels.shape for sample in data] == [(70, 90), (40, 52), (64, 64)]
    assert [int(sample.mask.sum()) for sample in data] == [12, 12, 0]
    assert [sample.name for sample in data.subset(["c", "a"])] == ["c", "a"]
    with pytest.raises(DataError, match="no sample 'd'"):
        data.subset(["d"])


@pytest.mark.parametrize(
    ("place", "split"),
    [
        ("img_idx/train_set.txt", "train"),
        ("img_idx/train_other.txt", "train"),
        ("img_idx/fold1.txt", "fold1"),
        ("all.txt", "all"),
    ],
)
def test_other_layouts(folder: Path, place: str, split: str) -> None:
    (folder / "splits" / "train.txt").unlink()
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).write_text("b.png\n\na\n")
    (folder / "masks" / "b.png").rename(folder / "masks" / "b_pixels0.png")
    assert IRSTFolder(folder, split).names == ["b", "a"]


def test_ambiguous_split_asks_back(folder: Path) -> None:
    (folder / "splits" / "train.txt").unlink()
    (folder / "img_idx").mkdir()
    for name in ("train_one", "train_two"):
        (folder / "img_idx" / f"{name}.txt").write_text("a\n")
    with pytest.raises(DataError, match="train_one, train_two"):
        IRSTFolder(folder, "train")
    assert IRSTFolder(folder, "train_two").names == ["a"]


def test_missing_parts_of_a_folder_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothere: no such folder"):
        IRSTFolder(tmp_path / "nothere", "train")
    with pytest.raises(DataError, match=r"no split 'trian' \(did you mean 'train'\?\)"):
        IRSTFolder(folder, "trian")
    (folder / "splits" / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match=r"empty\.txt: the split is empty"):
        IRSTFolder(folder, "empty")
    (folder / "splits" / "twice.txt").write_text("a\nb\na.png\n")
    with pytest.raises(DataError, match=r"twice\.txt: a given more than once"):
        IRSTFolder(folder, "twice")
    (folder / "images").rename(folder / "pictures")
    with pytest.raises(DataError, match="images: no such folder"):
        IRSTFolder(folder, "train")


def damage_folder(root: Path) -> None:
    (root / "splits" / "bad.txt").write_text("missing\nmaskless\nother_size\ncorrupt\na\n")
    for name in ("maskless", "other_size", "corrupt"):
        save(np.zeros((30, 30), np.uint8), root / "images" / f"{name}.png")
    save(np.zeros((30, 40), np.uint8), root / "masks" / "other_size.png")
    save(np.zeros((30, 30), np.uint8), root / "masks" / "corrupt.png")
    (root / "images" / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\n")


def test_unusable_samples_stop_with_their_names(folder: Path) -> None:
    damage_folder(folder)
    with pytest.raises(DataError) as error:
        IRSTFolder(folder, "bad")
    text = str(error.value)
    for part in ("4 of 5", "images/missing", "masks/maskless", "mask is 30x40, image is 30x30", "corrupt.png"):
        assert part in text


def test_unusable_samples_are_skipped_only_on_demand_and_aloud(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    damage_folder(folder)
    with caplog.at_level(logging.WARNING):
        data = IRSTFolder(folder, "bad", on_error="skip")
    assert data.names == ["a"] and set(data.skipped) == {"missing", "maskless", "other_size", "corrupt"}
    assert "4 of 5" in caplog.text and all(name in caplog.text for name in data.skipped)
    (folder / "splits" / "worse.txt").write_text("missing\n")
    with pytest.raises(DataError, match="Nothing is left"):
        IRSTFolder(folder, "worse", on_error="skip")


def test_folder_of_backgrounds(folder: Path, tmp_path: Path) -> None:
    assert [path.name for path in list_images(folder / "images")] == ["a.png", "b.png", "c.png"]
    assert [pixels.shape for pixels in read_backgrounds(folder / "images")] == [(70, 90), (40, 52), (64, 64)]
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="no image"):
        read_backgrounds(tmp_path / "bare")


def test_validation_split_is_a_partition_that_ignores_order() -> None:
    names = [f"Misc_{k}" for k in range(40)]
    train, val = validation_split(names, 0.2, seed=3)
    assert len(val) == 8 and sorted(train + val) == sorted(names) and not set(train) & set(val)
    assert train == [name for name in names if name in set(train)]
    assert set(validation_split(names[::-1], 0.2, seed=3)[1]) == set(val)
    assert set(validation_split(names, 0.2, seed=4)[1]) != set(val)
    assert len(validation_split(["a", "b"], 0.01, seed=0)[1]) == 1
    with pytest.raises(DataError, match="fraction"):
        validation_split(names, 1.0, seed=0)


@pytest.mark.data
@pytest.mark.parametrize(
    ("split", "facts"),
    [
        ("train", (256, 327, 10_827, 17_312_878)),
        ("val", (85, 97, 3_320, 5_763_475)),
        ("nuaa50_train", (213, 270, 9_133, 14_359_069)),
    ],
)
def test_real_splits_have_their_published_totals(data_root: Path, split: str, facts: tuple[int, ...]) -> None:
    data = IRSTFolder(data_root / "sirst", split)
    targets = sum(ndimage.label(sample.mask, np.ones((3, 3)))[1] for sample in data)
    pixels = sum(sample.mask.size for sample in data)
    assert (len(data), targets, sum(int(sample.mask.sum()) for sample in data), pixels) == facts


# --- data sets ---


def draw(crops: InfraredCrops, index: int, seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return crops[index]


@pytest.mark.parametrize("synthetic", ["mixed", "none", "only"])
@pytest.mark.parametrize("target_mode", ["mask", "intensity"])
def test_crops_are_well_formed(folder: Path, synthetic: str, target_mode: str) -> None:
    data = IRSTFolder(folder, "train")
    crops = InfraredCrops(data, patch=56, synthetic=synthetic, target_mode=target_mode)  # type: ignore[arg-type]
    assert len(crops) == 3
    for seed in range(20):
        sample = draw(crops, seed % 3, seed)
        assert isinstance(sample["id"], str)
        assert sample["image"].shape == sample["mask"].shape == (1, 56, 56)
        assert sample["image"].dtype == sample["mask"].dtype == torch.float32
        assert set(sample["mask"].unique().tolist()) <= {0.0, 1.0}
        assert sample["count"].dtype == torch.int64
        assert sample["count"] == ndimage.label(sample["mask"][0], np.ones((3, 3)))[1]
        assert torch.isfinite(sample["image"]).all()
        assert ("intensity" in sample) == (target_mode == "intensity")
        if target_mode == "intensity":
            intensity = sample["intensity"]
            assert intensity.shape == (1, 56, 56) and 0 <= intensity.min() <= intensity.max() <= 1
            assert (intensity[sample["mask"] > 0] > 0).all()


def test_a_crop_is_decided_by_torchs_generator_alone(folder: Path) -> None:
    crops = InfraredCrops(IRSTFolder(folder, "train"), patch=48)
    np.random.seed(1)
    first = draw(crops, 0, 7)
    np.random.seed(2)
    again, other = draw(crops, 0, 7), draw(crops, 0, 8)
    assert torch.equal(first["image"], again["image"]) and torch.equal(first["mask"], again["mask"])
    assert not torch.equal(first["image"], other["image"])


def test_real_crops_are_flipped_windows_of_their_image() -> None:
    """Each gray value occurs once, so that a crop can be traced back to the pixels it came from."""
    ramp = np.arange(60 * 50, dtype=np.float32).reshape(60, 50) / 3000
    mask = np.zeros((60, 50), dtype=bool)
    mask[30:32, 20:22] = True
    crops = InfraredCrops(
        [InfraredSample("ramp", ramp, mask)], patch=24, synthetic="none", transform=InputTransform("dataset", 0.0, 1.0)
    )
    seen = set()
    for seed in range(60):
        sample = draw(crops, 0, seed)
        origin = np.rint(sample["image"][0].numpy() * 3000).astype(int)
        rows, columns = origin // 50, origin % 50
        np.testing.assert_array_equal(sample["mask"][0].numpy() > 0, mask[rows, columns])
        transposed = rows[0, 0] != rows[0, 1]
        down, right = (columns, rows) if transposed else (rows, columns)
        steps = int(down[1, 0] - down[0, 0]), int(right[0, 1] - right[0, 0])
        assert (np.diff(down, axis=0) == steps[0]).all() and (np.diff(right, axis=1) == steps[1]).all()
        seen.add((transposed, *steps))
    assert seen == {(t, r, c) for t in (True, False) for r in (-1, 1) for c in (-1, 1)}


def test_target_probability_of_real_crops() -> None:
    mask = np.zeros((400, 400), dtype=bool)
    mask[200, 200] = True
    sample = InfraredSample("x", np.zeros((400, 400), dtype=np.uint8), mask)
    for p_target in (0.0, 0.5, 1.0):
        crops = InfraredCrops([sample], patch=16, synthetic="none", p_target=p_target)
        hits = np.mean([bool(draw(crops, 0, seed)["mask"].any()) for seed in range(400)])
        chance = (16 / 385) ** 2
        assert hits == pytest.approx(p_target + (1 - p_target) * chance, abs=0.08 if p_target == 0.5 else 0.02)


def test_share_of_real_crops(folder: Path) -> None:
    crops = InfraredCrops(IRSTFolder(folder, "train"), patch=48)
    real = np.mean([not draw(crops, seed % 3, seed)["id"].startswith("synthetic") for seed in range(400)])
    assert real == pytest.approx(0.6, abs=0.08)


def test_synthetic_scenes_need_no_data_at_all() -> None:
    crops = InfraredCrops([], patch=64, synthetic="only", length=50)
    counts = [int(draw(crops, index, index)["count"]) for index in range(50)]
    assert min(counts) == 0 and max(counts) >= 3


def test_synthetic_scenes_use_backgrounds_and_free_areas(folder: Path) -> None:
    """Flat sources of known gray: without sensor effects the median of a scene tells where it came from."""
    flat = InfraredSample("flat", np.full((80, 80), 51, np.uint8), np.zeros((80, 80), dtype=bool))
    taken = InfraredSample("taken", np.full((60, 60), 200, np.uint8), np.ones((60, 60), dtype=bool))
    crops = InfraredCrops([flat, taken], patch=64, synthetic="only", backgrounds=[np.full((70, 90), 102, np.uint8)])
    plain = InputTransform("dataset", 0.0, 1.0)
    crops.synth.blur = crops.synth.noise = crops.synth.gain = crops.synth.offset = 0.0
    crops.transform = plain
    grays = [round(float(draw(crops, 0, seed)["image"].median()) * 255) for seed in range(200)]
    shares = [grays.count(value) / 200 for value in (51, 102, 200)]
    assert shares[0] == pytest.approx(0.4, abs=0.1) and shares[1] == pytest.approx(0.4, abs=0.1) and shares[2] < 0.02


@pytest.mark.parametrize("pad", ["zero", "reflect"])
def test_small_images_are_filled_up(pad: str) -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((20, 30), dtype=bool)
    mask[18:20, 5:7] = True
    crops = InfraredCrops(
        [InfraredSample("x", rng.random((20, 30), dtype=np.float32), mask)], patch=32, synthetic="none", pad=pad
    )  # type: ignore[arg-type]
    for seed in range(12):
        sample = draw(crops, 0, seed)
        image, filled = sample["image"][0], sample["mask"][0]
        assert image.shape == filled.shape == (32, 32)
        inside = image[:20, :30] if (image[:20, :30].std(correction=0) - 1).abs() < 1e-4 else image[:30, :20]
        assert inside.mean().abs() < 1e-5  # the statistics are those of the image, not of its filling
        if pad == "zero":
            assert image.count_nonzero() <= 600 and filled.sum() == 4
        else:
            assert image.count_nonzero() > 1000


def test_high_pass_is_a_second_channel(folder: Path) -> None:
    data = IRSTFolder(folder, "train")
    sample = InfraredImages(data, InputTransform(high_pass=True))[0]
    assert sample["image"].shape == (2, 70, 90)
    torch.testing.assert_close(sample["image"], with_high_pass(sample["image"][:1]))
    assert draw(InfraredCrops(data, patch=48, transform=InputTransform(high_pass=True)), 0, 0)["image"].shape[0] == 2


def test_evaluation_images_are_whole(folder: Path) -> None:
    images = InfraredImages(IRSTFolder(folder, "train"))
    assert [images[k]["id"] for k in range(len(images))] == ["a", "b", "c"]
    sample = images[1]
    assert sample["image"].shape == (1, 40, 52) and sample["raw"].shape == sample["mask"].shape == (40, 52)
    assert sample["mask"].dtype == torch.bool and sample["raw"].max() <= 1
    raw = sample["raw"]
    torch.testing.assert_close(sample["image"][0], (raw - raw.mean()) / raw.std(correction=0))


def test_intensity_of_a_real_target_is_its_contrast() -> None:
    image = np.full((40, 40), 0.4, dtype=np.float32)
    mask = np.zeros((40, 40), dtype=bool)
    mask[10, 10:13] = mask[30, 30] = True
    image[10, 10:13] = (0.5, 0.8, 0.4)
    image[30, 30] = 0.2  # a cold target
    layer = intensity_layer(image, mask)
    np.testing.assert_allclose(layer[mask], [0.25, 1.0, 0.1, 0.5], atol=1e-5)
    assert not layer[~mask].any()
    assert not intensity_layer(image, np.zeros_like(mask)).any()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"patch": 8}, "patch"),
        ({"patch": 32}, "synthetic scenes need 48"),
        ({"p_real": 1.5}, "p_real"),
        ({"synthetic": "some"}, "synthetic"),
        ({"pad": "wrap"}, "pad"),
        ({"target_mode": "box"}, "target_mode"),
        ({"length": 0}, "length"),
    ],
)
def test_bad_settings_are_refused(folder: Path, arguments: dict[str, object], field: str) -> None:
    with pytest.raises(DataError, match=field):
        InfraredCrops(IRSTFolder(folder, "train"), **arguments)  # type: ignore[arg-type]


def test_real_crops_without_samples_are_refused() -> None:
    with pytest.raises(DataError, match="needs real samples"):
        InfraredCrops([])


def test_all_samples_can_be_batched_by_a_loader(folder: Path) -> None:
    crops = InfraredCrops(IRSTFolder(folder, "train"), patch=48, length=8)
    batch = next(iter(torch.utils.data.DataLoader(crops, batch_size=8)))
    assert batch["image"].shape == (8, 1, 48, 48) and batch["count"].shape == (8,)
    assert len(set(batch["id"])) == 8 and not math.isnan(batch["image"].sum())
