"""What a pair of arms over the same seeds shows: the paired difference, its interval, and a sentence that says so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    r"""With minus without, seed by seed.

    Attributes:
        pairs: one difference a seed.
        mean: of them.
        std: sample standard deviation (n - 1); None for one pair.
        half: half the width of Student's interval for the mean, :math:`t_{n-1, 0.975}\, s / \sqrt n`; None for one.
    """

    pairs: tuple[float, ...]
    mean: float
    std: float | None
    half: float | None

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.half is not None and abs(self.mean) > self.half


def difference(arm: Mapping[int, float], other: Mapping[int, float]) -> Difference:
    """The paired difference of two arms.

    Args:
        arm: a figure by seed.
        other: the same of the other arm.

    Raises:
        ValueError: the arms have no seed in common.

    Example:
        >>> difference({0: 3.0, 1: 5.0}, {0: 1.0, 1: 2.0}).mean
        2.5
    """
    seeds = sorted(arm.keys() & other.keys())
    if not seeds:
        raise ValueError(f"no seed in common: {sorted(arm)} and {sorted(other)}")
    pairs = tuple(arm[seed] - other[seed] for seed in seeds)
    if len(pairs) == 1:
        return Difference(pairs, pairs[0], None, None)
    spread = stdev(pairs)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(pairs) - 1))
    return Difference(pairs, fmean(pairs), spread, quantile * spread / len(pairs) ** 0.5)


def sentence(figure: str, found: Difference, decimals: int, unit: str = "", higher_is_better: bool = True) -> str:
    """What the pairs show of a figure, in words that follow from the numbers alone.

    Args:
        figure: its name.
        found: in the unit that is shown.
        decimals: places after the point.
        unit: after each number.
        higher_is_better: whether more of it is better.
    """
    change = signed(found.mean, decimals) + unit
    each = ", ".join(signed(pair, decimals) for pair in found.pairs)
    if found.half is None:
        return f"{figure}: {change} with it; one seed says nothing of how sure that is."
    low, high = signed(found.mean - found.half, decimals), signed(found.mean + found.half, decimals)
    told = f"{figure}: {change} with it (seed by seed {each}; 95 % interval {low} to {high})"
    if not found.shown:
        return f"{told}: within the spread of the seeds, no effect shown."
    return f"{told}: {'better' if (found.mean > 0) == higher_is_better else 'worse'} with it."


def signed(value: float, decimals: int) -> str:
    """A number with its sign, also a plus; none where it rounds to zero.

    Example:
        >>> signed(1.25, 1), signed(-0.5, 2), signed(-0.001, 1)
        ('+1.2', '−0.50', '0.0')
    """
    text = f"{abs(value):.{decimals}f}"
    if not float(text):
        return text
    return ("−" if value < 0 else "+") + text


def spread(values: Sequence[float], decimals: int) -> str:
    """Mean ± sample standard deviation; of one value, the value alone.

    Example:
        >>> spread([1.0, 3.0], 2), spread([1.0], 1)
        ('2.00 ± 1.41', '1.0')
    """
    mean = f"{fmean(values):.{decimals}f}"
    return mean if len(values) == 1 else f"{mean} ± {stdev(values):.{decimals}f}"
