"""Judging under attack: closed forms, a kill in the middle, and networks trained by others."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from robust import evaluation
from robust.attacks import fgsm, pgd
from robust.autoattack import autoattack, parts_for
from robust.evaluation import Judged, judge, sweep
from robust.table import Row
from robust.threat import ThreatModel
from vision.classification import Normalised
from vision.engine.data import Sample
from vision.engine.errors import ConfigError, DataError


class Points(Dataset[Sample]):
    """Images of one pixel a channel."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.pixels, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        return {"id": f"p{index}", "image": self.pixels[index], "label": self.labels[index]}


def threshold() -> nn.Module:
    """Class 1 where the pixel is above a half."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[0.0], [10.0]]))
        network[1].bias.copy_(torch.tensor([0.0, -5.0]))
    return network.eval()


def points(n: int = 20) -> Points:
    """Pixels 0.025, 0.075, ...: the n-th is that far from a half, all of them right."""
    images = ((torch.arange(n) + 0.5) / n).view(-1, 1, 1, 1)
    return Points(images, (images.flatten() > 0.5).long())


def test_accuracy_is_the_share_beyond_the_radius(tmp_path: Path) -> None:
    found = judge(threshold(), points(), "pgd20", ThreatModel(eps=0.2), tmp_path / "t", weights="w", batch_size=7)
    assert found.accuracy == pytest.approx(0.6)  # 0.025 ... 0.275 from below and the same from above stand
    assert len(found.rows) == 20 and {r.broken_by for r in found.rows} == {"", "pgd20"}
    assert all(r.size <= 0.2 + 1e-6 for r in found.rows)


def test_what_is_wrong_without_an_attack_counts_as_such(tmp_path: Path) -> None:
    data = points()
    data.labels = 1 - data.labels
    found = judge(threshold(), data, "pgd20", ThreatModel(eps=0.2), tmp_path / "t", weights="w")
    assert found.accuracy == 0.0 and {r.broken_by for r in found.rows} == {"clean"}


def test_sweep_falls_as_the_closed_form_says() -> None:
    data = points()
    found = sweep(threshold(), data.pixels, data.labels, ThreatModel(), [0.0, 0.1, 0.2, 0.3, 1.0])
    assert found == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.0])
    in_parts = sweep(threshold(), data.pixels, data.labels, ThreatModel(), [0.0, 0.1, 0.2, 0.3, 1.0], batch_size=3)
    assert in_parts == found
    with pytest.raises(ConfigError, match="ascend"):
        sweep(threshold(), data.pixels, data.labels, ThreatModel(), [0.2, 0.1])


def test_a_killed_evaluation_ends_as_an_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(name: str) -> Judged:
        return judge(threshold(), points(), "pgd20", ThreatModel(), tmp_path / name, weights="w", batch_size=6)

    whole, attack, calls = run("whole"), evaluation.attack_batch, []

    def killed(*args: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return attack(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluation, "attack_batch", killed)
    with pytest.raises(KeyboardInterrupt):
        run("cut")
    assert run("cut").rows == whole.rows
    assert len(calls) == 5


def test_a_network_in_train_mode_is_refused(tmp_path: Path) -> None:
    network = nn.Sequential(threshold(), nn.BatchNorm1d(2)).eval()
    network[1].train()
    with pytest.raises(ConfigError, match=r"train mode \('1' is\)"):
        judge(network, points(), "clean", ThreatModel(), tmp_path / "t", weights="w")


def test_images_outside_the_range_and_foreign_tables_are_refused(tmp_path: Path) -> None:
    data = points()
    data.pixels = data.pixels * 255
    with pytest.raises(DataError, match="not normalised"):
        judge(threshold(), data, "pgd20", ThreatModel(), tmp_path / "t", weights="w")
    judge(threshold(), points(), "clean", ThreatModel(), tmp_path / "t", weights="w")
    with pytest.raises(DataError, match="another weights"):
        judge(threshold(), points(), "clean", ThreatModel(), tmp_path / "t", weights="v")
    other = points()
    other.pixels = other.pixels * 0.9  # the same ids and labels
    with pytest.raises(DataError, match="another data"):
        judge(threshold(), other, "clean", ThreatModel(), tmp_path / "t", weights="w")


def test_figures_of_an_attack() -> None:
    logits = [[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]]
    rows = [Row(str(i), 0, z, 0.0, b) for i, (z, b) in enumerate(zip(logits, ["", "pgd20", ""], strict=True))]
    found = Judged("pgd20", rows).figures
    right, wrong = (-np.log(np.exp(a) / (1 + np.exp(2.0))) for a in (2.0, 0.0))
    assert found["pgd20"] == pytest.approx(2 / 3)
    assert found["pgd20_nll"] == pytest.approx((2 * right + wrong) / 3)


def test_a_gain_of_square_over_gradients_is_a_warning() -> None:
    def judged(square: int, name: str = "autoattack") -> Judged:
        broken = ["apgd-ce"] * 10 + ["square"] * square + [""] * (990 - square)
        return Judged(name, [Row(str(i), 0, [1.0, 0.0], 0.0, part) for i, part in enumerate(broken)], ("told",))

    assert judged(1).warnings == ["told"]
    assert judged(3).warnings == ["told", "square broke 0.30% beyond the parts with gradients, which may be masked"]
    assert judged(3, "square").warnings == ["told"]


def test_parts_fit_the_number_of_classes() -> None:
    assert parts_for(10) == parts_for(4) == ("apgd-ce", "apgd-t", "fab-t", "square")
    assert parts_for(3) == ("apgd-ce", "apgd-dlr", "fab-t", "square")
    assert parts_for(2) == ("apgd-ce", "fab-t", "square")
    with pytest.raises(ConfigError, match="2 or more classes"):
        parts_for(1)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_autoattack_finds_what_is_within_reach_of_a_linear_network(classes: int) -> None:
    pytest.importorskip("pyautoattack")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, classes)).eval()
    images = torch.rand(12, 3, 2, 2) * 0.4 + 0.3  # no change below comes to the edges of the range
    labels, weight = network(images).argmax(1), network[1].weight.detach()
    logits, own = network(images).detach(), labels[:, None]
    gaps = (logits.gather(1, own) - logits).scatter(1, own, float("inf"))
    reach = (weight[labels][:, None] - weight[None]).abs().sum(2)  # what eps 1 changes a gap by at most
    needed = (gaps / reach).nan_to_num(nan=float("inf")).amin(1)
    threat = ThreatModel(eps=float(needed.sort().values[5:7].mean()))
    attacked, names = autoattack(network, images, labels, threat, queries=50)
    breakable = needed < threat.eps
    assert int(breakable.sum()) == 6
    assert [bool(name) for name in names] == breakable.tolist()
    assert float((attacked - images).abs().max()) <= threat.eps + 1e-6
    rows_last = images.to(memory_format=torch.channels_last)
    assert autoattack(network, rows_last, labels, threat, queries=50)[1] == names


def test_too_few_classes_for_a_part_are_told_in_the_result(tmp_path: Path) -> None:
    pytest.importorskip("pyautoattack")
    data = points(4)
    found = judge(threshold(), data, "autoattack", ThreatModel(eps=0.2), tmp_path / "t", weights="w")
    assert found.warnings == [
        "AutoAttack with 2 classes: apgd-ce, fab-t, square instead of apgd-ce, apgd-t, fab-t, square"
    ]
    assert found.accuracy == 0.5  # 0.125 and 0.875 stand


def test_autoattack_works_where_gradients_are_off_and_checks_its_labels() -> None:
    pytest.importorskip("pyautoattack")
    network, data, threat = threshold(), points(6), ThreatModel(eps=0.2)
    expected = autoattack(network, data.pixels, data.labels, threat, queries=20)[1]
    assert {"", "apgd-ce"} == set(expected)
    with torch.no_grad():
        assert autoattack(network, data.pixels, data.labels, threat, queries=20)[1] == expected
    with torch.inference_mode():
        pixels, labels = data.pixels.clone(), data.labels.clone()
        assert autoattack(network, pixels, labels, threat, queries=20)[1] == expected
    with pytest.raises(DataError, match="labels run from 0 to 2; the network gives 2 classes"):
        autoattack(network, data.pixels, data.labels * 2, threat)
    with pytest.raises(DataError, match="expected integers"):
        autoattack(network, data.pixels, data.labels.float(), threat)


def test_autoattack_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyautoattack", None)
    with pytest.raises(ConfigError, match=r"triptych\[robust-eval\]"):
        autoattack(threshold(), torch.rand(1, 1, 1, 1), torch.tensor([0]), ThreatModel())


def provably_robust(data_root: Path, file: str) -> tuple[Normalised, Tensor, Tensor]:
    """A network of Wong & Kolter, and the undamaged test images of CIFAR-10 with their labels."""
    layers = nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(2048, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip
    state = torch.load(data_root / "cifar_weights" / file, weights_only=True)["state_dict"]
    layers.load_state_dict(state)
    network = Normalised(layers, [0.485, 0.456, 0.406], [0.225] * 3).eval()
    with np.load(data_root / "cifar10" / "cifar10_lossless_subset.npz") as arrays:
        images, labels = arrays["test_images"], arrays["test_labels"]
    return network, torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(labels).long()


@pytest.mark.parametrize(
    ("file", "threat", "clean", "robust"),
    [
        ("wong_kolter_cifar_small_linf8_cascade0.pt", ThreatModel("linf", 8 / 255), 0.312, 0.264),
        ("wong_kolter_cifar_small_l2_36_cascade0.pt", ThreatModel("l2", 36 / 255), 0.554, 0.492),
    ],
)
@pytest.mark.data
def test_provably_robust_networks_have_their_known_accuracies(
    data_root: Path, tmp_path: Path, file: str, threat: ThreatModel, clean: float, robust: float
) -> None:
    network, images, labels = provably_robust(data_root, file)
    data = Points(images, labels)
    whole = judge(network, data, "clean", threat, tmp_path / "clean", weights="w")
    attacked = judge(network, data, "pgd20", threat, tmp_path / "pgd20", weights="w", limit=500)
    assert whole.accuracy == pytest.approx(clean, abs=0.005)  # of all 1,017 images, as the known figure
    assert attacked.accuracy == pytest.approx(robust, abs=0.005)  # of the first 500


Bounds = tuple[Tensor, Tensor]


def dual_bounds(
    layers: nn.Sequential, image: Tensor, rows: Tensor | None, eps: Tensor, norm: str, relus: list[Bounds]
) -> Bounds:
    """Bounds of ``rows @ layers(x)`` for all ``x`` within ``eps`` (by channel) of one image ``[1, 3, H, W]``.

    ReLUs, whose inputs lie in ``relus``, are relaxed to lines; coefficients are gradients of what is then linear, and
    the image's part is bounded by the dual norm: Wong & Kolter 2018, arXiv 1711.00851, for l2 as in arXiv 1805.12514.
    """
    point, inner, index = image.clone().requires_grad_(True), [], 0
    z = point
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            lower, upper = relus[index]
            slope = upper.relu() / (upper.relu() - lower.clamp(max=0)).clamp_min(1e-12)
            z = z * slope
            # relu(z) is at least slope * z, and at most this more
            inner.append((z, torch.where((lower < 0) & (upper > 0), -slope * lower, 0.0)))
            index += 1
        else:
            z = layer(z)
    shape, z = z.shape, z.flatten()
    rows = torch.eye(len(z)) if rows is None else rows
    pull, *coefficients = torch.autograd.grad(
        z, [point, *(node for node, _ in inner)], rows, is_grads_batched=True, materialize_grads=True
    )
    reach = torch.linalg.vector_norm((pull * eps).flatten(1), ord=1 if norm == "linf" else 2, dim=1)
    low, high = rows @ z.detach() - reach, rows @ z.detach() + reach
    for coefficient, (_, more) in zip(coefficients, inner, strict=True):
        low = low + (coefficient.clamp(max=0) * more).flatten(1).sum(1)
        high = high + (coefficient.clamp(min=0) * more).flatten(1).sum(1)
    return (low.reshape(shape), high.reshape(shape)) if len(rows) == len(z) else (low, high)


def certified(layers: nn.Sequential, images: Tensor, labels: Tensor, eps: Tensor, norm: str) -> Tensor:
    """Images whose label no change within ``eps`` (of normalised images, by channel) can take away."""
    found = []
    for image, label in zip(images[:, None], labels.tolist(), strict=True):
        relus: list[Bounds] = []
        for k, layer in enumerate(layers):
            if isinstance(layer, nn.ReLU):
                relus.append(dual_bounds(layers[:k], image, None, eps, norm, relus))
        others = torch.eye(10)[[c for c in range(10) if c != label]]
        found.append(bool((dual_bounds(layers, image, torch.eye(10)[label] - others, eps, norm, relus)[0] > 0).all()))
    return torch.tensor(found)


@pytest.mark.parametrize(
    ("file", "threat", "least"),
    [
        ("wong_kolter_cifar_small_linf8_cascade0.pt", ThreatModel("linf", 8 / 255), 10),
        ("wong_kolter_cifar_small_l2_36_cascade0.pt", ThreatModel("l2", 36 / 255), 20),
    ],
)
@pytest.mark.data
def test_no_attack_gets_below_a_certificate(data_root: Path, file: str, threat: ThreatModel, least: int) -> None:
    network, images, labels = provably_robust(data_root, file)
    images, labels = images[:40], labels[:40]
    eps = torch.tensor(threat.eps) / network.std
    safe = certified(network.network, network.normalise(images), labels, eps, threat.norm)
    assert int(safe.sum()) >= least  # the bound says something
    attacks = [pgd(network, images, labels, threat, steps=20, loss=loss) for loss in ("ce", "margin")]
    attacks.append(pgd(network, images, labels, threat, steps=10, restarts=3))
    attacks.append(fgsm(network, images, labels, threat, step_size=1.25 * threat.eps, start="random"))
    with torch.no_grad():
        standing = torch.stack([network(a).argmax(1) == labels for a in attacks]).all(0)
    assert bool(standing[safe].all())
    assert int(standing.sum()) >= int(safe.sum())
    pytest.importorskip("pyautoattack")
    chosen = safe.nonzero().flatten()[:8]
    assert autoattack(network, images[chosen], labels[chosen], threat, queries=100)[1] == [""] * len(chosen)
