"""Decoders: counts in closed form, each against its equations written out, and what they refuse."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision.engine.errors import ConfigError
from vision.pose.decoders import (
    DeconvDecoder,
    Doubling,
    GatedAttention,
    ScaleNorm,
    SimCCDecoder,
    SimpleDecoder,
    build_decoder,
)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("stride", "ups"), [(4, 0), (8, 1), (16, 2), (32, 3)])
def test_heatmaps_have_a_quarter_of_the_size_from_every_stride(stride: int, ups: int) -> None:
    features = torch.randn(2, 12, 64 // stride, 96 // stride)
    for decoder in (DeconvDecoder(12, stride, 5, 8), SimpleDecoder(12, stride, 5)):
        assert decoder(features).shape == (2, 5, 16, 24)
    assert len(DeconvDecoder(12, stride, 5, 8).doublings) == ups


@pytest.mark.parametrize(("C", "h", "K"), [(128, 64, 17), (384, 256, 16)])
def test_parameters_follow_the_formulas(C: int, h: int, K: int) -> None:
    assert count(DeconvDecoder(C, 16, K, h)) == 16 * C * h + 2 * h + 16 * h * h + 2 * h + K * h + K
    assert count(SimpleDecoder(C, 16, K)) == 9 * C * K + K
    hidden, inner, shared = 256, 512, 128
    attention = 1 + hidden * (2 * inner + shared) + 4 * shared + inner * hidden + hidden
    expected = 49 * C * K + K + 1 + 192 * hidden + attention + hidden * (384 + 512)
    assert count(SimCCDecoder(C, (12, 16), K, (192, 256))) == expected


def test_the_simple_decoder_of_384_channels_has_58769_parameters() -> None:
    assert count(SimpleDecoder(384, 16, 17)) == 58_769


def test_doubling_is_an_interleaved_sum_over_the_4x4_kernel() -> None:
    """Output 2i - 1 + a collects input i times the kernel's element a; written as loops."""
    torch.manual_seed(0)
    layer = Doubling(3, 2).double().eval()
    nn.init.normal_(layer.conv.weight)
    x = torch.randn(1, 3, 4, 5, dtype=torch.float64)
    wide = torch.zeros(1, 2, 10, 12, dtype=torch.float64)  # one more on each side than the output
    for i in range(4):
        for j in range(5):
            wide[0, :, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += torch.einsum(
                "c,coab->oab", x[0, :, i, j], layer.conv.weight.detach()
            )
    expected = F.relu(wide[..., 1:-1, 1:-1] / (1 + 1e-5) ** 0.5)
    torch.testing.assert_close(layer(x).detach(), expected)


def test_deployed_doubling_is_the_same_without_its_norm() -> None:
    torch.manual_seed(0)
    layer = Doubling(3, 4).double()
    assert isinstance(layer.norm, nn.BatchNorm2d)
    nn.init.normal_(layer.norm.weight)
    nn.init.normal_(layer.norm.bias)
    layer.norm.running_mean, layer.norm.running_var = torch.randn(4).double(), torch.rand(4).double() + 0.5
    layer.eval()
    deployed = copy.deepcopy(layer)
    deployed.deploy()
    deployed.deploy()  # a second time changes nothing
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(deployed(x), layer(x))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in deployed.modules())


def test_decoding_begins_near_zero() -> None:
    torch.manual_seed(0)
    decoder = DeconvDecoder(32, 16, 4, 16)
    assert float(decoder.last.weight.detach().std()) == pytest.approx(1e-3, rel=0.3)
    assert decoder.last.bias is not None
    assert torch.count_nonzero(decoder.last.bias) == 0


def test_scale_norm_brings_vectors_to_the_root_of_their_width() -> None:
    x = torch.randn(5, 9, dtype=torch.float64)
    norm = ScaleNorm(9).double()
    torch.testing.assert_close(norm(x).norm(dim=-1), torch.full((5,), 3.0, dtype=torch.float64))
    assert torch.isfinite(norm(torch.zeros(2, 9, dtype=torch.float64))).all()


def attention_by_loops(unit: GatedAttention, x: Tensor) -> Tensor:
    """One token after another, from the paper's equations."""
    inner, _, shared = unit.widths
    unit_vectors = [t / t.norm() * len(t) ** 0.5 for t in x]
    rows = [F.silu(unit.into.weight @ t) for t in unit_vectors]
    u, v, s = ([row[a:b] for row in rows] for a, b in ((0, inner), (inner, 2 * inner), (2 * inner, None)))
    queries = [t * unit.gamma[0] + unit.beta[0] for t in s]
    keys = [t * unit.gamma[1] + unit.beta[1] for t in s]
    outputs = []
    for i in range(len(x)):
        mixed = sum(torch.relu(queries[i] @ keys[j] / shared**0.5) ** 2 * v[j] for j in range(len(x)))
        outputs.append(x[i] * unit.shortcut + unit.out.weight @ (u[i] * mixed))
    return torch.stack(outputs)


def test_gated_attention_is_its_equations() -> None:
    torch.manual_seed(0)
    unit = GatedAttention(6, shared=4).double()
    nn.init.normal_(unit.shortcut)
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    expected = torch.stack([attention_by_loops(unit, sample) for sample in x])
    torch.testing.assert_close(unit(x), expected)


def test_simcc_has_two_bins_a_pixel() -> None:
    columns, rows = SimCCDecoder(8, (6, 8), 5, (96, 128))(torch.randn(3, 8, 8, 6))
    assert columns.shape == (3, 5, 192)
    assert rows.shape == (3, 5, 256)


def test_simcc_refuses_another_size_and_says_which() -> None:
    decoder = SimCCDecoder(8, (6, 8), 5, (96, 128))
    with pytest.raises(ConfigError, match=r"made for crops of 96x128 pixels .* 6x8 cells; got 8x6"):
        decoder(torch.randn(1, 8, 6, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("deconv", 8, 14, 17, (192, 256)), "stride 14 cannot be decoded; expected 4, 8, 16 or 32"),
        (("simple", 8, 2, 17, (192, 256)), "stride 2 cannot be decoded"),
        (("deconv", 8, 16, 0, (192, 256)), "keypoints: 0, expected 1 or more"),
        (("dekonv", 8, 16, 17, (192, 256)), "decoder: got 'dekonv', expected 'deconv', 'simple' or 'simcc'"),
    ],
)
def test_what_cannot_be_built_is_said(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_decoder(*arguments)  # type: ignore[arg-type]
