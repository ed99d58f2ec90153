"""Scores of a classifier against scikit-learn, scipy, closed forms and plain loops."""

import math

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn import metrics as reference

from vision.classification.metrics import (
    brier,
    confusion_matrix,
    ece,
    nll,
    per_class_accuracy,
    reliability,
    top_k,
)
from vision.engine.errors import TrainingError


@pytest.fixture(params=[(500, 10, 2.0), (300, 2, 1.0), (400, 7, 30.0)], ids=["ten", "two", "sharp"])
def scored(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    samples, classes, scale = request.param
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, samples)
    logits = rng.normal(size=(samples, classes)) * scale
    logits[np.arange(samples), labels] += scale
    return logits.astype(np.float32), labels


def test_top_k_is_scikit_learns(scored: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = scored
    classes = np.arange(logits.shape[1])
    assert top_k(logits, labels) == pytest.approx(reference.accuracy_score(labels, logits.argmax(1)))
    if len(classes) > 2:
        for k in range(1, len(classes)):
            expected = reference.top_k_accuracy_score(labels, logits, k=k, labels=classes)
            assert top_k(logits, labels, k) == pytest.approx(expected)
    assert top_k(logits, labels, len(classes)) == 1.0


def test_a_network_that_says_nothing_is_right_once_in_c() -> None:
    assert top_k(np.zeros((10, 10)), np.arange(10), 1) == 0.1
    assert top_k(np.zeros((10, 10)), np.arange(10), 5) == 0.5
    assert confusion_matrix(np.zeros((10, 10)), np.arange(10))[:, 0].tolist() == [1] * 10


def test_nll_and_brier_are_scikit_learns(scored: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = scored
    wide = logits.astype(np.float64)
    expected = -np.mean(log_softmax(wide, axis=1)[np.arange(len(labels)), labels])
    assert nll(logits, labels) == pytest.approx(expected, rel=1e-12)
    one_hot = np.eye(logits.shape[1])[labels]
    squares = [reference.mean_squared_error(t, p) * len(t) for t, p in zip(one_hot, softmax(wide, axis=1), strict=True)]
    assert brier(logits, labels) == pytest.approx(np.mean(squares), rel=1e-12)
    if logits.max() < 20:  # beyond, scikit-learn clips probabilities
        assert nll(logits, labels) == pytest.approx(
            reference.log_loss(labels, softmax(wide, axis=1), labels=np.arange(logits.shape[1])), rel=1e-9
        )


def test_nll_does_not_overflow() -> None:
    assert nll(np.array([[1e4, 0.0]]), np.array([1])) == 1e4
    assert nll(np.array([[-1e4, -1e4]]), np.array([1])) == pytest.approx(math.log(2))


def loop_ece(logits: np.ndarray, labels: np.ndarray, bins: int) -> float:
    probabilities = softmax(logits.astype(np.float64), axis=1)
    total = 0.0
    for b in range(bins):
        inside = [
            (p.max(), p.argmax() == y)
            for p, y in zip(probabilities, labels, strict=True)
            if b / bins < p.max() <= (b + 1) / bins
        ]
        if inside:
            confidence = sum(c for c, _ in inside) / len(inside)
            accuracy = sum(hit for _, hit in inside) / len(inside)
            total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_ece_is_the_plain_loop(scored: tuple[np.ndarray, np.ndarray], bins: int) -> None:
    logits, labels = scored
    assert ece(logits, labels, bins) == pytest.approx(loop_ece(logits, labels, bins), rel=1e-9)


def test_ece_in_closed_form() -> None:
    logits = np.log(np.array([[0.8, 0.2]] * 10))
    labels = np.array([0] * 6 + [1] * 4)  # right in 60 % at a confidence of 80 %
    assert ece(logits, labels) == pytest.approx(0.2)
    assert ece(np.log(np.array([[0.6, 0.4]] * 10)), labels) == pytest.approx(0.0, abs=1e-12)
    assert ece(np.array([[0.0, -50.0]]), np.array([0])) == pytest.approx(0.0, abs=1e-12)
    assert ece(np.array([[0.0, -50.0]]), np.array([1])) == pytest.approx(1.0)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    counts, accuracy, confidence = reliability(np.zeros((4, 2)), np.array([0, 0, 1, 0]), bins=10)
    assert counts.tolist() == [0, 0, 0, 0, 4, 0, 0, 0, 0, 0]
    assert accuracy[4] == 0.75 and confidence[4] == 0.5
    assert accuracy[0] == confidence[0] == 0


def test_confusion_and_recall_are_scikit_learns(scored: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = scored
    classes = np.arange(logits.shape[1])
    expected = reference.confusion_matrix(labels, logits.argmax(1), labels=classes)
    np.testing.assert_array_equal(confusion_matrix(logits, labels), expected)
    recall = reference.recall_score(labels, logits.argmax(1), labels=classes, average=None)
    np.testing.assert_allclose(per_class_accuracy(logits, labels), recall)


def test_a_class_without_samples_has_no_accuracy() -> None:
    accuracy = per_class_accuracy(np.eye(3)[:2], np.array([0, 1]))
    assert accuracy[:2].tolist() == [1, 1] and np.isnan(accuracy[2])


def test_order_does_not_matter(scored: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = scored
    order = np.random.default_rng(1).permutation(len(labels))
    for score in (top_k, nll, brier, ece):
        assert score(logits, labels) == pytest.approx(score(logits[order], labels[order]), rel=1e-12)


@pytest.mark.parametrize("score", [top_k, nll, brier, ece, reliability, confusion_matrix, per_class_accuracy])
@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), ValueError, "not empty"),
        (np.zeros((2, 3)), np.zeros(3, int), ValueError, r"logits \[2, 3\] and labels \[3\]"),
        (np.zeros(3), np.zeros(3, int), ValueError, r"expected \[N, C\]"),
        (np.zeros((2, 3)), np.array([0, 3]), ValueError, r"from 0 to 3; expected integers in \[0, 3\)"),
        (np.zeros((2, 3)), np.array([0, -1]), ValueError, "from -1"),
        (np.zeros((2, 3)), np.array([0.0, 1.0]), ValueError, "labels of float64"),
        (np.array([[np.nan, 1.0], [0.0, 1.0]]), np.array([0, 1]), TrainingError, "not finite for 1 of 2"),
        (np.array([[np.inf, 1.0]]), np.array([0]), TrainingError, "not finite for 1 of 1"),
    ],
)
def test_what_cannot_be_scored_is_refused(score, logits, labels, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        score(logits, labels)


def test_impossible_options_are_refused() -> None:
    logits, labels = np.zeros((1, 3)), np.array([0])
    with pytest.raises(ValueError, match="k is 4"):
        top_k(logits, labels, 4)
    with pytest.raises(ValueError, match="k is 0"):
        top_k(logits, labels, 0)
    with pytest.raises(ValueError, match="bins is 0"):
        ece(logits, labels, 0)
