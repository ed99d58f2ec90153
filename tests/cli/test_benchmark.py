"""tools/benchmark.py: its subcommands on small networks and a small run, its files, and what it refuses."""

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.collect import check
from tests.contract.cases import write_digit
from tools.benchmark import USUAL, main, parser
from vision.engine.errors import UserError
from vision.engine.registry import names

QUICK = ["--rounds", "2", "--seconds", "0.01", "--threads", "1", "--no-memory"]


def test_two_networks_take_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, plot = tmp_path / "deep" / "speed.json", tmp_path / "deep" / "speed.png"
    told = ["--json", str(file), "--plot", str(plot), "--batch", "1,2"]
    assert main(["speed", "digits_cnn", "--against", "digits_cnn:width=8", *told, *QUICK]) == 0
    out = capsys.readouterr().out
    for words in ("samples/s", "digits_cnn @ eager fp32", "untrained", "too few rounds for an interval", "warning: 2"):
        assert words in out
    result = json.loads(file.read_text())
    check(result, "speed")
    assert len(result["rows"]) == 4
    with Image.open(plot) as image:
        assert image.size[0] > 400


def test_a_run_brings_its_accuracy(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed", str(trained), "--json", "-", "--clock", "cpu", *QUICK]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    evaluated = json.loads((trained / "eval" / "test" / "result.json").read_text())
    assert row["accuracy"] == {
        "figure": evaluated["primary"], "value": evaluated["metrics"][evaluated["primary"]], "split": "test",
    }  # fmt: skip
    assert (row["trained"], row["weights"]) == (True, "best.safetensors")


def test_stages_of_a_run(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_digit(tmp_path / "digit.png")
    arguments = ["pipeline", str(trained), str(tmp_path), "--threads", "1"]
    assert main([*arguments, "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    check(result, "pipeline")
    assert (result["images"], result["repeats"], result["what"]) == (1, 3, "digits_cnn")
    assert main(arguments) == 0
    assert "post-processing" in capsys.readouterr().out


def test_a_network_that_ships_brings_its_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed", "stop_digits", "--json", "-", *QUICK]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["what"], row["trained"], row["accuracy"]["split"]) == ("stop_digits @ eager fp32", True, "test")
    write_digit(tmp_path / "digit.png")
    assert main(["pipeline", "stop_digits", str(tmp_path), "--threads", "1", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["what"] == "stop_digits"


def test_counting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["count", "cifar_resnet:depth=20", "mamkpd_t", "--json", "-"]) == 0
    resnet, pose = json.loads(capsys.readouterr().out)["rows"]
    assert (resnet["macs"], resnet["parameters"]) == (40_551_040, 269_722)
    assert pose["parameters"] == 1_185_697
    assert main(["count", "mlp:inputs=64,hidden=[8]"]) == 0
    assert "592 MAC" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["speed", "nothing"], "no registered network"),
        (["speed", "digits_cnn@eager-int8"], "eager has no int8"),
        (["speed", "digits_cnn@tensorrt"], "tensorrt"),
        (["speed", "digits_cnn", "--clock", "cpu", "--threads", "2"], "one thread"),
        (["speed", "digits_cnn", "--backend", "eager,compiled", "--against", "mlp:inputs=4,hidden=[4]"], "say which"),
        (["pipeline", "nothing", "nothing.png"], "no such file"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        main(arguments)


@pytest.mark.parametrize("arguments", [["--size", "3"], ["--backend", "jit"], ["--batch", "0"]])
def test_wrong_words_are_refused_by_the_parser(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        parser().parse_args(["speed", "mamkpd_t", *arguments])
    assert refused.value.code == 2
    assert "expected" in capsys.readouterr().err


def test_usual_sizes_are_of_networks_that_there_are() -> None:
    assert set(USUAL) <= set(names(kind="network"))
