"""What a measurement was made under: processor, clock, threads, what else ran; and warnings where that spoils it."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vision.engine.environment import core_count, cpu_model

BUSY = 0.05
"""Share of the cores that others may use before a measurement counts as disturbed."""

_STAT, _LOAD, _INFO = Path("/proc/stat"), Path("/proc/loadavg"), Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


@dataclass
class Conditions:
    """What the machine was like while something was measured; None where the system does not tell.

    Attributes:
        cpu: the processor's name.
        cores: that this process may use.
        threads: that the measured thing may use.
        load: mean length of the queue for processors over the last minute, before.
        others_before: cores that other processes used in the moment before.
        others: cores that they used on average meanwhile, stolen time of virtual machines among it.
        mhz: clock rates (lowest, highest) that the system told, before and after.
        governor: who sets them.
        seconds: it took.
    """

    cpu: str = field(default_factory=cpu_model)
    cores: int = field(default_factory=core_count)
    threads: int = 1
    load: float | None = None
    others_before: float | None = None
    others: float | None = None
    mhz: tuple[float, float] | None = None
    governor: str | None = None
    seconds: float = 0.0

    def warnings(self) -> list[str]:
        """What of it spoils a measurement."""
        found = []
        busiest = max((value for value in (self.others_before, self.others) if value is not None), default=None)
        if busiest is None:
            found.append("this system does not tell what else ran: close everything else before you believe the times")
        elif busiest > BUSY * self.cores:
            found.append(
                f"the machine was busy: other processes used {busiest:.2f} of {self.cores} cores; "
                "measure again when it is quiet, and trust ratios more than times"
            )
        if self.threads > self.cores:
            found.append(f"{self.threads} threads on {self.cores} cores: they wait for each other; lower --threads")
        if self.mhz is not None and self.mhz[1] > 1.1 * self.mhz[0]:
            low, high = self.mhz
            found.append(f"the processor's clock was not constant ({low:.0f} to {high:.0f} MHz)")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a results file keeps them."""
        return {
            "load": self.load,
            "others_before": _rounded(self.others_before),
            "others": _rounded(self.others),
            "mhz": None if self.mhz is None else [round(value) for value in self.mhz],
            "governor": self.governor,
            "seconds": round(self.seconds, 1),
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def busy_seconds(text: str, hertz: int) -> float:
    """Seconds that processors were not idle since the system started, stolen ones among them.

    Args:
        text: of ``/proc/stat``.
        hertz: its ticks a second.

    Example:
        >>> busy_seconds("cpu  100 0 50 900 25 0 0 50 30 0", hertz=100)
        2.0
    """
    ticks = [int(part) for part in text.split(maxsplit=11)[1:9]]
    user, nice, system, _idle, _waiting, interrupts, soft, stolen = ticks  # guests are in user already
    return (user + nice + system + interrupts + soft + stolen) / hertz


def _now() -> tuple[float, float, float] | None:
    """Time, seconds that all processors were busy, seconds of them that are this process's and its children's."""
    with suppress(OSError, ValueError):
        own = os.times()
        spent = own.user + own.system + own.children_user + own.children_system
        return time.perf_counter(), busy_seconds(_STAT.read_text(), os.sysconf("SC_CLK_TCK")), spent
    return None


def _others(before: tuple[float, float, float] | None, after: tuple[float, float, float] | None) -> float | None:
    if before is None or after is None or after[0] <= before[0]:
        return None
    return max(0.0, (after[1] - before[1] - (after[2] - before[2])) / (after[0] - before[0]))


def _clock_rates() -> list[float]:
    with suppress(OSError, ValueError):
        lines = _INFO.read_text(errors="replace").splitlines()
        return [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return []


def _text(path: Path) -> str | None:
    with suppress(OSError):
        return path.read_text().strip()
    return None


@contextmanager
def watched(threads: int, settle: float = 0.5) -> Iterator[Conditions]:
    """Inside, something is measured; what it was measured under stands in what this gives, complete at the end.

    Args:
        threads: that the measured thing may use.
        settle: seconds to look at the machine before.
    """
    found = Conditions(threads=threads, governor=_text(_GOVERNOR))
    load = _text(_LOAD)
    found.load = float(load.split()[0]) if load else None
    before = _now()
    time.sleep(settle)
    begun = _now()
    found.others_before = _others(before, begun)
    rates, started = _clock_rates(), time.perf_counter()
    try:
        yield found
    finally:
        found.seconds = time.perf_counter() - started
        found.others = _others(begun, _now())
        rates += _clock_rates()
        found.mhz = (min(rates), max(rates)) if rates else None
