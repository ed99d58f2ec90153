"""What the pages of results share: how a figure is shown, which runs make a row, what a run cost."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from benchmarks.ablation import spread

Record = dict[str, Any]
Documents = dict[str, dict[str, Any]]

NONE = "–"


@dataclass(frozen=True)
class Figure:
    """How a figure is shown: its column's head, the factor on it, its decimals, and whether more is better."""

    head: str
    factor: float = 1.0
    decimals: int = 3
    higher_is_better: bool = True
    unit: str = ""


def _percent(name: str) -> Figure:
    return Figure(f"{name} %", 100.0, 2, unit=" points")


FIGURES = {
    **{name: _percent(name) for name in ("IoU", "nIoU", "Pd", "pixAcc", "precision", "F1", "accuracy", "top5")},
    **{name: Figure(f"{name} %", 100.0, 1) for name in ("AP", "AP50", "AP75", "APM", "APL", "AR", "PCKh")},
    "Fa": Figure("Fa ×10⁻⁶", 1.0, 1, higher_is_better=False, unit=" ×10⁻⁶"),
    "Fa_legacy": Figure("Fa as older code counts ×10⁻⁶", 1.0, 1, higher_is_better=False),
    "false_regions": Figure("false regions an image", higher_is_better=False),
    "AUC_pixel": Figure("AUC over pixels", decimals=4),
    "AUC_target": Figure("AUC of Pd up to Fa 100 ×10⁻⁶", decimals=4),
    "SCRG": Figure("SCRG, median", decimals=1),
    "BSF": Figure("BSF, median", decimals=2),
    "nll": Figure("NLL, nats", higher_is_better=False),
    "ece": Figure("ECE %", 100.0, 2, higher_is_better=False),
}
COUNTS = ("images", "targets")
"""Figures that count; they are shown whole."""

DETECTION = ("IoU", "nIoU", "Pd", "Fa")
LABELS = {
    "top_hat_9": "top-hat 9×9",
    "top_hat_5": "top-hat 5×5",
    "local_z_score": "local z-score",
    "released_resnet20": "ResNet-20",
    "released_resnet56": "ResNet-56",
    "digits_cnn": "small CNN",
}
NETWORKS = {
    **{f"mamkpd_{size}": f"MamKPD-{size.upper()}" for size in "tsbl"},
    "tf_efficientnet_lite0": "EfficientNet-Lite0",
    "dhrnet": "DHRNet",
    "cid": "CID",
}
"""Pose networks by what a recipe calls them."""


def records_in(documents: Documents) -> list[Record]:
    """Every record of every file of measured runs."""
    return [r for document in documents.values() if document["kind"] == "runs" for r in document["records"]]


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """A Markdown table, its first ``left`` columns aligned left, and an empty line after it."""
    rule = ["---" if place < left else "---:" for place in range(len(head))]
    return [*(f"| {' | '.join(row)} |" for row in [head, rule, *rows]), ""]


def shown(name: str, records: Sequence[Record]) -> str:
    """A figure of one run, or its mean ± sample standard deviation over runs; a dash where one lacks it."""
    values = [value_of(name, record) for record in records]
    if not values or None in values:
        return NONE
    if name in COUNTS:
        return f"{values[0]:,.0f}"
    figure = FIGURES.get(name, Figure(name))
    return spread([value * figure.factor for value in values], figure.decimals)


def value_of(name: str, record: Record) -> float | None:
    """A figure, or one of the counts that evaluations tell in a table of their own; None where it has neither."""
    counts = [bins for bins in record.get("bins") or [] if bins["title"] == "Counts"]
    told = [dict(zip(bins["columns"], bins["rows"][0], strict=True)) for bins in counts]
    found = {**(told[0] if told else {}), **record["metrics"]}.get(name)
    return None if found is None else float(found)


def grouped(records: Iterable[Record], *keys: str) -> list[list[Record]]:
    """Records that agree in some keys together, in the order of their first."""
    found: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        found.setdefault(tuple(record[key] for key in keys), []).append(record)
    return list(found.values())


