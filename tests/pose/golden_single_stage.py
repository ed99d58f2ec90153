"""The deterministic fill that golden values of single-stage networks were made with, and how they are compared."""

import zlib
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn


def filled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Float64 values that follow from names and shapes alone."""
    values = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            values[name] = tensor.clone()
            continue
        count = tensor.numel()
        phase = (zlib.crc32(name.encode()) % 6283) / 1000
        wave = torch.sin(1.7 * torch.arange(count, dtype=torch.float64) + phase)
        if name.endswith("running_mean"):
            value = torch.zeros(count, dtype=torch.float64)
        elif name.endswith("running_var"):
            value = torch.ones(count, dtype=torch.float64)
        elif tensor.ndim >= 2:
            value = (2 / (count / tensor.shape[0])) ** 0.5 * wave
        else:
            value = torch.ones(count, dtype=torch.float64) if name.endswith(".weight") else 0.01 * wave
        values[name] = value.reshape(tensor.shape)
    return values


def fill(module: nn.Module) -> nn.Module:
    """The module in float64 and evaluation mode, filled."""
    module.double().eval()
    module.load_state_dict(filled(module.state_dict()))
    return module


def summary(x: Tensor) -> dict[str, float]:
    """The statistics that golden values are given as."""
    flat = x.flatten()
    return {
        "mean": float(x.mean()),
        "std": float(x.std(correction=0)),
        "min": float(x.min()),
        "max": float(x.max()),
        "first": float(flat[0]),
        "middle": float(flat[len(flat) // 2]),
        "last": float(flat[-1]),
    }


def agrees(x: Tensor, **golden: float) -> None:
    """Fails where a statistic differs beyond the nine digits that are known."""
    found = summary(x)
    assert {name: found[name] for name in golden} == pytest.approx(golden, rel=2e-8, abs=1e-10)


def golden_images() -> Tensor:
    return torch.sin(0.01 * torch.arange(2 * 3 * 128 * 128, dtype=torch.float64)).view(2, 3, 128, 128)
