"""What PyTorch is told of the operators: opcheck, shapes and strides without values, tracing, and what is refused."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.ops.problems import close, small
from vision.ops.selective_scan import ScanError, registration, selective_scan, ss2d
from vision.ops.selective_scan.library import CUDA_STATES, LIBRARY
from vision.ops.selective_scan.schemas import SCHEMAS

NAMESPACES = ["triptych_reference", *(["triptych"] if "cpu" in LIBRARY.devices else [])]
CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
CHECKS_OF_BACKWARD = ("test_schema", "test_faketensor")  # it has no gradient of its own
OPTIONAL = ("D", "z", "delta_bias", "initial_state")
LENGTH = 70  # more than a chunk of saved states


@pytest.fixture(params=NAMESPACES)
def operators(request: pytest.FixtureRequest) -> Any:
    """The compiled operators, and those in PyTorch."""
    return getattr(torch.ops, request.param)


def canonical(
    states: int = 3, groups: int = 2, permuted: bool = False, absent: tuple[str, ...] = ()
) -> list[Tensor | None]:
    """Tensors of the operators: channels-last, or with steps innermost in memory."""
    make = torch.Generator().manual_seed(states)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=make)

    def rows() -> Tensor:
        return normal(2, 8, LENGTH).transpose(1, 2) if permuted else normal(2, LENGTH, 8)

    found = {
        "u": rows(), "delta": rows(), "A": -normal(8, states).exp(), "B": normal(2, LENGTH, groups, states),
        "C": normal(2, LENGTH, groups, states), "D": normal(8), "z": rows(), "delta_bias": normal(8),
        "initial_state": normal(2, 8, states),
    }  # fmt: skip
    return [None if name in absent else t.requires_grad_() for name, t in found.items()]


def image(height: int = 5, width: int = 14) -> list[Tensor]:
    """Tensors of the four-direction operators."""
    make = torch.Generator().manual_seed(height)
    length = height * width

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=make)

    found = [
        normal(2, length, 8), normal(2, length, 4, 3), normal(4, 8, 3), normal(4, 8), -normal(4, 8, 2).exp(),
        normal(2, length, 4, 2), normal(2, length, 4, 2), normal(4, 8),
    ]  # fmt: skip
    return [t.requires_grad_() for t in found]


def bare(tensors: list[Any]) -> list[Any]:
    return [t.detach() if isinstance(t, Tensor) else t for t in tensors]


# ---- what PyTorch checks itself -------------------------------------------------------------------------------------

VARIANTS: dict[str, dict[str, Any]] = {
    "one state, one group": {"states": 1, "groups": 1},
    "5 states": {"states": 5},
    "8 states, every channel a group": {"states": 8, "groups": 8},
    "16 states, permuted": {"states": 16, "permuted": True},
    "permuted": {"permuted": True},
    "nothing optional": {"absent": OPTIONAL},
    "no gate": {"absent": ("z",), "permuted": True},
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_opcheck_of_the_scan(operators: Any, variant: dict[str, Any]) -> None:
    inputs = canonical(**variant)
    for operator in (operators.selective_scan, operators.selective_scan_fwd):
        torch.library.opcheck(operator, (*inputs, True), test_utils=CHECKS)
    free = bare(inputs)
    y, last_state, states = operators.selective_scan_fwd(*free, True)
    for deterministic in (False, True):
        torch.library.opcheck(
            operators.selective_scan_bwd,
            (torch.ones_like(y), torch.ones_like(last_state), *free, states, True, deterministic),
            test_utils=CHECKS_OF_BACKWARD,
        )


def test_opcheck_of_the_image(operators: Any) -> None:
    inputs = image()
    for operator in (operators.ss2d, operators.ss2d_fwd):
        torch.library.opcheck(operator, (*inputs, 5, 14), test_utils=CHECKS)
    free = bare(inputs)
    y, states = operators.ss2d_fwd(*free, 5, 14)
    inputs_of_bwd = (torch.ones_like(y), *free, states, 5, 14, False)
    torch.library.opcheck(operators.ss2d_bwd, inputs_of_bwd, test_utils=CHECKS_OF_BACKWARD)


def test_gradients_of_the_reference_operators_equal_finite_differences() -> None:
    """In float64, which the compiled operators do not take; they are held to these gradients elsewhere."""
    scan = [t.detach().double() for t in canonical(permuted=True) if t is not None]
    cut = [t[:1, :4].contiguous().requires_grad_() if t.ndim > 2 else t.requires_grad_() for t in scan[:-1]]
    cut.append(scan[-1][:1].requires_grad_())
    for name in ("selective_scan", "selective_scan_fwd"):
        operator = getattr(torch.ops.triptych_reference, name)
        assert torch.autograd.gradcheck(lambda *t, run=operator: run(*t, True)[:2], cut)
    tensors = [t.detach()[:1].double() if t.shape[0] == 2 else t.detach().double() for t in image(2, 2)]
    for name in ("ss2d", "ss2d_fwd"):
        operator = getattr(torch.ops.triptych_reference, name)
        assert torch.autograd.gradcheck(lambda *t, run=operator: run(*t, 2, 2), [t.requires_grad_() for t in tensors])


# ---- without values, on a device that is not there ------------------------------------------------------------------


def fake_like(t: Tensor) -> Tensor:
    return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="cuda")


def layout_of(t: Tensor) -> tuple[Any, ...]:
    return t.shape, t.stride(), t.dtype


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_shapes_and_strides_on_a_cuda_that_is_not_there(
    operators: Any, variant: dict[str, Any], dtype: torch.dtype
) -> None:
    """The fakes for cuda say what the CPU kernels give: the two promise the same."""
    tensors = bare(canonical(**variant))
    inputs = [t.to(dtype) if t is not None and index in (0, 1, 3, 4, 6) else t for index, t in enumerate(tensors)]
    y, last_state, states = operators.selective_scan_fwd(*inputs, True)
    gradients = operators.selective_scan_bwd(torch.ones_like(y), None, *inputs, states, True, False)
    with FakeTensorMode():
        fake = [None if t is None else fake_like(t) for t in inputs]
        fake_y, fake_last, fake_states = operators.selective_scan_fwd(*fake, True)
        found = operators.selective_scan_bwd(torch.empty_like(fake_y), None, *fake, fake_states, True, False)
    for real, other in zip((y, last_state, states, *gradients), (fake_y, fake_last, fake_states, *found), strict=True):
        assert other.device.type == "cuda"
        assert layout_of(other) == layout_of(real)


def test_the_image_on_a_cuda_that_is_not_there(operators: Any) -> None:
    inputs = bare(image())
    y, states = operators.ss2d_fwd(*inputs, 5, 14)
    gradients = operators.ss2d_bwd(torch.ones_like(y), *inputs, states, 5, 14, False)
    with FakeTensorMode():
        fake = [fake_like(t) for t in inputs]
        fake_y, fake_states = operators.ss2d_fwd(*fake, 5, 14)
        found = operators.ss2d_bwd(torch.empty_like(fake_y), *fake, fake_states, 5, 14, False)
    for real, other in zip((y, states, *gradients), (fake_y, fake_states, *found), strict=True):
        assert layout_of(other) == layout_of(real)


@pytest.mark.skipif("cuda" not in LIBRARY.devices, reason="no compiled CUDA kernels")
@pytest.mark.parametrize("permuted", [True, False])
def test_the_front_on_a_cuda_that_is_not_there(permuted: bool) -> None:
    """The front takes the kernels and keeps the strides of u; mixed devices are one message."""
    with FakeTensorMode():
        u, delta = (torch.empty(2, 6, 9, device="cuda") for _ in range(2))
        if permuted:
            u, delta = (torch.empty(2, 9, 6, device="cuda").transpose(1, 2) for _ in range(2))
        A, B = torch.empty(6, 3, device="cuda"), torch.empty(2, 3, 9, device="cuda")
        y, last = selective_scan(u, delta, A, B, B, return_last_state=True)
        assert (y.device.type, layout_of(y)) == ("cuda", layout_of(u))
        assert layout_of(last) == ((2, 6, 3), (18, 3, 1), torch.float32)
        with pytest.raises(ScanError, match="A is on cpu, expected cuda:0, where u is; B is on cpu, expected cuda:0"):
            selective_scan(u, delta, torch.empty(6, 3), torch.empty(2, 3, 9), B)
        many = torch.empty(2, CUDA_STATES + 1, 9, device="cuda")
        y = selective_scan(u, delta, torch.empty(6, CUDA_STATES + 1, device="cuda"), many, many)
        assert isinstance(y, Tensor) and y.shape == u.shape  # by the reference


# ---- compilers and exporters ----------------------------------------------------------------------------------------


class Scanned(nn.Module):
    """A scan between a projection and a norm, with gates and skips."""

    def __init__(self, path: str | None = None) -> None:
        super().__init__()
        make = torch.Generator().manual_seed(0)
        self.path = path
        self.A = nn.Parameter(-torch.rand(8, 3, generator=make))
        self.D, self.bias = (nn.Parameter(torch.randn(8, generator=make)) for _ in range(2))
        self.projection = nn.Parameter(torch.randn(8, 22, generator=make) / 3)

    def forward(self, u: Tensor) -> Tensor:
        delta, z, B, C = (u @ self.projection).split([8, 8, 3, 3], dim=-1)
        return selective_scan(
            u, delta, self.A, B, C, self.D, z, self.bias, True, layout="bld", force_backend=self.path
        ).tanh()  # type: ignore[union-attr]


class Image(nn.Module):
    """A four-direction scan of an image, channels-last."""

    def __init__(self, path: str | None = None) -> None:
        super().__init__()
        make = torch.Generator().manual_seed(1)
        self.path = path
        self.A = nn.Parameter(-torch.rand(4, 8, 2, generator=make))
        self.D, self.bias = (nn.Parameter(torch.randn(4, 8, generator=make)) for _ in range(2))
        self.weight = nn.Parameter(torch.randn(4, 8, 3, generator=make))
        self.projection = nn.Parameter(torch.randn(8, 28, generator=make) / 3)

    def forward(self, x: Tensor) -> Tensor:
        _, height, width, _ = x.shape
        x = x.flatten(1, 2)
        dts, B, C = (x @ self.projection).unflatten(-1, (4, 7)).split([3, 2, 2], dim=-1)
        return ss2d(x, dts, self.weight, self.bias, self.A, B, C, self.D, height, width, force_backend=self.path)


MODELS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "scan": (Scanned, (2, 70, 8), (3, 131, 8)),
    "image": (Image, (2, 5, 14, 8), (3, 9, 8, 8)),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, path: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A model over each path, and two inputs that differ in every size but that of the channels."""
    make, first, second = MODELS[request.param]
    values = torch.Generator().manual_seed(2)
    return make(path), torch.randn(first, generator=values), torch.randn(second, generator=values)


