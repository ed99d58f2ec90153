"""docs/results.md and the README's table of figures, written from results files; no figure stands in this file."""

from math import sqrt
from typing import Any

from benchmarks import infrared_sections as infrared
from benchmarks.distillation_sections import distillation, distillation_rows, is_distillation
from benchmarks.figures import (
    NONE,
    Documents,
    Record,
    budgets,
    day,
    grouped,
    label,
    parameters,
    published_for,
    root_of,
    seeds_of,
    short,
    shown,
    table,
    tests,
)
from benchmarks.pose_sections import poses, readme_rows
from benchmarks.robust_sections import readme_rows as robust_rows
from benchmarks.single_stage_sections import relations
from benchmarks.spiking_sections import is_spiking, spiking
from benchmarks.spiking_sections import readme_rows as spiking_rows

INTRODUCTION = """# Results

<!-- Written by benchmarks/tables.py from benchmarks/results/*.json; change those, then run `make docs`. -->

Every figure here is read from [benchmarks/results](../benchmarks/results). *Measured* figures were gathered from run
folders of this package (`benchmarks/collect.py`); *published* ones were copied from their source, once, and are marked.
A ± is the sample standard deviation over seeds; a row with one seed has none, and how much it would change with another
seed is then not known. Checkpoints are chosen on a part of the training split that is held out; the test split is
judged once, at the end. Minutes are wall-clock time of training with its evaluations, on the machine named.
"""


def results_page(documents: Documents) -> str:
    """The whole of docs/results.md."""
    lines = [*INTRODUCTION.splitlines(), ""]
    for section in SECTIONS:
        lines += section(documents)
    return "\n".join([*lines, *_provenance(documents)]).rstrip() + "\n"


def classifiers(documents: Documents) -> list[list[Record]]:
    """Runs and weights judged as classifiers of clean images, on their test splits; others have their own sections."""
    return tests(
        documents,
        lambda r: (
            {"accuracy", "robust_accuracy"} & set(r["metrics"]) == {"accuracy"}
            and r["data"]["type"] != "scm_scenes"
            and not is_distillation(r)
            and not is_spiking(r)
        ),
    )


def published_accuracy(documents: Documents, record: Record) -> tuple[float, dict[str, Any]] | None:
    """What the weights of a record are published to reach, and where."""
    for document in published_for(documents, root_of(record)):
        for row in document["rows"]:
            if row["method"] == record["recipe"]:
                return row["metrics"]["accuracy"], document
    return None


def _classification(documents: Documents) -> list[str]:
    lines, rows, sources = ["## Classification", ""], [], []
    for group in classifiers(documents):
        first = group[0]
        published = published_accuracy(documents, first)
        if published:
            sources += [f"Published: [{published[1]['source']}]({published[1]['url']}). {published[1]['protocol']}", ""]
        rate = sum(record["metrics"]["accuracy"] for record in group) / len(group)
        error = 100 * sqrt(rate * (1 - rate) / first["samples"])
        rows.append(
            [
                label(first), f"{root_of(first)}, {first['samples']} test images",
                "trained here" if first["updates"] else "released", parameters(first), shown("accuracy", group),
                f"{error:.2f}", shown("nll", group), shown("ece", group), seeds_of(group),
                f"{100 * published[0]:.2f}" if published else NONE,
            ]
        )  # fmt: skip
    head = [
        "network", "data", "weights", "parameters", "accuracy %", "standard error", "NLL, nats", "ECE %", "seeds",
        "published accuracy %",
    ]  # fmt: skip
    about = "The standard error is that of a share counted on so many images, in points; seeds come on top of it."
    if not rows:
        return [*lines, "Not measured yet.", ""]
    trained = [group for group in classifiers(documents) if group[0]["updates"]]
    return [*lines, *table(head, rows, left=3), about, "", *dict.fromkeys(sources), *budgets(documents, trained)]


