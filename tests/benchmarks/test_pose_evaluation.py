"""The benchmark of scoring: its made people are what it says, and it times nothing that is not equal."""

import pytest

from benchmarks.pose_evaluation import CASES, Case, compare, differ, made, ours, theirs
from vision.engine.errors import UserError

SMALL = Case("small", 20, 40, 0.4, 100)


def test_rounds() -> None:
    row = compare(SMALL, seconds=0.0)
    assert row["repeats"] == 4 and row["ratio"] > 0
    assert set(row) == {"what", "against", "ours", "theirs", "ratio", "aim", "repeats"}


def test_people_are_worth_scoring() -> None:
    document, rows = made(SMALL)
    figures = ours(document, rows)
    assert figures == pytest.approx(theirs(document, rows), abs=1e-12)
    assert 0.05 < figures["AP"] < 0.95 and len(figures) == 10 and len(set(figures.values())) > 5
    assert [len(document[key]) for key in ("images", "annotations")] == [20, 40]


def test_unequal_figures_are_not_timed() -> None:
    assert differ({"AP": 0.5}, {"AP": 0.5, "APL": -1.0}) == 0
    with pytest.raises(UserError, match="nothing was timed"):
        differ({"AP": 0.5}, {"AP": 0.501})
    assert all(case.poses > case.people for case in CASES)
