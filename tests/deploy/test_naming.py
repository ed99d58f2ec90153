"""What is to be measured, read from one word, and what is refused."""

from pathlib import Path

import pytest

from vision.deploy.naming import Name, block_of, parse
from vision.deploy.shipped import MODELS
from vision.engine.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("mamkpd_t", Name("mamkpd_t", "network")),
        ("mamkpd_t@compiled", Name("mamkpd_t", "network", (), "compiled")),
        ("mamkpd_t@onnxruntime-int8", Name("mamkpd_t", "network", (), "onnxruntime", "int8")),
        ("mlp:inputs=64,hidden=[12, 8]@eager-bf16",
         Name("mlp", "network", ("inputs=64", "hidden=[12, 8]"), "eager", "bf16")),
        ("digits_cnn", Name("digits_cnn", "network")),  # a shipped recipe has this name too
        ("mlp_digits", Name("mlp_digits", "recipe")),
        ("stop_digits@onnxruntime", Name(str(MODELS / "stop_digits"), "run", (), "onnxruntime")),  # a recipe's name too
        ("configs/classification/digits_cnn.yaml:seed=1", Name("configs/classification/digits_cnn.yaml", "recipe",
                                                              ("seed=1",))),
    ],
)  # fmt: skip
def test_a_word_says_what_and_how(text: str, name: Name, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    assert parse(text) == name


def test_paths_say_what_they_are(tmp_path: Path) -> None:
    run = tmp_path / "a@b:c"  # signs in a path mean nothing
    run.mkdir()
    (run / "config.yaml").touch()
    file = tmp_path / "model.onnx"
    file.touch()
    assert parse(str(run)) == Name(str(run), "run")
    assert parse(f"{run}@compiled") == Name(str(run), "run", (), "compiled")
    assert parse(str(file)) == Name(str(file), "file", (), "onnxruntime")
    assert parse(str(file)).short == "model.onnx"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "mamkpd_x",
            r"network that ships, recipe, run folder or exported file \(did you mean 'mamkpd_\w'\?\)",
        ),
        ("mamkpd_t@onnxruntme", "no backend 'onnxruntme'.*did you mean 'onnxruntime'.*expected one of eager, compiled"),
        ("file.onnx@eager", "a .onnx file is run by onnxruntime, not by eager"),
        ("file.onnx:depth=20", "an exported file takes no options"),
        ("file.txt", "cannot be run; expected a file that ends in .onnx"),
        ("folder", "a folder without config.yaml; expected a run folder"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("file.onnx", "file.txt"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=words):
        parse(text)


def test_options_are_the_constructor_s() -> None:
    name = parse("dhrnet:backbone=hrnet_w18_small,search.most=5,search.threshold=0.0")
    assert block_of(name) == {
        "type": "dhrnet", "backbone": "hrnet_w18_small", "search": {"most": 5, "threshold": 0.0},
    }  # fmt: skip
    with pytest.raises(ConfigError, match="expected key=value"):
        block_of(parse("mlp:inputs"))
