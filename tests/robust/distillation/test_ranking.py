"""The ranking loss against a loop over pairs."""

import numpy as np
import pytest
import torch

from robust.distillation import CorrectnessRanking
from vision.engine.errors import CheckpointError


def test_losses_and_history_equal_a_loop_over_pairs() -> None:
    samples, classes, size = 9, 4, 3
    ranking = CorrectnessRanking(samples)
    random = np.random.default_rng(0)
    history, labels = np.zeros(samples), random.integers(classes, size=samples)
    losses = []
    for epoch in range(1, 5):
        order, most = random.permutation(samples), max(1, epoch - 1)
        for start in range(0, samples, size):
            index = order[start : start + size]
            logits = random.normal(size=(size, classes)) + 2 * np.eye(classes)[labels[index]]
            p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            h = (history - history.min()) / ((most - history.min()) or 1)
            expected = 0.0
            for i in range(size):
                j = (i + 1) % size
                gap = h[index[i]] - h[index[j]]
                sign = np.sign(gap)
                expected += max(0.0, -sign * (p[i].max() - p[j].max() - abs(gap) / (sign or 1))) / size
            found = ranking(torch.tensor(logits), torch.tensor(labels[index]), torch.tensor(index)).item()
            assert found == pytest.approx(expected, abs=1e-6)
            losses.append(found)
            history[index] += logits.argmax(1) == labels[index]
            np.testing.assert_array_equal(ranking.history.numpy(), history)
        ranking.end_epoch(epoch)
    assert max(losses) > 0


def test_always_right_gives_no_nan() -> None:
    ranking = CorrectnessRanking(2)
    for epoch in (1, 2, 3):
        loss = ranking(4 * torch.eye(2), torch.arange(2), torch.arange(2))
        assert loss.item() == 0
        ranking.end_epoch(epoch)


def test_state_and_another_size() -> None:
    ranking, other = CorrectnessRanking(3), CorrectnessRanking(3)
    ranking(torch.eye(3), torch.arange(3), torch.arange(3))
    ranking.end_epoch(2)
    other.load_state_dict(ranking.state_dict())
    assert other.history.tolist() == [1, 1, 1]
    assert other.most == 2
    with pytest.raises(CheckpointError, match="has 3 samples, this one 4"):
        CorrectnessRanking(4).load_state_dict(ranking.state_dict())
