"""Run folders read into memory: what the report, the comparison and the card are made of."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from vision.engine.errors import UserError
from vision.engine.files import read_json, read_text
from vision.engine.recorder import read_metrics
from vision.engine.run import RunFolder, changed_keys

DEFAULT_SEED = 0
"""What a recipe without a seed means: :class:`vision.engine.recipe.Recipe` says so, whose import would load torch."""

SPLITS = ("test", "val", "train")
"""Evaluations come in this order, others after them by name."""

_NOT_THE_RECIPE = ("name", "seed", "seeds", "output", "description")
_SEED_PART = re.compile(r"seed(\d+)")


@dataclass(frozen=True)
class Run:
    """One run folder, read.

    Attributes:
        label: what it is called on the page; unique among the runs shown.
        folder: where it lies.
        recipe: the resolved recipe.
        recipe_text: the same as written.
        config_hash: its SHA-256.
        environment: what the run was made with; None where that was not noted.
        lines: of ``metrics.jsonl``.
        results: ``result.json`` by evaluation.
        examples: drawn predictions by evaluation.
        done: of a pipeline's finished stage, what it left: its recipe with references to other stages, and its result.
    """

    label: str
    folder: Path
    recipe: dict[str, Any]
    recipe_text: str
    config_hash: str
    environment: dict[str, Any] | None
    lines: list[dict[str, Any]] = field(repr=False)
    results: dict[str, dict[str, Any]] = field(repr=False)
    examples: dict[str, list[Path]] = field(repr=False)
    done: dict[str, Any] = field(default_factory=dict, repr=False)

    def samples(self, name: str, metric: str) -> int | None:
        """How many samples a figure of an evaluation is of; ``counts`` tells it of those that saw fewer."""
        result = self.results[name]
        found: int | None = result.get("counts", {}).get(metric, result.get("samples"))
        return found

    @property
    def is_step(self) -> bool:
        """Whether this stage of a pipeline did something other than training."""
        return "step" in self.recipe

    @property
    def train_lines(self) -> list[dict[str, Any]]:
        """Lines of training steps."""
        return [line for line in self.lines if line["kind"] == "train"]

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """Lines of evaluations during training."""
        return [line for line in self.lines if line["kind"] == "eval"]

    @property
    def events(self) -> list[dict[str, Any]]:
        """Lines of events."""
        return [line for line in self.lines if line["kind"] == "event"]

    @property
    def best(self) -> dict[str, Any] | None:
        """The evaluation that the best checkpoint was kept of."""
        return next((line for line in reversed(self.evaluations) if line.get("best")), None)

    @property
    def seed(self) -> int | None:
        """The run's seed: the recipe's, or what a recipe without one means.

        Of a step, which trains nothing: its own, else that of the folder ``seed1`` it lies in, else None.
        """
        if not self.is_step:
            return int(self.recipe.get("seed", DEFAULT_SEED))
        own = self.recipe["step"].get("seed")
        folder = _SEED_PART.fullmatch(self.folder.parent.name)
        return int(own) if own is not None else int(folder[1]) if folder else None

    @property
    def train_seconds(self) -> float | None:
        """Training time, as the results tell it, else as the last training line does."""
        told = [r["train_seconds"] for r in self.results.values() if r.get("train_seconds") is not None]
        return told[0] if told else (self.train_lines[-1]["seconds"] if self.train_lines else None)

    def primary(self, evaluation: str) -> str | None:
        """The figure an evaluation is judged by: the one its result names, else its first."""
        result = self.results[evaluation]
        metrics = result.get("metrics") or {}
        named = result.get("primary")
        return named if named in metrics else next(iter(metrics), None)

    @cached_property
    def kinship(self) -> str:
        """The recipe without name and seed: runs that agree in it differ by their seed only.

        Of a pipeline's stage as it is written, before the results of other stages are filled in.
        """
        written = self.done.get("config") or self.recipe
        rest = {key: value for key, value in written.items() if key not in _NOT_THE_RECIPE}
        if self.is_step:
            rest["step"] = {key: value for key, value in rest["step"].items() if key != "seed"}
        return _SEED_PART.sub("seed*", json.dumps(rest, sort_keys=True, default=str))


@dataclass(frozen=True)
class Group:
    """Runs that differ by their seed only; a run without such kin is a group of its own."""

    label: str
    runs: tuple[Run, ...]


def run_folders(given: Path) -> list[Path]:
    """The run folders in ``given``: itself, or those of a pipeline's seeds and stages, in the order of the recipe.

    Raises:
        UserError: neither it nor a folder in it has a ``config.yaml``.
    """
    if not given.is_dir():
        raise UserError(f"{given}: no such folder; expected a run folder that tools/train.py made")
    found = [config.parent for depth in ("", "*/", "*/*/") for config in given.glob(f"{depth}config.yaml")]
    leaves = [folder for folder in found if not any(folder in other.parents for other in found)]
    if not leaves:
        raise UserError(f"{given}: not a run folder (it has no config.yaml); expected one that tools/train.py made")
    order = _stage_order(given / "config.yaml")

    def place(folder: Path) -> list[tuple[int, list[tuple[int, str]]]]:
        return [(order.get(part, len(order)), _natural(part)) for part in folder.relative_to(given).parts]

    return sorted(leaves, key=place)


def _stage_order(config: Path) -> dict[str, int]:
    tree = _yaml(config) if config.is_file() else {}
    names = [stage.get("name", "") for stage in tree.get("stages") or [] if isinstance(stage, dict)]
    return {name: place for place, name in enumerate(names)}


def description_of(given: Path) -> str:
    """The one line that a recipe or pipeline says about itself; empty where it says nothing."""
    return str(_yaml(given / "config.yaml").get("description") or "") if (given / "config.yaml").is_file() else ""


def _yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a recipe (keys and values)")
    return tree


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts seed2 before seed10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def read_runs(given: Sequence[Path]) -> list[Run]:
    """Reads run folders and everything in pipelines, each folder once.

    Raises:
        UserError: something is no run folder, or a file in one is broken.
    """
    folders = list(dict.fromkeys(folder.resolve() for root in given for folder in run_folders(Path(root))))
    labels = _labels(folders, [Path(root).resolve() for root in given])
    return [_read(folder, label) for folder, label in zip(folders, labels, strict=True)]


def _labels(folders: list[Path], roots: list[Path]) -> list[str]:
    """Paths from the name of the given folder on, with as much above it as tells them apart."""
    for above in range(8):
        labels = []
        for folder in folders:
            root = next(root for root in roots if folder == root or root in folder.parents)
            parts = root.parts[1:][-(above + 1) :] + folder.relative_to(root).parts
            labels.append("/".join(parts) or str(folder))
        if len(set(labels)) == len(labels):
            return labels
    return [str(folder) for folder in folders]


def _read(folder: Path, label: str) -> Run:
    run = RunFolder(folder)
    results, examples = {}, {}
    for evaluation in sorted((folder / "eval").glob("*/"), key=lambda found: _split_order(found.name)):
        if (evaluation / "result.json").is_file():
            results[evaluation.name] = _result(evaluation / "result.json")
            examples[evaluation.name] = sorted((evaluation / "examples").glob("*.png"), key=lambda p: _natural(p.name))
    text = read_text(run.config)
    return Run(
        label=label,
        folder=folder,
        recipe=_yaml(run.config),
        recipe_text=re.sub(r"\A#\s*sha256.*\n", "", text),
        config_hash=run.config_hash,
        environment=read_json(run.environment) if run.environment.is_file() else None,
        lines=read_metrics(run.metrics) if run.metrics.is_file() else [],
        results=results,
        examples=examples,
        done=read_json(folder / "done.json") if (folder / "done.json").is_file() else {},
    )


def _result(path: Path) -> dict[str, Any]:
    result = read_json(path)
    if not isinstance(result, dict) or not isinstance(result.get("metrics"), dict):
        raise UserError(f"{path}: expected an object with 'metrics'; evaluate again with tools/eval.py")
    return result


def _split_order(name: str) -> tuple[int, str]:
    return (SPLITS.index(name) if name in SPLITS else len(SPLITS), name)


def evaluation_names(runs: Sequence[Run]) -> list[str]:
    """Names of the evaluations that any of the runs has: test, val, train, then others by name."""
    return sorted({name for run in runs for name in run.results}, key=_split_order)


def group_by_seed(runs: Sequence[Run]) -> list[Group]:
    """Puts runs together that differ by their seed only, in the order of their first.

    Runs of one recipe and one seed are repeats, not samples of what the seed does. Where there are repeats, only runs
    in one folder are put together, and only when their seeds differ.
    """
    groups: list[Group] = []
    for family in _by(runs, lambda run: run.kinship):
        for siblings in [family] if _distinct(family) else _by(family, lambda run: run.folder.parent):
            if len(siblings) > 1 and _distinct(siblings):
                groups.append(Group(_family_name(siblings), tuple(siblings)))
            else:
                groups += [Group(run.label, (run,)) for run in siblings]
    return groups


def _by(runs: Sequence[Run], key: Callable[[Run], Any]) -> list[list[Run]]:
    """Runs of one key together, in the order of their first."""
    found: dict[Any, list[Run]] = {}
    for run in runs:
        found.setdefault(key(run), []).append(run)
    return list(found.values())


def _distinct(runs: Sequence[Run]) -> bool:
    return len({run.seed for run in runs} - {None}) == len(runs)


def _family_name(family: list[Run]) -> str:
    """What the labels have in common, without the seed: ``a/seed0`` and ``a/seed1`` are ``a``."""
    without = {re.sub(r"[/_. -]*seed[=_-]?\d+", "", run.label).strip("/_-. ") for run in family}
    if len(without) == 1 and (name := without.pop()):
        return name
    names = {str(run.recipe.get("name", "")) for run in family}
    return names.pop() if len(names) == 1 and "" not in names else f"{family[0].label} and {len(family) - 1} more"


def comparable(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs apart by their data and the figure they are judged by; one not evaluated yet goes with those of its task.

    Steps of a pipeline, which train nothing, are left out.
    """
    judged_by = {_task(run): _judged_by(run) for run in reversed(runs) if run.results}
    trained = [run for run in runs if not run.is_step]
    return _by(trained, lambda run: (data_of(run), _judged_by(run) or judged_by.get(_task(run)) or _task(run)))


def data_of(run: Run) -> str:
    """What a run's data is called: its folder's name where it lies in one, else its type."""
    data = run.recipe.get("data")
    data = data if isinstance(data, dict) else {}
    return Path(str(data.get("root") or data.get("type") or "")).name


def _judged_by(run: Run) -> str | None:
    return next((run.primary(name) for name in run.results), None)


def _task(run: Run) -> str:
    task = run.recipe.get("task")
    return str(task.get("type")) if isinstance(task, dict) else ""


def differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Keys of the recipes that differ between runs, each with every run's value; names and output folders aside."""
    trees = [{key: value for key, value in run.recipe.items() if key not in ("name", "output")} for run in runs]
    changed = {key for tree in trees[1:] for key, _, _ in changed_keys(trees[0], tree)}
    return {key: [_at(tree, key) for tree in trees] for key in sorted(changed)}


def _at(tree: Any, key: str) -> Any:
    """The value at a dotted key, where some keys may hold dots themselves; None where there is none."""
    if key in ("", None):
        return tree
    if not isinstance(tree, dict):
        return None
    for name, value in tree.items():
        if key == name:
            return value
        if key.startswith(f"{name}."):
            return _at(value, key[len(str(name)) + 1 :])
    return None
