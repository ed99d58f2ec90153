"""What runs without PyTorch gives what PyTorch gives: decoding of codecs, the search for people, crops."""

import numpy as np
import pytest
import torch

from vision.pose import finding, peaks
from vision.pose.codecs import Codec, QuarterHeatmap, UDPHeatmap
from vision.pose.crops import as_input, crop_matrix, region, upright
from vision.pose.data import MEAN, STD
from vision.pose.data import as_input as as_tensor
from vision.pose.decoding import decode_heatmap, decode_simcc, decode_udp, mirrored_maps, mirrored_rows
from vision.pose.enlarged import enlarged
from vision.pose.simcc import SimCC
from vision.pose.warping import warped

SIZE = (96, 128)
FLIP = [0, 2, 1, 4, 3, 5, 6]


def maps_of(codec: Codec, rng: np.random.Generator, noise: float) -> np.ndarray:
    """Heatmaps of random joints, some at and beyond the border, with noise."""
    joints = torch.from_numpy(rng.uniform(-6, np.array(SIZE) + 6, (40, 7, 2))).float()
    maps = codec.encode(joints, torch.ones(40, 7))["heatmap"].numpy()
    return (maps + noise * rng.standard_normal(maps.shape)).astype(np.float32)


@pytest.mark.parametrize("noise", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("blur", [1, None])
def test_dark_decodes_as_in_pytorch(noise: float, blur: int | None) -> None:
    codec = UDPHeatmap(SIZE, blur=blur)
    maps = maps_of(codec, np.random.default_rng(0), noise)
    joints, scores = (x.numpy() for x in codec.decode(torch.from_numpy(maps)))
    numbers = codec.after()
    found, sure = decode_udp(maps, numbers["input_size"], numbers["sigma"], numbers["blur"])
    np.testing.assert_array_equal(sure, scores)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, joints, rtol=0, atol=2e-2)  # pixels; a nearly flat top magnifies rounding
    assert np.median(np.abs(found - joints)) < 1e-5


@pytest.mark.parametrize("noise", [0.0, 0.02, 1.0])
def test_plain_heatmaps_decode_as_in_pytorch(noise: float) -> None:
    codec = QuarterHeatmap(SIZE)
    maps = maps_of(codec, np.random.default_rng(1), noise)
    joints, scores = (x.numpy() for x in codec.decode(torch.from_numpy(maps)))
    found, sure = decode_heatmap(maps, codec.after()["input_size"])
    np.testing.assert_array_equal(sure, scores)
    np.testing.assert_allclose(found, joints, rtol=0, atol=1e-4)


@pytest.mark.parametrize("split", [1.0, 2.0])
def test_rows_of_bins_decode_as_in_pytorch(split: float) -> None:
    codec, rng = SimCC(SIZE, split=split), np.random.default_rng(2)
    joints = torch.from_numpy(rng.uniform(-6, np.array(SIZE) + 6, (40, 7, 2))).float()
    targets = codec.encode(joints, torch.ones(40, 7))
    rows = tuple(
        (targets[axis].numpy() + 0.1 * rng.standard_normal(targets[axis].shape)).astype(np.float32) for axis in "xy"
    )
    expected, scores = (x.numpy() for x in codec.decode(tuple(map(torch.from_numpy, rows))))
    numbers = codec.after()
    found, sure = decode_simcc(rows, numbers["input_size"], numbers["bins"], numbers["sigma"], numbers["beta"])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    np.testing.assert_allclose(sure, scores, rtol=1e-5)


def test_mirror_images_are_turned_back_as_in_pytorch() -> None:
    rng = np.random.default_rng(3)
    maps = rng.standard_normal((2, 7, 5, 6)).astype(np.float32)
    expected = QuarterHeatmap(SIZE).flipped(torch.from_numpy(maps), FLIP).numpy()
    np.testing.assert_array_equal(mirrored_maps(maps, FLIP), expected)
    rows = tuple(rng.standard_normal((2, 7, bins)).astype(np.float32) for bins in (8, 9))
    expected_rows = SimCC(SIZE).flipped(tuple(map(torch.from_numpy, rows)), FLIP)
    for found, row in zip(mirrored_rows(rows, FLIP), expected_rows, strict=True):
        np.testing.assert_array_equal(found, row.numpy())


