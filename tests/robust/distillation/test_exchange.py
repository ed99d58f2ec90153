"""Rows of samples between processes, and samples that say where they stand."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch.utils.data import Dataset, IterableDataset

from robust.distillation import ConsistencyBank, CorrectnessRanking, IndexedDataset
from robust.distillation.distillers.crd import ContrastMemory
from robust.distillation.exchange import gathered, index_of
from vision.classification import Digits
from vision.engine.data import Sample
from vision.engine.errors import DataError


def test_of_a_repeated_sample_the_first_row_is_heard() -> None:
    index, rows = gathered(torch.tensor([5, 2, 5, 0]), torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    assert index.tolist() == [0, 2, 5, 5]
    assert rows.flatten().tolist() == [4.0, 2.0, 1.0, 1.0]


PARTS = ([0, 3, 4], [1, 2])
"""Uneven, as the last batch of an epoch may be."""


def _process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        torch.save(_remembered(PARTS[rank]), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def _remembered(part: list[int]) -> dict[str, Any]:
    """What a bank, a history of right answers and a contrast memory hold and cost after three epochs."""
    torch.manual_seed(0)
    bank, ranking, memory = ConsistencyBank(5, 3, epochs=3), CorrectnessRanking(5), ContrastMemory(5, 3)
    losses, index = [], torch.tensor(part)
    for epoch in (1, 2, 3):
        logits = (epoch * torch.arange(15.0).view(5, 3)).cos()[index]
        losses.append(bank(logits, index).item())
        ranking(logits, index % 3, index)
        memory(F.normalize(logits), F.normalize(logits.flip(1)), index, torch.stack([index, (index + 1) % 5], 1))
        bank.end_epoch()
        ranking.end_epoch(epoch)
    state = {**bank.remembered(), **ranking.remembered(), **memory.remembered()}
    return {"losses": losses, "state": {name: value for name, value in state.items() if name != "most"}}


def test_two_processes_remember_what_one_does(tmp_path: Path) -> None:
    """Forked, as to import everything again takes longer than the test."""
    mp.start_processes(_process, (str(tmp_path),), nprocs=2, start_method="fork")
    alone = _remembered([0, 1, 2, 3, 4])
    both = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for epoch in range(3):  # the loss is a mean over samples
        mean = sum(len(part) / 5 * each["losses"][epoch] for part, each in zip(PARTS, both, strict=True))
        assert mean == pytest.approx(alone["losses"][epoch], abs=1e-6)
    for name in ("table", "clock", "history"):
        torch.testing.assert_close(both[0]["state"][name], alone["state"][name])
    for name, value in both[0]["state"].items():
        torch.testing.assert_close(both[1]["state"][name], value)
    assert alone["losses"][2] > 0


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


def test_labels_are_those_of_the_samples_that_are_kept() -> None:
    """Of a limited data set with images held out, read without its images."""
    data = IndexedDataset(Digits(limit=30).train())
    assert data.labels().tolist() == [int(data[place]["label"]) for place in range(30)]
