"""What a handful of timings say: percentiles, intervals by order statistics, paired ratios, spread."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
ENOUGH = {50: 1, 90: 10, 99: 100}
"""How many timings a percentile needs: one of them has to lie beyond it."""


@dataclass(frozen=True)
class Interval:
    """An interval that holds the true median, whatever the distribution.

    Attributes:
        low: its lower end.
        high: its upper end.
        coverage: the probability that it holds the median, at least what was asked for.
    """

    low: float
    high: float
    coverage: float


@dataclass(frozen=True)
class Ratio:
    """How two things that took turns compare.

    Attributes:
        value: the median of the rounds' ratios.
        interval: of that median; None where there were too few rounds for one.
        rounds: how many there were.
    """

    value: float
    interval: Interval | None
    rounds: int

    @property
    def is_one(self) -> bool:
        """Whether no difference is shown: the interval holds 1, or there is none."""
        return self.interval is None or self.interval.low <= 1 <= self.interval.high

    def __str__(self) -> str:
        """As people read it."""
        if self.interval is None:
            return f"{self.value:.3g} (too few rounds for an interval)"
        ends = f"{self.interval.low:.3g} to {self.interval.high:.3g}"
        return f"{self.value:.3g} ({ends}{', no difference shown' if self.is_one else ''})"


def percentile(values: Sequence[float], percent: int) -> float | None:
    """A percentile by linear interpolation; None where there are too few values for it (:data:`ENOUGH`).

    Example:
        >>> percentile([1.0, 2.0, 3.0, 10.0], 50), percentile([1.0, 2.0], 99)
        (2.5, None)
    """
    return float(np.percentile(values, percent)) if len(values) >= ENOUGH[percent] else None


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    r"""The narrowest pair of order statistics that holds the median.

    .. math:: P(x_{(k)} \le m \le x_{(n + 1 - k)}) = 1 - 2^{1-n} \sum_{i < k} \binom{n}{i}

    Args:
        values: independent, of one distribution.
        confidence: the least coverage.

    Returns:
        The interval of the largest k whose coverage is enough; None where not even the extremes are (fewer than 6
        values at 95 %).

    Source: textbook distribution-free interval of a quantile (David and Nagaraja, "Order statistics", section 7.1).

    Example:
        >>> median_interval([3, 1, 2, 6, 5, 4])
        Interval(low=1.0, high=6.0, coverage=0.96875)
    """
    ordered = sorted(map(float, values))
    count, found = len(ordered), None
    below = 0
    for k in range(1, count // 2 + 1):
        below += math.comb(count, k - 1)
        coverage = 1 - below / 2 ** (count - 1)
        if coverage < confidence:
            break
        found = Interval(ordered[k - 1], ordered[count - k], coverage)
    return found


def paired_ratio(ours: Sequence[float], theirs: Sequence[float], confidence: float = CONFIDENCE) -> Ratio:
    """How ``ours`` compares to ``theirs``, round by round: the median of ``ours / theirs``, and its interval.

    Args:
        ours: a figure of each round.
        theirs: that of the other in the same rounds.
        confidence: of the interval.

    Raises:
        ValueError: not as many of one as of the other.
    """
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return Ratio(float(np.median(ratios)), median_interval(ratios, confidence), len(ratios))


def spread(values: Sequence[float]) -> float:
    """The middle half of the values over their median: how far apart they lie, as a share.

    Example:
        >>> spread([1.0, 1.0, 1.0, 1.0])
        0.0
    """
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float((high - low) / middle)
