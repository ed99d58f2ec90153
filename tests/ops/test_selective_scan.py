"""The front of the selective scan: shapes, layouts, states, every kind of input, every mistake."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.ops.problems import TOLERANCE, close, error_of, expected_of, small
from vision.engine.errors import UserError
from vision.ops.selective_scan import ScanError, backend, selective_scan, selective_state_update


def test_layouts_are_each_other_transposed(path: str) -> None:
    p = small()
    y, last = selective_scan(**p, delta_softplus=True, return_last_state=True, force_backend=path)  # type: ignore[arg-type]
    turned = p | {name: p[name].transpose(1, 2) for name in ("u", "delta", "z")}
    turned |= {name: p[name].permute(0, 3, 1, 2) for name in ("B", "C")}
    found = selective_scan(
        **turned, delta_softplus=True, return_last_state=True, layout="bld", force_backend=path  # type: ignore[arg-type]
    )  # fmt: skip
    close(found[0].transpose(1, 2), y)
    close(found[1], last)


@pytest.mark.parametrize("layout", ["bdl", "bld"])
def test_one_group_needs_no_axis(path: str, layout: str) -> None:
    p = small(groups=1)
    if layout == "bld":
        p |= {name: p[name].transpose(1, 2) for name in ("u", "delta", "z")}
        p |= {name: p[name].permute(0, 3, 1, 2) for name in ("B", "C")}
    axis = 1 if layout == "bdl" else 2
    bare = p | {name: p[name].squeeze(axis) for name in ("B", "C")}
    assert torch.equal(
        selective_scan(**bare, layout=layout, force_backend=path),  # type: ignore[arg-type]
        selective_scan(**p, layout=layout, force_backend=path),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("constant", ["B", "C", "BC"])
def test_parameters_that_do_not_vary(path: str, constant: str, dtype: torch.dtype) -> None:
    p = small(dtype)
    p |= {name: torch.randn(6, 3, generator=torch.Generator().manual_seed(5)) for name in constant}
    p = {name: t.requires_grad_() for name, t in p.items()}
    expected_p = {name: t.detach().double().requires_grad_() for name, t in p.items()}
    varying = {
        name: t[None, ..., None].expand(2, 6, 3, 9) if t.ndim == 2 else t.repeat_interleave(3, dim=1)
        for name, t in expected_p.items() if name in "BC"
    }  # fmt: skip
    y = selective_scan(**p, delta_softplus=True, force_backend=path)  # type: ignore[arg-type]
    expected = selective_scan(**expected_p | varying, delta_softplus=True)  # type: ignore[arg-type]
    assert isinstance(y, Tensor) and isinstance(expected, Tensor)
    assert y.dtype == dtype
    tolerance = TOLERANCE[dtype]
    assert error_of(y.detach(), expected.detach()) < tolerance
    found = torch.autograd.grad(y.sum(), list(p.values()))
    wanted = torch.autograd.grad(expected.sum(), list(expected_p.values()))
    assert max(error_of(g, w) for g, w in zip(found, wanted, strict=True)) < tolerance


def test_a_state_carries_a_sequence_on(path: str) -> None:
    p = small(length=150)
    whole, last = selective_scan(**p, delta_softplus=True, return_last_state=True, force_backend=path)  # type: ignore[arg-type]
    parts, state = [], p["initial_state"]
    for cut in (slice(0, 70), slice(70, 71), slice(71, 150)):
        part = p | {name: p[name][..., cut] for name in ("u", "delta", "B", "C", "z")} | {"initial_state": state}
        y, state = selective_scan(**part, delta_softplus=True, return_last_state=True, force_backend=path)  # type: ignore[arg-type]
        parts.append(y)
    close(torch.cat(parts, -1), whole)
    close(state, last)


def test_steps_one_by_one_are_the_scan(path: str) -> None:
    p = small()
    expected, last = selective_scan(**p, delta_softplus=True, return_last_state=True, force_backend=path)  # type: ignore[arg-type]
    state, found = p["initial_state"].clone(), []
    for step in range(9):
        x, dt, z = (p[name][..., step] for name in ("u", "delta", "z"))
        B, C = (p[name][..., step] for name in ("B", "C"))
        found.append(
            selective_state_update(state, x, dt, p["A"], B, C, p["D"], z, p["delta_bias"], True, force_backend=path)
        )
    close(torch.stack(found, -1), expected)
    close(state, last)


def test_a_step_without_optional_arguments_and_with_a_narrow_state() -> None:
    p = small()
    state = p["initial_state"].to(torch.bfloat16)
    B, C = p["B"][:, 0, :, 0], p["C"][:, 0, :, 0]
    y = selective_state_update(state, p["u"][..., 0], p["delta"][..., 0], p["A"], B, C)
    step = p["delta"][..., 0, None]
    next_state = (step * p["A"]).exp() * p["initial_state"].bfloat16().float()
    next_state += step * p["u"][..., 0, None] * B[:, None]
    close(y, (next_state * C[:, None]).sum(-1), 1e-5)
    assert torch.equal(state, next_state.bfloat16())


@pytest.mark.parametrize("empty", ["length", "batch"])
def test_nothing_to_scan(path: str, empty: str) -> None:
    p = small()
    cut = {name: p[name][..., :0] if empty == "length" else p[name][:0] for name in ("u", "delta", "B", "C", "z")}
    if empty == "batch":
        cut["initial_state"] = p["initial_state"][:0]
    p = {name: t.requires_grad_() for name, t in (p | cut).items()}
    y, last = selective_scan(**p, return_last_state=True, force_backend=path)  # type: ignore[arg-type]
    assert y.shape == p["u"].shape
    assert torch.equal(last, p["initial_state"])
    gradient = torch.autograd.grad(y.sum() + last.sum(), p["initial_state"])[0]
    assert torch.equal(gradient, torch.ones_like(gradient))


def test_one_step_is_a_product(path: str) -> None:
    one = torch.ones(1, 1, 1)
    y = selective_scan(3 * one, 0.5 * one, torch.tensor([[-1.0]]), 2 * one, 7 * one, force_backend=path)
    assert isinstance(y, Tensor)
    assert y.item() == 3 * 0.5 * 2 * 7


def test_not_a_number_stays_in_its_channel_from_its_step_on(path: str) -> None:
    p = small()
    p["delta"][1, 4, 5] = torch.nan
    y = selective_scan(**p, delta_softplus=True, force_backend=path)  # type: ignore[arg-type]
    assert isinstance(y, Tensor)
    expected = torch.zeros_like(y, dtype=torch.bool)
    expected[1, 4, 5:] = True
    assert torch.equal(y.isnan(), expected)


def test_float64_is_computed_in_float64() -> None:
    p = {name: t.double() for name, t in small().items()}
    y, last = selective_scan(**p, delta_softplus=True, return_last_state=True)  # type: ignore[arg-type]
    expected = expected_of(p)
    assert (y.dtype, last.dtype, backend("cpu", torch.float64)) == (torch.float64, torch.float64, "reference")
    assert error_of(y, expected[0]) < 1e-15
    assert torch.autograd.gradcheck(
        lambda *t: selective_scan(*t[:-1], delta_softplus=True, return_last_state=True, initial_state=t[-1]),
        [t[..., :4].contiguous().requires_grad_() if t.shape[-1] == 9 else t.requires_grad_() for t in p.values()],
        fast_mode=True,
    )


def test_parameters_in_half_precision_are_widened(path: str) -> None:
    p = small()
    narrow = p | {name: p[name].bfloat16() for name in ("A", "D", "delta_bias", "initial_state")}
    wide = {name: t.float() for name, t in narrow.items()}
    found, expected = (selective_scan(**q, delta_softplus=True, force_backend=path) for q in (narrow, wide))  # type: ignore[arg-type]
    assert torch.equal(found, expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(("mixed", "dtype"), [(False, torch.bfloat16), (True, torch.float32)])
def test_autocast_takes_what_comes_and_widens_a_mixture(path: str, mixed: bool, dtype: torch.dtype) -> None:
    p = small(torch.bfloat16)
    if mixed:
        p["delta"] = p["delta"].float()
        with pytest.raises(ScanError, match="delta has dtype float32, expected bfloat16"):
            selective_scan(**p)  # type: ignore[arg-type]
    with torch.autocast("cpu", torch.bfloat16):
        y = selective_scan(**p, delta_softplus=True, force_backend=path)  # type: ignore[arg-type]
    assert isinstance(y, Tensor)
    assert y.dtype == dtype
    expected, _ = expected_of(p)  # type: ignore[arg-type]
    assert error_of(y, expected) < TOLERANCE[dtype]


def test_gradients_reach_only_what_asks_for_them(path: str) -> None:
    p = small()
    p["A"].requires_grad_()
    y = selective_scan(**p, delta_softplus=True, force_backend=path)  # type: ignore[arg-type]
    assert isinstance(y, Tensor)
    y.sum().backward()
    assert p["A"].grad is not None
    assert all(t.grad is None for name, t in p.items() if name != "A")


def test_gradient_through_the_last_state_alone(path: str) -> None:
    p = {name: t.requires_grad_() for name, t in small(length=80).items()}
    _, last = selective_scan(**p, delta_softplus=True, return_last_state=True, force_backend=path)  # type: ignore[arg-type]
    _, expected = expected_of(p)  # type: ignore[arg-type]
    used = [p[name] for name in ("u", "delta", "A", "B", "delta_bias", "initial_state")]
    given = torch.randn(last.shape, generator=torch.Generator().manual_seed(0))
    found = torch.autograd.grad(last, used, given)
    wanted = torch.autograd.grad(expected, used, given.double())
    assert max(error_of(g, w.double()) for g, w in zip(found, wanted, strict=True)) < 1e-6


# ---- mistakes -------------------------------------------------------------------------------------------------------


def ones(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(*shape, dtype=dtype)


MISTAKES: list[tuple[dict[str, Any], list[str]]] = [
    ({"delta": ones(2, 6, 8)}, ["delta has shape [2, 6, 8], expected [2, 6, 9]"]),
    ({"u": ones(6, 9)}, ["u has shape [6, 9], expected [N, D, L]"]),
    ({"A": ones(5, 3)}, ["A has shape [5, 3], expected [6, S]"]),
    ({"A": ones(6, 0)}, ["A has no states"]),
    ({"B": ones(2, 4, 3, 9), "C": ones(2, 4, 3, 9)}, ["B has 4 groups, which do not divide the 6 channels"]),
    ({"B": ones(2, 3, 3, 9)}, ["B has 3 groups, C has 2; both need the same"]),
    ({"B": ones(2, 9, 3)}, ["B has shape [2, 9, 3], expected [2, 3, 9] or [2, G, 3, 9] or [6, 3]"]),
    ({"D": ones(1)}, ["D has shape [1], expected [6]"]),
    ({"delta_bias": ones(6, 1)}, ["delta_bias has shape [6, 1], expected [6]"]),
    ({"initial_state": ones(2, 3, 6)}, ["initial_state has shape [2, 3, 6], expected [2, 6, 3]"]),
    ({"u": ones(2, 6, 9, dtype=torch.int64)}, ["u has dtype int64, expected one of float32, float16"]),
    ({"z": ones(2, 6, 9, dtype=torch.float16)}, ["z has dtype float16, expected float32, that of u"]),
    ({"A": ones(6, 3, dtype=torch.complex64)}, ["A has dtype complex64", "complex states are not supported"]),
    ({"A": ones(6, 3, dtype=torch.float64)}, ["A has dtype float64, expected float32"]),
    ({"B": ones(2, 2, 3, 9).to("meta")}, ["B is on meta, expected cpu, where u is"]),
    ({"D": [1.0] * 6}, ["D is a list, expected a tensor"]),
    ({"layout": "bdk"}, ["layout is 'bdk', expected 'bdl' or 'bld' (did you mean"]),
    (
        {"delta": ones(1, 6, 9), "z": ones(2, 6, 1), "D": ones(6, dtype=torch.int32), "C": ones(2, 2, 4, 9).to("meta")},
        ["delta has shape", "z has shape", "C has shape", "D has dtype int32", "C is on meta"],
    ),
]


@pytest.mark.parametrize(("change", "named"), MISTAKES, ids=[words[0][:40] for _, words in MISTAKES])
def test_every_mistake_is_named_in_one_message(change: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(ScanError) as caught:
        selective_scan(**small() | change)
    message = str(caught.value)
    assert message.startswith("selective_scan: ")
    assert "\n" not in message
    assert [words for words in named if words not in message] == []
    assert isinstance(caught.value, UserError) and isinstance(caught.value, ValueError)


def test_mistakes_in_a_step_are_named_in_one_message() -> None:
    p = small()
    with pytest.raises(ScanError) as caught:
        selective_state_update(
            p["initial_state"][:1], p["u"][..., 0], p["delta"][..., 0].double(), p["A"], p["B"][:, :1, :, 0],
            p["C"][..., 0], D=torch.ones(2),
        )  # fmt: skip
    expected = [
        "selective_state_update: state has shape [1, 6, 3], expected [2, 6, 3]",
        "D has shape [2], expected [6]", "dt has dtype float64", "B has 1 groups, C has 2",
    ]  # fmt: skip
    assert [words for words in expected if words not in str(caught.value)] == []
