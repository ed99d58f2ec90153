"""A task: a network with its loss, data and metric; what one recipe trains."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from vision.engine.data import DataModule, Sample
from vision.engine.deployment import Deployment, DeploymentError, Exported, Run
from vision.engine.errors import ConfigError, DataError, nearest
from vision.engine.exported import Given, name_of
from vision.engine.prediction import Picture, Regions

Batch = dict[str, Any]
Losses = dict[str, Tensor]


@dataclass(frozen=True)
class StepContext:
    """What a training step may know about time.

    Attributes:
        step: optimiser updates finished so far.
        total_steps: updates the whole run will make.
        epoch: passes over the data finished so far.
    """

    step: int
    total_steps: int
    epoch: int

    @property
    def progress(self) -> float:
        """Share of the run that is done, in [0, 1)."""
        return self.step / max(self.total_steps, 1)


class Metric(ABC):
    """Scores of a data set from one small record a sample.

    ``measure`` runs where the sample is; the records of all processes are merged by sample id and ``compute`` runs
    once over all of them in order of id, so that a score does not depend on how the samples were spread.

    Attributes:
        primary: the figure that a best checkpoint is chosen by.
        mode: whether more of it is better (``max``) or less (``min``).
        others: what else ``trainer.select`` may name, each with its mode: ``{"nll": "min"}``.
    """

    primary: ClassVar[str]
    mode: ClassVar[str] = "max"
    others: ClassVar[Mapping[str, str]] = {}

    def __init__(self) -> None:
        self.records: dict[str, Any] = {}

    @classmethod
    def mode_of(cls, figure: str) -> str:
        """Whether more of a figure is better (``max``) or less (``min``).

        Raises:
            ConfigError: a checkpoint cannot be chosen by that figure.
        """
        modes = {cls.primary: cls.mode, **cls.others}
        if figure not in modes:
            raise ConfigError(
                f"trainer.select: a checkpoint cannot be chosen by '{figure}'{nearest(figure, modes)}; "
                f"expected one of {', '.join(modes)}"
            )
        return modes[figure]

    @abstractmethod
    def measure(self, prediction: Any, batch: Batch, position: int) -> Any:
        """The record of one prediction; ``position`` is its sample's place in ``batch``. Small and picklable."""

    @abstractmethod
    def score(self, records: list[Any]) -> dict[str, float]:
        """The figures from all records."""

    def tables(self, records: list[Any]) -> dict[str, Any]:
        """What is more than one figure, by name, as plain lists and numbers: confusion matrix, curves, bins."""
        return {}

    def update(self, predictions: list[Any], batch: Batch) -> None:
        """Adds the records of one batch."""
        for position, prediction in enumerate(predictions):
            self.records[prediction.id] = self.measure(prediction, batch, position)

    def merge(self, records: dict[str, Any]) -> None:
        """Adds the records another process made."""
        self.records.update(records)

    def ordered(self) -> list[Any]:
        """All records, by sample id."""
        return [self.records[key] for key in sorted(self.records)]

    def compute(self) -> dict[str, float]:
        """The figures of everything seen so far."""
        return self.score(self.ordered())


