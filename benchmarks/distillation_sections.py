"""The sections on teachers and their students: what distinguishes the teachers, and what their students learn."""

from collections.abc import Mapping
from typing import Any

from benchmarks.ablation import Difference, difference, signed, spread
from benchmarks.figures import NONE, Documents, Figure, Record, budgets, grouped, records_in, root_of, seeds_of, table

BASELINE = "standard"
"""The stage of the teacher that others are compared with."""
DIAGNOSED = "_diagnosed"
"""What the stage that looks at a teacher is called, behind the teacher's name."""

DIAGNOSTICS = {
    "val_accuracy": Figure("validation accuracy %", 100.0, 2),
    "val_nll": Figure("NLL", decimals=3),
    "val_ece": Figure("ECE %", 100.0, 2),
    "train_nll": Figure("train NLL", decimals=3),
    "train_confidence": Figure("train confidence", decimals=3),
    "view_distance": Figure("view distance", decimals=3),
    "view_agreement": Figure("same class %", 100.0, 1),
    "lipschitz_sum": Figure("sum of layer terms", decimals=0),
}
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}


def is_distillation(record: Record) -> bool:
    """Whether a record is of a recipe from teachers to students, whose stages have tables of their own."""
    return str(record["recipe"]).startswith("soteacher_") and record["stage"] is not None


def distillation(documents: Documents) -> list[str]:
    """The section of docs/results.md."""
    lines = ["## Distillation: teachers and their students", ""]
    recipes = grouped([r for r in records_in(documents) if is_distillation(r)], "recipe")
    if not recipes:
        return [*lines, "No finished run has been collected yet.", ""]
    for records in recipes:
        lines += [f"### `{records[0]['recipe']}`", "", *_comparison(records)]
        judged = [r for r in records if r["evaluation"] == "test"]
        lines += budgets(documents, grouped(judged, "recipe", "stage"))
    return lines


def distillation_block(name: str, documents: Documents) -> str:
    """The tables of one recipe, for its page."""
    records = [r for r in records_in(documents) if is_distillation(r) and r["recipe"] == name]
    if not records:
        return "Not measured yet: no finished run has been collected."
    return "\n".join(_comparison(records)).rstrip()


def distillation_rows(documents: Documents) -> list[list[str]]:
    """For the README: the students of each teacher by the first distiller."""
    rows = []
    for records in grouped([r for r in records_in(documents) if is_distillation(r)], "recipe"):
        students = _students(records)
        distillers = list(dict.fromkeys(distiller for _, distiller in students))
        for distiller in distillers[:1]:
            mine = {teacher: group for (teacher, d), group in students.items() if d == distiller}
            told = ", ".join(f"{_accuracy(group)} % from {teacher}" for teacher, group in mine.items())
            first = next(iter(mine.values()))
            where = f"{_data(first[0])}, {first[0]['samples']:,} test images"
            rows.append(
                [
                    f"Students by `{distiller}`, `{first[0]['recipe']}`",
                    where,
                    f"{told}, {len(first)} seed{'s' * (len(first) > 1)}",
                ]
            )
    return rows


def _comparison(records: list[Record]) -> list[str]:
    """Both tables of one recipe, and what they show."""
    first = next(r for r in records if r["evaluation"] == "test")
    lines = [f"{_data(first)}, {first['samples']:,} test images; mean ± sample standard deviation over seeds.", ""]
    lines += _teacher_table(records)
    students = _students(records)
    rows, found = [], []
    for (teacher, distiller), group in students.items():
        change = _change(group, students.get((BASELINE, distiller), []))
        shown = ["", ""]
        if teacher != BASELINE and change is not None:
            found.append(change)
            shown = [_points(change), _interval(change)]
        rows.append([teacher, f"`{distiller}`", _accuracy(group), *shown, seeds_of(group)])
    head = [
        "teacher",
        "distiller",
        "student, test accuracy %",
        f"difference to {BASELINE}, points",
        "95 % interval",
        "seeds",
    ]
    return [*lines, *table(head, rows, left=2), *_verdict(found)]


def _teacher_table(records: list[Record]) -> list[str]:
    names = _teachers(records)
    rows = []
    for name in names:
        own = [r for r in records if r["stage"] == name and r["evaluation"] == "test"]
        looked = [r for r in records if r["stage"] == name + DIAGNOSED]
        rows.append([name, _accuracy(own), *(_figure(key, looked) for key in DIAGNOSTICS), seeds_of(own)])
    head = ["teacher", "test accuracy %", *(figure.head for figure in DIAGNOSTICS.values()), "seeds"]
    return table(head, rows)


def _teachers(records: list[Record]) -> list[str]:
    stages = list(dict.fromkeys(str(r["stage"]) for r in records))
    return [stage for stage in stages if stage + DIAGNOSED in stages]


def _students(records: list[Record]) -> dict[tuple[str, str], list[Record]]:
    """Judged students by teacher and distiller: their stage is called ``teacher_distiller``."""
    found: dict[tuple[str, str], list[Record]] = {}
    teachers = _teachers(records)
    for teacher in teachers:
        for record in records:
            stage = str(record["stage"])
            if record["evaluation"] == "test" and stage.startswith(f"{teacher}_") and stage != teacher + DIAGNOSED:
                found.setdefault((teacher, stage.removeprefix(f"{teacher}_")), []).append(record)
    return found


def _by_seed(group: list[Record]) -> Mapping[int, float]:
    return {int(r["seed"] or 0): 100 * float(r["metrics"]["accuracy"]) for r in group}


def _change(group: list[Record], baseline: list[Record]) -> Difference | None:
    ours, theirs = _by_seed(group), _by_seed(baseline)
    return difference(ours, theirs) if ours.keys() & theirs.keys() else None


def _points(change: Difference) -> str:
    return signed(change.mean, 2) + ("" if change.std is None else f" ± {change.std:.2f}")


def _interval(change: Difference) -> str:
    if change.half is None:
        return NONE
    return f"{signed(change.mean - change.half, 2)} to {signed(change.mean + change.half, 2)}"


def _verdict(found: list[Difference]) -> list[str]:
    told = [change for change in found if change.half is not None]
    if not told:
        return []
    better, worse = (sum(c.shown and (c.mean > 0) == up for c in told) for up in (True, False))
    text = f"Of {len(told)} differences to the {BASELINE} teacher's students, paired by seed, the interval (Student's) "
    text += f"leaves out zero for {better + worse}: {better} above it, {worse} below. One in twenty does so by chance."
    return [text, ""]


def _accuracy(group: list[Record]) -> str:
    return spread(list(_by_seed(group).values()), 2) if group else NONE


def _figure(name: str, group: list[Record]) -> str:
    values: list[Any] = [record["metrics"].get(name) for record in group]
    if not values or None in values:
        return NONE
    figure = DIAGNOSTICS[name]
    return spread([value * figure.factor for value in values], figure.decimals)


def _data(record: Record) -> str:
    name = TITLES.get(root_of(record), root_of(record))
    kept = record["data"].get("limit")
    copies = " as JPEG copies" if record["data"].get("layout") == "npz_jpeg" else ""
    return f"{name}{copies}" + (f", {kept:,} training images" if kept else "")
