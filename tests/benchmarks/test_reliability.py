"""The pure parts of the reliability scripts: what is drawn, how an end is judged, lines through samples, tables."""

import json
import math
import os
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.collect import check
from benchmarks.reliability import damage
from benchmarks.reliability.children import End
from benchmarks.reliability.config_mutations import MUTATORS, NUMBERS, UNICODE, is_meant, leaves, lost, mutations
from benchmarks.reliability.file_mutations import SETS
from benchmarks.reliability.kills import points
from benchmarks.reliability.outcomes import MEANS_OTHER, Outcome, end_of, is_clear, judged, shortened
from benchmarks.reliability.recipes import RECIPES
from benchmarks.reliability.slopes import Slope, row, second_half, slope, verdict
from benchmarks.reliability.soak import LIMITS, ROTATION, held, slopes, soak
from benchmarks.reliability_sections import reliability_block
from tests.benchmarks.folders import MACHINE
from vision.engine.config import from_tree, shipped_configs
from vision.engine.registry import names

# -- ends ----------------------------------------------------------------------------------------------------------

TRACE = "Traceback (most recent call last):\n  ...\nValueError: x"


@pytest.mark.parametrize(
    ("ended", "end"),
    [
        (End(0, ""), "accepted"),
        (End(2, "error: x"), "refused"),
        (End(MEANS_OTHER, "seed: '3' became 4"), "another meaning"),
        (End(1, TRACE), "traceback"),
        (End(2, f"{TRACE}\nerror: x"), "traceback"),
        (End(0, TRACE), "traceback"),
        (End(-11, ""), "crashed (signal 11)"),
        (End(-9, "", hung=True), "hung"),
    ],
)
def test_how_a_process_ended(ended: End, end: str) -> None:
    assert end_of(ended) == end


def test_the_error_is_what_stands_after_its_mark() -> None:
    assert End(2, "noise\nerror: a.yaml: x\nb: y\n").error == "a.yaml: x\nb: y"
    assert End(2, "error: a").error == "a"
    assert End(2, "an error: not at the begin of a line").error == ""


def test_a_clear_error_is_short_and_names_what_is_wrong() -> None:
    assert is_clear("data/x.png: cannot be decoded", ["x.png"])
    assert not is_clear("cannot be decoded", ["x.png"])
    assert not is_clear("", ["x.png"])
    assert not is_clear(f"x.png: {'y' * 700}", ["x.png"])
    assert not is_clear("x.png\n" * 7, ["x.png"])


@pytest.mark.parametrize(
    ("ended", "expected", "outcome"),
    [
        (End(2, "error: f: x"), "refused", ("refused", True)),
        (End(2, "error: f: x"), "accepted", ("refused", False)),
        (End(2, "error: f: x"), "either", ("refused", True)),
        (End(2, "error: something"), "either", ("unclear error", False)),
        (End(0, ""), "refused", ("accepted", False)),
        (End(0, ""), "either", ("accepted", True)),
        (End(1, TRACE), "either", ("traceback", False)),
    ],
)
def test_a_case_is_judged_by_what_had_to_come_of_it(ended: End, expected: Any, outcome: tuple[str, bool]) -> None:
    found = judged("g", "c", ended, expected, ["f"])
    assert (found.end, found.held) == outcome


def test_messages_lose_the_folders_of_a_machine() -> None:
    assert shortened("/tmp/abc/runs/x: no\nsuch", Path("/tmp/abc")) == "runs/x: no | such"
    assert "/tmp" not in shortened("see /tmp/other/thing.py: no", Path("/nowhere"))
    assert len(shortened("y" * 999, Path("/nowhere"))) == 240


# -- kills ---------------------------------------------------------------------------------------------------------


def test_kills_are_drawn_in_order_without_repetition() -> None:
    updates = [("a", step) for step in range(1, 13)] + [("b", step) for step in range(1, 13)]
    drawn = points(updates, 10, seed=3)
    assert len(set(drawn)) == 10 and drawn == sorted(drawn)
    assert drawn == points(updates, 10, seed=3) != points(updates, 10, seed=4)
    assert points(updates[:3], 10, seed=0) == updates[:3]


