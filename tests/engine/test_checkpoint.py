"""Weights and resume states: round trips, and files that are truncated, foreign or hostile."""

import gc
import json
import os
import pickle
import struct
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.engine.harness import same
from vision.engine.checkpoint import (
    differences,
    load_weights,
    read_resume,
    read_weights,
    save_resume,
    save_weights,
)
from vision.engine.errors import CheckpointError


class Tied(nn.Module):
    """Two names for one parameter, a view of another's memory, an empty buffer, odd types and memory orders."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.convolution = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(4)
        self.register_buffer("first", self.embedding.weight.detach()[:2])
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("short", torch.randn(3).to(torch.bfloat16))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("count", torch.tensor(7))


def network(seed: int, kind: type[nn.Module] = Tied) -> nn.Module:
    torch.manual_seed(seed)
    return kind()


def test_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    saved, other = network(0), network(1)
    save_weights(tmp_path / "a.safetensors", saved, {"task": "t", "step": "3"})
    read = load_weights(other, tmp_path / "a.safetensors")
    assert same(dict(other.state_dict()), dict(saved.state_dict()))
    assert read.metadata == {"task": "t", "step": "3", "format": "triptych-weights-1"}
    assert list(read.tensors) == sorted(saved.state_dict())
    assert isinstance(other, Tied) and other.head.weight is other.embedding.weight
    assert other.convolution.weight.is_contiguous(memory_format=torch.channels_last)
    # any reader of the format reads the same
    assert same(load_file(tmp_path / "a.safetensors"), dict(saved.state_dict()))


def test_the_same_weights_make_the_same_file_in_every_process(tmp_path: Path) -> None:
    """The library alone writes metadata in another order in every process."""
    program = (
        "import sys, torch; from pathlib import Path; from vision.engine.checkpoint import save_weights;"
        "torch.manual_seed(0); net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2));"
        "save_weights(Path(sys.argv[1]), net, {c: c for c in 'task network recipe seed step averaged'.split()})"
    )
    files = [tmp_path / f"{i}.safetensors" for i in range(2)]
    for file in files:
        subprocess.run([sys.executable, "-c", program, str(file)], check=True, timeout=60)
    assert len({file.read_bytes() for file in files}) == 1
    assert len({read_weights(file).sha256 for file in files}) == 1


def test_reading_weights_again_holds_no_more_memory(good: Path) -> None:
    """The library's ``safe_open`` leaks two objects a tensor: a page that opens many networks would grow."""
    for _ in range(5):
        read_weights(good)
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(100):
        read_weights(good)
    gc.collect()
    assert sys.getallocatedblocks() - before < 100


def test_a_state_dict_of_others_is_read(tmp_path: Path) -> None:
    saved = network(0)
    for name, content in {
        "plain.pth": saved.state_dict(),
        "wrapped.pt": {"state_dict": saved.state_dict(), "epoch": 3},
        "ordered.bin": OrderedDict(saved.state_dict()),
    }.items():
        torch.save(content, tmp_path / name)
        other = network(1)
        assert load_weights(other, tmp_path / name).metadata == {}
        assert same(dict(other.state_dict()), dict(saved.state_dict()))


# -- files that must be refused: one clear line, and nothing has changed ---------------------------------------------


