"""HRNet features: released sizes and names, any image size, and folding that changes nothing."""

import pytest
import torch
from torch import nn

from tests.pose.released_names import hrnet_shapes
from vision.engine.errors import ConfigError
from vision.pose.hrnet import concatenated_features, fold_batchnorm, hrnet, widths


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


PARTS = {
    "hrnet_w32": {
        "layer1": 286_208, "transition1": 221_376, "stage2": 390_848, "transition2": 73_984, "stage3": 6_821_632,
        "transition3": 295_424, "stage4": 21_177_216,
    },
    "hrnet_w48": {
        "layer1": 286_208, "transition1": 332_064, "stage2": 878_112, "transition2": 166_272, "stage3": 15_335_040,
        "transition3": 664_320, "stage4": 47_624_256,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("model", "total", "features", "buffers"),
    [("hrnet_w32", 29_305_536, 480, 57_649), ("hrnet_w48", 65_325_120, 720, 84_401)],
)
def test_parameters_by_part(model: str, total: int, features: int, buffers: int) -> None:
    with torch.device("meta"):
        network = hrnet(model)
    assert count(network) == total
    assert sum(widths(network)) == features
    assert sum(b.numel() for b in network.buffers()) == buffers
    stem = [count(getattr(network, name)) for name in ("conv1", "bn1", "conv2", "bn2")]
    assert stem == [1_728, 128, 36_864, 128]
    assert {part: count(getattr(network, part)) for part in PARTS[model]} == PARTS[model]


@pytest.mark.parametrize("width", [32, 48])
def test_names_and_shapes_are_those_of_the_released_files(width: int) -> None:
    with torch.device("meta"):
        network = hrnet(f"hrnet_w{width}")
    assert {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()} == hrnet_shapes(width)


@pytest.mark.parametrize("size", [(4, 4), (33, 64), (70, 31)])
def test_any_size_is_padded_with_zeros_and_cropped(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = hrnet("hrnet_w18_small").eval()
    image = torch.randn(2, 3, *size)
    whole = torch.zeros(2, 3, -(-size[0] // 32) * 32, -(-size[1] // 32) * 32)
    whole[..., : size[0], : size[1]] = image
    with torch.no_grad():
        found, expected = concatenated_features(network, image), concatenated_features(network, whole)
    rows, columns = -(-size[0] // 4), -(-size[1] // 4)
    assert found.shape == (2, 240, rows, columns)
    torch.testing.assert_close(found, expected[..., :rows, :columns])


def test_an_image_smaller_than_the_stride_is_refused() -> None:
    with pytest.raises(ValueError, match="3x40"):
        concatenated_features(hrnet("hrnet_w18_small"), torch.zeros(1, 3, 3, 40))


def test_folding_leaves_no_norm_and_the_same_features() -> None:
    torch.manual_seed(0)
    network = hrnet("hrnet_w18_small")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        concatenated_features(network.train(), images)  # statistics that are no identity
        network.double().eval()
        before = concatenated_features(network, images.double())
        after = concatenated_features(fold_batchnorm(network), images.double())
    assert not [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)


def test_folding_while_training_is_refused() -> None:
    with pytest.raises(ValueError, match="eval"):
        fold_batchnorm(hrnet("hrnet_w18_small").train())


def test_an_unknown_backbone_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'hrnet_w32'"):
        hrnet("hrnet_w23")
