"""The fields of a recipe: what to train, on what, how long, and where it goes."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt

from vision.engine.registry import OfKind

Positive = Annotated[int, Gt(0)]
NonNegative = Annotated[int, Ge(0)]
Block = dict[str, Any]
"""A block ``{type: name, ...}`` whose schema is the constructor registered under that name."""


@dataclass(frozen=True)
class EarlyStop:
    """Ends a run whose validation metric no longer improves.

    Attributes:
        patience: evaluations without a better value before the run ends.
        min_delta: how much better counts as better.
    """

    patience: Positive
    min_delta: float = 0.0


@dataclass(frozen=True)
class TrainerOptions:
    """How a run is trained. Exactly one of ``epochs`` and ``steps`` is given.

    Attributes:
        epochs: passes over the training data.
        steps: optimiser updates.
        batch_size: samples in one update, over all processes and accumulation steps together, so that the machine
            does not change the training.
        reference_batch: batch size that the optimizer's learning rate is meant for; the rate is scaled in proportion
            to ``batch_size``. None takes the rate as it is.
        accumulate: backward passes a batch is cut into, to fit it into memory.
        drop_last: leave out the last, smaller batch of an epoch.
        eval_batch_size: samples in one forward pass of an evaluation, in each process.
        clip_norm: largest global gradient norm; None does not clip.
        precision: ``float32``, or automatic mixed precision in ``bf16`` or ``fp16`` (with loss scaling).
        ema: decay of an exponential moving average of the weights (timm's); it is then what is evaluated and kept.
        compile: run the network through ``torch.compile``.
        channels_last: keep images and convolution weights in channels-last memory order.
        sync_batchnorm: BatchNorm statistics over all processes.
        evaluate_every: epochs between evaluations on the validation split; the last epoch is always evaluated.
        evaluate_every_steps: updates between evaluations, instead of epochs.
        save_every_steps: updates between resumable checkpoints, besides those after each evaluation.
        select: the validation figure that chooses the best checkpoint; by default the metric's own.
        early_stop: when to end before the budget.
        time_budget: minutes after which the run is evaluated, saved and ended; resuming does not reset them.
        overfit_one_batch: train on the first batch again and again, without augmentation changing: a sanity check.
        workers: processes that load data in each training process.
        device: ``auto`` takes a GPU where there is one.
        determinism: ``off``; ``warn`` and ``strict`` ask torch for deterministic algorithms and warn or stop
            where there is none.
        log_every: updates between lines in ``metrics.jsonl``.
        threads: CPU threads torch may use in each process; None leaves torch's default.
    """

    epochs: Positive | None = None
    steps: Positive | None = None
    batch_size: Positive = 32
    reference_batch: Positive | None = None
    accumulate: Positive = 1
    drop_last: bool = False
    eval_batch_size: Positive = 64
    clip_norm: Annotated[float, Gt(0)] | None = None
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    ema: Annotated[float, Gt(0)] | None = None
    compile: bool = False
    channels_last: bool = False
    sync_batchnorm: bool = False
    evaluate_every: Positive = 1
    evaluate_every_steps: Positive | None = None
    save_every_steps: Positive | None = None
    select: str | None = None
    early_stop: EarlyStop | None = None
    time_budget: Annotated[float, Gt(0)] | None = None
    overfit_one_batch: bool = False
    workers: NonNegative = 0
    device: str = "auto"
    determinism: Literal["off", "warn", "strict"] = "off"
    log_every: Positive = 10
    threads: Positive | None = None


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes:
        name: the run folder's name under ``output``.
        task: block of a registered task (without its ``data``).
        data: block of a registered data module.
        optimizer: block of a registered optimiser.
        schedule: block of a registered learning-rate schedule.
        trainer: how it is trained.
        seed: of initialisation, order, augmentation and everything else random.
        output: the folder that run folders are made in.
        description: one line for reports and model cards.
    """

    name: str
    task: Annotated[Block, OfKind("task")]
    data: Annotated[Block, OfKind("data")]
    optimizer: Annotated[Block, OfKind("optimizer")]
    schedule: Annotated[Block, OfKind("schedule")] = field(default_factory=lambda: {"type": "constant"})
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    seed: NonNegative = 0
    output: str = "runs"
    description: str = ""
