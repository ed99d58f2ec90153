"""Turns, warm-up and clocks, with a clock that the test moves: no real time is asserted on."""

from collections.abc import Callable

import pytest
import torch

from vision.deploy.timing import FEWEST, Clock, Timings, WarmUp, alternate, turns, warm_up

CPU = torch.device("cpu")


class Moved(Clock):
    """A clock that stands still until :meth:`pass_` is called."""

    def __init__(self) -> None:
        super().__init__("wall", CPU)
        object.__setattr__(self, "now", 0.0)

    def pass_(self, seconds: float) -> None:
        object.__setattr__(self, "now", self.now + seconds)  # type: ignore[attr-defined]

    def read(self) -> float:
        return float(self.now)  # type: ignore[attr-defined]


def lasting(clock: Moved, *seconds: float) -> Callable[[], None]:
    """A call that lasts so long, the last figure for ever."""
    left = list(seconds)
    return lambda: clock.pass_(left.pop(0) if len(left) > 1 else left[0])


def test_they_take_turns_in_both_orders() -> None:
    assert [list(order) for _, order in turns(2, 4)] == [[0, 1], [1, 0], [0, 1], [1, 0]]
    assert [list(order) for _, order in turns(3, 2)] == [[0, 1, 2], [2, 1, 0]]


def test_what_runs_is_a_b_b_a() -> None:
    clock, ran = Moved(), []

    def noted(name: str) -> Callable[[], None]:
        def call() -> None:
            ran.append(name)
            clock.pass_(1.0)

        return call

    found = alternate([noted("A"), noted("B")], clock, rounds=4, seconds=4.0)
    warm = found[0].warm_up.calls
    assert ran[: 2 * warm] == ["A"] * warm + ["B"] * warm
    assert "".join(ran[2 * warm :]) == "AABB" + "BBAA" + "AABB" + "BBAA"  # one untimed, one timed
    assert [timings.rounds for timings in found] == [[[1.0]] * 4] * 2


def test_calls_of_a_round_fill_its_share_of_the_time() -> None:
    clock = Moved()
    quick, slow = alternate([lasting(clock, 0.01), lasting(clock, 0.5)], clock, rounds=5, seconds=1.0)
    assert [len(each) for each in quick.rounds] == [20] * 5
    assert [len(each) for each in slow.rounds] == [1] * 5
    assert quick.medians == pytest.approx([0.01] * 5)


def test_warming_up_ends_when_two_windows_agree() -> None:
    clock = Moved()
    found = warm_up(lasting(clock, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1, 1, 1, 1, 1), clock)
    assert found.stable
    assert found.seconds == 1
    assert found.calls > FEWEST
    assert warm_up(lasting(clock, 1.0), clock) == WarmUp(FEWEST + 1, True, 1.0)


def test_warming_up_gives_up_and_says_so() -> None:
    clock, factor = Moved(), iter(1.5**n for n in range(10_000))
    found = warm_up(lambda: clock.pass_(next(factor)), clock, most_seconds=0.0)
    assert not found.stable
    assert found.calls == 3


def test_timings_put_rounds_together() -> None:
    found = Timings(WarmUp(6, True, 1.0), [[1.0, 2.0, 9.0], [4.0]])
    assert found.calls == [1, 2, 9, 4]
    assert found.medians == [2, 4]


def test_the_clock_of_processors_does_not_count_waiting() -> None:
    import time

    (waited,) = Clock("cpu", CPU).time(lambda: time.sleep(0.2), 1)
    (seen,) = Clock("wall", CPU).time(lambda: time.sleep(0.2), 1)
    assert seen >= 0.2
    assert waited < seen


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_events_time_a_gpu() -> None:
    clock = Clock("wall", torch.device("cuda"))
    seconds = clock.time(lambda: torch.cuda._sleep(10_000_000), 3)
    assert min(seconds) > 1e-4
