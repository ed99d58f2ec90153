"""TBC-Net's networks: published structure, golden sizes, any image size, and a frozen SCM that passes gradients."""

import copy

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vision.engine.registry import find
from vision.infrared.losses import TBCLoss
from vision.infrared.tbcnet import SCM, TBCNet, freeze, normalise, with_high_pass


def parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def million_macs(module: nn.Module, image: Tensor) -> float:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module.eval()(image)
    convolutions = counter.get_flop_counts()["Global"][torch.ops.aten.convolution]
    return convolutions / 2 / 1e6


@pytest.mark.parametrize(("tem", "parameters", "mmac"), [("std", 501_473, 2829.06), ("lite", 125_937, 709.89)])
def test_tem_has_golden_parameters_and_multiply_adds(tem: str, parameters: int, mmac: float) -> None:
    network = TBCNet(tem)  # type: ignore[arg-type]
    assert parameter_count(network) == parameters
    assert million_macs(network, torch.zeros(1, 1, 256, 256)) == pytest.approx(mmac, abs=0.005)


def test_scm_has_golden_parameters_and_multiply_adds() -> None:
    assert parameter_count(SCM()) == 63_749
    assert million_macs(SCM(), torch.zeros(1, 1, 256, 256)) == pytest.approx(198.84, abs=0.005)


def test_default_graph_has_only_nearest_resize_and_no_concatenation() -> None:
    network = TBCNet()
    resizes = [module for module in network.modules() if isinstance(module, nn.Upsample)]
    assert [module.mode for module in resizes] == ["nearest"] * 3
    assert not [module for module in network.modules() if isinstance(module, nn.ConvTranspose2d)]
    graph = torch.export.export(network.eval(), (torch.zeros(1, 1, 32, 40),)).graph
    assert not [node for node in graph.nodes if "cat" in str(node.target)]


@pytest.mark.parametrize("size", [(16, 16), (135, 96), (17, 31), (64, 80)])
@pytest.mark.parametrize("upsample", ["nearest", "bilinear", "transposed"])
@pytest.mark.parametrize("downsample", ["max", "stride"])
def test_any_size_in_is_the_size_out(size: tuple[int, int], upsample: str, downsample: str) -> None:
    network = TBCNet(upsample=upsample, downsample=downsample).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        assert network(torch.randn(1, 1, *size)).shape == (1, 1, *size)


def test_padding_is_reflection_to_the_right_and_bottom() -> None:
    network = TBCNet().eval()
    image = torch.randn(2, 1, 21, 30)
    rows = [*range(21), 19, 18, 17]
    columns = [*range(30), 28, 27]
    padded = image[:, :, rows][:, :, :, columns]
    with torch.no_grad():
        torch.testing.assert_close(network(image), network(padded)[..., :21, :30])


def test_too_small_an_image_is_refused_by_size() -> None:
    with pytest.raises(ValueError, match="15x40"):
        TBCNet()(torch.zeros(1, 1, 15, 40))


@pytest.mark.parametrize("head_bias", [-2.0, -4.0])
def test_training_starts_at_background(head_bias: float) -> None:
    network = TBCNet(head_bias=head_bias)
    nn.init.zeros_(network.head.weight)
    expected = 1 / (1 + torch.tensor(-head_bias).exp())
    torch.testing.assert_close(network.probability(torch.randn(1, 1, 16, 16)), expected.expand(1, 1, 16, 16))


def test_every_parameter_gets_a_gradient() -> None:
    network = TBCNet(in_channels=2)
    network(torch.randn(2, 2, 32, 32)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_scm_sees_the_sum_over_the_image() -> None:
    """Two separate copies of a scene add up before the logarithm: counting features are additive."""
    scm = SCM().eval()
    scene = torch.zeros(1, 1, 64, 64)
    scene[..., 24:40, 24:40] = torch.rand(16, 16)
    with torch.no_grad():
        once = scm.features(scene).sum(dim=(2, 3))
        twice = scm.features(torch.cat((scene, scene), dim=3)).sum(dim=(2, 3))
        torch.testing.assert_close(twice, 2 * once, rtol=0.02, atol=0.0)
        torch.testing.assert_close(scm(scene), scm.classifier(torch.log1p(once)))


def test_scm_labels_saturate() -> None:
    counts = torch.tensor([0, 1, 3, 4, 9])
    assert SCM(5).label(counts).tolist() == [0, 1, 3, 4, 4]
    assert SCM(2).label(counts).tolist() == [0, 1, 1, 1, 1]


def test_frozen_scm_is_unchanged_by_a_step_and_passes_gradients_to_its_input() -> None:
    torch.manual_seed(0)
    parent = nn.ModuleDict({"tem": TBCNet(), "scm": freeze(SCM())}).train()
    scm = parent["scm"]
    before = copy.deepcopy(scm.state_dict())
    target = (torch.rand(2, 1, 32, 32) > 0.98).float()
    logits = parent["tem"](torch.randn(2, 1, 32, 32))
    logits.retain_grad()
    loss = TBCLoss((0.0, 0.0, 0.0, 1.0))
    loss(logits, target, torch.tensor([1, 2]), scm)["semantic"].backward()
    trainable = [p for p in parent.parameters() if p.requires_grad]
    torch.optim.SGD(trainable, lr=1.0).step()

    assert logits.grad is not None and logits.grad.abs().sum() > 0
    assert not any(module.training for module in scm.modules())
    assert parent["tem"].training
    assert all(p.grad is None for p in scm.parameters())
    for name, value in scm.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_copy_of_a_frozen_module_is_frozen_by_itself() -> None:
    scm = freeze(SCM())
    clone = copy.deepcopy(scm)
    assert clone.train() is clone
    assert not any(module.training for module in clone.modules())


def test_image_normalisation_ignores_gain_and_offset() -> None:
    image = torch.rand(3, 1, 20, 24, dtype=torch.float64)
    normal = normalise(image, "image")
    assert normal.mean(dim=(2, 3)).abs().max() < 1e-12
    torch.testing.assert_close(normal.square().mean(dim=(2, 3)), torch.ones(3, 1, dtype=torch.float64))
    torch.testing.assert_close(normalise(0.25 * image + 0.5, "image"), normal)


def test_flat_image_normalises_to_zero() -> None:
    assert torch.equal(normalise(torch.full((1, 16, 16), 0.5)), torch.zeros(1, 16, 16))


def test_dataset_normalisation_uses_the_given_statistics() -> None:
    image = torch.tensor([[[0.1, 0.9]]])
    torch.testing.assert_close(normalise(image, "dataset", 0.5, 0.2), torch.tensor([[[-2.0, 2.0]]]))
    with pytest.raises(ValueError, match="mean and std"):
        normalise(image, "dataset")


def test_high_pass_equals_scipy() -> None:
    image = torch.rand(2, 1, 30, 26, dtype=torch.float64)
    stacked = with_high_pass(image)
    assert stacked.shape == (2, 2, 30, 26)
    for plane, high in zip(image[:, 0], stacked[:, 1], strict=True):
        expected = plane.numpy() - gaussian_filter(plane.numpy(), 5.0, mode="nearest", truncate=4.0)
        torch.testing.assert_close(high, torch.from_numpy(expected))


@pytest.mark.parametrize(("name", "cls"), [("tbcnet", TBCNet), ("scm", SCM)])
def test_networks_are_registered(name: str, cls: type) -> None:
    assert find(name, "network").factory is cls