def test_compiled_whole_with_gradients(model: tuple[nn.Module, Tensor, Tensor]) -> None:
    """Without a break, and once for all sizes."""
    module, *inputs = model
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, backend=counter, fullgraph=True, dynamic=True)
    for x in inputs:
        tensors = [x.requires_grad_(), *module.parameters()]
        y, expected = compiled(x), module(x)
        close(y, expected)
        given = torch.randn(y.shape, generator=torch.Generator().manual_seed(3))
        close(torch.autograd.grad(y, tensors, given), torch.autograd.grad(expected, tensors, given), 1e-5)
    assert counter.frame_count == 1


@pytest.mark.slow
def test_compiled_by_inductor() -> None:
    module, x = Scanned(), torch.randn(2, 70, 8, generator=torch.Generator().manual_seed(2)).requires_grad_()
    torch._dynamo.reset()
    y, expected = torch.compile(module, fullgraph=True)(x), module(x)
    close(y, expected)
    tensors = [x, *module.parameters()]
    found, wanted = (torch.autograd.grad(t.square().sum(), tensors) for t in (y, expected))
    close(found, wanted, 1e-5)


def test_exported_as_one_node(model: tuple[nn.Module, Tensor, Tensor]) -> None:
    module, x, other = model
    sizes = dict.fromkeys(range(x.ndim - 1), torch.export.Dim.DYNAMIC)
    program = torch.export.export(module, (x,), dynamic_shapes=(sizes,))
    nodes = [str(node.target) for node in program.graph.nodes if "triptych" in str(node.target)]
    namespace = "triptych" if module.path == "compiled" else "triptych_reference"
    name = "selective_scan" if isinstance(module, Scanned) else "ss2d"
    assert nodes == [f"{namespace}.{name}.default"]
    with torch.no_grad():
        for values in (x, other):
            close(program.module()(values), module(values))


