"""A model card: a short Markdown page on what was trained, on what, and what was measured, from a run folder."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import yaml
from safetensors import SafetensorError, safe_open

from vision.engine.errors import CheckpointError
from vision.engine.files import make_folder, write_atomically
from vision.engine.recorder import duration
from vision.engine.run import RunFolder
from vision.report.runs import Group, Run, evaluation_names, group_by_seed, read_runs
from vision.report.tables import NONE, number, plus_minus


def write_card(run: Path, output: Path | None = None) -> Path:
    """Writes the card of a run folder; of a pipeline or a recipe over seeds, that of every recipe in it.

    Args:
        run: the folder.
        output: the Markdown file; by default ``card.md`` in the folder.

    Returns:
        The file.

    Raises:
        UserError: the folder is no run, or a file in it is broken.
    """
    output = output or run / "card.md"
    groups = group_by_seed(read_runs([run]))
    make_folder(output.resolve().parent)
    write_atomically(output, "\n".join(card(group) for group in groups).encode())
    return output


def card(group: Group) -> str:
    """The card of one recipe, trained once or with several seeds."""
    first = group.runs[0]
    lines = [f"# {group.label}", ""]
    if first.recipe.get("description"):
        lines += [str(first.recipe["description"]), ""]
    lines += ["## What it is", "", *_what(group), ""]
    lines += ["## Data", "", "```yaml", yaml.safe_dump(first.recipe.get("data"), sort_keys=False).strip(), "```", ""]
    lines += ["## Figures", "", *_figures(group), ""]
    lines += ["## How it was trained", "", *_training(group), ""]
    lines += ["## Limits", "", *(f"- {limit}" for limit in limits(group)), ""]
    return "\n".join(lines)


def _what(group: Group) -> list[str]:
    first = group.runs[0]
    task = first.recipe.get("task") or {}
    lines = [f"- Task: `{task.get('type', NONE)}`"]
    options = {key: value for key, value in task.items() if key != "type"}
    if options:
        lines.append(f"- Options: `{json.dumps(options, default=str)}`")
    weights = next((file for run in group.runs for file in (_weights(run),) if file is not None), None)
    if weights is not None:
        tensors, values, size = count_values(weights)
        lines.append(
            f"- Weights: `{weights.name}`, {size / 1e6:.1f} MB, {number(values)} values in {tensors} tensors "
            "(parameters and buffers)"
        )
    return lines


def _weights(run: Run) -> Path | None:
    folder = RunFolder(run.folder)
    return next((file for file in (folder.best, folder.last) if file.is_file()), None)


def count_values(weights: Path) -> tuple[int, int, int]:
    """How many tensors and values a weights file holds, and its size in bytes; only its header is read.

    Raises:
        CheckpointError: the file is no safetensors file.
    """
    try:
        with safe_open(weights, framework="numpy") as file:
            sizes = [math.prod(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{weights}: cannot be read as safetensors: {error}") from error
    return len(sizes), sum(sizes), weights.stat().st_size


def _figures(group: Group) -> list[str]:
    if not any(run.results for run in group.runs):
        return ["Not evaluated yet."]
    seeds = ", ".join(str(run.seed) for run in group.runs if run.seed is not None)
    lines = ["| evaluation | split | samples | figure | value |", "|---|---|---:|---|---:|"]
    for name in evaluation_names(group.runs):
        judged = [run for run in group.runs if name in run.results]
        result = judged[0].results[name]
        for metric in result["metrics"]:
            values = [run.results[name]["metrics"].get(metric) for run in judged]
            value = plus_minus(values) if len(values) > 1 else number(values[0])
            shown = f"**{metric}**" if metric == judged[0].primary(name) else metric
            samples = number(judged[0].samples(name, metric))
            lines.append(f"| {name} | {result.get('split', NONE)} | {samples} | {shown} | {value} |")
    kept = {str(r.get("checkpoint")) for run in group.runs for r in run.results.values() if r.get("checkpoint")}
    spread = "; ± is the sample standard deviation over them" if len(group.runs) > 1 else ""
    weights = f" Weights: {', '.join(sorted(kept))}." if kept else ""
    seeded = f" Seed {seeds}{spread}." if seeds else ""
    return [*lines, "", f"Bold: what the evaluation is judged by.{seeded}{weights}"]


def _training(group: Group) -> list[str]:
    lines = []
    for run in group.runs:
        made = run.environment or {}
        machine = ", ".join(map(str, [*(made.get("gpus") or []), f"{made.get('cpu')} ({made.get('cores')} cores)"]))
        versions = made.get("versions") or {}
        told = [f"seed {run.seed}"] if run.seed is not None else []
        if run.train_seconds is not None:
            told.append(f"{duration(run.train_seconds)} of training")
        if run.best is not None:
            told.append(f"best at epoch {run.best['epoch']:g}")
        if made:
            told += [machine, f"torch {versions.get('torch')}", f"triptych {versions.get('triptych') or 'from source'}"]
        if made.get("git_commit"):
            commit, changes, _ = str(made["git_commit"]).partition("+")
            told.append(f"commit `{commit[:12]}`" + (" with changes" if changes else ""))
        lines.append(f"- {', '.join(told)}; recipe `{run.config_hash}`")
    return lines


def limits(group: Group) -> list[str]:
    """What the figures do not show, as far as the run folders tell."""
    runs, names = group.runs, evaluation_names(group.runs)
    found: list[str] = []
    if not names:
        return ["Nothing was measured; nothing is known about how well it does."]
    if len(runs) == 1:
        found.append("One seed: how much the figures vary from training to training is not known.")
    splits = {str(result.get("split", name)) for run in runs for name, result in run.results.items()}
    if "val" in splits and any(run.best is not None for run in runs):
        found.append("The weights were chosen on the validation split, so its figures flatter them.")
    if "test" not in splits:
        found.append("No test split was judged: there is no figure on data that played no part in training.")
    if any(run.recipe.get("trainer", {}).get("overfit_one_batch") for run in runs):
        found.append("Trained on one batch as a check of the training itself; the figures say nothing beyond that.")
    small = _smallest(runs)
    if small is not None and small < 1000:
        found.append(f"The smallest evaluation has {small} samples: differences of about 1/{small} are single samples.")
    found.append("Nothing was measured on data from elsewhere, other than what the table names.")
    return found


def _smallest(runs: Sequence[Run]) -> int | None:
    sizes = [result["samples"] for run in runs for result in run.results.values() if result.get("samples")]
    return min(sizes, default=None)
