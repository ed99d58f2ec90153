"""The loop: epochs, updates, accumulation, clipping, averaging, evaluation. It keeps time, never meaning."""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from timm.scheduler.scheduler import Scheduler
from timm.utils.model_ema import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from vision.engine.checkpoint import load_weights, read_resume, save_resume, save_weights
from vision.engine.data import Sample
from vision.engine.diagnose import explain_bad_loss
from vision.engine.distributed import World
from vision.engine.errors import CheckpointError, ConfigError, TrainingError, nearest
from vision.engine.evaluation import Evaluation, autocast, evaluate, to_device
from vision.engine.loading import EpochPlan, Share, load, size_of
from vision.engine.recipe import TrainerOptions
from vision.engine.recorder import Recorder
from vision.engine.run import RunFolder
from vision.engine.seeding import seed_everything, seed_of
from vision.engine.sync_batchnorm import convert_batchnorm
from vision.engine.task import Batch, Losses, StepContext, Task

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a run is; what a resume state holds besides tensors.

    Attributes:
        step: updates finished.
        seconds: spent training and evaluating, over all sessions of the run.
        best: the best validation value so far.
        best_step: when it was reached.
        waiting: evaluations since then.
        finished: why the run ended, or an empty string while it goes on.
    """

    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_step: int = 0
    waiting: int = 0
    finished: str = ""


@dataclass
class _Stop:
    """A wish to end, from a signal or the clock."""

    reason: str = ""
    begun: float = field(default_factory=time.perf_counter)


class _Step(nn.Module):
    """A task's training step as a forward pass, so that DDP sees it."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def forward(self, batch: Batch, context: StepContext) -> Losses:
        found = list(self.task.training_step(batch, context))
        if len(found) != 1:
            raise TrainingError(
                f"{type(self.task).__name__}.training_step yielded {len(found)} times; "
                "a task that yields more or less than once must set online = True"
            )
        return found[0]


