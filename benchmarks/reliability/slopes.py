"""Whether what a long run holds grows: a line through the second half of its samples, with its interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Verdict = Literal["flat", "rising", "undecided"]

FEWEST = 3
"""Samples that a line with an interval needs."""


@dataclass(frozen=True)
class Slope:
    r"""The least-squares line :math:`y = a + b t` through samples.

    Attributes:
        samples: how many.
        first: the line's value at the first sample.
        last: and at the last.
        per_hour: :math:`b`, in units an hour.
        margin: half of the interval of 95 % of :math:`b`: 1.96 standard errors, wider for few samples (Student's t);
            residuals that follow each other count as the fewer independent ones they are worth, by their lag-1
            autocorrelation :math:`r`: :math:`n (1 - r) / (1 + r)`.
    """

    samples: int
    first: float
    last: float
    per_hour: float
    margin: float


def second_half(seconds: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """The samples of the second half of the time: the first half is for caches that fill."""
    if not seconds:
        return [], []
    middle = (seconds[0] + seconds[-1]) / 2
    kept = [(t, v) for t, v in zip(seconds, values, strict=True) if t >= middle]
    return [t for t, _ in kept], [v for _, v in kept]


def slope(seconds: Sequence[float], values: Sequence[float]) -> Slope:
    """The line through samples.

    Args:
        seconds: when each was taken, rising, shape ``[N]``.
        values: the samples, shape ``[N]``.

    Raises:
        ValueError: fewer than three samples, or all at one moment.

    Example:
        >>> line = slope([0, 1800, 3600], [5.0, 6.0, 7.0])
        >>> round(line.per_hour, 9), round(line.margin, 9)
        (2.0, 0.0)
    """
    from scipy.stats import t as student

    hours, y = np.asarray(seconds, dtype=np.float64) / 3600, np.asarray(values, dtype=np.float64)
    count = len(hours)
    if count < FEWEST or np.ptp(hours) == 0:
        raise ValueError(
            f"{count} samples over {np.ptp(hours) if count else 0:g} hours: a line needs {FEWEST}, apart in time"
        )
    centred = hours - hours.mean()
    spread = float((centred**2).sum())
    b = float((centred * y).sum() / spread)
    a = float(y.mean() - b * hours.mean())
    left = y - a - b * hours
    total = float((left**2).sum())
    r = float((left[1:] * left[:-1]).sum() / total) if total > 0 else 0.0
    worth = max(min(count, count * (1 - r) / (1 + r)) if r > 0 else count, FEWEST)
    error = math.sqrt(total / (worth - 2) / spread)
    return Slope(count, a + b * hours[0], a + b * hours[-1], b, float(student.ppf(0.975, worth - 2)) * error)


def verdict(line: Slope, limit: float) -> Verdict:
    """``flat`` where even the interval's upper end stays below ``limit``, ``rising`` where its lower end is above it.

    Args:
        line: what was fitted.
        limit: units an hour that count as flat.

    Example:
        >>> verdict(Slope(9, 1, 1, per_hour=0.1, margin=0.2), limit=1.0)
        'flat'
    """
    if line.per_hour + line.margin <= limit:
        return "flat"
    return "rising" if line.per_hour - line.margin > limit else "undecided"


def row(what: str, unit: str, seconds: Sequence[float], values: Sequence[float], limit: float) -> dict[str, Any]:
    """A line of the results file: the second half's :func:`slope` and its :func:`verdict`."""
    line = slope(*second_half(seconds, values))
    return {
        "what": what,
        "unit": unit,
        "samples": line.samples,
        "first": round(line.first, 3),
        "last": round(line.last, 3),
        "per_hour": round(line.per_hour, 3),
        "margin": round(line.margin, 3),
        "limit": limit,
        "verdict": verdict(line, limit),
    }
