"""tools/predict.py: files, folders and globs, good and corrupt; what is drawn and written down."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.cli.launching import Commands, predictions


@pytest.fixture(scope="module")
def digits(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first images of the test split as files, named by their ids."""
    folder = tmp_path_factory.mktemp("digits")
    images = load_digits().images
    for prediction in predictions(trained, "test")[:6]:
        index = int(prediction["id"].removeprefix("digits/"))
        Image.fromarray(np.rint(images[index] * (255 / 16)).astype(np.uint8)).save(folder / f"{index:04d}.png")
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Infrared images of odd sizes, of 8 and 16 bits, and one that was cut off."""
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    image = rng.normal(0.25, 0.02, (37, 53))
    image[18:20, 30:33] = 0.9
    Image.fromarray((image * 255).astype(np.uint8)).save(folder / "shallow.png")
    Image.fromarray((image[:, :41] * 65535).astype(np.uint16)).save(folder / "deep.tif")
    Image.fromarray((image * 255).astype(np.uint8)).save(folder / "photo.bmp")
    (folder / "broken.png").write_bytes((folder / "shallow.png").read_bytes()[:200])
    (folder / "notes.txt").write_text("no image")
    return folder


def written(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "predictions.json").read_text())
    return found


def test_files_are_predicted_as_the_same_images_of_the_data_set(
    commands: Commands, trained: Path, digits: Path, tmp_path: Path
) -> None:
    done = commands.run("predict", trained, digits, "-o", tmp_path / "out", cwd=tmp_path)
    assert done.status == 0, done.err
    assert done.out == f"{tmp_path}/out/predictions.json\n"
    expected = {p["id"].removeprefix("digits/"): p for p in predictions(trained, "test")}
    said = written(tmp_path / "out")
    assert [Path(p["file"]).name for p in said] == sorted(path.name for path in digits.iterdir())
    for prediction in said:
        other = expected[Path(prediction["file"]).stem]
        assert prediction["label"] == other["label"]
        assert prediction["confidence"] == pytest.approx(other["confidence"], abs=2e-6)
        assert sorted(prediction["probabilities"].values(), reverse=True)[0] == prediction["confidence"]
        width, height = Image.open(tmp_path / "out" / f"{Path(prediction['file']).stem}.png").size
        assert width == 112, "8 pixels, each 14 times"
        assert 112 < height < 140, "a band with the label is above"


def test_files_folders_and_globs_each_file_once(
    commands: Commands, trained: Path, digits: Path, tmp_path: Path
) -> None:
    files = sorted(digits.iterdir())
    given = (files[3], digits / "*[02468].png", f"{digits}/**/*.png", digits)
    assert commands.run("predict", trained, *given, "-o", "out", cwd=tmp_path).status == 0
    even = [path for path in files if path.stem[-1] in "02468"]
    order = dict.fromkeys([files[3], *even, *files])
    assert [p["file"] for p in written(tmp_path / "out")] == [str(path) for path in order]


def test_without_a_place_it_is_the_run(commands: Commands, trained: Path, digits: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    done = commands.run("predict", "run", next(digits.iterdir()), cwd=tmp_path)
    assert done.out == "run/predict/predictions.json\n"
    assert len(list((tmp_path / "run" / "predict").glob("*.png"))) == 1


def test_files_of_one_name_do_not_overwrite_each_other(
    commands: Commands, trained: Path, digits: Path, tmp_path: Path
) -> None:
    source = next(digits.iterdir())
    for place in ("a", "b", "c"):
        (tmp_path / place).mkdir()
        shutil.copy(source, tmp_path / place / "same.png")
    assert commands.run("predict", trained, "a", "b", "c", "-o", "out", cwd=tmp_path).status == 0
    assert len(written(tmp_path / "out")) == 3
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


def test_a_corrupt_file_among_good_ones_is_named_and_the_others_are_done(
    commands: Commands, trained_tbcnet: Path, scenes: Path, tmp_path: Path
) -> None:
    done = commands.run("predict", trained_tbcnet, scenes, "-o", "out", cwd=tmp_path)
    assert done.error == "1 of 4 files could not be read (named above); the others are done"
    assert f"{scenes}/broken.png: not a readable image" in done.err
    said = written(tmp_path / "out")
    assert [Path(p["file"]).name for p in said] == ["deep.tif", "photo.bmp", "shallow.png"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "predictions.json", "deep.png", "photo.png", "shallow.png"
    }  # fmt: skip
    for name, (height, width) in {"deep": (37, 41), "photo": (37, 53), "shallow": (37, 53)}.items():
        drawn = Image.open(tmp_path / "out" / f"{name}.png").size
        times = -(-240 // min(height, width))
        assert drawn[0] == 2 * width * times + 4, "image and target image beside each other"
        assert height * times < drawn[1] < height * times + 40
    assert said[1]["detections"] == said[2]["detections"], "the same pixels in another format"
    for detection in said[0]["detections"]:
        assert detection.keys() == {"row", "col", "area", "score"}
        assert detection["score"] > said[0]["threshold"]


def test_only_corrupt_files(commands: Commands, trained: Path, scenes: Path, tmp_path: Path) -> None:
    done = commands.run("predict", trained, scenes / "broken.png", scenes / "notes.txt", "-o", "out", cwd=tmp_path)
    assert "2 of 2 files could not be read" in done.error
    assert written(tmp_path / "out") == []


def test_a_trained_network_is_used_wherever_its_folder_lies(
    commands: Commands, trained_tbcnet: Path, scenes: Path, tmp_path: Path
) -> None:
    """The last stage alone, moved: the SCM that constrained its training is not needed to predict."""
    shutil.copytree(trained_tbcnet / "tem", tmp_path / "moved")
    for run, output in ((trained_tbcnet, "whole"), (tmp_path / "moved", "alone")):
        done = commands.run("predict", run, scenes / "shallow.png", "-o", output, cwd=tmp_path)
        assert done.status == 0, done.err
    assert written(tmp_path / "whole") == written(tmp_path / "alone")
    judged = commands.run("eval", "moved", "--split", "val", cwd=tmp_path)
    assert judged.status == 0, judged.err


def test_other_weights_of_the_run(commands: Commands, trained: Path, digits: Path, tmp_path: Path) -> None:
    file = trained / "checkpoints" / "last.safetensors"
    for output, checkpoint in (("name", "last"), ("file", str(file))):
        arguments = ("--checkpoint", checkpoint, "-o", output)
        assert commands.run("predict", trained, digits, *arguments, cwd=tmp_path).status == 0
    assert written(tmp_path / "name") == written(tmp_path / "file")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("RUN", "nowhere.png"), "nowhere.png: no such file, and no images there (.png, .bmp,"),
        (("RUN", "."), ".: no such file, and no images there"),
        (("nowhere", "FILE"), "nowhere: no such file or folder; expected a run's folder"),
        (("RUN", "FILE", "--checkpoint", "x.safetensors"), "x.safetensors: no such checkpoint"),
        (("RUN", "FILE", "-o", "taken"), "taken: the folder cannot be made: File exists"),
        (("RUN", "FILE", "--device", "abacus"), "'abacus' is not a device; expected auto, cpu, cuda or cuda:N"),
    ],
)
def test_mistakes(
    commands: Commands, trained: Path, digits: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "taken").write_text("")
    names = {"RUN": trained, "FILE": next(digits.iterdir())}
    done = commands.run("predict", *(names.get(argument, argument) for argument in arguments), cwd=tmp_path)
    assert said in done.error
    assert {path.name for path in tmp_path.iterdir()} == {".said", "taken"}
