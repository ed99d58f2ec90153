"""The pages' commands, run as they stand there.

What takes longer is made short: a training builds everything and makes one update (``--dry-run``), a benchmark measures
a narrow network, and a run that a prediction asks for has the weights that training would begin with. The commands on
digits are run by ``test_commands.py``, on a few images and in the order of the page. ``make demo`` is run as the recipe
that it trains, dry; CI runs ``make test`` itself. ``ONLY_CHECKED`` says what is not run and why; ``test_commands.py``
holds all of it to what exists.
"""

import json
import os
import re
import subprocess
import sys
from fractions import Fraction
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model

from tests.docs.pages import CHECKOUT, every_command, tool_of
from tests.docs.test_commands import quick
from vision.engine.checkpoint import save_weights
from vision.engine.config import from_tree
from vision.engine.registry import build
from vision.engine.run import RunFolder
from vision.engine.video import VideoWriter
from vision.pose.samples import PEOPLE

MAKE = {"demo": ["python", "tools/train.py", "configs/demo.yaml"]}
ONLY_CHECKED = {
    r"make (?!demo)": "run by CI, or each part by its own tests",
    r"python -m pip ": "downloads up to 3 GB",
    r"python -m vision\.engine\.schema": "tests/configs run it",
    r"export ": "sets a variable of the shell",
    r"tools/demo\.py": "serves until it is ended; tests/cli open its page",
    r"torchrun .*--(nnodes|nproc_per_node 8)": "asks for several machines, or eight GPUs",
    r"tiny_digits": "a recipe that the reader writes; tests/contributing run it",
    r"/path/to/|=mydata|=hands|=photos|=crowdpose|=OCHuman|/ochuman": "reads data that is not at hand",
    r"(cid_w32\w*|model_best)\.pth|dhrnet_w32_coco\.safetensors|teacher=runs/": "reads weights that are not at hand",
    r"tools/eval\.py runs/": "judges a whole data set; tests/cli judge small ones",
    r"tools/export\.py": "takes minutes; tests/deploy export small networks",
    r"tools/benchmark\.py (speed|pipeline)": "takes minutes; tests/deploy time stand-ins",
    r"benchmarks/": "takes minutes to hours; tests/benchmarks run small ones",
    r"docs/pictures\.py": "reads trained runs; test_pictures.py draws from fresh ones",
    r"robust_cifar10_quick_comparison|stop_vgg11": "takes minutes even for one update",
}
"""Why commands are not run, by what is in them."""
SHORT = {"train": ["--dry-run"], "snn-memory": ["--width", "4", "--batch", "1", "--repeats", "1"]}
"""What makes a tool, or a tool's first word, short."""
NETWORKS = {
    "tbcnet_lite_sirst": ({"type": "infrared_targets", "semantic": False}, {"type": "tbcnet"}, "infrared_synthetic"),
    "mamkpd_t_coco_quick": ({"type": "top_down_pose"}, {"type": "mamkpd_t"}, "sample_people"),
    **dict.fromkeys(("dhrnet_w18s_coco_quick", "dhrnet_w18s_samples"), (
        {"type": "single_stage_pose"}, {"type": "dhrnet", "backbone": "hrnet_w18_small", "output_size": 32},
        "sample_people_whole",
    )),
}  # fmt: skip
DATA = "../shared/data/"


def reason(command: list[str]) -> str | None:
    """Why a command is not run; None where it is."""
    return next((why for pattern, why in ONLY_CHECKED.items() if re.search(pattern, " ".join(command))), None)


def here() -> list[list[str]]:
    """The commands that are run here, each once."""
    kept = []
    for page, command in every_command():
        tool = tool_of(command)
        if reason(command) or command[0] == "torchrun" or (tool and [tool[0], *tool[1]] in quick(page)):
            continue
        kept.append(MAKE.get(command[1], command) if command[0] == "make" else command)
    return list(map(list, dict.fromkeys(map(tuple, kept))))


def data_sets(command: list[str]) -> list[str]:
    """Those that a training reads."""
    words = [word.partition("=")[2] for word in command if word.startswith("data.root=")]
    return [word.removeprefix(DATA) for word in words if word.startswith(DATA)]


