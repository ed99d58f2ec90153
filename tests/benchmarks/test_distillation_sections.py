"""Tables of teachers and students: made from records by the names of their stages, and from nothing else."""

from typing import Any

import pytest

from benchmarks.collect import check
from benchmarks.distillation_sections import distillation, distillation_block, distillation_rows
from benchmarks.results_page import classifiers
from tests.benchmarks.test_results_page import record

NAME = "soteacher_wrn16_2_cifar10_quick"
DATA = {"type": "cifar10", "root": "../shared/data/cifar10", "layout": "npz_jpeg", "limit": 3000}
LOOKED = {
    "val_accuracy": 0.61, "val_nll": 1.2, "val_ece": 0.05, "train_nll": 0.5, "train_confidence": 0.8,
    "view_distance": 0.1, "view_agreement": 0.9, "lipschitz_sum": 26000.4,
}  # fmt: skip


def judged(stage: str, seed: int, accuracy: float) -> dict[str, Any]:
    return record(stage, seed, {"accuracy": accuracy}, recipe=NAME, data=DATA, samples=3000, primary="accuracy")


@pytest.fixture
def documents() -> dict[str, dict[str, Any]]:
    accuracy = {
        "standard": (0.60, 0.62), "soteacher": (0.59, 0.61),
        "standard_kd": (0.500, 0.520), "soteacher_kd": (0.512, 0.528),
    }  # fmt: skip
    records = [judged(stage, seed, value) for stage, values in accuracy.items() for seed, value in enumerate(values)]
    for teacher in ("standard", "soteacher"):
        more = {"evaluation": "diagnostics", "split": "val", "recipe": NAME, "data": DATA, "primary": "val_accuracy"}
        records += [record(f"{teacher}_diagnosed", seed, LOOKED, **more) for seed in (0, 1)]
    document = {"kind": "runs", "note": "", "records": records}
    check(document, "test")
    return {"soteacher_cifar10": document}


def test_students_stand_beside_those_of_the_standard_teacher(documents: dict[str, Any]) -> None:
    lines = distillation_block(NAME, documents).splitlines()
    assert "CIFAR-10 as JPEG copies, 3,000 training images, 3,000 test images" in lines[0]
    assert "| standard | `kd` | 51.00 ± 1.41 |  |  | 0, 1 |" in lines
    # differences of 1.2 and 0.8 points: t(1, 0.975) = 12.706 times 0.2 for half the interval
    assert "| soteacher | `kd` | 52.00 ± 1.13 | +1.00 ± 0.28 | −1.54 to +3.54 | 0, 1 |" in lines
    assert any("leaves out zero for 0: 0 above it, 0 below" in line for line in lines)


def test_teachers_stand_with_what_distinguishes_them(documents: dict[str, Any]) -> None:
    rows = [line for line in distillation_block(NAME, documents).splitlines() if line.startswith("| soteacher | 60.00")]
    assert rows == [
        "| soteacher | 60.00 ± 1.41 | 61.00 ± 0.00 | 1.200 ± 0.000 | 5.00 ± 0.00 | 0.500 ± 0.000 | 0.800 ± 0.000 "
        "| 0.100 ± 0.000 | 90.0 ± 0.0 | 26000 ± 0 | 0, 1 |"
    ]


def test_other_tables_leave_them_out_and_the_readme_has_one_row(documents: dict[str, Any]) -> None:
    assert classifiers(documents) == []
    (row,) = distillation_rows(documents)
    assert row[2] == "51.00 ± 1.41 % from standard, 52.00 ± 1.13 % from soteacher, 2 seeds"
    assert any("10,000 × 8" in line for line in distillation(documents)), "what it cost"


def test_nothing_measured() -> None:
    assert distillation_block(NAME, {}) == "Not measured yet: no finished run has been collected."
    assert distillation_rows({}) == []
    assert "No finished run has been collected yet." in distillation({})
