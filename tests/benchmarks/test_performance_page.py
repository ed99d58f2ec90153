"""docs/performance.md: ratios in the words of their aims, floors beside times, and no figure but those of the files."""

import copy
import re
from typing import Any

import pytest

from benchmarks.collect import check, read_results
from benchmarks.performance_page import performance_page, reached, speed_in_short, told
from tests.benchmarks.folders import MACHINE

LOWER, HIGHER = {"better": "lower"}, {"better": "higher"}


def row(what: str, against: str, ours: float, theirs: float, **aims: float | None) -> dict[str, Any]:
    found = {"what": what, "against": against, "ours": ours, "theirs": theirs, "ratio": round(ours / theirs, 5)}
    return found | {"repeats": 15} | aims


def document(title: str, rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "kind": "comparison", "title": title, "command": "python x.py", "unit": "CPU ms", "better": "lower",
        "note": "Told once.", "rows": rows, "machine": MACHINE, "commit": None, "date": "2026-01-02T00:00:00+00:00",
        **more,
    }  # fmt: skip


@pytest.fixture
def documents() -> dict[str, dict[str, Any]]:
    scan = document(
        "A scan",
        [
            row("forward, L=768, (N, L, D)", "a loop", 2.0, 50.0, aim=0.05, stretch=0.03333),
            row("forward, L=768, (N, L, D)", "another", 2.0, 1.0),
            row("forward, L=768, (N, L, D)", "floor of memory", 2.0, 0.5),
            row("forward, L=768, (N, L, D)", "floor of arithmetic", 2.0, 1.25),
            row("forward, L=3072, (N, D, L)", "a loop", 8.0, 320.0, aim=0.05, stretch=0.03333),
            row("backward, L=768, (N, L, D)", "a loop", 4.0, 40.0, aim=0.05),
        ],
        errors=[{"what": "an error", "value": 3e-7, "aim": 1e-6}, {"what": "a worse one", "value": 2e-6, "aim": 1e-6}],
    )
    loop = document("A trainer", [row("digits, batch 8", "a bare loop", 2.04, 2.0, aim=1.03)])
    for name, each in {"scan": scan, "loop": loop}.items():
        check(each, name)
    return {"scan": scan, "loop": loop}


def test_aims_stand_beside_what_was_measured(documents: dict[str, dict[str, Any]]) -> None:
    page = performance_page(documents).splitlines()
    aims = page[page.index("### Aims") + 2 : page.index("### Beside the floors")]
    assert aims == [
        "| what | against | measured | must | stretch | reached |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        "| forward, L=768, (N, L, D) | a loop | 25× as fast | 20× as fast | 30× as fast | must |",
        "| forward, L=3072, (N, D, L) | a loop | 40× as fast | 20× as fast | 30× as fast | stretch |",
        "| backward, L=768, (N, L, D) | a loop | 10× as fast | 20× as fast | – | **no** |",
        "| an error | – | 3.0e-07 | 1e-06 | – | must |",
        "| a worse one | – | 2.0e-06 | 1e-06 | – | **no** |",
        "",
    ]


def test_floors_stand_beside_the_times_and_the_larger_one_counts(documents: dict[str, dict[str, Any]]) -> None:
    assert "| forward, L=768, (N, L, D) | 2 | 0.5 | 1.25 | 1.60 |" in performance_page(documents)


def test_the_others_have_a_column_each(documents: dict[str, dict[str, Any]]) -> None:
    page = performance_page(documents)
    assert "| what | ours, CPU ms | a loop | another |" in page
    assert "| forward, L=768, (N, L, D) | 2 | 25.0× | 0.5× |" in page
    assert "| backward, L=768, (N, L, D) | 4 | 10.0× | – |" in page


def test_without_floors_one_table_is_enough(documents: dict[str, dict[str, Any]]) -> None:
    page = performance_page({"loop": documents["loop"]})
    assert "| digits, batch 8 | a bare loop | 2.04 | 2 | 1.02 of theirs | 1.03 of theirs | – |" in page
    assert "### " not in page
    assert "Told once." in page
    assert "`python x.py`; Some CPU, 4 cores, 2 threads, torch 2.11.0; 2026-01-02; commit –." in page


