"""Free memory between what is held goes back to the system, and garbage does."""

import gc
import os
import weakref

from benchmarks.reliability.soak import held
from vision.engine.memory import give_back


class Ring:
    """Refers to itself: only the collector frees it."""

    def __init__(self) -> None:
        self.own = self


def test_what_lies_free_between_what_is_held_is_given_back() -> None:
    blocks: list[bytes | None] = [bytes(60_000) for _ in range(2000)]  # of the heap, as each is below 128 KiB
    for place in range(len(blocks)):
        if place % 50:
            blocks[place] = None
    before = held(os.getpid())["memory"]
    give_back()
    assert before - held(os.getpid())["memory"] > 80  # of 112 MiB
    assert sum(block is not None for block in blocks) == 40


def test_garbage_is_collected() -> None:
    gc.disable()
    try:
        seen = weakref.ref(Ring())
        assert seen() is not None
        give_back()
        assert seen() is None
    finally:
        gc.enable()
