"""Classification networks against published parameter counts, released weights and norms at initialisation."""

import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vision.classification import (
    MLP,
    DigitsCNN,
    Normalised,
    cifar_resnet,
    cifar_resnet8x4,
    cifar_resnet32x4,
    load_weights,
    preact_resnet,
    preact_resnet18,
    read_weights,
    timm,
    wide_resnet,
)
from vision.engine.errors import CheckpointError, ConfigError


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("classes", "count"), [(10, 11_172_170), (100, 11_218_340), (200, 11_269_640)])
def test_preact_resnet18_has_the_published_number_of_parameters(classes: int, count: int) -> None:
    assert parameters(preact_resnet18(classes)) == count
    wide = preact_resnet(width=64, blocks=2, classes=classes).state_dict()
    assert {k: v.shape for k, v in wide.items()} == {
        k: v.shape for k, v in preact_resnet18(classes).state_dict().items()
    }


def test_narrow_preact_resnets_have_the_counts_they_tell() -> None:
    assert parameters(preact_resnet()) == 308_378
    with pytest.raises(ConfigError, match="width 0 and blocks 1"):
        preact_resnet(width=0)


@pytest.mark.parametrize(
    ("depth", "width", "classes", "count"),
    [
        (28, 5, 10, 9_132_634),
        (28, 10, 10, 36_479_194),
        (34, 10, 10, 46_160_474),
        (40, 2, 100, 2_255_156),
        (40, 1, 100, 569_780),
    ],
)
def test_wide_resnet_has_the_published_number_of_parameters(depth: int, width: int, classes: int, count: int) -> None:
    with torch.device("meta"):
        assert parameters(wide_resnet(depth, width, classes)) == count


def test_four_times_wider_resnets_have_the_published_number_of_parameters() -> None:
    assert parameters(cifar_resnet8x4(100)) == 1_233_540
    assert parameters(cifar_resnet32x4(100)) == 7_433_860


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_cifar_resnet_has_the_size_its_paper_prints(depth: int, millions: float) -> None:
    # table 6 of arXiv 1512.03385, cut off or rounded to its last digit there
    assert parameters(cifar_resnet(depth)) / 1e6 == pytest.approx(millions, abs=0.03)


def test_projection_shortcuts_add_exactly_two_convolutions_with_batchnorm() -> None:
    extra = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert parameters(cifar_resnet(20, "B")) - parameters(cifar_resnet(20, "A")) == extra


def lipschitz_regulariser(network: nn.Module) -> float:
    total = 0.0
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            total += module.weight.abs().sum().item()
        elif isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            total += (module.weight.abs() / (module.running_var + module.eps).sqrt()).max().item()
        elif isinstance(module, nn.Linear):
            total += module.weight.abs().sum(dim=0).max().item()
    return total


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: wide_resnet(40, 2, 100), 84_702),
        (lambda: wide_resnet(40, 1, 100), 30_046),
        (cifar_resnet8x4, 34_264),
        (cifar_resnet32x4, 198_232),
    ],
)
def test_initial_weights_have_the_norms_measured_on_the_parent_implementation(build, expected: int) -> None:
    torch.manual_seed(0)
    assert lipschitz_regulariser(build()) == pytest.approx(expected, rel=2e-3)


NETWORKS = {
    "preact_resnet18": (lambda: preact_resnet18(7), (3, 32, 32)),
    "wide_resnet": (lambda: wide_resnet(10, 2, 7, dropout=0.3), (3, 33, 31)),
    "cifar_resnet A": (lambda: cifar_resnet(20, "A", 7), (3, 33, 31)),
    "cifar_resnet B": (lambda: cifar_resnet(20, "B", 7, in_channels=1), (1, 32, 32)),
    "cifar_resnet8x4": (lambda: cifar_resnet8x4(7), (3, 32, 32)),
    "mlp": (lambda: MLP(64, [20, 10], 7), (1, 8, 8)),
    "mlp without hidden layers": (lambda: MLP(64, [], 7), (1, 8, 8)),
    "digits_cnn batch": (lambda: DigitsCNN(7), (1, 8, 8)),
    "digits_cnn group": (lambda: DigitsCNN(7, norm="group"), (1, 8, 8)),
    "digits_cnn none": (lambda: DigitsCNN(7, norm="none"), (1, 8, 8)),
    "timm": (lambda: timm("test_resnet", 7, in_channels=2, options={"zero_init_last": False}), (2, 64, 64)),
    "normalised": (lambda: Normalised(MLP(64, [9], 7), [0.5], [0.25]), (1, 8, 8)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_gives_one_logit_a_class_and_every_parameter_a_gradient(name: str) -> None:
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    network = build()
    logits = network(torch.randn(4, *shape))
    assert logits.shape == (4, 7)
    assert network.num_classes == 7
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 6])).backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name


def test_preactivation_block_is_its_equation() -> None:
    from vision.classification.preact_resnet import PreActBlock

    torch.manual_seed(0)
    block = PreActBlock(4, 6, stride=2).eval().double()
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    unit = 1 / np.sqrt(1 + 1e-5)  # BatchNorm at initialisation in eval mode
    conv = nn.functional.conv2d
    active = (x * unit).relu()
    inner = (conv(active, block.conv1.weight, stride=2, padding=1) * unit).relu()
    expected = conv(active[:, :, ::2, ::2], block.shortcut.weight) + conv(inner, block.conv2.weight, padding=1)
    torch.testing.assert_close(block(x), expected)


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    network = wide_resnet(10, 1, 5, dropout=0.5)
    images = torch.randn(2, 3, 16, 16)
    network.train()
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


