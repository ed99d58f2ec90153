"""The stability tracker against the release's recorded run; subsets against the published lists."""

from pathlib import Path

import numpy as np
import pytest
import torch

from robust.data_quality import (
    StabilityTracker,
    merge_ranks,
    normalised_rank,
    read_rank,
    save_rank,
    select_friendly,
    select_problematic,
)
from vision.classification.subset import check_indices
from vision.engine.errors import ConfigError, DataError


def test_tracker_repeats_the_recorded_run(golden_root: Path, tmp_path: Path) -> None:
    golden = np.load(golden_root / "data_profiling.npz")
    labels, tracker = torch.from_numpy(golden["labels"]), StabilityTracker(10)
    for step, (logits, indices) in enumerate(zip(golden["outputs"], golden["indices"], strict=True)):
        tracker.update(indices, torch.from_numpy(logits), labels[torch.from_numpy(indices)])
        if step % 2:
            tracker.end_epoch()
    np.testing.assert_array_equal(tracker.count_wrong, golden["count_wrong"])
    np.testing.assert_array_equal(tracker.first_learned, golden["epoch_first"])
    np.testing.assert_array_equal(tracker.history, golden["record_correct"])
    counts, recorded = golden["count_wrong"], golden["problematic_rank"]
    for i in range(10):  # the recorded rank breaks ties by an unstable sort: elsewhere it must agree
        others = counts != counts[i]
        np.testing.assert_array_equal(tracker.rank()[others] < tracker.rank()[i], recorded[others] < recorded[i])
    again = StabilityTracker(10)
    again.restore(tracker.state())
    np.testing.assert_array_equal(again.history, tracker.history)
    tracker.save(tmp_path / "rank.npz")
    np.testing.assert_array_equal(read_rank(tmp_path / "rank.npz"), tracker.rank())


def test_stability_is_one_minus_the_share_of_wrong_epochs(golden_root: Path) -> None:
    tracker = StabilityTracker(2, start_epoch=1)
    for right in ([0, 0], [1, 0], [1, 1]):
        tracker.update([1, 0], torch.tensor(right[::-1]), torch.ones(2, dtype=torch.int64))
        tracker.end_epoch()
    assert tracker.stability.tolist() == [1.0, 0.5]
    assert tracker.first_learned.tolist() == [1, 2]


def test_published_halves_follow_from_the_published_rank(golden_root: Path, data_root: Path) -> None:
    golden = np.load(golden_root / "cifar10_problematic_rank.npz")
    labels = np.load(data_root / "cifar10" / "cifar10_full_jpeg75.npz")["train_labels"]
    rank = golden["prob_rank"] / 50000
    friendly = select_friendly(rank, 25000, labels, balanced=True)
    problematic = select_problematic(rank, 25000, labels, balanced=True)
    np.testing.assert_array_equal(friendly, np.sort(golden["id_friend_25000_balance"]))
    np.testing.assert_array_equal(problematic, np.sort(golden["id_problem_25000_balance"]))
    profile = [np.bincount(labels[select(rank, 10000)]).tolist() for select in (select_friendly, select_problematic)]
    assert profile[0] == [1287, 2092, 263, 14, 122, 686, 1064, 1746, 1528, 1198]
    assert profile[1] == [538, 172, 1673, 2260, 1809, 1689, 815, 517, 190, 337]


def test_halves_of_tied_ranks_do_not_overlap() -> None:
    rank, labels = np.array([1, 0, 1, 1, 0, 1, 0, 1]), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    for balanced in (False, True):
        both = [select(rank, 4, labels, balanced) for select in (select_friendly, select_problematic)]
        assert sorted(np.concatenate(both)) == list(range(8))


def test_merged_ranks_are_ranks_of_means() -> None:
    assert merge_ranks([np.array([0, 1, 2, 3]) / 4, np.array([3, 0, 1, 2]) / 4]).tolist() == [0.25, 0.0, 0.5, 0.75]
    one = normalised_rank(np.random.default_rng(0).normal(size=50))
    np.testing.assert_array_equal(merge_ranks([one, one]), one)
    masked = merge_ranks([np.array([0.5, np.nan, 0.0]), np.array([0.5, 0.5, 0.0])])
    assert masked.tolist()[0] == 0.5 and np.isnan(masked[1])


def test_masked_samples_are_told_apart_and_never_selected() -> None:
    tracker = StabilityTracker(4, subset=[0, 2, 3])
    tracker.update([3, 0, 2], torch.tensor([1, 0, 0]), torch.tensor([1, 1, 0]))
    tracker.end_epoch()
    assert tracker.count_wrong.tolist() == [1, -1, 0, 0]
    assert tracker.first_learned.tolist() == [-1, -2, 0, 0]
    assert tracker.history.tolist() == [[0, -1, 1, 1]]
    assert select_friendly(tracker.rank(), 2).tolist() == [2, 3]
    assert select_problematic(tracker.rank(), 1).tolist() == [0]


def test_an_epoch_sees_every_sample_once() -> None:
    tracker = StabilityTracker(3, subset=[0, 1])
    one = torch.tensor([0])
    tracker.update([0], one, one)
    with pytest.raises(DataError, match="sample 0 was seen twice"):
        tracker.update([0], one, one)
    with pytest.raises(DataError, match="1 samples were not seen in epoch 0, the first is 1"):
        tracker.end_epoch()
    with pytest.raises(DataError, match="sample 2 is not in the tracked subset"):
        tracker.update([2], one, one)


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="5 is out of range"):
        check_indices([1, 5], 3, "file")
    with pytest.raises(DataError, match="1 stands 2 times"):
        check_indices([1, 0, 1], 3, "file")
    with pytest.raises(DataError, match="whole numbers"):
        check_indices(np.array([0.5]), 3, "file")
    with pytest.raises(ConfigError, match="cannot select 9 samples; expected 1 to 4"):
        select_friendly(np.zeros(4), 9)
    with pytest.raises(ConfigError, match="a multiple of 2 up to 2"):
        select_friendly(np.zeros(4), 4, np.array([0, 0, 0, 1]), balanced=True)
    with pytest.raises(ConfigError, match="needs the labels"):
        select_problematic(np.zeros(4), 2, balanced=True)
    with pytest.raises(DataError, match="expected several of one shape"):
        merge_ranks([np.zeros(3), np.zeros(4)])
    np.savez(tmp_path / "other.npz", indices=np.arange(3))
    with pytest.raises(DataError, match="holds no array 'rank'"):
        read_rank(tmp_path / "other.npz")
    save_rank(tmp_path / "rank.npz", np.array([0.0, 0.5]))
    assert read_rank(tmp_path / "rank.npz").tolist() == [0.0, 0.5]
