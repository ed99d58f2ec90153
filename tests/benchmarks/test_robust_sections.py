"""The table of robust training says what its figures say, also where they are missing or speak against a claim."""

from typing import Any

import pytest

from benchmarks.results_page import classifiers
from benchmarks.robust_sections import readme_rows, robust_block
from tests.benchmarks.folders import MACHINE

Documents = dict[str, dict[str, Any]]


def record(stage: str, side: str, seed: int, pgd: float, auto: float | None = None) -> dict[str, Any]:
    figures = {"clean": 0.5, "pgd20": pgd} | ({} if auto is None else {"autoattack": auto, "autoattack_images": 200.0})
    return {"recipe": "robust_cifar10_quick", "stage": stage, "seed": seed, "evaluation": side, "split": "test",
            "data": {"type": "cifar10", "limit": 2000}, "samples": 1000, "metrics": figures, "parameters": 308378,
            "machine": MACHINE, "updates": None}  # fmt: skip


def documents(student: list[float], apart: float = 0.3) -> Documents:
    """AT loses 4 and 6 points under PGD-20; the student what is given; FGSM all it has."""
    lost = {"judge_at": [0.04, 0.06], "judge_kd_at_auto": student, "judge_fgsm": [0.3, 0.3]}
    records = [
        record(stage, side, seed, 0.3 - (gap if side == "last" else 0.0), 0.25 if side == "best" else 0.24)
        for stage, gaps in lost.items()
        for seed, gap in enumerate(gaps)
        for side in ("best", "last")
    ]
    records += [record("judge_apart", side, 0, apart) for side in ("best", "last")]
    return {"robust_cifar10_quick": {"kind": "runs", "note": "Two at once.", "records": records}}


def test_rows_are_means_and_differences_over_seeds() -> None:
    lines = robust_block("robust_cifar10", documents([0.01, 0.02])).splitlines()
    rows = {
        cells[0]: cells[1:] for cells in ([c.strip() for c in line.split("|")[1:-1]] for line in lines if "|" in line)
    }
    assert rows["AT"][3:6] == ["30.0 ± 0.0", "25.0 ± 1.4", "5.0 ± 1.4"]
    assert rows["AT"][6:] == ["25.0 ± 0.0", "24.0 ± 0.0", "1.0 ± 0.0", "0, 1"]
    assert rows["APART"][6:9] == ["–", "–", "–"] and rows["APART"][9] == "0"
    assert "first 200" in "\n".join(lines) and lines[-1] == "Two at once."


@pytest.mark.parametrize(
    ("student", "verdict"),
    [
        ([0.01, 0.02], "**seen**. Its difference is 1.5 points against 5.0, smaller in 2 of 2"),
        ([0.01, 0.07], "**seen on average only**. Its difference is 4.0 points against 5.0, smaller in 1 of 2"),
        ([0.05, 0.07], "**not seen**. Its difference is 6.0 points against 5.0, smaller in 0 of 2"),
    ],
)
def test_the_claim_of_calibration_follows_from_the_figures(student: list[float], verdict: str) -> None:
    assert f"KD-AT-Auto overfits less than AT under PGD-20: {verdict}" in robust_block("robust", documents(student))


@pytest.mark.parametrize(("apart", "verdict"), [(0.3, "seen"), (-0.1, "not seen")])
def test_the_claims_of_apart_follow_from_the_figures(apart: float, verdict: str) -> None:
    found = documents([0.0, 0.0], apart)
    text = robust_block("robust", found)
    assert f"APART ends no worse than FGSM under PGD-20: **{verdict}**" in text and "lost 30.0 points" in text
    assert "has not been timed yet" in text
    row = {"what": "APART, PreActResNet-10", "against": "PGD-10 AT", "ratio": 0.3, "aim": 0.25}
    text = robust_block("robust", found | {"robust_steps": {"kind": "comparison", "rows": [row]}})
    assert "costs at most 0.25 of one of PGD-10 AT: **not seen**, 0.30 of it" in text


def test_the_readme_has_a_row_for_each_training_that_was_judged() -> None:
    rows = readme_rows(documents([0.01, 0.02]))
    assert [row[0] for row in rows] == ["AT", "KD-AT-Auto", "FGSM", "APART"]
    assert rows[0][1] == "cifar10, 1000 test images (200 by AutoAttack), attacked"
    assert rows[0][2].startswith("PGD-20 30.0 ± 0.0 % best, 25.0 ± 1.4 % last weights; AutoAttack 25.0")
    assert rows[0][2].endswith(", 2 seeds") and rows[3][2] == "PGD-20 30.0 % best, 30.0 % last weights, one seed"


def test_nothing_is_said_of_what_was_not_measured() -> None:
    assert robust_block("robust_cifar10", {}) == "Not measured yet."
    only = {"robust_cifar10": {"kind": "runs", "note": "", "records": [record("judge_at", "best", 0, 0.3)]}}
    assert robust_block("robust_cifar10", only) == "Not measured yet."


def test_networks_under_attack_are_no_classifiers_of_the_results_page() -> None:
    plain = {**record("train", "test", 0, 0.0), "metrics": {"accuracy": 0.5}}
    attacked = {**plain, "metrics": {"accuracy": 0.5, "robust_accuracy": 0.3}}
    for each, rows in ((plain, 1), (attacked, 0)):
        assert len(classifiers({"a": {"kind": "runs", "note": "", "records": [each]}})) == rows