class Trainer:
    """Trains a task.

    Args:
        task: what is trained.
        options: how.
        optimizer: makes the optimiser from parameter groups.
        schedule: makes the schedule from (optimiser, total steps, steps per epoch).
        world: the processes.
        seed: of the run.
        run: where checkpoints go; None keeps none (dry runs, benchmarks).
        about: strings written into the weights' metadata.

    Raises:
        ConfigError: options that contradict each other.
    """

    def __init__(
        self,
        task: Task,
        options: TrainerOptions,
        optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        schedule: Callable[[torch.optim.Optimizer, int, int], Scheduler],
        world: World,
        seed: int = 0,
        run: RunFolder | None = None,
        about: dict[str, str] | None = None,
    ) -> None:
        if (options.epochs is None) == (options.steps is None):
            raise ConfigError("trainer: give exactly one of 'epochs' and 'steps'")
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        self.options, self.world, self.seed, self.run, self.about = options, world, seed, run, about or {}
        self.task = task.to(world.device)
        if options.sync_batchnorm and world.size > 1:
            task.network = convert_batchnorm(task.network)
        if options.channels_last:
            task.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.data = task.train_data()
        self.plan = EpochPlan(
            size_of(self.data, "training"), options.batch_size, options.drop_last, world.size, world.rank,
            options.accumulate, seed, options.overfit_one_batch,
        )  # fmt: skip
        if self.plan.updates == 0:
            raise ConfigError(
                f"trainer.batch_size is {options.batch_size} and the training split has {self.plan.samples} samples; "
                "with drop_last no update is left: take a smaller batch_size"
            )
        self.total = options.steps or (options.epochs or 0) * self.plan.updates
        self.optimizer = optimizer(task.parameter_groups())
        self.schedule = schedule(self.optimizer, self.total, self.plan.updates)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=options.precision == "fp16")
        self.ema = ModelEmaV3(task.network, decay=options.ema) if options.ema else None
        self.progress = Progress()
        self.val = task.val_data()
        if options.compile:
            task.network.compile()
        self.step_module: nn.Module = _Step(task)
        if world.size > 1 and not task.online:
            ids = [world.device.index] if world.device.type == "cuda" else None
            self.step_module = DistributedDataParallel(self.step_module, device_ids=ids)

    # -- the loop ------------------------------------------------------------------------------------------------

    def fit(self, recorder: Recorder) -> Progress:
        """Trains until the budget, a signal, early stopping or the clock ends it; everything is on disk then."""
        stop = _Stop()
        with _signals(stop):
            while not self.progress.finished and not stop.reason:
                if self.progress.step >= self.total:
                    self.progress.finished = "budget"
                    break
                epoch, first = divmod(self.progress.step, self.plan.updates)
                self._epoch(epoch, first, recorder, stop)
            if stop.reason:
                recorder.event(self.progress.step, f"stopped: {stop.reason}")
                if stop.reason == "time budget":
                    self._evaluate(recorder)
                    self.progress.finished = stop.reason
        self._save()
        return self.progress

    def _epoch(self, epoch: int, first: int, recorder: Recorder, stop: _Stop) -> None:
        updates = self.plan.shares(epoch, first)[: self.total - self.progress.step]
        batches = self.batches(updates)
        self.task.train()
        for shares in updates:
            self.update(shares, batches, recorder)
            ended = self.progress.step % self.plan.updates == 0
            if ended:
                self.task.after_epoch(self.progress.step // self.plan.updates)
            self._check_clock(stop)
            if self._due(ended):
                self._evaluate(recorder)
                self._save()
            elif self.options.save_every_steps and self.progress.step % self.options.save_every_steps == 0:
                self._save()
            if self.progress.finished or stop.reason:
                return

    def _due(self, epoch_ended: bool) -> bool:
        step, options = self.progress.step, self.options
        if step == self.total:
            return True
        if options.evaluate_every_steps:
            return step % options.evaluate_every_steps == 0
        return epoch_ended and (step // self.plan.updates) % options.evaluate_every == 0

    def _check_clock(self, stop: _Stop) -> None:
        budget = self.options.time_budget
        if not stop.reason and budget is not None and self.progress.seconds > budget * 60:
            stop.reason = "time budget"
        if self.world.size > 1 and self.world.any(bool(stop.reason)):
            reasons = self.world.gather(stop.reason)
            stop.reason = self.world.share(next(filter(None, reasons)) if reasons else None)

    def batches(self, updates: list[list[Share]]) -> Iterator[Batch]:
        """The samples of this process's shares, one batch a share."""
        keys = [share.keys for update in updates for share in update]
        return load(self.data, keys, self.task.collate, self.options.workers)

    def update(self, shares: list[Share], batches: Iterator[Batch], recorder: Recorder) -> None:
        """One optimiser update from this process's shares of a batch."""
        begun, step = time.perf_counter(), self.progress.step
        context = StepContext(step, self.total, step // self.plan.updates)
        self.schedule.step_update(step)
        self.optimizer.zero_grad(set_to_none=True)
        self.task.before_step(context)
        seed_everything(seed_of(self.seed, "step", step, self.world.rank))
        losses: dict[str, Any] = {}
        for position, share in enumerate(shares):
            batch = to_device(next(batches), self.world.device, self.options.channels_last)
            parts = self._backward(batch, share.weight, context, last=position == len(shares) - 1)
            for name, value in parts.items():
                losses[name] = losses.get(name, 0.0) + value * share.weight
        if self.task.online:
            self.world.average_gradients(self.task.parameters())
        norm = self._apply()
        self.task.after_step(context)
        self.progress.step += 1
        self.progress.seconds += time.perf_counter() - begun
        if self.world.size > 1 and recorder.due(self.progress.step):
            losses = self.world.mean({name: float(value) for name, value in losses.items()})
        recorder.train(
            self.progress.step, self.progress.step / self.plan.updates, losses, self.optimizer.param_groups[0]["lr"],
            self.options.batch_size / (time.perf_counter() - begun), norm, self.progress.seconds,
        )  # fmt: skip

    def _backward(self, batch: Batch, weight: float, context: StepContext, last: bool) -> Losses:
        """Backpropagates one share; returns its losses, detached (of an online rule: their sums over the step)."""
        ddp = self.step_module if isinstance(self.step_module, DistributedDataParallel) else None
        total: Losses = {}
        with nullcontext() if last or ddp is None else ddp.no_sync():
            for losses in self._losses(batch, context):
                loss = torch.stack([v for name, v in losses.items() if not name.startswith("_")]).sum()
                if not torch.isfinite(loss):
                    raise explain_bad_loss(self.task, batch, losses, context)
                self.scaler.scale(loss * weight).backward()
                for name, value in losses.items():
                    total[name] = total.get(name, torch.zeros_like(value)) + value.detach()
        return total

    def _losses(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        with autocast(self.world.device, self.options.precision):
            if not self.task.online:
                single = self.step_module(batch, context)
        if not self.task.online:
            yield single
            return
        steps = self.task.training_step(batch, context)
        while True:
            with autocast(self.world.device, self.options.precision):
                losses = next(steps, None)
            if losses is None:
                return
            yield losses

    def _apply(self) -> torch.Tensor | None:
        norm = None
        if self.options.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            norm = nn.utils.clip_grad_norm_(parameters, self.options.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.task.network, step=self.progress.step)
        return norm

    # -- evaluation and checkpoints ------------------------------------------------------------------------------

    def _evaluate(self, recorder: Recorder) -> None:
        begun = time.perf_counter()
        with self.averaged():
            found = evaluate(self.task, self.val, self.world, self.options, self.seed)
        better = self._judge(found)
        recorder.evaluation(
            "val", self.progress.step, self.progress.step / self.plan.updates, found.metrics, found.seconds, better
        )
        if better and self.world.is_main and self.run is not None:
            self._save_weights("best")
        self.progress.seconds += time.perf_counter() - begun

    def _judge(self, found: Evaluation) -> bool:
        metric = self.task.metric()
        name = self.options.select or metric.primary
        if name not in found.metrics:
            raise ConfigError(
                f"trainer.select: there is no figure '{name}'{nearest(name, found.metrics)}; "
                f"expected one of {', '.join(found.metrics)}"
            )
        value = found.metrics[name]
        sign = 1.0 if metric.mode == "max" else -1.0
        early, best = self.options.early_stop, self.progress.best
        better = not math.isnan(value) and (best is None or sign * (value - best) > 0)
        enough = better and (best is None or early is None or sign * (value - best) > early.min_delta)
        self.progress.waiting = 0 if enough else self.progress.waiting + 1
        if better:
            self.progress.best, self.progress.best_step = value, self.progress.step
        if early is not None and self.progress.waiting >= early.patience:
            self.progress.finished = "early stop"
        return better

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the task's network is the moving average, where one is kept."""
        if self.ema is None:
            yield
            return
        trained = self.task.network
        self.task.network = self.ema.module
        try:
            yield
        finally:
            self.task.network = trained

    def _save_weights(self, name: str) -> None:
        assert self.run is not None
        network = self.ema.module if self.ema is not None else self.task.network
        about = {**self.about, "step": str(self.progress.step), "averaged": str(self.ema is not None)}
        save_weights(self.run.checkpoints / f"{name}.safetensors", network, about)

    def _save(self) -> None:
        if not self.world.is_main or self.run is None:
            return
        self._save_weights("last")
        state = {
            "progress": {name: getattr(self.progress, name) for name in Progress.__dataclass_fields__},
            "updates": self.plan.updates,
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema is not None else None,
        }
        save_resume(self.run.resume_state, state)

    def resume(self) -> None:
        """Goes back to the last checkpoint of the run folder.

        Raises:
            CheckpointError: there is none, it cannot be read, or it belongs to another task or data set.
        """
        assert self.run is not None
        path = self.run.resume_state
        state = read_resume(path)
        if state["updates"] != self.plan.updates:
            raise CheckpointError(
                f"{path}: was written with {state['updates']} updates an epoch, the data now makes {self.plan.updates}; "
                "bring back the data it was trained on"
            )
        wanted, held = set(self.task.state_dict()), set(state["task"])
        if wanted != held or (self.ema is None) != (state["ema"] is None):
            differ = sorted(wanted ^ held)[:4] or ["ema"]
            raise CheckpointError(f"{path}: belongs to another task or network; differs in {', '.join(differ)}")
        self.task.load_state_dict(state["task"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.progress = Progress(**state["progress"])

    def load(self, name: str) -> None:
        """Puts the run's ``best`` or ``last`` weights into the task's network."""
        assert self.run is not None
        load_weights(self.task.network, self.run.checkpoints / f"{name}.safetensors")


@contextmanager
def _signals(stop: _Stop) -> Iterator[None]:
    """SIGTERM and Ctrl-C end the run after the update in hand; a second Ctrl-C ends it at once."""

    def ask(number: int, _: FrameType | None) -> None:
        if stop.reason and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.reason = signal.Signals(number).name
        log.info("%s: finishing this update, then writing a checkpoint", stop.reason)

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
