"""Whether exported graphs equal the network in PyTorch: real inputs through both, and the task's own figure."""

import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vision.deploy.bounds import BOUNDS, Bound
from vision.deploy.comparison import Compared
from vision.deploy.rounding import Rounding, doubled
from vision.deploy.session import Session
from vision.deploy.sizes import fitted
from vision.engine.data import Sample
from vision.engine.deployment import Deployment, Run
from vision.engine.loading import load, size_of
from vision.engine.task import Metric, Task

Arrays = tuple[NDArray[Any], ...]
AT_ONCE = 16
"""Samples in a batch."""
DRIVEN = "all calls"
"""What the outputs of a graph that ran on its own outputs are called."""


@dataclass
class GraphParity:
    """One graph: its outputs compared.

    Attributes:
        outputs: by name.
        calls: how often it ran on real samples; where that is 0, its example was compared.
        worst: the inputs whose outputs differed most, and by what share of their largest value.
        wrong: what did not even have the same shape.
        driven: of a graph that runs on its own outputs, what all its calls together gave, compared.
        rounding: by output, how far PyTorch and the file are from float64; only of graphs beyond their bounds.
    """

    outputs: dict[str, Compared]
    calls: int = 0
    worst: tuple[float, Arrays] = (-1.0, ())
    wrong: str = ""
    driven: Compared | None = None
    rounding: dict[str, Rounding] = field(default_factory=dict)

    def add(self, inputs: Arrays, reference: Arrays, exported: Arrays) -> None:
        """One call of both."""
        for output, a, b in zip(self.outputs.values(), reference, exported, strict=True):
            try:
                output.add(a, b)
            except ValueError as error:
                self.wrong = str(error)
                continue
            share = float(np.abs(a - b).max(initial=0.0)) / max(float(np.abs(a).max(initial=0.0)), 1e-6)
            share = share if math.isfinite(share) else math.inf
            if share > self.worst[0]:
                self.worst = share, inputs

    def broken(self, bound: Bound) -> list[str]:
        """What is beyond a bound, in words."""
        if self.wrong:
            return [self.wrong]
        spiking = any(output.binary for output in self.outputs.values())
        found = []
        for name, output in {**self.outputs, **({DRIVEN: self.driven} if self.driven else {})}.items():
            told, rounding = output.broken(bound, spiking), self.rounding.get(name)
            if told and rounding is not None:
                told = rounding.broken(bound, spiking)
            found += [f"'{name}': {each}" for each in told]
        return found

    def to_dict(self) -> dict[str, Any]:
        """For ``parity.json``."""
        found = {
            "calls": self.calls, "real": self.calls > 0,
            "outputs": {name: output.to_dict() for name, output in self.outputs.items()},
        }  # fmt: skip
        if self.driven:
            found["driven"] = self.driven.to_dict()
        if self.rounding:
            found["float64"] = {name: rounding.to_dict() for name, rounding in self.rounding.items()}
        return found


@dataclass
class Parity:
    """What ``parity.json`` tells.

    Attributes:
        precision: of the exported graphs.
        split: of the samples.
        samples: how many.
        graphs: by name.
        primary: the task's own figure.
        before: its figures in PyTorch.
        after: its figures with the exported graphs.
        divergence: the first layer that differs, of graphs beyond their bounds.
        resized: whether samples had to be resized to the files' size; the task then has no figures with them.
    """

    precision: str
    split: str
    samples: int
    graphs: dict[str, GraphParity]
    primary: str
    before: dict[str, float]
    after: dict[str, float]
    divergence: dict[str, Any] = field(default_factory=dict)
    resized: bool = False

    @property
    def bound(self) -> Bound:
        """What must hold."""
        return BOUNDS[self.precision]

    @property
    def change(self) -> float:
        """Of the task's own figure; in shares of it where it is above 1."""
        before, after = self.before.get(self.primary, math.nan), self.after.get(self.primary, math.nan)
        return (after - before) / max(1.0, abs(before))

    def reasons(self) -> list[str]:
        """Why the export is refused; empty where it passes."""
        found = [f"graph '{name}': {told}" for name, graph in self.graphs.items() for told in graph.broken(self.bound)]
        most = self.bound.figure + 1 / max(self.samples, 1)
        if self.primary in self.before and not self.resized and not abs(self.change) <= most:
            found.append(
                f"{self.primary} {self.before[self.primary]:.4g} became {self.after.get(self.primary, math.nan):.4g} "
                f"on {self.samples} samples, more than {most:.3g} apart"
            )
        return found

    def by_float64(self) -> list[str]:
        """The graphs that are beyond their bounds and no further from float64 than PyTorch is, in words."""
        found = []
        for name, graph in self.graphs.items():
            if graph.rounding and not graph.broken(self.bound):
                ours, files = (max(getattr(r, who).share for r in graph.rounding.values()) for who in ("torch", "file"))
                found.append(
                    f"graph '{name}': PyTorch's float32 is up to {ours:.1e} of the largest value from float64, the "
                    f"file {files:.1e}"
                )
        return found

    def to_dict(self) -> dict[str, Any]:
        """The content of ``parity.json``; see :data:`vision.deploy.schemas.PARITY`."""
        reasons = self.reasons()
        return {
            "format": 1,
            "precision": self.precision,
            "passed": not reasons,
            "reasons": reasons,
            "samples": self.samples,
            "split": self.split,
            "resized": self.resized,
            "graphs": {name: graph.to_dict() for name, graph in self.graphs.items()},
            "metric": {"name": self.primary, "before": self.before, "after": self.after},
            "bounds": vars(self.bound),
            "divergence": self.divergence,
            "versions": {"torch": torch.__version__, "python": platform.python_version()},
        }


