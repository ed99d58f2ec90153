"""The front of the selective scan over a grid of settings in which every two values of two settings meet."""

import itertools
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.ops.problems import TOLERANCE, error_of, expected_of
from vision.ops.selective_scan import selective_scan

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
    **dict.fromkeys(("D", "z", "delta_bias", "initial_state"), (True, False)),
}
LARGEST = 9.6e6  # of batch * channels * length * states: every two of the largest sizes, with one of the rest
WITH_GRADIENTS = 2e6


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


def errors(case: dict[str, Any], path: str | None = None) -> dict[str, float]:
    """Of the outputs, and for cases of some size of every gradient, against the float64 reference."""
    inputs = inputs_of(case)
    graded = size_of(case) <= WITH_GRADIENTS
    there = {name: t.requires_grad_(graded) for name, t in inputs.items() if t is not None}
    y, last = selective_scan(
        **inputs,  # type: ignore[arg-type]
        delta_softplus=case["softplus"], return_last_state=True, layout=case["layout"], force_backend=path,
    )  # fmt: skip
    expected_y, expected_last = expected_of(inputs, case["layout"], case["softplus"])
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
