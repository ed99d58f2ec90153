"""SS2D against golden values of VMamba's code, and against four loops over the positions of a small image."""

import math
from itertools import product
from zlib import crc32

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, silu, softplus

from vision.engine.errors import ConfigError
from vision.pose.ss2d import SS2D

# The settings, then mean, standard deviation, least, greatest, first, middle and last number of the output.
GOLDEN = [
    (
        {"gate": False, "conv_bias": False, "state_size": 1},
        (9.68568760e-4, 1.69733955e-1, -4.13376117e-1, 4.08295726e-1, 1.00134865e-1, 1.43970648e-1, 8.67449967e-3),
    ),
    (
        {"gate": True, "conv_bias": True, "state_size": 1},
        (-9.48557745e-5, 9.52491038e-2, -2.34191080e-1, 2.35849730e-1, 8.77329293e-2, 1.11067417e-1, 1.31829351e-2),
    ),
    (
        {"gate": True, "conv_bias": True, "state_size": 16},
        (-9.58279952e-5, 9.52763719e-2, -2.34110496e-1, 2.35724244e-1, 8.79830693e-2, 1.11014644e-1, 1.31934929e-2),
    ),
]


def fill(layer: SS2D) -> SS2D:
    """The weights that the golden values were made with: sines whose phase follows from the name."""
    state = {}
    for name, value in layer.state_dict().items():
        phase = (crc32(name.encode()) % 6283) / 1000
        s = torch.sin(1.7 * torch.arange(value.numel(), dtype=torch.float64) + phase).view(value.shape)
        if name == "A_logs":
            state[name] = 0.1 * s
        elif name == "Ds":
            state[name] = 1 + 0.1 * s
        elif name == "dt_projs_bias":
            state[name] = 0.5 * s
        elif name == "x_proj_weight":
            state[name] = math.sqrt(2 / layer.inner) * s
        elif name == "dt_projs_weight":
            state[name] = math.sqrt(2 / layer.rank) * s
        elif name == "out_norm.weight":
            state[name] = torch.ones_like(s)
        elif name.endswith("bias"):
            state[name] = 0.01 * s
        else:
            state[name] = math.sqrt(2 / value[0].numel()) * s
    layer.double().load_state_dict(state)
    return layer


def golden_input() -> Tensor:
    """``[N, H, W, C]`` of the golden values' ``[N, C, H, W]``."""
    image = torch.sin(0.05 * torch.arange(2 * 32 * 6 * 4, dtype=torch.float64)).view(2, 32, 6, 4)
    return image.permute(0, 2, 3, 1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 6e-10), (torch.float32, 1e-6)])
@pytest.mark.parametrize(("options", "expected"), GOLDEN)
def test_golden_values(
    options: dict[str, int], expected: tuple[float, ...], dtype: torch.dtype, tolerance: float
) -> None:
    """In float64 by the reference, in float32 by the kernels where they are built."""
    layer = fill(SS2D(32, **options)).to(dtype)
    with torch.no_grad():
        y = layer(golden_input().to(dtype)).permute(0, 3, 1, 2).double()
    flat = y.flatten()
    figures = (y.mean(), y.std(correction=0), y.min(), y.max(), flat[0], flat[len(flat) // 2], flat[-1])
    np.testing.assert_allclose([float(figure) for figure in figures], expected, rtol=0, atol=tolerance)


def by_loops(layer: SS2D, x: Tensor) -> Tensor:
    """SS2D of one image of 2 rows and 3 columns, position by position; the orders are written out."""
    orders = [(0, 1, 2, 3, 4, 5), (0, 3, 1, 4, 2, 5), (5, 4, 3, 2, 1, 0), (5, 2, 4, 1, 3, 0)]
    rank, states, inner = layer.rank, layer.state_size, layer.inner
    p = layer.in_proj(x[0])
    u = p[..., :inner].permute(2, 0, 1)
    convolved = torch.zeros_like(u)
    for row, column, i, j in product(range(2), range(3), range(3), range(3)):
        if 0 <= row + i - 1 < 2 and 0 <= column + j - 1 < 3:
            convolved[:, row, column] += u[:, row + i - 1, column + j - 1] * layer.conv2d.weight[:, 0, i, j]
    if layer.conv2d.bias is not None:
        convolved = convolved + layer.conv2d.bias[:, None, None]
    u = silu(convolved).flatten(1).t()  # [L, E]
    y = torch.zeros_like(u)
    for k, order in enumerate(orders):
        h = torch.zeros(inner, states, dtype=x.dtype)
        A = -torch.exp(layer.A_logs[k * inner : (k + 1) * inner])
        for position in order:
            d, B, C = (layer.x_proj_weight[k] @ u[position]).split([rank, states, states])
            step = softplus(layer.dt_projs_weight[k] @ d + layer.dt_projs_bias[k])[:, None]
            h = torch.exp(step * A) * h + step * B * u[position][:, None]
            y[position] += h @ C + layer.Ds[k * inner : (k + 1) * inner] * u[position]
    y = layer_norm(y, (inner,), layer.out_norm.weight, layer.out_norm.bias)
    if layer.gate:
        y = y * silu(p[..., inner:].flatten(0, 1))
    return layer.out_proj(y).view(1, 2, 3, -1)


@pytest.mark.parametrize("options", [{}, {"gate": False, "ratio": 1.5}, {"state_size": 3, "conv_bias": False}])
def test_it_is_four_loops_over_the_positions(options: dict[str, float]) -> None:
    torch.manual_seed(0)
    layer = fill(SS2D(4, **options))  # type: ignore[arg-type]
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), by_loops(layer, x), rtol=1e-12, atol=1e-13)


