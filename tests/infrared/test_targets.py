"""Regions and inputs by NumPy beside scipy and PyTorch."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from vision.infrared.detection import detect, label_regions
from vision.infrared.exported import sigmoid
from vision.infrared.targets import as_input, counts_of
from vision.infrared.tbcnet import normalise, with_high_pass


def spiral(size: int) -> np.ndarray:
    """One region that winds, whose runs are joined in many rounds."""
    mask = np.zeros((size, size), bool)
    row, column, turn = 0, -1, [(0, 1), (1, 0), (0, -1), (-1, 0)]
    for index, length in enumerate([size, *(n for n in range(size - 1, 0, -2) for _ in (0, 1))]):
        for _ in range(length):
            row, column = row + turn[index % 4][0], column + turn[index % 4][1]
            mask[row, column] = True
    return mask


@pytest.mark.parametrize("share", [0.01, 0.2, 0.4, 0.6, 0.9])
@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (37, 53)])
def test_regions_are_those_of_scipy(share: float, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        require_scipys(rng.random(shape) < share, rng)


def test_regions_that_wind_and_none_and_all() -> None:
    rng = np.random.default_rng(1)
    assert len(label_regions(spiral(41))) == 1
    for mask in (spiral(41), ~spiral(41), np.zeros((5, 7), bool), np.ones((5, 7), bool), np.eye(9, dtype=bool)):
        require_scipys(mask, rng)


def require_scipys(mask: np.ndarray, rng: np.random.Generator) -> None:
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    index = np.arange(1, count + 1)
    found = label_regions(mask)
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.areas, ndimage.sum(mask, labels, index).reshape(-1))
    centroids = np.array(ndimage.center_of_mass(mask, labels, index)).reshape(-1, 2)
    np.testing.assert_allclose(found.centroids, centroids, rtol=1e-12, atol=1e-12)
    probability = np.where(mask, 0.6 + 0.4 * rng.random(mask.shape), 0.3)
    highest = np.sort(np.atleast_1d(ndimage.maximum(probability, labels, index)) if count else np.zeros(0))[::-1]
    np.testing.assert_array_equal([d.score for d in detect(probability)], highest)


@pytest.mark.parametrize("high_pass", [False, True])
@pytest.mark.parametrize("statistics", [("image", None, None), ("dataset", 0.4, 0.14)])
def test_inputs_are_those_of_pytorch(high_pass: bool, statistics: tuple) -> None:
    for image in (np.random.default_rng(2).random((37, 53)), np.full((20, 16), 0.25)):
        gray = image.astype(np.float32)
        expected = normalise(torch.from_numpy(gray), *statistics)[None]
        expected = with_high_pass(expected) if high_pass else expected
        found = as_input(gray, *statistics, high_pass)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-5)


def test_probabilities_are_those_of_pytorch() -> None:
    logits = np.array([-200.0, -3.0, 0.0, 2.0, 90.0], np.float32)
    np.testing.assert_allclose(sigmoid(logits), torch.from_numpy(logits).sigmoid().numpy(), rtol=1e-6, atol=1e-30)
    rows = np.random.default_rng(3).standard_normal((4, 5)).astype(np.float32)
    for each, row in zip(counts_of(list("abcd"), rows), torch.from_numpy(rows).softmax(1).tolist(), strict=True):
        assert each.probabilities == pytest.approx(row, abs=1e-6) and each.label == int(np.argmax(row))
