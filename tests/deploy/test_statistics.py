"""Statistics of timings against closed forms, and against simulation where there is none."""

import math
from itertools import product

import numpy as np
import pytest

from vision.deploy.statistics import Ratio, median_interval, paired_ratio, percentile, spread


def test_percentiles_interpolate_and_need_enough_values() -> None:
    values = list(range(101))
    assert [percentile(values, p) for p in (50, 90, 99)] == [50, 90, 99]
    assert [percentile(values[:9], p) for p in (50, 90, 99)] == [4, None, None]
    assert percentile(values[:99], 99) is None


@pytest.mark.parametrize(("count", "low", "high"), [(6, 1, 6), (10, 2, 9), (20, 6, 15), (100, 40, 61)])
def test_the_ranks_are_those_of_the_tables(count: int, low: int, high: int) -> None:
    found = median_interval(range(1, count + 1))
    assert found is not None
    assert (found.low, found.high) == (low, high)
    below = sum(math.comb(count, i) for i in range(low)) / 2**count
    assert found.coverage == pytest.approx(1 - 2 * below)
    assert found.coverage >= 0.95


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
def test_too_few_values_have_no_interval(count: int) -> None:
    assert median_interval([1.0] * count) is None


def test_coverage_by_enumeration() -> None:
    """Of values above or below the median with equal chance, all 2^n ways are looked at."""
    found = median_interval(range(8))
    assert found is not None
    k = int(found.low) + 1
    holds = sum(k <= sum(ways) <= 8 - k for ways in product((0, 1), repeat=8))
    assert found.coverage == pytest.approx(holds / 2**8)


def test_the_interval_holds_a_skewed_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    median, held, tries = math.log(2), 0, 2000
    for sample in rng.exponential(size=(tries, 15)):
        found = median_interval(sample.tolist())
        assert found is not None
        held += found.low <= median <= found.high
    assert held / tries == pytest.approx(found.coverage, abs=0.015)


def test_a_paired_ratio_is_untouched_by_what_slows_a_whole_round() -> None:
    theirs = [1.0, 3.0, 9.0, 1.5, 2.0, 7.0]
    found = paired_ratio([2 * value for value in theirs], theirs)
    assert found.value == 2
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (2, 2)
    assert not found.is_one
    assert str(found) == "2 (2 to 2)"


def test_it_says_when_no_difference_is_shown() -> None:
    found = paired_ratio([1.1, 0.9, 1.2, 0.8, 1.0, 1.05], [1.0] * 6)
    assert found.is_one
    assert "no difference shown" in str(found)
    few = paired_ratio([2.0] * 3, [1.0] * 3)
    assert few == Ratio(2.0, None, 3)
    assert few.is_one
    assert "too few rounds" in str(few)


def test_rounds_have_to_pair() -> None:
    with pytest.raises(ValueError, match="longer"):
        paired_ratio([1.0], [1.0, 2.0])


def test_spread_is_the_middle_half_over_the_median() -> None:
    assert spread([1, 2, 3, 4, 5]) == pytest.approx(2 / 3)
