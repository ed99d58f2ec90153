"""README's commands, run as they stand there.

What takes longer is made short: a training builds everything and makes one update (``--dry-run``), a benchmark measures
a narrow network, and a run that a prediction asks for has the weights that training would begin with. The commands on
digits are run by ``test_commands.py``, on a few images and in the order of the page. ``make demo`` is run as the recipe
that it trains, dry; CI runs ``make test`` itself.

Only checked, by ``test_commands.py``, to name what exists: ``python -m pip install``, which downloads 3 GB.
"""

from fractions import Fraction
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model

from tests.docs.pages import CHECKOUT, commands, tool_of
from vision.engine.checkpoint import save_weights
from vision.engine.config import from_tree
from vision.engine.registry import build
from vision.engine.run import RunFolder
from vision.engine.video import VideoWriter
from vision.pose.samples import PEOPLE

ONLY_CHECKED = [["python", "-m", "pip"]]
IN_THE_ORDER_OF_THE_PAGE = "digits"
MAKE = {"demo": ["python", "tools/train.py", "configs/demo.yaml"]}
SHORT = {"train": ["--dry-run"], "benchmark": ["--width", "4", "--batch", "1", "--repeats", "1"]}
NETWORKS = {
    "tbcnet_lite_sirst": ({"type": "infrared_targets", "semantic": False}, {"type": "tbcnet"}, "infrared_synthetic"),
    "mamkpd_t_coco_quick": ({"type": "top_down_pose"}, {"type": "mamkpd_t"}, "sample_people"),
}
DATA = "../shared/data/"


def here() -> list[list[str]]:
    """The commands that are run here."""
    kept = []
    for command in commands(CHECKOUT / "README.md"):
        command = MAKE.get(command[1], command) if command[0] == "make" else command
        if tool_of(command) and not any(IN_THE_ORDER_OF_THE_PAGE in word for word in command):
            kept.append(command)
    return kept


def data_sets(command: list[str]) -> list[str]:
    """Those that a training reads."""
    words = [word.partition("=")[2] for word in command if word.startswith("data.root=")]
    return [word.removeprefix(DATA) for word in words if word.startswith(DATA)]


CASES = [
    pytest.param(c, marks=[pytest.mark.data] if data_sets(c) else [], id=" ".join(c[1:])[:60]) for c in here()
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
    elif path.suffix == ".mp4":
        with VideoWriter(path, Fraction(10)) as writer:
            writer.write(np.zeros((64, 48, 3), np.uint8))
    elif path.suffix == ".pth":
        detector = get_model("fasterrcnn_resnet50_fpn", weights=None, weights_backbone=None)
        torch.save(detector.state_dict(), path)
    elif word.startswith(DATA):
        path.mkdir(parents=True)
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 80), dtype=np.uint8)).save(path / "a.png")
    elif word.startswith("vision/samples/"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(CHECKOUT / word)
    elif word == "photos/":
        (path / "astronaut.jpg").symlink_to(PEOPLE / "images" / "astronaut.jpg")


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
    status = import_module(f"tools.{tool}").main([*arguments, *SHORT.get(tool, [])])
    assert status in ((0, 1) if tool == "doctor" else (0,)), "1 is the doctor's word for something that does not work"
    said, made = capsys.readouterr(), set(checkout.rglob("*")) - before
    if tool == "train":
        assert not made, "a dry run writes nothing"
    elif tool == "predict":
        assert {"predictions.json"} < {path.name for path in made}
    else:
        assert said.out


def test_every_other_command_is_run_elsewhere_or_named_above() -> None:
    rest = [c for c in commands(CHECKOUT / "README.md") if c not in here()]
    rest = [c for c in rest if c[:3] not in ONLY_CHECKED and c[0] != "make"]
    assert all(any(IN_THE_ORDER_OF_THE_PAGE in word for word in c) for c in rest), rest
    assert len(CASES) > 6
