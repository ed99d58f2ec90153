"""Ending a run early: a signal or the clock asks, and the processes agree between two updates."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from vision.engine.distributed import World

log = logging.getLogger(__name__)


@dataclass
class Stop:
    """A wish to end, and what came of it.

    A signal reaches processes at different moments, some before and some after an exchange of gradients; a process
    that ended by its own clock would leave the others waiting. So a wish counts once all have agreed.

    Attributes:
        wish: why this process would end; set at any moment.
        reason: why all of them end; empty while they go on.
    """

    wish: str = ""
    reason: str = ""

    def agree(self, world: World) -> None:
        """Every process calls this between two updates; a wish of any becomes the reason of all."""
        if world.size == 1:
            self.reason = self.wish
        elif world.any(bool(self.wish)):
            wishes = world.gather(self.wish)
            self.reason = world.share(next(filter(None, wishes)) if wishes else None)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, SIGTERM and Ctrl-C are wishes; a second Ctrl-C ends the process at once."""

        def ask(number: int, _: FrameType | None) -> None:
            if self.wish and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.wish = signal.Signals(number).name
            log.info("%s: finishing this update, then writing a checkpoint", self.wish)

        try:
            before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not in the main thread: signals belong to somebody else
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
