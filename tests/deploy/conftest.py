"""A small trained classifier for the tests of exporting."""

import pytest
import torch

from vision.engine.registry import build
from vision.engine.task import StepContext, Task


def digits(limit: int = 48, width: int = 8) -> Task:
    """A few updates of a small network on digits, so that its answers are no accidents."""
    torch.manual_seed(0)
    data = build({"type": "digits", "limit": limit}, "data")
    task: Task = build({"type": "classification", "network": {"type": "digits_cnn", "width": width}}, "task", data=data)
    samples = task.train_data()
    batch = task.collate([samples[i] for i in range(limit)])
    optimizer = torch.optim.Adam(task.parameters(), 1e-2)
    for step in range(12):
        for losses in task.training_step(batch, StepContext(step, 12, 0)):
            optimizer.zero_grad()
            sum(losses.values()).backward()  # type: ignore[union-attr]
            optimizer.step()
    return task.eval()


@pytest.fixture(scope="module")
def task() -> Task:
    return digits()
