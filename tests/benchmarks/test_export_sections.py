"""The table of exports: every graph of every run has a line, and what was refused says why."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.collect import check
from benchmarks.export_sections import exports_block
from benchmarks.exports import document_of, drawings, main
from tests.contract.cases import small_task
from tests.deploy.equal import runner_of
from vision.deploy.runner import Predictor
from vision.engine.errors import ConfigError

GRAPH = {"graph": "model", "calls": 4, "largest": 2.5e-7, "mean": 1e-8, "cosine": 1 - 2e-8, "by_float64": False}
KEPT: dict[str, Any] = {
    "run": "small_net", "overrides": [], "task": "classification", "step": 7, "format": "onnx", "precision": "fp32",
    "passed": True, "said": "", "samples": 64, "seconds": 1.5, "bytes": 100,
    "graphs": [GRAPH, {**GRAPH, "graph": "step"}],
    "metric": {"name": "accuracy", "before": {"accuracy": 0.98764}, "after": {"accuracy": 0.96}}, "divergence": {},
    "drawn": {"pictures": 8, "differ": 0.0},
}  # fmt: skip
REFUSED = {**KEPT, "precision": "int8", "passed": False, "said": "a | b_c", "drawn": {"pictures": 8, "differ": 0.0123}}
FAILED = {**REFUSED, "format": "torch", "graphs": [], "metric": None, "drawn": None, "samples": None, "bytes": None}


def test_every_graph_has_a_line_and_what_was_refused_says_why() -> None:
    document = document_of([KEPT, REFUSED, FAILED])
    check(document, "exports")
    text = exports_block("name", {"name": document})
    first = "| `small_net` | onnx fp32 | `model` | 2.5e-07 | 1.0e-08 | 1 - 2e-08 | accuracy 0.9876, 0.96 | yes |"
    assert f"{first} none of 8 |\n|  |  | `step` |" in text
    assert "| **no** | 1.23% of 8 |" in text
    assert "| `small_net` | torch int8 | – | – | – | – | – | **no** | – |" in text
    assert "- `small_net`, onnx int8: a \\| b\\_c" in text
    assert "Refused:" not in exports_block("name", {"name": document_of([KEPT])})
    assert "Not exported yet" in exports_block("name", {})


class Darker(Predictor):
    """A runner that draws on a picture whose first row is another."""

    def picture(self, image: Any) -> Any:
        picture = super().picture(image).copy()
        picture[0] ^= 1
        return picture


@pytest.mark.parametrize(("runner", "differ"), [(Predictor, 0.0), (Darker, 1 / 8)])
def test_drawings_of_both_are_compared_pixel_by_pixel(runner: type[Predictor], differ: float, tmp_path: Path) -> None:
    task = small_task("classification")
    predictor = runner_of(task, tmp_path / "export")
    predictor.__class__ = runner
    found = drawings(task, predictor, tmp_path / "drawn", 2, 4)
    assert found["pictures"] == 2
    height = task.pictures(task.collate([task.val_data()[0]]))[0].shape[0]
    scaled = differ * 8 / height  # one row of each picture, if a drawing is no larger than what it is drawn on
    assert found["differ"] == pytest.approx(scaled, abs=scaled)
    assert (found["differ"] > 0) is (differ > 0)
    assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == ["0.png", "1.png"]


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder; expected the folder of a run"):
        main([str(tmp_path / "none")])
