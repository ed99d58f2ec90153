"""What every registered task keeps to, on data small enough for a second; the examples stand in ``cases.py``."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.contract.cases import SMALL, case_of, small_task
from vision.engine.errors import DataError
from vision.engine.evaluation import png
from vision.engine.files import to_json
from vision.engine.prediction import Prediction
from vision.engine.registry import names
from vision.engine.seeding import seed_generators
from vision.engine.task import Batch, Losses, StepContext, Task

TASKS = names(kind="task")
BEGIN = StepContext(step=0, total_steps=10, epoch=0)


@pytest.fixture(params=sorted({*TASKS, *SMALL}))
def task(request: pytest.FixtureRequest) -> Task:
    return small_task(request.param)


def batch_of(task: Task, dataset: Any, indices: list[int], seed: int = 0) -> Batch:
    """Samples drawn as the loader draws them, each from a seed of its own, as one batch."""
    samples = []
    for index in indices:
        seed_generators(1000 * seed + index)
        samples.append(dataset[index])
    return task.collate(samples)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def close(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(close, a, b))
    return bool(a == pytest.approx(b, rel=1e-3, abs=1e-4)) if isinstance(a, float) else bool(a == b)


def total(losses: Losses) -> Tensor:
    return torch.stack([value for name, value in losses.items() if not name.startswith("_")]).sum()


@torch.no_grad()
def predicted(task: Task, indices: list[int]) -> tuple[list[Prediction], Batch]:
    task.eval()
    batch = batch_of(task, task.val_data(), indices)
    return task.predict(batch), batch


def test_every_example_is_of_a_registered_task() -> None:
    assert {case.task["type"] for case in SMALL.values()} == set(TASKS)


def test_training_steps_yield_finite_scalars_that_reach_the_parameters(task: Task) -> None:
    task.train()
    passes = list(task.training_step(batch_of(task, task.train_data(), [0, 1, 2, 3]), BEGIN))
    assert passes
    assert len(passes) == 1 or task.online
    for losses in passes:
        assert losses
        assert all(isinstance(value, Tensor) and value.ndim == 0 for value in losses.values())
        assert all(torch.isfinite(value) for value in losses.values())
        total(losses).backward()
    trained = [p for group in task.parameter_groups() for p in group["params"]]
    assert trained
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)
    assert sum(float(p.grad.abs().sum()) for p in trained if p.grad is not None) > 0


def test_samples_follow_from_the_generators_alone_and_evaluation_from_nothing(
    task: Task, request: pytest.FixtureRequest
) -> None:
    train, augmented = task.train_data(), case_of(request.node.callspec.params["task"]).augmented
    assert equal(batch_of(task, train, [0, 1, 2]), batch_of(task, train, [0, 1, 2]))
    assert equal(batch_of(task, train, [0, 1, 2]), batch_of(task, train, [0, 1, 2], seed=1)) != augmented
    for dataset in (task.val_data(), task.test_data()):
        if dataset is not None:
            assert equal(batch_of(task, dataset, [0, 1, 2]), batch_of(task, dataset, [0, 1, 2], seed=1))


def test_every_sample_of_a_split_has_an_id_of_its_own(task: Task) -> None:
    splits = {"train": task.train_data(), "val": task.val_data(), "test": task.test_data()}
    for split, dataset in splits.items():
        if dataset is None:
            continue
        ids = [dataset[index]["id"] for index in range(len(dataset))]  # type: ignore[arg-type]
        assert all(isinstance(name, str) and name for name in ids), split
        assert len(set(ids)) == len(ids), split


def test_samples_beyond_the_end_are_refused(task: Task) -> None:
    for dataset in (task.train_data(), task.val_data()):
        with pytest.raises(IndexError):
            dataset[len(dataset)]  # type: ignore[arg-type]


def test_collate_keeps_samples_in_order(task: Task) -> None:
    dataset = task.val_data()
    samples = [dataset[index] for index in (2, 0)]
    batch = task.collate(samples)
    assert batch["id"] == [samples[0]["id"], samples[1]["id"]]
    for key, values in batch.items():
        assert len(values) == 2, key
        for sample, value in zip(samples, values, strict=True):
            assert equal(torch.as_tensor(sample[key]), value) if isinstance(value, Tensor) else sample[key] == value


def test_one_prediction_a_sample_that_json_can_hold(task: Task) -> None:
    predictions, batch = predicted(task, [3, 1, 2])
    assert [p.id for p in predictions] == batch["id"]
    for prediction in predictions:
        values = prediction.to_dict()
        assert values["id"] == prediction.id
        assert json.loads(json.dumps(values, allow_nan=False)) == json.loads(to_json(values))


def test_a_prediction_does_not_depend_on_the_rest_of_its_batch(task: Task) -> None:
    together, _ = predicted(task, [0, 1, 2])
    for index, prediction in enumerate(together):
        alone = predicted(task, [index])[0][0].to_dict()
        assert close(alone, prediction.to_dict()), (alone, prediction.to_dict())


def test_a_metric_of_parts_is_the_metric_of_the_whole(task: Task) -> None:
    predictions, batch = predicted(task, [0, 1, 2, 3, 4])
    whole, parts = task.metric(), task.metric()
    whole.update(predictions, batch)
    for indices in ([4, 2], [0], [3, 1]):
        own = task.metric()
        own.update([predictions[index] for index in indices], batch_of(task, task.val_data(), indices))
        parts.merge(own.records)
    assert parts.compute() == whole.compute()
    assert to_json(parts.tables(parts.ordered())) == to_json(whole.tables(whole.ordered()))


def test_figures_are_numbers_and_the_primary_one_is_there(task: Task) -> None:
    predictions, batch = predicted(task, [0, 1, 2, 3, 4, 5])
    metric = task.metric()
    metric.update(predictions, batch)
    figures = metric.compute()
    assert metric.primary in figures
    assert all(isinstance(float(value), float) for value in figures.values())
    for figure in (metric.primary, *metric.others):
        assert metric.mode_of(figure) in ("max", "min")


def test_a_metric_does_not_depend_on_the_order_of_samples(task: Task) -> None:
    figures = []
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        metric = task.metric()
        metric.update(*predicted(task, order))
        figures.append(metric.compute())
    assert figures[0] == pytest.approx(figures[1], rel=1e-4)


def test_the_example_input_runs_through_the_network(task: Task) -> None:
    example = task.example_input()
    assert example.shape[0] == 1
    with torch.no_grad():
        output = task.network.eval()(example)
    assert torch.isfinite(output).all()


def test_pictures_and_drawings(task: Task) -> None:
    predictions, batch = predicted(task, [0, 1, 2])
    pictures, truths = task.pictures(batch), task.truths(batch)
    assert len(pictures) in (0, 3)
    assert len(truths) in (0, 3)
    for position, picture in enumerate(pictures):
        assert_picture(picture)
        before = picture.copy()
        assert_picture(predictions[position].draw(picture))
        if truths:
            drawn = predictions[position].draw(picture, truths[position])
            assert_picture(drawn)
            assert png(drawn).startswith(b"\x89PNG")
        assert np.array_equal(picture, before), "drawing changed the picture it was given"


def assert_picture(picture: Any) -> None:
    assert isinstance(picture, np.ndarray)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3


def test_a_users_file_is_read_as_an_input(task: Task, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    write = case_of(request.node.callspec.params["task"]).write
    path = tmp_path / "input.png"
    if write is None:
        with pytest.raises(DataError, match=r"input\.png: .* does not predict from files"):
            task.read_input(str(path))
        return
    write(path)
    with torch.no_grad():
        batch = task.collate([task.read_input(str(path))])
        prediction = task.eval().predict(batch)[0]
    assert prediction.id == str(path)
    assert_picture(prediction.draw(task.pictures(batch)[0]))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"input\.png"):
        task.read_input(str(path))


def test_one_batch_is_learnt(task: Task) -> None:
    task.train()
    batch = batch_of(task, task.train_data(), [0, 1, 2, 3])
    optimizer = torch.optim.Adam(task.parameter_groups(), lr=3e-3)
    losses = []
    for step in range(25):
        context = StepContext(step, 25, 0)
        optimizer.zero_grad()
        task.before_step(context)
        value = 0.0
        for parts in task.training_step(batch, context):
            loss = total(parts)
            loss.backward()
            value += float(loss.detach())
        optimizer.step()
        task.after_step(context)
        losses.append(value)
    assert losses[-1] < 0.8 * losses[0]
