"""A whole run from a shipped recipe: trained, judged, reported, judged again, and used on a file."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.docs.pages import CHECKOUT
from tools.eval import main as judge
from tools.predict import main as predict
from tools.train import main as train
from vision.report.curves import training_charts
from vision.report.runs import read_runs

RECIPE = str(CHECKOUT / "configs" / "snn" / "stop_digits.yaml")
SMALL = ["trainer={epochs: 2, batch_size: 16, log_every: 1, evaluate_every: 1}", "data.limit=48"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs")
    assert train([RECIPE, *SMALL, f"output={output}"]) == 0
    return output / "stop_digits"


def test_its_report_shows_layers_curves_rasters_and_energy(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    for part in (
        "threshold/neuron1 (training)",
        "leak/neuron1 (training)",
        "Accuracy over time steps",
        "Energy a sample",
        "firing rate",
    ):
        assert part in page, part
    result = json.loads((folder / "eval" / "test" / "result.json").read_text())
    assert result["primary"] == "accuracy"
    assert len(result["tables"]["early_exit"]["y"]) == 6
    assert [row[0] for row in result["tables"]["layers"]["rows"]] == ["neuron1", "output"]
    picture = np.asarray(Image.open(next((folder / "eval" / "test" / "examples").glob("*.png"))))
    assert (picture == (36, 62, 120)).all(-1).any(), "a raster with spikes"


def test_noted_values_of_several_layers_share_a_chart(tmp_path: Path) -> None:
    assert train([RECIPE, *SMALL, "task.network.hidden=[12, 8]", f"output={tmp_path}"]) == 0
    (run,) = read_runs([tmp_path / "stop_digits"])
    charts = {chart.title: chart for chart in training_charts([run])}
    for family in ("threshold (training)", "leak (training)"):
        assert [series.label for series in charts[family].legend] == ["neuron1", "neuron2"]
    assert not any("/" in title for title in charts)
    several = training_charts([run, run])
    assert {"threshold/neuron1 (training)", "leak/neuron2 (training)"} <= {chart.title for chart in several}


def test_it_is_judged_again_and_predicts_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((folder / "eval" / "test" / "result.json").read_text())["metrics"]
    assert judge([str(folder), "--name", "again"]) == 0
    assert json.loads((folder / "eval" / "again" / "result.json").read_text())["metrics"] == before
    Image.new("L", (8, 8), 200).save(folder / "white.png")
    assert predict([str(folder), str(folder / "white.png"), "--device", "cpu"]) == 0
    capsys.readouterr()
    (said,) = json.loads((folder / "predict" / "predictions.json").read_text())
    assert len(said["answers"]) == 6 and said["label"] == said["answers"][-1]
