"""The compiled CUDA kernels on a GPU, against the float64 reference: the emulator's cases, and what only a GPU has."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.ops.emulator.driver import Case
from tests.ops.emulator.problems import (
    CASES,
    EXACT,
    IMAGE_INPUTS,
    ROUNDED,
    ROWS,
    SCAN_INPUTS,
    bound,
    image,
    scan,
    solve,
    worst_error,
)
from vision.ops.selective_scan.library import LIBRARY

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"),
    pytest.mark.skipif("cuda" not in LIBRARY.devices, reason="the CUDA kernels are not built"),
]

HARDWARE = 5  # times the bound of exact arithmetic: 2^x by the special-function unit is off by up to 2^-22
SCAN_RESULTS = ("du", "ddelta", "dA", "dB", "dC", "dD", "dz", "ddelta_bias", "dinitial_state")
IMAGE_RESULTS = ("dx", "ddts", "ddt_weight", "ddt_bias", "dA", "dB", "dC", "dD")

Results = dict[str, Tensor]


def on(case: Case, device: str) -> Case:
    """A case on a device; strides are kept."""
    return Case(case.kind, {name: tensor.to(device) for name, tensor in case.tensors.items()}, case.options)


def run(case: Case, deterministic: bool = False) -> Results:
    """Forward and backward by the operators."""
    if case.kind == "scan":
        inputs = [case.tensors.get(name) for name in SCAN_INPUTS]
        inputs[3:5] = [inputs[3].contiguous(), inputs[4].contiguous()]
        softplus = bool(case.options["softplus"])
        y, last, states = torch.ops.triptych.selective_scan_fwd(*inputs, softplus)
        ends = case.tensors["grad_y"], case.tensors.get("grad_last_state")
        found = torch.ops.triptych.selective_scan_bwd(*ends, *inputs, states, softplus, deterministic)
        names, results = SCAN_RESULTS, {"y": y, "last_state": last, "states": states}
    else:
        inputs = [case.tensors[name] for name in IMAGE_INPUTS]
        size = case.options["height"], case.options["width"]
        y, states = torch.ops.triptych.ss2d_fwd(*inputs, *size)
        found = torch.ops.triptych.ss2d_bwd(case.tensors["grad_y"], *inputs, states, *size, deterministic)
        names, results = IMAGE_RESULTS, {"y": y, "states": states}
    present = {name: gradient for name, gradient in zip(names, found, strict=True) if name[1:] in case.tensors}
    return results | present


def check(case: Case, found: Results, solution: Results) -> None:
    """Every tensor within its bound."""
    errors = worst_error({name: result.cpu() for name, result in found.items()}, solution)
    assert not {name: error for name, error in errors.items() if not error <= HARDWARE * bound(case, name)}


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_as_on_the_emulator(name: str, deterministic: bool) -> None:
    check(CASES[name], run(on(CASES[name], "cuda"), deterministic), solve(CASES[name]))


def test_with_and_without_states() -> None:
    """What is kept for a backward pass changes nothing."""
    case = on(scan(39, length=130), "cuda")
    inputs = [case.tensors[name] for name in SCAN_INPUTS]
    found, plain = run(case), torch.ops.triptych.selective_scan(*inputs, True)
    assert torch.equal(plain[0], found["y"]) and torch.equal(plain[1], found["last_state"])
    case = on(image(39, height=12, width=11), "cuda")
    inputs = [case.tensors[name] for name in IMAGE_INPUTS]
    assert torch.equal(torch.ops.triptych.ss2d(*inputs, 12, 11), run(case)["y"])


@pytest.mark.parametrize("length", [1, 7, 196, 301, 768, 3072])
@pytest.mark.parametrize("states", [1, 3, 8, 16])
def test_grid(length: int, states: int) -> None:
    """Lengths and states, by turns with groups, layouts, types and inputs left out."""
    turns = itertools.product((1, 3), ((), ROWS), ROUNDED, ((), ("z", "D"), ("delta_bias", "initial_state")))
    for seed, (groups, by_rows, dtype, without) in enumerate(turns):
        if (seed + length + states) % 6:
            continue
        sizes = {"batch": 1 + seed % 3, "length": length, "channels": 96, "states": states, "groups": groups}
        case = scan(seed, **sizes, dtype=dtype, by_rows=by_rows, without=without, slow=seed % 2 == 0)
        solution = {name: result.cpu() for name, result in solve(on(case, "cuda")).items()}
        check(case, run(on(case, "cuda")), solution)


@pytest.mark.parametrize("make", [scan, image])
def test_deterministic(make: Callable[..., Case]) -> None:
    case = on(make(40, batch=4, channels=300), "cuda")
    first = run(case, deterministic=True)
    for _ in range(5):
        again = run(case, deterministic=True)
        assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("make", [scan, image])
def test_stream_and_graph(make: Callable[..., Case]) -> None:
    """Work goes to torch's stream: in its order there, and into a graph that is recorded on it."""
    case = on(make(41, batch=2, channels=64), "cuda")
    expected = run(case, deterministic=True)
    for tensor in case.tensors.values():
        tensor.mul_(0.5)
    other = run(case, deterministic=True)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # what comes before on this stream must be waited for
        for tensor in case.tensors.values():
            tensor.mul_(2.0)
        found = run(case, deterministic=True)
    torch.cuda.synchronize()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = run(case, deterministic=True)
    for tensor in case.tensors.values():
        tensor.mul_(0.5)
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(recorded[name], other[name]) for name in other)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU only")
@pytest.mark.parametrize("make", [scan, image])
def test_another_device_than_the_current(make: Callable[..., Case]) -> None:
    case = make(42, batch=2, channels=64)
    found = run(on(case, "cuda:1"))
    assert torch.cuda.current_device() == 0
    assert {result.device.index for result in found.values()} == {1}
    check(case, found, solve(case))


def test_inputs_that_memory_is_kept_from() -> None:
    """What Python's front would refuse is refused by the operators too."""
    tensors = on(scan(43), "cuda").tensors
    inputs = [tensors.get(name) for name in SCAN_INPUTS]
    for place, wrong in ((1, tensors["delta"][:, :-1]), (2, tensors["A"].half()), (4, tensors["C"].cpu())):
        with pytest.raises(RuntimeError, match="triptych: "):
            torch.ops.triptych.selective_scan(*inputs[:place], wrong, *inputs[place + 1 :], True)


def test_error_is_of_rounding_only() -> None:
    """Of ordinary data the whole error is within the bound of exact arithmetic."""
    case = scan(44, batch=2, length=768, channels=192, states=16)
    errors = worst_error({name: result.cpu() for name, result in run(on(case, "cuda")).items()}, solve(case))
    assert max(errors.values()) <= EXACT
