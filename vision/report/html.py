"""One page from run folders: everything on it comes from the folders, everything it needs is in it."""

import base64
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image, UnidentifiedImageError

from vision.engine.errors import UserError
from vision.engine.files import make_folder, write_atomically
from vision.engine.recorder import duration
from vision.report.charts import Chart
from vision.report.curves import evaluation_charts, shared_legend, table_charts, training_charts
from vision.report.matrices import Matrix, bins_of, matrices_of
from vision.report.runs import Run, comparable, data_of, description_of, differences, group_by_seed, read_runs
from vision.report.tables import NONE, Row, Table, comparison_tables, number, plus_minus, results_table

EXAMPLES = {1: 12}
"""Example predictions shown of an evaluation, by number of runs on the page; 6 where there are more."""

WIDEST = 1280
"""Pictures wider than this many pixels are made smaller for the page."""


@dataclass(frozen=True)
class Figure:
    """One figure in large type: what it is, its value, and what stands behind it."""

    name: str
    value: str
    detail: str


@dataclass(frozen=True)
class Example:
    """A picture inside the page."""

    name: str
    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Part:
    """Everything the page shows of one run."""

    run: Run
    anchor: str
    description: str
    outcome: tuple[tuple[str, str], ...]
    facts: tuple[str, ...]
    figures: tuple[Figure, ...]
    results: Table | None
    warnings: tuple[str, ...]
    training: tuple[Chart, ...]
    evaluations: tuple[Chart, ...]
    curves: tuple[Chart, ...]
    matrices: tuple[Matrix, ...]
    bins: tuple[Table, ...]
    examples: tuple[tuple[str, tuple[Example, ...]], ...]
    environment: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Family:
    """What the page shows of runs that can be compared; of a single one its figures, the rest being in its own part."""

    title: str
    comparisons: tuple[Table, ...]
    training: tuple[Chart, ...] = ()
    evaluations: tuple[Chart, ...] = ()
    curves: tuple[Chart, ...] = ()
    differences: Table | None = None


def write_report(runs: Sequence[Path], output: Path) -> Path:
    """Writes the page of one run, or of several beside each other.

    Args:
        runs: run folders; of a pipeline or a recipe over seeds, all runs in it are shown.
        output: the HTML file.

    Returns:
        ``output``.

    Raises:
        UserError: no run is given, a folder is no run, a file in one is broken, or the page cannot be written.
    """
    if not runs:
        raise UserError("a report of no runs: name at least one run folder")
    found = read_runs([Path(run) for run in runs])
    title = Path(runs[0]).resolve().name if len(runs) == 1 else f"{len(found)} runs"
    description = description_of(Path(runs[0])) if len(runs) == 1 else ""
    make_folder(output.resolve().parent)
    write_atomically(output, render(found, title, description).encode())
    return output


def render(runs: Sequence[Run], title: str, description: str = "") -> str:
    """The page as text; the same for the same folders."""
    several = len(runs) > 1
    parts = [_part(run, f"run{place}", len(runs)) for place, run in enumerate(runs, start=1)]
    return _template().render(
        drawing=_Numbered(),
        title=title,
        description=description,
        parts=parts,
        several=several,
        figures=_group_figures(runs) if several else parts[0].figures,
        families=_families(runs),
    )


@cache
def _template() -> Any:
    loader = PackageLoader("vision.report", "templates")
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters["breakable"] = _breakable
    page.filters["number"] = number
    page.globals["shared_legend"] = shared_legend
    return page.get_template("report.html.j2")


