"""Checkpoints there and back, what does not fit by name, pickles that would run code, and what training begins from."""

import logging
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.pose.released_names import cid_shapes, dhrnet_shapes, hrnet_shapes
from tools.convert import main
from vision.engine.checkpoint import load_weights, read_weights
from vision.engine.errors import CheckpointError
from vision.pose.convert import convert, kind_of, network_for, read_released
from vision.pose.dhrnet import DHRNet, cid
from vision.pose.hrnet import hrnet


def small(**options: Any) -> DHRNet:
    return DHRNet(backbone="hrnet_w18_small", **options)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "dhrnet": small,
    "dhrnet of 14 joints and 24 channels": lambda: small(keypoints=14, channels=24),
    "cid": lambda: cid(backbone="hrnet_w18_small"),
    "hrnet": lambda: hrnet("hrnet_w18_small_v2"),
}


def random_state(network: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Numbers of no network, under its names."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(t.shape, generator=generator) if t.is_floating_point() else torch.tensor(7)
        for name, t in network.state_dict().items()
    }


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


@pytest.mark.parametrize("name", NETWORKS)
def test_released_names_load_strictly_and_come_back_unchanged(name: str, tmp_path: Path) -> None:
    network = NETWORKS[name]()
    state = random_state(network)
    released, ours, back = tmp_path / "model_best.pth.tar", tmp_path / "ours.safetensors", tmp_path / "back.pth"
    torch.save(state, released)
    assert convert(released, ours).whole
    load_weights(network, ours)
    assert same(network.state_dict(), state)
    assert convert(ours, back).whole
    assert same(torch.load(back, weights_only=True), state)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dhrnet", "cid", "hrnet"])
def test_a_released_file_of_w32_loads_strictly_and_comes_back_unchanged(kind: str, tmp_path: Path) -> None:
    """Its names and shapes are written down from the description of the networks, not taken from ours."""
    shapes = {"dhrnet": dhrnet_shapes(32, 17, 32), "cid": cid_shapes(32, 17, 32), "hrnet": hrnet_shapes(32)}[kind]
    state = {name: torch.randn(shape) if shape else torch.tensor(7) for name, shape in shapes.items()}
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "a.pth.tar")
    fit = convert(tmp_path / "a.pth.tar", tmp_path / "b.safetensors")
    assert fit.whole and fit.kind == kind and not fit.counters
    network = {"dhrnet": DHRNet, "cid": cid, "hrnet": hrnet}[kind]()
    load_weights(network, tmp_path / "b.safetensors")
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    convert(tmp_path / "b.safetensors", tmp_path / "c.pth")
    back = torch.load(tmp_path / "c.pth", weights_only=True)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) and back[name].dtype == state[name].dtype for name in state)


@pytest.mark.parametrize("key", ["state_dict", "model", None])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_wrappers_are_taken_off(key: str | None, prefix: str, tmp_path: Path) -> None:
    state = random_state(small())
    wrapped: Any = {prefix + name: tensor for name, tensor in state.items()}
    torch.save({key: wrapped, "optimizer": {"lr": 0.1}, "epoch": 1} if key else wrapped, tmp_path / "a.pth")
    assert same(read_released(tmp_path / "a.pth"), state)


def test_heads_of_hrnet_files_are_left_out_and_counters_may_be_missing(tmp_path: Path) -> None:
    state = {k: v for k, v in random_state(hrnet("hrnet_w18_small")).items() if not k.endswith("num_batches_tracked")}
    torch.save(
        {**state, "final_layer.weight": torch.zeros(1), "incre_modules.0.0.bn1.bias": torch.zeros(1)},
        tmp_path / "a.pth",
    )
    fit = convert(tmp_path / "a.pth", tmp_path / "b.safetensors")
    assert fit.whole
    assert fit.left_out == ["final_layer.weight", "incre_modules.0.0.bn1.bias"]
    assert fit.counters and all(name.endswith("num_batches_tracked") for name in fit.counters)
    assert read_weights(tmp_path / "b.safetensors").metadata["network"] == "hrnet"


def test_what_does_not_fit_is_listed_by_name_and_nothing_is_written(tmp_path: Path) -> None:
    state = random_state(small())
    del state["gfd.dual_relation.sa.conv1.weight"]
    state["gfd.extra.weight"] = torch.zeros(3)
    state["gfd.fuse_attn.weight"] = torch.zeros(32, 60, 1, 1)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(CheckpointError) as refused:
        convert(tmp_path / "a.pth", tmp_path / "b.safetensors")
    text = str(refused.value)
    assert "missing, kept fresh: 1 (gfd.dual_relation.sa.conv1.weight)" in text
    assert "unknown, not used: 1 (gfd.extra.weight)" in text
    assert "gfd.fuse_attn.weight (32, 60, 1, 1) for (32, 64, 1, 1)" in text
    assert not (tmp_path / "b.safetensors").exists()
    fit = convert(tmp_path / "a.pth", tmp_path / "b.safetensors", partial=True)
    assert not fit.whole
    assert (tmp_path / "b.safetensors").exists()


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import sys; sys.trapped = True",))


def test_a_pickle_that_would_run_code_is_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": random_state(small()), "extra": Trap()}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Trap(), protocol=2))
    for name in ("a.pth", "b.pth"):
        with pytest.raises(CheckpointError, match="not loaded"):
            read_released(tmp_path / name)
    assert not hasattr(sys, "trapped")


