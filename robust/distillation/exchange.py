"""What processes tell each other about the samples they have seen, so that tables of samples agree everywhere."""

import torch
import torch.distributed as dist
from torch import Tensor

from vision.engine.errors import DataError
from vision.engine.task import Batch


def gathered(index: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of all processes, in order of rank, each sample once; in one process the rows themselves.

    A process that repeats another's sample (to fill up an uneven last batch) is not heard: the first rank is.

    Args:
        index: of samples in the training data, int64, shape ``[n]``; processes may differ in ``n``.
        values: what was seen of each, shape ``[n, ...]``.

    Returns:
        Indices without repetition, shape ``[N]``, and their rows ``[N, ...]``.
    """
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        index, values = _all(index), _all(values)
    return _once(index, values)


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


def _once(index: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    order = torch.argsort(index, stable=True)
    ranked = index[order]
    fresh = torch.ones_like(ranked, dtype=torch.bool)
    fresh[1:] = ranked[1:] != ranked[:-1]
    return ranked[fresh], values[order[fresh]]


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
