"""The front of the four-direction scan: fused or over copies, every path against the reference, every mistake."""

from typing import Any

import pytest
import torch
from torch import Tensor

from vision.ops.selective_scan import BackendError, ScanError, force_backend, reference, ss2d
from vision.ops.selective_scan.library import LIBRARY

WAYS: list[dict[str, Any]] = [{"force_backend": "reference"}]
if "cpu" in LIBRARY.devices:
    WAYS += [{"fused": True}, {"fused": False}]
TOLERANCE = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}  # copies are rounded once a direction

SHAPES = [(2, 7, 9, 16, 1, 3), (1, 14, 5, 33, 3, 1), (3, 1, 70, 8, 16, 6), (2, 12, 12, 24, 8, 2)]

Inputs = dict[str, Any]


def image(
    batch: int, height: int, width: int, channels: int, states: int, rank: int, dtype: torch.dtype = torch.float32
) -> Inputs:
    make = torch.Generator().manual_seed(height * 31 + width)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=make)

    length = height * width
    return {
        "x": normal(batch, length, channels).to(dtype), "dts": normal(batch, length, 4, rank).to(dtype),
        "dt_weight": normal(4, channels, rank) / rank**0.5, "dt_bias": normal(4, channels) - 2,
        "A": -torch.rand(4, channels, states, generator=make) - 0.02,
        "B": normal(batch, length, 4, states).to(dtype), "C": normal(batch, length, 4, states).to(dtype),
        "D": normal(4, channels), "height": height, "width": width,
    }  # fmt: skip


def wide(p: Inputs) -> Inputs:
    return {name: t.detach().double().requires_grad_() if isinstance(t, Tensor) else t for name, t in p.items()}


def error_of(found: Tensor, expected: Tensor) -> float:
    return ((found.double() - expected).norm() / expected.norm().clamp_min(1e-30)).item()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_outputs_and_gradients(way: dict[str, Any], shape: tuple[int, ...], dtype: torch.dtype) -> None:
    p = image(*shape, dtype=dtype)  # type: ignore[misc]
    tensors = [t.requires_grad_() for t in p.values() if isinstance(t, Tensor)]
    y = ss2d(**p, **way)
    exact = wide(p)
    expected = reference.ss2d(**exact)
    assert (y.dtype, y.shape) == (dtype, p["x"].shape)
    assert error_of(y.detach(), expected.detach()) < TOLERANCE[dtype]
    given = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = torch.autograd.grad(y, tensors, given)
    wanted = torch.autograd.grad(expected, [t for t in exact.values() if isinstance(t, Tensor)], given.double())
    wrong = {
        name: error_of(g, w)
        for name, g, w in zip(p, found, wanted, strict=False)
        if not error_of(g, w) < 2 * TOLERANCE[dtype]
    }
    assert not wrong


