"""Modules that remember samples: in checkpoints, yet no buffers, which DDP would send at each forward pass."""

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn


class Remembering(nn.Module):
    """A module whose memory is a part of its ``state_dict`` without being parameters or buffers."""

    @abstractmethod
    def remembered(self) -> dict[str, Tensor]:
        """The memory by name."""

    @abstractmethod
    def remember(self, held: dict[str, Tensor]) -> None:
        """Takes over a memory that another module of its kind had.

        Raises:
            CheckpointError: it does not fit; nothing has changed then.
        """

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update({prefix + name: value for name, value in self.remembered().items()})

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        names = {prefix + name: name for name in self.remembered()}
        unexpected_keys[:] = [key for key in unexpected_keys if key not in names]
        absent = [key for key in names if key not in state_dict]
        missing_keys.extend(absent)
        if not absent:
            self.remember({name: state_dict[key] for key, name in names.items()})
