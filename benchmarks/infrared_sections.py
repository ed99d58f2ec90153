"""The sections of docs/results.md on infrared small targets."""

from collections.abc import Sequence
from typing import Any

from benchmarks.ablation import difference, sentence, signed, spread
from benchmarks.figures import (
    COUNTS,
    DETECTION,
    FIGURES,
    NONE,
    Documents,
    Record,
    budgets,
    grouped,
    is_ablation,
    label,
    parameters,
    published_for,
    records_in,
    root_of,
    seeds_of,
    shown,
    table,
    tests,
    value_of,
)


def sirst_tests(documents: Documents) -> tuple[list[list[Record]], list[list[Record]]]:
    """Runs judged on the SIRST test split: trained ones, and detectors without learning."""
    found = tests(documents, lambda r: root_of(r) == "sirst" and r["data"].get("test_split") == "nuaa50_test")
    return [g for g in found if g[0]["updates"]], [g for g in found if not g[0]["updates"]]


def detection(documents: Documents) -> list[str]:
    trained, classical = sirst_tests(documents)
    rows = [_detection_row(group) for group in [*trained, *classical]]
    ends = {(group[0]["recipe"], group[0]["stage"]) for group in trained}
    stages = tests(documents, lambda r: any(r["recipe"] == recipe and r["stage"] != stage for recipe, stage in ends))
    earlier = [stage for stage in stages if (stage[0]["recipe"], stage[0]["stage"]) not in ends]
    lines = ["## Infrared small targets: SIRST, split nuaa50_test", ""]
    if not trained:
        lines += ["TBC-Net: no finished run has been collected yet.", ""]
    notes = []
    for document in published_for(documents, "sirst"):
        for row in sorted(document["rows"], key=lambda row: row.get("learned", True)):
            figures = [shown(name, [row]) for name in DETECTION]
            rows.append([row["method"], "published", parameters(row), *figures, NONE])
        notes += [f"Published: [{document['source']}]({document['url']}). {document['protocol']}", ""]
    head = ["method", "figures are", "parameters", *(FIGURES[name].head for name in DETECTION), "seeds"]
    return [*lines, *table(head, rows, left=2), *notes, *budgets(documents, [*trained, *earlier])]


def _detection_row(group: list[Record]) -> list[str]:
    figures = [shown(name, group) for name in DETECTION]
    name = label(group[0]) if group[0]["updates"] else f"{label(group[0])} (no learning)"
    return [name, "measured", parameters(group[0]), *figures, seeds_of(group)]


def elsewhere(documents: Documents) -> list[str]:
    """Evaluations on data that no run was trained on: an evaluation with a name of its own."""
    groups = [g for g in tests(documents, lambda r: "IoU" in r["metrics"]) if g[0]["evaluation"] != g[0]["split"]]
    lines = ["## Out of distribution", ""]
    if not groups:
        return [*lines, "Not measured yet.", ""]
    rows = [
        [label(g[0]), root_of(g[0]), str(g[0]["samples"]), *(shown(name, g) for name in DETECTION), seeds_of(g)]
        for g in groups
    ]
    head = ["trained by", "judged on", "images", *(FIGURES[name].head for name in DETECTION), "seeds"]
    return [*lines, "Images of another source, never trained or chosen on.", "", *table(head, rows, left=2)]


def all_figures(documents: Documents) -> list[str]:
    """Every figure of each trained detector, a column an evaluation."""
    lines: list[str] = []
    detectors = [r for r in records_in(documents) if "IoU" in r["metrics"] and r["updates"] and not is_ablation(r)]
    for run in grouped(detectors, "recipe", "stage"):
        columns = sorted(grouped(run, "evaluation"), key=lambda column: column[0]["evaluation"] != column[0]["split"])
        names = {name for record in run for name in record["metrics"]}
        known = [name for name in FIGURES if name in names]
        known += [name for name in COUNTS if any(value_of(name, record) is not None for record in run)]
        heads = [FIGURES[name].head if name in FIGURES else name for name in known]
        rows = [[head, *(shown(name, c) for c in columns)] for head, name in zip(heads, known, strict=True)]
        head = ["figure", *(f"{c[0]['evaluation']} ({root_of(c[0])}, {c[0]['samples']} images)" for c in columns)]
        lines += [f"## All figures of `{run[0]['recipe']}`", "", *table(head, rows)]
    return lines


def bins(documents: Documents) -> list[str]:
    lines: list[str] = []
    for group in sirst_tests(documents)[0]:
        for bins in [b for b in group[0].get("bins", []) if "Pd" in b["columns"]]:
            whose = f"{label(group[0])}, seed {group[0]['seed']}"
            lines += [f"{bins['title']}; {whose}:", ""]
            columns = [_column(values) for values in zip(*bins["rows"], strict=True)]
            lines += table(bins["columns"], zip(*columns, strict=True), left=0)
    return ["## By size and contrast of the target", "", *lines] if lines else []


def _column(values: Sequence[Any]) -> list[str]:
    """Numbers below each other: whole where all are, else with three decimals."""
    whole = all(value is None or float(value).is_integer() for value in values)
    return [NONE if value is None else f"{value:.{0 if whole else 3}f}" for value in values]


