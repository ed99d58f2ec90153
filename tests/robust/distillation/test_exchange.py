"""Rows of samples between processes, and samples that say where they stand."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.utils.data import Dataset, IterableDataset

from robust.distillation import ConsistencyBank, IndexedDataset
from robust.distillation.exchange import gathered, index_of
from vision.engine.data import Sample
from vision.engine.errors import DataError


def test_of_a_repeated_sample_the_first_row_is_heard() -> None:
    index, rows = gathered(torch.tensor([5, 2, 5, 0]), torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    assert index.tolist() == [0, 2, 5, 5]
    assert rows.flatten().tolist() == [4.0, 2.0, 1.0, 1.0]


def _process(rank: int, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        bank = ConsistencyBank(5, 3, epochs=2)
        parts = ([0, 3, 4], [1, 2])  # uneven, as the last batch of an epoch may be
        logits = torch.arange(15.0).view(5, 3).cos()
        bank(logits[parts[rank]], torch.tensor(parts[rank]))
        torch.testing.assert_close(bank.table, logits.softmax(1))
    finally:
        dist.destroy_process_group()


def test_two_processes_keep_one_table(tmp_path: Path) -> None:
    mp.spawn(_process, (str(tmp_path / "store"),), nprocs=2)


class _Shuffling(Dataset[Sample]):
    def __init__(self) -> None:
        self.calls = 0

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        self.calls += 1
        return {"id": f"{self.calls}", "label": index}


class _Stream(IterableDataset[Sample]):
    def __iter__(self) -> Iterator[Sample]:
        yield {"id": "a"}


class _Steady(_Shuffling):
    def __getitem__(self, index: int) -> Sample:
        return {"id": f"{index}", "label": 2 - index}


def test_samples_without_a_stable_index_are_refused() -> None:
    with pytest.raises(DataError, match="_Shuffling: its samples carry no stable index: place 0 gave '1', then '2'"):
        IndexedDataset(_Shuffling())
    with pytest.raises(DataError, match="_Stream: its samples carry no stable index"):
        IndexedDataset(_Stream())
    with pytest.raises(DataError, match="the consistency bank needs a stable index"):
        index_of({"id": ["a"]}, "the consistency bank")


def test_indexed_samples_and_labels() -> None:
    data = IndexedDataset(_Steady())
    assert [data[i]["index"] for i in range(3)] == [0, 1, 2]
    assert data.labels().tolist() == [2, 1, 0]
