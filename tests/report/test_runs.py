"""Reading run folders: pipelines in order, labels that tell apart, seeds that belong together, broken files named."""

import json
from pathlib import Path

import pytest
import yaml

from tests.report.conftest import MakeRun
from vision.engine.errors import UserError
from vision.engine.recipe import Recipe
from vision.report.runs import DEFAULT_SEED, comparable, differences, group_by_seed, read_runs, run_folders


def pipeline(tmp_path: Path, make_run: MakeRun) -> Path:
    """Two stages that refer to each other, over two seeds; the second stage's recipe holds a result of the first."""
    folder = tmp_path / "p"
    folder.mkdir()
    tree = {"name": "p", "description": "Two stages.", "stages": [{"name": "teacher"}, {"name": "find"}, {"name": "a"}]}
    (folder / "config.yaml").write_text("# sha256: 1\n" + yaml.safe_dump(tree))
    for seed in (1, 0, 10):
        make_run(f"p/seed{seed}/teacher", seed, 0.5)
        step = folder / f"seed{seed}" / "find"
        step.mkdir()
        (step / "config.yaml").write_text("# sha256: 2\nname: find\nstep: {type: search}\n")
        (step / "done.json").write_text(json.dumps({"result": {"temperature": 1.5 + seed}}))
        student = make_run(
            f"p/seed{seed}/a", seed, 0.25 * seed, recipe={"task": {"type": "kd", "temperature": 1.5 + seed}}
        )
        written = {
            "name": "a",
            "task": {"type": "kd", "temperature": "${stages.find.result.temperature}"},
            "seed": seed,
        }
        (student / "done.json").write_text(json.dumps({"config": written, "result": {}}))
    return folder


def test_pipeline_is_in_the_order_of_its_recipe(tmp_path: Path, make_run: MakeRun) -> None:
    folder = pipeline(tmp_path, make_run)
    expected = [f"seed{seed}/{stage}" for seed in (0, 1, 10) for stage in ("teacher", "find", "a")]
    assert [str(found.relative_to(folder)) for found in run_folders(folder)] == expected
    assert [run.label for run in read_runs([folder])] == [f"p/{name}" for name in expected]


def test_seeds_of_a_stage_belong_together_whatever_was_filled_in(tmp_path: Path, make_run: MakeRun) -> None:
    groups = group_by_seed([run for run in read_runs([pipeline(tmp_path, make_run)]) if not run.is_step])
    assert {group.label: [run.seed for run in group.runs] for group in groups} == {
        "p/teacher": [0, 1, 10],
        "p/a": [0, 1, 10],
    }


def test_a_step_has_its_own_seed_or_that_of_the_folder_it_lies_in(tmp_path: Path, make_run: MakeRun) -> None:
    folder = pipeline(tmp_path, make_run)
    for seed in (0, 1, 10):
        step = folder / f"seed{seed}" / "judge"
        step.mkdir()
        (step / "config.yaml").write_text(f"# sha256: 3\nname: judge\nstep: {{type: judge, seed: {seed}}}\n")
    alone = folder.parent / "alone"
    alone.mkdir()
    (alone / "config.yaml").write_text("# sha256: 2\nname: alone\nstep: {type: grid}\n")
    steps = [run for run in read_runs([folder, alone]) if run.is_step]
    assert {group.label: [run.seed for run in group.runs] for group in group_by_seed(steps)} == {
        "p/find": [0, 1, 10],
        "p/judge": [0, 1, 10],
        "alone": [None],
    }


def test_a_run_is_read_once(make_run: MakeRun) -> None:
    folder = make_run("a")
    assert [run.label for run in read_runs([folder, folder])] == ["a"]


def test_labels_tell_runs_of_one_name_apart(make_run: MakeRun) -> None:
    runs = read_runs([make_run("x/a"), make_run("y/a")])
    assert [run.label for run in runs] == ["x/a", "y/a"]


def test_other_recipes_do_not_belong_together(make_run: MakeRun) -> None:
    runs = read_runs([make_run("s0", 0), make_run("s1", 1), make_run("b", 2, recipe={"trainer": {"epochs": 3}})])
    groups = group_by_seed(runs)
    assert [[run.label for run in group.runs] for group in groups] == [["s0", "s1"], ["b"]]


def test_repeats_are_no_seeds(make_run: MakeRun) -> None:
    runs = read_runs([make_run("a", 0), make_run("b", 0)])
    assert [len(group.runs) for group in group_by_seed(runs)] == [1, 1]


def test_seeds_beside_a_repeat_stay_together(make_run: MakeRun) -> None:
    make_run("s/seed1", 1)
    runs = read_runs([make_run("s/seed0", 0).parent, make_run("again", 0)])
    groups = group_by_seed(runs)
    assert [(group.label, len(group.runs)) for group in groups] == [("s", 2), ("again", 1)]


def test_what_is_judged_otherwise_is_not_compared(make_run: MakeRun) -> None:
    folders = [make_run("a"), make_run("b", primary="nll"), make_run("c", recipe={"task": {"type": "kd"}})]
    folders += [
        make_run("d", accuracy=None, recipe={"task": {"type": "kd"}}),
        make_run("e", accuracy=None, recipe={"task": {"type": "x"}}),
    ]
    families = [[run.label for run in family] for family in comparable(read_runs(folders))]
    assert families == [["a", "c", "d"], ["b"], ["e"]]


def test_differences_name_the_keys(make_run: MakeRun) -> None:
    runs = read_runs([make_run("a", 0), make_run("b", 1, recipe={"data": {"type": "digits", "root": "x"}})])
    assert differences(runs) == {"data.root": [None, "x"], "seed": [0, 1]}


def test_test_comes_first_then_val_then_others(make_run: MakeRun) -> None:
    folder = make_run("a")
    for name in ("eps8", "train"):
        (folder / "eval" / name).mkdir()
        (folder / "eval" / name / "result.json").write_text('{"metrics": {}}')
    (run,) = read_runs([folder])
    assert list(run.results) == ["test", "val", "train", "eps8"]


def test_a_recipe_without_a_seed_has_the_default_one(make_run: MakeRun) -> None:
    folder = make_run("a")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0\n", ""))
    (run,) = read_runs([folder])
    assert "seed" not in run.recipe
    assert run.seed == Recipe.seed == DEFAULT_SEED


def test_best_is_the_last_best(make_run: MakeRun) -> None:
    (run,) = read_runs([make_run("a")])
    assert run.best is not None
    assert (run.best["step"], run.best["metrics"]["accuracy"]) == (20, 0.75)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("eval/val/result.json", "{", r"val/result\.json:1: is not JSON"),
        ("eval/val/result.json", "[]", r"val/result\.json: expected an object with 'metrics'"),
        ("environment.json", "x", r"environment\.json:1: is not JSON"),
        ("metrics.jsonl", "{}\n", r"metrics\.jsonl:1: expected an object with 'kind'"),
        ("config.yaml", "# sha256: a\n[", r"config\.yaml: is not YAML"),
        ("config.yaml", "# sha256: a\n3", r"config\.yaml: expected a recipe"),
        ("config.yaml", "name: a\n", r"config\.yaml:1: expected '# sha256"),
    ],
)
def test_a_broken_file_is_named(make_run: MakeRun, file: str, content: str, message: str) -> None:
    folder = make_run("a")
    (folder / file).write_text(content)
    with pytest.raises(UserError, match=message):
        read_runs([folder])


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        run_folders(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"not a run folder \(it has no config\.yaml\)"):
        run_folders(tmp_path)
