"""Heatmap codecs: round trips, decoders against numpy and scipy written out, losses in closed form, mirrored crops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from torch import Tensor

from vision.engine.errors import ConfigError
from vision.engine.registry import build
from vision.pose.codecs import Codec, HeatmapCodec, QuarterHeatmap, UDPHeatmap
from vision.pose.simcc import SimCC

SIZES = [(192, 256), (256, 256), (288, 384), (64, 48)]
Array = NDArray[np.float64]


def joints(*pairs: tuple[float, float]) -> tuple[Tensor, Tensor]:
    return torch.tensor([pairs], dtype=torch.float32), torch.full((1, len(pairs)), 2.0)


def smooth_maps(seed: int, shape: tuple[int, ...] = (2, 5, 64, 48)) -> Array:
    """Noise, blurred, with its peaks anywhere: what a half-trained network gives."""
    noise = np.random.default_rng(seed).random(shape)
    for axis in (-1, -2):
        noise = correlate1d(noise, np.hanning(9) / np.hanning(9).sum(), axis=axis, mode="constant")
    return noise


def dark(heatmap: Array, kernel: int) -> tuple[float, float] | None:
    """DARK as published, one map at a time; None where the Hessian is not negative definite."""
    sigma = 0.3 * ((kernel - 1) / 2 - 1) + 0.8
    taps = np.exp(-((np.arange(kernel) - kernel // 2) ** 2) / (2 * sigma**2))
    blurred = heatmap
    for axis in (0, 1):
        blurred = correlate1d(blurred, taps / taps.sum(), axis=axis, mode="constant")
    logarithm = np.log(np.clip(blurred * heatmap.max() / blurred.max(), 1e-3, 50))
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    value = {(i, j): logarithm[y + j, x + i] for i in (-1, 0, 1) for j in (-1, 0, 1)}
    gradient = np.array([(value[1, 0] - value[-1, 0]) / 2, (value[0, 1] - value[0, -1]) / 2])
    xx = value[1, 0] - 2 * value[0, 0] + value[-1, 0]
    yy = value[0, 1] - 2 * value[0, 0] + value[0, -1]
    xy = (value[1, 1] + value[-1, -1] + 2 * value[0, 0] - sum(value[p] for p in ((1, 0), (0, 1), (-1, 0), (0, -1)))) / 2
    hessian = np.array([[xx, xy], [xy, yy]]) + np.finfo(np.float32).eps * np.eye(2)
    if np.linalg.eigvalsh(hessian).max() >= 0:
        return None
    moved = np.array([x, y]) - np.linalg.inv(hessian) @ gradient
    return float(moved[0]), float(moved[1])


def quarter(heatmap: Array) -> tuple[float, float]:
    """A quarter pixel towards the higher neighbour."""
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    height, width = heatmap.shape
    dx = 0.25 * np.sign(heatmap[y, x + 1] - heatmap[y, x - 1]) if 0 < x < width - 1 else 0.0
    dy = 0.25 * np.sign(heatmap[y + 1, x] - heatmap[y - 1, x]) if 0 < y < height - 1 else 0.0
    return float(x + dx), float(y + dy)


def on_map(codec: HeatmapCodec, decoded: Tensor) -> Tensor:
    """Pixels of the crop as pixels of the map."""
    return decoded * (torch.tensor(codec.size) - 1) / (torch.tensor(codec.input_size) - 1)


share = st.floats(0, 1, allow_subnormal=False)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SIZES), st.lists(st.tuples(share, share), min_size=1, max_size=4))
def test_udp_round_trip(size: tuple[int, int], shares: list[tuple[float, float]]) -> None:
    codec = UDPHeatmap(size)
    true, visible = joints(*((x * (size[0] - 1), y * (size[1] - 1)) for x, y in shares))
    targets = codec.encode(true, visible)
    decoded, scores = codec.decode(targets["heatmap"])
    assert targets["weight"].min() == 1
    assert on_map(codec, decoded - true).abs().max() < 0.1  # everywhere in the crop, border and corners too
    assert scores.min() > math.exp(-0.25 / codec.sigma**2) - 1e-4  # at most half a pixel off along both axes


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(SIZES), st.lists(st.tuples(share, share), min_size=1, max_size=4))
def test_simcc_round_trip(size: tuple[int, int], shares: list[tuple[float, float]]) -> None:
    codec = SimCC(size)
    true, visible = joints(*((x * (size[0] - 1), y * (size[1] - 1)) for x, y in shares))
    targets = codec.encode(true, visible)
    decoded, scores = codec.decode((targets["x"], targets["y"]))
    bins = (torch.tensor(codec.bins) - 1) / (torch.tensor(size) - 1)
    assert ((decoded - true) * bins).abs().max() < 0.1
    assert scores.min() > 0.8


quarters = st.sampled_from([-0.25, 0.0, 0.25])


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 46), st.integers(1, 62), quarters, quarters)
def test_quarter_round_trip_on_its_own_grid(x: int, y: int, dx: float, dy: float) -> None:
    """What the decoder can name at all comes back exactly; maps are float64 so that a symmetric one is symmetric."""
    codec = QuarterHeatmap((189, 253), stride=1)  # one pixel of the crop is one of the map
    true = torch.tensor([[[x + dx, y + dy]]], dtype=torch.float64)
    heatmap = codec.encode(true, torch.ones(1, 1))["heatmap"]
    assert torch.allclose(codec.decode(heatmap)[0].double(), true, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(SIZES), share, share)
def test_quarter_is_never_further_than_a_quarter(size: tuple[int, int], x: float, y: float) -> None:
    codec = QuarterHeatmap(size)
    last = torch.tensor(codec.size) - 2.0  # a peak on the border has no neighbour to compare
    place = 1 + torch.tensor([x, y]) * (last - 1)
    true = (place * (torch.tensor(size) - 1) / (torch.tensor(codec.size) - 1)).view(1, 1, 2)
    decoded, _ = codec.decode(codec.encode(true, torch.ones(1, 1))["heatmap"])
    assert on_map(codec, decoded - true).abs().max() <= 0.25 + 1e-4


@pytest.mark.parametrize(("width", "kernel"), [(None, 11), (5, 5)])
def test_dark_against_the_formula(width: int | None, kernel: int) -> None:
    codec = UDPHeatmap((192, 256), blur=width)
    maps = smooth_maps(0, (6, 20, 64, 48))
    decoded = on_map(codec, codec.decode(torch.from_numpy(maps))[0]).numpy()
    compared = 0
    for found, heatmap in zip(decoded.reshape(-1, 2), maps.reshape(-1, 64, 48), strict=True):
        y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
        expected = dark(heatmap, kernel) if 4 <= x <= 43 and 4 <= y <= 59 else None
        if expected is not None and np.abs(np.array(expected) - (x, y)).max() <= kernel // 2:
            assert found == pytest.approx(expected, abs=5e-3), (x, y)
            compared += 1
    assert compared > 30


def test_quarter_against_the_formula() -> None:
    codec = QuarterHeatmap((192, 256))
    maps = smooth_maps(1)
    maps[0, 0, 0, 0] = maps[0, 1, 63, 20] = maps[0, 2, 30, 47] = 2  # a corner and two borders
    decoded = on_map(codec, codec.decode(torch.from_numpy(maps))[0]).numpy()
    expected = [quarter(heatmap) for heatmap in maps.reshape(-1, 64, 48)]
    assert np.allclose(decoded.reshape(-1, 2), expected, atol=1e-4)


def test_quarter_golden() -> None:
    heatmap = torch.zeros(1, 2, 8, 8)
    heatmap[0, 0, 4, 4], heatmap[0, 0, 4, 5], heatmap[0, 0, 3, 4] = 1, 0.5, 0.2
    heatmap[0, 1, 7, 0] = 1
    codec = QuarterHeatmap((8, 8), stride=1)
    decoded, scores = codec.decode(heatmap)
    assert torch.allclose(decoded[0], torch.tensor([[4.25, 3.75], [0.0, 7.0]]))
    assert torch.equal(scores, torch.ones(1, 2))


def test_target_is_the_gaussian() -> None:
    codec = UDPHeatmap((192, 256))
    (x, y) = (100.3, 31.7)
    heatmap = codec.encode(*joints((x, y)))["heatmap"][0, 0].double().numpy()
    mx, my = x * 47 / 191, y * 63 / 255
    expected = np.zeros((64, 48))
    for row in range(64):
        for column in range(48):
            if abs(row - round(my)) <= 6 and abs(column - round(mx)) <= 6:
                expected[row, column] = math.exp(-((row - my) ** 2 + (column - mx) ** 2) / 8)
    assert np.allclose(heatmap, expected, atol=1e-5)
    assert ((heatmap > 0) == (expected > 0)).all()


@pytest.mark.parametrize(("size", "sigma", "blur"), [((192, 256), 2, 11), ((288, 384), 3, 17), ((256, 256), 2, 11)])
def test_defaults(size: tuple[int, int], sigma: float, blur: int) -> None:
    codec = UDPHeatmap(size)
    assert (codec.sigma, codec.blur) == (sigma, blur)


@pytest.mark.parametrize("name", ["udp_heatmap", "quarter_heatmap", "simcc"])
def test_weights(name: str) -> None:
    codec: Codec = build({"type": name}, "codec", input_size=(192, 256))
    keypoints, visible = joints((50, 50), (50, 50), (-60, 50), (50, 400), (math.nan, math.nan), (-3, 20))
    visible[0, 1] = visible[0, 4] = 0
    visible[0, 0] = 1  # labelled and hidden counts
    targets = codec.encode(keypoints, visible)
    assert targets["weight"].tolist() == [[1, 0, 0, 0, 0, 1]]
    for target in targets.values():
        assert target.isfinite().all()
        assert (target[0, 1] == 0).all() and (target[0, 4] == 0).all()


def test_heatmap_loss_in_closed_form() -> None:
    codec = UDPHeatmap((64, 48), stride=4)
    targets = codec.encode(*joints((20, 20), (30, 30)))
    targets["weight"][0, 1] = 0
    output = targets["heatmap"].clone()
    assert codec.loss(output, targets).item() == 0
    output[0, 1] += 7  # without weight: no matter
    output[0, 0, 3, 4] += 0.5
    assert codec.loss(output, targets).item() == pytest.approx(0.25 / (1 * 2 * 12 * 16))
    assert codec.loss(output.half(), targets).dtype == torch.float32
    doubled = {name: torch.cat([value, value]) for name, value in targets.items()}
    assert codec.loss(torch.cat([output, output]), doubled).item() == pytest.approx(0.25 / 384)  # a mean over the batch


def test_simcc_loss_in_closed_form() -> None:
    codec = SimCC((16, 8), split=1, sigma=(1.0, 1.0), beta=2.0)
    targets = codec.encode(*joints((3, 4), (5, 6)))
    targets["weight"][0, 1] = 0
    output = (torch.zeros(1, 2, 16), torch.zeros(1, 2, 8))
    expected = 0.0
    for bins, centre in ((16, 3.0), (8, 4.0)):
        p = np.exp(2 * np.exp(-((np.arange(bins) - centre) ** 2) / 2))
        p /= p.sum()
        expected += float((p * np.log(p * bins)).sum())  # from a uniform answer
    assert codec.loss(output, targets).item() == pytest.approx(expected / 2, rel=1e-5)
    assert codec.loss((targets["x"] + 3, targets["y"]), targets).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["udp_heatmap", "quarter_heatmap", "simcc"])
@pytest.mark.parametrize("size", SIZES)
def test_mirrored_crop(name: str, size: tuple[int, int]) -> None:
    """The output of a mirrored crop, brought back, is that of the crop; averaging the two changes nothing."""
    codec: Codec = build({"type": name}, "codec", input_size=size)
    keypoints, visible = joints((20.2, 30.4), (41.7, 22.0), (55.5, 40.1))
    swap = [0, 2, 1]
    mirrored = keypoints[:, swap].clone()
    mirrored[..., 0] = size[0] - 1 - mirrored[..., 0]

    def answer(targets: dict[str, Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        return targets["heatmap"] if "heatmap" in targets else (targets["x"], targets["y"])

    plain = answer(codec.encode(keypoints, visible))
    back = codec.flipped(answer(codec.encode(mirrored, visible)), swap)
    mean = codec.average([plain, back])
    for a, b, c in zip(*(x if isinstance(x, tuple) else (x,) for x in (plain, back, mean)), strict=True):
        assert torch.allclose(a, b, atol=1e-4)
        assert torch.allclose(c, (a + b) / 2)
    assert torch.allclose(
        codec.decode(back)[0], codec.decode(plain)[0], atol=0.02 if name != "quarter_heatmap" else 2.1
    )


@pytest.mark.parametrize("name", ["udp_heatmap", "quarter_heatmap", "simcc"])
def test_everything_stays_on_its_device(name: str) -> None:
    """On torch's device without storage: what makes a tensor elsewhere, or looks at a value, fails."""
    codec: Codec = build({"type": name}, "codec", input_size=(192, 256))
    targets = codec.encode(torch.zeros(2, 17, 2, device="meta"), torch.ones(2, 17, device="meta"))
    assert {each.device.type for each in targets.values()} == {"meta"}
    output = targets["heatmap"] if "heatmap" in targets else (targets["x"], targets["y"])
    keypoints, scores = codec.decode(codec.average([output, codec.flipped(output, range(17))]))
    loss = codec.loss(output, targets)
    assert (keypoints.shape, scores.shape, loss.shape) == ((2, 17, 2), (2, 17), ())
    assert {keypoints.device.type, scores.device.type, loss.device.type} == {"meta"}


