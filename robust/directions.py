"""APART's per-image state, and the crops and flips that images and state share."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision.engine.errors import CheckpointError, DataError


@dataclass(frozen=True)
class Windows:
    """Where each image of a batch is cut from its padded form, and whether it is mirrored.

    Attributes:
        corners: first row and column of each window, int64, shape ``[N, 2]``.
        flips: bool, shape ``[N]``.
        size: rows and columns of a window.
    """

    corners: Tensor
    flips: Tensor
    size: tuple[int, int]

    @classmethod
    def draw(cls, count: int, size: tuple[int, int], padding: int, device: torch.device) -> "Windows":
        """Corners uniform in ``[0, 2 padding]`` and fair coins, from torch's global generator."""
        corners = torch.randint(0, 2 * padding + 1, (count, 2)).to(device)
        return cls(corners, (torch.rand(count) < 0.5).to(device), size)

    def _places(self) -> tuple[Tensor, Tensor, Tensor]:
        device = self.corners.device
        rows = self.corners[:, :1] + torch.arange(self.size[0], device=device)
        columns = self.corners[:, 1:] + torch.arange(self.size[1], device=device)
        return torch.arange(len(rows), device=device)[:, None, None], rows[:, :, None], columns[:, None, :]

    def cut(self, padded: Tensor) -> Tensor:
        """``[N, C, H + 2p, W + 2p]`` to ``[N, C, H, W]``."""
        sample, rows, columns = self._places()
        return self._mirrored(padded.permute(0, 2, 3, 1)[sample, rows, columns].permute(0, 3, 1, 2))

    def write(self, padded: Tensor, windows: Tensor) -> Tensor:
        """``padded`` with ``windows`` ``[N, C, H, W]`` put back where they were cut; the rest as it was."""
        sample, rows, columns = self._places()
        written = padded.permute(0, 2, 3, 1).clone()
        written[sample, rows, columns] = self._mirrored(windows).permute(0, 2, 3, 1)
        return written.permute(0, 3, 1, 2).contiguous()

    def _mirrored(self, windows: Tensor) -> Tensor:
        return torch.where(self.flips.view(-1, 1, 1, 1), windows.flip(-1), windows)


def pad(images: Tensor, padding: int, value: float = 0.5) -> Tensor:
    """``padding`` pixels of one value on each side: ``[N, C, H, W]`` to ``[N, C, H + 2p, W + 2p]``."""
    return F.pad(images, (padding,) * 4, value=value)


class Directions(nn.Module):
    r"""A direction :math:`\omega` in [-1, 1] for every training image, kept for the whole run.

    Args:
        count: images.
        shape: of one direction: C, H + 2p, W + 2p.
        seed: of the start, 0.001 times a normal number.
        file: a ``.npy`` file to keep them in, made where it is not there; None keeps them in memory. CIFAR-10 in full
            takes 0.96 GB. In memory they are a part of every resume state; a file is not, and a run that goes on from a
            checkpoint before the file's last change takes the file as it is.

    Attributes:
        used: whether they are those of a file that was there already.

    Raises:
        DataError: the file holds something else.
    """

    def __init__(self, count: int, shape: tuple[int, int, int], seed: int, file: Path | None = None) -> None:
        super().__init__()
        self.file, full = file, (count, *shape)
        if file is None:
            self.values: np.ndarray = np.empty(full, dtype=np.float32)
        elif file.is_file():
            self.values, self.used = self._opened(file, full), True
            return
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            self.values = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=full)
        self.begin(seed)

    def begin(self, seed: int) -> None:
        """Draws them all anew."""
        draw = np.random.default_rng(seed)
        for start in range(0, len(self.values), 1000):  # so that a file larger than memory can be begun
            part = self.values[start : start + 1000]
            part[:] = 1e-3 * draw.standard_normal(part.shape, dtype=np.float32)
        self.used = False

    @staticmethod
    def _opened(file: Path, full: tuple[int, ...]) -> np.ndarray:
        try:
            values: np.ndarray = np.lib.format.open_memmap(file, mode="r+")
        except (ValueError, OSError) as error:
            raise DataError(f"{file}: is no .npy file of directions ({error}); name another file") from error
        if values.shape != full or values.dtype != np.float32:
            raise DataError(
                f"{file}: holds {values.dtype} {list(values.shape)}, expected float32 {list(full)}; it belongs to "
                "other images: name another file"
            )
        return values

    def read(self, places: np.ndarray, device: torch.device) -> Tensor:
        """Those at ``places``: float32, ``[N, C, H + 2p, W + 2p]``."""
        return torch.from_numpy(np.ascontiguousarray(self.values[places])).to(device)

    def write(self, places: np.ndarray, values: Tensor) -> None:
        """Puts ``values`` at ``places``."""
        self.values[places] = values.detach().float().cpu().numpy()

    def get_extra_state(self) -> Tensor:
        """The directions where they are in memory, else nothing."""
        return torch.zeros(0) if self.file is not None else torch.from_numpy(self.values)

    def set_extra_state(self, state: Tensor) -> None:
        """Goes back to what :meth:`get_extra_state` gave.

        Raises:
            CheckpointError: the state is that of other images.
        """
        if self.file is None:
            if tuple(state.shape) != self.values.shape:
                raise CheckpointError(f"directions of shape {list(state.shape)} do not fit {list(self.values.shape)}")
            self.values = state.cpu().numpy().copy()