class _Numbered:
    """Puts drawings into one page, each with ids of its own."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self, chart: Chart) -> Markup:
        self.drawn += 1
        renamed = re.sub(r'(id="|href="#|url\(#)(\w)', rf"\g<1>d{self.drawn}-\2", chart.svg)
        return Markup(renamed)  # our own drawing, whose texts are escaped


def _breakable(name: str) -> Markup:
    """A name that may be broken after a slash, dot or underscore where room is short."""
    return Markup(re.sub(r"([/_.,])", r"\1<wbr>", str(escape(name))))


def _part(run: Run, anchor: str, runs: int) -> Part:
    limit = EXAMPLES.get(runs, 6)
    alone = [run]
    return Part(
        run=run,
        anchor=anchor,
        description=str(run.recipe.get("description") or ""),
        outcome=tuple(_outcome(run)),
        facts=tuple(_facts(run)),
        figures=tuple(_figures(run)),
        results=results_table(run) if run.results else None,
        warnings=tuple(_warnings(run)),
        training=tuple(training_charts(alone)),
        evaluations=tuple(evaluation_charts(alone)),
        curves=tuple(table_charts(alone)),
        matrices=tuple(matrices_of(run)),
        bins=tuple(bins_of(run)),
        examples=tuple(
            (name, tuple(inline(path) for path in paths[:limit])) for name, paths in run.examples.items() if paths
        ),
        environment=tuple(_environment(run)),
    )


def _warnings(run: Run) -> list[str]:
    """What evaluations say should not be believed as it stands."""
    return [
        f"{name}, {part}: {text}"
        for name, result in run.results.items()
        for part, texts in (result.get("warnings") or {}).items()
        for text in texts
    ]


def _facts(run: Run) -> list[str]:
    """A line of small facts under the name."""
    facts = [f"{block} {_type(run.recipe.get(block))}" for block in ("task", "data") if _type(run.recipe.get(block))]
    if run.seed is not None:
        facts.append(f"seed {run.seed}")
    if run.train_seconds is not None:
        facts.append(f"trained {duration(run.train_seconds)}")
    if run.best is not None:
        facts.append(f"best at epoch {run.best['epoch']:g}, step {number(run.best['step'])}")
    machine = run.environment or {}
    facts += [name for name in (machine.get("gpus") or [machine.get("cpu")])[:1] if name]
    return [*facts, f"recipe {run.config_hash[:10]}"]


def _type(block: Any) -> str:
    return str(block.get("type", "")) if isinstance(block, dict) else ""


def _figures(run: Run) -> list[Figure]:
    """The primary figure of each evaluation; before any, the best one seen while training."""
    figures = []
    for name, result in run.results.items():
        primary = run.primary(name)
        if primary is None:
            continue
        samples = run.samples(name, primary)
        behind = [] if samples is None else [f"{number(samples)} samples"]
        if result.get("checkpoint"):
            behind.append(f"{result['checkpoint']} weights" + _epoch(run, result["checkpoint"]))
        figures.append(Figure(f"{name} · {primary}", number(result["metrics"][primary]), ", ".join(behind)))
    if not figures and run.best is not None:
        best = run.best
        name, value = next(iter(best["metrics"].items()), ("", None))
        detail = f"while training, epoch {best['epoch']:g}; no evaluation of the finished weights yet"
        figures = [Figure(f"{best['split']} · {name}", number(value), detail)] if name else []
    return figures


def _epoch(run: Run, checkpoint: str) -> str:
    return f" (epoch {run.best['epoch']:g})" if checkpoint == "best" and run.best is not None else ""


def _group_figures(runs: Sequence[Run]) -> list[Figure]:
    """The primary figure of each group's first evaluation, over its seeds."""
    figures = []
    for group in group_by_seed(runs):
        first = group.runs[0]
        name = next(iter(first.results), None)
        primary = first.primary(name) if name else None
        if name is None or primary is None or any(name not in run.results for run in group.runs):
            continue
        values = [run.results[name]["metrics"].get(primary) for run in group.runs]
        alone = "" if first.seed is None else f", seed {first.seed}"
        seeds = f", {len(values)} seeds" if len(values) > 1 else alone
        value = plus_minus(values) if len(values) > 1 else number(values[0])
        figures.append(Figure(group.label, value, f"{primary} on {name}{seeds}"))
    return figures


def _differences(runs: Sequence[Run]) -> Table | None:
    found = differences(runs)
    rows = tuple(Row(key, tuple(_value(value) for value in values)) for key, values in found.items())
    return Table("Differences", tuple(run.label for run in runs), rows, corner="key") if rows else None


def _value(value: Any) -> str:
    if value is None:
        return NONE
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _families(runs: Sequence[Run]) -> list[Family]:
    """What to compare; nothing where no two runs can be compared, since each is shown by itself."""
    found = comparable(runs)
    return [_family(family) for family in found] if any(len(family) > 1 for family in found) else []


def _family(runs: Sequence[Run]) -> Family:
    tables = tuple(comparison_tables(runs))
    judged_by = next((run.primary(name) for run in runs for name in run.results), None)
    data = f" on {data_of(runs[0])}" if data_of(runs[0]) else ""
    title = f"Judged by {judged_by}{data}" if judged_by else f"Not evaluated yet{data}"
    if len(runs) == 1:
        return Family(title, tables)
    return Family(
        title,
        tables,
        tuple(training_charts(runs)),
        tuple(evaluation_charts(runs)),
        tuple(table_charts(runs)),
        _differences(runs),
    )


def _outcome(run: Run) -> list[tuple[str, str]]:
    """What a step left, value by value."""

    def flat(value: Any, at: str) -> list[tuple[str, str]]:
        if isinstance(value, dict):
            return [row for key, inner in value.items() for row in flat(inner, f"{at}.{key}" if at else str(key))]
        return [(at or "result", number(value) if isinstance(value, int | float) else _value(value))]

    return flat(run.done.get("result", {}), "") if run.is_step else []


def _environment(run: Run) -> list[tuple[str, str]]:
    found = dict(run.environment or {})
    resumed = found.pop("resumed", [])
    versions = found.pop("versions", {}) or {}
    rows = [(key.replace("_", " "), _text(value)) for key, value in {**found, **versions}.items()]
    return rows + [("resumed", f"{again.get('date')} on {_text(again.get('cpu'))}") for again in resumed]


def _text(value: Any) -> str:
    if value is None or value == []:
        return NONE
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def inline(path: Path) -> Example:
    """A picture file as a ``data:`` source; a very wide one is made smaller.

    Raises:
        UserError: it cannot be read as a picture.
    """
    try:
        data = path.read_bytes()
        picture = Image.open(io.BytesIO(data))
        picture.load()
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"{path}: cannot be read as a picture: {error}; evaluate again or remove it") from error
    if picture.width > WIDEST or picture.format != "PNG":
        picture.thumbnail((WIDEST, 10 * WIDEST))
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "PNG", optimize=True)
        data = buffer.getvalue()
    source = "data:image/png;base64," + base64.b64encode(data).decode()
    return Example(path.stem, source, picture.width, picture.height)
