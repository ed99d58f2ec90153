"""Measured rows and ratios: what they hold, what is warned about, and that files keep to the schema."""

import re
from dataclasses import replace

import pytest

from benchmarks.collect import check
from vision.deploy.backends import How
from vision.deploy.benchmark import HEAD, Plan, cells, run, sentences
from vision.deploy.comparing import Case, Found, count_of, measure, warnings_of
from vision.deploy.conditions import Conditions
from vision.deploy.memory import PROCESS
from vision.deploy.naming import parse
from vision.deploy.subjects import Subject, subject_of
from vision.deploy.timing import Timings, WarmUp
from vision.engine.errors import ConfigError

QUIET = Conditions(threads=1, cores=4, others=0.0, others_before=0.0)
PLAN = Plan(rounds=6, seconds=0.02, memory=False)


@pytest.fixture(scope="module")
def digits() -> Subject:
    return subject_of(parse("digits_cnn"), (8, 8))


@pytest.fixture(scope="module")
def perceptron() -> Subject:
    return subject_of(parse("mlp:inputs=64,hidden=[8]"))


def test_a_ratio_is_of_speeds_a_sample(digits: Subject) -> None:
    warm = WarmUp(6, True, 1.0)
    four, one = Timings(warm, [[2.0]] * 6), Timings(warm, [[1.0]] * 6)
    cases = [Case(digits, How("eager", batch=4)), Case(digits, How("eager", batch=1))]
    found = Found(cases, [four, one], [], QUIET, [])
    assert found.ratio().value == 2.0  # half a second a sample against one
    assert found.ratio(1, 0).value == 0.5
    assert found.comparison().to_dict() == {
        "what": "digits_cnn @ eager fp32", "against": "digits_cnn @ eager fp32", "batch": 4, "ratio": 2.0,
        "interval": [2.0, 2.0], "coverage": 0.9688, "no_difference_shown": False, "rounds": 6,
    }  # fmt: skip


def test_a_document_keeps_to_the_schema_and_tells_how_it_was_measured(digits: Subject, perceptron: Subject) -> None:
    result = run([digits], perceptron, replace(PLAN, batches=(1, 2)))
    check(result, "speed")
    assert [(row["name"], row["batch"]) for row in result["rows"]] == [
        ("digits_cnn", 1), ("mlp:inputs=64,hidden=[8]", 1), ("digits_cnn", 2), ("mlp:inputs=64,hidden=[8]", 2),
    ]  # fmt: skip
    first = result["rows"][0]
    counted = count_of(digits)
    assert counted is not None
    assert (first["parameters"], first["macs"]) == (counted.parameters, counted.macs)
    assert first["macs"] == 64 * 9 * 16 + 16 * 9 * (16 * 32 + 32 * 32) + 128 * 10  # 8x8, then 4x4 twice, then logits
    assert first["trained"] is False
    assert first["shapes"] == {"image": [1, 1, 8, 8]}
    assert first["rounds"] == 6
    assert result["machine"]["threads"] == 1
    assert [each["against"] for each in result["comparisons"]] == ["mlp:inputs=64,hidden=[8] @ eager fp32"] * 2
    told = "\n".join(sentences(result))
    for words in ("times as fast as mlp", "cores, wall time; load", "BatchNorm folded", "to warm up", "6 rounds"):
        assert words in told
    assert all(len(cells(row)) == len(HEAD) for row in result["rows"])
    assert cells(first)[-1] == "untrained"


def test_several_backends_need_one_to_compare_against(digits: Subject, perceptron: Subject) -> None:
    plan = replace(PLAN, backends=("eager", "compiled"))
    assert [how.backend for how in plan.ways(digits, 1)] == ["eager", "compiled"]
    with pytest.raises(ConfigError, match=re.escape("say which: mlp:inputs=64,hidden=[8]@eager, mlp")):
        run([digits], perceptron, plan)


def test_a_name_s_own_backend_wins(digits: Subject) -> None:
    named = replace(digits, name=parse("digits_cnn@compiled-bf16"))
    assert PLAN.ways(named, 3) == [How("compiled", "bf16", "cpu", 3, 1)]


@pytest.mark.parametrize(
    ("threads", "clock", "rounds", "words"),
    [(2, "cpu", 6, "the work of one thread"), (1, "wall", 0, "expected 1 round or more")],
)
def test_what_cannot_be_measured_is_refused(digits: Subject, threads: int, clock: str, rounds: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        measure([Case(digits, How("eager", threads=threads))], rounds, 0.01, clock)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="have to share one"):
        measure([Case(digits, How("eager")), Case(digits, How("eager", device="cuda"))])


def test_what_spoils_a_row_is_warned_about() -> None:
    row = {"what": "it", "batch": 2, "spread": 0.02, "warm": True, "rounds": 6, "warm_up_calls": 7, "dtype": "float32"}
    assert warnings_of([row], QUIET) == []
    wide, cold, few = row | {"spread": 0.25}, row | {"warm": False}, row | {"rounds": 5}
    assert "spreads over 25 % of the median (more than 10 %)" in warnings_of([wide], QUIET)[0]
    assert "it, batch 2: was still changing after 7 calls" in warnings_of([cold], QUIET)[0]
    assert "5 rounds are too few for an interval of 95 %: 6 or more" in warnings_of([few], QUIET)[0]
    assert "the machine was busy" in warnings_of([row], replace(QUIET, others=2.0))[0]


def test_a_process_of_its_own_measures_memory(perceptron: Subject) -> None:
    wide = subject_of(parse("mlp:inputs=64,hidden=[8]"))
    (row,) = measure([Case(wide, How("eager", batch=100_000))], 1, 0.001, memory=True).rows
    if row["memory_mb"] is None:
        pytest.skip("this system does not tell")
    assert row["memory_how"] == PROCESS
    assert (
        100_000 * 8 * 4 / 1e6 < row["memory_mb"] < 40
    )  # hidden values and their activations, not what torch itself is
