"""The paired difference against SciPy's paired t-test, and sentences that say no more than the numbers do."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.ablation import difference, sentence, spread


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_interval_is_that_of_the_paired_t_test(count: int) -> None:
    rng = np.random.default_rng(count)
    arm, other = (dict(enumerate(rng.normal(60, 3, count).tolist())) for _ in range(2))
    found = difference(arm, other)
    test = stats.ttest_rel(list(arm.values()), list(other.values()))
    low, high = test.confidence_interval(0.95)
    assert found.mean - found.half == pytest.approx(low)
    assert found.mean + found.half == pytest.approx(high)
    assert found.shown == (test.pvalue < 0.05)
    assert found.std == pytest.approx(np.std(found.pairs, ddof=1))


def test_pairs_are_made_by_seed_and_not_by_order() -> None:
    assert difference({2: 5.0, 0: 1.0}, {0: 1.0, 2: 2.0, 9: 100.0}).pairs == (0.0, 3.0)
    with pytest.raises(ValueError, match=r"no seed in common: \[0\] and \[1\]"):
        difference({0: 1.0}, {1: 1.0})


@pytest.mark.parametrize(
    ("pairs", "higher", "ending"),
    [
        ([2.0, 2.1, 1.9], True, "1.75 to +2.25): better with it."),
        ([2.0, 2.1, 1.9], False, "1.75 to +2.25): worse with it."),
        ([-2.0, -2.1, -1.9], True, "−2.25 to −1.75): worse with it."),
        ([-2.0, -2.1, -1.9], False, "−2.25 to −1.75): better with it."),
        ([2.0, -1.0, 0.5], True, "+4.23): within the spread of the seeds, no effect shown."),
    ],
)
def test_a_sentence_follows_from_the_interval(pairs: list[float], higher: bool, ending: str) -> None:
    found = difference(dict(enumerate(pairs)), dict.fromkeys(range(3), 0.0))
    assert sentence("IoU", found, 2, " points", higher).endswith(ending)


def test_one_seed_shows_nothing() -> None:
    found = difference({0: 9.0}, {0: 1.0})
    assert not found.shown
    assert sentence("Pd", found, 1) == "Pd: +8.0 with it; one seed says nothing of how sure that is."


def test_the_spread_is_numpys_sample_deviation() -> None:
    values = [61.23, 60.01, 64.5]
    assert spread(values, 3) == f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