LOADED_ALONE = """
import sys, torch
library, package, values = sys.argv[1:]
torch.ops.load_library(library)
x, expected = torch.load(values)
found = torch._inductor.aoti_load_package(package)(x)
assert "vision" not in sys.modules
torch.testing.assert_close(found, expected, rtol=2e-6, atol=2e-6)
"""


@pytest.mark.slow
@pytest.mark.skipif("cpu" not in LIBRARY.devices, reason="no compiled kernels")
def test_compiled_ahead_of_time_and_run_without_this_package(tmp_path: Path) -> None:
    """A process that knows the library and the compiled model only, at sizes other than the example's."""
    module, make = nn.Sequential(Image("compiled"), Scanned("compiled")), torch.Generator()
    sizes = dict.fromkeys(range(3), torch.export.Dim.DYNAMIC)
    with torch.no_grad():
        x = torch.randn(2, 5, 14, 8, generator=make)
        program = torch.export.export(module, (x,), dynamic_shapes={"input": sizes})
        package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "scan.pt2"))
        x = torch.randn(3, 9, 8, 8, generator=make)
        torch.save((x, module(x)), tmp_path / "values.pt")
    command = [sys.executable, "-c", LOADED_ALONE, str(LIBRARY.path), package, str(tmp_path / "values.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


# ---- what is refused, and what is passed on -------------------------------------------------------------------------


def test_vmap_is_refused_with_the_way_out(operators: Any) -> None:
    inputs = bare(canonical())
    with pytest.raises(ScanError, match=r"cannot run under vmap.*fold the mapped axis.*force_backend='reference'"):
        torch.vmap(lambda u: operators.selective_scan(u, *inputs[1:], True)[0])(torch.ones(3, 2, LENGTH, 8))
    tensors = bare(image())
    with pytest.raises(ScanError, match="cannot run under vmap"):
        torch.vmap(lambda x: operators.ss2d(x, *tensors[1:], 5, 14))(torch.ones(3, 2, LENGTH, 8))


@pytest.mark.skipif("cpu" not in LIBRARY.devices, reason="no compiled kernels")
def test_vmap_over_the_front_is_refused_too() -> None:
    p = small()
    with pytest.raises(ScanError, match="cannot run under vmap"):
        torch.vmap(lambda u: selective_scan(**p | {"u": u}))(torch.stack([p["u"], p["u"]]))  # type: ignore[arg-type]


def test_the_reference_runs_under_vmap() -> None:
    p = small()
    several = torch.stack([p["u"], 2 * p["u"]])

    def run(u: Tensor) -> Tensor:
        y = selective_scan(**p | {"u": u}, force_backend="reference")  # type: ignore[arg-type]
        assert isinstance(y, Tensor)
        return y

    close(torch.vmap(run)(several), torch.stack([run(u) for u in several]))


def test_a_second_derivative_is_refused_with_the_way_out(operators: Any) -> None:
    inputs = canonical()
    first = torch.autograd.grad(operators.selective_scan_fwd(*inputs, True)[0].sum(), inputs[0], create_graph=True)[0]
    with pytest.raises(ScanError, match=r"no second derivative.*force_backend='reference'"):
        first.sum().backward()
    tensors = image()
    first = torch.autograd.grad(operators.ss2d_fwd(*tensors, 5, 14)[0].sum(), tensors[0], create_graph=True)[0]
    with pytest.raises(ScanError, match="no second derivative"):
        first.sum().backward()


@pytest.mark.parametrize("wanted", [True, False])
def test_determinism_is_passed_on_to_the_kernels(monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    told = []

    class Recorder:
        @staticmethod
        def selective_scan_bwd(*arguments: Any) -> Any:
            told.append(arguments[-1])
            return torch.ops.triptych_reference.selective_scan_bwd(*arguments)

        @staticmethod
        def ss2d_bwd(*arguments: Any) -> Any:
            told.append(arguments[-1])
            return torch.ops.triptych_reference.ss2d_bwd(*arguments)

    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: wanted)
    inputs, tensors = bare(canonical()), bare(image())
    y, _, states = torch.ops.triptych_reference.selective_scan_fwd(*inputs, True)
    ctx = SimpleNamespace(needs_input_grad=(True,) * 10, saved_tensors=(*inputs, states), delta_softplus=True)
    registration._scan_gradients(Recorder, recompute=False)[0](ctx, torch.ones_like(y), None, None)
    y, states = torch.ops.triptych_reference.ss2d_fwd(*tensors, 5, 14)
    ctx = SimpleNamespace(needs_input_grad=(True,) * 10, saved_tensors=(*tensors, states), height=5, width=14)
    registration._ss2d_gradients(Recorder, recompute=False)[0](ctx, torch.ones_like(y), None)
    assert told == [wanted, wanted]


def test_every_operator_is_known_by_its_schema(operators: Any) -> None:
    namespace = operators.selective_scan.default._schema.name.split("::")[0]
    for name, schema in SCHEMAS.items():
        assert str(getattr(operators, name).default._schema) == f"{namespace}::{name}{schema}"
