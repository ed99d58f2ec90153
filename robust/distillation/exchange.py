"""What processes tell each other about the samples they have seen, so that tables of samples agree everywhere."""

import torch
import torch.distributed as dist
from torch import Tensor

from vision.engine.errors import DataError
from vision.engine.task import Batch


def gathered(index: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of all processes in order of their samples; in one process its own.

    Where a sample comes several times (a process repeats another's to fill up an uneven last batch), all its rows are
    those of the first: writing them into a table gives one result in any order. Nothing waits for a GPU.

    Args:
        index: of samples in the training data, int64, shape ``[n]``; processes may differ in ``n``.
        values: what was seen of each, shape ``[n, ...]``.

    Returns:
        Indices in ascending order, shape ``[N]``, and their rows ``[N, ...]``.
    """
    if several():
        index, values = _all(index), _all(values)
    return _as_the_first(index, values)


def several() -> bool:
    """Whether this is one of several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a scalar that each process has one of, the same in all of them."""
    if not several():
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def _all(rows: Tensor) -> Tensor:
    size = torch.tensor([len(rows)], device=rows.device)
    sizes = [torch.zeros_like(size) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, size)
    most = max(int(n) for n in sizes)
    padded = rows.new_zeros(most, *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(n)] for part, n in zip(parts, sizes, strict=True)])


def _as_the_first(index: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    ranked, order = torch.sort(index, stable=True)
    return ranked, values[order[torch.searchsorted(ranked, ranked)]]  # of equal ones the first


def index_of(batch: Batch, wanted_by: str) -> Tensor:
    """The place of each sample of a batch in the training data, int64 ``[N]``.

    Args:
        batch: of :class:`~robust.distillation.indexed.IndexedDataset`.
        wanted_by: what an error says needs it.

    Raises:
        DataError: the samples carry none.
    """
    index = batch.get("index")
    if not isinstance(index, Tensor) or index.ndim != 1 or index.dtype != torch.int64:
        raise DataError(
            f"{wanted_by} needs a stable index for each training sample and the batch carries none; "
            "wrap the training data in robust.distillation.IndexedDataset"
        )
    return index
