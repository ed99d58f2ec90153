"""What a run says while it trains: metrics.jsonl, TensorBoard, and progress on the console."""

import json
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from vision.engine.command import terminal
from vision.engine.errors import UserError
from vision.engine.files import to_json, write_atomically
from vision.engine.run import RunFolder

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

BAR_SECONDS = 0.2
LINE_SECONDS = 15.0
"""Seconds between updates of the bar, and between plain lines where there is no terminal."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl``, in order; a last line that was cut off by a kill is left out.

    Raises:
        UserError: the file cannot be read, or a line before the last is no JSON object; with its number.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    whole, rest = lines[:-1], lines[-1]
    if rest:
        log.warning("%s: the last line was cut off and is left out", path)
    return [_parsed(path, number, line) for number, line in enumerate(whole, start=1) if line.strip()]


def _parsed(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{number}: is not JSON ({error.msg}); remove that line") from error
    if not isinstance(value, dict) or "kind" not in value or "step" not in value:
        raise UserError(f"{path}:{number}: expected an object with 'kind' and 'step'; remove that line")
    return value


class Recorder:
    """Records a run as it goes on.

    ``metrics.jsonl`` is the source of truth: one JSON object a line, of kind ``train``, ``eval`` or ``event``, flushed
    as it is written. TensorBoard event files repeat it. On a terminal there is a progress bar; elsewhere a plain line
    about every 15 s. Tensors are read (and a GPU waited for) only at steps that are recorded.

    Args:
        run: where to write; None writes nothing (a dry run, or a process other than the first).
        log_every: updates between ``train`` lines.
        total_steps: updates of the whole run; the last one is always recorded.
        console: show progress.
    """

    def __init__(self, run: RunFolder | None, log_every: int, total_steps: int, console: bool = True) -> None:
        self.run = run
        self.log_every = log_every
        self.total_steps = total_steps
        self.console = console
        self._file: TextIO | None = None
        self._board: SummaryWriter | None = None
        self._boards = run is not None
        self._purge_step: int | None = None
        self._bar: Progress | None = None
        self._bar_task: TaskID | None = None
        self._next_show = 0.0
        self._began: tuple[float, int] | None = None
        self._shown: dict[str, float] = {}

    def due(self, step: int) -> bool:
        """Whether the update that made ``step`` updates is one to record."""
        return step % self.log_every == 0 or step >= self.total_steps

    def train(
        self,
        step: int,
        epoch: float,
        losses: "Mapping[str, Tensor | float]",
        lr: float,
        samples_per_second: float,
        grad_norm: "Tensor | float | None",
        seconds: float,
    ) -> None:
        """Call after every update; records those that are due.

        Args:
            step: updates finished.
            epoch: passes over the training data finished, with fraction.
            losses: of this update by name, scalars; names with a leading ``_`` are noted but not part of ``loss``.
            lr: learning rate of this update.
            samples_per_second: training speed.
            grad_norm: global gradient norm before clipping, or None when it was not computed.
            seconds: training time so far.
        """
        if self._began is None:
            self._began = (time.monotonic(), step - 1)
        if self.due(step):
            values = {name: float(value) for name, value in losses.items()}
            line = {
                "kind": "train",
                "step": step,
                "epoch": round(epoch, 6),
                "loss": sum(value for name, value in values.items() if not name.startswith("_")),
                "losses": values,
                "lr": lr,
                "samples_per_second": round(samples_per_second, 2),
                "seconds": round(seconds, 3),
                "grad_norm": None if grad_norm is None else float(grad_norm),
            }
            self._write(line)
            self._shown = {"loss": line["loss"], "lr": lr, "rate": samples_per_second}  # type: ignore[dict-item]
            self._to_board(_train_scalars(line), step)
        if self.console and time.monotonic() >= self._next_show:
            self._show(step, epoch)

    def evaluation(
        self, split: str, step: int, epoch: float, metrics: Mapping[str, float], seconds: float, best: bool = False
    ) -> None:
        """Records one evaluation; ``seconds`` is how long it took, ``best`` whether it is the best so far."""
        self._write(
            {
                "kind": "eval",
                "split": split,
                "step": step,
                "epoch": round(epoch, 6),
                "metrics": dict(metrics),
                "seconds": round(seconds, 3),
                "best": best,
            }
        )
        self._to_board({f"{split}/{name}": value for name, value in metrics.items()}, step)
        if self.console:
            figures = "  ".join(f"{name} {float(value):.4g}" for name, value in metrics.items())
            log.info("%s  step %d  epoch %.4g  %s  (%.1f s)%s", split, step, epoch, figures, seconds, "  best" * best)

    def event(self, step: int, message: str) -> None:
        """Records and says something that happened: resumed, stopped early, out of time."""
        self._write({"kind": "event", "step": step, "message": message})
        if self.console:
            log.info("step %d: %s", step, message)

    def truncate(self, step: int) -> None:
        """Drops everything recorded after ``step`` updates, before a run goes on from a checkpoint of that step.

        Raises:
            UserError: the file cannot be read or written, or a line in it is broken.
        """
        if self.run is None:
            return
        self._close_files()
        self._purge_step = step + 1
        if self.run.metrics.exists():
            kept = [to_json(line) + "\n" for line in read_metrics(self.run.metrics) if line["step"] <= step]
            write_atomically(self.run.metrics, "".join(kept).encode())

    def close(self) -> None:
        """Ends the bar and closes the files; may be called again."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._close_files()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _close_files(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError as error:
                assert self.run is not None
                raise UserError(f"{self.run.metrics}: cannot be written: {error.strerror or error}") from error
        if self._board is not None:
            board, self._board = self._board, None
            try:
                board.close()
            except OSError as error:
                log.warning("TensorBoard's files are cut off: %s; metrics.jsonl holds the same figures", error)

    def _drop_file(self) -> None:
        """Closes ``metrics.jsonl`` after a write that failed: closing would try to write the same once more."""
        file, self._file = self._file, None
        with suppress(OSError):
            if file is not None:
                file.close()

    def _write(self, line: dict[str, Any]) -> None:
        if self.run is None:
            return
        try:
            if self._file is None:
                self._file = self.run.metrics.open("a", encoding="utf-8")
            self._file.write(to_json(line) + "\n")
            self._file.flush()
        except OSError as error:
            self._drop_file()
            raise UserError(f"{self.run.metrics}: cannot be written: {error.strerror or error}") from error

    def _to_board(self, scalars: Mapping[str, float], step: int) -> None:
        if self._board is None and self._boards:
            self._board = self._open_board()
        if self._board is None:
            return
        try:
            for name, value in scalars.items():
                self._board.add_scalar(name, value, step)
        except OSError as error:
            assert self.run is not None
            raise UserError(f"{self.run.tensorboard}: cannot be written: {error.strerror or error}") from error

    def _open_board(self) -> "SummaryWriter | None":
        assert self.run is not None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            log.warning("no TensorBoard files: %s; metrics.jsonl holds the same figures", error)
            self._boards = False
            return None
        return SummaryWriter(str(self.run.tensorboard), purge_step=self._purge_step)

    def _show(self, step: int, epoch: float) -> None:
        if terminal().is_terminal:
            self._next_show = time.monotonic() + BAR_SECONDS
            self._show_bar(step)
        elif self._shown:
            self._next_show = time.monotonic() + LINE_SECONDS
            log.info("step %d/%d  epoch %.2f  %s  %s", step, self.total_steps, epoch, self._figures(), self._left(step))

    def _show_bar(self, step: int) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(compact=True),
                console=terminal(),
                auto_refresh=False,
                transient=True,
            )
            self._bar_task = self._bar.add_task("train", total=self.total_steps, completed=step, figures="")
            self._bar.start()
        assert self._bar_task is not None
        self._bar.update(self._bar_task, completed=step, figures=self._figures(), refresh=True)

    def _figures(self) -> str:
        shown = self._shown
        return f"loss {shown['loss']:.4g}  lr {shown['lr']:.3g}  {shown['rate']:.0f} samples/s" if shown else ""

    def _left(self, step: int) -> str:
        assert self._began is not None
        began, first = self._began
        per_step = (time.monotonic() - began) / max(step - first, 1)
        return f"{duration(per_step * max(self.total_steps - step, 0))} left"


def duration(seconds: float) -> str:
    """A length of time for people.

    Example:
        >>> duration(8), duration(130), duration(7260)
        ('8 s', '2 min 10 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _train_scalars(line: dict[str, Any]) -> dict[str, float]:
    scalars = {f"train/{name}": line[name] for name in ("loss", "lr", "samples_per_second")}
    if line["grad_norm"] is not None:
        scalars["train/grad_norm"] = line["grad_norm"]
    if len(line["losses"]) > 1:
        scalars.update({f"train/losses/{name}": value for name, value in line["losses"].items()})
    return scalars
