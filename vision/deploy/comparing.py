"""Things measured in turn in one process: a row for each, and the ratio of each pair with its interval."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from vision.deploy.backends import RANDOM_RANGES, How, Ready, ready
from vision.deploy.conditions import Conditions, watched
from vision.deploy.counting import Count, count
from vision.deploy.memory import peak
from vision.deploy.statistics import CONFIDENCE, Ratio, paired_ratio, percentile, spread
from vision.deploy.subjects import Subject
from vision.deploy.timing import Clock, ClockName, Timings, alternate
from vision.engine.errors import ConfigError

WIDE = 0.10
"""Spread of calls, as a share of their median, from which on a row is warned about."""
FEWEST_ROUNDS = 6
"""Below this there is no interval of 95 %."""


@dataclass
class Case:
    """One thing to measure.

    Attributes:
        subject: what.
        how: it is run.
    """

    subject: Subject
    how: How

    @property
    def label(self) -> str:
        """For tables."""
        return f"{self.subject.label} @ {self.how.backend} {self.how.precision}"


@dataclass
class Comparison:
    """Two things that took turns.

    Attributes:
        what: the label of one.
        against: that of the other.
        batch: of both.
        ratio: of the speeds: above 1, the first is faster.
    """

    what: str
    against: str
    batch: int
    ratio: Ratio

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a results file keeps them."""
        interval = self.ratio.interval
        return {
            "what": self.what,
            "against": self.against,
            "batch": self.batch,
            "ratio": _figures(self.ratio.value),
            "interval": None if interval is None else [_figures(interval.low), _figures(interval.high)],
            "coverage": None if interval is None else round(interval.coverage, 4),
            "no_difference_shown": self.ratio.is_one,
            "rounds": self.ratio.rounds,
        }


@dataclass
class Found:
    """What was measured of some things in turn.

    Attributes:
        cases: the things.
        timings: of each.
        rows: one of each, plain values.
        conditions: it was measured under.
        warnings: what spoils it.
    """

    cases: list[Case]
    timings: list[Timings]
    rows: list[dict[str, Any]]
    conditions: Conditions
    warnings: list[str]

    def ratio(self, ours: int = 0, theirs: int = 1) -> Ratio:
        """How many times as fast one is as another: a sample's time in the other over its time in the one."""
        ours_, theirs_ = (
            [seconds / self.cases[index].how.batch for seconds in self.timings[index].medians]
            for index in (ours, theirs)
        )
        return paired_ratio(theirs_, ours_)

    def comparison(self, ours: int = 0, theirs: int = 1) -> Comparison:
        """The same with its labels."""
        first, second = self.cases[ours], self.cases[theirs]
        return Comparison(first.label, second.label, first.how.batch, self.ratio(ours, theirs))


def measure(
    cases: Sequence[Case],
    rounds: int = 10,
    seconds: float = 5.0,
    clock: ClockName = "wall",
    memory: bool = False,
) -> Found:
    """Measures things in turn: A B, B A, ...

    Args:
        cases: the things, on one device.
        rounds: turns of each.
        seconds: that each is timed for.
        clock: ``wall``; ``cpu`` for one thread of a CPU.
        memory: measure peak memory too, each in a process of its own on a CPU.

    Raises:
        ConfigError: a clock that does not fit, things on two devices, too few rounds.
        UserError: one cannot be run as asked for.
    """
    device = _device_of(cases)
    threads = max(case.how.threads for case in cases)
    if clock == "cpu" and (device.type != "cpu" or threads > 1):
        raise ConfigError("clock cpu: processor time is the work of one thread of a CPU; add --threads 1, or use wall")
    if rounds < 1 or seconds <= 0:
        raise ConfigError(f"rounds {rounds}, seconds {seconds:g}: expected 1 round or more and a time above 0")
    counts = [count_of(case.subject) for case in cases]  # before anything is moved to a device
    made = [ready(case.subject, case.how) for case in cases]
    with watched(threads) as conditions:
        timings = alternate([each.call for each in made], Clock(clock, device), rounds, seconds)
    peaks = [peak(case.subject, each) if memory else (None, None) for case, each in zip(cases, made, strict=True)]
    rows = [
        {**_about(case, each, counted), **_times(case, timed), "memory_mb": _figures(most), "memory_how": way}
        for case, each, counted, timed, (most, way) in zip(cases, made, counts, timings, peaks, strict=True)
    ]
    return Found(list(cases), timings, rows, conditions, warnings_of(rows, conditions))


