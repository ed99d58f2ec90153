"""torch.distributed under torchrun: joining, exchanging objects, and averaging gradients once a step."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn  # before the processes join: its default arguments would hold the group to the end
from torch import nn

from vision.engine.errors import DeviceError, UserError


@dataclass(frozen=True)
class World:
    """The processes of a run and the device of this one.

    Attributes:
        device: where this process computes.
        rank: this process, from 0.
        size: how many processes there are.
    """

    device: torch.device
    rank: int = 0
    size: int = 1
    objects: Any = None
    """The process group (gloo) that objects and flags travel by."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any] | None:
        """Every process's ``value`` in order of rank at rank 0, None elsewhere."""
        if self.size == 1:
            return [value]
        gathered = [None] * self.size if self.is_main else None
        dist.gather_object(value, gathered, dst=0, group=self.objects)
        return gathered

    def share(self, value: Any) -> Any:
        """Rank 0's ``value`` in every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.objects)
        return box[0]

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true in any process."""
        if self.size == 1:
            return flag
        box = torch.tensor([int(flag)])
        dist.all_reduce(box, op=dist.ReduceOp.MAX, group=self.objects)
        return bool(box.item())

    def first(self, action: Callable[[], None]) -> None:
        """Runs ``action`` at rank 0 while the others wait; a user's mistake there ends every process with its message.

        Raises:
            UserError: what ``action`` raised.
        """
        failure: UserError | None = None
        if self.is_main:
            try:
                action()
            except UserError as error:
                failure = error
        message = self.share(str(failure) if failure else None)
        if failure is not None:
            raise failure
        if message is not None:
            raise UserError(message)

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Each figure averaged over processes, in every process; one that a process lacks counts as 0 there."""
        gathered = self.gather(values)
        if gathered is not None:
            names = dict.fromkeys(name for each in gathered for name in each)
            values = {name: sum(each.get(name, 0.0) for each in gathered) / self.size for name in names}
        return self.share(values)

    def on(self, device: str) -> "World":
        """The same processes, computing on another device."""
        return replace(self, device=pick_device(device, int(os.environ.get("LOCAL_RANK", "0"))))

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces each gradient by its mean over processes, in one flat exchange a device and dtype.

        This is the mode of rules that backpropagate several times a step: DDP's hooks would exchange after the
        first backward pass only. A parameter without a gradient here counts as zero; one without a gradient in every
        process keeps none, so that the optimiser passes it over as it would in one process.
        """
        if self.size == 1:
            return
        for (device, dtype), group in _by_kind(parameters).items():
            gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in group]
            present = torch.tensor([p.grad is not None for p in group], device=device, dtype=dtype)
            flat = torch.cat([*(g.reshape(-1) for g in gradients), present])
            dist.all_reduce(flat)
            *means, present = (flat / self.size).split([*(p.numel() for p in group), len(group)])
            for parameter, mean, some in zip(group, means, present.tolist(), strict=True):
                parameter.grad = mean.view_as(parameter).clone() if some else None

    def same_state(self, module: nn.Module, parameters: bool = False) -> None:
        """Gives every process rank 0's buffers of ``module`` (such as BatchNorm's statistics), and its parameters."""
        if self.size == 1:
            return
        for tensor in [*module.buffers(), *(module.parameters() if parameters else ())]:
            dist.broadcast(tensor.detach(), src=0)


def _by_kind(parameters: Iterable[nn.Parameter]) -> dict[tuple[torch.device, torch.dtype], list[nn.Parameter]]:
    kinds: dict[tuple[torch.device, torch.dtype], list[nn.Parameter]] = {}
    for p in parameters:
        if p.requires_grad:
            kinds.setdefault((p.device, p.dtype), []).append(p)
    return kinds


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device a recipe asks for; ``auto`` takes a GPU where there is one.

    Raises:
        DeviceError: the name is no device, or the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"trainer.device: '{name}' is not a device; expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = device.index if device.index is not None else local_rank
        if index >= count:
            raise DeviceError(
                f"trainer.device: '{name}' (GPU {index}) was asked for and {count} GPUs are visible; "
                "use device=cpu or device=auto, or see tools/doctor.py"
            )
        return torch.device("cuda", index)
    if device.type not in ("cpu", "mps") or (device.type == "mps" and not torch.backends.mps.is_available()):
        raise DeviceError(f"trainer.device: '{name}' is not available here; use auto, cpu or cuda")
    return device


@contextmanager
def joined(device: str) -> Iterator[World]:
    """Joins the processes torchrun started (or just this one) and leaves them afterwards.

    NCCL carries tensors between GPUs, gloo between CPUs; objects always travel by gloo. The log of processes other than
    the first begins at warnings.

    A process that fails does not leave: gloo would wait for the others, which wait for it. It stays joined until its
    end, which :func:`vision.engine.command.run_command` brings about without waiting.

    Raises:
        UserError: another process ended while this one waited for it.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(pick_device(device))
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    here = pick_device(device, local)
    if here.type == "cuda":
        torch.cuda.set_device(here)
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    if dist.get_rank() > 0:
        logging.disable(logging.INFO)
    try:
        yield World(here, dist.get_rank(), size, dist.new_group(backend="gloo"))
        dist.destroy_process_group()
    except RuntimeError as error:
        if "gloo" in str(error) or isinstance(error, dist.DistError):
            raise UserError(f"process {dist.get_rank()}: another process of the run ended; it says why") from error
        raise
    finally:
        logging.disable(logging.NOTSET)