@pytest.mark.parametrize(
    ("better", "aim", "cell"),
    [("lower", None, "2× as fast (1.67 to 2.5)"), ("lower", 1.05, "0.5 of theirs (0.4 to 0.6)"),
     ("higher", 0.4, "0.5 of theirs (0.4 to 0.6)")],
)  # fmt: skip
def test_an_interval_stands_behind_its_ratio(better: str, aim: float | None, cell: str) -> None:
    timed = document("Timed", [row("it", "that", 1.0, 2.0, aim=aim) | {"interval": [0.4, 0.6]}], better=better)
    check(timed, "timed")
    assert f"| {cell} |" in performance_page({"timed": timed})


def test_that_no_gpu_was_measured_is_said_until_one_was(documents: dict[str, dict[str, Any]]) -> None:
    assert "No figure here is of a GPU" in performance_page(documents)
    assert "No figure here is of a GPU" not in performance_page(documents | {"selective_scan_gpu": documents["loop"]})


@pytest.mark.parametrize(
    ("ratio", "aim", "better", "words"),
    [
        (0.04, 0.05, LOWER, "25× as fast"),
        (2.0, 0.05, LOWER, "0.5× as fast"),
        (0.04, 0.05, {**LOWER, "unit": "MB"}, "25× less"),
        (1.9, 2.0, LOWER, "1.9 of theirs"),
        (1.8, 1.5, HIGHER, "1.8× as fast"),
        (0.8, 0.7, HIGHER, "0.8 of theirs"),
    ],
)
def test_a_ratio_is_told_as_its_aim_is(ratio: float, aim: float, better: dict[str, Any], words: str) -> None:
    assert told(ratio, aim, better) == words


@pytest.mark.parametrize(
    ("ratio", "better", "word"),
    [
        (0.2, LOWER, "stretch"),
        (0.5, LOWER, "must"),
        (0.51, LOWER, "**no**"),
        (1.2, HIGHER, "stretch"),
        (0.51, HIGHER, "must"),
        (0.1, HIGHER, "**no**"),
    ],
)
def test_what_a_ratio_reaches(ratio: float, better: dict[str, Any], word: str) -> None:
    stretch = 0.25 if better is LOWER else 1.0
    assert reached({"ratio": ratio, "aim": 0.5, "stretch": stretch}, better) == word


def test_the_readme_tells_the_aim_missed_furthest(documents: dict[str, dict[str, Any]]) -> None:
    lines = speed_in_short(documents).splitlines()
    assert lines[2:] == [
        "| A scan: backward, L=768, (N, L, D) | a loop | 10× as fast | 20× as fast |",
        "| A trainer: digits, batch 8 | a bare loop | 1.02 of theirs | 1.03 of theirs |",
    ]
    assert speed_in_short({}) == "Nothing has been timed yet."


def test_every_figure_on_the_page_comes_from_a_file() -> None:
    documents = read_results()
    figure = re.compile(r"\d[\d,]*\.\d+(?:e-\d+)?")
    assert len(figure.findall(performance_page(documents))) > 100
    emptied = copy.deepcopy({name: d for name, d in documents.items() if d["kind"] == "comparison"})
    for each in emptied.values():
        each["note"] = ""
        each["machine"] = MACHINE
        for item in each["rows"]:
            item |= {key: 1 for key in ("ours", "theirs", "ratio", "aim", "stretch") if item.get(key) is not None}
            item |= {"interval": [1, 1]} if item.get("interval") else {}
        for item in each.get("errors", []):
            item |= {"value": 1, "aim": 1}
    left = [f for f in figure.findall(performance_page(emptied)) if float(f.replace(",", "")) != 1 and f != "2.11.0"]
    assert [f for f in left if f not in ("2.11",)] == []
