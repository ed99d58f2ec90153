"""The compiled CPU operators against the float64 reference: every instruction set, layout and gradient."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from vision.ops.selective_scan import reference
from vision.ops.selective_scan.library import LIBRARY

pytestmark = pytest.mark.skipif("cpu" not in LIBRARY.devices, reason=f"no compiled kernels: {LIBRARY.reason}")

TOLERANCE = 1e-6
ISAS = ("baseline", "avx2", "avx512")
SCAN_INPUTS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
IMAGE_INPUTS = ("x", "dts", "dt_weight", "dt_bias", "A", "B", "C", "D")


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set in turn, where the processor has it."""
    before = torch.ops.triptych.cpu_isa()
    try:
        torch.ops.triptych.set_cpu_isa(request.param)
    except RuntimeError as error:
        pytest.skip(str(error).splitlines()[0])
    yield request.param
    torch.ops.triptych.set_cpu_isa(before)


def _error(found: Tensor, expected: Tensor) -> float:
    norm = expected.norm().item()
    return (found.double() - expected.double()).norm().item() / (norm if norm > 0 else 1.0)


def _scan_inputs(
    shape: tuple[int, int, int, int, int],
    layout: str = "bld",
    dtype: torch.dtype = torch.float32,
    optional: bool = True,
    slow: bool = False,
    seed: int = 0,
) -> dict[str, Tensor | None]:
    """Random inputs; slow decays keep a state alive over many chunks, so that a stale one is seen."""
    n, steps, channels, states, groups = shape
    make = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=make)

    def rows(shift: float = 0.0) -> Tensor:
        if layout == "bld":
            return (normal(n, steps, channels) + shift).to(dtype)
        return (normal(n, channels, steps) + shift).to(dtype).transpose(1, 2)

    inputs: dict[str, Tensor | None] = {
        "u": rows(),
        "delta": rows(-5.0 if slow else -1.0),
        "A": -torch.exp(normal(channels, states) - (2.0 if slow else 0.0)),
        "B": normal(n, steps, groups, states).to(dtype),
        "C": normal(n, steps, groups, states).to(dtype),
        "D": normal(channels),
        "z": rows(),
        "delta_bias": 0.3 * normal(channels),
        "initial_state": normal(n, channels, states),
    }
    if not optional:
        inputs |= dict.fromkeys(("D", "z", "delta_bias", "initial_state"))
    return inputs


def _check_scan(inputs: dict[str, Tensor | None], softplus: bool = True, tolerance: float = TOLERANCE) -> None:
    """Outputs, saved states and every gradient, with gradients for both outputs."""
    exact = {name: None if t is None else t.double().requires_grad_() for name, t in inputs.items()}
    y, last = reference.selective_scan(**exact, delta_softplus=softplus)
    make = torch.Generator().manual_seed(99)
    grad_y = torch.randn(y.shape, generator=make).to(inputs["u"].dtype)
    grad_last = torch.randn(last.shape, generator=make)
    present = [name for name in SCAN_INPUTS if inputs[name] is not None]
    expected = torch.autograd.grad([y, last], [exact[name] for name in present], [grad_y.double(), grad_last.double()])

    plain = [inputs[name] for name in SCAN_INPUTS]
    found_y, found_last, states = torch.ops.triptych.selective_scan_fwd(*plain, softplus)
    alone_y, alone_last = torch.ops.triptych.selective_scan(*plain, softplus)
    assert torch.equal(alone_y, found_y) and torch.equal(alone_last, found_last)
    assert found_y.stride() == torch.empty_like(inputs["u"]).stride()
    kept = {name: exact[name] for name in ("u", "delta", "A", "B", "delta_bias", "initial_state")}
    chunks = reference.chunk_states(reference.all_states(**kept, delta_softplus=softplus))
    gradients = torch.ops.triptych.selective_scan_bwd(grad_y, grad_last, *plain, states, softplus, False)
    by_name = dict(zip(("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state"), gradients, strict=True))

    errors = {"y": _error(found_y, y), "last": _error(found_last, last), "states": _error(states, chunks)}
    errors |= {f"d{name}": _error(by_name[name], value) for name, value in zip(present, expected, strict=True)}
    assert max(errors.values()) <= tolerance, {name: f"{error:.1e}" for name, error in errors.items()}
    for name in SCAN_INPUTS:
        if inputs[name] is None:
            assert by_name[name].shape == (0,)
        else:
            assert by_name[name].shape == inputs[name].shape and by_name[name].dtype == inputs[name].dtype