def ablations(documents: Documents) -> list[str]:
    lines = ["## Ablation: the semantic constraint", ""]
    pairs = _pairs(documents)
    if not pairs:
        return [*lines, "No finished run has been collected yet.", ""]
    lines += [
        "The same training with and without the frozen SCM's cross-entropy, over the same seeds. Two arms of one seed",
        "start from the same weights and see the same samples in the same order, so that their difference is paired.",
        "The interval is Student's, for the mean of the differences.",
        "",
    ]
    told = [arms_told for pair in pairs for arms_told in _pair(*pair, lines)]
    lines += [verdict(told), "", "The arms are short trainings: they say nothing of longer ones.", ""]
    return [*lines, *budgets(documents, [group for pair in pairs for group in pair])]


def _pairs(documents: Documents) -> list[tuple[list[Record], list[Record]]]:
    """The arms of each ablation: a stage that ends in ``_with``, and the one that ends in ``_without``."""
    arms = [r for r in records_in(documents) if is_ablation(r) and r["evaluation"] == "test" and r["stage"]]
    groups = grouped(arms, "recipe", "stage")
    return [
        (with_it, without)
        for with_it in groups
        for without in groups
        if with_it[0]["stage"].endswith("_with")
        and (without[0]["recipe"], without[0]["stage"]) == (with_it[0]["recipe"], with_it[0]["stage"] + "out")
    ]


def verdict(told: Sequence[bool]) -> str:
    """What all intervals together say; ``told`` is whether each leaves out zero."""
    beyond, total = sum(told), len(told)
    if beyond == 0:
        found = f"None of the {total} intervals leaves out zero: no effect of the constraint is shown, of either sign."
        return f"{found} With so few seeds a small one could not be."
    found = f"{beyond} of the {total} intervals leave{'s' * (beyond == 1)} out zero."
    return f"{found} One in twenty does by chance alone, so that among several a single one is little evidence."


def ablation_in_short(documents: Documents) -> str:
    """The ablation in two sentences, for other pages."""
    pairs = _pairs(documents)
    if not pairs:
        return "Its ablation has not been measured yet."
    told = [shown_it for pair in pairs for shown_it in _pair(*pair, [])]
    losses = " and ".join(f"`{with_it[0]['loss']}`" for with_it, _ in pairs)
    seeds, updates = len(pairs[0][0]), pairs[0][0][0]["updates"]
    over = f"over {seeds} seeds of {updates:,} updates each, judged by {', '.join(DETECTION)}"
    return f"With and without the constraint, under the losses {losses}, {over}. {verdict(told)}"


def _pair(with_it: list[Record], without: list[Record], lines: list[str]) -> list[bool]:
    """Adds the table and the sentences of one pair of arms; whether each figure's interval leaves out zero."""
    arms = [{record["seed"]: record for record in group} for group in (with_it, without)]
    rows = [
        [name, *(shown(figure, group) for figure in DETECTION), seeds_of(group)]
        for name, group in (("with", with_it), ("without", without))
    ]
    sentences, beyond, changes = [], [], []
    for name in DETECTION:
        figure = FIGURES[name]
        values = [{seed: r["metrics"][name] * figure.factor for seed, r in arm.items()} for arm in arms]
        found = difference(*values)
        deviation = "" if found.std is None else f" ± {found.std:.{figure.decimals}f}"
        changes.append(signed(found.mean, figure.decimals) + deviation)
        sentences.append(f"- {sentence(name, found, figure.decimals, figure.unit, figure.higher_is_better)}")
        beyond.append(found.shown)
    rows.append(["with − without, paired", *changes, ""])
    lines += [f"### Loss `{with_it[0]['loss']}`", ""]
    lines += table(["SCM", *(FIGURES[name].head for name in DETECTION), "seeds"], rows)
    lines += [*sentences, ""]
    return beyond


def counting(documents: Documents) -> list[str]:
    """How well the SCM counts, before it is frozen."""
    counting = [r for r in records_in(documents) if r["data"]["type"] == "scm_scenes" and r["evaluation"] == "test"]
    if not counting:
        return []
    groups = grouped(counting, "recipe", "stage")
    classes = sorted({name for r in counting for name in r["metrics"] if name.startswith("accuracy_")})
    rows = [
        [
            f"`{g[0]['recipe']}`", f"{g[0]['updates']:,} × {g[0]['batch_size']}", str(g[0]["samples"]),
            shown("accuracy", g), *(_percent_of(name, g) for name in classes), seeds_of(g),
        ]
        for g in groups
    ]  # fmt: skip
    names = [name.removeprefix("accuracy_") for name in classes]
    names[-1:] = [f"{names[-1]} or more"] if names else []
    head = ["run", "updates × batch", "scenes", "accuracy %", *(f"of count {name}, %" for name in names), "seeds"]
    about = "Fresh synthetic target images, the classes equally likely; this says nothing about real ones."
    return ["## The semantic constraint module: counting targets", "", about, "", *table(head, rows)]


def _percent_of(name: str, group: list[Record]) -> str:
    values = [record["metrics"].get(name) for record in group]
    return NONE if None in values else spread([100 * value for value in values], 1)