def test_every_task_and_a_pipeline_has_a_recipe_that_holds() -> None:
    assert set(names(kind="task")) <= set(RECIPES)
    assert sum("stages" in tree for tree in RECIPES.values()) >= 2
    for name, tree in RECIPES.items():
        from_tree({"name": name, **tree}).check()
    assert set(ROTATION) <= set(RECIPES)


# -- damage --------------------------------------------------------------------------------------------------------


def test_damage_changes_a_file_and_follows_from_the_generator() -> None:
    content = bytes(range(1, 256)) * 8
    for change in damage.ANY:
        found = change(content, random.Random(0))
        assert found != content
        assert found == change(content, random.Random(0))
    assert content.startswith(damage.cut(content, random.Random(1)))
    flipped = damage.flip_byte(content, random.Random(1))
    assert sum(a != b for a, b in zip(content, flipped, strict=True)) == 1


def test_a_renamed_key_leaves_a_whole_safetensors_file() -> None:
    header = json.dumps({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}, "__metadata__": {}}).encode()
    found = damage.renamed_key(struct.pack("<Q", len(header)) + header + b"xy", random.Random(0))
    (length,) = struct.unpack_from("<Q", found)
    assert set(json.loads(found[8 : 8 + length])) == {"a_", "__metadata__"}
    assert found.endswith(b"xy") and len(found) == 8 + length + 2


# -- mistakes in recipes -------------------------------------------------------------------------------------------

TEXT = """name: x
seed: 3
task: {type: classification, network: {type: mlp, inputs: 64, hidden: [8]}}
data: {type: digits}
optimizer: {type: adam, lr: 1.0e-3}
trainer: {epochs: 1}
"""


def test_leaves_are_every_scalar() -> None:
    assert list(leaves({"a": {"b": [1, {"c": 2}]}, "d": None})) == [("a", "b", 0), ("a", "b", 1, "c"), ("d",)]


def test_each_mutator_takes_its_turn_and_changes_the_file() -> None:
    found = mutations({"x": TEXT}, 3 * len(MUTATORS), seed=1)
    assert len({mutation.kind for _, mutation in found}) == len(MUTATORS) - 1  # odd numbers have two turns
    assert all(mutation.content != TEXT.encode() for _, mutation in found)
    again = mutations({"x": TEXT}, 3 * len(MUTATORS), seed=1)
    assert [m.content for _, m in found] == [m.content for _, m in again]
    assert {name for name, _ in NUMBERS} >= {"nan", "inf", "huge", "-1"}
    assert all(change(TEXT.encode())[0] != TEXT.encode() for change, _ in [(f, 0) for f in UNICODE.values()])


def test_a_rate_in_short_form_stays_a_number() -> None:
    """YAML 1.1 takes 1e-3 for text; a mutation elsewhere must not make a mistake of it."""
    text = TEXT.replace("1.0e-3", "1e-3")
    made = "".join(mutation.content.decode(errors="replace") for _, mutation in mutations({"x": text}, 60, seed=1))
    assert "lr: 0.001" in made and "'1e-3'" not in made


def test_mistakes_are_drawn_from_every_shipped_recipe() -> None:
    texts = {name: path.read_text() for name, path in shipped_configs().items()}
    assert len({name for name, _ in mutations(texts, 200, seed=0)}) > 20


@pytest.mark.parametrize(
    ("text", "value", "meant"),
    [
        ("3", 3, True), ("3", 4, False), ("1e-3", 0.001, True), ("0x10", 16, True), (".nan", math.nan, True),
        (".inf", math.inf, True), ("-.inf", math.inf, False), ("true", True, True), ("true", False, False),
        ("1", True, False), ("~", None, True), ("", None, True), ("null", "null", True), ("on", "on", True),
        ("on", True, False), ("${A:-3}", 3, True), ("x", "y", False), ("many", 3, False),
    ],
)  # fmt: skip
def test_what_a_scalar_may_stand_for(text: str, value: Any, meant: bool) -> None:
    assert is_meant(text, value) is meant