# B, L, D, S, G: neither channels nor steps need be multiples of what a vector or a chunk holds.
SHAPES = [
    (1, 1, 1, 1, 1),
    (2, 7, 24, 3, 1),
    (1, 64, 16, 16, 1),
    (2, 65, 17, 5, 1),
    (1, 196, 30, 8, 3),
    (1, 131, 33, 40, 1),
    (3, 63, 48, 1, 4),
    (1, 301, 6, 16, 6),
    (1, 512, 20, 3, 1),  # rows that collide in the cache take a way of their own
]


@pytest.mark.parametrize("slow", [False, True], ids=["fast", "slow"])
@pytest.mark.parametrize("layout", ["bld", "bdl"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scan_and_its_gradients(isa: str, shape: tuple[int, int, int, int, int], layout: str, slow: bool) -> None:
    _check_scan(_scan_inputs(shape, layout, slow=slow))


@pytest.mark.parametrize("layout", ["bld", "bdl"])
@pytest.mark.parametrize("softplus", [True, False])
def test_without_optional_inputs(isa: str, layout: str, softplus: bool) -> None:
    inputs = _scan_inputs((2, 70, 20, 5, 2), layout, optional=False)
    if not softplus:
        inputs["delta"] = inputs["delta"].abs()
    _check_scan(inputs, softplus)


@pytest.mark.parametrize("absent", ["D", "z", "delta_bias", "initial_state"])
def test_each_optional_input_may_be_absent(isa: str, absent: str) -> None:
    _check_scan(_scan_inputs((1, 70, 20, 5, 1)) | {absent: None})


def test_any_strides_are_read(isa: str) -> None:
    inputs = _scan_inputs((2, 70, 20, 5, 2))
    wide = torch.randn(2, 70, 40, 3, generator=torch.Generator().manual_seed(1))
    inputs["u"] = wide[:, :, ::2, 1]  # neither steps nor channels lie side by side
    inputs["delta"] = wide[..., 2].flip(1)[:, :, 20:] - 1
    inputs["z"] = wide[:1, :, :20, 0].expand(2, -1, -1)
    inputs["B"] = torch.randn(2, 2, 5, 70).permute(0, 3, 1, 2)  # as (B, G, N, L) inputs are seen
    inputs["C"] = torch.randn(2, 70, 1, 5).expand(-1, -1, 2, -1)
    _check_scan(inputs)


@pytest.mark.parametrize("layout", ["bld", "bdl"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 4e-4), (torch.bfloat16, 3e-3)], ids=["f16", "bf16"])
def test_16_bit_inputs_have_a_float_state(isa: str, dtype: torch.dtype, tolerance: float, layout: str) -> None:
    """What is off is one rounding of each output: the unit roundoff is 4.9e-4 and 3.9e-3, its mean effect less."""
    _check_scan(_scan_inputs((2, 131, 24, 5, 2), layout, dtype), tolerance=tolerance)
    inputs = _scan_inputs((2, 131, 24, 5, 2), layout, dtype)
    _, last = reference.selective_scan(**{k: t.double() for k, t in inputs.items()}, delta_softplus=True)
    _, found = torch.ops.triptych.selective_scan(*(inputs[name] for name in SCAN_INPUTS), True)
    assert found.dtype == torch.float32
    assert _error(found, last) <= TOLERANCE


@pytest.mark.parametrize("layout", ["bld", "bdl"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
def test_every_16_bit_number_is_read_and_rounded_as_torch_does(isa: str, dtype: torch.dtype, layout: str) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).view(1, 1024, 64)
    u = every if layout == "bld" else every.transpose(1, 2).contiguous().transpose(1, 2)
    skip = torch.linspace(-1.7, 1.9, 64)
    zero = torch.zeros(1, 1024, 1, 1, dtype=dtype)

    def through(u: Tensor) -> Tensor:  # a step of zero leaves y = D u
        rest = (-torch.ones(64, 1), zero, zero, skip, None, None, None, False)
        return torch.ops.triptych.selective_scan(u, torch.zeros_like(u), *rest)[0]

    finite = torch.isfinite(u)
    assert torch.equal(through(u.where(finite, 0)), (u.where(finite, 0).float() * skip).to(dtype))
    assert not torch.isfinite(through(u)[~finite]).any()


def test_threads_do_not_change_a_bit(isa: str) -> None:
    inputs = _scan_inputs((2, 200, 96, 5, 2))
    plain = [inputs[name] for name in SCAN_INPUTS]
    image = list(_image_inputs((2, 5, 13, 40, 3, 4)).values())
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y, last, states = torch.ops.triptych.selective_scan_fwd(*plain, True)
            gradients = torch.ops.triptych.selective_scan_bwd(y, last, *plain, states, True, False)
            z, kept = torch.ops.triptych.ss2d_fwd(*image, 5, 13)
            results.append([y, last, states, *gradients, z, kept])
            results[-1] += torch.ops.triptych.ss2d_bwd(z, *image, kept, 5, 13, False)
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(("batch", "steps"), [(1, 0), (0, 5)])
def test_nothing_to_scan(isa: str, batch: int, steps: int) -> None:
    inputs = _scan_inputs((batch, steps, 20, 3, 2))
    plain = [inputs[name] for name in SCAN_INPUTS]
    y, last, states = torch.ops.triptych.selective_scan_fwd(*plain, True)
    assert y.shape == (batch, steps, 20)
    assert torch.equal(last, inputs["initial_state"])
    gradients = torch.ops.triptych.selective_scan_bwd(y, last, *plain, states, True, False)
    assert torch.equal(gradients[8], last)
    assert all(not gradient.any() for gradient in gradients[2:6])


def test_not_a_number_travels_forward_in_its_channel_only(isa: str) -> None:
    for name in ("u", "delta", "z"):
        inputs = _scan_inputs((1, 100, 20, 3, 1))
        inputs[name][0, 70, 4] = float("nan")
        y, last = torch.ops.triptych.selective_scan(*(inputs[name] for name in SCAN_INPUTS), True)
        expected = torch.zeros(100, 20, dtype=torch.bool)
        expected[70 if name == "z" else slice(70, None), 4] = True
        assert torch.equal(y[0].isnan(), expected), name
        assert last.isnan().any() == (name != "z")


def test_extreme_steps(isa: str) -> None:
    """A decay to nothing leaves only the newest input; huge and tiny step sizes go through the softplus unharmed."""
    raw = torch.tensor([-1e4, -88.0, -30.0, -1.0, 0.0, 1.0, 30.0, 1e4]).repeat(2).view(1, 1, 16).repeat(1, 3, 1)
    one, A = torch.ones(1, 3, 1, 1), torch.full((16, 1), -1e5)
    y, _ = torch.ops.triptych.selective_scan(torch.ones(1, 3, 16), raw, A, one, one, None, None, None, None, True)
    expected = torch.nn.functional.softplus(raw.double())
    kept = torch.exp(expected * A[0, 0].item())
    exact = expected * (1 + kept * (torch.arange(3).view(1, 3, 1) > 0) + kept**2 * (torch.arange(3).view(1, 3, 1) > 1))
    torch.testing.assert_close(y.double(), exact, rtol=1e-5, atol=1e-37)


def test_growing_states_overflow_to_infinity(isa: str) -> None:
    A = torch.full((16, 1), 60.0)
    one = torch.ones(1, 5, 1, 1)
    y, _ = torch.ops.triptych.selective_scan(
        torch.ones(1, 5, 16), torch.ones(1, 5, 16), A, one, one, None, None, None, None, False
    )
    exact = torch.stack([sum(torch.tensor(60.0 * j, dtype=torch.double).exp() for j in range(n)) for n in range(1, 6)])
    assert torch.isinf(y[0, 2:]).all()
    torch.testing.assert_close(y[0, :2].double(), exact[:2].view(2, 1).expand(2, 16), rtol=1e-5, atol=0)


def _image_inputs(
    shape: tuple[int, int, int, int, int, int], dtype: torch.dtype = torch.float32, seed: int = 0
) -> dict[str, Tensor]:
    n, height, width, channels, states, rank = shape
    make = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=make)

    positions = height * width
    return {
        "x": normal(n, positions, channels).to(dtype),
        "dts": normal(n, positions, 4, rank).to(dtype),
        "dt_weight": normal(4, channels, rank) / rank**0.5,
        "dt_bias": normal(4, channels) - 2.0,
        "A": -torch.exp(normal(4, channels, states) - 1.0),
        "B": normal(n, positions, 4, states).to(dtype),
        "C": normal(n, positions, 4, states).to(dtype),
        "D": normal(4, channels),
    }


def _check_image(inputs: dict[str, Tensor], height: int, width: int, tolerance: float = TOLERANCE) -> None:
    exact = {name: t.double().requires_grad_() for name, t in inputs.items()}
    y = reference.ss2d(**exact, height=height, width=width)
    grad_y = torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).to(inputs["x"].dtype)
    expected = torch.autograd.grad(y, list(exact.values()), grad_y.double())
    plain = [inputs[name] for name in IMAGE_INPUTS]
    found, states = torch.ops.triptych.ss2d_fwd(*plain, height, width)
    assert torch.equal(found, torch.ops.triptych.ss2d(*plain, height, width))
    gradients = torch.ops.triptych.ss2d_bwd(grad_y, *plain, states, height, width, False)
    errors = {"y": _error(found, y)}
    errors |= {f"d{n}": _error(a, b) for n, a, b in zip(IMAGE_INPUTS, gradients, expected, strict=True)}
    assert max(errors.values()) <= tolerance, {name: f"{error:.1e}" for name, error in errors.items()}
    for gradient, value in zip(gradients, plain, strict=True):
        assert gradient.shape == value.shape and gradient.dtype == value.dtype


