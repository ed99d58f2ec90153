"""Tables of robust training: best and last weights under attack, and whether the papers' claims were seen."""

from statistics import fmean
from typing import Any

from benchmarks.ablation import spread
from benchmarks.figures import NONE, Documents, Record, grouped, machine, root_of, seeds_of, table

ATTACKS = {"clean": "clean", "pgd20": "PGD-20", "autoattack": "AutoAttack"}
METHODS = {
    "at": "AT", "pgd_at": "AT", "teacher": "AT (teacher)", "kd_at": "KD-AT", "kd_at_auto": "KD-AT-Auto", "fgsm": "FGSM",
    "apart": "APART", "trades": "TRADES", "student": "student", "friendly": "friendly half", "random": "random half",
    "problematic": "problematic half",
}  # fmt: skip
JUDGE = "judge"
README = "robust_cifar10"
"""Files whose rows the README shows."""

Group = dict[str, list[Record]]
"""Records of one judging stage by checkpoint, a seed each, in the same order."""


def robust_block(name: str, documents: Documents) -> str:
    """What the files ``NAME*.json`` hold of networks judged under attack, and what it says of the claims."""
    files = {key: document for key, document in documents.items() if key.startswith(name)}
    groups = judged(files)
    if not groups:
        return "Not measured yet."
    rows = [[method(stage), *_figures(group), seeds_of(group["best"])] for stage, group in groups.items()]
    head = ["training"]
    for attack in ATTACKS.values():
        head += [f"{attack}: best %", "last %", "difference"]
    lines = table([*head, "seeds"], rows, left=1)
    notes = dict.fromkeys(d["note"] for d in files.values() if d.get("note"))
    return "\n".join([*lines, _about(groups), "", *_claims(groups, documents), "", *notes]).rstrip()


def readme_rows(documents: Documents) -> list[list[str]]:
    """Rows of the README's table: what, judged on what, best and last weights under PGD-20 and AutoAttack."""
    rows = []
    for key, group in judged({name: d for name, d in documents.items() if name.startswith(README)}).items():
        cells = _figures(group)
        told = [
            f"{attack} {best} % best, {last} % last weights"
            for attack, best, last in zip(list(ATTACKS.values())[1:], cells[3::3], cells[4::3], strict=True)
            if best != NONE
        ]
        first, seeds = group["best"][0], len(group["best"])
        few = first["metrics"].get("autoattack_images")
        where = (
            f"{root_of(first)}, {first['samples']} test images{f' ({few:.0f} by AutoAttack)' if few else ''}, attacked"
        )
        rows.append([method(key), where, "; ".join(told) + (f", {seeds} seeds" if seeds > 1 else ", one seed")])
    return rows


def judged(documents: Documents) -> dict[tuple[str, str], Group]:
    """By recipe and stage: best and last weights of the seeds that have both."""
    records = [r for d in documents.values() if d["kind"] == "runs" for r in d["records"]]
    found: dict[tuple[str, str], Group] = {}
    for group in grouped([r for r in records if _stage(r).startswith(JUDGE)], "recipe", "stage"):
        sides = {side: {r["seed"]: r for r in group if r["evaluation"] == side} for side in ("best", "last")}
        seeds = sorted(set(sides["best"]) & set(sides["last"]))
        if seeds:
            key = (group[0]["recipe"], _stage(group[0]))
            found[key] = {side: [of[seed] for seed in seeds] for side, of in sides.items()}
    order = list(METHODS)
    return dict(sorted(found.items(), key=lambda each: order.index(n) if (n := _name(each[0])) in order else 99))


def _stage(record: Record) -> str:
    return str(record["stage"] or "").rpartition("/")[2]


def method(key: tuple[str, str]) -> str:
    """What a row is called: the judged stage's method, or the recipe's where the stage is just ``judge``."""
    name = _name(key)
    told = METHODS.get(name, name.replace("_", " "))
    return f"{told}, `{key[0]}`" if name in ("teacher", "student") else told


def _name(key: tuple[str, str]) -> str:
    recipe, stage = key
    return stage.removeprefix(JUDGE).removeprefix("_") or recipe.partition("_cifar10")[0]


