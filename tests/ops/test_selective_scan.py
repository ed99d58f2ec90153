"""The front of the selective scan: a grid that covers every pair of settings, every kind of input, every mistake."""

import itertools
import logging
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vision.engine.errors import UserError
from vision.ops.selective_scan import (
    BackendError,
    ScanError,
    backend,
    backends,
    facts,
    force_backend,
    library,
    reference,
    selective_scan,
    selective_state_update,
)
from vision.ops.selective_scan.library import LIBRARY, Library

# ---- every pair of settings -------------------------------------------------------------------------------------------

SIZES = (1, 7, 196, 301, 768, 3072)
SETTINGS: dict[str, tuple[Any, ...]] = {
    "batch": SIZES,
    "channels": SIZES,
    "length": SIZES,
    "states": (1, 3, 8, 16),
    "groups": ("one", "some", "every channel"),
    "layout": ("bdl", "bld"),
    "dtype": (torch.float32, torch.float16, torch.bfloat16),
    "strides": ("contiguous", "permuted", "slices"),
    "softplus": (True, False),
    **{name: (True, False) for name in ("D", "z", "delta_bias", "initial_state")},
}
LARGEST = 9.6e6  # of batch * channels * length * states: every two of the largest sizes, with one of the rest
WITH_GRADIENTS = 2e6
TOLERANCE = {torch.float32: 1e-6, torch.float16: 5e-4, torch.bfloat16: 4e-3}