IMAGES = [(1, 1, 1, 1, 1, 1), (2, 7, 9, 24, 3, 5), (1, 14, 14, 48, 1, 6), (1, 1, 70, 16, 5, 1), (1, 70, 1, 20, 8, 2)]


@pytest.mark.parametrize("shape", [*IMAGES, (1, 6, 11, 33, 16, 24)], ids=str)
def test_image_scan_and_its_gradients(isa: str, shape: tuple[int, int, int, int, int, int]) -> None:
    _check_image(_image_inputs(shape), shape[1], shape[2])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 4e-4), (torch.bfloat16, 3e-3)], ids=["f16", "bf16"])
def test_image_scan_of_16_bit_inputs(isa: str, dtype: torch.dtype, tolerance: float) -> None:
    _check_image(_image_inputs((2, 7, 9, 24, 3, 5), dtype), 7, 9, tolerance)


def test_image_scan_reads_slices_of_one_projection(isa: str) -> None:
    inputs = _image_inputs((2, 7, 9, 24, 3, 5))
    together = torch.cat([inputs["dts"], inputs["B"], inputs["C"]], dim=-1)
    parts = dict(zip(("dts", "B", "C"), together.split([5, 3, 3], dim=-1), strict=True))
    _check_image(inputs | parts, 7, 9)


