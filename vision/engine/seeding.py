"""Run seed -> seed of each sample and step; determinism modes."""

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from a run seed and what it is for: the first 8 bytes of BLAKE2b over the parts, as an integer.

    Example:
        >>> seed_of(0, "order", 3) == seed_of(0, "order", 3) != seed_of(0, "order", 4)
        True
    """
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_everything(seed: int) -> None:
    """Seeds the global generators of torch, numpy and random."""
    seed_generators(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


def seed_generators(seed: int) -> None:
    """Seeds the CPU's global generators: all that a data set may draw from; a worker process must not touch CUDA."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)


@contextmanager
def generators_kept() -> Iterator[None]:
    """After the block, the CPU's global generators go on as if nothing had happened in it."""
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])
        random.setstate(kept[2])


def set_determinism(mode: Literal["off", "warn", "strict"]) -> None:
    """Chooses torch's algorithms: ``off`` any, ``warn`` deterministic where there is one, ``strict`` nothing else."""
    if mode != "off":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(mode != "off", warn_only=mode == "warn")
    torch.backends.cudnn.benchmark = mode == "off"
