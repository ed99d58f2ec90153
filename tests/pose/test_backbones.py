"""Networks of timm as pose networks: published sizes, weights, any input size, deployment, and what is refused."""

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from vision.engine.errors import CheckpointError, ConfigError
from vision.engine.registry import build
from vision.pose.backbones import IMAGENET_MEAN, IMAGENET_STD, TimmPose, timm_pose

SMALL_VIT = {"depth": 1, "embed_dim": 12, "num_heads": 2}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("model", "decoder", "millions"),
    [
        ("hrnet_w32", "deconv", 28.5),
        ("hrnet_w48", "deconv", 63.6),
        ("resnet50", "deconv", 34.0),
        ("vit_small_patch16_224", "deconv", 24.3),
        ("vit_small_patch16_224", "simple", 21.7),
        ("vit_base_patch16_224", "deconv", 90.0),
        ("vit_base_patch16_224", "simple", 85.9),
    ],
)
def test_sizes_are_those_published(model: str, decoder: Any, millions: float) -> None:
    with torch.device("meta"):
        assert round(count(timm_pose(model, decoder=decoder)) / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("model", "options"),
    [("test_resnet", {}), ("test_efficientnet", {}), ("vit_tiny_patch16_224", SMALL_VIT), ("hrnet_w18_small", {})],
)
def test_heatmaps_of_any_input_size_and_a_gradient_for_every_parameter(model: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = timm_pose(model, keypoints=5, hidden=8, options=options)
    output = network.train()(torch.randn(2, 3, 100, 70))
    assert output.shape == (2, 5, 25, 18)
    output.square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_simcc_behind_a_network_whose_cells_do_not_divide_the_crop() -> None:
    network = timm_pose("test_resnet", keypoints=5, input_size=(72, 100), decoder="simcc").eval()
    columns, rows = network(torch.randn(2, 3, 100, 72))
    assert columns.shape[:2] == rows.shape[:2] == (2, 5)
    assert (columns.shape[2], rows.shape[2]) == (144, 200)


def test_features_of_an_hrnet_are_those_of_timm() -> None:
    torch.manual_seed(0)
    network = timm_pose("hrnet_w18_small").eval()
    whole = timm.create_model("hrnet_w18_small", features_only=True, feature_location="", out_indices=(1,)).eval()
    missing, unexpected = network.backbone.network.load_state_dict(whole.state_dict(), strict=False)
    assert not missing
    assert unexpected
    assert all("stage4" in name and "fuse_layers" in name for name in unexpected)
    images = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        torch.testing.assert_close(network.features(images), whole(images)[0])


def test_features_of_a_vit_are_its_normed_tokens_in_their_places() -> None:
    torch.manual_seed(0)
    network = timm_pose("vit_tiny_patch16_224", input_size=(48, 64), options=SMALL_VIT).eval()
    images = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        features = network.features(images)
        converted = images * network.gain + network.offset
        tokens = network.backbone.network.forward_features(converted)  # type: ignore[union-attr,operator]
    assert features.shape == (2, 12, 4, 3)
    for row in range(4):
        for column in range(3):
            torch.testing.assert_close(features[:, :, row, column], tokens[:, 1 + 3 * row + column])


def test_images_are_converted_to_the_statistics_the_weights_expect() -> None:
    mean, std = (torch.tensor(t).view(1, 3, 1, 1) for t in (IMAGENET_MEAN, IMAGENET_STD))
    image = torch.rand(1, 3, 4, 4)
    network = timm_pose("tf_efficientnet_lite0")
    torch.testing.assert_close((image - mean) / std * network.gain + network.offset, (image - 0.5) / 0.5)
    assert network.converts
    assert not timm_pose("resnet18").converts
    assert not timm_pose("tf_efficientnet_lite0", in_channels=1).converts


@pytest.mark.data
def test_imagenet_weights_of_the_backbone(data_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The features are those of timm's classifier with the same file, for images normalised as it expects."""
    file = data_root / "imagenet_backbone" / "tf_efficientnet_lite0_imagenet.pt"
    network = timm_pose("tf_efficientnet_lite0", backbone_weights=str(file)).eval()
    with caplog.at_level("INFO"):
        network.before_training()
    assert "288 tensors of the backbone kept; initialised afresh: the decoder" in caplog.text
    whole = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(-1,)).eval()
    whole.load_state_dict(torch.load(file, weights_only=True), strict=False)
    image = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(t).view(1, 3, 1, 1) for t in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        expected = whole((image - 0.5) / 0.5)[0]
        torch.testing.assert_close(network.features((image - mean) / std), expected, rtol=1e-3, atol=1e-3)
    assert expected.std() > 0.1


def test_backbone_weights_of_a_classifier_with_other_names_and_another_grid(tmp_path: Path) -> None:
    """timm renames blocks of features; position embeddings of a square image are interpolated; heads are left."""
    for model, options in (("test_convnext", {}), ("vit_tiny_patch16_224", SMALL_VIT)):
        torch.manual_seed(0)
        classifier = timm.create_model(model, num_classes=7, **options)
        file = tmp_path / f"{model}.pt"
        torch.save({"state_dict": {f"module.{k}": v for k, v in classifier.state_dict().items()}}, file)
        torch.manual_seed(1)
        network = timm_pose(model, backbone_weights=str(file), options=options)
        network.before_training()
        held = {name.replace(".", "_"): value for name, value in classifier.state_dict().items()}
        for name, value in network.backbone.network.state_dict().items():
            if not name.endswith("pos_embed"):
                assert torch.equal(value, held[name.replace(".", "_")]), name


def test_backbone_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.pt"
    torch.save(timm.create_model("test_efficientnet").state_dict(), file)
    network = timm_pose("test_resnet", backbone_weights=str(file))
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(CheckpointError, match=r"other.pt: does not fit the backbone: missing"):
        network.before_training()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_fetched_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model
    fetched = create("test_resnet")

    def offline(*given: Any, **options: Any) -> nn.Module:
        if options.get("pretrained"):
            raise OSError("no route to host")
        return create(*given, **options)

    network = timm_pose("test_resnet", pretrained=True)
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(CheckpointError, match=r"'test_resnet' cannot be fetched \(no route to host\)"):
        network.before_training()
    monkeypatch.setattr(timm, "create_model", lambda *given, **options: fetched)
    network.before_training()
    own, theirs = network.backbone.network.state_dict(), fetched.state_dict()
    assert torch.equal(own["layer1.0.conv1.weight"], theirs["layer1.0.conv1.weight"])


@pytest.mark.parametrize("model", ["test_resnet", "hrnet_w18_small"])
def test_deployed_outputs_are_equal(model: str) -> None:
    torch.manual_seed(0)
    network = timm_pose(model, keypoints=4, hidden=8)
    with torch.no_grad():
        for _ in range(3):
            network.train()(torch.randn(4, 3, 64, 64))
    network.eval()
    deployed = copy.deepcopy(network).deploy()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(deployed(images), network(images), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in deployed.modules())
    assert deployed.deploy() is deployed


def test_deployment_says_what_it_leaves(caplog: pytest.LogCaptureFixture) -> None:
    network = timm_pose("tf_efficientnet_lite0", hidden=8).eval()
    deployed = copy.deepcopy(network).deploy()
    assert "batch norms of the backbone stay as they are: it cannot be traced" in caplog.text
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(deployed(images), network(images), rtol=1e-4, atol=1e-5)


def test_recipes_build_it_and_mistakes_are_named() -> None:
    network = build({"type": "timm_pose", "model": "test_resnet", "keypoints": 3, "in_channels": 1}, "network")
    assert isinstance(network, TimmPose)
    assert network.eval()(torch.randn(1, 1, 64, 64)).shape == (1, 3, 16, 16)
    for block, message in (
        ({"model": "hrnet_w23"}, "there is no 'hrnet_w23' .did you mean 'hrnet_w32'"),
        ({"model": "test_resnet", "pretrained": True, "weights": "a.pt"}, "give one of pretrained"),
        ({"model": "test_resnet", "options": {"wdith": 3}}, "cannot be built as features"),
        ({"model": "vit_base_patch32_224"}, ""),
        ({"model": "vit_base_patch14_dinov2"}, "stride 14 cannot be decoded"),
    ):
        if message:
            with pytest.raises(ConfigError, match=message), torch.device("meta"):
                timm_pose(**block)  # type: ignore[arg-type]
        else:
            with torch.device("meta"):
                assert timm_pose(**block).backbone.stride == 32  # type: ignore[arg-type]