def test_names_and_shapes_are_those_of_vmamba() -> None:
    shapes = {name: tuple(value.shape) for name, value in SS2D(32, state_size=16).state_dict().items()}
    assert shapes == {
        "in_proj.weight": (128, 32),
        "conv2d.weight": (64, 1, 3, 3),
        "conv2d.bias": (64,),
        "x_proj_weight": (4, 34, 64),
        "dt_projs_weight": (4, 64, 2),
        "dt_projs_bias": (4, 64),
        "A_logs": (256, 16),
        "Ds": (256,),
        "out_norm.weight": (64,),
        "out_norm.bias": (64,),
        "out_proj.weight": (32, 64),
    }
    plain = SS2D(32, gate=False, conv_bias=False).state_dict()
    assert plain["in_proj.weight"].shape == (64, 32)
    assert plain["x_proj_weight"].shape == (4, 4, 64)
    assert "conv2d.bias" not in plain


@pytest.mark.parametrize("channels", [16, 40])
@pytest.mark.parametrize(
    ("ratio", "states", "gate", "bias"), list(product((1, 2, 2.5), (1, 16), (True, False), (True, False)))
)
def test_parameters_follow_the_formula(channels: int, ratio: float, states: int, gate: bool, bias: bool) -> None:
    C, E, N, R = channels, round(ratio * channels), states, -(-channels // 16)
    expected = C * E * (1 + gate) + 9 * E + bias * E + 4 * (R + 2 * N) * E + 4 * E * R + 4 * E + 4 * E * N + 4 * E
    expected += 2 * E + E * C
    layer = SS2D(channels, states, ratio, gate, bias)
    assert sum(p.numel() for p in layer.parameters()) == expected
    if channels == 16 and (ratio, states, gate, bias) == (2, 1, True, True):
        assert expected == 7 * C * C + 64 * C


def test_initial_values() -> None:
    torch.manual_seed(0)
    layer = SS2D(64, state_size=4)
    steps = softplus(layer.dt_projs_bias)
    assert steps.min() >= 0.000999
    assert steps.max() <= 0.1001
    assert 0.005 < steps.log().mean().exp() < 0.02  # uniform in the logarithm: its middle is 0.01
    torch.testing.assert_close(layer.A_logs.exp(), torch.arange(1.0, 5).expand(512, 4))
    assert torch.equal(layer.Ds, torch.ones(512))
    assert 0.3 < layer.dt_projs_weight.max() <= 0.5
    assert float(layer.in_proj.weight.detach().std()) == pytest.approx(0.02, rel=0.05)


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    layer = fill(SS2D(2, state_size=2))
    x = torch.randn(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    values = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    assert torch.autograd.gradcheck(run, (x, *values))


def test_without_gradients_the_same_comes_out_and_the_input_stays() -> None:
    torch.manual_seed(0)
    layer, x = SS2D(16), torch.randn(2, 5, 7, 16)
    before = x.clone()
    with torch.no_grad():
        quick = layer(x)
    assert torch.equal(x, before)
    torch.testing.assert_close(quick, layer(x).detach())


def test_under_autocast_the_scan_stays_finite_and_near() -> None:
    torch.manual_seed(0)
    layer, x = SS2D(16), torch.randn(2, 6, 5, 16)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = layer(x)
    whole = layer(x)
    assert torch.isfinite(mixed).all()
    assert (mixed.float() - whole).abs().max() < 0.03 * whole.abs().max()


@pytest.mark.parametrize("options", [{"channels": 0}, {"state_size": 0}, {"ratio": 0.3}, {"ratio": -2.0}])
def test_sizes_that_cannot_be_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="SS2D"):
        SS2D(**{"channels": 16, **options})  # type: ignore[arg-type]
