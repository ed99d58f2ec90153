"""Judging a data set: every sample once, scored once, drawn and written."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from tests.engine.harness import CPU, seeded_task
from tests.engine.toy import MeanError, Points, PointsData, Regression, Value
from vision.engine.data import Sample
from vision.engine.errors import DataError
from vision.engine.evaluation import Evaluation, autocast, evaluate, png, to_device, write_evaluation
from vision.engine.prediction import Picture
from vision.engine.recipe import TrainerOptions
from vision.engine.task import Batch, Metric


def judge(task: Regression, dataset: Dataset[Sample] | None = None, **options: Any) -> Evaluation:
    keep, draw = options.pop("keep", False), options.pop("draw", 0)
    return evaluate(
        task, task.val_data() if dataset is None else dataset, CPU, TrainerOptions(**options), keep=keep, draw=draw
    )


@pytest.mark.parametrize("batch", [1, 4, 11, 64])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_score_is_the_plain_mean(batch: int, workers: int) -> None:
    task = seeded_task(dropout=0.5)
    task.eval()
    data = task.val_data()
    with torch.no_grad():
        errors = [abs(float(task.network(data[i]["x"][None])) - float(data[i]["y"])) for i in range(11)]
    task.train()
    found = judge(task, eval_batch_size=batch, workers=workers)
    assert found.metrics["error"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert found.samples == 11 and found.seconds > 0 and not found.predictions
    assert task.training and task.network.training  # put back
    task.eval()
    judge(task)
    assert not task.training


def test_an_error_puts_training_back() -> None:
    class Failing(Regression):
        def predict(self, batch: Batch) -> list[Any]:
            raise ZeroDivisionError

    task = seeded_task(kind=Failing)
    with pytest.raises(ZeroDivisionError):
        judge(task)
    assert task.training


def test_predictions_come_by_id() -> None:
    class Backwards(Points):
        def __getitem__(self, index: int) -> Sample:
            return super().__getitem__(self.size - 1 - index)

    task = seeded_task()
    found = judge(task, Backwards(11, 0.0, first=1000), keep=True, eval_batch_size=4)
    assert [p["id"] for p in found.predictions] == [f"{i:04d}" for i in range(11)]
    assert found.metrics["error"] == pytest.approx(judge(task).metrics["error"], rel=1e-6)


class Repeated(Points):
    def __getitem__(self, index: int) -> Sample:
        return super().__getitem__(index) | {"id": "cat.png" if index in (2, 9) else str(index)}


def test_an_id_that_names_two_samples_is_refused() -> None:
    for size in (3, 64):  # in two batches, in one
        with pytest.raises(
            DataError, match=r"the id 'cat.png' names 2 samples; every sample .* needs an id of its own"
        ):
            judge(seeded_task(), Repeated(11, 0.0), eval_batch_size=size)


def test_a_missing_prediction_is_told() -> None:
    class Lazy(Regression):
        def predict(self, batch: Batch) -> list[Any]:
            return super().predict(batch)[1:]

    with pytest.raises(DataError, match="10 predictions for 11 samples"):
        judge(seeded_task(kind=Lazy))


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DataError, match="the evaluation split is empty"):
        judge(seeded_task(), Points(0, 0.0))


def test_a_metric_without_figures_is_fine() -> None:
    class Silent(MeanError):
        def score(self, records: list[float]) -> dict[str, float]:
            return {}

    class Unjudged(Regression):
        def metric(self) -> Metric:
            return Silent()

    assert judge(seeded_task(kind=Unjudged)).metrics == {}


class Stochastic(Regression):
    """Adds noise to its predictions, as a randomised attack or network does."""

    def predict(self, batch: Batch) -> list[Value]:
        return [Value(p.id, p.value + float(torch.rand(())) + np.random.rand()) for p in super().predict(batch)]


def test_predictions_that_draw_are_the_same_each_time() -> None:
    task = seeded_task(kind=Stochastic)
    torch.manual_seed(1)
    np.random.seed(1)
    first = judge(task, keep=True, eval_batch_size=4)
    torch.manual_seed(2)
    assert judge(task, keep=True, eval_batch_size=4).predictions == first.predictions
    noise = [
        a["value"] - b["value"]
        for a, b in zip(first.predictions, judge(seeded_task(), keep=True).predictions, strict=True)
    ]
    assert len({round(x, 6) for x in noise}) == 11


def test_noise_in_the_data_is_the_same_each_time_and_by_any_worker() -> None:
    noisy = Points(11, 1.0)
    found = [judge(seeded_task(), noisy, workers=w, eval_batch_size=b).metrics for w, b in ((0, 4), (2, 4), (0, 3))]
    assert found[0] == found[1]
    assert found[0]["error"] == pytest.approx(found[2]["error"], rel=1e-6)


class Drawn(Value):
    def draw(self, image: Picture, truth: Any = None) -> Picture:
        image = image.copy()
        image[0, 0] = (int(self.id), 0 if truth is None else int(truth), 7)
        return image


class Pictured(Regression):
    def predict(self, batch: Batch) -> list[Value]:
        return [Drawn(p.id, p.value) for p in super().predict(batch)]

    def pictures(self, batch: Batch) -> list[Picture]:
        return [np.zeros((2, 3, 3), np.uint8) for _ in batch["id"]]

    def truths(self, batch: Batch) -> list[Any]:
        return [int(i) + 100 for i in batch["id"]]


@pytest.mark.parametrize(("draw", "chosen"), [(0, []), (1, [0]), (2, [0, 10]), (3, [0, 5, 10]), (99, list(range(11)))])
def test_drawn_examples_are_spread_over_the_data(draw: int, chosen: list[int]) -> None:
    found = judge(seeded_task(kind=Pictured), draw=draw, eval_batch_size=4)
    assert sorted(found.pictures) == [f"{i:04d}" for i in chosen]
    for name, content in found.pictures.items():
        pixels = np.asarray(Image.open(io.BytesIO(content)))
        assert pixels.shape == (2, 3, 3) and pixels[0, 0].tolist() == [int(name), int(name) + 100, 7]


def test_a_task_without_pictures_draws_none() -> None:
    assert judge(seeded_task(), draw=3).pictures == {}


def test_what_is_written(tmp_path: Path) -> None:
    pixel = png(np.full((1, 1, 3), 9, np.uint8))
    table = {"confusion": {"type": "matrix", "values": [[1, float("nan")]]}}
    found = Evaluation({"error": 0.5}, 2, 1.23456, table, [{"id": "a/b"}, {"id": "c"}], {"a/b": pixel})
    folder = tmp_path / "val"
    written = write_evaluation(folder, found, {"split": "val", "step": 3})
    read = json.loads((folder / "result.json").read_text())
    assert read == {
        "split": "val",
        "step": 3,
        "samples": 2,
        "metrics": {"error": 0.5},
        "tables": {"confusion": {"type": "matrix", "values": [[1, None]]}},
        "eval_seconds": 1.235,
    }
    assert written.keys() == read.keys()
    assert [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()] == found.predictions
    assert (folder / "examples/a_b.png").read_bytes() == pixel
    found.pictures = {"new": pixel}
    write_evaluation(folder, found, {})
    assert [path.name for path in (folder / "examples").iterdir()] == ["new.png"]  # the old ones are gone


def test_tensors_are_moved_wherever_they_are() -> None:
    meta, tensor = torch.device("meta"), torch.zeros(2, 3, 4, 4)
    batch = {"x": tensor, "boxes": [tensor, {"mask": tensor, "name": "a"}], "pair": (tensor, 1), "id": ["a", "b"]}
    moved = to_device(batch, meta)
    places = [moved["x"], moved["boxes"][0], moved["boxes"][1]["mask"], moved["pair"][0]]
    assert all(t.device == meta for t in places)
    assert (moved["boxes"][1]["name"], moved["pair"][1], moved["id"]) == ("a", 1, ["a", "b"])
    last = to_device(batch | {"y": torch.zeros(2)}, CPU.device, channels_last=True)
    assert last["x"].is_contiguous(memory_format=torch.channels_last) and torch.equal(last["x"], tensor)
    assert tensor.is_contiguous() and last["y"].shape == (2,)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_precision_of_a_product(precision: str, dtype: torch.dtype) -> None:
    with autocast(CPU.device, precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_evaluation_keeps_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    plain: Callable[..., list[Value]] = Regression.predict
    seen: list[bool] = []

    def watched(self: Regression, batch: Batch) -> list[Value]:
        seen.append(self.network(batch["x"]).requires_grad or self.network.training)
        return plain(self, batch)

    monkeypatch.setattr(Regression, "predict", watched)
    judge(seeded_task(data=PointsData()))
    assert seen == [False]
