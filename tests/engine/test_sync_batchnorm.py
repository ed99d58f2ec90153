"""BatchNorm over two processes against torch's own over the whole batch."""

import copy
from typing import Any

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from tests.engine.harness import CPU, same
from tests.engine.processes import NORMS, SPLITS, normalised
from vision.engine.sync_batchnorm import convert_batchnorm, whole_batch_norm


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("split", SPLITS)
def test_outputs_statistics_and_gradients_are_those_of_the_whole_batch(
    two: list[dict[str, Any]], name: str, split: str
) -> None:
    whole = normalised(name, (8,), CPU)
    parts = [each["normalised"][name, split] for each in two]
    assert parts[0].keys() == whole.keys()
    for key, expected in whole.items():
        if key[0] == "y" or key.startswith("dx"):
            found = torch.cat([part[key] for part in parts])
        elif key.startswith("d"):  # parameters see the loss of their own process; DDP adds them up
            found = parts[0][key] + parts[1][key]
        else:
            assert torch.equal(parts[0][key], parts[1][key])
            found = parts[0][key]
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9), key


def test_alone_a_converted_network_is_as_before() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), BatchNormAct2d(4))
    converted = convert_batchnorm(copy.deepcopy(plain))
    assert [type(m).__name__ for m in converted] == ["Conv2d", "SyncBatchNorm2d", "SyncBatchNormAct2d"]
    assert convert_batchnorm(converted) is converted and type(converted[1]).__mro__[1] is nn.BatchNorm2d  # once only
    x = torch.randn(5, 3, 2, 2)
    for _ in range(2):
        assert torch.equal(converted(x), plain(x))
    assert same(dict(converted.state_dict()), dict(plain.state_dict()))
    converted.eval(), plain.eval()
    assert torch.equal(copy.deepcopy(converted)(x), plain(x))


def test_out_of_training_the_running_statistics_count() -> None:
    x, mean, variance = torch.randn(4, 3), torch.randn(3), torch.rand(3)
    expected = nn.functional.batch_norm(x, mean, variance)
    assert torch.equal(whole_batch_norm(x, mean, variance), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_of_one_process(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """Statistics of half-precision inputs are taken in single precision, as torch does."""
    monkeypatch.setattr("vision.engine.sync_batchnorm.all_reduce", lambda tensor: tensor)
    x = (torch.randn(64, 3, 8, 8) + 5).to(dtype)
    weight, bias = torch.randn(3), torch.randn(3)
    running = [torch.zeros(3), torch.ones(3)]
    if dtype == torch.float64:
        weight, bias, *running = (t.double() for t in (weight, bias, *running))
    others = [t.clone() for t in running]
    found = whole_batch_norm(x, *running, weight, bias, True, 0.1)
    expected = nn.functional.batch_norm(x, *others, weight, bias, True, 0.1)
    assert found.dtype == expected.dtype == dtype
    assert torch.allclose(
        found, expected, atol={torch.float16: 4e-3, torch.bfloat16: 4e-2, torch.float64: 1e-12}[dtype]
    )
    assert all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(running, others, strict=True))
