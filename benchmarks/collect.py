"""Gather what run folders measured: python benchmarks/collect.py RUN ... -o benchmarks/results/NAME.json.

A run, or the folder of a pipeline or of several seeds, gives one record for each evaluation in it. Everything is read
from the folders; nothing is typed. Folders on this machine are left out: of an absolute path the last part is kept.
"""

import argparse
import json
import re
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import jsonschema
from safetensors import safe_open

from vision.engine.command import run_command
from vision.engine.config import load
from vision.engine.errors import DataError, UserError
from vision.engine.files import read_json, write_json
from vision.engine.recipe import TrainerOptions
from vision.engine.recorder import read_metrics
from vision.engine.run import RunFolder

RESULTS = Path(__file__).parent / "results"
SCHEMA = RESULTS / "schema.json"

_SEED = re.compile(r"seed\d+")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What BatchNorm keeps beside its parameters."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description="Gather the figures of run folders (pipelines and seeds too) into one checked JSON file.",
        epilog="example: python benchmarks/collect.py runs/tbcnet_lite_sirst -o benchmarks/results/tbcnet_sirst.json",
    )
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run folder, or one that holds stages or seeds")
    p.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the JSON file")
    p.add_argument("--note", default="", help="a remark that is shown beside the figures, such as what else ran")
    p.add_argument("--unfinished", action="store_true", help="take what there is of a pipeline that has not finished")
    return p


@cache
def schema() -> dict[str, Any]:
    """The JSON schema of a results file."""
    found: dict[str, Any] = read_json(SCHEMA)
    return found


def check(document: dict[str, Any], name: str) -> None:
    """Refuses a document that does not keep to the schema.

    Raises:
        DataError: it does not; with the place.
    """
    try:
        jsonschema.validate(document, schema())
    except jsonschema.ValidationError as error:
        raise DataError(f"{name}: {'.'.join(map(str, error.absolute_path))}: {error.message}") from error


def collect(roots: list[Path], note: str = "", unfinished: bool = False) -> dict[str, Any]:
    """The results file of some folders.

    Raises:
        UserError: a folder holds no evaluation, or a pipeline that has not finished (unless ``unfinished``).
    """
    document = {"kind": "runs", "note": note, "records": [r for root in roots for r in records_of(root, unfinished)]}
    check(document, "collected")
    return document


def records_of(root: Path, unfinished: bool = False) -> list[dict[str, Any]]:
    """One record for each evaluation below a folder, by stage or seed in natural order."""
    found = [file for depth in ("", "*/", "*/*/") for file in root.glob(f"{depth}eval/*/result.json")]
    if not found:
        raise UserError(f"{root}: no evaluation in it (eval/NAME/result.json); expected the folder of a finished run")
    summary = RunFolder(root).summary
    if not unfinished and (_is_pipeline(root) and not (summary.is_file() and read_json(summary)["finished"])):
        raise UserError(f"{root}: the pipeline has not finished; finish it with --resume, or say --unfinished")
    return [_record(root, file) for file in sorted(found, key=lambda file: _natural(file.relative_to(root)))]


def _is_pipeline(root: Path) -> bool:
    config = RunFolder(root).config
    return config.is_file() and load(config).is_pipeline


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.as_posix())]


def _record(root: Path, file: Path) -> dict[str, Any]:
    run, result = RunFolder(file.parents[2]), read_json(file)
    parts = [part for part in run.path.relative_to(root).parts if not _SEED.fullmatch(part)]
    above = RunFolder(root).config
    recipe = load(run.config).tree if run.config.is_file() else {}
    task = recipe.get("task") or {}
    made = read_json(run.environment) if run.environment.is_file() else {}
    return {
        "recipe": (load(above).name if above.is_file() else "") or result["name"],
        "stage": "/".join(parts) or None,
        "seed": result.get("seed"),
        "evaluation": file.parent.name,
        "split": result["split"],
        "data": _without_folders(result["data"]),
        "samples": result["samples"],
        "metrics": result["metrics"],
        "bins": [table for table in result.get("tables", {}).values() if table["type"] == "bins"],
        "primary": result.get("primary"),
        "mode": result.get("mode"),
        "network": _without_folders(task.get("network") or result.get("network")),
        "loss": task.get("loss"),
        "options": {k: _without_folders(v) for k, v in task.items() if k not in ("type", "network", "loss")},
        "parameters": result.get("parameters") or _parameters(run, result),
        "checkpoint": _name_of(str(result.get("checkpoint") or "")) or None,
        "weights_sha256": result.get("weights_sha256"),
        "config_sha256": result.get("config_sha256") or None,
        **_training(run, recipe, result),
        "eval_seconds": result.get("eval_seconds"),
        "machine": result["machine"],
        "commit": made.get("git_commit"),
        "date": made.get("date"),
    }


def _training(run: RunFolder, recipe: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """How long and on what a run was trained; all None for weights that were only judged."""
    lines = read_metrics(run.metrics) if run.metrics.is_file() else []
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    best = [line["step"] for line in lines if line["kind"] == "eval" and line.get("best")]
    return {
        "updates": max(steps, default=None),
        "batch_size": recipe.get("trainer", {}).get("batch_size", TrainerOptions.batch_size) if steps else None,
        "best_update": max(best, default=None) if result.get("checkpoint") == "best" else None,
        "train_seconds": result.get("train_seconds") or _seconds_of(run, result.get("weights_sha256")),
    }


def _seconds_of(run: RunFolder, weights: str | None) -> float | None:
    """Training time of weights as another evaluation of them tells it: a later one does not know."""
    others = [read_json(file) for file in run.path.glob("eval/*/result.json")]
    told = [o["train_seconds"] for o in others if o.get("train_seconds") and weights and o["weights_sha256"] == weights]
    return told[0] if told else None


def _parameters(run: RunFolder, result: dict[str, Any]) -> int | None:
    """How many parameters the judged weights hold; BatchNorm's statistics are none."""
    file = run.checkpoints / f"{result.get('checkpoint')}.safetensors"
    if not file.is_file():
        return None
    with safe_open(file, framework="numpy") as weights:
        names = [name for name in weights.keys() if not name.endswith(_STATISTICS)]  # noqa: SIM118 - no mapping
        shapes = [weights.get_slice(name).get_shape() for name in names]
    return sum(_product(shape) for shape in shapes)


def _product(shape: list[int]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def _without_folders(value: Any) -> Any:
    """Plain values with absolute paths cut down to their last part."""
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return _name_of(value) if isinstance(value, str) else value


def _name_of(text: str) -> str:
    return PurePath(text).name if PurePath(text).is_absolute() else text


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    document = collect(arguments.runs, arguments.note, arguments.unfinished)
    write_json(arguments.output, document)
    print(f"{arguments.output}: {len(document['records'])} records")
    return 0


def of_commits(rows: list[dict[str, Any]], now: str) -> str:
    """A sentence for the note of a document whose rows were kept from other commits; nothing where all are of this one.

    Example:
        >>> of_commits([{"commit": "b"}], "b")
        ''
    """
    kept = any(row.get("commit") != now for row in rows)
    return " Rows kept from earlier commits are among these; the last is named." if kept else ""


def read_results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Every results file of a folder by its name without ``.json``, each checked.

    Raises:
        DataError: a file is no JSON or does not keep to the schema.
    """
    found = {}
    for file in sorted(folder.glob("*.json")):
        if file.name == SCHEMA.name:
            continue
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise DataError(f"{file}: is not JSON: {error}") from error
        check(document, str(file))
        found[file.stem] = document
    return found


if __name__ == "__main__":
    run_command(main)
