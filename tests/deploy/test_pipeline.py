"""Stages of a prediction: every second is counted once, and predictions are those of the task."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.collect import check
from vision.deploy.backends import How, graph_runner, ready
from vision.deploy.pipeline import (
    AFTER,
    BEFORE,
    BOTH,
    DECODE,
    NETWORK,
    TOTAL,
    Watch,
    table_rows,
    time_exported,
    time_stages,
)
from vision.deploy.session import OnnxSession
from vision.engine.errors import ConfigError, DataError
from vision.engine.registry import build
from vision.engine.task import Task


@pytest.fixture(scope="module")
def digits() -> Task:
    torch.manual_seed(0)
    data = build({"type": "digits", "limit": 12}, "data")
    task: Task = build({"type": "classification", "network": {"type": "digits_cnn", "width": 8}}, "task", data=data)
    return task.eval()


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{number}.png" for number in range(2)]
    for file in files:
        Image.fromarray(np.full((8, 8), 100, dtype=np.uint8)).save(file)
    return files


def test_every_second_is_counted_once() -> None:
    watch = Watch([{DECODE: 1.0, NETWORK: 6.0, AFTER: 1.0}, {DECODE: 1.0, NETWORK: 4.0, AFTER: 3.0}])
    rows = watch.rows()
    assert [(row["stage"], row["p50_ms"], row["share"]) for row in rows] == [
        (DECODE, 1000, 0.125), (NETWORK, 5000, 0.625), (AFTER, 2000, 0.25), (TOTAL, 8000, 1.0),
    ]  # fmt: skip
    assert rows[0]["p90_ms"] is None
    assert table_rows(rows)[1] == [NETWORK, "5e+03", "–", "–", "62.5 %"]


def test_stages_of_images(digits: Task, images: list[Path], tmp_path: Path) -> None:
    ran = []
    graphs = graph_runner(digits, How("eager"), tmp_path)

    def run(graph: str, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ran.append((graph, tuple(inputs[0].shape)))
        return graphs(graph, *inputs)

    watch = time_stages(digits, run, images, repeats=2, warm=1)
    assert ran == [("model", (1, 1, 8, 8))] * 5
    assert len(watch.images) == 4
    assert [row["stage"] for row in watch.rows()] == [BOTH, NETWORK, AFTER, TOTAL]  # this task reads files itself
    assert sum(row["share"] for row in watch.rows()[:-1]) == pytest.approx(1.0, abs=1e-3)


def test_a_task_that_takes_pictures_has_decoding_apart(images: list[Path], tmp_path: Path) -> None:
    from tests.contract.cases import SMALL

    block = SMALL["top_down_pose"]
    assert callable(block.data)
    torch.manual_seed(0)
    task = build(block.task, "task", data=build(block.data(), "data")).eval()
    watch = time_stages(task, graph_runner(task, How("eager"), tmp_path), images, repeats=1, warm=1)
    assert [row["stage"] for row in watch.rows()] == [DECODE, BEFORE, NETWORK, AFTER, TOTAL]
    assert {task.network.training} == {False}


def test_graphs_of_onnxruntime_give_the_task_s_own_predictions(
    digits: Task, images: list[Path], tmp_path: Path
) -> None:
    run = graph_runner(digits, How("onnxruntime"), tmp_path)
    batch = digits.collate(digits.read_inputs(str(images[0])))
    with torch.no_grad():
        (ours,), (theirs,) = digits.predict_exported(batch, run), digits.predict(batch)
    assert ours.to_dict().keys() == theirs.to_dict().keys()
    np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-4)


def test_stages_of_an_exported_file(digits: Task, images: list[Path], tmp_path: Path) -> None:
    from vision.deploy.export import Options, export
    from vision.deploy.naming import parse
    from vision.deploy.runner import Predictor
    from vision.deploy.sidecar import Origin
    from vision.deploy.subjects import subject_of

    export(digits, Origin("classification", "digits"), tmp_path / "made", Options(limit=4))
    predictor = Predictor(tmp_path / "made" / "model.onnx", threads=1)
    watch = time_exported(predictor, images, repeats=2, warm=1)
    assert len(watch.images) == 4
    assert [row["stage"] for row in watch.rows()] == [DECODE, BEFORE, NETWORK, AFTER, TOTAL]
    assert min(image[AFTER] for image in watch.images) > 0
    assert isinstance(predictor.session, OnnxSession)  # as it was
    (tmp_path / "made" / "model.json").unlink()  # what the file says of itself is in the file too
    found = subject_of(parse(str(tmp_path / "made" / "model.onnx")), (8, 8))
    assert found.precision == "fp32"
    assert found.shape("image", 5) == (5, 1, 8, 8)
    made = ready(found, How("onnxruntime", batch=5))
    assert next(iter(made.call().values())).shape == (5, 10)


def test_what_is_not_made_on_the_fly_and_what_is_no_image(digits: Task, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a whole pipeline is not made on the fly"):
        graph_runner(digits, How("aoti"), tmp_path)
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    with pytest.raises(DataError, match=r"broken.png"):
        time_stages(digits, graph_runner(digits, How("eager"), tmp_path), [broken])


def test_a_document_of_stages_keeps_to_the_schema() -> None:
    from tests.benchmarks.folders import MACHINE
    from vision.deploy.conditions import Conditions

    watch = Watch([{BOTH: 1.0, NETWORK: 2.0, AFTER: 1.0}])
    check(
        {"kind": "pipeline", "title": "Stages", "what": "run", "backend": "eager fp32 on cpu", "images": 1,
         "repeats": 1, "rows": watch.rows(), "warnings": [], "conditions": Conditions().to_dict(), "machine": MACHINE,
         "commit": None, "date": None},
        "pipeline",
    )  # fmt: skip