def _device_of(cases: Sequence[Case]) -> torch.device:
    devices = {case.how.device for case in cases}
    if len(devices) != 1:
        raise ConfigError(f"devices {', '.join(sorted(devices))}: things that take turns have to share one")
    return torch.device(devices.pop())


def count_of(subject: Subject) -> Count | None:
    """Of one sample, of the network as it was trained; None of a file, which is not looked into."""
    graph = subject.trained_form or subject.graph
    if graph is None:
        return None
    module, inputs = graph.module, list(subject.inputs(1).values())
    try:
        return count(copy.deepcopy(module).to("meta"), *(t.to("meta") for t in inputs))
    except (NotImplementedError, RuntimeError):  # a shape that depends on values: the same count, from values
        return count(module, *inputs)


def _about(case: Case, made: Ready, counted: Count | None) -> dict[str, Any]:
    subject, how = case.subject, case.how
    figures = subject.figures
    return {
        "what": case.label,
        "name": subject.label,
        "backend": how.backend,
        "precision": how.precision,
        "device": how.device,
        "batch": how.batch,
        "threads": how.threads,
        "shapes": {key: list(subject.shape(key, how.batch)) for key in subject.shapes},
        **made.about,
        "folded": subject.folded,
        "trained": subject.trained,
        "weights": subject.weights,
        "accuracy": _accuracy(figures),
        "energy_nj": figures.get("energy_nj"),
        "parameters": counted.parameters if counted else None,
        "macs": counted.macs if counted else None,
        "macs_by_kind": counted.by_kind if counted else None,
    }


def _accuracy(figures: Mapping[str, Any]) -> dict[str, Any] | None:
    primary = figures.get("primary")
    value = figures.get(primary) if primary else None
    return None if value is None else {"figure": primary, "value": value, "split": figures.get("split")}


def _times(case: Case, timed: Timings) -> dict[str, Any]:
    calls = timed.calls
    milliseconds = {
        f"p{percent}_ms": _figures(None if (value := percentile(calls, percent)) is None else 1000 * value)
        for percent in (50, 90, 99)
    }
    return {
        **milliseconds,
        "samples_a_second": _figures(case.how.batch / median(calls)),
        "spread": round(spread(calls), 4),
        "calls": len(calls),
        "rounds": len(timed.rounds),
        "warm_up_calls": timed.warm_up.calls,
        "warm": timed.warm_up.stable,
    }


def _figures(value: float | None) -> float | None:
    """To five significant figures: more is noise."""
    return None if value is None else float(f"{value:.5g}")


def warnings_of(rows: Sequence[Mapping[str, Any]], conditions: Conditions) -> list[str]:
    """What spoils a measurement: of the machine, and of single rows."""
    found = conditions.warnings()
    for row in rows:
        if row["spread"] > WIDE:
            found.append(
                f"{row['what']}, batch {row['batch']}: the middle half of its calls spreads over "
                f"{100 * row['spread']:.0f} % of the median (more than {100 * WIDE:.0f} %)"
            )
        if RANDOM_RANGES in row["dtype"]:
            found.append(f"{row['what']}: made int8 with random inputs: believe its speed, not its outputs; to use it, "
                         "export the run with tools/export.py")  # fmt: skip
        if not row["warm"]:
            found.append(f"{row['what']}, batch {row['batch']}: was still changing after {row['warm_up_calls']} calls")
    fewest = min((row["rounds"] for row in rows), default=FEWEST_ROUNDS)
    if fewest < FEWEST_ROUNDS:
        found.append(
            f"{fewest} rounds are too few for an interval of {100 * CONFIDENCE:.0f} %: {FEWEST_ROUNDS} or more"
        )
    return found