def root_of(record: Record) -> str:
    """The name of the folder a record's data lie in; of data without a folder, their type."""
    return PurePath(record["data"].get("root") or record["data"]["type"]).name


def is_ablation(record: Record) -> bool:
    """Whether a record is one arm of an ablation, which has a table of its own."""
    return str(record["recipe"]).endswith("_ablation")


def label(record: Record) -> str:
    """What a row is called."""
    network = record.get("network") or {}
    if record["recipe"] in LABELS:
        return LABELS[record["recipe"]]
    if network.get("type") == "tbcnet":
        return f"TBC-Net {network.get('tem', 'lite')}, `{record['recipe']}`"
    named = network.get("model", "") if network.get("type") == "timm_pose" else network.get("type")
    if named == "dhrnet" and network.get("dual_path") is False:
        named = "cid"
    if named in NETWORKS:
        return f"{NETWORKS[named]}, `{record['recipe']}`"
    return f"`{record['recipe']}`"


def parameters(record: Record) -> str:
    """The number of parameters, or a dash."""
    return f"{record['parameters']:,}" if record.get("parameters") else NONE


def seeds_of(records: Sequence[Record]) -> str:
    """The seeds of a row, or a dash where nothing was drawn."""
    return ", ".join(str(record["seed"]) for record in records if record["seed"] is not None) or NONE


def machine(record: Record) -> str:
    """Where a run ran, in a few words."""
    about = record["machine"]
    cpu = f"{about['cpu']}, {about['cores']} cores"
    if "threads" in about:
        cpu += f", {about['threads']} thread{'s' * (about['threads'] > 1)}"
    return ", ".join([*about["gpus"], cpu])


def tests(documents: Documents, wanted: Callable[[Record], bool]) -> list[list[Record]]:
    kept = [r for r in records_in(documents) if r["split"] == "test" and not is_ablation(r) and wanted(r)]
    return grouped(kept, "recipe", "stage", "evaluation")


def published_for(documents: Documents, name: str) -> list[dict[str, Any]]:
    """Published documents on the data set ``name``."""
    return [d for d in documents.values() if d["kind"] == "published" and d["data"]["name"] == name]


def budgets(documents: Documents, groups: list[list[Record]], samples: str = "images") -> list[str]:
    """What the trained rows of a table cost, and what they were chosen on; ``samples`` says what these are."""
    if not groups:
        return []
    rows = []
    for group in groups:
        first = group[0]
        chosen = _beside(documents, first, "val")
        minutes = [record["train_seconds"] / 60 for record in group if record["train_seconds"] is not None]
        rows.append(
            [
                f"`{first['recipe']}`" + (f", stage {first['stage']}" if first["stage"] else ""),
                machine(first),
                f"{first['updates']:,} × {first['batch_size']}",
                ", ".join(f"{record['best_update']:,}" for record in group if record["best_update"]) or NONE,
                spread(minutes, 1) if minutes else NONE,
                f"{chosen['samples']} {samples}" if chosen else NONE,
                f"{first['samples']} {samples}",
                short(first["commit"]),
            ]
        )
    head = ["run", "machine", "updates × batch", "kept after update", "minutes", "chosen on", "tested on", "commit"]
    return [*table(head, rows, left=2), *_notes(documents, groups)]


def _beside(documents: Documents, record: Record, split: str) -> Record | None:
    """The evaluation of the same run on another split."""
    return next(
        (
            other
            for other in records_in(documents)
            if other["evaluation"] == split and all(other[k] == record[k] for k in ("recipe", "stage", "seed"))
        ),
        None,
    )


def _notes(documents: Documents, groups: list[list[Record]]) -> list[str]:
    shown_records = [record for group in groups for record in group]
    told = [
        document["note"]
        for document in documents.values()
        if document["kind"] == "runs" and document["note"] and any(r in shown_records for r in document["records"])
    ]
    return [line for note in dict.fromkeys(told) for line in (note, "")]


def short(digest: str | None) -> str:
    if not digest:
        return NONE
    return f"`{digest[:10]}`" + (" with changes" if digest.endswith("+changes") else "")


def day(date: str | None) -> str:
    return date[:10] if date else NONE
