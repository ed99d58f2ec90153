"""What spiking networks need around an exported file, by NumPy beside PyTorch."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from snn import encoders
from snn.events import at_size
from snn.exported import poisson


@pytest.mark.parametrize("size", [20, 34, 50, 7])
def test_frames_are_resized_as_pytorch_resizes_to_the_nearest(size: int) -> None:
    frames = np.random.default_rng(0).random((3, 2, 34, 30)).astype(np.float32)
    expected = functional.interpolate(torch.from_numpy(frames), (size, size), mode="nearest")
    np.testing.assert_array_equal(at_size(frames, size), expected.numpy())


@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 8, 8), (3, 32, 32)])
def test_random_spikes_are_pytorchs_to_the_last_one(shape: tuple[int, int, int]) -> None:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    expected = encoders.poisson(images[None], 5, ["folder/photo.png"])[0]
    np.testing.assert_array_equal(poisson(images.numpy(), 5, "folder/photo.png"), expected.numpy())