def refused(path: Path, *said: str, kind: type[nn.Module] = Tied) -> None:
    into = network(1, kind)
    before = {name: value.clone() for name, value in into.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(into, path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    for part in said:
        assert part in message
    assert same(dict(into.state_dict()), before)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    save_weights(tmp_path / "good.safetensors", network(0), {"network": "Tied", "task": "toy"})
    return tmp_path / "good.safetensors"


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_truncated_weights(good: Path, keep: int) -> None:
    good.write_bytes(good.read_bytes()[:keep])
    refused(good, "truncated or not a safetensors file")


@pytest.mark.parametrize(
    "content",
    [b"", b"GIF89a....", b"\xff" * 64, struct.pack("<Q", 2**60) + b"{}"],
    ids=["empty", "gif", "ones", "long"],
)
def test_something_else_under_the_name(tmp_path: Path, content: bytes) -> None:
    for name in ("a.safetensors", "a.pth"):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "truncated")


def written(path: Path, header: dict[str, Any], data: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_numbers_of_a_type_that_torch_lacks(tmp_path: Path) -> None:
    header = {"w": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}
    refused(written(tmp_path / "a.safetensors", header, b"\0\0"), "numbers of the type 'F4', which cannot be read here")


def test_no_metadata_in_so_many_words(tmp_path: Path) -> None:
    header = {"__metadata__": None, "w": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}
    read = read_weights(written(tmp_path / "a.safetensors", header, b"\1\2"))
    assert read.tensors["w"].tolist() == [1, 2] and read.metadata == {}


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none.safetensors", "no such checkpoint; expected a .safetensors, .pt or .pth file")
    refused(tmp_path, "no such checkpoint")


class Wider(Tied):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(6)  # type: ignore[assignment]
        self.more = nn.Linear(1, 1)
        del self.short


def test_another_architecture_is_told_by_name(good: Path) -> None:
    refused(
        good,
        "holds the weights of another network ('Tied', task 'toy'), not of this Wider: ",
        "missing 2 (more.weight, more.bias)",
        "unknown 1 (short)",
        "another shape 4 (norm.weight (4,) for (6,), ",
        "use the configuration it was trained with",
        kind=Wider,
    )


def test_a_long_list_of_differences_is_cut() -> None:
    wanted = {f"layer{i}": torch.zeros(1) for i in range(9)}
    assert differences(wanted, {}) == "missing 9 (layer0, layer1, layer2, layer3 and 5 more)"
    assert differences(wanted, dict(wanted)) == ""


def test_weights_of_another_package_without_metadata(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    refused(
        tmp_path / "foreign.safetensors",
        "holds the weights of another network, not of this Tied",
        "unknown 1 (conv1.weight)",
    )


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1}, torch.zeros(2)])
def test_a_pickle_that_is_no_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "not a state dict; expected tensors by name")


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("plain", [True, False], ids=["pickle", "torch"])
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, plain: bool) -> None:
    for name in ("a.pth", "a.resume"):
        content = {"format": "triptych-resume-1", "weights": torch.zeros(1), "trap": Trap(tmp_path / "sprung")}
        if plain:
            (tmp_path / name).write_bytes(pickle.dumps({"trap": Trap(tmp_path / "sprung")}))
        else:
            torch.save(content, tmp_path / name)
    refused(tmp_path / "a.pth", "truncated, or holds more than tensors, which is not loaded")
    with pytest.raises(CheckpointError, match="truncated or not a resume state"):
        read_resume(tmp_path / "a.resume")
    assert not (tmp_path / "sprung").exists()


# -- resume states ---------------------------------------------------------------------------------------------------


def test_a_resume_state_comes_back(tmp_path: Path) -> None:
    parameter = nn.Parameter(torch.randn(4))
    optimizer = torch.optim.AdamW([{"params": [parameter], "betas": (0.8, 0.9), "lr_scale": 0.5}], amsgrad=True)
    parameter.grad = torch.ones(4)
    optimizer.step()
    state = {"progress": {"step": 3, "best": None, "finished": ""}, "optimizer": optimizer.state_dict(), "ema": None}
    save_resume(tmp_path / "a.resume", state)
    read = read_resume(tmp_path / "a.resume")
    assert read["progress"] == state["progress"] and read["ema"] is None
    assert read["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]
    held: dict[str, Tensor] = read["optimizer"]["state"][0]
    assert same(held, optimizer.state_dict()["state"][0])


def test_a_state_with_numpys_types_would_be_refused(tmp_path: Path) -> None:
    """Why figures become Python's floats before they are saved."""
    save_resume(tmp_path / "a.resume", {"best": np.float64(1.0)})
    with pytest.raises(CheckpointError):
        read_resume(tmp_path / "a.resume")


def test_the_header_stays_a_valid_one(good: Path) -> None:
    content = good.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0 and list(header) == sorted(header)
    ends = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    assert len(content) == 8 + length + ends