def written(text: str) -> Any:
    return yaml.load(text, yaml.BaseLoader)


def test_what_a_recipe_loses_is_found() -> None:
    tree = from_tree(yaml.safe_load(TEXT)).tree
    assert lost(written(TEXT), tree) == []
    assert lost(written("seed: 4"), tree) == ["seed: '4' became 3"]
    assert lost(written("sed: 3"), tree) == ["sed: is not there"]
    assert lost(written("task: {network: {hidden: [8, 8]}}"), tree) == ["task.network.hidden: a list became [8]"]
    assert lost(written("data: digits"), tree) == []
    assert lost(written("data: cifar10"), tree) == ["data: 'cifar10' became 'digits'"]
    assert lost(written("extends: other.yaml"), tree) == []


def test_a_pipelines_defaults_are_looked_for_in_its_stages() -> None:
    tree = {"name": "p", "stages": [{"name": "a", "seed": 1}, {"name": "b", "seed": 2}]}
    assert lost({"seed": "2"}, tree) == []
    assert lost({"seed": "3"}, tree) == ["seed: '3' became 1"]
    assert lost({"other": "3"}, tree) == ["other: is not there"]


def test_there_are_enough_mistakes_in_files() -> None:
    assert sum(len(each.mutations) for each in SETS.values()) >= 50
    for each in SETS.values():
        assert len({mutation.name for mutation in each.mutations}) == len(each.mutations)


# -- slopes --------------------------------------------------------------------------------------------------------


def test_a_line_without_noise_is_found_exactly() -> None:
    seconds = np.linspace(0, 7200, 9)
    line = slope(seconds, 100 + 3 * seconds / 3600)
    assert line.per_hour == pytest.approx(3) and line.margin == pytest.approx(0, abs=1e-9)
    assert (line.first, line.last) == (pytest.approx(100), pytest.approx(106))


def test_the_interval_is_students_by_the_textbook() -> None:
    """Four points by hand: y = 0, 1, 0, 1 at 0, 1, 2, 3 h has b = 0.2, residual sum 0.8, Sxx = 5, t(2) = 4.302653."""
    line = slope([0, 3600, 7200, 10800], [0.0, 1.0, 0.0, 1.0])
    assert line.per_hour == pytest.approx(0.2)
    assert line.margin == pytest.approx(4.302653 * math.sqrt(0.8 / 2 / 5), rel=1e-5)


def test_noise_that_drifts_counts_as_fewer_samples() -> None:
    rng = np.random.default_rng(0)
    steps, seconds = rng.normal(size=400), np.arange(400.0)
    assert slope(seconds, np.cumsum(steps)).margin > 5 * slope(seconds, steps * np.cumsum(steps).std()).margin


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng, seconds = np.random.default_rng(1), np.linspace(0, 3600, 20)
    lines = [slope(seconds, 2 * seconds / 3600 + rng.normal(size=20)) for _ in range(400)]
    covered = sum(abs(line.per_hour - 2) <= line.margin for line in lines) / len(lines)
    assert 0.93 <= covered <= 1.0


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="2 samples"):
        slope([0, 1], [0, 1])
    with pytest.raises(ValueError, match="a line needs 3"):
        slope([1, 1, 1], [0, 1, 2])


def test_the_first_half_of_the_time_is_left_out() -> None:
    assert second_half([0, 1, 2, 9, 10], [1, 2, 3, 4, 5]) == ([9, 10], [4, 5])
    assert second_half([], []) == ([], [])


def test_a_verdict_needs_the_whole_interval_on_one_side() -> None:
    assert verdict(Slope(9, 0, 0, 0.5, 0.4), 1.0) == "flat"
    assert verdict(Slope(9, 0, 0, -50, 1), 1.0) == "flat"
    assert verdict(Slope(9, 0, 0, 1.5, 0.4), 1.0) == "rising"
    assert verdict(Slope(9, 0, 0, 1.2, 0.4), 1.0) == "undecided"
    assert row("memory", "MiB", [0, 10, 20, 30, 40], [9, 9, 5, 5, 5], 1.0)["verdict"] == "flat"


