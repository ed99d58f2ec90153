"""Where a loss stopped being finite: the samples, the losses, and the first bad tensor by name."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vision.engine.errors import TrainingError
from vision.engine.task import Batch, Losses, StepContext, Task


def explain_bad_loss(task: Task, batch: Batch, losses: Losses, context: StepContext) -> TrainingError:
    """The error for a NaN or Inf loss: sample ids, every loss, and the first tensor that is not finite."""
    ids = [str(i) for i in batch.get("id", [])]
    few = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
    values = ", ".join(f"{name}={value.item():.4g}" for name, value in losses.items())
    return TrainingError(
        f"step {context.step}: a loss is not finite ({values}); samples: {few or 'unnamed'}; "
        f"first bad tensor: {first_bad_tensor(task, batch, context)}; lower the learning rate, clip gradients, "
        "or look at these samples"
    )


def first_bad_tensor(task: Task, batch: Batch, context: StepContext) -> str:
    """The first of: an input, a parameter, a module's output (in order of running), or the loss itself."""
    for name, value in batch.items():
        if isinstance(value, Tensor) and _bad(value):
            return f"input '{name}'"
    for name, parameter in task.named_parameters():
        if _bad(parameter):
            return f"parameter '{name}'"
    return _first_bad_output(task, batch, context) or "the loss itself (every module's output is finite)"


def _bad(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_floating_point() and not bool(torch.isfinite(value).all())
    if isinstance(value, list | tuple):
        return any(_bad(v) for v in value)
    return False


def _first_bad_output(task: Task, batch: Batch, context: StepContext) -> str:
    found: list[str] = []

    def watch(name: str) -> Any:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and _bad(output):
                found.append(f"output of '{name}' ({type(module).__name__})")

        return look

    leaves = [(name, m) for name, m in task.named_modules() if not list(m.children())]
    handles: list[RemovableHandle] = [m.register_forward_hook(watch(name)) for name, m in leaves]
    try:
        with torch.no_grad():
            next(iter(task.training_step(batch, context)), None)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""
