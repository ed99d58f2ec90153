"""Which samples make which update, and that a sample does not depend on how it is fetched."""

import logging
import os
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

from vision.engine import loading
from vision.engine.data import Sample
from vision.engine.errors import DataError
from vision.engine.loading import EpochPlan, load, size_of
from vision.engine.seeding import seed_of


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "samples": draw(st.integers(1, 60)),
        "batch_size": draw(st.integers(1, 20)),
        "drop_last": draw(st.booleans()),
        "world": draw(st.integers(1, 4)),
        "accumulate": draw(st.integers(1, 5)),
        "seed": draw(st.integers(0, 9)),
    }


def of_ranks(plan: dict[str, Any]) -> list[EpochPlan]:
    return [EpochPlan(rank=rank, **plan) for rank in range(plan["world"])]


@settings(max_examples=150, deadline=None)
@given(plans(), st.integers(0, 3))
def test_every_sample_is_taken_once_an_epoch_and_counts_the_same(plan: dict[str, Any], epoch: int) -> None:
    ranks = of_ranks(plan)
    everyone = [rank.shares(epoch) for rank in ranks]
    order = np.random.default_rng(seed_of(plan["seed"], "order", epoch)).permutation(plan["samples"]).tolist()
    count = plan["samples"] // plan["batch_size"] if plan["drop_last"] else -(-plan["samples"] // plan["batch_size"])
    assert {rank.updates for rank in ranks} == {count} == {len(mine) for mine in everyone}
    for update in range(count):
        batch = order[update * plan["batch_size"] : (update + 1) * plan["batch_size"]]
        assert ranks[0].batch_of(update) == len(batch)
        shares = [mine[update] for mine in everyone]
        assert len({len(mine) for mine in shares}) == 1  # as many backward passes in every process
        assert 1 <= len(shares[0]) <= plan["accumulate"]
        # what a sample counts for: its share's weight over the share's size, averaged over processes
        counts = dict.fromkeys(batch, 0.0)
        for share in (share for mine in shares for share in mine):
            assert share.indices and set(share.indices) <= set(batch)
            for index in share.indices:
                counts[index] += share.weight / len(share.indices) / plan["world"]
        assert counts == pytest.approx(dict.fromkeys(batch, 1 / len(batch)))
        assert sorted(i for mine in shares for s in mine if s.weight for i in s.indices) == sorted(batch)
        for position in range(len(shares[0])):  # a pass without any sample would cost time and change BatchNorm
            assert any(mine[position].weight for mine in shares)


@settings(max_examples=50, deadline=None)
@given(plans(), st.integers(0, 9))
def test_a_resumed_plan_is_the_tail_of_the_whole(plan: dict[str, Any], first: int) -> None:
    for rank in of_ranks(plan):
        assert rank.shares(2, first) == rank.shares(2)[first:]


def test_shares_of_a_batch_differ_by_at_most_one_sample() -> None:
    (update,) = EpochPlan(10, 10, False, world=1, rank=0, accumulate=4, seed=0).shares(0)
    assert [len(share.indices) for share in update] == [3, 3, 2, 2]
    assert [share.weight for share in update] == [0.3, 0.3, 0.2, 0.2]


def test_the_order_changes_with_epoch_and_seed() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        shares = EpochPlan(50, 8, False, 1, 0, 1, seed).shares(epoch)
        return [i for (share,) in shares for i in share.indices]

    orders = [order(0, 0), order(0, 1), order(1, 0)]
    assert len({tuple(each) for each in orders}) == 3
    assert all(sorted(each) == list(range(50)) for each in orders)


def test_a_fixed_plan_repeats_one_batch_with_one_seed() -> None:
    free, fixed = (EpochPlan(50, 8, False, 1, 0, 2, 0, fixed=fixed) for fixed in (False, True))
    assert fixed.updates == free.updates == 7
    assert [fixed.shares(epoch, 2) for epoch in (0, 1)] == [[free.shares(0)[0]] * 5] * 2
    assert fixed.stream(3) == free.stream(0) != free.stream(3)
    assert fixed.batch_of(6) == 8