def test_a_soak_samples_after_each_work_and_goes_on_after_a_failure() -> None:
    def fail() -> None:
        raise OSError("gone")

    work = iter([("a", lambda: None), ("b", fail), ("c", lambda: None)])
    moments, samples, failed = soak(os.getpid(), work, seconds=math.inf)
    assert len(moments) == len(samples) == 3 and moments == sorted(moments)
    assert [(outcome.case, outcome.said) for outcome in failed] == [("b", "OSError: gone")]
    assert {"memory", "open files", "threads"} <= set(samples[0]) <= set(LIMITS)
    assert slopes([0.0], samples[:1]) == []


def test_what_another_process_holds_is_told_by_the_system() -> None:
    """A child that takes 64 MiB, four files and a thread more, as the system's own tool counts them."""
    code = (
        "import sys, threading, time\n"
        "def more():\n"
        "    global kept\n"
        "    kept = [bytearray(64 << 20), *(open('/dev/null') for _ in range(4))]\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "for line in sys.stdin: more(); print('done', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-u", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        found = []
        for _ in range(2):  # the first makes what a first thread and file bring along
            child.stdin.write(b"\n")
            child.stdin.flush()
            child.stdout.readline()
            found.append(held(child.pid))
        child.kill()
    assert found[1]["open files"] == 3 + 4
    assert found[1]["threads"] == found[0]["threads"] + 1 == 3
    assert 64 < found[1]["memory"] < 96


# -- pages ---------------------------------------------------------------------------------------------------------


def results(cases: list[Outcome], **more: Any) -> dict[str, Any]:
    found = {
        "kind": "reliability", "title": "T", "command": "python x.py", "note": "Told once.", "seconds": 90.0,
        "cases": [vars(case) for case in cases], "machine": MACHINE, "commit": None,
        "date": "2026-01-02T00:00:00+00:00", **more,
    }  # fmt: skip
    check(found, "x")
    return found


def test_cases_are_counted_by_what_was_broken_and_failures_are_listed() -> None:
    cases = [Outcome("disk", "a", "refused", True), Outcome("disk", "b", "refused", True, "m"),
             Outcome("worker", "c", "traceback", False, "ValueError | <x>")]  # fmt: skip
    lines = reliability_block("faults", {"reliability_faults": results(cases)}).splitlines()
    assert lines[2:5] == [
        "| disk | 2 | 2 | 2 refused |",
        "| worker | 1 | 0 | 1 traceback |",
        "| **all** | **3** | **2** |  |",
    ]
    assert "- worker, c: traceback. ValueError \\| &lt;x>" in lines
    assert lines[-1].startswith("Told once. `python x.py`, 2 min; ")


def test_a_case_each_has_a_row_each() -> None:
    cases = [
        Outcome("apart", "killed 10 times", "the same bytes", True),
        Outcome("scm", "killed 9 times", "differs", False),
    ]
    block = reliability_block("kills", {"reliability_kills": results(cases)})
    assert "| `apart` | killed 10 times | the same bytes |" in block
    assert "**Not as it must be:**" in block


def test_slopes_have_a_table_of_their_own() -> None:
    line = row("memory", "MiB", [0, 1800, 3600, 5400, 7200], [9, 9, 500, 501, 502], 30.0)
    block = reliability_block("soak_page", {"reliability_soak_page": results([], slopes=[line])})
    assert "| memory | 3 | 500.0 | 502.0 MiB | +2.00 ± 0.00 | 30 | flat |" in block
    assert reliability_block("soak_page", {}) == "Not run yet: `python benchmarks/reliability/soak.py page`."
    assert reliability_block("kills", {}) == "Not run yet: `python benchmarks/reliability/kills.py`."
