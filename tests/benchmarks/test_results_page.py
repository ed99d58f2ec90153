"""docs/results.md: every figure on it comes from a results file, and the files it shows are the committed ones."""

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.collect import check, read_results
from benchmarks.infrared_sections import ablation_in_short, verdict
from benchmarks.results_page import readme_block, results_page
from tests.benchmarks.folders import MACHINE, SHA

LINK = re.compile(r"https?://\S+")
FIGURE = re.compile(r"[−+]?\d[\d,]*\.\d+")


def record(stage: str | None, seed: int | None, metrics: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "recipe": "tbcnet_lite_sirst",
        "stage": stage,
        "seed": seed,
        "evaluation": "test",
        "split": "test",
        "data": {"type": "infrared_folder", "root": "../shared/data/sirst", "test_split": "nuaa50_test"},
        "samples": 214,
        "metrics": metrics,
        "bins": [],
        "primary": "IoU",
        "mode": "max",
        "network": {"type": "tbcnet", "tem": "lite"},
        "loss": "softiou",
        "parameters": 125937,
        "checkpoint": "best",
        "weights_sha256": SHA["b"],
        "config_sha256": SHA["a"],
        "updates": 10000,
        "batch_size": 8,
        "best_update": 9000,
        "train_seconds": 2400.0,
        "eval_seconds": 10.0,
        "machine": MACHINE,
        "commit": "0" * 40,
        "date": "2026-01-02T03:04:05+00:00",
        **more,
    }


def detection(iou: float, pd: float = 0.9, fa: float = 25.0) -> dict[str, float]:
    return {"IoU": iou, "nIoU": iou + 0.01, "Pd": pd, "Fa": fa}


@pytest.fixture
def documents() -> dict[str, dict[str, Any]]:
    """What a whole set of runs leaves: the trained detector, elsewhere, the ablation, the SCM."""
    bins = {"type": "bins", "title": "Pd by size", "columns": ["from", "below", "targets", "found", "Pd"],
            "rows": [[0.0, 9.0, 8, 6, 0.75], [9.0, None, 0, 0, None]]}  # fmt: skip
    hero = record("tem", 0, detection(0.6512, 0.9411, 31.5), bins=[bins])
    trained = [
        hero,
        {**hero, "evaluation": "val", "split": "val", "samples": 43, "metrics": detection(0.7)},
        record("tem", 0, detection(0.3333), evaluation="msistd80", samples=80,
               data={"type": "infrared_folder", "root": "../shared/data/msistd80", "test_split": "all"}),
        record("scm", 0, {"accuracy": 0.953, "accuracy_0": 1.0, "accuracy_4": 0.905},
               data={"type": "scm_scenes"}, network={"type": "scm"}, loss=None, samples=640),
    ]  # fmt: skip
    arms = [
        record(stage, seed, detection(iou, fa=100 * iou), recipe="tbcnet_lite_sirst_ablation", loss=stage.split("_")[0])
        for stage, ious in {
            "softiou_with": (0.51, 0.50, 0.52),
            "softiou_without": (0.50, 0.51, 0.53),
            "paper_with": (0.40, 0.42, 0.41),
            "paper_without": (0.10, 0.11, 0.12),
        }.items()
        for seed, iou in enumerate(ious)
    ]
    published = {name: d for name, d in read_results().items() if d["kind"] == "published"}
    found = {
        "hero": {"kind": "runs", "note": "Two runs at once.", "records": trained},
        "ablation": {"kind": "runs", "note": "", "records": arms},
        "speed": {
            "kind": "comparison", "title": "Overhead of the trainer", "command": "python x.py", "unit": "ms an update",
            "better": "lower", "machine": MACHINE, "commit": None, "date": "2026-01-02T00:00:00+00:00",
            "rows": [
                {"what": "digits", "against": "a bare loop", "ours": 2.04, "theirs": 2.0, "ratio": 1.02, "aim": 1.03}
            ],
        },
        **published,
    }  # fmt: skip
    for name, document in found.items():
        check(document, name)
    return found


def test_a_trained_detector_stands_beside_the_published_ones(documents: dict[str, dict[str, Any]]) -> None:
    page = results_page(documents).splitlines()
    ours = "| TBC-Net lite, `tbcnet_lite_sirst` | measured | 125,937 | 65.12 | 66.12 | 94.11 | 31.5 | 0 |"
    assert ours in page
    assert "| ACM | published | 398,000 | 69.44 | – | 92.02 | 22.7 | – |" in page
    assert page.index(ours) < page.index("| Top-Hat | published | – | 7.14 | – | 79.84 | 1012.0 | – |")
    budget = next(line for line in page if line.startswith("| `tbcnet_lite_sirst`, stage tem"))
    cells = [cell.strip() for cell in budget.split("|")[2:-1]]
    machine, commit = "Some CPU, 4 cores, 2 threads", "`0000000000`"
    assert cells == [machine, "10,000 × 8", "9,000", "40.0", "43 images", "214 images", commit]
    assert "Two runs at once." in page


@pytest.mark.parametrize("in_a_table", [True, False])
def test_counts_are_told_wherever_an_evaluation_keeps_them(
    documents: dict[str, dict[str, Any]], in_a_table: bool
) -> None:
    for of_split, count in zip(documents["hero"]["records"][:2], (263, 59), strict=True):
        if in_a_table:
            counts = {"type": "bins", "title": "Counts", "columns": ["images", "targets"], "rows": [[214.0, count]]}
            of_split["bins"] = [*of_split["bins"], counts]
        else:
            of_split["metrics"] = {**of_split["metrics"], "images": 214.0, "targets": float(count)}
    assert "| targets | 263 | 59 | – |" in results_page(documents).splitlines()