@pytest.mark.parametrize("way", [way for way in WAYS if not way.get("fused")], ids=str)
def test_step_sizes_of_full_rank(way: dict[str, Any]) -> None:
    p = image(2, 5, 6, 8, 2, 8)
    full = torch.einsum("nlkr,kdr->nlkd", p["dts"], p["dt_weight"])
    expected = reference.ss2d(**wide(p))
    assert error_of(ss2d(**p | {"dts": full, "dt_weight": None}, **way), expected.detach()) < 1e-6


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_bias_and_skip_may_be_absent(way: dict[str, Any]) -> None:
    p = image(2, 5, 6, 8, 2, 3)
    zero = torch.zeros(4, 8)
    expected = ss2d(**p | {"dt_bias": zero, "D": zero}, **way)
    torch.testing.assert_close(ss2d(**p | {"dt_bias": None, "D": None}, **way), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_inputs_are_read_with_any_strides(way: dict[str, Any]) -> None:
    p = image(2, 5, 6, 8, 2, 3)
    expected = ss2d(**p, **way)
    projected = torch.cat([p["dts"], p["B"], p["C"]], dim=-1)
    dts, B, C = projected.split([3, 2, 2], dim=-1)
    x = p["x"].transpose(1, 2).contiguous().transpose(1, 2)
    A = p["A"].transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(ss2d(**p | {"x": x, "dts": dts, "B": B, "C": C, "A": A}, **way), expected)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_turning_the_image_swaps_the_directions(way: dict[str, Any]) -> None:
    """The transposed image, with rows' parameters for columns and back, gives the transposed result."""
    p = image(2, 4, 7, 8, 2, 3)
    swap = [1, 0, 3, 2]

    def turned(t: Tensor) -> Tensor:
        return t.unflatten(1, (4, 7)).transpose(1, 2).flatten(1, 2)

    q = {name: p[name][swap] for name in ("dt_weight", "dt_bias", "A", "D")}
    q |= {name: turned(p[name][:, :, swap]) for name in ("dts", "B", "C")}
    y = ss2d(turned(p["x"]), **q, height=7, width=4, **way)
    torch.testing.assert_close(y, turned(ss2d(**p, **way)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_one_pixel_and_none(way: dict[str, Any]) -> None:
    """One pixel is visited four times from a state of zero: a product of its own numbers."""
    p = image(2, 1, 1, 8, 2, 3)
    step = torch.nn.functional.softplus(torch.einsum("nlkr,kdr->nlkd", p["dts"], p["dt_weight"]) + p["dt_bias"])
    seen = step * (p["B"] * p["C"]).sum(-1, keepdim=True) + p["D"]
    torch.testing.assert_close(ss2d(**p, **way), p["x"] * seen.sum(2), rtol=1e-5, atol=1e-5)
    none = p | {name: p[name][:, :0] for name in ("x", "dts", "B", "C")} | {"height": 0}
    assert ss2d(**none, **way).shape == (2, 0, 8)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_empty_batch_and_float64(way: dict[str, Any]) -> None:
    p = image(2, 5, 6, 8, 2, 3)
    none = p | {name: p[name][:0] for name in ("x", "dts", "B", "C")}
    assert ss2d(**none, **way).shape == (0, 30, 8)
    exact = wide(p)
    assert error_of(ss2d(**exact).detach(), reference.ss2d(**exact).detach()) < 1e-15


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_autocast_leaves_the_step_sizes_in_float32(way: dict[str, Any]) -> None:
    p = image(2, 5, 6, 8, 2, 3)
    expected = ss2d(**p, **way)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ss2d(**p, **way), expected)
        mixed = ss2d(**p | {"B": p["B"].bfloat16()}, **way)
    assert torch.equal(mixed, ss2d(**p | {"B": p["B"].bfloat16().float()}, **way))


MISTAKES: list[tuple[dict[str, Any], list[str]]] = [
    ({"height": 6}, ["x has 30 positions, expected height * width = 6 * 6"]),
    ({"x": torch.ones(2, 8, 5, 6)}, ["x has shape [2, 8, 5, 6], expected [N, L, D]"]),
    ({"dts": torch.ones(2, 30, 4, 2)}, ["dts has shape [2, 30, 4, 2], expected [2, 30, 4, 3]"]),
    ({"dt_weight": None}, ["dts has shape [2, 30, 4, 3], expected [2, 30, 4, 8]"]),
    ({"A": torch.ones(32, 2)}, ["A has shape [32, 2], expected [4, 8, S]"]),
    (
        {"D": torch.ones(32), "C": torch.ones(2, 4, 2, 30)},
        ["D has shape [32], expected [4, 8]", "C has shape [2, 4, 2, 30]"],
    ),
    ({"x": torch.ones(2, 30, 8).half()}, ["dts has dtype float32, expected float16", "B has dtype float32"]),
    ({"dt_bias": torch.ones(4, 8).double()}, ["dt_bias has dtype float64, expected float32"]),
    ({"B": torch.ones(2, 30, 4, 2, device="meta")}, ["B is on meta, expected cpu"]),
    ({"dt_weight": torch.ones(4, 8, 0), "dts": torch.ones(2, 30, 4, 0)}, ["dt_weight has rank 0"]),
]


@pytest.mark.parametrize(("change", "named"), MISTAKES, ids=[words[0][:40] for _, words in MISTAKES])
def test_every_mistake_is_named_in_one_message(change: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(ScanError) as caught:
        ss2d(**image(2, 5, 6, 8, 2, 3) | change)
    assert str(caught.value).startswith("ss2d: ")
    assert [words for words in named if words not in str(caught.value)] == []


@pytest.mark.skipif("cpu" not in LIBRARY.devices, reason="no compiled kernels")
def test_what_cannot_be_fused_is_refused_when_asked_for() -> None:
    p = image(2, 5, 6, 8, 2, 3)
    full = p | {"dts": torch.ones(2, 30, 4, 8), "dt_weight": None}
    with pytest.raises(BackendError, match="not of low rank"):
        ss2d(**full, fused=True)
    with force_backend("compiled"):
        assert ss2d(**full).shape == (2, 30, 8)