def test_normalised_equals_normalising_first_and_keeps_its_constants_in_the_state() -> None:
    torch.manual_seed(0)
    inner = MLP(3 * 4 * 4, [8], 5)
    network = Normalised(inner, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    images = torch.rand(2, 3, 4, 4)
    by_hand = torch.stack([(images[:, c] - [0.1, 0.2, 0.3][c]) / [0.4, 0.5, 0.6][c] for c in range(3)], dim=1)
    torch.testing.assert_close(network(images), inner(by_hand))
    other = Normalised(MLP(3 * 4 * 4, [8], 5), [0.0] * 3, [1.0] * 3)
    other.load_state_dict(network.state_dict())
    torch.testing.assert_close(other(images), network(images))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: wide_resnet(27, 2), "27 is not 6 n"),
        (lambda: wide_resnet(28, 0), "width: 0"),
        (lambda: wide_resnet(28, 2, dropout=1.0), r"not in \[0, 1\)"),
        (lambda: MLP(4, [0]), "must all be 1 or more"),
        (lambda: DigitsCNN(width=6), "multiple of 4"),
        (lambda: Normalised(MLP(4, []), [0.5], [0.5, 0.5]), "mean has 1 values and std 2"),
        (lambda: Normalised(MLP(4, []), [0.5], [0.0]), "above 0"),
        (lambda: timm("resnet81", 10), "did you mean 'resnet"),
        (lambda: timm("resnet18", 10, options={"no_such": 1}), "no_such"),
    ],
)
def test_wrong_arguments_are_named(build, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


def test_timm_says_when_weights_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm as library

    create = library.create_model

    def offline(model: str, pretrained: bool, **options: object) -> nn.Module:
        if pretrained:
            raise OSError("no route to host")
        return create(model, pretrained=False, **options)

    monkeypatch.setattr(library, "create_model", offline)
    with pytest.raises(CheckpointError, match=r"'test_resnet' cannot be fetched .no route to host.*pretrained: false"):
        timm("test_resnet", 10, pretrained=True)


def test_timm_says_when_weights_were_never_published() -> None:
    with pytest.raises(CheckpointError, match="no weights were published for 'coatnet_0_224'"):
        timm("coatnet_0_224", 10, pretrained=True)


def test_weights_saved_under_dataparallel_load(tmp_path: Path) -> None:
    source, target = cifar_resnet(20), cifar_resnet(20)
    state = {f"module.{name}": value for name, value in source.state_dict().items() if "num_batches" not in name}
    torch.save({"state_dict": state, "best_prec1": 91.0}, tmp_path / "net.th")
    load_weights(target, tmp_path / "net.th")
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(source.eval()(images), target.eval()(images))


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_bad_weight_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no such weights file"):
        read_weights("missing.pt")
    Path("text.pt").write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match=r"text\.pt: cannot be read"):
        read_weights("text.pt")
    Path("bomb.pt").write_bytes(pickle.dumps({"state_dict": Bomb()}, protocol=2))
    with pytest.raises(CheckpointError, match=r"bomb\.pt: cannot be read"):
        read_weights("bomb.pt")
    torch.save(OrderedDict(Bomb=Bomb()), "zip.pt")
    with pytest.raises(CheckpointError, match=r"zip\.pt: cannot be read"):
        read_weights("zip.pt")
    assert not Path("exploded").exists()
    torch.save({"epoch": 3}, "counter.pt")
    with pytest.raises(CheckpointError, match="no state dict"):
        read_weights("counter.pt")


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (lambda: cifar_resnet(32), "has unknown layer1.3.conv1.weight"),
        (lambda: cifar_resnet(20, classes=100), r"linear.weight is \[100, 64\], expected \[10, 64\]"),
        (lambda: MLP(4, []), "lacks conv1.weight"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path: Path, saved, message: str) -> None:
    torch.save(saved().state_dict(), tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=message):
        load_weights(cifar_resnet(20), tmp_path / "other.pt")


@pytest.mark.data
@pytest.mark.parametrize(
    ("depth", "file", "percent"), [(20, "resnet20-12fca82f", 91.64), (56, "resnet56-4bfd9763", 92.72)]
)
def test_released_weights_load_and_score_as_measured(data_root: Path, depth: int, file: str, percent: float) -> None:
    network = cifar_resnet(depth)
    load_weights(network, data_root / "cifar_weights" / f"{file}.pt")
    classifier = Normalised(network, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).eval()
    with np.load(data_root / "cifar10" / "cifar10_lossless_subset.npz") as file_:
        images = torch.from_numpy(file_["test_images"]).permute(0, 3, 1, 2).float() / 255
        labels = torch.from_numpy(file_["test_labels"]).long()
    with torch.no_grad():
        logits: Tensor = torch.cat([classifier(part) for part in images.split(128)])
    assert 100 * (logits.argmax(1) == labels).double().mean().item() == pytest.approx(percent, abs=0.005)
