"""The stability tracker beside an adversarial run: which sample stands where, and what a resumed run needs of it."""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from robust.data_quality import StabilityTracker
from vision.classification.data import ClassificationData
from vision.engine.errors import ConfigError, DataError
from vision.engine.task import Batch


class StabilityRecord(nn.Module):
    """Tells a :class:`~robust.data_quality.StabilityTracker` what a training step saw, and keeps it in checkpoints.

    Args:
        data: whose training images are tracked, by their places among all its training images.
    """

    def __init__(self, data: ClassificationData) -> None:
        super().__init__()
        self.data = data
        self.tracker: StabilityTracker | None = None
        self._places: dict[str, int] = {}

    def begin(self) -> None:
        """Makes the tracker.

        Raises:
            ConfigError: training in several processes, each of which would see a part only.
        """
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            raise ConfigError("task.track_stability: samples are tracked in one process only; train without torchrun")
        self._places = {name: place for place, name in enumerate(self.data.listed("train").ids)}
        dataset: Any = self.data.train()
        self.tracker = StabilityTracker(len(self._places), [self._places[name] for name in dataset.images.ids])

    def see(self, batch: Batch, logits: Tensor) -> None:
        """Takes a step's logits ``[N, C]`` on attacked images."""
        if self.tracker is not None:
            self.tracker.update([self._places[name] for name in batch["id"]], logits, batch["label"])

    def end_epoch(self) -> None:
        """Closes an epoch."""
        if self.tracker is not None:
            self.tracker.end_epoch()

    def get_extra_state(self) -> dict[str, Tensor]:
        """The tracker's epochs, and the one that has begun."""
        if self.tracker is None:
            return {}
        return {"history": self.tracker.state(), **{k: torch.from_numpy(v) for k, v in self.tracker.begun().items()}}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Goes back to what :meth:`get_extra_state` gave."""
        if self.tracker is not None and state:
            self.tracker.restore(state["history"], {key: state[key].numpy() for key in ("seen", "right")})


def tracker_of(state: dict[str, Any], data: ClassificationData, where: str, start_epoch: int = 0) -> StabilityTracker:
    """The tracker that a run's resume state holds.

    Args:
        state: as :func:`vision.engine.checkpoint.read_resume` gives it.
        data: of the run.
        where: the file, for errors.
        start_epoch: epochs before this one do not count.

    Raises:
        ConfigError: ``start_epoch`` below 0.
        DataError: the run tracked nothing, or finished no epoch that counts.
    """
    held = [value for name, value in state["task"].items() if name.endswith("stability._extra_state")]
    if not held or not held[0]:
        raise DataError(f"{where}: the run did not track its samples; train it with task.track_stability: true")
    record = StabilityRecord(data)
    record.begin()
    record.set_extra_state(held[0])
    assert record.tracker is not None
    tracker = StabilityTracker(record.tracker.count, np.flatnonzero(record.tracker.mask), start_epoch)
    tracker.restore(record.tracker.state())
    if not tracker.counted:
        raise DataError(
            f"{where}: {tracker.epochs} epochs have finished, none counts from {start_epoch} on; train longer"
        )
    return tracker