@pytest.mark.parametrize("shape", [(24, 20), (210, 220), (310, 300)], ids=["window 3", "window 5", "window 7"])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_centres_are_those_pytorch_finds(shape: tuple[int, int], kernel: int) -> None:
    rng = np.random.default_rng(4)
    maps = rng.random(shape).astype(np.float32) ** 4
    maps[0, 0], maps[-1, 3] = 0.999, 0.998
    coords, image, scores = (x.numpy() for x in peaks.find_centres(torch.from_numpy(maps)[None], 12, 0.3, kernel))
    cells, sure = finding.find_centres(maps, 12, 0.3, kernel)
    assert len(cells) == len(image) > 0
    np.testing.assert_array_equal(cells, coords)
    np.testing.assert_allclose(sure, scores, rtol=1e-5)


def test_nobody_is_found_in_an_empty_map() -> None:
    cells, scores = finding.find_centres(np.zeros((20, 20), np.float32))
    assert cells.shape == (0, 2) and scores.shape == (0,)
    joints, poses = finding.decode_poses(np.zeros((0, 7, 20, 20), np.float32), scores)
    assert joints.shape == (0, 7, 3) and poses.shape == (0,)


@pytest.mark.parametrize("kernel", [1, 3])
def test_poses_of_heatmaps_are_those_of_pytorch(kernel: int) -> None:
    rng = np.random.default_rng(5)
    maps, centres = rng.random((4, 7, 21, 18)).astype(np.float32), rng.random(4).astype(np.float32)
    maps[0, :, 0, 0] = maps[1, :, -1, -1] = 5.0  # at the corners
    maps[2] = 0.25  # all equal
    joints, scores = (x.numpy() for x in peaks.decode_poses(torch.from_numpy(maps), torch.from_numpy(centres), kernel))
    found, sure = finding.decode_poses(maps, centres, kernel)
    kept = [0, 1, 3] if kernel == 3 else [0, 1, 2, 3]  # smoothing rounds equal cells in an order of its own
    np.testing.assert_allclose(found[kept], joints[kept], rtol=1e-5)
    np.testing.assert_allclose(sure, scores, rtol=1e-5)


def test_upright_crops_have_the_pixels_of_pytorch() -> None:
    rng = np.random.default_rng(6)
    image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    different = compared = 0
    for _ in range(30):
        box = (*rng.uniform(-40, 80, 2), *rng.uniform(2, 120, 2))
        matrix = crop_matrix(*region(box, SIZE), SIZE)
        ours, theirs = upright(image, matrix, SIZE), warped(image, matrix, SIZE)
        difference = np.abs(ours.astype(int) - theirs)
        assert difference.max() <= 1
        different, compared = different + int((difference > 0).sum()), compared + difference.size
    assert different < 1e-3 * compared
    plan = enlarged(80, 60, 64)
    assert np.abs(upright(image, plan.matrix, plan.size).astype(int) - warped(image, plan.matrix, plan.size)).max() <= 1


def test_an_upright_crop_does_not_turn() -> None:
    matrix = crop_matrix(np.array([5.0, 5.0]), np.array([8.0, 8.0]), (8, 8), rotation=10.0)
    with pytest.raises(ValueError, match="does not turn"):
        upright(np.zeros((10, 10, 3), np.uint8), matrix, (8, 8))


def test_inputs_are_those_of_pytorch() -> None:
    crop = np.random.default_rng(7).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    np.testing.assert_allclose(as_input(crop, MEAN, STD), as_tensor(crop).numpy(), rtol=0, atol=1e-6)
