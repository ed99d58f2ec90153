"""Experiments that can be run again: each results file has one, each command is one, and what is done is left alone."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.collect import read_results
from benchmarks.rerun import Experiment, chosen, commands, experiments, forget, rerun
from vision.engine.config import load
from vision.engine.errors import ConfigError, UserError
from vision.engine.pipeline import plan

SHORT = "classification/digits_cnn.yaml trainer.epochs=1 name=short"


def test_every_measured_file_has_its_experiment_and_no_other() -> None:
    measured = {name for name, document in read_results().items() if document["kind"] != "published"}
    made = [result for name, experiment in experiments().items() for result in experiment.results(name)]
    assert len(made) == len(set(made))
    assert measured <= set(made)


def test_every_command_is_one_its_tool_takes() -> None:
    for name, experiment in experiments().items():
        for tool, *arguments in commands(experiment):
            module = import_module(tool.removesuffix(".py").replace("/", "."))
            taken = module.parser().parse_intermixed_args(arguments)
            if tool == "tools/train.py":
                config = load(taken.config, taken.overrides)
                config.check()
                assert plan(config), name


def test_every_script_finds_its_siblings_wherever_it_is_called_from() -> None:
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    scripts = {file: file.read_text() for file in folder.rglob("*.py") if "__main__" in file.read_text()}
    of_siblings = {file: text for file, text in scripts.items() if "\nfrom benchmarks." in text}
    assert len(of_siblings) > 10
    for file, text in of_siblings.items():
        assert -1 < text.find("sys.path.insert(0, ") < text.find("\nfrom benchmarks."), file


def test_an_experiment_is_run_once_and_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = Experiment(minutes=1, train=[SHORT])
    rerun("short", experiment, tmp_path / "runs", tmp_path, "Nothing else ran.")
    written = (tmp_path / "short.json").read_bytes()
    assert {record["recipe"] for record in json.loads(written)["records"]} == {"short"}
    assert json.loads(written)["note"] == "Nothing else ran."

    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("what was done was run again"))
    rerun("short", experiment, tmp_path / "runs", tmp_path)
    assert (tmp_path / "short.json").read_bytes() == written

    forget("short", experiment, tmp_path / "runs")
    assert not (tmp_path / "runs" / "short").exists()
    assert not (tmp_path / "runs" / "short.done").exists()


def test_what_failed_is_not_done(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"broken: status 2 of python tools/train\.py"):
        rerun("broken", Experiment(minutes=1, train=[f"{SHORT} data.root=nowhere"]), tmp_path, tmp_path)
    assert not list(tmp_path.glob("broken*"))


def test_the_choice() -> None:
    known = {name: Experiment(minutes=minutes, script="x.py") for name, minutes in (("a", 5), ("b", 1), ("c", 3))}
    assert list(chosen(known, None, None)) == ["b", "c", "a"]
    assert list(chosen(known, None, 4)) == ["b", "c"]
    assert list(chosen(known, "a,b", 5)) == ["b"]
    with pytest.raises(ConfigError, match="no experiment 'digits'"):
        chosen(known, "digits", None)
    with pytest.raises(ConfigError, match="at least the 1 of the cheapest"):
        chosen(known, None, 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("one: {minutes: 1}", "one: Value error, expected 'train' or 'script'"),
        ("one: {minutes: 1, script: a.py, trains: [b]}", r"one\.trains: Extra inputs"),
        ("one: {minutes: 0, script: a.py}", r"one\.minutes: Input should be greater than 0"),
    ],
)
def test_a_mistake_in_the_list_names_entry_and_field(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "experiments.yaml").write_text(text)
    with pytest.raises(ConfigError, match=told):
        experiments(tmp_path / "experiments.yaml")
