"""The ablation of DHRNet's dual path on the pages: CID and both attention modes beside each other."""

from benchmarks.ablation import difference, sentence
from benchmarks.figures import (
    FIGURES,
    Documents,
    Record,
    budgets,
    grouped,
    is_ablation,
    parameters,
    records_in,
    seeds_of,
    shown,
    table,
)
from benchmarks.pose_sections import DATA, PRECISION, UNMEASURED, where

JUDGED_BY = ("AP", "AR")


def arms(documents: Documents) -> list[list[Record]]:
    """The arms of ablations of single-stage networks on their test splits, each over its seeds."""
    kept = [
        r
        for r in records_in(documents)
        if is_ablation(r) and r["evaluation"] == "test" and r["data"]["type"] == DATA["single_stage"]
    ]
    return grouped(kept, "recipe", "stage")


def named(record: Record) -> str:
    """What an arm is, by its network."""
    network = record.get("network") or {}
    if network.get("type") == "cid" or network.get("dual_path") is False:
        return "CID, no dual path"
    return f"DHRNet, attention `{network.get('attention', 'release')}`"


def relations(documents: Documents) -> list[str]:
    """The section of docs/results.md."""
    found = arms(documents)
    lines = ["## Ablation: the dual path of DHRNet", "", *_tables(found)]
    return [*lines, *budgets(documents, found)]


def relations_block(_: str, documents: Documents) -> str:
    """The tables for DHRNet's own page."""
    return "\n".join(_tables(arms(documents))).rstrip()


def _tables(found: list[list[Record]]) -> list[str]:
    if not found:
        return [UNMEASURED, ""]
    lines: list[str] = []
    for each in grouped([record for arm in found for record in arm], "recipe"):
        own = grouped(each, "stage")
        rows = [[named(arm[0]), parameters(arm[0]), *(shown(n, arm) for n in PRECISION), seeds_of(arm)] for arm in own]
        lines += [f"`{each[0]['recipe']}`, judged on {where(each[0])}:", ""]
        lines += table(["network", "parameters", *(FIGURES[n].head for n in PRECISION), "seeds"], rows)
        lines += _differences(own)
    return lines


def _differences(own: list[list[Record]]) -> list[str]:
    """What each arm with a dual path changes against the one without, figure by figure."""
    without = next((arm for arm in own if named(arm[0]).startswith("CID")), None)
    if without is None:
        return []
    told = []
    for arm in own:
        if arm is without:
            continue
        for name in JUDGED_BY:
            figure = FIGURES[name]
            values = [{r["seed"]: figure.factor * r["metrics"][name] for r in rows} for rows in (arm, without)]
            if not values[0].keys() & values[1].keys():
                continue
            change = sentence(name, difference(*values), figure.decimals, " points", figure.higher_is_better)
            told.append(f"- {named(arm[0])}, {change}")
    return [*told, ""] if told else []