SECTIONS = (
    infrared.detection,
    infrared.elsewhere,
    infrared.all_figures,
    infrared.bins,
    infrared.ablations,
    infrared.counting,
    poses,
    relations,
    _classification,
    spiking,
    distillation,
)


def _provenance(documents: Documents) -> list[str]:
    rows = []
    for name, document in documents.items():
        file = f"[{name}.json](../benchmarks/results/{name}.json)"
        if document["kind"] != "runs":
            made, origin = day(document.get("date")), document.get("url") or document.get("command") or NONE
            count = len(document["cases"] if document["kind"] == "reliability" else document["rows"])
            rows.append([file, document["kind"], str(count), made, origin, NONE, NONE, NONE])
            continue
        for group in grouped(document["records"], "recipe", "stage"):
            first = group[0]
            rows.append(
                [
                    file, "measured", str(len(group)), day(first["date"]),
                    f"`{first['recipe']}`" + (f"/{first['stage']}" if first["stage"] else ""),
                    _each(group, "config_sha256"), _each(group, "weights_sha256"), _each(group, "commit"),
                ]
            )  # fmt: skip
    head = ["file", "figures are", "records", "date", "of", "recipe sha256", "weights sha256", "commit"]
    return ["## Where the figures come from", "", *table(head, rows, left=8)]


def _each(group: list[Record], key: str) -> str:
    return ", ".join(dict.fromkeys(short(record[key]) for record in group))


def readme_block(documents: Documents) -> str:
    """The README's table: a part of docs/results.md, in which no figure of ours is chosen by how good it is.

    Of infrared detectors the trained one, the best without learning and the published one; every pose network; the
    first classifier trained here and the first with released weights; the first comparison of spiking rules; every
    comparison of teachers and every adversarial training.
    """
    trained, classical = infrared.sirst_tests(documents)
    rows = []
    for group in trained[:1] or [[]]:
        name = label(group[0]) if group else "TBC-Net"
        figures = _in_words(group) if group else "no finished run has been collected yet"
        where = f"SIRST, {group[0]['samples']} test images" if group else "SIRST"
        rows.append([name, where, figures])
    best = sorted(classical, key=lambda group: -group[0]["metrics"]["IoU"])[:1]
    rows += [[f"{label(g[0])}, no learning", f"SIRST, {g[0]['samples']} test images", _in_words(g)] for g in best]
    for document in published_for(documents, "sirst"):
        row = next((row for row in document["rows"] if row["method"] == "ACM"), document["rows"][0])
        where = f"SIRST, {document['data']['samples']} test images"
        rows.append([f"{row['method']}, *published* by BasicIRSTD", where, _in_words([row])])
    rows += readme_rows(documents)
    found = classifiers(documents)
    for kind, groups in (
        ("trained here", [group for group in found if group[0]["updates"]]),
        ("released weights", [group for group in found if not group[0]["updates"]]),
    ):
        for group in groups[:1]:
            published = published_accuracy(documents, group[0])
            told = f"accuracy {shown('accuracy', group)} %"
            if published:
                told += f" (*published* {100 * published[0]:.2f} % on {published[1]['data']['samples']:,} images)"
            where = f"{root_of(group[0])}, {group[0]['samples']} test images"
            rows.append([f"{label(group[0])}, {kind}", where, told + _over_seeds(group)])
    rows += spiking_rows(documents)
    rows += distillation_rows(documents)
    rows += robust_rows(documents)
    return "\n".join(table(["what", "judged on", "figures"], rows, left=3)).rstrip()


def _in_words(group: list[Any]) -> str:
    told = f"IoU {shown('IoU', group)} %, Pd {shown('Pd', group)} %, Fa {shown('Fa', group)} ×10⁻⁶"
    return told + _over_seeds(group)


def _over_seeds(group: list[Any]) -> str:
    return f", {len(group)} seeds" if len(group) > 1 else ", one seed" if group[0].get("updates") else ""
