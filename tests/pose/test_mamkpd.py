"""MamKPD: counts to the unit, operations, deployment, and that its parts do what their equations say."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vision.engine.errors import ConfigError
from vision.engine.registry import build
from vision.ops.selective_scan import backend
from vision.pose.mamkpd import CMM, MamKPD, Stem, mamkpd_b, mamkpd_l, mamkpd_s, mamkpd_t
from vision.pose.network import CROPS_A_THREAD, parameter_groups

Variant = Callable[..., MamKPD]

# Of each variant: stem, widths, depths, hidden channels; parameters with 17 and with 16 keypoints; GMAC at 256x192.
TABLE: dict[Variant, tuple[int, tuple[int, ...], tuple[int, ...], int, int, int, float]] = {
    mamkpd_t: (16, (32, 64, 128), (2, 2, 5), 64, 1_185_697, 1_185_632, 0.452),
    mamkpd_s: (24, (48, 96, 192), (2, 2, 7), 128, 3_366_537, 3_366_408, 1.181),
    mamkpd_b: (32, (64, 128, 256), (2, 2, 7), 192, 6_134_897, 6_134_704, 2.171),
    mamkpd_l: (48, (96, 192, 384), (2, 2, 7), 256, 13_188_609, 13_188_352, 4.537),
}
VARIANTS = list(TABLE)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small(**options: Any) -> MamKPD:
    given: dict[str, Any] = {
        "keypoints": 3,
        "input_size": (48, 64),
        "decoder": "deconv",
        "state_size": 1,
        "ratio": 2.0,
        "gate": True,
        "mlp_ratio": 0.0,
        "drop_path": 0.0,
        "in_channels": 3,
        "weights": None,
    }
    torch.manual_seed(0)
    return MamKPD(16, (32, 64, 128), options.pop("depths", (1, 1, 2)), 64, **given | options)


def lived_in(network: nn.Module) -> nn.Module:
    """Statistics, scales and shifts as training leaves them, so that nothing is an identity by chance."""
    generator = torch.Generator().manual_seed(7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.2, generator=generator)
        if isinstance(module, nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0, 0.05, generator=generator)
    decoder: Any = network.decoder
    nn.init.normal_((decoder.last if hasattr(decoder, "last") else decoder.maps).weight, 0, 0.05, generator=generator)
    return network.eval()


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_are_those_of_the_table(variant: Variant) -> None:
    with torch.device("meta"):
        assert count(variant()) == TABLE[variant][4]
        assert count(variant(keypoints=16)) == TABLE[variant][5]


@pytest.mark.parametrize("K", [1, 17, 133])
@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_are_those_of_the_closed_form(variant: Variant, K: int) -> None:
    stem, widths, depths, hc, *_ = TABLE[variant]
    total, before = 171 * stem, stem
    for C, n in zip(widths, depths, strict=True):
        total += 9 * before * C + 2 * C + 8 * C * C + 69 * C + n * (7 * C * C + 66 * C)
        before = C
    total += 2 * before + 16 * before * hc + 2 * hc + 16 * hc * hc + 2 * hc + K * hc + K
    with torch.device("meta"):
        assert count(variant(keypoints=K)) == total


@pytest.mark.parametrize(
    ("options", "millions"),
    [
        ({"state_size": 16}, 14.36),
        ({"gate": False}, 10.93),
        ({"gate": False, "ratio": 1}, 8.02),
        ({"decoder": "simple"}, 10.62),
    ],
)
def test_parameters_of_other_settings(options: dict[str, Any], millions: float) -> None:
    with torch.device("meta"):
        assert int(count(mamkpd_l(**options)) / 1e4) / 100 == millions


def test_parts_have_the_parameters_of_the_arithmetic() -> None:
    with torch.device("meta"):
        network = mamkpd_l()
    down = [count(stage.down) + count(stage.norm) for stage in network.stages]  # type: ignore[arg-type]
    assert count(network.stem) == 8_208
    assert down == [41_664, 166_272, 664_320]
    assert [count(stage.cmm) for stage in network.stages] == [80_352, 308_160, 1_206_144]  # type: ignore[arg-type]
    assert [count(stage.blocks[0]) for stage in network.stages] == [70_848, 270_720, 1_057_536]  # type: ignore
    assert count(network.decoder) == 2_626_833
    assert count(network.norm) == 768


def test_a_feed_forward_block_is_added_where_asked_for() -> None:
    with torch.device("meta"):
        plain, fed = mamkpd_t(), mamkpd_t(mlp_ratio=4.0)
    extra = sum(n * (8 * C * C + 7 * C) for C, n in zip((32, 64, 128), (2, 2, 5), strict=True))
    assert count(fed) - count(plain) == extra


@pytest.mark.parametrize("variant", VARIANTS)
def test_operations_are_those_of_the_table(variant: Variant) -> None:
    """Multiplications of convolutions and matrix products, as PyTorch's own counter sees them.

    The counter does not see into the kernels, where the low-rank products of the step sizes are, nor into oneDNN.
    """
    network = variant().eval()
    plain = torch.backends.mkldnn.flags(enabled=False)  # type: ignore[attr-defined]
    with FlopCounterMode(display=False) as counter, torch.no_grad(), plain:
        network(torch.zeros(1, 3, 256, 192))
    counted = counter.get_total_flops() / 2
    if backend() != "reference":
        _, widths, depths, *_ = TABLE[variant]
        inside = [
            n * 4 * length * 2 * C * (C // 16) for C, n, length in zip(widths, depths, (3072, 768, 192), strict=True)
        ]
        counted += sum(inside)
    assert counted / 1e9 == pytest.approx(TABLE[variant][6], abs=6e-4)


@pytest.mark.parametrize("size", [(256, 192), (384, 288), (100, 75), (17, 33)])
def test_any_input_size_gives_heatmaps_of_a_quarter(size: tuple[int, int]) -> None:
    heatmaps = small().eval()(torch.randn(1, 3, *size))
    assert heatmaps.shape == (1, 3, -(-size[0] // 4), -(-size[1] // 4))


def test_points_of_the_plan() -> None:
    """Strides 2, 4, 8 and 16 for a crop of 256 rows and 192 columns."""
    network, x = mamkpd_t().eval(), torch.randn(1, 3, 256, 192)
    with torch.no_grad():
        x = network.stem(x)
        shapes = [x.shape]
        for stage in network.stages:
            x = stage(x)
            shapes.append(x.shape)
    assert [tuple(s[1:]) for s in shapes] == [(16, 128, 96), (32, 64, 48), (64, 32, 24), (128, 16, 12)]


def test_stem_is_its_equations() -> None:
    torch.manual_seed(0)
    stem = Stem(3, 4).double().eval()
    x = torch.randn(1, 3, 9, 8, dtype=torch.float64)
    convolutions = [module for module in stem.modules() if isinstance(module, nn.Conv2d)]
    scale = (1 + 1e-5) ** -0.5  # of a fresh batch norm
    y = F.gelu(F.conv2d(x, convolutions[0].weight, stride=2, padding=3) * scale)
    for layer in convolutions[1:]:
        y = y + F.gelu(F.conv2d(y, layer.weight, padding=1, groups=4) * scale)
    assert len(convolutions) == 3
    torch.testing.assert_close(stem(x), y)


def test_cmm_is_one_convolution_when_deployed() -> None:
    torch.manual_seed(0)
    module = CMM(6).double().eval()
    for norm in (module.near[1], module.far[1]):
        assert isinstance(norm, nn.BatchNorm2d)
        norm.running_mean, norm.running_var = torch.randn(6).double(), torch.rand(6).double() + 0.5
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    x = torch.randn(2, 9, 5, 6, dtype=torch.float64)
    deployed = copy.deepcopy(module)
    deployed.deploy()
    deployed.deploy()  # a second time changes nothing
    assert [type(m) for m in deployed.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)] == [nn.Conv2d]
    torch.testing.assert_close(deployed(x), module(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [{}, {"decoder": "simple"}, {"decoder": "simcc"}, {"gate": False, "state_size": 4, "mlp_ratio": 2.0}],
)
def test_deployed_outputs_are_equal(options: dict[str, Any]) -> None:
    network = lived_in(small(**options))
    deployed = copy.deepcopy(network).deploy()  # type: ignore[operator]
    images = torch.randn(3, 3, 64, 48)
    with torch.no_grad():
        torch.testing.assert_close(deployed(images), network(images), rtol=1e-5, atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in deployed.modules())
    assert deployed.deploy() is deployed


@pytest.mark.parametrize("variant", VARIANTS)
def test_deployed_variants_are_equal(variant: Variant) -> None:
    torch.manual_seed(0)
    network = lived_in(variant())
    deployed = copy.deepcopy(network).deploy()  # type: ignore[operator]
    images = torch.randn(1, 3, 128, 96)
    with torch.no_grad():
        torch.testing.assert_close(deployed(images), network(images), rtol=1e-5, atol=1e-5)
    assert count(deployed) < count(network)


@pytest.mark.parametrize("decoder", ["deconv", "simcc"])
def test_a_large_batch_in_parts_is_the_whole_batch(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gradients a batch goes through in parts; with gradients as a whole."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    network = small(decoder=decoder).eval()
    seen: list[int] = []
    network.stem.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    images = torch.randn(2 * CROPS_A_THREAD + 3, 3, 64, 48)
    with torch.no_grad():
        parts = network(images)
    assert seen == [CROPS_A_THREAD, CROPS_A_THREAD, 3]
    whole = network(images)
    assert seen[3:] == [2 * CROPS_A_THREAD + 3]
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)


def test_a_batch_is_never_taken_in_parts_in_training() -> None:
    """Its statistics are of all samples: twice the same crops, half of them apart, would differ."""
    network = small().train()
    images = torch.randn(CROPS_A_THREAD + 1, 3, 64, 48)
    first, second = copy.deepcopy(network), network
    with torch.no_grad():
        torch.testing.assert_close(first(images), second(images))
    with_gradients = copy.deepcopy(small().train())
    with_gradients(images)
    torch.testing.assert_close(
        first.stem.first[1].running_mean, with_gradients.stem.first[1].running_mean, rtol=1e-4, atol=1e-6
    )


def test_drop_path_leaves_out_residuals_in_training_alone() -> None:
    network = small(drop_path=0.4)
    rates = [block.drop_path.p for stage in network.stages for block in stage.blocks]  # type: ignore[union-attr]
    assert rates == pytest.approx([0, 0.4 / 3, 0.8 / 3, 0.4])
    block = network.stages[2].blocks[1]  # type: ignore[index]
    x = torch.randn(64, 2, 2, 128)
    torch.manual_seed(0)
    out = block.train()(x)
    left_out = (out == x).flatten(1).all(1)
    assert 0.2 < left_out.float().mean() < 0.6
    full = block.eval()(x)
    kept = ~left_out
    torch.testing.assert_close((out - x)[kept] * 0.6, (full - x)[kept], rtol=1e-4, atol=1e-6)


def test_weight_decay_leaves_alone_what_it_should() -> None:
    network = small()
    names = {id(p): name for name, p in network.named_parameters()}
    decayed, kept = parameter_groups(network)
    assert "weight_decay" not in decayed
    assert kept["weight_decay"] == 0.0
    of = {key: {names[id(p)] for p in group["params"]} for key, group in (("decayed", decayed), ("kept", kept))}
    assert of["decayed"] | of["kept"] == set(names.values())
    endings = {"A_logs", "Ds", "dt_projs_bias", "bias", "weight"}
    assert {name.rsplit(".", 1)[-1] for name in of["kept"]} == endings
    assert {name.rsplit(".", 1)[-1] for name in of["decayed"]} == {"weight", "x_proj_weight", "dt_projs_weight"}
    assert all(network.get_parameter(name).ndim > 1 for name in of["decayed"])
    assert network.no_weight_decay() == of["kept"]


@pytest.mark.slow
def test_it_learns_blobs() -> None:
    """Heatmaps of three coloured spots; a network that says nothing is wrong by 0.016."""
    network = small().train()
    optimizer = torch.optim.AdamW(parameter_groups(network), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.arange(64.0).view(-1, 1), torch.arange(48.0)
    losses = []
    for _ in range(80):
        places = torch.rand(8, 3, 2, generator=generator) * torch.tensor([60.0, 44.0]) + 2
        r, c = places[..., 0, None, None], places[..., 1, None, None]
        spots = torch.exp(-((rows - r) ** 2 + (columns - c) ** 2) / 18)
        images = spots + 0.1 * torch.randn(8, 3, 64, 48, generator=generator)
        target = torch.exp(-((rows[::4] - r) ** 2 + (columns[::4] - c) ** 2) / 48)
        loss = F.mse_loss(network(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 0.012
    assert sum(losses[-5:]) / 5 < 0.006


def test_recipes_build_it_and_mistakes_are_named() -> None:
    network = build({"type": "mamkpd_t", "keypoints": 14, "input_size": [96, 128], "decoder": "simcc"}, "network")
    columns, rows = network.eval()(torch.randn(1, 3, 128, 96))
    assert (columns.shape, rows.shape) == ((1, 14, 192), (1, 14, 256))
    for key, value in (("drop_path", 1.0), ("ratio", 0), ("decoder", "dekonv"), ("keypoints", 0), ("mlp_ratio", -1)):
        with pytest.raises(ConfigError, match=key):
            build({"type": "mamkpd_t", key: value}, "network")


def test_no_nan_under_autocast() -> None:
    network = small().train()
    with torch.autocast("cpu", torch.bfloat16):
        output: Tensor = network(torch.randn(4, 3, 64, 48))
        loss = output.float().square().mean()
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@pytest.mark.slow
def test_exported_to_onnx_it_gives_the_same() -> None:
    """By standard operators alone, with batches of any size; run by onnxruntime."""
    pytest.importorskip("onnxscript", reason="no onnxscript")
    runtime = pytest.importorskip("onnxruntime", reason="no onnxruntime")
    network = lived_in(small(depths=(1, 1, 1))).deploy()  # type: ignore[operator]
    images = torch.randn(2, 3, 64, 48)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.onnx.export(network, (images,), dynamo=True, dynamic_shapes=({0: batch},), verbose=False)
    assert program is not None
    model = program.model_proto
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for count_ in (1, 2, CROPS_A_THREAD + 3):
        given = torch.randn(count_, 3, 64, 48)
        (output,) = session.run(None, {session.get_inputs()[0].name: given.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(output), network(given), rtol=1e-4, atol=2e-5)
