"""Seeds from a run's seed, the generators they start, and the determinism modes."""

import hashlib
import os
import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from vision.engine.seeding import generators_kept, seed_everything, seed_generators, seed_of, set_determinism


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leaves torch's switches as they were."""
    variable = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False
    if variable is None:
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def draw() -> tuple[float, float, float]:
    return float(torch.rand(())), float(np.random.rand()), random.random()


def test_a_seed_is_the_hash_that_is_documented() -> None:
    digest = hashlib.blake2b(b"7\x1fsample\x1f3\x1f12", digest_size=8).digest()
    assert seed_of(7, "sample", 3, 12) == int.from_bytes(digest, "little") // 2


def test_seeds_differ_by_every_part_and_fit_a_generator() -> None:
    seeds = {seed_of(run, what, epoch, i) for run in range(4) for what in "ab" for epoch in range(9) for i in range(99)}
    assert len(seeds) == 4 * 2 * 9 * 99
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(1, 23) != seed_of(12, 3)


@pytest.mark.parametrize("seed", [seed_everything, seed_generators])
def test_all_three_generators_start_from_the_seed(seed: Callable[[int], None]) -> None:
    seed(5)
    first = draw()
    seed(6)
    second = draw()
    seed(5)
    assert draw() == first
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_what_happens_inside_leaves_the_generators_alone() -> None:
    seed_everything(1)
    expected = [draw() for _ in range(3)]
    seed_everything(1)
    found = [draw()]
    with generators_kept():
        seed_generators(99)
        draw()
    found.append(draw())
    with pytest.raises(KeyError), generators_kept():
        draw()
        raise KeyError
    found.append(draw())
    assert found == expected


def test_modes_of_determinism() -> None:
    for mode, enabled, warns in (("warn", True, True), ("strict", True, False), ("off", False, False)):
        set_determinism(mode)  # type: ignore[arg-type]
        assert torch.are_deterministic_algorithms_enabled() is enabled
        assert torch.is_deterministic_algorithms_warn_only_enabled() is warns
        assert torch.backends.cudnn.benchmark is not enabled


def test_strict_stops_where_there_is_no_deterministic_algorithm() -> None:
    def by_rounding_order() -> None:
        torch.zeros(2).put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)

    set_determinism("strict")
    with pytest.raises(RuntimeError, match="deterministic"):
        by_rounding_order()
    set_determinism("warn")
    with pytest.warns(UserWarning, match="deterministic"):
        by_rounding_order()
