"""APART step by step against the release's recorded run, and on networks that know nothing of it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robust.apart import Apart, Ascent, layer_names
from robust.cyclic import Triangular, cycled_momentum, triangle
from robust.directions import Directions, Windows, pad
from vision.classification import preact_resnet18, timm, wide_resnet
from vision.classification.preact_resnet import PreActResNet
from vision.engine.errors import ConfigError, DataError, TrainingError


class Block(nn.Module):
    """The recorded network's block: the shortcut takes the raw input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x) if hasattr(self, "shortcut") else x
        return shortcut + self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))


class Toy(nn.Module):
    """The network of the recorded run."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.layer1 = nn.Sequential(Block(4, 4, 1))
        self.layer2 = nn.Sequential(Block(4, 6, 2))
        self.layer3 = nn.Sequential(Block(6, 8, 2))
        self.layer4 = nn.Sequential(Block(8, 10, 2))
        self.bn = nn.BatchNorm2d(10)
        self.linear = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        return self.linear(F.avg_pool2d(F.relu(self.bn(x)), 4).flatten(1))


class Run:
    """The recorded training, on our parts: strengths, ascent, windows and cycle."""

    def __init__(self, golden: dict[str, np.ndarray], zero_grad: str = "none") -> None:
        self.golden = golden
        network = Toy().double()
        state = {k[5:]: torch.from_numpy(v) for k, v in golden.items() if k.startswith("init.") and "alpha" not in k}
        network.load_state_dict(state)
        self.network = network.train()
        self.apart = Apart(network, ["layer*.0.conv1"])
        self.strengths = [self.apart.step, self.apart.start_scale, *self.apart.layer_steps]
        self.ascent = Ascent(self.strengths, zero_grad=zero_grad)  # type: ignore[arg-type]
        self.optimizer = torch.optim.SGD(network.parameters(), 0.2, momentum=0.9, weight_decay=2e-4)
        self.schedule = Triangular(self.optimizer, 6, 1, 0.8, 0.9)
        self.omega = torch.from_numpy(golden["omega_init"]).clone()

    def values(self) -> list[float]:
        return [p.item() for p in self.strengths]

    def steps(self) -> Iterator[tuple[int, list[float]]]:
        """After each step: its number, and minus the gradients of the strengths."""
        golden = self.golden
        for step in range(6):
            places = torch.from_numpy(golden["perms"][step // 2])[4 * (step % 2) : 4 * (step % 2) + 4]
            windows = Windows(
                torch.from_numpy(golden["crops"][step]), torch.from_numpy(golden["flips"][step]), (32, 32)
            )
            images = windows.cut(torch.from_numpy(golden["x_padded"])[places])
            directions = windows.cut(self.omega[places])
            self.schedule.step_update(step)
            self.optimizer.zero_grad()
            found = self.apart.perturbed(images, directions, torch.from_numpy(golden["labels"])[places])
            found.loss.backward()
            self.omega[places] = windows.write(self.omega[places], self.apart.refreshed(directions, found))
            gradients = [-p.grad.item() for p in self.strengths if p.grad is not None]
            share = triangle(step, 6)
            self.ascent.ascend(5e-8 * share, cycled_momentum(share))
            self.ascent.decay(0.2 * share, cycled_momentum(share), 2e-4)
            self.optimizer.step()
            yield step, gradients


@pytest.fixture(scope="module")
def golden(golden_root: Path) -> dict[str, np.ndarray]:
    with np.load(golden_root / "apart_steps_default.npz") as archive:
        return dict(archive)


def test_every_step_is_the_recorded_one(golden: dict[str, np.ndarray]) -> None:
    run = Run(golden)
    np.testing.assert_allclose(run.values(), golden["alphas_before"][0], rtol=1e-12)
    for step, gradients in run.steps():
        np.testing.assert_allclose(gradients, golden["neg_grads"][step], rtol=1e-9, err_msg=f"step {step}")
        np.testing.assert_allclose(run.values(), golden["alphas_after"][step], rtol=1e-9, err_msg=f"step {step}")
        group = run.optimizer.param_groups[0]
        assert (group["lr"], group["momentum"]) == pytest.approx((golden["lr"][step], golden["momentum"][step]))
    np.testing.assert_allclose(run.omega, golden["omega_final"], rtol=0, atol=1e-12)
    for name, value in run.network.state_dict().items():
        np.testing.assert_allclose(value, golden[f"final.{name}"], rtol=1e-9, atol=1e-12, err_msg=name)


def test_zero_filled_gradients_decay_the_strengths(golden: dict[str, np.ndarray]) -> None:
    run = Run(golden, zero_grad="zero")
    list(run.steps())
    expected = [1.14620421e-4, 9.99881436e-5, 6.53184939e-6, 4.42453411e-6, 2.05966148e-6, 9.55778026e-7]
    np.testing.assert_allclose(run.values(), expected, rtol=1e-8)


def test_strengths_gradients_are_finite_differences() -> None:
    """Both clamps act on some pixels. Signs hold still, those of the first pass too, which depend on start_scale."""
    torch.manual_seed(0)
    network = PreActResNet(4, (4, 6), 1, 3, 3).double().eval()
    apart = Apart(network, ["stages.*.conv1"], step=0.004, start_scale=0.02, layer_step=0.02)
    x, w, y = torch.rand(3, 3, 8, 8).double(), torch.randn(3, 3, 8, 8).double(), torch.tensor([0, 1, 2])
    found = apart.perturbed(x, w, y)
    found.loss.backward()
    at_bound, at_edge = (found.images - x).abs() >= 0.031 - 1e-12, (found.images == 0) | (found.images == 1)
    assert at_bound.any() and at_edge.any() and not (at_bound | at_edge).all()
    for parameter in (apart.step, apart.start_scale, *apart.layer_steps):
        losses = []
        for shift in (1e-6, -2e-6):
            with torch.no_grad():
                parameter += shift
            losses.append(apart.perturbed(x, w, y).loss.item())
        with torch.no_grad():
            parameter += 1e-6
        assert parameter.grad is not None
        assert parameter.grad.item() == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "layers", "count"),
    [
        (lambda: preact_resnet18(5), "stages.*.conv1", 8),
        (lambda: wide_resnet(10, 1, 5), "stages.*.conv1", 3),
        (lambda: timm("resnet18", 5, options={"zero_init_last": False}), "layer*.conv1", 8),
    ],
)
@pytest.mark.parametrize("side", ["input", "output"])
def test_works_on_networks_unchanged(make, layers: str, count: int, side: str) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    network = make().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    apart = Apart(network, [layers], side=side, layer_step=1e-3)  # type: ignore[arg-type]
    assert len(apart.layer_steps) == count
    x, y = torch.rand(4, 3, 32, 32), torch.tensor([0, 4, 1, 2])
    found = apart.perturbed(x, torch.ones_like(x), y)
    assert (found.images - x).abs().max() <= apart.eps and found.images.min() >= 0 and found.images.max() <= 1
    found.loss.backward()
    assert all(p.grad is not None and p.grad.abs() > 0 for p in apart.parameters())
    assert all(p.grad is not None for p in network.parameters())
    assert network.state_dict().keys() == before.keys()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_cycles_are_equal_triangles_of_rate_and_inverse_momentum() -> None:
    shares = [triangle(step, 12, 3) for step in range(13)]
    assert shares == pytest.approx([0, 0.5, 1, 0.5] * 3 + [0])
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.2, momentum=0.9)
    schedule = Triangular(optimizer, 12, 3, 0.8, 0.9)
    for step, share in enumerate(shares):
        schedule.step_update(step)
        group = optimizer.param_groups[0]
        assert (group["lr"], group["momentum"]) == pytest.approx((0.2 * share, 0.9 - 0.1 * share))


def test_zero_strengths_leave_the_plain_loss() -> None:
    network = PreActResNet(4, (4, 6), 1, 3, 3).eval()
    apart = Apart(network, ["stages.*.conv1"], step=0.0, start_scale=0.0)
    x, y = torch.rand(2, 3, 8, 8), torch.tensor([0, 2])
    torch.testing.assert_close(apart.perturbed(x, torch.ones_like(x), y).loss, F.cross_entropy(network(x), y))


def test_running_statistics_see_the_second_pass_alone_where_asked() -> None:
    torch.manual_seed(0)
    both, second = (PreActResNet(4, (4,), 1, 3, 3).train() for _ in range(2))
    second.load_state_dict(both.state_dict())
    x, y = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    for network, update in ((both, "both"), (second, "second")):
        Apart(network, bn_update=update).perturbed(x, torch.zeros_like(x), y)  # type: ignore[arg-type]
    assert (int(both.norm.num_batches_tracked), int(second.norm.num_batches_tracked)) == (2, 1)  # type: ignore[arg-type]


def test_windows_are_slices_and_go_back() -> None:
    padded = torch.rand(3, 2, 12, 14)
    windows = Windows(torch.tensor([[0, 0], [4, 6], [1, 3]]), torch.tensor([False, True, True]), (8, 8))
    cut = windows.cut(padded)
    torch.testing.assert_close(cut[0], padded[0, :, :8, :8])
    torch.testing.assert_close(cut[1], padded[1, :, 4:12, 6:14].flip(-1))
    torch.testing.assert_close(windows.write(padded, cut), padded)
    written = windows.write(padded, torch.zeros_like(cut))
    assert written[2, :, 1:9, 3:11].abs().max() == 0
    assert torch.equal(written[2, :, 9:], padded[2, :, 9:])
    assert pad(cut, 4)[0, 0, 0, 0] == 0.5 and pad(cut, 4).shape == (3, 2, 16, 16)
    drawn = Windows.draw(500, (8, 8), 4, torch.device("cpu"))
    assert set(drawn.corners.flatten().tolist()) == set(range(9)) and 200 < int(drawn.flips.sum()) < 300


def test_directions_in_memory_and_in_a_file_are_the_same(tmp_path: Path) -> None:
    file, places = tmp_path / "state" / "omega.npy", np.array([4, 1])
    memory, disk = Directions(5, (1, 4, 4), 3), Directions(5, (1, 4, 4), 3, file)
    np.testing.assert_array_equal(memory.values, disk.values)
    assert 0 < np.abs(memory.values).max() < 0.01
    disk.write(places, torch.ones(2, 1, 4, 4))
    again = Directions(5, (1, 4, 4), 0, file)
    assert torch.equal(again.read(places, torch.device("cpu")), torch.ones(2, 1, 4, 4))
    with pytest.raises(DataError, match="other images"):
        Directions(6, (1, 4, 4), 0, file)
    file.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"is no \.npy file"):
        Directions(5, (1, 4, 4), 0, file)


def test_mistakes_are_named() -> None:
    network = PreActResNet(4, (4,), 1, 3, 3)
    with pytest.raises(ConfigError, match=r"no module 'stages.0.0.conv3' \(did you mean 'stages.0.0.conv"):
        layer_names(network, ["stages.0.0.conv3"])
    with pytest.raises(ConfigError, match="8/255 was likely meant"):
        Apart(network, eps=8)
    shared = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(48, 2))
    twice = nn.Sequential(shared[0], shared[0], *shared[1:])
    with pytest.raises(TrainingError, match="called more than once"):
        Apart(twice, ["0"]).perturbed(torch.rand(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), torch.tensor([0]))
