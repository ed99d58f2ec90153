"""Multiply-accumulates against closed forms counted by hand, and against figures published for known networks."""

import pytest
import torch
from torch import nn

from vision.deploy.counting import CONVOLUTION, PRODUCT, SCAN, count, in_words, scan_macs, ss2d_macs
from vision.engine.errors import ConfigError
from vision.engine.registry import build
from vision.ops.selective_scan import force_backend, selective_scan
from vision.pose.dhrnet import ImageStage, PeopleStage
from vision.pose.ss2d import SS2D

N, H, W = 2, 9, 11


def network_of(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    found: nn.Module = build({"type": name, **options}, "network")
    return found


@pytest.mark.parametrize(("stride", "groups", "bias"), [(1, 1, True), (2, 1, False), (1, 4, True), (2, 2, False)])
def test_a_convolution_is_outputs_times_weights_of_one(stride: int, groups: int, bias: bool) -> None:
    layer = nn.Conv2d(8, 12, 3, stride=stride, padding=1, groups=groups, bias=bias)
    rows, columns = -(-H // stride), -(-W // stride)
    found = count(layer, torch.zeros(N, 8, H, W))
    assert found.macs == N * rows * columns * 12 * (8 // groups) * 9
    assert found.by_kind == {CONVOLUTION: found.macs}
    assert found.parameters == 12 * (8 // groups) * 9 + 12 * bias


def test_a_transposed_convolution_is_inputs_times_weights_of_one() -> None:
    layer = nn.ConvTranspose2d(6, 4, 4, stride=2, padding=1)
    assert count(layer, torch.zeros(N, 6, H, W)).macs == N * H * W * 6 * 4 * 16


@pytest.mark.parametrize("shape", [(N, 7), (N, 5, 7), (N, 3, 5, 7)])
def test_a_linear_layer_is_rows_times_weights(shape: tuple[int, ...]) -> None:
    rows = torch.Size(shape[:-1]).numel()
    assert count(nn.Linear(7, 13), torch.zeros(shape)).macs == rows * 7 * 13


def test_attention_is_its_four_projections_and_two_products() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.whole = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.whole(x, x, x, need_weights=False)[0]

    length, width = 10, 16
    found = count(Attention(), torch.zeros(N, length, width))
    assert found.macs == N * (4 * length * width * width + 2 * length * length * width)
    assert set(found.by_kind) == {PRODUCT}


class Scan(nn.Module):
    def __init__(self, states: int, skip: bool, gate: bool) -> None:
        super().__init__()
        self.A = nn.Parameter(-torch.ones(6, states))
        self.D = nn.Parameter(torch.ones(6)) if skip else None
        self.gate = gate

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        into = torch.ones(u.shape[0], self.A.shape[1], u.shape[2])
        return selective_scan(u, u, self.A, into, into, self.D, u if self.gate else None)


@pytest.mark.parametrize(("states", "skip", "gate"), [(1, True, False), (16, False, False), (4, True, True)])
def test_a_scan_is_counted_step_by_step(states: int, skip: bool, gate: bool) -> None:
    length = 20
    by_hand = 0
    for _ in range(N * length * 6):
        by_hand += 1  # step times input
        for _ in range(states):
            by_hand += 1  # step times A
            by_hand += 1  # decay times state, plus what drives it
            by_hand += 1  # what drives it: times B
            by_hand += 1  # times C, added up
        by_hand += skip + gate
    found = count(Scan(states, skip, gate), torch.zeros(N, 6, length))
    assert found.by_kind == {SCAN: by_hand}
    assert by_hand == scan_macs(N, length, 6, states, skip, gate)


@pytest.mark.parametrize("path", [None, "reference"])
def test_a_four_direction_scan_is_counted_whatever_path_runs(path: str | None) -> None:
    layer = SS2D(32, state_size=3)
    inner, rank = 64, 2
    with force_backend(path):
        found = count(layer, torch.zeros(N, H, W, 32))
    rows = N * H * W
    assert found.by_kind[SCAN] == 4 * scan_macs(N, H * W, inner, 3)
    assert found.by_kind[CONVOLUTION] == rows * inner * 9
    projections = rows * (32 * 2 * inner + inner * 4 * (rank + 6) + inner * 32)
    step_sizes = ss2d_macs(N, H * W, inner, 3, rank) - found.by_kind[SCAN]
    assert step_sizes == rows * 4 * rank * inner
    assert found.by_kind[PRODUCT] == projections + step_sizes


@pytest.mark.parametrize(("depth", "mega"), [(20, 40.8), (56, 125.5)])
def test_cifar_resnets(depth: int, mega: float) -> None:
    """Counted by hand; released models are listed with 40.8 and 125.8 million, norms and pooling among them."""
    convolutions = 3 * 16 * 9 * 1024
    for width, side in ((16, 32), (32, 16), (64, 8)):
        convolutions += (depth - 2) // 3 * width * width * 9 * side * side
    convolutions -= sum(width * width // 2 * 9 * side * side for width, side in ((32, 16), (64, 8)))  # half the inputs
    found = count(network_of("cifar_resnet", depth=depth), torch.zeros(1, 3, 32, 32))
    assert found.by_kind == {CONVOLUTION: convolutions, PRODUCT: 640}
    assert found.macs / 1e6 == pytest.approx(mega, rel=0.01)


@pytest.mark.parametrize(
    ("name", "shape", "giga"),
    [("mamkpd_t", (1, 3, 256, 192), 0.452), ("mamkpd_l", (1, 3, 256, 192), 4.537), ("tbcnet", (1, 1, 256, 256), 0.710)],
)
def test_networks_cost_what_their_pages_say(name: str, shape: tuple[int, ...], giga: float) -> None:
    found = count(network_of(name), torch.zeros(shape))
    assert (found.macs - found.by_kind.get(SCAN, 0)) / 1e9 == pytest.approx(giga, abs=6e-4)


def test_the_scans_of_mamkpd_are_those_of_its_blocks() -> None:
    found = count(network_of("mamkpd_t"), torch.zeros(1, 3, 256, 192))
    blocks = zip((2, 2, 5), (3072, 768, 192), (32, 64, 128), strict=True)
    assert found.by_kind[SCAN] == sum(n * 4 * length * 2 * width * 6 for n, length, width in blocks)


def test_hrnet_w32_has_its_published_operations() -> None:
    """7.1 GFLOPs in the paper's table (multiply-adds of its own counter), 7.7 as later libraries list it."""
    with torch.device("meta"):
        network = network_of("timm_pose", model="hrnet_w32", decoder="simple")
        found = count(network, torch.zeros(1, 3, 256, 192))
    assert 7.0e9 < found.macs < 7.75e9
    assert found.parameters == pytest.approx(28.5e6, rel=0.01)


def test_dhrnet_costs_what_its_page_says() -> None:
    """At 512x512: backbone 41.23 G, maps 0.14 G, a person of CID with the shared map 0.30 G."""
    with torch.device("meta"):
        image = count(ImageStage(network_of("dhrnet")), torch.zeros(1, 3, 512, 512))
        centre = torch.zeros(1, 2, dtype=torch.int64)
        person = count(PeopleStage(network_of("cid").eval()), torch.zeros(1, 32, 128, 128), torch.zeros(1, 480), centre)
    shared_map = 128 * 128 * 480 * 32
    assert (image.macs - shared_map) / 1e9 == pytest.approx(41.23 + 0.14, abs=0.01)
    assert (person.macs + shared_map) / 1e9 == pytest.approx(0.30, abs=0.005)


def test_what_counts_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="ReLU: no convolution"):
        count(nn.ReLU(), torch.zeros(1))


def test_units() -> None:
    assert [in_words(value) for value in (1.0, 2e3, 40.81e6, 7.7e9, 1e12)] == [
        "1 MAC", "2 kMAC", "40.8 MMAC", "7.7 GMAC", "1 TMAC",
    ]  # fmt: skip