def every_pair(settings: dict[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Few cases in which each two values of two settings meet, none larger than ``LARGEST``."""
    draw = random.Random(0)
    names = list(settings)
    pairs = {
        ((a, x), (b, y))
        for (a, xs), (b, ys) in itertools.combinations(settings.items(), 2)
        for x, y in itertools.product(xs, ys)
    }
    cases = []
    while pairs:
        best: dict[str, Any] = {}
        gained: set[Any] = set()
        for _ in range(30):
            case = dict(draw.choice(sorted(pairs, key=repr)))
            for name in draw.sample(names, len(names)):
                if name not in case:
                    values = [v for v in settings[name] if size_of(case | {name: v}) <= LARGEST]
                    new = {v: sum(pair_of(name, v, n, w) in pairs for n, w in case.items()) for v in values}
                    case[name] = max(values, key=lambda v: (new[v], draw.random()))
            covered = {pair for pair in pairs if all(case[name] == value for name, value in pair)}
            if len(covered) > len(gained):
                best, gained = case, covered
        cases.append(best)
        pairs -= gained
    return cases


def pair_of(a: str, x: Any, b: str, y: Any) -> tuple[tuple[str, Any], tuple[str, Any]]:
    names = list(SETTINGS)
    return ((a, x), (b, y)) if names.index(a) < names.index(b) else ((b, y), (a, x))


def size_of(case: dict[str, Any]) -> int:
    sizes = [case.get(name, 1) for name in ("batch", "channels", "length", "states")]
    return sizes[0] * sizes[1] * sizes[2] * sizes[3]


def name_of(case: dict[str, Any]) -> str:
    flags = "".join(name[0] for name in ("D", "z", "delta_bias", "initial_state", "softplus") if case[name])
    words = [str(case[name]).removeprefix("torch.") for name in ("groups", "layout", "dtype", "strides")]
    return "-".join([*(str(case[n]) for n in ("batch", "channels", "length", "states")), *words, flags])


CASES = every_pair(SETTINGS)


def strided(t: Tensor, how: str) -> Tensor:
    """The same values with other strides: axes 1 and 2 swapped in memory, or a part of a wider tensor."""
    if how == "permuted":
        return t.transpose(1, 2).contiguous().transpose(1, 2)
    return torch.cat([t, t], dim=1)[:, : t.shape[1]] if how == "slices" else t


def inputs_of(case: dict[str, Any]) -> dict[str, Tensor | None]:
    """Arguments in the layout of the case."""
    make = torch.Generator().manual_seed(size_of(case) % 997)
    n, d, steps, s = (case[name] for name in ("batch", "channels", "length", "states"))
    groups = {"one": 1, "every channel": d, "some": next(g for g in (7, 4, 3, 1) if d % g == 0)}[case["groups"]]
    bdl = case["layout"] == "bdl"

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=make)

    def rows(t: Tensor) -> Tensor:
        return strided((t if bdl else t.transpose(1, 2).contiguous()).to(case["dtype"]), case["strides"])

    def shared() -> Tensor:
        t = normal(n, groups, s, steps)
        return strided((t if bdl else t.permute(0, 3, 1, 2).contiguous()).to(case["dtype"]), case["strides"])

    delta = normal(n, d, steps) if case["softplus"] else 0.1 + torch.rand(n, d, steps, generator=make)
    found = {
        "u": rows(normal(n, d, steps)),
        "delta": rows(delta),
        "A": -torch.rand(d, s, generator=make) - 0.02,
        "B": shared(),
        "C": shared(),
        "D": normal(d),
        "z": rows(normal(n, d, steps)),
        "delta_bias": normal(d) - 2 if case["softplus"] else 0.1 * torch.rand(d, generator=make),
        "initial_state": normal(n, d, s),
    }
    return {name: t if case.get(name, True) else None for name, t in found.items()}


def expected_of(inputs: dict[str, Tensor | None], case: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The float64 reference, in the layout of the case."""
    bdl = case["layout"] == "bdl"
    wide = {name: None if t is None else t.double() for name, t in inputs.items()}
    for name in ("u", "delta", "z"):
        t = wide[name]
        wide[name] = t.transpose(1, 2) if bdl and t is not None else t
    for name in ("B", "C"):
        t = wide[name]
        wide[name] = t.permute(0, 3, 1, 2) if bdl and t is not None else t
    y, last = reference.selective_scan(**wide, delta_softplus=case["softplus"])  # type: ignore[arg-type]
    return (y.transpose(1, 2) if bdl else y), last


def error_of(found: Tensor, expected: Tensor) -> float:
    """Relative, in the Euclidean norm."""
    return ((found.double() - expected).norm() / expected.norm().clamp_min(1e-30)).item()


def errors(case: dict[str, Any], path: str | None = None) -> dict[str, float]:
    """Of the outputs, and for cases of some size of every gradient, against the float64 reference."""
    inputs = inputs_of(case)
    graded = size_of(case) <= WITH_GRADIENTS
    there = {name: t.requires_grad_(graded) for name, t in inputs.items() if t is not None}
    y, last = selective_scan(
        **inputs,  # type: ignore[arg-type]
        delta_softplus=case["softplus"], return_last_state=True, layout=case["layout"], force_backend=path,
    )  # fmt: skip
    expected_y, expected_last = expected_of(inputs, case)
    found = {"y": error_of(y.detach(), expected_y.detach()), "last": error_of(last.detach(), expected_last.detach())}
    assert (y.dtype, y.shape, last.dtype) == (case["dtype"], inputs["u"].shape, torch.float32)  # type: ignore[union-attr]
    if graded:
        make = torch.Generator().manual_seed(1)
        given = [torch.randn(t.shape, generator=make).to(t.dtype) for t in (y, last)]
        gradients = torch.autograd.grad([y, last], list(there.values()), given)
        wide = torch.autograd.grad([expected_y, expected_last], list(there.values()), [g.double() for g in given])
        # autograd rounds the reference's gradient to the dtype of the input; that is within the tolerance
        found |= {name: error_of(g, w) for name, g, w in zip(there, gradients, wide, strict=True)}
    return found


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_every_pair_of_settings(case: dict[str, Any]) -> None:
    wrong = {name: value for name, value in errors(case).items() if not value < TOLERANCE[case["dtype"]]}
    if wrong:  # sums over a whole batch that nearly cancel: PyTorch's own float32 is no exacter by a digit
        own = errors(case, "reference")
        wrong = {
            name: (value, own[name])
            for name, value in wrong.items()
            if name not in ("A", "D", "delta_bias") or not value < 10 * own[name]
        }
    assert not wrong


def test_the_grid_covers_every_pair() -> None:
    met = {
        pair
        for case in CASES
        for pair in itertools.combinations([(name, case[name]) for name in SETTINGS], 2)
    }  # fmt: skip
    sizes = [len(values) for values in SETTINGS.values()]
    assert len(met) == sum(a * b for a, b in itertools.combinations(sizes, 2))


# ---- shapes of B and C, layouts, states -------------------------------------------------------------------------------


def small(dtype: torch.dtype = torch.float32, length: int = 9, groups: int = 2) -> dict[str, Tensor]:
    """Arguments with ``layout="bdl"`` and every optional one."""
    make = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=make)

    return {
        "u": normal(2, 6, length).to(dtype), "delta": normal(2, 6, length).to(dtype), "A": -normal(6, 3).exp(),
        "B": normal(2, groups, 3, length).to(dtype), "C": normal(2, groups, 3, length).to(dtype), "D": normal(6),
        "z": normal(2, 6, length).to(dtype), "delta_bias": normal(6), "initial_state": normal(2, 6, 3),
    }  # fmt: skip


def close(found: Tensor | tuple[Tensor, ...], expected: Tensor | tuple[Tensor, ...], tolerance: float = 2e-6) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance, check_stride=False)


