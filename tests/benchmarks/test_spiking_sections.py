"""Measured spiking runs on the pages: rules beside each other on the same data, apart from other classifiers."""

from typing import Any

import pytest

from benchmarks.collect import check
from benchmarks.results_page import readme_block, results_page
from benchmarks.spiking_sections import UNMEASURED, spiking_block, title
from tests.benchmarks.test_results_page import record

Documents = dict[str, dict[str, Any]]
LENET = {"type": "spiking_lenet5", "width": 12}
EVENTS = {"type": "events_npz", "root": "../shared/data/nmnist", "frames": 10}


def run(rule: str, learn: str, seed: int, accuracy: float, **more: Any) -> dict[str, Any]:
    figures = {
        "accuracy": accuracy, "decided": 2.0 + seed, "firing_rate": 0.1, "synaptic_operations": 9.0,
        "energy_nj": 1000.0 + seed,
    }  # fmt: skip
    found = record(None, seed, figures, recipe=f"nmnist_{rule}_{learn}")
    about = {"data": EVENTS, "network": LENET, "samples": 100, "options": {"rule": rule, "learn": learn}}
    return {**found, **about, "primary": "accuracy", "loss": None, "bins": [], **more}


@pytest.fixture
def documents() -> Documents:
    """STOP and BPTT over two seeds, other things in other files."""
    records = [
        run("bptt", "WTL", 0, 0.90), run("bptt", "WTL", 1, 0.92), run("stop", "WTL", 0, 0.91),
        run("stop", "WTL", 1, 0.95), run("stop", "W", 0, 0.8), run("stop", "W", 1, 0.8),
    ]  # fmt: skip
    still = {"type": "spiking_mlp", "inputs": 8, "hidden": [16, 8]}
    data = {"type": "digits", "normalise": False}
    options = {"rule": "stop", "learn": "W", "encoding": "rows"}
    rows = [run("stop", "W", 0, 0.7, recipe="rows", network=still, data=data, options=options)]
    found: Documents = {
        "snn_nmnist": {"kind": "runs", "note": "Others ran beside.", "records": records},
        "snn_row_digits": {"kind": "runs", "note": "", "records": rows},
    }
    for name, document in found.items():
        check(document, name)
    return found


def test_rules_stand_beside_each_other_and_beside_bptt_seed_by_seed(documents: Documents) -> None:
    lines = spiking_block("", documents).splitlines()
    assert lines[0].startswith("**N-MNIST, LeNet-5 of width 12, T = 10**, 100 test samples (standard error of a share")
    assert "3.2 points" in lines[0], "of 88 % in 100"
    tail = "0.100 ± 0.000 | 2.5 ± 0.7 | 1000 ± 1 | 0, 1 |"
    assert lines[4:7] == [
        f"| STOP | W | 80.00 ± 0.00 | – | {tail}",
        f"| STOP | WTL | 93.00 ± 2.83 | 2.00 ± 1.41 | {tail}",
        f"| BPTT | WTL | 91.00 ± 1.41 | – | {tail}",
    ]
    assert any(line.startswith("**Digits row by row, perceptron of 16-8 hidden neurons**") for line in lines)


def test_they_are_on_the_page_of_results_and_in_the_readme_but_not_among_other_classifiers(
    documents: Documents,
) -> None:
    page = results_page(documents)
    assert "## Classification\n\nNot measured yet." in page
    assert page.count("| STOP | WTL |") == 1 and "`nmnist_bptt_WTL`" in page and "Others ran beside." in page
    table = readme_block(documents)
    assert (
        "| STOP, LeNet-5 of width 12, T = 10 | N-MNIST, 100 test samples | accuracy 93.00 ± 2.83 %, 2 seeds |" in table
    )
    assert "| BPTT, LeNet-5 of width 12, T = 10 |" in table


def test_before_any_run_that_is_said() -> None:
    assert spiking_block("", {}) == UNMEASURED


def test_the_title_of_still_images_tells_how_often_they_are_shown() -> None:
    network = {"type": "spiking_vgg11", "width": 16, "steps": 4}
    data = {"type": "cifar10", "root": "../shared/data/cifar10"}
    found = run("stop", "W", 0, 0.5, network=network, data=data)
    assert title(found) == "CIFAR-10, VGG-11 of width 16, T = 4"
    network["output"] = "logits"
    assert title(found) == "CIFAR-10, VGG-11 of width 16 that ends in logits, T = 4"
