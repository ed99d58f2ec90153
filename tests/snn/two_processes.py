"""Short trainings of spiking networks, in one process and in two."""

from pathlib import Path
from typing import Any

import torch

from snn.networks import spiking_lenet5, spiking_mlp
from snn.task import SpikingClassification
from tests.engine.harness import CPU, make_trainer, state, updates
from vision.classification import Digits
from vision.engine.distributed import World, joined

CASES = ("batch_norm", "online")
UPDATES = 3


def task_of(case: str) -> SpikingClassification:
    """With BatchNorm, or with an update after every time step; the same each time."""
    torch.manual_seed(0)
    data = Digits(limit=30)
    if case == "batch_norm":
        return SpikingClassification(data, spiking_lenet5(width=3, padding=4, steps=3, norm="bn"))
    return SpikingClassification(data, spiking_mlp(64, [24], 10, steps=4), updates="online")


def told(case: str, world: World = CPU) -> dict[str, Any]:
    """Parameters and running statistics after some updates of six samples."""
    trainer = make_trainer(task_of(case), steps=UPDATES, batch_size=6, world=world, sync_batchnorm=True)
    before = state(trainer.task)
    updates(trainer, UPDATES)
    return {"before": before, "after": state(trainer.task)}


def main(arguments: list[str] | None) -> int:
    """What each of two processes runs."""
    assert arguments is not None
    with joined("cpu") as world:
        torch.save({case: told(case, world) for case in CASES}, Path(arguments[-1]) / f"rank{world.rank}.pt")
    return 0
