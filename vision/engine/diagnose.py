"""Where a loss stopped being finite: the samples, the losses, and the first bad tensor by name."""

import logging
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vision.engine.errors import TrainingError
from vision.engine.task import Batch, Losses, StepContext, Task

log = logging.getLogger(__name__)


def explain_bad_loss(
    task: Task, batch: Batch, losses: Losses, context: StepContext, before: Sequence[str] = ()
) -> TrainingError:
    """The error for a NaN or Inf loss: sample ids, every loss, and the first tensor that is not finite.

    Args:
        task: whose loss it is.
        batch: what it was computed from.
        losses: by name.
        context: when.
        before: ids of the samples of the update before, which are to blame where a parameter is bad already.
    """
    values = ", ".join(f"{name}={value.float().mean().item():.4g}" for name, value in losses.items())
    bad = first_bad_tensor(task, batch, context)
    if bad.startswith("parameter") and before:
        bad += f", since the update before, on samples: {_named(before, context.step - 1)}"
    return TrainingError(
        f"step {context.step}: a loss is not finite ({values}); samples: {_named(batch.get('id', []), context.step)}; "
        f"first bad tensor: {bad}; lower the learning rate, clip gradients, or look at these samples"
    )


def explain_unused(task: Task, error: RuntimeError) -> TrainingError | None:
    """What DDP means when it misses gradients, in our words; None for any other error."""
    if "finished reduction" not in str(error):
        return None
    indices = re.search(r"for rank \d+: ([\d ]+)", str(error))
    names = [name for name, parameter in task.named_parameters() if parameter.requires_grad]
    unused = ", ".join(names[int(i)] for i in indices[1].split()[:4]) if indices else "some parameters"
    return TrainingError(
        f"{type(task).__name__}: no gradient reaches {unused}; with several processes every parameter needs one in "
        "every step: freeze it (requires_grad_(False)), or set online = True, which exchanges gradients once a step"
    )


def _named(ids: Sequence[Any], step: int, most: int = 8) -> str:
    names = list(map(str, ids))
    if len(names) <= most:
        return ", ".join(names) or "unnamed"
    log.error("step %d: the batch's samples: %s", step, ", ".join(names))
    return f"{', '.join(names[:most])} and {len(names) - most} more (see the log)"


def first_bad_tensor(task: Task, batch: Batch, context: StepContext) -> str:
    """The first of: an input, a parameter, what a module takes or gives (in order of running), or the loss itself."""
    for name, value in batch.items():
        if _bad(value):
            return f"input '{name}'{_of_sample(value, batch)}"
    parameter = bad_parameter(task)
    if parameter:
        return f"parameter '{parameter}'"
    return _first_bad_output(task, batch, context) or "the loss itself (every module's output is finite)"


def bad_parameter(module: nn.Module) -> str:
    """The name of the first parameter that is not finite, or an empty string."""
    return next((name for name, parameter in module.named_parameters() if _bad(parameter)), "")


def _of_sample(value: Any, batch: Batch) -> str:
    ids = batch.get("id", [])
    if len(value) != len(ids):
        return ""
    return f" of sample '{next(name for name, part in zip(ids, value, strict=True) if _bad(part))}'"


def _bad(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_floating_point() and not bool(torch.isfinite(value).all())
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, list | tuple) and any(_bad(v) for v in value)


def _first_bad_output(task: Task, batch: Batch, context: StepContext) -> str:
    """Runs the step once more and watches; the run is over, so that what the step leaves behind does not matter."""
    found: list[str] = []

    def watch(name: str) -> Any:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and (_bad(inputs) or _bad(output)):
                side = "input" if _bad(inputs) else "output"  # an input goes bad between modules
                found.append(f"{side} of '{name}' ({type(module).__name__})")

        return look

    for module in task.modules():
        if hasattr(module, "_over_processes"):  # the other processes would not take part in its exchange
            module.eval()
    handles: list[RemovableHandle] = [m.register_forward_hook(watch(name)) for name, m in task.named_modules()]
    try:
        any(found for _ in task.training_step(batch, context))
    except Exception:  # a step that fails must not hide why it was run
        log.debug("the step could not be run again", exc_info=True)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""
