"""Label calibration against the release's recorded values, closed forms and a brute-force search."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax

from robust.calibration import (
    TEMPERATURES,
    WEIGHTS,
    calibrated_targets,
    calibration_loss,
    search_calibration,
    teacher_distribution,
)
from vision.engine.errors import ConfigError, DataError


def test_losses_and_gradients_are_the_recorded_ones(golden_root: Path) -> None:
    golden = np.load(golden_root / "label_calibration_loss.npz")
    teacher, labels = torch.from_numpy(golden["teacher_logits"]), torch.from_numpy(golden["labels"])
    temperature, weight = float(golden["T"]), float(golden["lam"])
    targets = calibrated_targets(teacher, labels, temperature, weight)
    np.testing.assert_allclose(targets, golden["soft_label"], rtol=1e-12)
    for form, name in (("hinton", "official_code"), ("soft_label", "plain_soft_ce")):
        student = torch.from_numpy(golden["student_logits"]).requires_grad_()
        loss = calibration_loss(student, teacher, labels, temperature, weight, form)
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss.item() == pytest.approx(float(golden[f"loss_{name}"]), rel=1e-12)
        np.testing.assert_allclose(gradient, golden[f"grad_{name}"], rtol=1e-9, atol=1e-14)


def test_without_a_teachers_share_it_is_cross_entropy() -> None:
    student, teacher, labels = torch.randn(5, 4), torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    hard = torch.nn.functional.cross_entropy(student, labels)
    for form in ("hinton", "soft_label"):
        torch.testing.assert_close(calibration_loss(student, teacher, labels, 3.0, 0.0, form), hard)


def test_several_teachers_are_averaged_as_distributions() -> None:
    a, b = torch.randn(3, 4), 5 * torch.randn(3, 4)
    expected = ((a / 2).softmax(1) + (b / 2).softmax(1)) / 2
    torch.testing.assert_close(teacher_distribution([a, b], 2.0), expected)
    student, labels = torch.randn(3, 4), torch.tensor([0, 1, 2])
    as_logits = 2 * expected.log()  # a single teacher of that very distribution
    torch.testing.assert_close(
        calibration_loss(student, [a, b], labels, 2.0, 0.7), calibration_loss(student, as_logits, labels, 2.0, 0.7)
    )


def test_no_gradient_reaches_the_teacher() -> None:
    teacher = torch.randn(3, 4, requires_grad=True)
    student = torch.randn(3, 4, requires_grad=True)
    calibration_loss(student, teacher, torch.tensor([0, 1, 2]), 2.0, 0.5).backward()
    assert teacher.grad is None and student.grad is not None


def _logits(count: int, classes: int, sharpness: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, count)
    logits = sharpness * draw.normal(size=(count, classes))
    logits[np.arange(count), labels] += sharpness
    return logits, labels


def _brute_force(best, last, y, train, train_y, least):  # type: ignore[no-untyped-def]
    """Every cell, written from the definition: mixtures built whole, accuracy by argmax."""
    found = (np.inf, 0.0, 0.0)
    onehot = np.eye(train.shape[1])[train_y]
    for temperature in TEMPERATURES[::7]:
        for weight in WEIGHTS[::9]:
            mixed = weight * softmax(best / temperature, 1) + (1 - weight) * softmax(last / temperature, 1)
            nll = -np.log(mixed[np.arange(len(y)), y] + 1e-8).mean()
            kept = (weight * softmax(train / temperature, 1) + (1 - weight) * onehot).argmax(1) == train_y
            if (least is None or kept.mean() >= least) and nll < found[0]:
                found = (nll, temperature, weight)
    return found


@pytest.mark.parametrize("least", [None, 0.8, 0.9, 0.99])
def test_the_search_is_the_brute_force_one(least: float | None) -> None:
    best, y = _logits(60, 5, 1.0, 0)
    last = 3 * best + np.random.default_rng(1).normal(size=best.shape)
    train, train_y = _logits(80, 5, 1.5, 2)
    found = search_calibration(best, last, y, train, train_y, least, TEMPERATURES[::7], WEIGHTS[::9])
    nll, temperature, weight = _brute_force(best, last, y, train, train_y, least)
    assert (found.nll, *found) == pytest.approx((nll, temperature, weight), rel=1e-12)
    assert least is None or found.train_accuracy >= least


def test_label_accuracy_falls_with_the_weight_and_matches_argmax() -> None:
    train, y = _logits(200, 6, 1.0, 3)
    found = search_calibration(train, train, y, train, y)
    assert np.all(np.diff(found.accuracy_surface, axis=1) <= 0)
    onehot = np.eye(6)[y]
    for row, column in ((0, 50), (40, 70), (99, 99)):
        p = softmax(train / found.temperatures[row], 1)
        mixed = found.weights[column] * p + (1 - found.weights[column]) * onehot
        assert found.accuracy_surface[row, column] == pytest.approx((mixed.argmax(1) == y).mean())


def test_a_planted_temperature_is_recovered() -> None:
    """Labels drawn from softmax(z / 3): the likelihood of the right temperature is highest, up to sampling."""
    draw = np.random.default_rng(4)
    logits = 4 * draw.normal(size=(20000, 4))
    p = softmax(logits / 3, 1)
    y = (p.cumsum(1) < draw.random((len(p), 1))).sum(1)
    last = np.zeros_like(logits)
    last[np.arange(len(y)), (y + 1) % 4] = 50  # a memory that is always wrong
    found = search_calibration(logits, last, y, logits, y, minimum_accuracy=None)
    assert found.weight == 1.0
    assert found.temperature == pytest.approx(3, rel=0.05)


def test_mistakes_are_named() -> None:
    z, y = torch.zeros(2, 3), torch.tensor([0, 2])
    for temperature in (0.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match=f"temperature: {temperature}"):
            calibrated_targets(z, y, temperature, 0.5)
    with pytest.raises(ConfigError, match=r"weight: 1\.2"):
        calibrated_targets(z, y, 1.0, 1.2)
    with pytest.raises(ConfigError, match="teacher gives 4 classes and the student 3"):
        calibration_loss(z, torch.zeros(2, 4), y, 1.0, 0.5)
    with pytest.raises(ConfigError, match="minimum_accuracy: 90"):
        search_calibration(z, z, y, z, y, minimum_accuracy=90)
    with pytest.raises(DataError, match=r"best_val_logits.*labels \[1\]"):
        search_calibration(z, z, y[:1], z, y)
    with pytest.raises(DataError, match="from 0 to 2"):
        search_calibration(z, z, torch.tensor([0, 3]), z, y)
    with pytest.raises(DataError, match="diverged"):
        search_calibration(z, z / 0, y, z, y)
    with pytest.raises(DataError, match="at most"):
        search_calibration(z, z, y, -100 * torch.eye(3)[y], y, 1.0, weights=np.array([0.9, 1.0]))
