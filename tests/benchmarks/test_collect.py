"""Run folders into records: nothing lost, nothing made up, no folder of a machine."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from benchmarks.collect import RESULTS, collect, main, read_results, schema
from tests.benchmarks.folders import MACHINE, SHA, MakeRun, recipe, write_config, write_evaluation, write_training
from vision.classification import DigitsCNN
from vision.engine.checkpoint import save_weights
from vision.engine.errors import DataError, UserError


def one(document: dict[str, Any]) -> dict[str, Any]:
    (record,) = document["records"]
    return record


def test_a_run_gives_a_record_with_everything_the_folder_says(make_run: MakeRun) -> None:
    folder = make_run("a", {"accuracy": 0.875, "nll": None})
    network = DigitsCNN(width=8)
    (folder / "checkpoints").mkdir()
    save_weights(folder / "checkpoints" / "best.safetensors", network, {})
    assert one(collect([folder])) == {
        "recipe": "a",
        "stage": None,
        "seed": 0,
        "evaluation": "test",
        "split": "test",
        "data": {"type": "digits"},
        "samples": 20,
        "metrics": {"accuracy": 0.875, "nll": None},
        "bins": [],
        "primary": "accuracy",
        "mode": "max",
        "network": {"type": "mlp", "inputs": 64, "hidden": []},
        "loss": None,
        "options": {},
        "parameters": sum(p.numel() for p in network.parameters()),
        "checkpoint": "best",
        "weights_sha256": SHA["b"],
        "config_sha256": SHA["a"],
        "updates": 30,
        "batch_size": 8,
        "best_update": 20,
        "train_seconds": 120.0,
        "eval_seconds": 1.0,
        "machine": MACHINE,
        "commit": "0" * 40,
        "date": "2026-01-02T03:04:05+00:00",
    }


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """Two stages with two seeds, finished."""
    folder = tmp_path / "pipe"
    write_config(folder, {**recipe("pipe", seeds=[0, 10]), "stages": [{"name": "one"}, {"name": "two"}]})
    (folder / "summary.json").write_text(json.dumps({"finished": True}))
    for seed in (10, 0):
        for stage in ("one", "two"):
            run = folder / f"seed{seed}" / stage
            write_config(run, recipe(stage, seed=seed))
            write_training(run)
            write_evaluation(run, {"accuracy": seed / 100}, seed=seed)
    return folder


def test_stages_and_seeds_are_told_apart(pipeline: Path) -> None:
    records = collect([pipeline])["records"]
    assert [(r["recipe"], r["stage"], r["seed"]) for r in records] == [
        ("pipe", "one", 0), ("pipe", "two", 0), ("pipe", "one", 10), ("pipe", "two", 10),
    ]  # fmt: skip
    assert [r["metrics"]["accuracy"] for r in records] == [0.0, 0.0, 0.1, 0.1]


def test_a_pipeline_that_has_not_finished_is_refused_unless_asked_for(pipeline: Path) -> None:
    for unfinished in (json.dumps({"finished": False}), None):
        if unfinished is None:
            (pipeline / "summary.json").unlink()
        else:
            (pipeline / "summary.json").write_text(unfinished)
        with pytest.raises(UserError, match="the pipeline has not finished; finish it with --resume"):
            collect([pipeline])
        assert len(collect([pipeline], unfinished=True)["records"]) == 4


def test_a_later_evaluation_has_the_training_time_of_its_weights(make_run: MakeRun) -> None:
    folder = make_run("a")
    write_evaluation(folder, {"accuracy": 0.5}, "elsewhere", train_seconds=None)
    write_evaluation(folder, {"accuracy": 0.5}, "other_weights", train_seconds=None, weights_sha256=SHA["c"])
    seconds = {r["evaluation"]: r["train_seconds"] for r in collect([folder])["records"]}
    assert seconds == {"test": 120.0, "elsewhere": 120.0, "other_weights": None}


def test_of_absolute_paths_the_last_part_is_kept(make_run: MakeRun) -> None:
    folder = make_run(
        "a", data={"type": "x", "root": "/home/me/data/sirst", "more": ["/srv/b", "../c"]}, checkpoint="/home/me/w.pt"
    )
    record = one(collect([folder]))
    assert record["data"] == {"type": "x", "root": "sirst", "more": ["b", "../c"]}
    assert record["checkpoint"] == "w.pt"
    assert "/home" not in json.dumps(record)


def test_weights_that_were_only_judged_need_no_recipe(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "judged", {"IoU": 0.25}, train_seconds=None, seed=None)
    record = one(collect([tmp_path / "judged"]))
    assert (record["recipe"], record["updates"], record["commit"], record["seed"]) == ("named", None, None, None)


def test_a_folder_without_evaluations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no evaluation in it"):
        collect([tmp_path])


def test_the_command_writes_what_can_be_read_back(make_run: MakeRun, tmp_path: Path) -> None:
    target = tmp_path / "results" / "a.json"
    target.parent.mkdir()
    assert main([str(make_run("a")), "-o", str(target), "--note", "Two at once."]) == 0
    documents = read_results(target.parent)
    assert list(documents) == ["a"]
    assert documents["a"]["note"] == "Two at once."
    assert documents["a"]["records"] == collect([tmp_path / "a"])["records"]


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(extra=1),
        lambda r: r.update(weights_sha256="abc"),
        lambda r: r.update(metrics={}),
        lambda r: r.update(metrics={"IoU": "0.5"}),
        lambda r: r.update(data={"root": "/home/me"}),
        lambda r: r.update(data={"folders": [{"deep": "C:\\data"}]}),
        lambda r: r.update(samples=0),
        lambda r: r.pop("commit"),
        lambda r: r["machine"].update(host="mine"),
    ],
)
def test_the_schema_refuses(make_run: MakeRun, change: Any) -> None:
    document = json.loads(json.dumps(collect([make_run("a")])))
    jsonschema.validate(document, schema())
    change(document["records"][0])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema())


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.json: is not JSON"):
        read_results(tmp_path)
    (tmp_path / "a.json").write_text('{"kind": "runs", "note": "", "records": [{}]}')
    with pytest.raises(DataError, match=r"a\.json: records\.0: 'recipe' is a required property"):
        read_results(tmp_path)


def test_the_schema_is_one_and_committed_results_keep_to_it() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert {d["kind"] for d in read_results().values()} >= {"runs", "published"}
    for file in RESULTS.glob("*.json"):
        text = file.read_text()
        assert not [folder for folder in ("/home/", "/tmp/", "/root/", "/home/someone/") if folder in text], file.name
