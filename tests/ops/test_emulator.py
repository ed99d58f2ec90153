"""The CUDA kernels' sources on the host emulator, against the float64 reference: outputs and all gradients."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.ops.emulator.driver import KERNELS, ORDERS, PLAIN, SANITIZED, Case, build, compiler, run
from tests.ops.emulator.problems import CASES, EXACT, ROUNDED, ROWS, bound, image, scan, solve, worst_error

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler: install g++ or set CXX")

Solutions = dict[str, dict[str, Tensor]]


@pytest.fixture(scope="module")
def folder(kept_folder: Callable[[str], Path]) -> Path:
    """Where compiled drivers stay between runs."""
    return kept_folder("emulator")


@pytest.fixture(scope="module")
def driver(folder: Path) -> Path:
    """The kernels over the emulator."""
    return build(folder, PLAIN)


@pytest.fixture(scope="module")
def solutions() -> Solutions:
    """Every case in float64."""
    return {name: solve(case) for name, case in CASES.items()}


@pytest.mark.parametrize("order", range(len(ORDERS)), ids=ORDERS)
def test_outputs_and_gradients(driver: Path, solutions: Solutions, order: int, tmp_path: Path) -> None:
    results = run(driver, tmp_path, [case.with_options(order=order) for case in CASES.values()]).results
    wrong = []
    for (name, case), found in zip(CASES.items(), results, strict=True):
        errors = worst_error(found, solutions[name]).items()
        wrong += [f"{name}: {tensor} {error:.1e}" for tensor, error in errors if not error <= bound(case, tensor)]
    assert not wrong


def test_as_wrong_as_the_hardware_may_be(driver: Path, solutions: Solutions, tmp_path: Path) -> None:
    """With 2^x and division off by up to 2^-22, as their manual allows: a bound on what a GPU can make of it."""
    wide = {name: case for name, case in CASES.items() if ROUNDED[next(iter(case.tensors.values())).dtype] == EXACT}
    results = run(driver, tmp_path, [case.with_options(approximate=1) for case in wide.values()]).results
    worst = {name: max(worst_error(found, solutions[name]).values()) for name, found in zip(wide, results, strict=True)}
    assert max(worst.values()) < 5 * EXACT
    assert max(worst.values()) > EXACT / 10  # the errors are really made


def test_every_barrier_is_needed(driver: Path, solutions: Solutions, tmp_path: Path) -> None:
    """Each barrier of the sources, left out, is missed in every order of the threads."""
    names = (
        "two blocks of channels, slow",
        "by rows, windows and segments, slow",
        "segments, slow",
        "image, segments, slow",
        "image, one plane, two blocks",
    )
    written = {name for path in KERNELS.glob("*.cuh") for name in re.findall(r"BARRIER\((\w+)\);", path.read_text())}
    whole = run(driver, tmp_path, [CASES[name] for name in names])
    assert whole.barriers - {"a shuffle"} == written and written
    missed = {
        (barrier, ORDERS[order]): goes_wrong(driver, tmp_path, names, solutions, barrier, order)
        for barrier in sorted(written)
        for order in range(len(ORDERS))
    }
    assert all(missed.values()), [where for where, seen in missed.items() if not seen]


def goes_wrong(
    driver: Path, folder: Path, names: tuple[str, ...], solutions: Solutions, barrier: str, order: int
) -> bool:
    """Whether leaving out a barrier is seen: in a result, or because the threads no longer meet."""
    try:
        results = run(driver, folder, [CASES[name].with_options(order=order) for name in names], barrier).results
    except subprocess.CalledProcessError:
        return True
    pairs = zip(names, results, strict=True)
    return any(error > 10 * EXACT for name, found in pairs for error in worst_error(found, solutions[name]).values())


def test_sanitized(folder: Path, solutions: Solutions, tmp_path: Path) -> None:
    """No access out of bounds and no undefined arithmetic, in shared or global memory."""
    names = [
        "less than a tile, nothing optional",
        "a chunk and a step, groups",
        "20 states in two windows",
        "by rows, windows and segments, slow",
        "deterministic",
        "image of one row",
        "image, segments, slow",
        "image, one plane, two blocks",
    ]
    results = run(build(folder, SANITIZED), tmp_path, [CASES[name].with_options(order=2) for name in names]).results
    for name, found in zip(names, results, strict=True):
        assert max(worst_error(found, solutions[name]).values()) <= EXACT, name


def test_planned_segments(driver: Path, tmp_path: Path) -> None:
    """The plan cuts a long sequence for a large GPU; every cut gives the same to rounding."""
    case = scan(30, length=200, channels=180, states=2, slow=True)
    cuts = [case.with_options(segments=count) for count in (1, 2, 3, 4)]
    planned = [case.with_options(segments=0, processors=count) for count in (1, 132)]
    results = run(driver, tmp_path, [*cuts, *planned]).results
    solution = solve(case)
    assert all(max(worst_error(found, solution).values()) <= 2 * EXACT for found in results)
    assert torch.equal(results[4]["y"], results[0]["y"])  # 192 threads are enough for one processor
    assert torch.equal(results[5]["y"], results[3]["y"])  # but not for 132: a segment a chunk


def test_directions_sum_alike(driver: Path, tmp_path: Path) -> None:
    """The directions of an image give the same bits in planes of their own and in turn in one."""
    case = image(31, batch=2, height=9, width=11, states=3)
    apart, in_turn = run(driver, tmp_path, [case, case.with_options(separate_planes=0)]).results
    assert all(torch.equal(apart[name], in_turn[name]) for name in ("y", "dx", "states"))


@pytest.mark.parametrize("make", [scan, image])
def test_deterministic(driver: Path, tmp_path: Path, make: type) -> None:
    """The same bits whatever the order of blocks and threads; the atomics that are used otherwise do not give them."""
    case = make(32, batch=3, channels=300)
    runs = [case.with_options(order=order, deterministic=fixed) for fixed in (1, 0) for order in range(3)]
    results = run(driver, tmp_path, runs).results
    assert all(torch.equal(results[0][name], other[name]) for other in results[1:3] for name in results[0])
    assert not all(torch.equal(results[3][name], other[name]) for other in results[4:6] for name in results[3])
    assert all(torch.equal(results[0][name], other[name]) for other in results for name in ("y", "states"))


def test_far_apart_in_memory(driver: Path, tmp_path: Path) -> None:
    """Offsets beyond 32 bits: positions 2 GB apart, channels of a (B, D, L) tensor 1 GB apart, batches 8 GB apart."""
    near = scan(33, batch=2, length=3, channels=3, states=2)
    far = Case(near.kind, dict(near.tensors), near.options)
    for name, strides in (("u", (2**31, 2**29 - 1, 1)), ("delta", (2**31, 1, 2**28)), ("z", (2**31, 2**29 - 1, 1))):
        # only its strides are looked at: the values are taken from the compact tensor
        far.tensors[name] = StridedLike(near.tensors[name], strides)
    results = run(driver, tmp_path, [near, far]).results
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


class StridedLike:
    """A tensor's values with other strides than it has, for memory that only the driver maps."""

    def __init__(self, tensor: Tensor, strides: tuple[int, ...]) -> None:
        self.dtype, self.ndim, self.shape = tensor.dtype, tensor.ndim, tensor.shape
        self._tensor, self._strides = tensor, strides

    def stride(self) -> tuple[int, ...]:
        """The strides that the driver gives it."""
        return self._strides

    def detach(self) -> Tensor:
        """The values."""
        return self._tensor