def differences(group: Group, figure: str) -> list[float] | None:
    """Best minus last of each seed; None where one lacks the figure."""
    pairs = [[r["metrics"].get(figure) for r in pair] for pair in zip(group["best"], group["last"], strict=True)]
    return None if any(None in pair for pair in pairs) else [best - last for best, last in pairs]


def _figures(group: Group) -> list[str]:
    cells = []
    for attack in ATTACKS:
        gap = differences(group, attack)
        if gap is None:
            cells += [NONE] * 3
            continue
        for side in ("best", "last"):
            cells.append(spread([100 * r["metrics"][attack] for r in group[side]], 1))
        cells.append(spread([100 * value for value in gap], 1))
    return cells


def _about(groups: dict[tuple[str, str], Group]) -> str:
    first = next(iter(groups.values()))["best"][0]
    few = first["metrics"].get("autoattack_images")
    some = f"; AutoAttack on the first {few:.0f}" if few else ""
    trained = f"{first['parameters']:,} parameters, {first['data'].get('limit') or 'all'} training images"
    return (
        f"On {first['samples']:,} test images{some}; {trained}. *Best* is the checkpoint of highest PGD-10 accuracy on "
        "validation images; differences are in points, best less last of the same seed, mean ± sample standard "
        f"deviation over seeds. {machine(first)}."
    )


def _claims(groups: dict[tuple[str, str], Group], documents: Documents) -> list[str]:
    """Both claims, in words that follow from the figures."""
    by_name = {method(key): group for key, group in groups.items()}
    lines = [_gaps(by_name, name, attack) for name in ("KD-AT-Auto", "KD-AT") for attack in ("pgd20", "autoattack")]
    lines += [_collapse(by_name, attack) for attack in ("pgd20", "autoattack")]
    lines.append(_cost(documents.get("robust_steps")))
    return [f"- {line}" for line in lines if line]


def _gaps(by_name: dict[str, Group], name: str, attack: str) -> str:
    """Whether the calibrated student's difference is smaller than that of AT, on the seeds that both have."""
    if name not in by_name or "AT" not in by_name:
        return ""
    ours, theirs = _by_seed(by_name[name], attack), _by_seed(by_name["AT"], attack)
    seeds = [seed for seed in ours if seed in theirs]
    if not seeds:
        return ""
    mine, other = (100 * fmean(of[seed] for seed in seeds) for of in (ours, theirs))
    smaller = sum(ours[seed] < theirs[seed] for seed in seeds)
    seen = "seen" if smaller == len(seeds) else "seen on average only" if mine < other else "not seen"
    return (
        f"{name} overfits less than AT under {ATTACKS[attack]}: **{seen}**. Its difference is {mine:.1f} points "
        f"against {other:.1f}, smaller in {smaller} of {len(seeds)} seeds."
    )


def _by_seed(group: Group, attack: str) -> dict[Any, float]:
    values = differences(group, attack)
    return {} if values is None else dict(zip([r["seed"] for r in group["best"]], values, strict=True))


def _collapse(by_name: dict[str, Group], attack: str) -> str:
    """Whether APART's last weights are no worse than those of FGSM."""
    if "APART" not in by_name or "FGSM" not in by_name:
        return ""
    values = [[r["metrics"].get(attack) for r in by_name[name]["last"]] for name in ("APART", "FGSM")]
    if any(None in each for each in values):
        return ""
    ours, theirs = (100 * fmean(each) for each in values)
    dropped = differences(by_name["FGSM"], attack) or [0.0]
    how = f"FGSM lost {100 * fmean(dropped):.1f} points from its best weights to its last"
    seen = "seen" if ours >= theirs else "not seen"
    return (
        f"APART ends no worse than FGSM under {ATTACKS[attack]}: **{seen}**. Last weights: {ours:.1f} % against "
        f"{theirs:.1f} %; {how}."
    )


def _cost(document: dict[str, Any] | None) -> str:
    rows = [] if document is None else [r for r in document["rows"] if r["what"].startswith("APART")]
    row = next((r for r in rows if r["against"] == "PGD-10 AT"), None)
    if row is None:
        return "What a step of APART costs beside PGD-10 has not been timed yet."
    seen = "seen" if row["ratio"] <= row["aim"] else "not seen"
    return (
        f"A step of APART costs at most {row['aim']:g} of one of PGD-10 AT: **{seen}**, {row['ratio']:.2f} of it "
        "([performance.md](performance.md))."
    )