def test_an_epoch_of_imagenet_is_planned_without_hashing_every_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(loading, "seed_of", lambda *parts: calls.append(parts) or 0)
    plan = EpochPlan(1_281_167, 256, False, world=8, rank=3, accumulate=1, seed=0)
    assert len(plan.shares(0)) == 5005
    assert calls == [(0, "order", 0)]


class Noisy(Dataset[Sample]):
    """Draws from all three generators, a different number of times for each sample."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Sample:
        draws = [torch.rand(()).item() + np.random.rand() + random.random() for _ in range(1 + index % 3)]
        return {"id": str(index), "x": sum(draws)}


def collate(samples: list[Sample]) -> dict[str, Any]:
    """Draws too, as mix-up does."""
    return {"id": [s["id"] for s in samples], "x": [s["x"] for s in samples], "mix": np.random.rand()}


STREAM = (0, "sample", 4)
BATCHES = [[3, 1, 4], [5, 9], [2, 6, 8], [7, 11, 0, 10]]


def fetched(batches: list[list[int]], workers: int, stream: tuple[int | str, ...] = STREAM) -> list[dict[str, Any]]:
    return list(load(Noisy(), batches, stream, collate, workers))


@pytest.fixture(scope="module")
def plainly() -> dict[str, float]:
    """Each sample drawn by hand from its own seed."""
    found = {}
    for index in range(12):
        seed = seed_of(*STREAM, index)
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        found[str(index)] = Noisy()[index]["x"]
    return found


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_sample_does_not_depend_on_workers_nor_on_its_batch(workers: int, plainly: dict[str, float]) -> None:
    for batches in (BATCHES, BATCHES[2:], [[i] for i in range(12)], [list(range(11, -1, -1))]):
        found = fetched(batches, workers)
        assert [[int(i) for i in batch["id"]] for batch in found] == batches
        assert all(plainly[i] == x for batch in found for i, x in zip(batch["id"], batch["x"], strict=True))


def test_what_collate_draws_depends_on_the_batch_alone() -> None:
    alone, by_workers, resumed = fetched(BATCHES, 0), fetched(BATCHES, 2), fetched(BATCHES[2:], 2)
    mixes = [batch["mix"] for batch in alone]
    assert [batch["mix"] for batch in by_workers] == mixes and [batch["mix"] for batch in resumed] == mixes[2:]
    assert len(set(mixes)) == len(mixes)


def test_another_epoch_draws_otherwise() -> None:
    assert fetched(BATCHES, 0)[0]["x"] != fetched(BATCHES, 0, (0, "sample", 5))[0]["x"]


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_leaves_the_global_generators_alone(workers: int) -> None:
    def states() -> tuple[Any, ...]:
        _, keys, *rest = np.random.get_state()
        return torch.get_rng_state().tolist(), keys.tolist(), rest, random.getstate()

    before = states()
    fetched(BATCHES, workers)
    assert states() == before


class Corrupt(Noisy):
    def __getitem__(self, index: int) -> Sample:
        if index == 6:
            raise DataError("img/0006.png: truncated image")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_users_mistake_comes_without_a_workers_traceback(workers: int) -> None:
    batches = load(Corrupt(), BATCHES, STREAM, collate, workers)
    assert len([next(batches), next(batches)]) == 2  # those before it still come
    with pytest.raises(DataError) as caught:
        next(batches)
    assert str(caught.value) == "img/0006.png: truncated image"


@pytest.fixture
def warned_anew() -> Iterator[None]:
    loading._available.cache_clear()
    yield
    loading._available.cache_clear()


@pytest.mark.usefixtures("warned_anew")
def test_more_workers_than_cores_are_warned_about_once_and_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    with caplog.at_level(logging.WARNING):
        first, second = fetched(BATCHES, 7), fetched(BATCHES, 7)
    assert first == second == fetched(BATCHES, 0)
    assert [r.getMessage() for r in caplog.records] == [
        "trainer.workers: 7 is more than the 1 cores there are; taking 1"
    ]


def test_an_empty_split_is_named() -> None:
    with pytest.raises(DataError, match="the validation split is empty"):
        size_of([], "validation")  # type: ignore[arg-type]
