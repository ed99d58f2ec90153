"""Memory that one training update needs, over the number of time steps, by any rule."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from spikingjelly.activation_based import base
from torch import Tensor, nn

from snn.network import SpikingNetwork
from snn.rules import Rule


class _Held:
    """A tensor that backpropagation keeps; counted from when it is made to when it is let go."""

    def __init__(self, meter: "SavedBytes", tensor: Tensor) -> None:
        self.meter, self.tensor = meter, tensor.detach()  # an output that knew its graph would keep it for ever
        meter.hold(tensor, 1)

    def __del__(self) -> None:
        self.meter.hold(self.tensor, -1)


class SavedBytes:
    """Bytes of the tensors that are kept for a backward pass, each storage once, parameters left out.

    Attributes:
        now: bytes kept at this moment.
        peak: the most so far.
    """

    def __init__(self, parameters: Iterator[nn.Parameter]) -> None:
        self.left_out = {p.untyped_storage().data_ptr() for p in parameters}
        self.counts: Counter[int] = Counter()
        self.now = self.peak = 0

    def hold(self, tensor: Tensor, change: int) -> None:
        """Counts a tensor in (1) or out (-1)."""
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        if key in self.left_out:
            return
        before, self.counts[key] = self.counts[key], self.counts[key] + change
        if bool(before) != bool(self.counts[key]):
            self.now += change * storage.nbytes()
            self.peak = max(self.peak, self.now)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Inside, what autograd keeps is counted."""
        with torch.autograd.graph.saved_tensors_hooks(lambda t: _Held(self, t), lambda held: held.tensor):
            yield


def state_bytes(network: nn.Module) -> int:
    """Bytes of all states and traces, each storage once."""
    found = {}
    for _, value in base.named_memories(network):
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


@dataclass(frozen=True)
class Row:
    """One update at one number of steps.

    Attributes:
        T: time steps.
        bytes: the most that was kept at once: on a CPU of tensors saved for backpropagation, on a GPU by its allocator,
            over what was there before.
        state_bytes: states and traces after the last step.
        seconds: of the fastest update: CPU time on a CPU, time on the clock on a GPU.
    """

    T: int
    bytes: int
    state_bytes: int
    seconds: float


def measure(network: SpikingNetwork, rule: Rule, x: Tensor, steps: int, repeats: int = 2) -> Row:
    """Forward and backward passes of one update with ``rule``, which must have been set.

    Args:
        network: on the device to measure.
        rule: ``stop``, ``ottt`` and ``sltt`` backpropagate each step as it comes, ``osstop`` the last one, ``bptt`` all
            at once.
        x: images ``[N, C, H, W]``, shown at every step.
        steps: T.
        repeats: updates that are timed, after one that is measured.
    """
    labels = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    network.train()
    on_gpu = x.device.type == "cuda"
    meter = SavedBytes(network.parameters())
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        kept = _update(network, rule, x, labels, steps)
        meter.peak = torch.cuda.max_memory_allocated() - before
    else:
        with meter.counting():
            kept = _update(network, rule, x, labels, steps)
    seconds = []
    for _ in range(repeats):
        begun = _clock(on_gpu)
        _update(network, rule, x, labels, steps)
        seconds.append(_clock(on_gpu) - begun)
    network.zero_grad(set_to_none=True)
    return Row(steps, meter.peak, kept, min(seconds, default=float("nan")))


def _clock(on_gpu: bool) -> float:
    if on_gpu:
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _update(network: SpikingNetwork, rule: Rule, x: Tensor, labels: Tensor, steps: int) -> int:
    """One update without the optimiser's part; returns the bytes of states and traces at its end."""
    network.zero_grad(set_to_none=True)
    network.reset(steps)
    total = x.new_zeros(())
    for step in range(1, steps + 1):
        loss = F.cross_entropy(network.step(x), labels)
        if rule == "bptt":
            total = total + loss
        elif rule != "osstop" or step == steps:
            loss.backward()
        del loss
    kept = state_bytes(network)
    if rule == "bptt":
        total.backward()
    network.reset()
    return kept
