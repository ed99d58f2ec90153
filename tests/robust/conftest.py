"""The tiny network whose attacks were recorded from the authors' code."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from vision.classification import Normalised


@pytest.fixture(scope="session")
def recorded(golden_root: Path) -> dict[str, NDArray[np.float64]]:
    """Inputs, weights and attacks, float64."""
    with np.load(golden_root / "rdd_attacks.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def recorded_network(recorded: dict[str, NDArray[np.float64]]) -> nn.Module:
    """The network of the recording, with its normalisation inside."""
    layers = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 5),
    ).double()
    names = {"0": "conv1", "2": "conv2", "5": "fc"}
    layers.load_state_dict(
        {
            f"{place}.{kind}": torch.from_numpy(recorded[f"{name}_{letter}"])
            for place, name in names.items()
            for kind, letter in (("weight", "w"), ("bias", "b"))
        }
    )
    network = Normalised(layers, [0.0] * 3, [1.0] * 3).double()
    network.mean.copy_(torch.from_numpy(recorded["mean"]).view(1, -1, 1, 1))
    network.std.copy_(torch.from_numpy(recorded["std"]).view(1, -1, 1, 1))
    return network
