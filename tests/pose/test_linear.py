"""Linear layers in one pass: equal to PyTorch's, taken where they may be and nowhere else."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vision.pose.linear import Activation, linear
from vision.pose.mamkpd import mamkpd_t

THERE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
needs_onednn = pytest.mark.skipif(not THERE, reason="this PyTorch is built without oneDNN")


class Seen(TorchDispatchMode):
    """Names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))

    @property
    def in_one_pass(self) -> int:
        return sum("_linear_pointwise" in name for name in self.names)


def expected(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
    y = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    return {"none": y, "gelu": F.gelu(y), "silu": y * torch.sigmoid(y)}[activation]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 5), max_size=3), st.integers(1, 70), st.integers(1, 70), st.booleans(),
    st.sampled_from(["none", "gelu", "silu"]), st.booleans(),
)  # fmt: skip
def test_it_is_the_layer_and_then_the_activation(
    leading: list[int], inputs: int, outputs: int, with_bias: bool, activation: Activation, gradients: bool
) -> None:
    torch.manual_seed(inputs)
    x, weight = torch.randn(*leading, inputs), torch.randn(outputs, inputs)
    bias = torch.randn(outputs) if with_bias else None
    given_x = x.clone()
    with torch.set_grad_enabled(gradients):
        y = linear(x, weight, bias, activation)
    assert y.shape == (*leading, outputs)
    torch.testing.assert_close(y.double(), expected(x, weight, bias, activation), rtol=1e-4, atol=1e-4)
    assert torch.equal(x, given_x)


def test_memory_of_any_order_is_taken() -> None:
    x, weight = torch.randn(2, 8, 5, 3).permute(0, 2, 3, 1), torch.randn(8, 6).T
    with torch.no_grad():
        y = linear(x, weight, None, "gelu")
    torch.testing.assert_close(y.double(), expected(x, weight, None, "gelu"), rtol=1e-5, atol=1e-5)


@contextmanager
def half() -> Iterator[None]:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        yield


@contextmanager
def switched_off() -> Iterator[None]:
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):  # type: ignore[attr-defined]
        yield


@needs_onednn
@pytest.mark.parametrize(
    ("how", "dtype", "passes"),
    [
        (torch.no_grad, torch.float32, 1),
        (torch.inference_mode, torch.float32, 1),
        (torch.no_grad, torch.float64, 0),
        (torch.enable_grad, torch.float32, 0),
        (half, torch.float32, 0),
        (switched_off, torch.float32, 0),
    ],
)
def test_where_it_is_one_pass(how: Any, dtype: torch.dtype, passes: int) -> None:
    x, weight = torch.randn(3, 4, dtype=dtype), torch.randn(5, 4, dtype=dtype)
    with Seen() as seen, how():
        linear(x, weight, None, "silu")
    assert seen.in_one_pass == passes


@needs_onednn
def test_a_network_uses_it_in_inference_and_says_the_same_without() -> None:
    torch.manual_seed(0)
    network = mamkpd_t(decoder="simple").eval()
    torch.nn.init.normal_(network.decoder.last.weight, std=0.05)  # type: ignore[union-attr, arg-type]
    images = torch.randn(1, 3, 64, 48)
    with Seen() as seen, torch.no_grad():
        found = network(images)
    assert seen.in_one_pass == 3 * 2 + 9 * 4  # of each CMM two, of each of the 2 + 2 + 5 blocks four
    with switched_off():
        torch.testing.assert_close(found, network(images), rtol=1e-4, atol=1e-5)
    deployed = copy.deepcopy(network).deploy()
    with torch.no_grad():
        torch.testing.assert_close(deployed(images), found, rtol=1e-4, atol=1e-5)


@needs_onednn
def test_an_export_has_standard_operators_alone() -> None:
    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(5, 4))

        def forward(self, x: Tensor) -> Tensor:
            return linear(x, self.weight, None, "gelu")

    x = torch.randn(3, 4)
    with torch.no_grad():
        for strict in (False, True):
            program = torch.export.export(Layer(), (x,), strict=strict)
            assert not [node for node in program.graph.nodes if "mkldnn" in str(node.target)]
        traced = torch.jit.trace(Layer(), (x,))
        assert "mkldnn" not in str(traced.graph)
