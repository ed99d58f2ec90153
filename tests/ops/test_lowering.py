"""The three forms for ONNX: each against the float64 reference, exported and run by onnxruntime at many sizes."""

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.ops.problems import close, error_of, expected_of, small
from vision.ops.selective_scan import ScanError, lowering, onnx_form, reference, selective_scan, ss2d
from vision.ops.selective_scan.lowering import NODE

onnx = pytest.importorskip("onnx", reason="no onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="no onnxruntime")
pytest.importorskip("onnxscript", reason="no onnxscript")

RUNNABLE: dict[str, dict[str, int]] = {"scan": {}, "chunked": {"chunk": 8}}
DYNAMIC = torch.export.Dim.DYNAMIC


@pytest.fixture(params=RUNNABLE)
def form(request: pytest.FixtureRequest) -> tuple[str, dict[str, int]]:
    """Each form in ONNX's own operators; with chunks that sequences of these tests have several of, and parts of."""
    return request.param, RUNNABLE[request.param]


# ---- the forms by themselves ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("length", [1, 8, 19])
@pytest.mark.parametrize("layout", ["bdl", "bld"])
def test_a_form_computes_the_scan(form: tuple[str, dict[str, int]], groups: int, length: int, layout: str) -> None:
    p = small(length=length, groups=groups)
    if layout == "bld":
        p |= {name: p[name].transpose(1, 2) for name in ("u", "delta", "z")}
        p |= {name: p[name].permute(0, 3, 1, 2) for name in ("B", "C")}
    with onnx_form(form[0], **form[1]):
        found = selective_scan(**p, delta_softplus=True, return_last_state=True, layout=layout)  # type: ignore[arg-type]
    expected = expected_of(p, layout)
    close(tuple(t.double() for t in found), expected, 5e-6)


@pytest.mark.parametrize("absent", ["D", "z", "delta_bias", "initial_state"])
def test_a_form_without_an_optional_input(form: tuple[str, dict[str, int]], absent: str) -> None:
    p: dict[str, Any] = small() | {absent: None}
    with onnx_form(form[0], **form[1]):
        found = selective_scan(**p, delta_softplus=True, return_last_state=True)
    close(tuple(t.double() for t in found), expected_of(p), 5e-6)


@pytest.mark.parametrize("constant", ["B", "C", "BC"])
def test_a_form_with_parameters_that_do_not_vary(form: tuple[str, dict[str, int]], constant: str) -> None:
    p = small()
    p |= {name: torch.randn(6, 3, generator=torch.Generator().manual_seed(5)) for name in constant}
    expected = selective_scan(**p, delta_softplus=True, force_backend="reference")  # type: ignore[arg-type]
    with onnx_form(form[0], **form[1]):
        close(selective_scan(**p, delta_softplus=True), expected, 5e-6)  # type: ignore[arg-type]


def test_a_form_keeps_a_state_that_hardly_decays(form: tuple[str, dict[str, int]]) -> None:
    """What chunks hand on is what is tested: the last state is the sum of everything before."""
    ones = torch.ones(1, 1, 100)
    with onnx_form(form[0], **form[1]):
        y = selective_scan(ones, ones, torch.full((1, 1), -1e-4), ones, ones)
    decay = np.exp(-1e-4)
    expected = (1 - decay ** np.arange(1, 101)) / (1 - decay)
    np.testing.assert_allclose(y.flatten(), expected, rtol=1e-5)  # type: ignore[union-attr]


def test_half_precision_keeps_its_dtype(form: tuple[str, dict[str, int]]) -> None:
    p = small(torch.float16)
    with onnx_form(form[0], **form[1]):
        y, last = selective_scan(**p, delta_softplus=True, return_last_state=True)  # type: ignore[arg-type]
    assert (y.dtype, last.dtype) == (torch.float16, torch.float32)
    close(y.double(), expected_of(p)[0], 2e-3)


def test_softplus_is_exact_to_rounding_everywhere() -> None:
    x = torch.cat([torch.linspace(-86, 100, 200_001), torch.linspace(-1, 1, 20_001)])
    expected = np.log1p(np.exp(x.double().numpy()))  # no exponential of these overflows in float64
    found = lowering._softplus(x).double().numpy()
    assert np.abs(found / expected - 1).max() < 4e-7
    assert torch.equal(lowering._softplus(x.double()), torch.nn.functional.softplus(x.double()))


def test_the_block_ends_and_blocks_nest() -> None:
    assert lowering.form() is None
    with onnx_form("chunked", chunk=4):
        with onnx_form("node"):
            assert lowering.form() == "node"
        assert lowering.form() == "chunked"
        assert lowering._chunk == 4
    assert lowering.form() is None


@pytest.mark.parametrize(("arguments", "said"), [
    (("scna",), "onnx_form: got 'scna', expected one of scan, chunked, node (did you mean 'scan'?)"),
    (("chunked", 0), "onnx_form: chunk is 0, expected at least 1"),
])  # fmt: skip
def test_a_form_that_there_is_not(arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(ScanError) as caught:
        onnx_form(*arguments)
    assert str(caught.value) == said


# ---- exported -------------------------------------------------------------------------------------------------------


class Scanned(nn.Module):
    """Every optional input but the state; two groups."""

    def __init__(self, states: int) -> None:
        super().__init__()
        make = torch.Generator().manual_seed(states)
        self.A = nn.Parameter(-torch.rand(6, states, generator=make))
        self.D, self.bias = (nn.Parameter(torch.randn(6, generator=make)) for _ in range(2))

    def forward(self, u: Tensor, delta: Tensor, B: Tensor, C: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        found = selective_scan(u, delta, self.A, B, C, self.D, z, self.bias, True, True, layout="bld")
        return found[0], found[1]


class Image(nn.Module):
    """Four-direction scans of an image, channels-last, one after another as in a network."""

    def __init__(self, states: int, rank: int | None = 2, scans: int = 2) -> None:
        super().__init__()
        make = torch.Generator().manual_seed(states)
        self.scans = scans
        self.sizes = [rank or 6, states, states]
        self.A = nn.Parameter(-torch.rand(4, 6, states, generator=make))
        self.D, self.bias = (nn.Parameter(torch.randn(4, 6, generator=make)) for _ in range(2))
        self.weight = None if rank is None else nn.Parameter(torch.randn(4, 6, rank, generator=make))
        self.projection = nn.Parameter(torch.randn(6, 4 * sum(self.sizes), generator=make) / 3)

    def forward(self, x: Tensor) -> Tensor:
        _, height, width, _ = x.shape
        y = x.flatten(1, 2)
        dts, B, C = (y @ self.projection).unflatten(-1, (4, -1)).split(self.sizes, dim=-1)
        for _ in range(self.scans):
            y = ss2d(y.tanh(), dts, self.weight, self.bias, self.A, B, C, self.D, height, width)
        return y.unflatten(1, (height, width))


def sequence(batch: int, length: int, states: int) -> tuple[Tensor, ...]:
    make = torch.Generator().manual_seed(length)
    shapes = [(batch, length, 6)] * 2 + [(batch, length, 2, states)] * 2 + [(batch, length, 6)]
    return tuple(torch.randn(shape, generator=make) for shape in shapes)


def export(module: nn.Module, inputs: tuple[Tensor, ...], sizes: Any) -> Any:
    """The model, checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about itself
        program = torch.onnx.export(module.eval(), inputs, dynamo=True, dynamic_shapes=sizes, verbose=False)
    assert program is not None
    onnx.checker.check_model(program.model_proto, full_check=False)
    return program.model_proto


def run(model: Any, *inputs: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    named = zip(session.get_inputs(), inputs, strict=True)
    return [torch.from_numpy(t) for t in session.run(None, {slot.name: t.numpy() for slot, t in named})]


def exact(module: nn.Module, x: Tensor) -> Tensor:
    """What the module computes in float64, which is the reference."""
    with torch.no_grad():
        return copy.deepcopy(module).double()(x.double())  # type: ignore[no-any-return]


def kinds(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("states", [1, 3])
def test_a_sequence_of_any_batch_and_length(form: tuple[str, dict[str, int]], states: int) -> None:
    module, sizes = Scanned(states), {0: DYNAMIC, 1: DYNAMIC}
    with onnx_form(form[0], **form[1]):
        model = export(module, sequence(2, 45, states), dict.fromkeys(("u", "delta", "B", "C", "z"), sizes))
    assert {opset.domain for opset in model.opset_import} <= {"", "ai.onnx"}
    assert kinds(model).count("Scan") == (1 if form[0] == "scan" else 2)
    for batch, length in ((1, 1), (3, 100), (2, 64), (1, 7)):
        inputs = sequence(batch, length, states)
        u, delta, B, C, z = (t.double() for t in inputs)
        parameters = (t.detach().double() for t in (module.A, module.D, module.bias))
        A, D, bias = parameters
        expected = reference.selective_scan(u, delta, A, B, C, D, z, bias, None, True)
        close(tuple(t.double() for t in run(model, *inputs)), expected, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "states"), [("scan", 1), ("scan", 3), ("chunked", 3)]
)  # with one state a Scan differs
def test_an_image_of_any_batch_height_and_width(form: str, states: int) -> None:
    module, sizes = Image(states, scans=1), {0: DYNAMIC, 1: DYNAMIC, 2: DYNAMIC}
    with onnx_form(form, **RUNNABLE[form]):
        model = export(module, (torch.randn(2, 5, 7, 6),), (sizes,))
    for batch, height, width in ((1, 3, 4), (3, 9, 11), (2, 16, 4)):
        x = torch.randn(batch, height, width, 6, generator=torch.Generator().manual_seed(width))
        assert error_of(run(model, x)[0], exact(module, x)) < 2e-6


def test_without_a_choice_it_is_a_scan_and_sizes_may_be_fixed() -> None:
    module, x = Image(3, rank=None), torch.randn(2, 5, 7, 6, generator=torch.Generator().manual_seed(0))
    model = export(module, (x,), None)
    assert kinds(model).count("Scan") == 2
    assert not [node for node in model.graph.node if node.domain not in ("", "ai.onnx")]
    assert error_of(run(model, x)[0], exact(module, x)) < 2e-6


def test_chunks_shorten_what_runs_one_after_another() -> None:
    """The lengths that the two ``Scan`` nodes have: the steps of a chunk, and the number of chunks."""
    with onnx_form("chunked", chunk=8):
        model = export(Scanned(1), sequence(2, 45, 1), None)
    inferred = onnx.shape_inference.infer_shapes(model)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in inferred.graph.value_info}
    scans = [node for node in inferred.graph.node if node.op_type == "Scan"]
    assert sorted(shapes[node.input[-1]][0] for node in scans) == [
        6,
        8,
    ]  # 45 steps are 6 chunks of 8, the last not full


def test_a_node_of_our_own_domain() -> None:
    """Inputs in the order of the reference, absent ones empty, for whoever brings an implementation."""
    module, sizes = Scanned(3), {0: DYNAMIC, 1: DYNAMIC}
    with onnx_form("node"):
        model = export(module, sequence(2, 45, 3), dict.fromkeys(("u", "delta", "B", "C", "z"), sizes))
    domain, name = NODE.split("::")
    nodes = [node for node in model.graph.node if node.domain == domain]
    assert [node.op_type for node in nodes] == [name]
    assert "Scan" not in kinds(model)
    slots = list(nodes[0].input)
    assert [slots[i] for i in (0, 1, 3, 4, 6)] == [slot.name for slot in model.graph.input]  # all but parameters
    assert len([slot for slot in slots if slot]) == 8  # without the initial state
    attributes = {a.name: a.i for a in nodes[0].attribute}
    assert attributes["delta_softplus"] == 1
    assert domain in {opset.domain for opset in model.opset_import}
    assert [output.name for output in model.graph.output] == list(nodes[0].output)


def test_an_image_as_nodes() -> None:
    with onnx_form("node"):
        model = export(Image(2), (torch.randn(2, 5, 7, 6),), ({1: DYNAMIC},))
    assert [node.op_type for node in model.graph.node if node.domain == "triptych"] == ["SelectiveScan"] * 2
