"""Speed, memory and size of networks and exported files: several things, backends and batches, as one document."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from vision.deploy.backends import How
from vision.deploy.comparing import Case, Comparison, Found, measure
from vision.deploy.counting import in_words
from vision.deploy.subjects import Subject
from vision.deploy.timing import ClockName
from vision.engine.environment import git_commit, machine_summary
from vision.engine.errors import ConfigError


@dataclass(frozen=True)
class Plan:
    """How things are measured.

    Attributes:
        backends: of names that do not say one.
        precision: of names that do not say one.
        device: ``cpu`` or ``cuda``.
        batches: samples at once, each measured on its own.
        threads: of the CPU.
        rounds: turns that each thing takes.
        seconds: that each is timed for.
        clock: ``wall`` or ``cpu``.
        memory: measure peak memory too.
    """

    backends: tuple[str, ...] = ("eager",)
    precision: str = "fp32"
    device: str = "cpu"
    batches: tuple[int, ...] = (1,)
    threads: int = 1
    rounds: int = 10
    seconds: float = 5.0
    clock: ClockName = "wall"
    memory: bool = True

    def ways(self, subject: Subject, batch: int) -> list[How]:
        """How a thing is run: as its name says, else by each of the backends."""
        name = subject.name
        backends = (name.backend,) if name.backend else self.backends
        precision = name.precision or subject.precision or self.precision
        return [How(backend, precision, self.device, batch, self.threads) for backend in backends]


def run(subjects: Sequence[Subject], against: Subject | None, plan: Plan) -> dict[str, Any]:
    """Measures subjects in turn, each batch on its own; against one thing where asked for.

    Args:
        subjects: what is measured.
        against: what takes turns with all of them; it is run one way only.
        plan: how.

    Returns:
        A results document of kind ``speed``.

    Raises:
        ConfigError: what is compared against is to be run several ways.
        UserError: something cannot be run as asked for.
    """
    found: list[Found] = []
    comparisons: list[Comparison] = []
    for batch in plan.batches:
        cases = [Case(subject, how) for subject in subjects for how in plan.ways(subject, batch)]
        if against is not None:
            cases.append(Case(against, _one_way(plan, against, batch)))
        for case in cases:
            case.how.check()  # before anything takes time
        found.append(measure(cases, plan.rounds, plan.seconds, plan.clock, plan.memory))
        if against is not None:
            comparisons += [found[-1].comparison(ours, len(cases) - 1) for ours in range(len(cases) - 1)]
    return document(found, comparisons, plan)


def _one_way(plan: Plan, subject: Subject, batch: int) -> How:
    name, ways = subject.name, plan.ways(subject, batch)
    if len(ways) > 1:
        names = ", ".join(f"{name.short}@{how.backend}" for how in ways)
        raise ConfigError(f"--against {name.short}: several backends are asked for; say which: {names}")
    return ways[0]


def document(found: Sequence[Found], comparisons: Sequence[Comparison], plan: Plan) -> dict[str, Any]:
    """A results document of kind ``speed``."""
    first = found[0].conditions
    warnings = list(dict.fromkeys(text for each in found for text in each.warnings))
    conditions = replace(first, seconds=sum(each.conditions.seconds for each in found))
    busiest = [each.conditions.others for each in found if each.conditions.others is not None]
    conditions.others = max(busiest, default=None)
    return {
        "kind": "speed",
        "title": "Measured by tools/benchmark.py",
        "clock": plan.clock,
        "device": plan.device,
        "rows": [row for each in found for row in each.rows],
        "comparisons": [each.to_dict() for each in comparisons],
        "warnings": warnings,
        "conditions": conditions.to_dict(),
        "machine": {**machine_summary(), "threads": plan.threads},
        "commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


HEAD = (
    "what",
    "batch",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "samples/s",
    "spread",
    "memory MB",
    "parameters",
    "MACs",
    "weights",
)


def cells(row: dict[str, Any]) -> list[str]:
    """A row for people."""
    return [
        row["what"],
        str(row["batch"]),
        *(_shown(row[f"p{p}_ms"]) for p in (50, 90, 99)),
        _shown(row["samples_a_second"]),
        f"{100 * row['spread']:.0f} %",
        _shown(row["memory_mb"]),
        "–" if row["parameters"] is None else f"{row['parameters'] / 1e6:.3g} M",
        "–" if row["macs"] is None else in_words(row["macs"]),
        {True: "trained", False: "untrained", None: "unknown"}[row["trained"]],
    ]


def _shown(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def sentences(result: dict[str, Any]) -> list[str]:
    """What stands below the table: comparisons, what it was measured under, and how to read it."""
    told = []
    for each in result["comparisons"]:
        interval = each["interval"]
        ends = "too few rounds for an interval" if interval is None else f"{interval[0]:.3g} to {interval[1]:.3g}"
        verdict = "; NO DIFFERENCE IS SHOWN" if each["no_difference_shown"] else ""
        told.append(
            f"{each['what']} is {each['ratio']:.3g} times as fast as {each['against']} at batch {each['batch']} "
            f"({ends}, {each['rounds']} rounds){verdict}"
        )
    machine, now, rows = result["machine"], result["conditions"], result["rows"]
    clock = "" if now["mhz"] is None else f", {now['mhz'][0]} to {now['mhz'][1]} MHz"
    others = "unknown" if now["others"] is None else f"{now['others']:.2f} cores"
    where = ", ".join(machine["gpus"]) if result["device"] == "cuda" and machine["gpus"] else machine["cpu"]
    told.append(
        f"{where}{clock}, {machine['threads']} of {machine['cores']} cores, {result['clock']} time; "
        f"load {now['load']}, other processes {others}"
    )
    told += sorted({f"{row['what']}: {row['runs']}, {row['dtype']}, {row['layout']}, "
                    f"{'BatchNorm folded' if row['folded'] else 'as trained'}" for row in rows})  # fmt: skip
    calls = sorted({row["calls"] for row in rows})
    warm = sorted({row["warm_up_calls"] for row in rows})
    told.append(
        f"{calls[0]} to {calls[-1]} timed calls in {rows[0]['rounds']} rounds, after {warm[0]} to {warm[-1]} to warm up"
    )
    told += sorted({f"memory: {row['memory_how']}" for row in rows if row["memory_how"]})
    told += sorted({
        f"{row['name']}: {row['energy_nj']:.4g} nJ a sample on paper (4.6 pJ a MAC, 0.9 pJ an AC), by its evaluation"
        for row in rows if row["energy_nj"] is not None
    })  # fmt: skip
    return told
