"""A small training run in its own process, for the tests that kill it."""

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from tests.engine.harness import make_trainer, new_run
from tests.engine.toy import PointsData, Regression
from vision.engine.optim import cosine
from vision.engine.recorder import Recorder
from vision.engine.task import Batch, Losses, StepContext

STEPS = 60


class Slow(Regression):
    """Takes its time, so that a kill falls anywhere."""

    pause = 0.0

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        time.sleep(self.pause)
        yield from super().training_step(batch, context)


def main(arguments: list[str] | None) -> int:
    """Trains, or goes on training, in a folder: ``pause workers folder``."""
    assert arguments is not None
    pause, workers, folder = arguments
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Tanh(), nn.Linear(8, 1))
    task = Slow(PointsData(noise=0.5), network=network)
    task.pause = float(pause)
    run = new_run(Path(folder))
    trainer = make_trainer(
        task, run, lambda groups: torch.optim.Adam(groups, lr=0.02), cosine, steps=STEPS, batch_size=10, ema=0.9,
        clip_norm=1.0, accumulate=2, save_every_steps=7, log_every=1, workers=int(workers),
    )  # fmt: skip
    with Recorder(run, 1, trainer.total, console=False) as recorder:
        if run.resume_state.exists():
            trainer.resume()
        recorder.truncate(trainer.progress.step)
        trainer.fit(recorder)
    return 0
