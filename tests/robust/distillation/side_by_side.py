"""Teachers and students trained in one process and in two, over several epochs with an uneven last batch."""

import tempfile
from pathlib import Path
from typing import Any

import torch

from robust.distillation import Distillation, RegularisedClassification, Regularisers
from tests.engine.harness import CPU, make_trainer, updates
from vision.classification import Digits, DigitsCNN
from vision.engine.checkpoint import save_weights
from vision.engine.distributed import World, joined
from vision.engine.recipe import Block
from vision.engine.task import Task

DISTILLERS: dict[str, Block] = {
    "kd": {"type": "kd"},
    "crd": {"type": "crd", "negatives": 20},
    "factor": {"type": "factor", "initial_epochs": 1},
    "sskd": {"type": "sskd", "initial_epochs": 1},
}
EPOCHS = 3


def _data() -> Digits:
    return Digits(limit=24, augment=("crop",), crop_padding=1)


def teacher() -> RegularisedClassification:
    """SoTeacher without BatchNorm, so that two processes can equal one."""
    options = Regularisers(lipschitz=1e-3, consistency=1.0)
    return RegularisedClassification(_data(), DigitsCNN(width=4, norm="none"), options)


def student(distiller: str) -> Distillation:
    """A student of a teacher with fresh weights."""
    master = DigitsCNN(width=8)
    file = Path(tempfile.mkdtemp(prefix="teacher")) / "teacher.safetensors"
    save_weights(file, master, {})
    return Distillation(_data(), DigitsCNN(width=4, norm="none"), master, str(file), DISTILLERS[distiller])


def trained(name: str, world: World) -> dict[str, torch.Tensor]:
    """The state of a task after three epochs of four updates, of seven samples and of three."""
    torch.manual_seed(0)
    task: Task = teacher() if name == "teacher" else student(name)
    trainer = make_trainer(task, world=world, epochs=EPOCHS, batch_size=7)
    updates(trainer, EPOCHS * trainer.plan.updates)
    return {key: value.clone() for key, value in task.state_dict().items()}


def main(arguments: list[str] | None) -> int:
    """What each of two processes runs."""
    assert arguments is not None
    with joined("cpu") as world:
        found: dict[str, Any] = {name: trained(name, world) for name in ("teacher", *DISTILLERS)}
        torch.save(found, Path(arguments[-1]) / f"rank{world.rank}.pt")
    return 0


def alone(name: str) -> dict[str, torch.Tensor]:
    """The same in this process."""
    return trained(name, CPU)
