"""Weights for another joint count, decoder or input size: what is kept, what is fresh, and what is refused."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vision.engine.checkpoint import save_weights
from vision.engine.errors import CheckpointError
from vision.engine.registry import build
from vision.pose.network import PoseNetwork
from vision.pose.transfer import resized_positions, transfer_weights

ONE_BLOCK = {"options": {"depth": 1, "embed_dim": 12, "num_heads": 2}, "hidden": 8}


def mamkpd(seed: int, **options: Any) -> PoseNetwork:
    torch.manual_seed(seed)
    network: PoseNetwork = build({"type": "mamkpd_t", "input_size": [48, 64], **options}, "network")
    return network


def vit(seed: int, **options: Any) -> PoseNetwork:
    torch.manual_seed(seed)
    block = {"type": "timm_pose", "model": "vit_tiny_patch16_224", "input_size": [48, 64], **ONE_BLOCK}
    network: PoseNetwork = build({**block, **options}, "network")
    return network


def saved(network: PoseNetwork, folder: Path) -> Path:
    save_weights(folder / "weights.safetensors", network, {})
    return folder / "weights.safetensors"


def values(network: PoseNetwork) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_another_joint_count_keeps_all_but_the_last_convolution(tmp_path: Path) -> None:
    trained, network = mamkpd(0), mamkpd(1, keypoints=14)
    before = values(network)
    transfer = transfer_weights(network, saved(trained, tmp_path))
    assert transfer.fresh == ("decoder.last.weight", "decoder.last.bias")
    assert set(transfer.unused) == set(transfer.fresh)
    assert set(transfer.kept) == before.keys() - set(transfer.fresh)
    after, source = network.state_dict(), trained.state_dict()
    for name in transfer.kept:
        assert torch.equal(after[name], source[name]), name
    for name in transfer.fresh:
        assert torch.equal(after[name], before[name]), name
    total = sum(value.numel() for value in before.values())
    assert transfer.parameters == (total - 14 * 64 - 14, total)


def test_the_same_network_is_taken_over_whole(tmp_path: Path) -> None:
    trained, network = mamkpd(0), mamkpd(1, input_size=[96, 128])  # heatmap decoders know no input size
    transfer = transfer_weights(network, saved(trained, tmp_path))
    assert (transfer.fresh, transfer.unused, transfer.resized) == ((), (), ())
    images = torch.randn(1, 3, 128, 96)
    with torch.no_grad():
        assert torch.equal(network.eval()(images), trained.eval()(images))


def test_another_decoder_is_fresh_and_said(tmp_path: Path) -> None:
    transfer = transfer_weights(mamkpd(1, decoder="simple"), saved(mamkpd(0), tmp_path))
    assert all(name.startswith("decoder.") for name in (*transfer.fresh, *transfer.unused))
    text = str(transfer)
    assert "initialised afresh: decoder.last.weight" in text
    assert "in the file but unused: decoder.doublings.0.conv.weight" in text
    assert f"{transfer.parameters[0]:,} of {transfer.parameters[1]:,} numbers kept" in text


def test_another_input_size_of_simcc_is_fresh_where_it_must(tmp_path: Path) -> None:
    trained, network = mamkpd(0, decoder="simcc"), mamkpd(1, decoder="simcc", input_size=[64, 64])
    transfer = transfer_weights(network, saved(trained, tmp_path))
    assert transfer.fresh == ("decoder.token.1.weight", "decoder.columns.weight")
    assert torch.equal(network.state_dict()["decoder.rows.weight"], trained.state_dict()["decoder.rows.weight"])


@pytest.mark.parametrize("other", [{"ratio": 1.0}, {"gate": False}, {"mlp_ratio": 1.0}, {"state_size": 2}])
def test_another_encoder_is_refused_and_nothing_is_changed(other: dict[str, Any], tmp_path: Path) -> None:
    network = mamkpd(1, **other)
    before = values(network)
    with pytest.raises(CheckpointError, match=r"encoder is not that of this MamKPD: .*only the decoder may differ"):
        transfer_weights(network, saved(mamkpd(0), tmp_path))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        transfer_weights(mamkpd(0), tmp_path / "none.safetensors")


def test_training_begins_from_the_file_of_the_recipe(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained = mamkpd(0)
    network = mamkpd(1, keypoints=5, weights=str(saved(trained, tmp_path)))
    assert not torch.equal(network.state_dict()["norm.weight"] + 1, trained.state_dict()["norm.weight"])
    with caplog.at_level("INFO"):
        network.before_training()
    assert "initialised afresh: decoder.last.weight, decoder.last.bias" in caplog.text
    name = "stages.0.down.weight"
    assert torch.equal(network.state_dict()[name], trained.state_dict()[name])
    absent = mamkpd(1, weights=str(tmp_path / "gone.safetensors"))  # to be judged only, it needs no such file
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        absent.before_training()


def test_position_embeddings_of_another_input_size_are_interpolated(tmp_path: Path) -> None:
    trained, network = vit(0), vit(1, input_size=[96, 128], keypoints=3)
    transfer = transfer_weights(network, saved(trained, tmp_path))
    name = "backbone.network.pos_embed"
    assert transfer.resized == (name,)
    assert "interpolated: backbone.network.pos_embed" in str(transfer)
    assert transfer.fresh == ("decoder.last.weight", "decoder.last.bias")
    small, large = trained.state_dict()[name], network.state_dict()[name]
    assert (small.shape[1], large.shape[1]) == (1 + 12, 1 + 48)
    assert torch.equal(large[:, 0], small[:, 0])  # the class token stands for no position
    assert network.eval()(torch.randn(1, 3, 128, 96)).shape == (1, 3, 32, 24)


def test_interpolated_positions_follow_a_ramp() -> None:
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(6.0), indexing="ij")
    embedding = torch.stack([rows, columns, torch.ones_like(rows)], -1).reshape(1, 48, 3)
    resized = resized_positions(embedding, (16, 12), prefix=0).view(16, 12, 3)
    expected = (torch.arange(16.0) + 0.5) / 2 - 0.5
    torch.testing.assert_close(resized[4:-4, 5, 0], expected[4:-4], rtol=0, atol=1e-5)
    torch.testing.assert_close(resized[7, 4:-4, 1], expected[4:-6][: 12 - 8], rtol=0, atol=1e-5)
    torch.testing.assert_close(resized[..., 2], torch.ones(16, 12))


def test_positions_of_a_square_grid_serve_another_shape() -> None:
    square = torch.randn(1, 1 + 14 * 14, 4)
    assert resized_positions(square, (16, 12), prefix=1).shape == (1, 1 + 192, 4)
    same = resized_positions(torch.arange(48.0).view(1, 48, 1), (8, 6), prefix=0)
    torch.testing.assert_close(same.flatten(), torch.arange(48.0), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("cells", [0, 7, 200])
def test_positions_of_no_grid_are_refused(cells: int) -> None:
    assert math.isqrt(cells) ** 2 != cells or cells == 0
    with pytest.raises(CheckpointError, match=f"position embeddings of {cells} cells are of no grid like 16x12"):
        resized_positions(torch.zeros(1, 1 + cells, 4), (16, 12), prefix=1)
