"""The table of an attack: whole after a kill, refused where it is about something else."""

import logging
from pathlib import Path

import pytest

from robust.table import AttackTable, Row
from vision.engine.errors import DataError


def rows(number: int) -> list[Row]:
    return [Row(f"{number}-{i}", i, [0.5, 1.0], 0.1, "") for i in range(2)]


def test_a_cut_evaluation_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    file, asked = tmp_path / "t.jsonl", []

    def judge(number: int) -> list[Row]:
        asked.append(number)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return rows(number)

    with pytest.raises(KeyboardInterrupt):
        AttackTable(file, {"seed": 0}).fill(4, judge)
    found = AttackTable(file, {"seed": 0}).fill(4, judge)
    assert asked == [0, 1, 2, 2, 3]
    assert found == [row for number in range(4) for row in rows(number)]


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_line_cut_anywhere_is_judged_again(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "t.jsonl"
    whole = AttackTable(file, {"seed": 0}).fill(3, rows)
    file.write_text(file.read_text()[:-cut])
    again = AttackTable(file, {"seed": 0})
    assert len(again) == 4
    assert again.fill(3, rows) == whole
    assert AttackTable(file, {"seed": 0}).rows == whole


def test_a_batch_written_twice_counts_once(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    AttackTable(file, {}).fill(2, rows)
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, lines[-1]]) + "\n")
    assert len(AttackTable(file, {}).rows) == 4


def test_an_image_in_two_batches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="twice"):
        AttackTable(tmp_path / "t.jsonl", {}).fill(2, lambda number: rows(0))


def test_a_table_about_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    AttackTable(file, {"seed": 0, "weights": "a"}).fill(1, rows)
    with pytest.raises(DataError, match=r"another weights \(a, now b\)"):
        AttackTable(file, {"seed": 0, "weights": "b"})
    file.write_text("nonsense\n")
    with pytest.raises(DataError, match="not a table"):
        AttackTable(file, {})


def test_what_was_warned_of_is_kept_with_its_batch_also_over_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"

    def judge(number: int) -> list[Row]:
        logging.getLogger("auto-attack").warning("points with zero gradient: %d", number // 2)
        logging.getLogger("robust.autoattack").warning("too few classes")
        logging.getLogger("elsewhere").warning("nothing to do with it")
        return rows(number)

    expected = ["points with zero gradient: 0", "too few classes", "points with zero gradient: 1"]
    table = AttackTable(file, {})
    table.fill(3, judge)
    assert table.warnings == expected
    again = AttackTable(file, {})
    again.fill(3, judge)
    assert again.warnings == expected
    assert not logging.getLogger("auto-attack").handlers