def test_an_image_of_one_row_is_two_scans_each_way(isa: str) -> None:
    inputs = _image_inputs((1, 1, 30, 20, 4, 3))
    y = torch.ops.triptych.ss2d(*inputs.values(), 1, 30)
    total = torch.zeros(1, 30, 20)
    for k in range(4):
        order = (lambda t: t.flip(1)) if k >= 2 else (lambda t: t)
        delta = inputs["dts"][:, :, k] @ inputs["dt_weight"][k].T
        B, C = order(inputs["B"][:, :, k : k + 1]), order(inputs["C"][:, :, k : k + 1])
        one, _ = torch.ops.triptych.selective_scan(
            order(inputs["x"]),
            order(delta),
            inputs["A"][k],
            B,
            C,
            inputs["D"][k],
            None,
            inputs["dt_bias"][k],
            None,
            True,
        )
        total += order(one)
    assert _error(y, total) <= TOLERANCE


def test_instruction_sets_agree() -> None:
    inputs = _scan_inputs((2, 131, 40, 5, 2), slow=True)
    plain = [inputs[name] for name in SCAN_INPUTS]
    before, results = torch.ops.triptych.cpu_isa(), {}
    for name in ISAS:
        try:
            torch.ops.triptych.set_cpu_isa(name)
        except RuntimeError:
            continue
        results[name] = torch.ops.triptych.selective_scan(*plain, True)[0]
    torch.ops.triptych.set_cpu_isa(before)
    for a, b in itertools.combinations(results, 2):
        assert _error(results[a], results[b]) <= TOLERANCE, (a, b)


def _in_a_process(isa: str) -> subprocess.CompletedProcess[str]:
    code = "from vision.ops.selective_scan.library import LIBRARY, cpu_isa; print(cpu_isa())"
    environment = os.environ | {"TRIPTYCH_CPU_ISA": isa}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


def test_the_environment_chooses_the_instruction_set() -> None:
    done = _in_a_process("baseline")
    assert (done.returncode, done.stdout.strip()) == (0, "baseline")
    done = _in_a_process("sse9")
    assert done.returncode != 0
    assert "no CPU kernels for 'sse9'; there are auto, baseline, avx2 and avx512" in done.stderr


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"delta": torch.zeros(1, 9, 20)}, "delta"),
        ({"A": torch.zeros(19, 3)}, "A"),
        ({"A": torch.zeros(20, 3, dtype=torch.float64)}, "A"),
        ({"A": torch.zeros(3, 20).T}, "A"),
        ({"B": torch.zeros(1, 10, 3, 3)}, "groups"),
        ({"C": torch.zeros(1, 10, 1, 3, dtype=torch.float16)}, "C"),
        ({"u": torch.zeros(1, 10, 20, dtype=torch.float64)}, "expected float32, float16 or bfloat16"),
        ({"initial_state": torch.zeros(2, 20, 3)}, "initial_state"),
    ],
    ids=str,
)
def test_an_operator_called_directly_keeps_to_its_memory(change: dict[str, Any], named: str) -> None:
    inputs = _scan_inputs((1, 10, 20, 3, 1)) | change
    with pytest.raises(RuntimeError, match=named):
        torch.ops.triptych.selective_scan(*(inputs[name] for name in SCAN_INPUTS), True)
