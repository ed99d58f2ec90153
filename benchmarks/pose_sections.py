"""Measured runs of pose networks: sections of docs/results.md, rows of the README, and tables for their own pages."""

from pathlib import PurePath
from typing import Any

from benchmarks.figures import (
    FIGURES,
    NONE,
    Documents,
    Record,
    budgets,
    label,
    parameters,
    root_of,
    seeds_of,
    shown,
    table,
    tests,
)

PRECISION = ("AP", "AP50", "AP75", "APM", "APL", "AR")
KINDS = ("good", "jitter", "inversion", "swap", "miss")
DATA = {"top_down": "coco_pose", "single_stage": "pose_images"}
"""Data blocks of the two ways to find people: boxes first, or everybody at once."""

PAGES = {"top_down": "pose.md", "single_stage": "dhrnet.md"}
UNMEASURED = "No finished run has been collected yet."


def runs(documents: Documents, way: str, overfit: bool) -> list[list[Record]]:
    """Trained pose networks judged on their test splits; with ``overfit`` those judged on what they were trained on."""
    found = tests(documents, lambda r: r["data"]["type"] == DATA[way] and "AP" in r["metrics"] and bool(r["updates"]))
    return [group for group in found if bool(group[0]["data"].get("overfit")) is overfit]


def poses(documents: Documents) -> list[str]:
    """The sections of both ways."""
    lines: list[str] = []
    for way, title in (("top_down", "Pose, top-down"), ("single_stage", "Pose, single-stage")):
        lines += [f"## {title}", "", *_tables(documents, way)]
        both = [*runs(documents, way, overfit=False), *runs(documents, way, overfit=True)]
        lines += [*_errors(both), *budgets(documents, both, "people" if way == "top_down" else "images")]
        lines += [f"What others publish: [{PAGES[way]}]({PAGES[way]}#what-others-publish).", ""]
    return lines


def poses_block(way: str, documents: Documents) -> str:
    """The tables of one way for another page."""
    return "\n".join(_tables(documents, way)).rstrip()


def _tables(documents: Documents, way: str) -> list[str]:
    judged, overfit = (runs(documents, way, overfit=kind) for kind in (False, True))
    lines = [] if judged or overfit else [UNMEASURED, ""]
    head = ["network", "begins from", "judged on", "parameters", *(FIGURES[n].head for n in PRECISION), "seeds"]
    if judged:
        lines += [*table(head, [_row(group) for group in judged], left=3)]
    if overfit:
        told = "Judged on the very people that were trained on, which shows that all parts agree and nothing else:"
        lines += [told, "", *table(head, [_row(group) for group in overfit], left=3)]
    return lines


def _row(group: list[Record]) -> list[str]:
    first = group[0]
    figures = [shown(name, group) for name in PRECISION]
    return [label(first), beginning(first["network"] or {}), where(first), parameters(first), *figures, seeds_of(group)]


def where(record: Record) -> str:
    """What a pose network was judged on, in words."""
    data = record["data"]
    single = data["type"] == DATA["single_stage"]
    what = f"{record['samples']} {'images' if single else 'people' if _in_true_boxes(data) else 'boxes of a detector'}"
    if data.get("overfit"):
        return f"{root_of(record)}, the {what} it was trained on"
    boxes = ", true boxes" if not single and _in_true_boxes(data) else ""
    return f"{root_of(record)}, {data.get('test_split', 'val2017')}, {what}{boxes}"


def _in_true_boxes(data: dict[str, Any]) -> bool:
    return str(data.get("boxes", "truth")) == "truth"


def beginning(network: dict[str, Any]) -> str:
    """What training began from, as the recipe of a network says."""
    for key in ("backbone_weights", "weights"):
        if network.get(key):
            given = str(network[key])
            return "ImageNet" if "imagenet" in given.lower() else f"`{PurePath(given).name}`"
    return "timm's weights" if network.get("pretrained") else "scratch"


def _errors(groups: list[list[Record]]) -> list[str]:
    """What became of the labelled joints of people that were found, as shares of a first seed."""
    rows = []
    for group in groups:
        for bins in group[0].get("bins", []):
            if tuple(bins["columns"][-len(KINDS) :]) == KINDS and bins["rows"][-1][1]:
                shares = [NONE if share is None else f"{100 * share:.1f}" for share in bins["rows"][-1][-len(KINDS) :]]
                rows.append([label(group[0]), str(bins["rows"][-1][1]), *shares])
    if not rows:
        return []
    about = "Labelled joints of the people that a pose was matched to, by what became of them, %:"
    return [about, "", *table(["network", "joints", *KINDS], rows, left=1)]


def readme_rows(documents: Documents) -> list[list[str]]:
    """Rows of the README's table."""
    rows = []
    for way in DATA:
        for overfit in (False, True):
            for group in runs(documents, way, overfit):
                began = beginning(group[0]["network"] or {})
                origin = "" if overfit or began == "scratch" else f", from {began}"
                seeds = f", {len(group)} seeds" if len(group) > 1 else ", one seed"
                figures = f"AP {shown('AP', group)} %, AP50 {shown('AP50', group)} %{seeds}"
                rows.append([f"{label(group[0])}{origin}", where(group[0]), figures])
    return rows