def test_views(driver: Path, tmp_path: Path) -> None:
    """Halves of one tensor, and B and C as slices of one projection, without a copy."""
    plain = scan(34, batch=2, length=20, channels=40, states=4)
    sliced = Case(plain.kind, dict(plain.tensors), plain.options)
    for names in (("u", "z"), ("B", "C")):
        whole = torch.cat([plain.tensors[name] for name in names], dim=-1)
        parts = whole.split(whole.shape[-1] // 2, dim=-1)
        assert not parts[0].is_contiguous()
        sliced.tensors |= dict(zip(names, parts, strict=True))
    results = run(driver, tmp_path, [plain, sliced]).results
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


@pytest.mark.parametrize("by_rows", [(), ROWS])
def test_nan_stays_where_it_is(driver: Path, tmp_path: Path, by_rows: tuple[str, ...]) -> None:
    """A NaN step size spoils its channel from there on, and no other; nor does a lane without a channel pick it up."""
    case = scan(35, length=20, channels=35, states=2, by_rows=by_rows)
    case.tensors["delta"][0, 12, 34] = float("nan")
    case.tensors["u"][0, 19, 33] = float("inf")
    y = run(driver, tmp_path, [case]).results[0]["y"]
    spoilt = torch.zeros_like(y, dtype=torch.bool)
    spoilt[0, 12:, 34] = True
    spoilt[0, 19, 33] = True
    assert torch.equal(~y.isfinite(), spoilt)


def test_what_does_not_fit_is_told(driver: Path, tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(driver, tmp_path, [image(36, height=2, width=2, rank=900)])
    assert "the rank of the step sizes is too large" in caught.value.stderr


# ---- the emulator itself --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def selftest(folder: Path) -> Path:
    """Small kernels, most of them wrong."""
    return build(folder, ("-O1", "-fsanitize=address"), "selftest.cpp")


def ended(program: Path, name: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """A finished self-test."""
    return subprocess.run([program, name], input=given, capture_output=True, check=False, timeout=60)


def test_emulated_exchange(selftest: Path) -> None:
    found = [float(word) for word in ended(selftest, "exchanges").stdout.split()]
    assert found == [float((63 - thread) ^ 5) for thread in range(64)] * 3
    assert all(word == b"-nan" or word == b"nan" for word in ended(selftest, "unwritten_shared").stdout.split())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("some_wait", "not all threads of a block reach a barrier"),
        ("two_places", "threads wait at different places: "),
        ("some_shuffle", "not all threads of a block reach a barrier"),
        ("beyond_shared", "heap-buffer-overflow"),
    ],
)
def test_emulator_stops(selftest: Path, name: str, words: str) -> None:
    process = ended(selftest, name)
    assert process.returncode != 0
    assert words in process.stderr.decode()


def test_emulated_16_bits(selftest: Path) -> None:
    """Every half widens as numpy says; floats round to 16 bits as numpy and torch say, ties and overflow too."""
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    random = np.random.default_rng(0)
    ties = halves[: 2**15 - 1024].astype(np.float32)
    floats = np.concatenate([ties, (ties[1:] + ties[:-1]) / 2, -ties, 10 ** random.uniform(-9, 6, 4096)])
    floats = np.concatenate([floats, [65519.0, 65520.0, 1e30, np.inf, -np.inf, 0.0, -0.0]]).astype(np.float32)
    output = ended(selftest, "halves", floats.tobytes()).stdout
    np.testing.assert_array_equal(np.frombuffer(output[: 4 * 65536], np.float32), halves.astype(np.float32))
    rounded = np.frombuffer(output[4 * 65536 :], np.uint16).reshape(-1, 2)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(rounded[:, 0], floats.astype(np.float16).view(np.uint16))
    by_torch = torch.from_numpy(floats).bfloat16().view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(rounded[:, 1], by_torch)