class Task(nn.Module, ABC):
    """What varies between systems, and nothing else.

    Attributes:
        network: what is trained, exported and benchmarked.
        data: the ``data`` block of the recipe.
        online: True for a rule that backpropagates several times a step (``training_step`` yields more than once);
            processes then average gradients once after the last backward pass instead of through DDP.
        updates_each_pass: True makes an update after every backward pass, of an online task, instead of one for all of
            them; processes then average gradients each time. A step of the run stays one batch.
    """

    network: nn.Module
    data: DataModule
    online: ClassVar[bool] = False
    updates_each_pass: bool = False

    @abstractmethod
    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        """Yields named losses for each backward pass; their sum is backpropagated before the next is asked for.

        Each loss is a scalar: the mean over the samples of the batch. Entries whose name starts with ``_`` are
        logged, not trained on.
        """

    @abstractmethod
    def predict(self, batch: Batch) -> list[Any]:
        """Predictions for the samples of a batch, in order. Called in eval mode without gradients."""

    @abstractmethod
    def metric(self) -> Metric:
        """A fresh metric."""

    def metric_for(self, dataset: "Dataset[Sample]") -> Metric:
        """A fresh metric for one data set, where what is scored against belongs to the set and not to its samples."""
        return self.metric()

    @abstractmethod
    def example_input(self) -> Tensor:
        """One input of the network, batch of one, as export and benchmark use it."""

    def deployment(self, folded: bool = True) -> Deployment:
        """The graphs that ``tools/export.py`` writes, on copies of the network, and what surrounds them.

        Args:
            folded: with BatchNorm folded and branches merged, as exported; false gives the network as it was trained,
                which exported graphs are compared with.

        Raises:
            DeploymentError: there is no exported form of this task.
        """
        raise DeploymentError(
            f"the task '{type(self).__name__}' cannot be exported; expected one that names its graphs (Task.deployment)"
        )

    def before(self) -> dict[str, Any]:
        """How a user's file becomes the network's input, as plain JSON: ``type`` and numbers, for an exported file.

        Empty for a task whose exported graphs are used by themselves: the runner refuses them.
        """
        return {}

    def after(self) -> dict[str, Any]:
        """How the network's output becomes a prediction, as plain JSON; as :meth:`before`."""
        return {}

    def predict_exported(self, batch: Batch, run: Run) -> list[Any]:
        """Predictions for the samples of a batch, in order, by exported graphs in place of the network.

        Args:
            batch: on the CPU.
            run: ``run(graph, *inputs)`` gives a tuple of the graph's outputs.
        """
        with self.exported(run):
            return self.predict(batch)

    def drive_exported(self, batch: Batch, run: Run) -> dict[str, Tensor]:
        """Runs the graphs that predicting does not, on real samples, so that they too are compared and calibrated.

        Args:
            batch: on the CPU.
            run: as of :meth:`predict_exported`.

        Returns:
            What all calls of each such graph gave together, by the graph's name; empty where predicting runs them all.
        """
        return {}

    @contextmanager
    def exported(self, run: Run) -> "Iterator[None]":
        """Inside, ``network`` is the exported graph ``model``."""
        kept = self.network
        self.network = Exported(run)
        try:
            yield
        finally:
            self.network = kept

    def calibration_data(self) -> "Dataset[Sample]":
        """Training samples that :meth:`predict_exported` takes, whose activations set the ranges of int8."""
        return self.train_data()

    def exported_metric(self, dataset: "Dataset[Sample]") -> Metric:
        """A fresh metric for what :meth:`predict_exported` gives."""
        return self.metric_for(dataset)

    def train_data(self) -> "Dataset[Sample]":
        """The samples to train on."""
        return self.data.train()

    def val_data(self) -> "Dataset[Sample]":
        """The samples everything is chosen on."""
        return self.data.val()

    def test_data(self) -> "Dataset[Sample] | None":
        """The samples a finished run is judged on, or None."""
        return self.data.test()

    def collate(self, samples: list[Sample]) -> Batch:
        """One batch from samples; tensors are stacked, anything else becomes a list."""
        batch: Batch = {}
        for key in samples[0]:
            values = [sample[key] for sample in samples]
            same = isinstance(values[0], Tensor | int | float) and len({getattr(v, "shape", ()) for v in values}) == 1
            batch[key] = default_collate(values) if same else values
        return batch

    def pictures(self, batch: Batch) -> Sequence[Picture]:
        """The samples' images as RGB pictures, for drawing; empty where a task has none."""
        return []

    def truths(self, batch: Batch) -> list[Any]:
        """The samples' true answers in the form ``Prediction.draw`` takes; empty where there are none."""
        return []

    def read_input(self, given: Given, name: str | None = None) -> Sample:
        """A sample (without a true answer) from what a user gives.

        Args:
            given: a file, a Pillow image or pixels.
            name: of the sample; by default the file's path, or ``image``.

        Raises:
            DataError: it cannot be read as an input of this task.
        """
        raise DataError(f"{name or name_of(given)}: the task '{type(self).__name__}' does not predict from files")

    def read_inputs(self, given: Given, regions: Regions | None = None, name: str | None = None) -> list[Sample]:
        """The samples of what a user gives: one, unless a task looks at the objects of an image one by one.

        Args:
            given: as of :meth:`read_input`.
            regions: where its objects are; None leaves that to the task.
            name: as of :meth:`read_input`.

        Raises:
            ConfigError: regions for a task that looks at whole images.
            DataError: as :meth:`read_input`.
        """
        if regions is not None:
            raise ConfigError(f"the task '{type(self).__name__}' looks at whole images; leave out --boxes")
        return [self.read_input(given, name)]

    def frame_inputs(self, frame: Picture, name: str, number: int, regions: Regions | None = None) -> list[Sample]:
        """The samples of one frame of a video, as :meth:`read_inputs` of a file.

        Args:
            frame: the picture.
            name: of the frame; samples' ids begin with it.
            number: of the frame, from 0.
            regions: where its objects are; None leaves that to the task.

        Raises:
            DataError: the task does not take pictures of 8 bits.
        """
        raise DataError(f"{name}: the task '{type(self).__name__}' does not predict from videos")

    def together(self, name: str, number: int | None, predictions: list[Any]) -> Any:
        """The predictions for the samples of one file or frame as one; by default there is just one.

        Args:
            name: of the file or frame.
            number: of the image in its results; None for the one its name ends in, or 0.
            predictions: for the samples of :meth:`read_inputs`, in order; empty where there were none.
        """
        return predictions[0]

    def before_training(self) -> None:
        """Runs once, before a trainer takes the task over: load what training alone needs, such as a teacher.

        A trained network is then judged and used without it.
        """

    def before_step(self, context: StepContext) -> None:
        """Runs before each update: reset neurons, set schedules."""

    def after_step(self, context: StepContext) -> None:
        """Runs after each update: update banks, constrain parameters."""

    def after_epoch(self, epoch: int) -> None:
        """Runs after each pass over the training data, before evaluation."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser; by default every parameter that asks for a gradient."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    @property
    def device(self) -> torch.device:
        """Where the network's first parameter lies."""
        return next(self.network.parameters()).device
