"""What the tests of the tools share: processes that start at once, and one trained run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.launching import Commands


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    """Tools that start at once."""
    running = Commands()
    yield running
    running.close()


@pytest.fixture(scope="session")
def trained(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a digits classifier that was trained for two epochs; to be read, not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    done = commands.run("train", "digits_cnn", "trainer.epochs=2", "data.limit=300", "task.network.width=8", cwd=folder)
    assert done.status == 0, done.err
    return folder / "runs" / "digits_cnn"


@pytest.fixture(scope="session")
def trained_tbcnet(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pipeline, SCM then TEM, that was trained for a few updates on synthetic scenes."""
    folder = tmp_path_factory.mktemp("trained_tbcnet")
    done = commands.run(
        "train", "tbcnet_lite_synthetic",
        "stages.scm.data={size: 64, held_out: 12, length: 64}",
        "stages.scm.trainer={steps: 4, batch_size: 8, evaluate_every_steps: 4}",
        "stages.tem.data={patch: 48, size: 64, scenes: 3, length: 40}",
        "stages.tem.trainer={steps: 20, batch_size: 4, evaluate_every_steps: 10}",
        cwd=folder,
    )  # fmt: skip
    assert done.status == 0, done.err
    return folder / "runs" / "tbcnet_lite_synthetic"