CASES = [
    pytest.param(c, marks=[pytest.mark.data] if data_sets(c) else [], id=" ".join(c[1:])[:80]) for c in here()
]  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with recipes, images, a video, a detector and runs where the commands look for them."""
    folder = tmp_path / "triptych"
    (folder / "photos").mkdir(parents=True)
    (folder / "configs").symlink_to(CHECKOUT / "configs")
    (tmp_path / "shared/data").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TRIPTYCH_DATA", raising=False)
    return folder


def made_run(folder: Path, name: str) -> None:
    """A run as training leaves it, with the weights it begins with."""
    task, network, data = NETWORKS[name]
    how = {"optimizer": {"type": "sgd", "lr": 0.1}, "trainer": {"steps": 1}, "data": {"type": data}}
    config = from_tree({"name": name, "task": {**task, "network": network}, **how})
    run = RunFolder.create(folder / "runs" / name, config.yaml, config.hash)
    save_weights(run.best, build(network, "network"), {})


def given(folder: Path, word: str) -> None:
    """Puts what an argument of ``tools/predict.py`` names where it is named."""
    path = folder / word
    if word.startswith("runs/"):
        made_run(folder, path.name)
    elif word.startswith("vision/samples/"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(CHECKOUT / word)
    elif path.suffix == ".mp4":
        with VideoWriter(path, Fraction(10)) as writer:
            writer.write(np.zeros((64, 48, 3), np.uint8))
    elif path.suffix == ".pth":
        network = "ssdlite320_mobilenet_v3_large" if path.stem == "mine" else "fasterrcnn_resnet50_fpn"
        torch.save(get_model(network, weights=None, weights_backbone=None).state_dict(), path)
    elif path.name == "detections.json":
        box = {"image_id": "astronaut.jpg", "file_name": "astronaut.jpg", "bbox": [0, 0, 100, 100], "score": 0.9}
        path.write_text(json.dumps([{**box, "category_id": 1}]))
    elif word == "photos/":
        (path / "astronaut.jpg").symlink_to(PEOPLE / "images" / "astronaut.jpg")
    elif word.startswith(DATA) or word == "folder/":
        path.mkdir(parents=True)
        noise(path / "a.png")
    elif path.suffix in (".png", ".jpg", ".bmp"):
        path.parent.mkdir(exist_ok=True)
        noise(path.with_stem(path.stem.replace("*", "a")))


def noise(path: Path) -> None:
    """A small gray image."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 80), dtype=np.uint8)).save(path)


@pytest.mark.slow
@pytest.mark.parametrize("command", CASES)
def test_it_runs(
    command: list[str],
    checkout: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    found = tool_of(command)
    assert found is not None
    tool, arguments = found
    for name in data_sets(command):
        (checkout.parent / "shared/data" / name).symlink_to(request.getfixturevalue("data_root") / name)
    if tool == "predict":
        for word in arguments:
            given(checkout, word)
    before = set(checkout.rglob("*"))
    short = [word for name in [tool, *arguments[:1]] for word in SHORT.get(name, [])]
    status = import_module(f"tools.{tool}").main([*arguments, *short])
    assert status in ((0, 1) if tool == "doctor" else (0,)), "1 is the doctor's word for something that does not work"
    said, made = capsys.readouterr(), set(checkout.rglob("*")) - before
    if tool == "train":
        assert not made, "a dry run writes nothing"
    elif tool == "predict":
        assert {"predictions.json"} < {path.name for path in made}
    else:
        assert said.out


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_train_by_the_command_of_the_page(checkout: Path) -> None:
    command = next(c for _, c in every_command() if c[:3] == ["torchrun", "--nproc_per_node", "2"])
    small = ["trainer.epochs=1", "data.limit=48", "trainer.batch_size=24"]
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone"]  # a free port, as other tests may take one
    command = [*run, *command[1:3], str(CHECKOUT / command[3]), *command[4:]]
    subprocess.run([*command, *small], cwd=checkout, check=True, env=os.environ | {"PYTHONPATH": str(CHECKOUT)})
    assert (checkout / "runs/digits_cnn/eval/test/result.json").is_file()


def test_every_reason_is_one_for_some_command() -> None:
    every = [" ".join(command) for _, command in every_command()]
    assert [pattern for pattern in ONLY_CHECKED if not any(re.search(pattern, one) for one in every)] == []
    assert len(CASES) > 25
