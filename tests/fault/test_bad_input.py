"""What a user can get wrong: every time status 2 and one message with what is wrong, what is expected and the fix.

Each test runs the tool as a user does, in a folder of its own, and looks at what is left behind.
"""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tools.train
from tests.cli.launching import Commands, result, untimed
from vision.engine import files
from vision.engine.checkpoint import read_resume, read_weights
from vision.engine.errors import CheckpointError

SMALL = ("trainer={epochs: null, steps: 4, batch_size: 4, eval_batch_size: 8}", "name=run")


def left(folder: Path) -> set[str]:
    """The names in a folder, less what the commands said."""
    return {path.name for path in folder.iterdir()} - {".said"}


# -- data to break -------------------------------------------------------------------------------------------------


@pytest.fixture
def infrared(tmp_path: Path) -> Path:
    """Eight infrared images with masks; six to train on, two to test on. Recipes name it by ``data.root=infrared``."""
    root = tmp_path / "infrared"
    for folder in ("images", "masks", "splits"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(8):
        image = rng.integers(40, 60, (60, 70), dtype=np.uint8)
        mask = np.zeros_like(image)
        mask[10 + index : 13 + index, 30:33] = 255
        Image.fromarray(np.where(mask > 0, 250, image).astype(np.uint8)).save(root / "images" / f"n{index}.png")
        Image.fromarray(mask).save(root / "masks" / f"n{index}.png")
    (root / "splits" / "train.txt").write_text("".join(f"n{index}\n" for index in range(6)))
    (root / "splits" / "test.txt").write_text("n6\nn7\n")
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of six images to train on and two each to validate on."""
    root = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


INFRARED = (
    "infrared.yaml",
    "data.root=infrared",
)
PHOTOS = (
    "digits_cnn",
    *SMALL,
    "task.network={type: digits_cnn, classes: 2, width: 4, in_channels: 3}",
    "data={type: image_folder, root: photos, size: 8}",
)


@pytest.fixture(autouse=True)
def recipe(tmp_path: Path) -> None:
    """A recipe of the TEM alone."""
    (tmp_path / "infrared.yaml").write_text(
        "name: run\n"
        "task: {type: infrared_targets, network: {type: tbcnet}, loss: softiou, semantic: false}\n"
        "data:\n"
        "  type: infrared_folder\n"
        "  root: nowhere\n"
        "  patch: 48\n"
        "  length: 8\n"
        "  validation: 0.34\n"
        "optimizer: {type: adam, lr: 1e-3}\n"
        "trainer: {steps: 2, batch_size: 4, eval_batch_size: 1}\n"
    )


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:80])


# -- recipes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trianer.epochs=1", "command line: trianer: unknown key (did you mean 'trainer'?)"),
        ("trainer.epoch=1", "command line: trainer.epoch: unknown key (did you mean 'epochs'?)"),
        ("task.network.widht=1", "command line: task.network.widht: unknown key (did you mean 'width'?)"),
        ("data.agument=[flip]", "command line: data.agument: unknown key (did you mean 'augment'?)"),
        ("optimizer.weightdecay=0", "command line: optimizer.weightdecay: unknown key (did you mean 'weight_decay'?)"),
        ("schedule.min_rl=0", "command line: schedule.min_rl: unknown key (did you mean 'min_lr'?)"),
        ("trainer.early_stop.patince=3", "trainer.early_stop.patince: unknown key (did you mean 'patience'?)"),
        ("task.type=clasification", "(did you mean 'classification'?)"),
        ("batch_size=3", "batch_size: unknown key; 'batch_size' belongs to 'trainer'"),
        ("lr=3", "lr: unknown key; 'lr' belongs to 'optimizer'"),
        # wrong types
        ("trainer.batch_size=many", "command line: trainer.batch_size: expected an int, got 'many'"),
        ("optimizer.lr=-1", "command line: optimizer.lr: expected a number > 0, got -1"),
        ("trainer.precision=fp8", "trainer.precision: expected"),
        ("trainer.channels_last=perhaps", "trainer.channels_last: expected"),
        ("data.augment=flip", "data.augment: expected"),
        ("task.network=[1]", "task.network: expected"),
        ("seed=-3", "seed: expected a number >= 0, got -3"),
    ],
)  # fmt: skip
def test_a_wrong_key_or_type_is_told_with_its_place_and_the_nearest(
    commands: Commands, tmp_path: Path, override: str, said: str
) -> None:
    done = commands.run("train", "digits_cnn", override, cwd=tmp_path)
    assert said in done.error
    assert not (tmp_path / "runs").exists()


def test_a_mistake_in_a_file_has_its_line(commands: Commands, tmp_path: Path) -> None:
    recipe = tmp_path / "infrared.yaml"
    recipe.write_text(recipe.read_text().replace("  patch: 48", "  patsh: 48").replace("steps: 2", "steps: two"))
    lines = commands.run("train", "infrared.yaml", cwd=tmp_path).error.splitlines()
    assert lines[0].startswith("infrared.yaml:6: data.patsh: unknown key (did you mean 'patch'?)")
    assert lines[1].startswith("infrared.yaml:10: trainer.steps: expected an int, got 'two'")


# -- data ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("infrared.yaml",), "nowhere: no such folder"),
        (("cifar_resnet20_cifar10", "data.root=nowhere"), "nowhere: there is no such folder or file; check data.root"),
        (PHOTOS, "photos/train: there is no such folder; expected photos/train/<class>/<image>: check data.root"),
        (("digits_cnn", "data={type: mnist_npz, root: m.npz}"), "m.npz: there is no such file; check data.root"),
    ],
)
def test_a_missing_folder_is_named(commands: Commands, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    assert said in commands.run("train", *arguments, cwd=tmp_path).error
    assert not (tmp_path / "runs").exists()


def damaged(folder: Path, what: str) -> str:
    """Damages one infrared training image or its mask; what is expected to be said of it."""
    if what == "corrupt image":
        cut_off(folder / "images" / "n2.png")
        return "images/n2.png: not a readable image"
    if what == "no image":
        (folder / "images" / "n2.png").unlink()
        return "images/n2: no such image"
    if what == "no mask":
        (folder / "masks" / "n2.png").unlink()
        return "masks/n2: the image has no mask (an all-black one says: no target)"
    Image.fromarray(np.zeros((60, 71), np.uint8)).save(folder / "masks" / "n2.png")
    return "masks/n2.png: mask is 60x71, image is 60x70 (rows x columns)"


@pytest.mark.parametrize("what", ["corrupt image", "no image", "no mask", "mask of another size"])
def test_an_image_that_cannot_be_used_stops_or_is_left_out_aloud(
    commands: Commands, tmp_path: Path, infrared: Path, what: str
) -> None:
    said = damaged(infrared, what)
    stopped = commands.run("train", *INFRARED, cwd=tmp_path)
    assert "infrared, split 'train': 1 of 6 samples cannot be used: " in stopped.error
    assert said in stopped.error
    assert stopped.error.endswith("Mend them, or set on_error to 'skip'")
    assert not (tmp_path / "runs").exists()
    skipped = commands.run("train", *INFRARED, "data.on_error=skip", cwd=tmp_path)
    assert skipped.status == 0, skipped.err
    assert "1 of 6 samples cannot be used: " in skipped.err
    assert "Left out: n2" in skipped.err


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_photo_stops_or_is_left_out_aloud(
    commands: Commands, tmp_path: Path, photos: Path, workers: int
) -> None:
    cut_off(photos / "train" / "dog" / "3.png")
    recipe = (*PHOTOS, f"trainer.workers={workers}", "trainer.steps=3")
    stopped = commands.run("train", *recipe, cwd=tmp_path)
    assert "photos/train/dog/3.png: cannot be decoded" in stopped.error
    assert "replace or remove it, or set data.on_error: skip" in stopped.error
    skipped = commands.run("train", *recipe, "data.on_error=skip", "name=other", cwd=tmp_path)
    assert skipped.status == 0, skipped.err
    assert "skipped: photos/train/dog/3.png: cannot be decoded" in skipped.err
    assert "skipped 1 of 12 images that cannot be decoded" in skipped.err


def cifar(folder: Path, label: int) -> None:
    folder.mkdir()
    arrays: dict[str, Any] = {}
    for split in ("train", "test"):
        arrays |= {
            f"{split}_images": np.zeros((20, 32, 32, 3), np.uint8),
            f"{split}_labels": np.arange(20) % 10,
            f"{split}_index": np.arange(20),
        }
    arrays["train_labels"][7] = label
    np.savez(folder / "cifar.npz", **arrays)


@pytest.mark.parametrize("label", [10, -1])
def test_a_label_out_of_range_is_named(commands: Commands, tmp_path: Path, label: int) -> None:
    cifar(tmp_path / "cifar", label)
    done = commands.run("train", "cifar_resnet20_cifar10", "data.root=cifar", "trainer.workers=0", cwd=tmp_path)
    assert f"cifar/cifar.npz: label {label} of image 7 is out of range (1 are); expected 0 to 9" in done.error


def test_an_empty_split_is_named(commands: Commands, tmp_path: Path, infrared: Path, photos: Path) -> None:
    (infrared / "splits" / "train.txt").write_text("\n")
    done = commands.run("train", *INFRARED, cwd=tmp_path)
    assert done.error == "infrared/splits/train.txt: the split is empty; write one image name a line"
    for path in (photos / "train" / "dog").iterdir():
        path.unlink()
    done = commands.run("train", *PHOTOS, cwd=tmp_path)
    assert done.error == "photos/train/dog: holds no image; add some, or remove the class everywhere"
    assert not (tmp_path / "runs").exists()


def test_a_split_of_another_name_is_asked_back(commands: Commands, tmp_path: Path, infrared: Path) -> None:
    done = commands.run("train", *INFRARED, "data.train_split=trian", cwd=tmp_path)
    assert done.error == "infrared: no split 'trian' (did you mean 'train'?); there is: test, train"


# -- folders -------------------------------------------------------------------------------------------------------


def test_a_run_that_is_there_is_not_overwritten(commands: Commands, tmp_path: Path) -> None:
    assert commands.run("train", "digits_cnn", *SMALL, "data.limit=20", cwd=tmp_path).status == 0
    kept = (tmp_path / "runs" / "run" / "checkpoints" / "last.safetensors").read_bytes()
    again = commands.run("train", "digits_cnn", *SMALL, "data.limit=20", cwd=tmp_path)
    assert again.error == "runs/run exists: add --resume to go on or choose another name=..."
    changed = commands.run("train", "digits_cnn", *SMALL, "data.limit=30", "--resume", cwd=tmp_path)
    assert "runs/run was started with another recipe: data.limit was 20, now 30." in changed.error
    assert "choose another name=..." in changed.error
    assert (tmp_path / "runs" / "run" / "checkpoints" / "last.safetensors").read_bytes() == kept


def test_a_folder_of_something_else_is_left_alone(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "runs" / "run").mkdir(parents=True)
    (tmp_path / "runs" / "run" / "thesis.tex").write_text("years of work")
    for more in ((), ("--resume",)):
        done = commands.run("train", "digits_cnn", *SMALL, "data.limit=20", *more, cwd=tmp_path)
        assert "runs/run exists and is no run folder (it holds thesis.tex, no config.yaml)" in done.error
    assert left(tmp_path / "runs" / "run") == {"thesis.tex"}


@pytest.mark.parametrize("output", ["taken", "taken/below", "/proc/triptych"])
def test_output_that_cannot_be_written_is_named(commands: Commands, tmp_path: Path, output: str) -> None:
    (tmp_path / "taken").write_text("a file")
    done = commands.run("train", "digits_cnn", *SMALL, "data.limit=20", f"output={output}", cwd=tmp_path)
    assert f"{output}/run: the folder cannot be made: " in done.error


def test_output_without_permission_is_named(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "sealed").mkdir(mode=0o500)
    if os.access(tmp_path / "sealed", os.W_OK):
        pytest.skip("this user may write anywhere")
    done = commands.run("train", "digits_cnn", *SMALL, "data.limit=20", "output=sealed", cwd=tmp_path)
    assert "sealed/run: the folder cannot be made: Permission denied" in done.error


# -- a full disk ---------------------------------------------------------------------------------------------------

FULL = ("digits_cnn", *SMALL, "data.limit=40", "trainer.steps=20", "trainer.save_every_steps=5", "trainer.log_every=1")


@pytest.mark.parametrize("file", ["last.safetensors", "last.resume"])
def test_a_full_disk_leaves_the_last_checkpoint_to_go_on_from(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """The disk is full when the third checkpoint is written; with room again, the run ends as it would have."""
    for place in ("whole", "full"):
        (tmp_path / place).mkdir()
    assert commands.run("train", *FULL, cwd=tmp_path / "whole").status == 0
    monkeypatch.chdir(tmp_path / "full")
    written = []
    sync: Callable[[Path], None] = files._sync

    def full(path: Path) -> None:
        written.append(path.name)
        if file in path.name and sum(file in name for name in written) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(path)

    with monkeypatch.context() as patched, pytest.raises(CheckpointError) as refused:
        patched.setattr(files, "_sync", full)
        tools.train.main([*FULL])
    said = str(refused.value)
    assert f"runs/run/checkpoints/{file}: cannot be written: No space left on device" in said
    assert "the checkpoint before it is kept: free some space, then --resume" in said
    folder = tmp_path / "full" / "runs" / "run" / "checkpoints"
    assert read_resume(folder / "last.resume")["progress"]["step"] == 10
    assert read_weights(folder / "last.safetensors").tensors
    assert not list(folder.glob("*.tmp")) and not list(folder.glob(".*.tmp"))
    resumed = commands.run("train", *FULL, "--resume", cwd=tmp_path / "full")
    assert resumed.status == 0, resumed.err
    whole = tmp_path / "whole" / "runs" / "run"
    for name in ("last", "best"):
        weights = (folder / f"{name}.safetensors").read_bytes()
        assert weights == (whole / "checkpoints" / f"{name}.safetensors").read_bytes()
    assert untimed(folder.parent) == untimed(whole)


# -- checkpoints ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["eval", "predict"])
def test_weights_of_another_task_are_refused_with_what_differs(
    commands: Commands, trained: Path, trained_tbcnet: Path, tmp_path: Path, tool: str
) -> None:
    shutil.copytree(trained, tmp_path / "digits")
    other = trained_tbcnet / "tem" / "checkpoints" / "best.safetensors"
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(image)
    more = (image,) if tool == "predict" else ()
    done = commands.run(tool, "digits", *more, "--checkpoint", other, cwd=tmp_path)
    assert f"{other}: holds the weights of another network ('TBCNet', task 'infrared_targets')" in done.error
    assert "not of this DigitsCNN: missing" in done.error
    assert "unknown" in done.error
    assert "use the configuration it was trained with" in done.error


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "folder"])
def test_what_is_no_checkpoint_is_refused(commands: Commands, trained: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(trained, tmp_path / "run")
    file = tmp_path / "x.safetensors"
    good = (trained / "checkpoints" / "best.safetensors").read_bytes()
    contents = {"truncated": good[: len(good) // 2], "text": b"weights", "empty": b""}
    if damage == "folder":
        file.mkdir()
    else:
        file.write_bytes(contents[damage])
    done = commands.run("eval", "run", "--checkpoint", file, cwd=tmp_path)
    assert f"{file}: " in done.error
    assert "no such checkpoint" in done.error if damage == "folder" else "not a safetensors file" in done.error


def test_an_scm_of_another_task_is_refused_before_training(
    commands: Commands, trained: Path, infrared: Path, tmp_path: Path
) -> None:
    weights = trained / "checkpoints" / "best.safetensors"
    done = commands.run("train", *INFRARED, "task.semantic=true", f"task.scm={weights}", cwd=tmp_path)
    assert (
        f"{weights}: holds the weights of another network ('DigitsCNN', task 'classification'), not of this SCM"
        in done.error
    )
    assert not (tmp_path / "runs").exists()


# -- machines ------------------------------------------------------------------------------------------------------


def test_more_workers_than_cores_are_said_and_left_out(commands: Commands, tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    done = commands.run("train", "digits_cnn", *SMALL, "data.limit=20", f"trainer.workers={cores + 1}", cwd=tmp_path)
    assert done.status == 0, done.err
    assert f"trainer.workers: {cores + 1} is more than the {cores} cores there are; taking {cores}" in done.err
    assert done.err.count("is more than the") == 1
    assert result(tmp_path / "runs" / "run", "val")["samples"] == 20


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cuda", "trainer.device: 'cuda' (GPU 0) was asked for and 0 GPUs are visible; use device=cpu or device=auto"),
        ("cuda:3", "trainer.device: 'cuda:3' (GPU 3) was asked for and 0 GPUs are visible"),
        ("gpu", "trainer.device: 'gpu' is not a device; expected auto, cpu, cuda or cuda:N"),
    ],
)
def test_a_device_that_is_not_there(commands: Commands, tmp_path: Path, device: str, said: str) -> None:
    none = {"CUDA_VISIBLE_DEVICES": ""}
    done = commands.run("train", "digits_cnn", *SMALL, f"trainer.device={device}", cwd=tmp_path, env=none)
    assert said in done.error
    assert not (tmp_path / "runs").exists()
