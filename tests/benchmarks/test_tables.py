"""Generated blocks: filled from the code they describe, refused where broken, and up to date in the checkout."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import tables
from benchmarks.collect import check
from vision.engine.errors import DataError
from vision.engine.recipe import TrainerOptions

CHECKOUT = Path(__file__).resolve().parents[2]


def test_every_page_is_up_to_date() -> None:
    """In a process of its own: other tests register names of theirs."""
    command = [sys.executable, "benchmarks/tables.py", "--check"]
    done = subprocess.run(command, cwd=CHECKOUT, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}(or: make docs)"


def test_a_block_of_fields_says_what_the_constructor_takes() -> None:
    block = tables.fields_block("vision.engine.recipe.TrainerOptions", {})
    rows = {line.split("`")[1]: line for line in block.splitlines()[2:]}
    assert list(rows) == list(TrainerOptions.__dataclass_fields__)
    assert rows["batch_size"].startswith("| `batch_size` | int | `32` | samples in one update, over all processes")
    assert rows["clip_norm"].startswith("| `clip_norm` | number or null | null |")
    assert rows["compile"].startswith("| `compile` | true or false | false |")
    assert "`last`" not in block


def test_arguments_that_the_trainer_gives_are_no_fields() -> None:
    assert "`parameters`" not in tables.fields_block("adam", {})
    assert "| `lr` | number | required |" in tables.fields_block("adam", {})
    assert "`_kept`" not in tables.fields_block("digits", {})


def test_docstrings_become_markdown() -> None:
    told = "the ``mean`` of :math:`x`, see :func:`vision.engine.seeding.seed_of` and :data:`~a.B`; a | b"
    assert tables._prose(told) == "the `mean` of `x`, see `seed_of` and `B`; a \\| b"


def published(split: str, *rows: tuple[str, int | None, dict[str, float]]) -> dict[str, Any]:
    return {
        "kind": "published", "title": "a", "source": f"S, {split}", "url": "https://s", "protocol": "",
        "data": {"name": "crowd", "split": split, "samples": 3},
        "rows": [{"method": m, "parameters": p, "metrics": metrics} for m, p, metrics in rows],
    }  # fmt: skip


def test_published_figures_stand_split_by_split_without_empty_columns() -> None:
    documents = {
        "a": published("val", ("A", None, {"AP": 0.5, "AP hard": 0.25})),
        "b": published("test", ("B", 1200, {"AP": 0.512, "GFLOPs": 7.1})),
        "c": published("val", ("C", None, {"AP": 1.0})),
    }
    for each in documents.values():
        check(each, "a")
    assert tables.published_block("crowd", documents).splitlines() == [
        "| method | judged on | parameters | GFLOPs | AP | AP hard | published in |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| A | val | – | – | 50.0 | 25.0 | [S, val](https://s) |",
        "| C | val | – | – | 100.0 | – | [S, val](https://s) |",
        "| B | test | 1,200 | 7.1 | 51.2 | – | [S, test](https://s) |",
    ]
    assert tables.published_block("crowd", {"a": documents["a"]}).splitlines() == [
        "| method | AP | AP hard | published in |",
        "| --- | ---: | ---: | ---: |",
        "| A | 50.0 | 25.0 | [S, val](https://s) |",
    ]


def test_names_of_a_kind_can_be_limited_to_a_package() -> None:
    everything = tables.registered_block("network", {})
    own = tables.registered_block("network vision.classification", {})
    assert "`tbcnet`" in everything
    assert "`tbcnet`" not in own
    assert set(own.splitlines()) < set(everything.splitlines())


def test_blocks_are_filled_in_place_and_stay_so() -> None:
    page = "before\n<!-- fields: scm -->\nold\n<!-- end -->\nafter\n"
    found = tables.filled(page, {}, "page.md")
    assert found.startswith("before\n<!-- fields: scm -->\n| field |")
    assert found.endswith("\n<!-- end -->\nafter\n")
    assert "old" not in found
    assert tables.filled(found, {}, "page.md") == found


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("<!-- fields: scm -->\n| old |\n", "a generated block has no '<!-- end -->'"),
        ("<!-- feilds: scm -->\n<!-- end -->\n", "no generated block 'feilds'"),
    ],
)
def test_a_broken_block_is_refused_with_its_page(page: str, said: str) -> None:
    with pytest.raises(DataError, match=f"page.md: {said}"):
        tables.filled(page, {}, "page.md")


def test_a_system_works_only_where_its_module_can_be_imported() -> None:
    rows = tables.systems_block("", {}).splitlines()[2:]
    assert len(rows) == len(tables.SYSTEMS) == 10
    for row, (name, module, _, works, checked) in zip(rows, tables.SYSTEMS, strict=True):
        assert name in row
        if row.endswith("| not yet | – |"):
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module(module)
        else:
            assert importlib.import_module(module).__doc__
            assert row.endswith(f"| {works} | {checked} |")


def test_check_writes_nothing_and_names_what_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "README.md"
    page.write_text("# T\n\n<!-- fields: scm -->\n<!-- end -->\n")
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(tables, "CHECKOUT", tmp_path)
    stale = r"docs/results\.md, docs/performance\.md, README\.md"
    with pytest.raises(DataError, match=rf"out of date: {stale}; run python benchmarks/tables\.py"):
        tables.main(["--check"])
    assert "| field |" not in page.read_text()
    assert tables.main([]) == 0
    assert "| field |" in page.read_text()
    assert tables.main(["--check"]) == 0
