"""Students of several teachers beside each other: mean, standard deviation and the paired difference over seeds."""

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from vision.engine.errors import ConfigError, nearest
from vision.engine.files import read_json, write_atomically, write_json
from vision.engine.pipeline import DONE
from vision.engine.registry import register
from vision.engine.summary import figures_in

FIGURES = "figures.json"


@dataclass(frozen=True)
class Row:
    """A teacher and a distiller over seeds.

    Attributes:
        teacher: its name.
        distiller: its name.
        values: the student's figure for each seed.
        differences: the figure minus that of the baseline teacher's student of the same distiller and seed.
    """

    teacher: str
    distiller: str
    values: list[float]
    differences: list[float]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers; a standard deviation is that of n - 1, None for one seed."""
        spread = lambda numbers: stdev(numbers) if len(numbers) > 1 else None  # noqa: E731
        return {
            "teacher": self.teacher,
            "distiller": self.distiller,
            "runs": len(self.values),
            "mean": fmean(self.values),
            "std": spread(self.values),
            "difference": fmean(self.differences),
            "difference_std": spread(self.differences),
        }


def compare(seeds: list[dict[str, float]], baseline: str) -> list[Row]:
    """Rows in the order of the first seed's figures.

    Args:
        seeds: for each seed, figures by ``teacher/distiller``; all with the same names.
        baseline: the teacher that differences are taken to.

    Raises:
        ConfigError: no figure, a name without ``/``, seeds with different names, or a distiller that the baseline
            teacher's students were not trained by.
    """
    if not seeds or not seeds[0]:
        raise ConfigError("figures: none is given; name one as 'teacher/distiller: number'")
    names = list(seeds[0])
    rows = []
    for name in names:
        teacher, slash, distiller = name.partition("/")
        if not slash or not teacher or not distiller:
            raise ConfigError(f"figures.{name}: expected a name like standard/kd: the teacher, then the distiller")
        beside = f"{baseline}/{distiller}"
        for figures in seeds:
            for wanted in (name, beside):
                if wanted not in figures:
                    raise ConfigError(
                        f"figures: there is no '{wanted}'{nearest(wanted, figures)}, which '{name}' is compared with"
                    )
        values = [figures[name] for figures in seeds]
        rows.append(Row(teacher, distiller, values, [figures[name] - figures[beside] for figures in seeds]))
    return rows


def as_markdown(rows: list[Row], baseline: str, percent: bool = True) -> str:
    """The rows as a table for a page.

    Args:
        rows: of :func:`compare`.
        baseline: named in the head of the last column.
        percent: whether figures are shares, shown times 100.
    """
    scale, lines = 100.0 if percent else 1.0, [
        f"| teacher | distiller | runs | student | paired difference to {baseline} |",
        "|---|---|---:|---:|---:|",
    ]  # fmt: skip

    def shown(mean: float, spread: float | None, sign: str = "") -> str:
        text = f"{mean * scale:{sign}.2f}"
        return text if spread is None or math.isnan(spread) else f"{text} ± {spread * scale:.2f}"

    for row in (row.to_dict() for row in rows):
        own = shown(row["mean"], row["std"])
        gap = "" if row["teacher"] == baseline else shown(row["difference"], row["difference_std"], "+")
        lines.append(f"| {row['teacher']} | {row['distiller']} | {row['runs']} | {own} | {gap} |")
    return "\n".join(lines) + "\n"


@register("distillation_table", kind="step")
@dataclass(frozen=True)
class DistillationTable:
    """One table of all students, over the seeds that are done.

    Each seed's step leaves its figures in its folder and makes the table anew from those of all seeds beside it, so
    that the last seed's ``table.md`` and ``table.json`` hold all of them.

    Attributes:
        students: a student's run folder by ``teacher/distiller``, such as ``standard/kd``.
        figure: which of a run's figures is compared, by dotted name.
        baseline: the teacher that differences are taken to.
    """

    students: dict[str, Path]
    figure: str = "test.accuracy"
    baseline: str = "standard"

    def run(self, folder: Path) -> dict[str, Any]:
        """The differences of this seed; the table goes to ``folder``. Nothing is made of a dry run.

        Raises:
            ConfigError: a student without that figure, or as :func:`compare`.
        """
        results = {name: read_json(run / DONE)["result"] for name, run in self.students.items()}
        if all(result == {"finished": "dry run"} for result in results.values()):
            return {}
        figures = {name: self._figure(name, result) for name, result in results.items()}
        own = compare([figures], self.baseline)
        write_json(folder / FIGURES, figures)
        seeds = [read_json(file) for file in self._beside(folder)]
        rows = compare(seeds, self.baseline)
        write_json(folder / "table.json", [row.to_dict() for row in rows])
        write_atomically(folder / "table.md", as_markdown(rows, self.baseline).encode())
        return {f"{row.teacher}/{row.distiller}": row.differences[0] for row in own if row.teacher != self.baseline}

    def _figure(self, name: str, result: dict[str, Any]) -> float:
        known = dict(figures_in(result))
        if self.figure not in known:
            raise ConfigError(
                f"step.figure: the student '{name}' has no '{self.figure}'{nearest(self.figure, known)}; "
                f"it has {', '.join(known)}"
            )
        return known[self.figure]

    @staticmethod
    def _beside(folder: Path) -> list[Path]:
        if not folder.parent.name.startswith("seed"):
            return [folder / FIGURES]
        return sorted(folder.parent.parent.glob(f"seed*/{folder.name}/{FIGURES}"))