@pytest.mark.parametrize("codec", [UDPHeatmap((64, 64)), QuarterHeatmap((64, 64))])
@pytest.mark.parametrize("value", [0.0, 0.7, -1.0])
def test_flat_maps_stay_in_the_crop(codec: HeatmapCodec, value: float) -> None:
    decoded, scores = codec.decode(torch.full((1, 2, 16, 16), value))
    assert decoded.isfinite().all() and (decoded >= 0).all() and (decoded <= 63).all()
    assert torch.all(scores == value)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_noise_never_throws_a_joint(seed: int) -> None:
    """One Newton step on rough maps: no further from the highest pixel than the blur reaches."""
    codec = UDPHeatmap((192, 256))
    maps = torch.rand(1, 17, 64, 48, generator=torch.Generator().manual_seed(seed))
    index = maps.flatten(2).argmax(-1)
    peak = torch.stack([index % 48, index // 48], -1)
    decoded, _ = codec.decode(maps)
    assert (on_map(codec, decoded) - peak).abs().max() <= codec.blur // 2 + 1


def test_score_of_simcc() -> None:
    codec = SimCC((192, 256))
    targets = codec.encode(*joints((100.0, 80.0)))
    answer = (targets["x"], targets["y"])
    shifted = (targets["x"] + 5, targets["y"] - 2)
    assert torch.allclose(codec.decode(shifted)[0], codec.decode(answer)[0], atol=1e-2)  # up to a constant
    assert torch.allclose(codec.decode(shifted)[1], codec.decode(answer)[1], atol=1e-3)
    flat = (torch.zeros(1, 1, 384), torch.zeros(1, 1, 512))
    assert codec.decode(flat)[1].item() < 0.05 < 0.95 < codec.decode(answer)[1].item()


@pytest.mark.parametrize(
    ("block", "size", "said"),
    [
        ({"type": "udp_heatmap", "stride": 5}, (192, 256), "stride: 5 does not fit a crop of 192 x 256"),
        ({"type": "udp_heatmap", "sigma": 0.0}, (192, 256), "sigma"),
        ({"type": "udp_heatmap", "blur": 4}, (192, 256), "blur: got 4"),
        ({"type": "simcc", "split": 0.5}, (192, 256), "split"),
        ({"type": "simcc", "beta": 0.0}, (192, 256), "beta"),
        ({"type": "udp_heatmap"}, (1, 256), "input_size"),
    ],
)
def test_refused(block: dict[str, object], size: tuple[int, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(block, "codec", input_size=size)


@pytest.mark.parametrize(
    ("codec", "output"),
    [
        (UDPHeatmap((64, 64)), torch.zeros(1, 1, 8, 8)),
        (SimCC((64, 64)), (torch.zeros(1, 1, 64), torch.zeros(1, 1, 128))),
    ],
)
def test_output_of_another_shape(codec: Codec, output: Tensor | tuple[Tensor, Tensor]) -> None:
    with pytest.raises(ConfigError, match="the network gives"):
        codec.loss(output, codec.encode(*joints((1, 1))))