PATHS = ["reference", *(["compiled"] if "cpu" in LIBRARY.devices else [])]


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    """Each path that runs here."""
    return str(request.param)


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
    next_state = (step * p["A"]).exp() * p["initial_state"].bfloat16().float() + step * p["u"][..., 0, None] * B[:, None]
    close(y, (next_state * C[:, None]).sum(-1), 1e-5)
    assert torch.equal(state, next_state.bfloat16())


@pytest.mark.parametrize("empty", ["length", "batch"])
def test_nothing_to_scan(path: str, empty: str) -> None:
    p = small()
    cut = {name: t[..., :0] if empty == "length" else t[:0] for name, t in p.items() if name in ("u", "delta", "B", "C", "z")}
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
    case = {"layout": "bdl", "softplus": True}
    expected = expected_of(p, case)  # type: ignore[arg-type]
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
    expected, _ = expected_of(p, {"layout": "bdl", "softplus": True})  # type: ignore[arg-type]
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
    _, expected = expected_of(p, {"layout": "bdl", "softplus": True})  # type: ignore[arg-type]
    used = [p[name] for name in ("u", "delta", "A", "B", "delta_bias", "initial_state")]
    given = torch.randn(last.shape, generator=torch.Generator().manual_seed(0))
    found = torch.autograd.grad(last, used, given)
    wanted = torch.autograd.grad(expected, used, given.double())
    assert max(error_of(g, w.double()) for g, w in zip(found, wanted, strict=True)) < 1e-6


# ---- mistakes -----------------------------------------------------------------------------------------------------------


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


# ---- which path runs ----------------------------------------------------------------------------------------------------


def test_the_path_is_told_and_chosen() -> None:
    with force_backend("reference"):
        assert backend() == "reference"
        with force_backend(None):
            assert backend() == automatic()
        assert backend() == "reference"
    assert backend() == automatic()


def automatic() -> str:
    return f"cpu-{library.cpu_isa()}" if "cpu" in LIBRARY.devices else "reference"


def test_a_choice_outside_of_a_block_stays_until_the_next() -> None:
    try:
        force_backend("reference")
        assert backend() == "reference"
    finally:
        force_backend(None)
    assert backend() == automatic()


def test_the_choice_of_a_call_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(reference, "selective_scan", lambda *a: taken.append("reference") or (torch.ones(1, 1, 1), None))
    one = torch.ones(1, 1, 1)
    selective_scan(one, one, torch.ones(1, 1), one, one, force_backend="reference")
    assert taken == ["reference"]
    with force_backend("reference"):
        selective_scan(one, one, torch.ones(1, 1), one, one)
    assert taken == ["reference"] * 2


@pytest.mark.parametrize("wish", ["compilde", "cpu-sse9", "triton"])
def test_an_unknown_path_is_refused(wish: str) -> None:
    with pytest.raises(BackendError, match="expected one of"):
        force_backend(wish)
    one = torch.ones(1, 1, 1)
    with pytest.raises(BackendError, match="expected one of"):
        selective_scan(one, one, torch.ones(1, 1), one, one, force_backend=wish)
    assert backend() == automatic()


@pytest.mark.skipif("cpu" not in LIBRARY.devices, reason="no compiled kernels")
def test_an_instruction_set_is_chosen_and_given_back() -> None:
    before = backend()
    with force_backend("cpu-baseline"):
        assert backend() == "cpu-baseline"
        close(*(selective_scan(**small(), delta_softplus=True, force_backend=p) for p in (None, "reference")))  # type: ignore[arg-type,misc]
    assert backend() == before


def without(monkeypatch: pytest.MonkeyPatch, found: Library) -> None:
    monkeypatch.setattr(backends, "LIBRARY", found)
    monkeypatch.setattr(backends, "_said", set())


def test_without_kernels_the_reference_runs_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "_build.json").write_text('{"asked": "auto", "built": "none", "reason": "there is no C++ compiler"}')
    without(monkeypatch, library.load(tmp_path))
    one = torch.ones(1, 1, 1)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            selective_scan(one, one, torch.ones(1, 1), one, one)
    assert len(caplog.records) == 1
    said = caplog.records[0].getMessage()
    assert "reference runs" in said
    assert "there is no C++ compiler" in said
    assert library.BUILD in said
    assert backend() == "reference"
    with pytest.raises(BackendError, match="not built"):
        selective_scan(one, one, torch.ones(1, 1), one, one, force_backend="compiled")
    with pytest.raises(BackendError, match="not built"):
        force_backend("cpu-avx2")
    told = facts()
    assert (told["cpu"], told["cuda"], told["library"]) == ("reference", "reference", None)
    assert "not built" in told["reason"]
    assert library.BUILD in told["fix"]


