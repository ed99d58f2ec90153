"""The oracle itself: against the recurrence written out number by number, closed forms, and finite differences."""

import math

import pytest
import torch
from torch import Tensor

from vision.ops.cross_scan import cross_merge, cross_order, cross_scan, scan_orders
from vision.ops.selective_scan import reference
from vision.ops.selective_scan.reference import SCAN_CHUNK, all_states, chunk_states


def by_numbers(u, delta, A, B, C, D, z, bias, first, softplus):  # type: ignore[no-untyped-def]
    """The recurrence over Python floats."""
    batch, length, channels = u.shape
    states, per_group = A.shape[1], channels // B.shape[2]
    y, last = torch.zeros_like(u), torch.zeros(batch, channels, states, dtype=u.dtype)
    for n in range(batch):
        for d in range(channels):
            h = [first[n, d, s].item() for s in range(states)]
            for step in range(length):
                dt = delta[n, step, d].item() + bias[d].item()
                dt = math.log1p(math.exp(dt)) if softplus else dt
                out = D[d].item() * u[n, step, d].item()
                for s in range(states):
                    h[s] = math.exp(dt * A[d, s].item()) * h[s]
                    h[s] += dt * u[n, step, d].item() * B[n, step, d // per_group, s].item()
                    out += C[n, step, d // per_group, s].item() * h[s]
                gate = z[n, step, d].item()
                y[n, step, d] = out * gate / (1 + math.exp(-gate))
            last[n, d] = torch.tensor(h, dtype=u.dtype)
    return y, last


def problem(groups: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(groups)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    return {
        "u": normal(2, 5, 6), "delta": normal(2, 5, 6), "A": -normal(6, 3).exp(), "B": normal(2, 5, groups, 3),
        "C": normal(2, 5, groups, 3), "D": normal(6), "z": normal(2, 5, 6), "delta_bias": normal(6),
        "initial_state": normal(2, 6, 3),
    }  # fmt: skip


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("softplus", [True, False])
def test_it_is_the_recurrence_written_out(groups: int, softplus: bool) -> None:
    p = problem(groups)
    y, last = reference.selective_scan(**p, delta_softplus=softplus)
    expected_y, expected_last = by_numbers(*p.values(), softplus)
    torch.testing.assert_close(y, expected_y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(last, expected_last, rtol=1e-12, atol=1e-12)


def test_published_sequence() -> None:
    """h_l = a_l h_{l-1} + b_l for given a and b, through Delta = 1, A = log a read off channel by channel."""
    a, b = [0.5, 0.9, 0.1, 0.7, 0.99], [1.0, -2.0, 3.0, 0.5, 0.25]
    # with A = -1, Delta = -log a; and u B Delta = b
    delta = -torch.tensor(a, dtype=torch.float64).log().view(1, 5, 1)
    u = torch.tensor(b, dtype=torch.float64).view(1, 5, 1) / delta
    ones = torch.ones(1, 5, 1, 1, dtype=torch.float64)
    y, last = reference.selective_scan(u, delta, -torch.ones(1, 1, dtype=torch.float64), ones, ones)
    assert y.flatten().tolist() == pytest.approx([1, -1.1, 2.89, 2.523, 2.74777], abs=1e-12)
    assert last.item() == pytest.approx(2.74777, abs=1e-12)


def test_constant_input_has_a_geometric_series() -> None:
    length, decay = 40, math.exp(-0.3)
    ones = torch.ones(1, length, 1, dtype=torch.float64)
    shared = ones[..., None]
    y, _ = reference.selective_scan(ones, ones, torch.full((1, 1), -0.3, dtype=torch.float64), shared, shared)
    expected = [(1 - decay ** (step + 1)) / (1 - decay) for step in range(length)]
    assert y.flatten().tolist() == pytest.approx(expected, rel=1e-13)


def test_gradients_equal_finite_differences_to_second_order() -> None:
    p = {name: t.requires_grad_() for name, t in problem(2).items()}

    def outputs(*values: Tensor) -> tuple[Tensor, Tensor]:
        return reference.selective_scan(*values, delta_softplus=True)

    assert torch.autograd.gradcheck(outputs, tuple(p.values()))
    few = [t[:1, :2] if t.ndim > 2 and name != "initial_state" else t for name, t in p.items()]
    few[-1] = few[-1][:1]
    small = tuple(t.detach().requires_grad_() for t in few)
    assert torch.autograd.gradgradcheck(outputs, small)


def test_a_sequence_in_two_parts_is_the_whole() -> None:
    p = problem(2)
    whole_y, whole_last = reference.selective_scan(**p, delta_softplus=True)
    parts, state = [], p["initial_state"]
    for part in (slice(0, 2), slice(2, 5)):
        cut = {name: p[name][:, part] for name in ("u", "delta", "B", "C", "z")}
        y, state = reference.selective_scan(
            **cut, A=p["A"], D=p["D"], delta_bias=p["delta_bias"], initial_state=state, delta_softplus=True
        )
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole_y, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(state, whole_last, rtol=1e-13, atol=1e-13)


def test_constant_parameters_are_varying_ones_that_do_not_vary() -> None:
    p = problem(6)
    B, C = p["B"][0, 0], p["C"][0, 0]
    expected = reference.selective_scan(**p | {"B": B.expand(2, 5, 6, 3), "C": C.expand(2, 5, 6, 3)})
    torch.testing.assert_close(reference.selective_scan(**p | {"B": B, "C": C}), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_state_is_float32_for_narrow_inputs(dtype: torch.dtype) -> None:
    p = problem(2, dtype)
    y, last = reference.selective_scan(**p, delta_softplus=True)
    wide_y, wide_last = reference.selective_scan(**{n: t.float() for n, t in p.items()}, delta_softplus=True)
    assert (y.dtype, last.dtype) == (dtype, torch.float32)
    assert torch.equal(y, wide_y.to(dtype))
    assert torch.equal(last, wide_last)


@pytest.mark.parametrize("length", [1, SCAN_CHUNK, SCAN_CHUNK + 1, 3 * SCAN_CHUNK - 1])
def test_chunk_states_are_last_states_of_shorter_sequences(length: int) -> None:
    g = torch.Generator().manual_seed(length)
    u, delta, B, C = (torch.randn(1, length, *more, generator=g) for more in ((2,), (2,), (1, 3), (1, 3)))
    A, first = -torch.rand(2, 3, generator=g), torch.randn(1, 2, 3, generator=g)
    found = chunk_states(all_states(u, delta.exp(), A, B, initial_state=first))
    starts = list(range(0, length, SCAN_CHUNK))
    assert found.shape == (1, len(starts), 2, 3)
    for index, start in enumerate(starts):
        head = (t[:, :start] for t in (u, delta.exp()))
        _, last = reference.selective_scan(*head, A, B[:, :start], C[:, :start], initial_state=first)
        assert torch.equal(found[:, index], last)


def test_no_steps_leave_the_state_as_it_was() -> None:
    p = problem(2)
    none = {name: p[name][:, :0] for name in ("u", "delta", "B", "C", "z")}
    y, last = reference.selective_scan(**p | none)
    assert y.shape == (2, 0, 6)
    assert torch.equal(last, p["initial_state"])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (4, 1), (3, 4)])
def test_orders_are_the_four_walks(height: int, width: int) -> None:
    rows = [r * width + c for r in range(height) for c in range(width)]
    columns = [r * width + c for c in range(width) for r in range(height)]
    assert scan_orders(height, width).tolist() == [rows, columns, rows[::-1], columns[::-1]]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (3, 4)])
def test_scan_and_merge_follow_the_orders(height: int, width: int) -> None:
    x = torch.randn(2, height * width, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    orders = scan_orders(height, width)
    scanned = cross_scan(x, height, width)
    own = torch.stack([x, 2 * x, 3 * x, 4 * x], dim=2)
    for k, order in enumerate(orders):
        assert torch.equal(scanned[:, :, k], x[:, order])
        assert torch.equal(cross_order(own, height, width)[:, :, k], (k + 1) * x[:, order])
    y = torch.randn(scanned.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    merged = torch.zeros_like(x)
    for k, order in enumerate(orders):
        merged[:, order] += y[:, :, k]
    torch.testing.assert_close(cross_merge(y, height, width), merged, rtol=1e-14, atol=1e-14)
    # merge is the adjoint of scan: <scan(x), y> = <x, merge(y)>
    assert (scanned * y).sum().item() == pytest.approx((x * merged).sum().item(), rel=1e-12)


def test_ss2d_is_four_scans_of_permuted_positions() -> None:
    g = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    n, h, w, d, r, s = 2, 3, 4, 5, 2, 3
    x, dts, weight, bias = normal(n, h * w, d), normal(n, h * w, 4, r), normal(4, d, r), normal(4, d)
    A, B, C, D = -normal(4, d, s).exp(), normal(n, h * w, 4, s), normal(n, h * w, 4, s), normal(4, d)
    expected, before = torch.zeros_like(x), []
    for k, order in enumerate(scan_orders(h, w)):
        delta = dts[:, order, k] @ weight[k].T
        y, _ = reference.selective_scan(
            x[:, order], delta, A[k], B[:, order, k, None], C[:, order, k, None], D[k],
            delta_bias=bias[k], delta_softplus=True,
        )  # fmt: skip
        expected[:, order] += y
        before.append(torch.zeros(n, 1, d, s, dtype=torch.float64))
    found = reference.ss2d(x, dts, weight, bias, A, B, C, D, h, w)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    full = torch.einsum("nlkr,kdr->nlkd", dts, weight)
    torch.testing.assert_close(reference.ss2d(x, full, None, bias, A, B, C, D, h, w), expected, rtol=1e-12, atol=1e-12)
    states = reference.ss2d_chunk_states(x, dts, weight, bias, A, B, h, w)
    assert torch.equal(states, torch.stack(before, 1))
