"""Images as classifiers are shown them: Pillow's pixels beside torchvision's, NumPy's scores beside PyTorch's."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from vision.classification.images import BroughtTo
from vision.classification.pixels import as_input, brought_to
from vision.classification.scores import scores_of, softmax


@pytest.mark.parametrize("shape", [(50, 71), (33, 20), (12, 12), (16, 9)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_is_that_of_torchvision_but_for_one_level(shape: tuple[int, int], channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, channels), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    for how, transform in (
        ("short_side", v2.Compose([v2.Resize(12, antialias=True), v2.CenterCrop(12)])),
        ("stretch", v2.Resize((12, 12), antialias=True)),
    ):
        expected = transform(image).permute(1, 2, 0).numpy().astype(int)
        found = brought_to(pixels, 12, how)  # type: ignore[arg-type]
        assert found.shape == (12, 12, channels)
        assert np.abs(found - expected).max() <= 1
        assert torch.equal(BroughtTo(12, how)(image).permute(1, 2, 0), torch.from_numpy(found.copy()))  # type: ignore[arg-type]


def test_inputs_are_normalised_by_channel() -> None:
    pixels = np.array([[[0, 51, 255]]], np.uint8)
    found = as_input(pixels, (0.5, 0.2, 0.0), (0.5, 1.0, 2.0))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0, 0], [-1.0, 0.0, 0.5], atol=1e-7)
    np.testing.assert_allclose(as_input(pixels)[:, 0, 0], [0.0, 0.2, 1.0], atol=1e-7)


def test_scores_are_those_of_pytorch() -> None:
    logits = (9 * np.random.default_rng(1).standard_normal((20, 7))).astype(np.float32)
    values, order = torch.from_numpy(logits).double().softmax(1).topk(5, 1)
    names = [str(k) for k in range(7)]
    found = scores_of([str(k) for k in range(20)], logits, names)
    for each, shares, classes in zip(found, values.tolist(), order.tolist(), strict=True):
        assert list(each.probabilities) == [names[k] for k in classes]
        assert list(each.probabilities.values()) == pytest.approx(shares, rel=1e-12)
        assert each.label == names[classes[0]] and each.confidence == pytest.approx(shares[0])


def test_large_logits_do_not_overflow_and_of_equal_classes_the_first_comes_first() -> None:
    assert softmax(np.array([1e4, 0.0])).tolist() == [1.0, 0.0]
    (found,) = scores_of(["x"], np.array([[1.0, 2.0, 2.0]], np.float32), ["a", "b", "c"])
    assert found.label == "b" and list(found.probabilities) == ["b", "c", "a"]
