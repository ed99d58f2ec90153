"""How long calls take: warmed up until stable, every call on its own, several things in turn, devices synchronised."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Literal

import torch

Call = Callable[[], object]
ClockName = Literal["wall", "cpu"]

WINDOW = 3
"""Calls whose median is compared with that of the ones before."""
STABLE = 0.05
"""Relative change of that median below which a thing is warm."""
FEWEST, MOST_SECONDS = 2 * WINDOW, 30.0
"""Warm-up calls at the least, and how long warming up may take."""


@dataclass(frozen=True)
class Clock:
    """What is read before and after.

    Attributes:
        name: ``wall``: time on the clock. ``cpu``: time of the process's threads on processors, which other processes
            do not lengthen; of one thread only.
        device: where the work is done.
    """

    name: ClockName
    device: torch.device

    def read(self) -> float:
        """Seconds from some moment on."""
        return time.perf_counter() if self.name == "wall" else time.process_time()

    def wait(self) -> None:
        """Returns when the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def time(self, call: Call, calls: int) -> list[float]:
        """Seconds of each of some calls, one after another.

        On a GPU they are what lies between two events in its own queue, so that the time to launch the work counts only
        where the GPU waits for it.
        """
        return self._by_events(call, calls) if self.device.type == "cuda" else self._one_by_one(call, calls)

    def _one_by_one(self, call: Call, calls: int) -> list[float]:
        seconds = []
        for _ in range(calls):
            begun = self.read()
            call()
            seconds.append(self.read() - begun)
        return seconds

    def _by_events(self, call: Call, calls: int) -> list[float]:
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(calls + 1)]
        self.wait()
        marks[0].record()
        for mark in marks[1:]:
            call()
            mark.record()
        self.wait()
        return [before.elapsed_time(after) / 1000 for before, after in pairwise(marks)]


@dataclass(frozen=True)
class WarmUp:
    """How a thing was warmed up.

    Attributes:
        calls: how many.
        stable: whether the last two windows agreed before time was up.
        seconds: of a call, at the end.
    """

    calls: int
    stable: bool
    seconds: float


@dataclass
class Timings:
    """What was measured of one thing.

    Attributes:
        warm_up: before.
        rounds: seconds of every call, by round.
    """

    warm_up: WarmUp
    rounds: list[list[float]] = field(default_factory=list)

    @property
    def calls(self) -> list[float]:
        """Seconds of every call."""
        return [seconds for each in self.rounds for seconds in each]

    @property
    def medians(self) -> list[float]:
        """Seconds of the middle call of every round."""
        return [median(each) for each in self.rounds]


def warm_up(call: Call, clock: Clock, most_seconds: float = MOST_SECONDS) -> WarmUp:
    """Calls until the medians of two windows in a row differ by less than :data:`STABLE`, or time is up.

    Args:
        call: what to warm up.
        clock: by which it is judged.
        most_seconds: on the clock on the wall, after the first call.
    """
    call()  # what is compiled or allocated once is no sign of how fast the rest will be
    clock.wait()
    begun = time.perf_counter()
    seconds: list[float] = []
    while True:
        seconds += clock.time(call, 1)
        late = time.perf_counter() - begun > most_seconds
        if len(seconds) < FEWEST:
            if not late or len(seconds) < 2:
                continue
            return WarmUp(len(seconds) + 1, False, seconds[-1])
        before, after = median(seconds[-2 * WINDOW : -WINDOW]), median(seconds[-WINDOW:])
        stable = abs(after - before) <= STABLE * after
        if stable or late:
            return WarmUp(len(seconds) + 1, stable, after)


def turns(things: int, rounds: int) -> Iterator[tuple[int, Sequence[int]]]:
    """The order in which things take turns: A B, B A, A B, ... so that a slow drift favours none.

    Yields:
        The number of the round, and the things in its order.

    Example:
        >>> [list(order) for _, order in turns(2, 3)]
        [[0, 1], [1, 0], [0, 1]]
    """
    for number in range(rounds):
        order = range(things)
        yield number, order if number % 2 == 0 else order[::-1]


def alternate(calls: Sequence[Call], clock: Clock, rounds: int, seconds: float) -> list[Timings]:
    """Times several things in turn.

    In every round each is called once without being timed, as the one before has emptied the caches, then as often as
    fits its share of the time, at least once.

    Args:
        calls: the things.
        clock: what is read.
        rounds: turns that each takes.
        seconds: that each is measured for, over all rounds.
    """
    found = [Timings(warm_up(call, clock)) for call in calls]
    each = [max(1, round(seconds / rounds / max(timings.warm_up.seconds, 1e-7))) for timings in found]
    for _, order in turns(len(calls), rounds):
        for index in order:
            calls[index]()
            clock.wait()
            found[index].rounds.append(clock.time(calls[index], each[index]))
    return found
