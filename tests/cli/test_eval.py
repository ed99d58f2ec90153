"""tools/eval.py: the figures that training wrote, of other weights, on other data, from a run or a recipe."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.launching import Commands, predictions, result

TIMED = ("eval_seconds", "train_seconds")


def untimed_result(run: Path, name: str) -> dict[str, object]:
    return {key: value for key, value in result(run, name).items() if key not in TIMED}


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run, to be changed; evaluations of the original stay in it."""
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_evaluation_repeats_what_training_found(commands: Commands, trained: Path, run: Path, split: str) -> None:
    shutil.rmtree(run / "eval")
    done = commands.run("eval", run, "--split", split, cwd=run.parent)
    assert done.status == 0, done.err
    assert done.out == f"{run}/eval/{split}/result.json\n"
    assert untimed_result(run, split) == untimed_result(trained, split)
    before, now = ({p.name: p.read_bytes() for p in (each / "eval" / split).rglob("*.*")} for each in (trained, run))
    del before["result.json"], now["result.json"]
    assert len(now) > 10
    assert now == before


def test_by_default_it_judges_the_best_weights_on_the_test_split(commands: Commands, trained: Path, run: Path) -> None:
    assert commands.run("eval", run, cwd=run.parent).status == 0
    assert untimed_result(run, "test") == untimed_result(trained, "test")


def test_nothing_but_the_evaluation_changes(commands: Commands, run: Path) -> None:
    kept = [p for p in run.rglob("*") if p.is_file() and "eval" not in p.relative_to(run).parts]
    before = {path: path.read_bytes() for path in kept}
    assert commands.run("eval", run, "--split", "train", "--name", "again", cwd=run.parent).status == 0
    assert {path: path.read_bytes() for path in before} == before
    assert result(run, "again")["split"] == "train"


def test_other_weights_other_split_other_name(commands: Commands, trained: Path, run: Path) -> None:
    arguments = ("--checkpoint", "last", "--split", "val", "--name", "last_on_val")
    assert commands.run("eval", run, *arguments, cwd=run.parent).status == 0
    found = result(run, "last_on_val")
    assert (found["split"], found["checkpoint"]) == ("val", "last")
    assert found["samples"] == result(trained, "val")["samples"]
    assert untimed_result(run, "val") == untimed_result(trained, "val"), "the evaluation before is kept"
    file = run / "checkpoints" / "last.safetensors"
    again = commands.run("eval", run, "--checkpoint", file, "--split", "val", "--name", "file", cwd=run.parent)
    assert again.status == 0
    assert result(run, "file")["metrics"] == found["metrics"]
    assert result(run, "file")["weights_sha256"] == found["weights_sha256"]


def test_other_data(commands: Commands, trained: Path, run: Path) -> None:
    assert commands.run("eval", run, "data.limit=20", "--name", "few", cwd=run.parent).status == 0
    assert result(run, "few")["samples"] == 20
    assert result(run, "few")["data"]["limit"] == 20
    everything = {p["id"]: p for p in predictions(trained, "test")}
    assert all(everything[p["id"]]["label"] == p["label"] for p in predictions(run, "few"))


def test_a_recipe_with_a_file_of_weights(commands: Commands, trained: Path, tmp_path: Path) -> None:
    weights = trained / "checkpoints" / "best.safetensors"
    recipe = ("digits_cnn", "data.limit=300", "task.network.width=8", "trainer.epochs=2")
    done = commands.run("eval", *recipe, "--checkpoint", weights, cwd=tmp_path)
    assert done.status == 0, done.err
    assert done.out == "runs/digits_cnn/eval/test/result.json\n"
    found = result(tmp_path / "runs" / "digits_cnn", "test")
    assert found["metrics"] == result(trained, "test")["metrics"]
    assert found["weights_sha256"] == result(trained, "test")["weights_sha256"]
    assert commands.run("eval", "mlp_digits", cwd=tmp_path).error == (
        "mlp_digits is a recipe, not a run: name the weights with --checkpoint FILE"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "no recipe 'nowhere'"),
        ((".",), ".: not a run folder (it has no config.yaml); expected one that tools/train.py made"),
        (("RUN", "data.limitt=3"), "data.limitt: unknown key (did you mean 'limit'?)"),
        (("RUN", "--checkpoint", "nothing.safetensors"), "nothing.safetensors: no such checkpoint"),
        (("RUN", "--name", "../outside"), "'../outside' cannot name an evaluation"),
        (("RUN", "data={type: infrared_synthetic}"), "classification"),
    ],
)
def test_mistakes(commands: Commands, run: Path, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    (tmp_path / "empty").mkdir()
    given = [str(run) if argument == "RUN" else argument for argument in arguments]
    assert said in commands.run("eval", *given, cwd=tmp_path / "empty").error


# -- infrared: data of another folder -------------------------------------------------------------------------------


@pytest.fixture
def other_set(tmp_path: Path) -> Path:
    """Images of another sensor: all of them in one list, none for training."""
    root = tmp_path / "other_set"
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(4):
        image = rng.normal(60, 4, (50 + 7 * index, 81)).clip(0, 255).astype(np.uint8)
        mask = np.zeros_like(image)
        mask[20:23, 30 + index : 33 + index] = 255
        Image.fromarray(image + mask // 4).save(root / "images" / f"m_{index}.png")
        Image.fromarray(mask).save(root / "masks" / f"m_{index}.png")
    (root / "all.txt").write_text("".join(f"m_{index}\n" for index in range(4)))
    return root


def test_data_never_trained_on_is_judged_under_a_name_of_its_own(
    commands: Commands, trained_tbcnet: Path, other_set: Path, tmp_path: Path
) -> None:
    run = tmp_path / "pipeline"
    shutil.copytree(trained_tbcnet, run)
    data = f"data={{type: infrared_folder, root: {other_set}, test_split: all}}"
    done = commands.run("eval", run, data, "--name", "other_set", cwd=tmp_path)
    assert done.status == 0, done.err
    found = result(run / "tem", "other_set")
    assert (found["samples"], found["split"]) == (4, "test")
    assert found["data"]["root"] == str(other_set)
    assert [p["id"] for p in predictions(run / "tem", "other_set")] == [f"m_{index}" for index in range(4)]
    assert 0 <= found["metrics"]["IoU"] <= 1
    assert found["tables"]["counts"]["rows"][0][:2] == [4, 4], "images and targets"
    sizes = {Image.open(path).size for path in (run / "tem" / "eval" / "other_set" / "examples").glob("*.png")}
    assert len(sizes) == 4


def test_a_split_that_the_data_does_not_have(
    commands: Commands, trained_tbcnet: Path, other_set: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained_tbcnet, tmp_path / "run")
    data = f"data={{type: infrared_folder, root: {other_set}, test_split: null}}"
    done = commands.run("eval", tmp_path / "run", data, cwd=tmp_path)
    assert done.error == "data 'infrared_folder' has no test split; try --split val"
    missing = commands.run("eval", tmp_path / "run", data, "--split", "val", cwd=tmp_path)
    assert missing.error == f"{other_set}: no split 'train'; there is: all"


@pytest.mark.data
@pytest.mark.slow
def test_real_images_of_another_sensor(
    commands: Commands, trained_tbcnet: Path, data_root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_tbcnet, run)
    data = f"data={{type: infrared_folder, root: {data_root / 'msistd80'}, test_split: all}}"
    done = commands.run("eval", run, data, "--name", "msistd80", cwd=tmp_path)
    assert done.status == 0, done.err
    assert result(run / "tem", "msistd80")["samples"] == 80
