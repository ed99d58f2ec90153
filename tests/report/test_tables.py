"""Tables: figures as in the files, mean and deviation as numpy has them."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.conftest import MakeRun
from vision.report.card import write_card
from vision.report.html import render
from vision.report.runs import read_runs
from vision.report.tables import (
    aligned,
    comparison_tables,
    decimals_for,
    mean_and_deviation,
    number,
    plus_minus,
    results_table,
)


def value_of(text: str) -> float:
    return float(text.replace("\u202f", "").replace("−", "-"))


@given(st.floats(-1e7, 1e7, allow_nan=False).filter(lambda v: v == 0 or abs(v) > 1e-9))
def test_number_keeps_three_digits(value: float) -> None:
    assert value_of(number(value)) == pytest.approx(value, rel=5e-3, abs=1e-300)


@given(st.integers(-(10**12), 10**12))
def test_whole_numbers_are_kept(value: int) -> None:
    assert value_of(number(value)) == value


@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf")])
def test_what_is_no_number_is_a_dash(nothing: Any) -> None:
    assert number(nothing) == "–"


@given(st.lists(st.floats(1e-2, 1e4) | st.none(), min_size=1))
def test_aligned_values_have_the_same_decimals(values: list[float | None]) -> None:
    texts = aligned(values)
    assert {len(text.rpartition(".")[2]) for text in texts if text != "–"} <= {decimals_for(values)}
    assert [text == "–" for text in texts] == [value is None for value in values]


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_mean_and_deviation_against_numpy(values: list[float]) -> None:
    mean, deviation = mean_and_deviation(values)
    assert mean == pytest.approx(np.mean(values), abs=1e-6)
    assert deviation == pytest.approx(np.std(values, ddof=1), abs=1e-6)


def test_one_value_has_no_deviation() -> None:
    with pytest.raises(ValueError, match="a deviation of 1 values"):
        mean_and_deviation([1.0])
    assert plus_minus([1.0, None]) == "–"


def test_results_table_has_every_figure(make_run: MakeRun) -> None:
    (run,) = read_runs([make_run("a", accuracy=0.875)])
    table = results_table(run)
    assert table.head == ("test", "val")
    rows = {row.label: row for row in table.rows}
    assert rows["accuracy"].cells == ("0.8750", "0.8850")
    assert rows["accuracy"].strong == {0, 1}
    assert rows["nll"].cells == ("0.2500", "0.5000")
    assert rows["nll"].strong == frozenset()
    assert rows["samples"].cells == ("20", "20")
    assert table.rows[0].label == "accuracy"  # what it is judged by comes first


def test_a_figure_of_fewer_samples_says_so(make_run: MakeRun) -> None:
    folder = make_run("a", accuracy=0.875)
    file = folder / "eval" / "test" / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"counts": {"accuracy": 5}}))
    (run,) = read_runs([folder])
    assert [row.label for row in results_table(run).rows] == ["accuracy (of 5)", "nll", "samples"]
    assert (run.samples("test", "accuracy"), run.samples("test", "nll"), run.samples("val", "accuracy")) == (5, 20, 20)
    page, card = render([run], "a"), write_card(folder, folder / "card.md").read_text()
    assert "5 samples, best weights" in page
    assert "| test | test | 5 | **accuracy** | 0.8750 |" in card and "| test | test | 20 | nll | 0.2500 |" in card


def test_comparison_of_seeds(make_run: MakeRun) -> None:
    accuracies = [0.5, 0.625, 0.875]
    runs = read_runs([make_run(f"s/seed{seed}", seed, accuracy) for seed, accuracy in enumerate(accuracies)])
    test = comparison_tables(runs)[0]
    assert test.title == "test"
    assert test.head == ("accuracy", "nll")
    assert [row.cells[0] for row in test.rows[:-1]] == ["0.5000", "0.6250", "0.8750"]
    summary = test.rows[-1]
    assert summary.total
    assert summary.cells[0] == f"{np.mean(accuracies):.4f} ± {np.std(accuracies, ddof=1):.4f}"
    assert all(not row.strong for row in test.rows)  # one recipe only: nothing to be better than


@pytest.mark.parametrize(("mode", "best"), [("max", ["s, 2 seeds"]), ("min", ["b"])])
def test_the_better_recipe_is_emphasised(make_run: MakeRun, mode: str, best: list[str]) -> None:
    make_run("s/seed0", 0, 0.5, mode=mode)
    seeds = make_run("s/seed1", 1, 0.8, mode=mode).parent
    other = make_run("b", 0, 0.6, recipe={"trainer": {"epochs": 9}}, mode=mode)  # between the seeds, below their mean
    (test, _) = comparison_tables(read_runs([seeds, other]))
    assert [row.label for row in test.rows if row.strong] == best


def test_other_measures_are_not_ranked(make_run: MakeRun) -> None:
    one = make_run("a", 0, 0.5, mode="max")
    two = make_run("b", 0, 0.6, recipe={"trainer": {"epochs": 9}}, mode="min")
    assert not any(row.strong for table in comparison_tables(read_runs([one, two])) for row in table.rows)


def test_runs_without_an_evaluation_are_named(make_run: MakeRun) -> None:
    tables = comparison_tables(read_runs([make_run("a"), make_run("b", 5, accuracy=None)]))
    assert all(table.note == f"Not evaluated on {table.title}: b." for table in tables)
    assert all([row.label for row in table.rows] == ["a"] for table in tables)