def runner_of(session: Session, deployment: Deployment) -> Run:
    """The graphs of a session, as tasks run them: tensors in order, in and out."""

    def run(name: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        graph = deployment[name]
        given = {key: value.detach().numpy() for key, value in zip(graph.inputs, inputs, strict=True)}
        outputs = session.run(name, given)
        return tuple(torch.from_numpy(np.array(outputs[key])) for key in graph.outputs)

    return run


def modules_of(deployment: Deployment) -> Run:
    """The graphs of a deployment by PyTorch."""

    def run(name: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            outputs = deployment[name].module(*inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    return run


def compare(
    task: Task,
    dataset: "Dataset[Sample]",
    reference: Deployment,
    deployment: Deployment,
    exported: Run,
    precision: str,
    split: str = "val",
) -> Parity:
    """Runs every sample through PyTorch and the exported graphs, on the same inputs, and judges both.

    Args:
        task: on the CPU.
        dataset: real samples.
        reference: the network as it was trained (``task.deployment(folded=False)``).
        deployment: what was exported.
        exported: runs the exported graphs.
        precision: what they are to be judged by.
        split: what the samples are called.
    """
    graphs = {g.name: GraphParity({name: Compared() for name in g.outputs}) for g in reference.graphs}
    trusted, resized = modules_of(reference), False

    def both(name: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        nonlocal resized
        outputs, shown = trusted(name, *inputs), fitted(deployment[name], inputs)
        resized |= shown is not inputs
        expected = outputs if shown is inputs else trusted(name, *shown)
        graphs[name].add(_arrays(shown), _arrays(expected), _arrays(exported(name, *shown)))
        graphs[name].calls += 1
        return outputs

    def drive(batch: dict[str, Any]) -> None:
        for name, expected in task.drive_exported(batch, both).items():
            graph, found = graphs[name], task.drive_exported(batch, exported)[name]
            graph.driven = graph.driven or Compared()
            graph.driven.add(expected.detach().numpy(), found.detach().numpy())

    before = judged(task, dataset, both)
    after = {} if resized else judged(task, dataset, exported)
    for_batches(task, dataset, drive)
    for graph in deployment.graphs:
        if not graphs[graph.name].calls:
            outputs, found = trusted(graph.name, *graph.example), exported(graph.name, *graph.example)
            graphs[graph.name].add(_arrays(graph.example), _arrays(outputs), _arrays(found))
    primary = task.exported_metric(dataset).primary
    parity = Parity(precision, split, size_of(dataset, split), graphs, primary, before, after, resized=resized)
    beyond = {name: graph for name, graph in graphs.items() if graph.broken(parity.bound) and not graph.wrong}
    if precision == "fp32" and beyond:
        _beside_float64(task, dataset, reference, deployment, exported, beyond)
    return parity


def _beside_float64(
    task: Task,
    dataset: "Dataset[Sample]",
    reference: Deployment,
    deployment: Deployment,
    exported: Run,
    graphs: Mapping[str, GraphParity],
) -> None:
    """Runs every sample once more, and notes how far PyTorch and the files of these graphs are from float64."""
    trusted, exact = modules_of(reference), doubled(reference)
    for graph in graphs.values():
        graph.rounding = {name: Rounding() for name in graph.outputs}

    def three(name: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        if name in graphs:
            shown = fitted(deployment[name], inputs)
            found = (_arrays(run(name, *shown)) for run in (exact, trusted, exported))
            for output, each in zip(reference[name].outputs, zip(*found, strict=True), strict=True):
                graphs[name].rounding[output].add(*each)
        return trusted(name, *inputs)

    def look(batch: dict[str, Any]) -> None:
        task.predict_exported(batch, three)
        for name, ours in task.drive_exported(batch, three).items():
            if name in graphs:
                one, files = (task.drive_exported(batch, run)[name] for run in (exact, exported))
                graphs[name].rounding.setdefault(DRIVEN, Rounding()).add(*_arrays((one, ours, files)))

    for_batches(task, dataset, look)
    for name, graph in graphs.items():
        if not graph.calls:
            example = deployment[name].example
            found = (_arrays(run(name, *example)) for run in (exact, trusted, exported))
            for rounding, each in zip(graph.rounding.values(), zip(*found, strict=True), strict=True):
                rounding.add(*each)


def judged(task: Task, dataset: "Dataset[Sample]", run: Run) -> dict[str, float]:
    """The task's figures with exported graphs in place of its network."""
    metric: Metric = task.exported_metric(dataset)

    def add(batch: dict[str, Any]) -> None:
        metric.update(task.predict_exported(batch, run), batch)

    for_batches(task, dataset, add)
    return {name: float(value) for name, value in metric.compute().items()}


def for_batches(
    task: Task, dataset: "Dataset[Sample]", use: Callable[[dict[str, Any]], None], at_once: int = AT_ONCE
) -> None:
    """Hands every batch of a data set, of ``at_once`` samples, to ``use``, in eval mode and without gradients."""
    size, training = size_of(dataset, "exported"), task.training
    batches = [list(range(first, min(first + at_once, size))) for first in range(0, size, at_once)]
    task.eval()
    try:
        with torch.no_grad():
            for batch in load(dataset, batches, (0, "export"), task.collate, 0):
                use(batch)
    finally:
        task.train(training)


def _arrays(tensors: tuple[Tensor, ...]) -> Arrays:
    return tuple(tensor.detach().numpy() for tensor in tensors)