def test_what_it_was_never_trained_on_stands_apart(documents: dict[str, dict[str, Any]]) -> None:
    page = results_page(documents)
    below = page.split("## Out of distribution")[1].split("\n## ")[0]
    assert "| TBC-Net lite, `tbcnet_lite_sirst` | msistd80 | 80 | 33.33 |" in below
    assert "33.33" not in page.split("## Out of distribution")[0]


def test_the_ablation_is_paired_and_says_what_it_shows(documents: dict[str, dict[str, Any]]) -> None:
    page = results_page(documents).split("## Ablation")[1].split("\n## ")[0]
    soft, paper = page.split("### Loss `paper`")
    deviation = np.std([1, -1, -1], ddof=1)
    assert "| with | 51.00 ± 1.00 |" in soft
    assert f"| with − without, paired | −0.33 ± {deviation:.2f} |" in soft
    assert "IoU: −0.33 points with it (seed by seed +1.00, −1.00, −1.00;" in soft
    assert soft.count("within the spread of the seeds, no effect shown.") == 4
    assert (
        "IoU: +30.00 points with it (seed by seed +30.00, +31.00, +29.00; 95 % interval +27.52 to +32.48): better"
        in paper
    )
    assert "Fa: +30.0 ×10⁻⁶ with it" in paper
    assert paper.count(": worse with it.") == 1
    assert "3 of the 8 intervals leave out zero. One in twenty does by chance alone" in page  # Pd: equal in all arms


def test_the_ablation_is_no_row_of_the_main_table(documents: dict[str, dict[str, Any]]) -> None:
    main = results_page(documents).split("## Out of distribution")[0]
    assert "ablation`" not in main


def test_the_rest_of_the_page(documents: dict[str, dict[str, Any]]) -> None:
    page = results_page(documents)
    assert "| `tbcnet_lite_sirst` | 10,000 × 8 | 640 | 95.30 | 100.0 | 90.5 | 0 |" in page
    assert "of count 4 or more, %" in page
    assert "| 0 | 9 | 8 | 6 | 0.750 |" in page
    assert "| 9 | – | 0 | 0 | – |" in page
    figures = "IoU 65.12 %, Pd 94.11 %, Fa 31.5 ×10⁻⁶, one seed"
    assert f"| TBC-Net lite, `tbcnet_lite_sirst` | SIRST, 214 test images | {figures} |" in readme_block(documents)


def test_without_runs_the_page_says_so() -> None:
    published = {name: d for name, d in read_results().items() if d["kind"] == "published"}
    assert "TBC-Net: no finished run has been collected yet." in results_page(published)
    assert "no finished run has been collected yet" in readme_block(published)


def zeroed(value: Any) -> Any:
    """A document with every measured or published number, seconds included, made zero."""
    if isinstance(value, dict):
        return {key: zeroed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [zeroed(item) for item in value]
    return value * 0 if isinstance(value, int | float) and not isinstance(value, bool) else value


def figures_of(text: str) -> list[str]:
    rows = [line for line in text.splitlines() if line.startswith(("|", "- ")) and "sha256" not in line]
    return [figure for row in rows for figure in FIGURE.findall(LINK.sub("", row))]


@pytest.mark.parametrize("page", [results_page, readme_block])
@pytest.mark.parametrize("source", ["made by hand", "committed"])
def test_every_figure_comes_from_a_file(documents: dict[str, dict[str, Any]], page: Any, source: str) -> None:
    documents = documents if source == "made by hand" else read_results()
    assert len(figures_of(page(documents))) > 5
    emptied = copy.deepcopy(documents)
    for document in emptied.values():
        for row in document.get("records", []) + document.get("rows", []):
            kept = {key: row[key] for key in ("samples", "updates", "seed", "batch_size") if key in row}
            row |= zeroed(row) | kept
    left = [figure for figure in figures_of(page(emptied)) if float(figure.strip("−+").replace(",", ""))]
    assert left == []


def test_the_readme_shows_a_part_of_the_page() -> None:
    found = read_results()
    short, whole = readme_block(found), results_page(found)
    assert len(short.splitlines()) < 25 < len(whole.splitlines())
    assert short.count("no learning") == short.count("released weights") == short.count("trained here") == 1
    assert "local z-score, no learning" in short, "of those without learning the one of the highest IoU"
    assert set(figures_of(short)) <= set(figures_of(whole + robust_pages()))


def robust_pages() -> str:
    """Figures under attack stand on the pages of their methods."""
    pages = ("robust.md", "robust_methods.md", "distillation.md")
    return "".join((Path(__file__).resolve().parents[2] / "docs" / page).read_text(encoding="utf-8") for page in pages)


def test_a_record_shows_up_in_the_provenance(documents: dict[str, dict[str, Any]]) -> None:
    rows = results_page(documents).split("## Where the figures come from")[1]
    for name in documents:
        assert f"[{name}.json](../benchmarks/results/{name}.json)" in rows


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ([False] * 8, "None of the 8 intervals leaves out zero: no effect of the constraint is shown, of either sign."),
        ([True] + [False] * 7, "1 of the 8 intervals leaves out zero."),
        ([True] * 4, "4 of the 4 intervals leave out zero."),
    ],
)
def test_the_verdict_follows_from_the_intervals(told: list[bool], said: str) -> None:
    assert verdict(told).startswith(said)


def test_the_ablation_in_short(documents: dict[str, dict[str, Any]]) -> None:
    text = ablation_in_short(documents)
    assert "under the losses `softiou` and `paper`, over 3 seeds of 10,000 updates each, judged by IoU, nIoU" in text
    assert "Pd, Fa. 3 of the 8 intervals leave out zero." in text
    assert ablation_in_short({}) == "Its ablation has not been measured yet."
