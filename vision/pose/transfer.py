"""Weights of a pose network for another one: of other joints, another input size, or another decoder."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision.engine.checkpoint import differences, read_weights
from vision.engine.errors import CheckpointError

DECODER = "decoder."
POSITIONS = "pos_embed"


@dataclass(frozen=True)
class Transfer:
    """What became of a file's weights.

    Attributes:
        path: the file.
        kept: names of tensors taken over as they were.
        resized: names of position embeddings that were interpolated to another grid.
        fresh: names of the network's tensors that keep their fresh initialisation.
        unused: names in the file that the network has no place for.
        parameters: numbers in ``kept`` and ``resized``, and in all of the network.
    """

    path: Path
    kept: tuple[str, ...]
    resized: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    parameters: tuple[int, int]

    def __str__(self) -> str:
        taken, whole = self.parameters
        text = f"{self.path}: {taken:,} of {whole:,} numbers kept ({len(self.kept)} tensors)"
        for what, names in (
            ("interpolated", self.resized),
            ("initialised afresh", self.fresh),
            ("in the file but unused", self.unused),
        ):
            if names:
                text += f"; {what}: {', '.join(names)}"
        return text


def transfer_weights(network: nn.Module, path: str | Path) -> Transfer:
    """Loads what fits of a trained network's weights, and tells what did not.

    Everything outside the decoder has to be in the file with the same shape; position embeddings of another grid are
    interpolated. Of the decoder, tensors of another shape (another joint count, another size of SimCC's bins) or of
    another decoder keep their fresh initialisation.

    Args:
        network: changed in place; its decoder is the child called ``decoder``.
        path: a ``.safetensors`` file of this package, or a ``.pt``/``.pth`` state dict.

    Returns:
        What was kept, interpolated, left fresh and not used; ``str()`` of it is a line for a log.

    Raises:
        CheckpointError: the file cannot be read, or its encoder is of another network; the network is then unchanged.
    """
    file = read_weights(path)
    own, held = network.state_dict(), file.tensors
    grid = getattr(network, "position_grid", None)  # rows and columns that position embeddings are for
    fitting: dict[str, Tensor] = {}
    resized = []
    for name, value in own.items():
        if name not in held:
            continue
        if held[name].shape == value.shape:
            fitting[name] = held[name]
        elif name.endswith(POSITIONS) and isinstance(grid, tuple):
            fitting[name] = resized_positions(held[name], grid, value.shape[1] - grid[0] * grid[1])
            resized.append(name)
    fresh = [name for name in own if name not in fitting]
    foreign = [name for name in fresh if not name.startswith(DECODER)]
    if foreign:
        within = {name: value for name, value in held.items() if not name.startswith(DECODER)}
        found = differences({name: value for name, value in own.items() if not name.startswith(DECODER)}, within)
        raise CheckpointError(
            f"{file.path}: its encoder is not that of this {type(network).__name__}: {found}; "
            "only the decoder may differ"
        )
    network.load_state_dict({**own, **fitting})
    return Transfer(
        file.path,
        tuple(name for name in fitting if name not in resized),
        tuple(resized),
        tuple(fresh),
        tuple(name for name in held if name not in fitting),
        (sum(value.numel() for value in fitting.values()), sum(value.numel() for value in own.values())),
    )


def resized_positions(embedding: Tensor, grid: tuple[int, int], prefix: int) -> Tensor:
    """Position embeddings interpolated (bicubic, antialiased) for another grid.

    The grid they come from is that of the same proportions with so many cells, or else the square one.

    Args:
        embedding: shape ``[1, prefix + h * w, C]``.
        grid: rows and columns wanted.
        prefix: leading tokens that stand for no position; kept as they are.

    Returns:
        Shape ``[1, prefix + rows * columns, C]``.

    Raises:
        CheckpointError: no such grid.

    Source: as timm and ViTPose do it.
    """
    rows, columns = grid
    cells = embedding.shape[1] - prefix
    height = round((cells * rows / columns) ** 0.5)
    if height * round(height * columns / rows) != cells:
        height = round(cells**0.5)
    width = cells // max(height, 1)
    if cells < 1 or height * width != cells:
        raise CheckpointError(
            f"position embeddings of {cells} cells are of no grid like {rows}x{columns}, nor of a square one"
        )
    first, image = embedding[:, :prefix], embedding[:, prefix:].unflatten(1, (height, width)).permute(0, 3, 1, 2)
    image = F.interpolate(image.float(), size=grid, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([first, image.permute(0, 2, 3, 1).flatten(1, 2).to(embedding.dtype)], dim=1)
