"""Stages in a row and seeds side by side, with a trainer that only notes what it was asked."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import distributed as dist
from torch import multiprocessing, nn

from vision.engine.config import Config, from_tree, load
from vision.engine.data import DataModule
from vision.engine.distributed import World
from vision.engine.errors import ConfigError, TrainingError, UserError
from vision.engine.pipeline import plan, run_pipeline
from vision.engine.registry import register
from vision.engine.summary import over_seeds, summary_table
from vision.engine.task import Task


class ToyTask(Task):
    def __init__(self, data: DataModule, network: nn.Module, teacher: Path | None = None, scale: float = 1.0) -> None:
        super().__init__()


class ToyData(DataModule):
    pass


@dataclass
class Search:
    """Looks for a scale.

    Attributes:
        weights: of the teacher.
        seed: of the search.
    """

    weights: Path
    seed: int = 0

    def run(self, folder: Path) -> dict[str, Any]:
        assert self.weights.read_text() == f"teacher {self.seed}"
        (folder / "trace.txt").write_text("searched")
        return {"scale": 0.5 + self.seed, "found": True}


@pytest.fixture(autouse=True)
def toys(own_names: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _register_toys()
    monkeypatch.chdir(tmp_path)


def _register_toys() -> None:
    register("toy")(ToyTask)
    register("toy_data")(ToyData)
    register("search", kind="step")(Search)


PIPELINE = """\
name: calibrated
data: toy_data
task: {type: toy, network: {type: mlp, inputs: 4, hidden: []}}
optimizer: {type: sgd, lr: 0.1}
trainer: {epochs: 2}
stages:
  - name: teacher
    trainer: {epochs: 9}
  - name: search
    step: {type: search, weights: "${stages.teacher.best}"}
  - name: student
    task:
      teacher: ${stages.teacher.last}
      scale: ${stages.search.result.scale}