def test_a_library_for_another_platform_is_an_error_until_the_reference_is_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "_kernels.abi3.so").write_bytes(b"MZ" + bytes(4096))
    found = library.load(tmp_path)
    assert found.broken
    without(monkeypatch, found)
    one = torch.ones(1, 1, 1)
    with pytest.raises(BackendError, match=r"_kernels.abi3.so cannot be loaded: it was built for another platform"):
        selective_scan(one, one, torch.ones(1, 1), one, one)
    y = selective_scan(one, one, torch.ones(1, 1), one, one, force_backend="reference")
    assert isinstance(y, Tensor) and y.item() == 1
    told = facts()
    assert (told["cpu"], told["library"]) == ("none", str(tmp_path / "_kernels.abi3.so"))
    assert "another platform" in told["reason"]
    assert library.BUILD in told["fix"]


@pytest.mark.parametrize(
    ("raised", "explained"),
    [
        ("/x/_kernels.so: invalid ELF header", "built for another platform"),
        ("/x/_kernels.so: wrong ELF class: ELFCLASS32", "built for another platform"),
        ("/x/_kernels.so: cannot open shared object file: No such file or directory", "built for another platform"),
        ("dlopen(/x/_kernels.so): mach-o file, but is an incompatible architecture", "built for another platform"),
        ("libstdc++.so.6: cannot open shared object file: No such file", "a library it needs is missing"),
        ("/lib/libc.so.6: version `GLIBC_2.38' not found", "built on a newer system"),
        ("/x/_kernels.so: undefined symbol: torch_call_dispatcher", "does not fit torch"),
    ],
)
def test_why_a_library_does_not_load_is_explained(raised: str, explained: str) -> None:
    assert explained in library.explain(OSError(raised), Path("/x/_kernels.so"))


@pytest.mark.skipif(not LIBRARY.loaded or sys.platform != "linux", reason="no compiled kernels to change")
def test_our_library_for_another_processor(tmp_path: Path) -> None:
    assert LIBRARY.path is not None
    content = bytearray(LIBRARY.path.read_bytes())
    content[18:20] = (0xF3).to_bytes(2, "little")  # the machine that an ELF file is for: RISC-V
    (tmp_path / "_kernels.abi3.so").write_bytes(content)
    assert "built for another platform" in library.load(tmp_path).reason


@pytest.mark.skipif(not LIBRARY.loaded, reason="no compiled kernels")
def test_a_library_of_another_version_is_told_from_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(library.SCHEMAS, "ss2d", "(Tensor x, int new) -> Tensor y")
    found = library.load()
    assert found.broken
    assert "another version" in found.reason
    assert "ss2d" in found.reason


@pytest.mark.skipif("cuda" not in LIBRARY.devices, reason="no compiled CUDA kernels")
def test_more_states_than_the_cuda_kernels_take_go_to_the_reference(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backends, "_said", set())
    assert backend("cuda", states=256) == "cuda"
    with caplog.at_level(logging.WARNING):
        assert backend("cuda", states=257) == "reference"
        assert backend("cuda", states=257) == "reference"
    assert [record.getMessage().count("257 states") for record in caplog.records] == [1]


def test_a_device_without_kernels_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(backends, "_said", set())
    without_cuda = Library(LIBRARY.path, ("cpu",), left_out="no CUDA toolkit")
    monkeypatch.setattr(backends, "LIBRARY", without_cuda)
    with caplog.at_level(logging.WARNING):
        assert backend("cuda") == "reference"
    assert "no kernels for cuda (no CUDA toolkit)" in caplog.text
    assert "TRIPTYCH_BUILD=cuda" in caplog.text
    assert "no CUDA toolkit" in facts()["cuda_reason"]


def names(values: Sequence[str]) -> set[str]:
    return set(values)


def test_facts_are_plain_and_complete() -> None:
    told = facts()
    assert names(list(told)) == {"cpu", "cuda", "library", "reason", "fix", "cuda_reason", "mamba"}
    assert told["cpu"] == automatic()
    assert bool(told["reason"]) == bool(told["fix"]) == (not LIBRARY.loaded)
