"""The loop: epochs, updates, accumulation, clipping, averaging, evaluation. It keeps time, never meaning."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from timm.scheduler.scheduler import Scheduler
from timm.utils.model_ema import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vision.engine.checkpoint import differences, load_weights, read_resume, save_resume, save_weights
from vision.engine.diagnose import bad_parameter, explain_bad_loss, explain_unused
from vision.engine.distributed import World
from vision.engine.errors import CheckpointError, ConfigError, TrainingError
from vision.engine.evaluation import Evaluation, autocast, evaluate, to_device
from vision.engine.interrupt import Stop
from vision.engine.loading import EpochPlan, Share, load, size_of, worker_deaths_told
from vision.engine.optim import scale_rates
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
        mark: the best value that was better by early stopping's ``min_delta``.
        waiting: evaluations since then.
        finished: why the run ended, or an empty string while it goes on.
    """

    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_step: int = 0
    mark: float | None = None
    waiting: int = 0
    finished: str = ""


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
        if task.updates_each_pass and options.accumulate > 1:
            raise ConfigError(
                f"trainer.accumulate: {options.accumulate} with a task that updates after every backward pass: parts "
                "of a batch would learn one after the other; set trainer.accumulate=1"
            )
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        self.options, self.world, self.seed, self.run, self.about = options, world, seed, run, about or {}
        task.before_training()
        self.task = task.to(world.device)
        if options.sync_batchnorm and world.size > 1:
            task.network = convert_batchnorm(task.network)
        if options.channels_last:
            task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
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
        if options.reference_batch is not None:
            scale_rates(self.optimizer, options.batch_size / options.reference_batch)
        self.schedule = schedule(self.optimizer, self.total, self.plan.updates)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=options.precision == "fp16")
        self.ema = ModelEmaV3(task.network, decay=options.ema) if options.ema else None
        self.progress = Progress()
        self._evaluated = -1
        self._before: list[str] = []  # ids of the update before
        self._norm: torch.Tensor | None = None  # of the last gradients, where they are clipped
        self.val = task.val_data()
        self.select = options.select or task.metric().primary
        task.metric().mode_of(self.select)  # refuses an unknown figure now, not after an epoch
        if options.compile:
            task.network.compile()
        self.step_module: nn.Module = _Step(task)
        if task.online:
            world.same_state(task, parameters=True)  # as DDP does
        elif world.size > 1:
            ids = [world.device.index] if world.device.type == "cuda" else None
            self.step_module = DistributedDataParallel(self.step_module, device_ids=ids)

    # -- the loop ------------------------------------------------------------------------------------------------

    def fit(self, recorder: Recorder) -> Progress:
        """Trains until the budget, a signal, early stopping or the clock ends it; everything is on disk then."""
        stop, progress = Stop(), self.progress
        if progress.finished:
            return progress
        with stop.listening(), worker_deaths_told():
            while progress.step < self.total and not (progress.finished or stop.reason):
                self._epoch(*divmod(progress.step, self.plan.updates), recorder, stop)
            if progress.step >= self.total:
                progress.finished = progress.finished or "budget"
            elif stop.reason:
                recorder.event(progress.step, f"stopped: {stop.reason}")
                if stop.reason == "time budget":
                    self._evaluate(recorder)
                    progress.finished = stop.reason
            self._save()
        return progress

    def _epoch(self, epoch: int, first: int, recorder: Recorder, stop: Stop) -> None:
        updates = self.plan.shares(epoch, first)[: self.total - self.progress.step]
        batches = self.batches(updates, epoch)
        self.task.train()
        for shares in updates:
            self.update(shares, batches, recorder)
            step, budget, every = self.progress.step, self.options.time_budget, self.options.save_every_steps
            ended = step % self.plan.updates == 0
            if ended:
                self.task.after_epoch(step // self.plan.updates)
            due = self._due(ended)
            if due:
                self._evaluate(recorder)
            if budget is not None and self.progress.seconds > budget * 60:
                stop.wish = stop.wish or "time budget"
            stop.agree(self.world)
            if self.progress.finished or stop.reason or step == self.total:
                return
            if due or (every and step % every == 0):
                self._save()

    def _due(self, epoch_ended: bool) -> bool:
        step, options = self.progress.step, self.options
        if step == self.total:
            return True
        if options.evaluate_every_steps:
            return step % options.evaluate_every_steps == 0
        return epoch_ended and (step // self.plan.updates) % options.evaluate_every == 0

    def batches(self, updates: list[list[Share]], epoch: int) -> Iterator[Batch]:
        """The samples of this process's shares of an epoch, one batch a share."""
        indices = [share.indices for update in updates for share in update]
        pin = self.world.device.type == "cuda"
        return load(self.data, indices, self.plan.stream(epoch), self.task.collate, self.options.workers, pin)

    def update(self, shares: list[Share], batches: Iterator[Batch], recorder: Recorder) -> None:
        """One optimiser update from this process's shares of a batch."""
        begun, step = time.perf_counter(), self.progress.step
        context = StepContext(step, self.total, step // self.plan.updates)
        seed_everything(seed_of(self.seed, "step", step, self.world.rank))
        self.schedule.step_update(step)
        self.optimizer.zero_grad(set_to_none=True)
        self.task.before_step(context)
        losses: dict[str, Any] = {}
        ids: list[str] = []
        for position, share in enumerate(shares):
            batch = to_device(next(batches), self.world.device, self.options.channels_last)
            parts = self._backward(batch, share.weight, context, last=position == len(shares) - 1)
            ids += batch.get("id", [])
            for name, value in parts.items():
                losses[name] = losses.get(name, 0.0) + value * share.weight
        if not self.task.updates_each_pass:
            self._apply(context)
        if self.ema is not None:
            self.ema.update(self.task.network, step=step)
        self._before = ids
        self.progress.step += 1
        self.progress.seconds += time.perf_counter() - begun
        if self.world.size > 1 and recorder.due(self.progress.step):
            losses = self.world.mean({name: float(value) for name, value in losses.items()})
        recorder.train(
            self.progress.step, self.progress.step / self.plan.updates, losses, self.optimizer.param_groups[0]["lr"],
            self.plan.batch_of(step % self.plan.updates) / (time.perf_counter() - begun), self._norm,
            self.progress.seconds,
        )  # fmt: skip

    def _backward(self, batch: Batch, weight: float, context: StepContext, last: bool) -> Losses:
        """Backpropagates one share; returns its losses, detached (of an online rule: their sums over the step)."""
        ddp = self.step_module if isinstance(self.step_module, DistributedDataParallel) else None
        total: Losses = {}
        with nullcontext() if last or ddp is None else ddp.no_sync():
            for losses in self._losses(batch, context):
                loss = sum(v for name, v in losses.items() if not name.startswith("_"))
                if not isinstance(loss, torch.Tensor) or loss.ndim:
                    raise TrainingError(f"{type(self.task).__name__}.training_step: expected scalar losses by name")
                if not torch.isfinite(loss):
                    with autocast(self.world.device, self.options.precision):
                        raise explain_bad_loss(self.task, batch, losses, context, self._before)
                self.scaler.scale(loss * weight).backward()
                for name, value in losses.items():
                    total[name] = total[name] + value.detach() if name in total else value.detach()
                if self.task.updates_each_pass:
                    self._apply(context)
                    self.optimizer.zero_grad(set_to_none=True)
        return total

    def _losses(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        with autocast(self.world.device, self.options.precision):
            if not self.task.online:
                try:
                    single = self.step_module(batch, context)
                except RuntimeError as error:
                    unused = explain_unused(self.task, error)
                    if unused is None:
                        raise
                    raise unused from error
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

    def _apply(self, context: StepContext) -> None:
        """One update from the gradients that there are."""
        if self.task.online:
            self.world.average_gradients(self.task.parameters())
        if self.options.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            self._norm = nn.utils.clip_grad_norm_(parameters, self.options.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.task.after_step(context)

    # -- evaluation and checkpoints ------------------------------------------------------------------------------

    def _evaluate(self, recorder: Recorder) -> None:
        progress = self.progress
        if self._evaluated == progress.step:
            return
        self._evaluated, begun = progress.step, time.perf_counter()
        with self.averaged():
            self.world.same_state(self.task)  # every process judges what rank 0 saves
            found = evaluate(self.task, self.val, self.world, self.options, self.seed)
        better = self._judge(found)
        epoch = progress.step / self.plan.updates
        recorder.evaluation("val", progress.step, epoch, found.metrics, found.seconds, better)
        if better:
            self.world.first(lambda: self._save_weights("best"))
        progress.seconds += time.perf_counter() - begun

    def _judge(self, found: Evaluation) -> bool:
        """Whether this is the best evaluation so far; also whether to end for want of a better one."""
        if self.select not in found.metrics:
            raise ConfigError(f"trainer.select: this data has no '{self.select}'; it has {', '.join(found.metrics)}")
        early, progress, value = self.options.early_stop, self.progress, found.metrics[self.select]
        sign = 1.0 if self.task.metric().mode_of(self.select) == "max" else -1.0

        def beats(other: float | None, by: float = 0.0) -> bool:
            return not math.isnan(value) and (other is None or sign * (value - other) > by)

        better = beats(progress.best)
        if better:
            progress.best, progress.best_step = value, progress.step
        if early is not None:
            if beats(progress.mark, early.min_delta):
                progress.mark, progress.waiting = value, 0
            else:
                progress.waiting += 1
            if progress.waiting >= early.patience:
                progress.finished = "early stop"
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
        if self.run is None:
            return
        network = self.ema.module if self.ema is not None else self.task.network
        about = {**self.about, "step": str(self.progress.step), "averaged": str(self.ema is not None)}
        save_weights(self.run.checkpoints / f"{name}.safetensors", network, about)

    def _save(self) -> None:
        self.world.first(self._write)

    def _write(self) -> None:
        if self.run is None:
            return
        bad = bad_parameter(self.task)
        if bad:
            raise TrainingError(
                f"step {self.progress.step}: parameter '{bad}' is not finite; the checkpoint before it is kept; "
                "lower the learning rate or clip gradients"
            )
        self._save_weights("last")
        state = {
            "progress": asdict(self.progress),
            "samples": self.plan.samples,
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema is not None else None,
        }
        save_resume(self.run.resume_state, state)

    def resume(self) -> None:
        """Goes back to the last checkpoint of the run folder.

        Raises:
            CheckpointError: there is none, it cannot be read, or it belongs to another task or data set; nothing
                has changed then.
        """
        assert self.run is not None
        path = self.run.resume_state
        state = read_resume(path)
        missing = [key for key in ("progress", "samples", "task", "optimizer", "scaler", "ema") if key not in state]
        if missing:
            raise CheckpointError(
                f"{path}: no whole resume state: it lacks {', '.join(missing)}; restore it from a copy"
            )
        if state["samples"] != self.plan.samples:
            raise CheckpointError(
                f"{path}: was written with {state['samples']} training samples, there are {self.plan.samples} now; "
                "bring back the data it was trained on"
            )
        found = differences(self.task.state_dict(), state["task"])
        if (self.ema is None) != (state["ema"] is None):
            found += " moving average"
        if found:
            raise CheckpointError(f"{path}: belongs to another task or network: {found}")
        try:
            self.optimizer.load_state_dict(state["optimizer"])
            progress = Progress(**state["progress"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{path}: belongs to another optimizer, or is none of this version: {error}"
            ) from error
        self.task.load_state_dict(state["task"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.progress = progress

    def load(self, name: str) -> None:
        """Puts the run's ``best`` or ``last`` weights into the task's network."""
        assert self.run is not None
        load_weights(self.task.network, self.run.checkpoints / f"{name}.safetensors")