"""


@dataclass
class Trainer:
    """Notes calls; leaves weights; fails or is interrupted in a stage when told so."""

    calls: list[tuple[str, int, bool]] = field(default_factory=list)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    fail_in: str = ""
    interrupt_in: str = ""
    offset: float = 0.0

    def __call__(self, config: Config, folder: Path, resume: bool) -> dict[str, Any]:
        recipe = config.recipe()
        self.calls.append((recipe.name, recipe.seed, resume))
        self.configs[folder.name] = config.tree
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(config.yaml)
        for name in ("best", "last"):
            (folder / f"checkpoints/{name}.safetensors").write_text(f"{recipe.name} {recipe.seed}")
        if self.fail_in == recipe.name:
            raise TrainingError("the loss is not finite")
        if self.interrupt_in == recipe.name:
            return {"finished": "", "best": "x"}
        figures = {"val": {"accuracy": 0.5 + 0.1 * recipe.seed + self.offset}, "steps": 10}
        return {"finished": "10 steps", "best": "x", "result": figures}


@pytest.fixture
def pipeline(tmp_path: Path) -> Callable[..., Config]:
    def make(text: str = PIPELINE, *overrides: str) -> Config:
        Path("p.yaml").write_text(text)
        return load("p.yaml", overrides)

    return make


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as refused:
        action()
    return str(refused.value)


Make = Callable[..., Config]


def test_stages_get_the_defaults_and_run_in_order(pipeline: Make) -> None:
    stages = plan(pipeline())
    assert [stage.name for stage in stages] == ["teacher", "search", "student"]
    teacher, search, student = (stage.config.tree for stage in stages)
    assert teacher == {
        "name": "teacher",
        "data": "toy_data",
        "task": {"type": "toy", "network": {"type": "mlp", "inputs": 4, "hidden": []}},
        "optimizer": {"type": "sgd", "lr": 0.1},
        "trainer": {"epochs": 9},
    }
    assert list(search) == ["name", "step"]
    assert student["trainer"] == {"epochs": 2}
    assert student["task"]["network"] == teacher["task"]["network"]


def test_overrides_reach_all_stages_or_one(pipeline: Make) -> None:
    config = pipeline(PIPELINE, "stages.student.trainer.epochs=4", "trainer.epochs=1", "optimizer=adam")
    teacher, _, student = config.tree["stages"]
    assert teacher["trainer"] == {"epochs": 1}
    assert student["trainer"] == {"epochs": 4}
    assert teacher["optimizer"] == student["optimizer"] == {"type": "adam"}
    assert config.stages()[2].where(("trainer", "epochs")) == "command line"
    assert "no item 'studnt' (did you mean 'student'?); there are teacher, search, student" in refusal(
        lambda: pipeline(PIPELINE, "stages.studnt.trainer.epochs=4")
    )


def test_a_resolved_pipeline_loads_again(pipeline: Make) -> None:
    config = pipeline(PIPELINE, "trainer.batch_size=4", "seeds=[0, 1]")
    again = pipeline(config.yaml)
    assert again.tree == config.tree
    assert again.hash == config.hash


def test_a_stage_may_extend_a_file(pipeline: Make, tmp_path: Path) -> None:
    Path("sub").mkdir()
    Path("sub/teacher.yaml").write_text("trainer: {epochs: 7, batch_size: 3}\nseed: 5\n")
    text = PIPELINE.replace("    trainer: {epochs: 9}\n", "    extends: sub/teacher.yaml\n    seed: 6\n")
    teacher = pipeline(text).tree["stages"][0]
    assert teacher["trainer"] == {"epochs": 7, "batch_size": 3}
    assert teacher["seed"] == 6
    assert "extends" not in teacher


def test_a_pipeline_runs_and_fills_references(pipeline: Make, tmp_path: Path) -> None:
    trainer = Trainer()
    summary = run_pipeline(pipeline(), trainer, Path("runs/p"))
    assert trainer.calls == [("teacher", 0, False), ("student", 0, False)]
    task = trainer.configs["student"]["task"]
    assert task["teacher"] == "runs/p/teacher/checkpoints/last.safetensors"
    assert task["scale"] == 0.5
    assert Path("runs/p/search/trace.txt").read_text() == "searched"
    assert summary["finished"] is True
    assert [(s["name"], s["stage"], s["seed"]) for s in summary["stages"]] == [
        ("teacher", "teacher", None),
        ("search", "search", None),
        ("student", "student", None),
    ]
    assert summary["stages"][1]["result"] == {"scale": 0.5, "found": True}
    assert json.loads(Path("runs/p/summary.json").read_text()) == summary
    assert load("runs/p/config.yaml").hash == pipeline().hash


def test_seeds_run_the_whole_side_by_side(pipeline: Make) -> None:
    trainer = Trainer()
    summary = run_pipeline(pipeline(PIPELINE, "seeds=[3, 1]"), trainer, Path("p"))
    assert trainer.calls == [(name, seed, False) for seed in (3, 1) for name in ("teacher", "student")]
    assert [s["name"] for s in summary["stages"]] == [
        f"seed{seed}/{name}" for seed in (3, 1) for name in ("teacher", "search", "student")
    ]
    assert trainer.configs["student"]["task"]["teacher"] == "p/seed1/teacher/checkpoints/last.safetensors"
    assert trainer.configs["student"]["task"]["scale"] == 1.5
    rows = {(row["stage"], row["figure"]): row for row in summary["table"]}
    accuracy = rows["student", "val.accuracy"]
    assert accuracy["mean"] == pytest.approx(mean([0.8, 0.6]))
    assert accuracy["std"] == pytest.approx(stdev([0.8, 0.6]))
    assert accuracy["runs"] == 2
    assert rows["search", "scale"]["mean"] == 2.5


RECIPE = {
    "name": "one",
    "data": "toy_data",
    "task": {"type": "toy", "network": "mlp"},
    "optimizer": {"type": "sgd", "lr": 1},
    "trainer": {"steps": 3},
}


def test_seeds_of_one_recipe(pipeline: Make) -> None:
    config = from_tree(RECIPE, ["seeds=[0, 2]", "task.network={type: mlp, inputs: 1, hidden: []}", "seed=7"])
    assert config.is_pipeline
    trainer = Trainer()
    summary = run_pipeline(config, trainer, Path("p"))
    assert trainer.calls == [("one", 0, False), ("one", 2, False)]
    assert [s["name"] for s in summary["stages"]] == ["seed0", "seed2"]
    assert "seeds" not in trainer.configs["seed2"]
    assert summary["table"][0]["stage"] == "one"


@pytest.mark.parametrize("seeds", ["[]", "3", "[1, 1]", "[0, -1]", "[true]", "[a]"])
def test_seeds_are_different_integers_from_0(seeds: str) -> None:
    config = from_tree(RECIPE, [f"seeds={seeds}"])
    assert refusal(lambda: plan(config)).startswith(
        "command line: seeds: expected a list of different integers from 0, got "
    )


# resuming


def test_it_resumes_at_the_first_unfinished_stage(pipeline: Make) -> None:
    trainer = Trainer(fail_in="student")
    with pytest.raises(TrainingError, match="not finite"):
        run_pipeline(pipeline(), trainer, Path("p"))
    assert not Path("p/student/done.json").exists()
    again = Trainer()
    summary = run_pipeline(pipeline(), again, Path("p"), resume=True)
    assert again.calls == [("student", 0, True)]
    assert summary["finished"] is True
    third = Trainer()
    assert run_pipeline(pipeline(), third, Path("p"), resume=True) == summary
    assert third.calls == []


def test_an_interrupted_stage_is_not_finished(pipeline: Make) -> None:
    summary = run_pipeline(pipeline(), Trainer(interrupt_in="teacher"), Path("p"))
    assert summary["finished"] is False
    assert summary["stages"] == []
    again = Trainer()
    run_pipeline(pipeline(), again, Path("p"), resume=True)
    assert again.calls == [("teacher", 0, True), ("student", 0, False)]


def test_a_folder_with_a_run_is_left_alone(pipeline: Make) -> None:
    run_pipeline(pipeline(), Trainer(), Path("p"))
    assert refusal(lambda: run_pipeline(pipeline(), Trainer(), Path("p"))) == (
        "p exists: add --resume to go on or choose another name=..."
    )
    Path("other").mkdir()
    Path("other/thesis.tex").write_text("x")
    assert "other exists and is no pipeline's folder (it holds thesis.tex)" in refusal(
        lambda: run_pipeline(pipeline(), Trainer(), Path("other"))
    )


def test_a_changed_recipe_of_a_finished_stage_is_refused(pipeline: Make) -> None:
    run_pipeline(pipeline(), Trainer(interrupt_in="student"), Path("p"))
    before = Path("p/config.yaml").read_text()
    changed = pipeline(PIPELINE, "stages.teacher.optimizer.lr=0.2", "stages.teacher.seed=1")
    assert refusal(lambda: run_pipeline(changed, Trainer(), Path("p"), resume=True)) == (
        "stage 'teacher' is finished and its recipe has changed: optimizer.lr was 0.1, now 0.2; "
        "seed was '(absent)', now 1. Undo the change, or delete p/teacher to run it again"
    )
    assert Path("p/config.yaml").read_text() == before
    later = Trainer()
    run_pipeline(pipeline(PIPELINE, "stages.student.optimizer.lr=0.3"), later, Path("p"), resume=True)
    assert later.configs["student"]["optimizer"]["lr"] == 0.3


@pytest.mark.parametrize("reached", ["finished", "begun"])
def test_a_stage_made_from_another_result_is_refused(pipeline: Make, reached: str) -> None:
    run_pipeline(pipeline(), Trainer(interrupt_in="student" if reached == "begun" else ""), Path("p"))
    shutil.rmtree("p/teacher")
    shutil.rmtree("p/search")
    again = Trainer(offset=0.01)
    assert refusal(lambda: run_pipeline(pipeline(), again, Path("p"), resume=True)) == (
        "stage 'student' was made from another result of 'teacher'; delete p/student to run it again"
    )
    shutil.rmtree("p/student")
    assert run_pipeline(pipeline(), again, Path("p"), resume=True)["finished"] is True


# mistakes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "${stages.teacher.last}",
            "${stages.techer.last}",
            "p.yaml:13: task.teacher: ${stages.techer.last}: no stage is called 'techer' (did you mean 'teacher'?)",
        ),
        (
            "${stages.teacher.last}",
            "${stages.zzzz.last}",
            "p.yaml:13: task.teacher: ${stages.zzzz.last}: no stage is called 'zzzz'; earlier stages: teacher, search",
        ),
        (
            "${stages.teacher.best}",
            "${stages.student.best}",
            "p.yaml:10: step.weights: ${stages.student.best}: the stage 'student' does not come before this one",
        ),
        (
            "${stages.teacher.last}",
            "${stages.teacher.bset}",
            "p.yaml:13: task.teacher: ${stages.teacher.bset}: a stage has no 'bset' (did you mean 'best'?)",
        ),
        (
            "trainer: {epochs: 9}",
            "trainer: {epochs: 9, batch: 3}",
            "p.yaml:8: trainer.batch: unknown key (did you mean 'batch_size'?) (in stage teacher)",
        ),
        (
            "weights:",
            "wieghts:",
            "p.yaml:10: step.wieghts: unknown key (did you mean 'weights'?) (in stage search)\n"
            "p.yaml:10: step.weights: is missing; expected path (in stage search)",
        ),
        ("type: search,", "type: sgd,", "p.yaml:10: step.type: 'sgd' is an optimizer, expected a step: "),
        ("  - name: search\n    step", "  - name: search\n    seed: 1\n    step", "p.yaml:10: seed: unknown key; "),
        ("  - name: search\n    step", "  - step", "p.yaml:9: stages.1.name: expected a name of letters"),
        (
            "name: search",
            "name: a b",
            "p.yaml:9: stages.1.name: expected a name of letters, digits, _ and -, got 'a b'",
        ),
        ("name: search", "name: teacher", "p.yaml:9: stages.1.name: 'teacher' is taken, see p.yaml:7"),
    ],
)
def test_mistakes_in_stages_have_their_place(pipeline: Make, old: str, new: str, message: str) -> None:
    assert old in PIPELINE
    assert refusal(lambda: plan(pipeline(PIPELINE.replace(old, new)))).startswith(message)


def test_a_mistake_in_the_defaults_is_told_once(pipeline: Make) -> None:
    found = refusal(lambda: plan(pipeline(PIPELINE.replace("lr: 0.1", "lrr: 0.1"))))
    assert found.splitlines() == [
        "p.yaml:4: optimizer.lrr: unknown key (did you mean 'lr'?) (in stage teacher, student)",
        "p.yaml:4: optimizer.lr: is missing; expected number (in stage teacher, student)",
    ]


def test_defaults_that_no_stage_takes_are_refused(pipeline: Make) -> None:
    text = "name: x\ntrainer: {epochs: 1}\nstages: [{name: a, step: {type: search, weights: w}}]\n"
    assert refusal(lambda: pipeline(text)) == (
        "p.yaml:2: trainer: unknown key; every stage is a step and takes no defaults"
    )


@pytest.mark.parametrize("stages", ["[]", "3", "{a: 1}"])
def test_stages_are_a_list(pipeline: Make, stages: str) -> None:
    assert refusal(lambda: pipeline(f"name: x\nstages: {stages}\n")).startswith(
        "p.yaml:2: stages: expected a list of stages, got "
    )


def test_a_pipeline_is_no_recipe(pipeline: Make) -> None:
    assert refusal(pipeline().recipe) == "p.yaml:6: 'calibrated' is a pipeline of stages, expected one recipe"


def test_what_a_stage_did_not_leave_is_told_when_it_is_needed(pipeline: Make) -> None:
    def without_last(config: Config, folder: Path, resume: bool) -> dict[str, Any]:
        outcome = Trainer()(config, folder, resume)
        (folder / "checkpoints/last.safetensors").unlink()
        return outcome

    assert refusal(lambda: run_pipeline(pipeline(), without_last, Path("p"))) == (
        "p.yaml:13: task.teacher: ${stages.teacher.last}: stage 'teacher' left no such weights; it has best"
    )
    text = PIPELINE.replace("result.scale", "result.scales")
    assert refusal(lambda: run_pipeline(pipeline(text), Trainer(), Path("q"))) == (
        "p.yaml:14: task.scale: ${stages.search.result.scales}: the result of 'search' has no 'scales'; "
        "there is scale, found"
    )


def test_a_result_of_the_wrong_type_is_told_before_the_stage_begins(pipeline: Make) -> None:
    text = PIPELINE.replace("result.scale", "result.found")
    assert refusal(lambda: run_pipeline(pipeline(text), Trainer(), Path("p"))) == (
        "p.yaml:14: task.scale: expected a number, got true"
    )


# the table


def test_figures_are_averaged_over_seeds() -> None:
    rows = over_seeds(
        [("a", {"x": 1, "in": {"y": 2.0}, "ok": True}), ("b", {"x": 5}), ("a", {"x": 4, "in": {"y": 2.0}, "t": "s"})]
    )
    assert rows == [
        {"stage": "a", "figure": "x", "mean": 2.5, "std": pytest.approx(4.5**0.5), "runs": 2},
        {"stage": "a", "figure": "in.y", "mean": 2.0, "std": 0.0, "runs": 2},
        {"stage": "b", "figure": "x", "mean": 5.0, "std": None, "runs": 1},
    ]


def test_the_table_is_drawn() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    summary = {"name": "digits", "table": over_seeds([("a", {"x": 0.25}), ("a", {"x": 0.75}), ("b", {"x": 3})])}
    console.print(summary_table(summary))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["digits"] in lines
    assert any(line[1:-1:2] == ["a", "x", "0.5", "0.3536", "2"] for line in lines)
    assert any([cell for cell in line if cell != "│"] == ["b", "x", "3", "1"] for line in lines)


def test_config_errors_are_user_errors() -> None:
    assert issubclass(ConfigError, UserError)


def _in_process(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    _register_toys()
    notes: list[str] = []

    def train(config: Config, place: Path, resume: bool) -> dict[str, Any]:
        notes.append(config.name)
        if rank == 0:
            return Trainer()(config, place, resume)
        return {"result": {"of": "the second process"}}

    config = load(folder / "p.yaml")
    world = World(torch.device("cpu"), rank, 2)
    summary = run_pipeline(config, train, folder / "p", world=world)
    again = run_pipeline(config, train, folder / "p", resume=True, world=world)
    try:
        run_pipeline(config, train, folder / "p", world=world)
    except UserError as error:
        notes.append(str(error).partition(":")[0])
    gloo = [_runs_gloo()]
    dist.destroy_process_group()
    gloo.append(_runs_gloo())
    (folder / f"{rank}.json").write_text(json.dumps([notes, summary, again == summary, gloo]))


def _runs_gloo() -> bool:
    return any(name.read_text().startswith("pt_gloo") for name in Path("/proc/self/task").glob("*/comm"))


def test_two_processes_agree(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(PIPELINE)
    multiprocessing.spawn(_in_process, args=(tmp_path,), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first[3] == [True, False], "a thread of gloo that is left may abort a process that ends"
    assert first[0] == ["teacher", "student", f"{tmp_path / 'p'} exists"]
    assert first[2] is True
    assert first[1]["stages"][0]["result"] == {"val": {"accuracy": 0.5}, "steps": 10}