def test_files_that_are_no_such_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such"):
        read_released(tmp_path / "none.pth")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(CheckpointError, match="truncated"):
        read_released(tmp_path / "cut.pth")
    torch.save({"epoch": 3}, tmp_path / "no.pth")
    with pytest.raises(CheckpointError, match="no state dict"):
        read_released(tmp_path / "no.pth")
    with pytest.raises(CheckpointError, match=r"fc\.weight"):
        kind_of({"fc.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="37 channels"):
        network_for({"stage4.0.x": torch.zeros(1), "stage2.0.branches.0.0.conv1.weight": torch.zeros(37, 37, 3, 3)})
    with pytest.raises(CheckpointError, match=r"\.safetensors"):
        convert(tmp_path / "no.pth", tmp_path / "out.onnx")


def test_the_command_tells_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(random_state(small()), tmp_path / "a.pth")
    assert main([str(tmp_path / "a.pth"), "-o", str(tmp_path / "b.safetensors")]) == 0
    out = capsys.readouterr().out.splitlines()
    count = sum(p.numel() for p in small().parameters())
    assert out == [f"dhrnet, {count:,} parameters", str(tmp_path / "b.safetensors")]


# -- what training begins from ---------------------------------------------------------------------------------------


def beginning(weights: Path | str, **options: Any) -> DHRNet:
    torch.manual_seed(1)
    network = small(weights=str(weights), **options)
    network.before_training()
    return network


def test_a_backbone_file_fills_the_backbone_and_leaves_the_prior(tmp_path: Path) -> None:
    """The released code loses the backbone here, and the prior biases with it."""
    state = random_state(hrnet("hrnet_w18_small"))
    torch.save({**state, "classifier.weight": torch.zeros(2)}, tmp_path / "imagenet.pth")
    network = beginning(tmp_path / "imagenet.pth")
    assert same(dict(network.backbone.state_dict()), state)
    assert network.iia.keypoint_center_conv.bias is not None
    torch.testing.assert_close(network.iia.keypoint_center_conv.bias, torch.full((18,), -4.59512))
    assert float(network.gfd.conv_down.weight.detach().std()) == pytest.approx(0.001, rel=0.1)


def test_a_top_down_hrnet_that_ends_in_one_branch_will_do(tmp_path: Path) -> None:
    state = {
        k: v
        for k, v in random_state(hrnet("hrnet_w18_small")).items()
        if not k.startswith(("stage4.0.fuse_layers.1", "stage4.0.fuse_layers.2", "stage4.0.fuse_layers.3"))
    }
    torch.save({**state, "final_layer.weight": torch.zeros(17, 16, 1, 1)}, tmp_path / "pose.pth")
    network = beginning(tmp_path / "pose.pth")
    assert torch.equal(network.backbone.state_dict()["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])


def test_cid_weights_leave_the_dual_path_fresh(tmp_path: Path) -> None:
    state = random_state(cid(backbone="hrnet_w18_small"))
    torch.save(state, tmp_path / "cid.pth")
    found = beginning(tmp_path / "cid.pth").state_dict()
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_weights_for_other_joints_keep_the_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = random_state(small(keypoints=17))
    torch.save(state, tmp_path / "coco.pth")
    with caplog.at_level(logging.INFO):
        network = beginning(tmp_path / "coco.pth", keypoints=14)
    assert torch.equal(network.gfd.conv_down.weight, state["gfd.conv_down.weight"])
    assert float(network.gfd.heatmap_conv.weight.detach().abs().max()) < 0.1
    assert "of another shape, kept fresh" in caplog.text
    assert "gfd.heatmap_conv.weight (17, 32, 1, 1) for (14, 32, 1, 1)" in caplog.text


@pytest.mark.parametrize("other", [{"keypoints": 14}, {"channels": 24}])
def test_a_checkpoint_of_another_width_or_joint_count_is_refused_by_name(other: dict[str, int], tmp_path: Path) -> None:
    """To be judged or resumed, everything has to fit; only training may begin from what does not."""
    torch.save(random_state(small(**other)), tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "b.safetensors")
    network = small()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"b\.safetensors: .* another shape .*gfd\.\w+\.weight"):
        load_weights(network, tmp_path / "b.safetensors")
    assert same(network.state_dict(), before)


def test_another_width_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    torch.save(random_state(hrnet("hrnet_w18_small_v2")), tmp_path / "v2.pth")
    network = small(weights=str(tmp_path / "v2.pth"))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(CheckpointError, match="hrnet_w18_small and 32 channels"):
        network.before_training()
    assert same(network.state_dict(), before)
    torch.save(random_state(small(channels=24)), tmp_path / "narrow.pth")
    with pytest.raises(CheckpointError, match=r"gfd\.conv_down\.weight"):
        small(weights=str(tmp_path / "narrow.pth")).before_training()


def test_without_imagenet_weights_at_hand_it_is_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    def unreachable(*_: Any, **__: Any) -> nn.Module:
        raise OSError("no route to host")

    network = small(weights="imagenet")
    before = {k: v.clone() for k, v in network.state_dict().items()}
    monkeypatch.setattr(timm, "create_model", unreachable)
    with caplog.at_level(logging.WARNING):
        network.before_training()
    assert "no route to host" in caplog.text and "from scratch" in caplog.text
    assert same(network.state_dict(), before)


def test_imagenet_weights_go_into_the_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    network, trained = small(weights="imagenet"), hrnet("hrnet_w18_small")
    trained.load_state_dict(random_state(trained))
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: trained)
    network.before_training()
    assert same(dict(network.backbone.state_dict()), dict(trained.state_dict()))
