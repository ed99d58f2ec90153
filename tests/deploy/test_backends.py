"""What cannot be had is refused with the fix; what can be had computes what the network computes."""

import builtins
from pathlib import Path

import numpy as np
import pytest
import torch

from vision.deploy.backends import RANDOM_RANGES, How, exported, ready
from vision.deploy.naming import parse
from vision.deploy.subjects import Subject, subject_of
from vision.engine.errors import ConfigError, DeviceError


@pytest.fixture(scope="module")
def digits() -> Subject:
    return subject_of(parse("digits_cnn"), (8, 8))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (How("eager", "int8"), "eager has no int8 .*; int8 runs in onnxruntime"),
        (How("onnxruntime", "bf16"), "onnxruntime has no bf16 .*; bf16 runs in eager, compiled"),
        (How("aoti", "fp16"), "aoti has no fp16"),
        (How("jit"), "backend 'jit'.*expected one of eager"),
        (How("eager", batch=0), "batch 0, threads 1: expected 1 or more"),
        (How("eager", device="tpu"), "device 'tpu': expected cpu or cuda"),
    ],
)
def test_what_no_backend_has_is_refused(how: How, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        how.check()


def test_what_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="torch sees no GPU here; use --device cpu"):
        How("eager", device="cuda").check()
    find = "vision.deploy.backends.importlib.util.find_spec"
    monkeypatch.setattr(find, lambda name: object())
    with pytest.raises(DeviceError, match="tensorrt runs on NVIDIA GPUs only"):
        How("tensorrt").check()
    monkeypatch.setattr(find, lambda name: None)
    with pytest.raises(DeviceError, match=r"onnxruntime is not installed: python -m pip install 'triptych\[export\]'"):
        How("onnxruntime").check()
    monkeypatch.setattr("vision.deploy.backends.shutil.which", lambda name: None)
    with pytest.raises(DeviceError, match=r"compiled needs a C\+\+ compiler"):
        How("compiled").check()


def test_an_onnxruntime_without_gpus_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(DeviceError, match="onnxruntime-gpu"):
        How("onnxruntime", device="cuda").check()


def test_engines_are_not_built_on_the_fly(digits: Subject, tmp_path: Path) -> None:
    assert digits.graph is not None
    with pytest.raises(ConfigError, match="engines are not built on the fly"):
        exported(digits.graph, digits.inputs(1), How("tensorrt", device="cuda"), tmp_path)


def test_eager_runs_the_network(digits: Subject) -> None:
    assert digits.graph is not None
    made = ready(digits, How("eager", batch=3))
    with torch.no_grad():
        wanted = digits.graph.module(*digits.inputs(3).values())
    torch.testing.assert_close(made.call(), wanted)
    assert made.about["dtype"] == "float32"
    half = ready(digits, How("eager", "bf16", batch=3))
    assert half.call().dtype == torch.bfloat16
    assert half.about["dtype"] == "autocast to bfloat16"


@pytest.mark.parametrize(("precision", "error"), [("fp32", 1e-5), ("int8", 0.3)])
def test_onnxruntime_runs_the_network(digits: Subject, precision: str, error: float) -> None:
    assert digits.graph is not None
    made = ready(digits, How("onnxruntime", precision, batch=3))
    with torch.no_grad():
        wanted = digits.graph.module(*digits.inputs(3).values()).numpy()
    (found,) = made.call().values()
    assert found.shape == wanted.shape == (3, 10)
    np.testing.assert_allclose(found, wanted, atol=error * np.abs(wanted).max())
    assert (RANDOM_RANGES in made.about["dtype"]) is (precision == "int8")
    assert made.file is not None
    assert made.file.is_file()


def test_a_file_that_is_no_package_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.pt2"
    file.write_bytes(builtins.bytes(8))
    subject = Subject(parse(str(file)), {"image": (1, 1, 8, 8)}, {}, file=file)
    with pytest.raises(ConfigError, match="no package that AOTInductor compiled"):
        ready(subject, How("aoti"))
