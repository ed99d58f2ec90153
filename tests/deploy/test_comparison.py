"""Differences of outputs, by numbers worked out by hand."""

import numpy as np
import pytest

from vision.deploy.bounds import BOUNDS
from vision.deploy.comparison import Compared


def compared(*pairs: tuple[list[float], list[float]]) -> Compared:
    found = Compared()
    for reference, exported in pairs:
        found.add(np.array(reference, dtype=np.float32), np.array(exported, dtype=np.float32))
    return found


def test_figures_over_two_batches() -> None:
    found = compared(([3.0, 4.0], [3.0, 4.5]), ([0.0, -1.0], [1.0, -1.0]))
    assert (found.largest, found.mean, found.scale, found.count) == (1.0, 0.375, 4.0, 4)
    expected = (9 + 18 + 1) / np.sqrt((9 + 16 + 1) * (9 + 20.25 + 1 + 1))
    assert found.cosine == pytest.approx(expected)
    assert found.beyond(0.7) == 0.25


def test_equal_outputs_pass_every_bound_and_zeros_have_a_cosine() -> None:
    assert compared(([0.0] * 4, [0.0] * 4)).cosine == 1.0
    for bound in BOUNDS.values():
        assert compared(([1.0, 2.0], [1.0, 2.0])).broken(bound, spiking=False) == []


def test_one_number_far_off_is_enough() -> None:
    found = compared(([1.0] * 1000, [1.0] * 999 + [1.01]))
    (told,) = found.broken(BOUNDS["fp32"], spiking=False)
    assert "largest difference 0.01" in told
    assert found.broken(BOUNDS["fp16"], spiking=False) == []


def test_a_flipped_spike_is_judged_by_how_many_flip() -> None:
    one, many = [1.0] * 2000, [1.0] * 2000
    one[5], many[:40] = 0.0, [0.0] * 40
    assert compared(([1.0] * 2000, one)).broken(BOUNDS["fp32"], spiking=True) == []
    assert "2.00% of its numbers flipped" in compared(([1.0] * 2000, many)).broken(BOUNDS["fp32"], spiking=True)[0]


def test_what_is_not_finite_is_refused_at_any_precision() -> None:
    for bound in BOUNDS.values():
        assert compared(([1.0, 1.0], [1.0, np.nan])).broken(bound, spiking=False) == ["numbers that are not finite"]


def test_outputs_of_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"shapes \[2\] in PyTorch and \[1\] exported"):
        compared(([1.0, 2.0], [1.0]))
