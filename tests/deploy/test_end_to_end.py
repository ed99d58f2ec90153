"""From a task to exported files to the runner: ONNX Runtime's predictions are the task's."""

from pathlib import Path

import numpy as np
import pytest

from tests.contract.cases import SMALL, small_task
from tests.deploy.equal import by_task
from tests.deploy.test_equal import lively, require_near
from vision.deploy.export import Options, export
from vision.deploy.runner import Predictor
from vision.deploy.sidecar import Origin

pytest.importorskip("onnxscript", reason="no onnxscript")

SLOW = ("infrared_targets", "single_stage_pose", "spiking_classification", "target_counting", "top_down_pose")


@pytest.mark.parametrize("name", ["classification", *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_what_was_exported_predicts_as_the_task(name: str, tmp_path: Path) -> None:
    task, write = lively(small_task(name)), SMALL[name].write
    assert write is not None
    path = tmp_path / "input_7.png"
    write(path)
    export(task.eval(), Origin(name, "run"), tmp_path / "export", Options(limit=6))
    predictor = Predictor(tmp_path / "export", threads=1)
    expected, picture = by_task(task, str(path), 7)
    found = predictor.predict(str(path), number=7)
    require_near(expected, found)
    np.testing.assert_array_equal(predictor.picture(str(path)), picture)
