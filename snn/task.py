"""The task of spiking networks: classes of images and of event recordings, learnt by any of the rules."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from snn.deployment import Step, forget, graphs
from snn.encoders import Encoding, direct, poisson, rows
from snn.event_data import EventData
from snn.events import Events, event_picture
from snn.metric import SpikingMetric
from snn.monitor import Activity, watched
from snn.network import SpikingNetwork
from snn.neurons import SequenceError
from snn.rules import Learn, Rule, constrain, learnable, neurons, set_rule
from snn.scores import Layers, SpikeScores, scores_of
from snn.stop import Reduction
from vision.classification.data import ClassificationData
from vision.classification.task import Classification, ClassificationMetric
from vision.engine.data import DataModule, Sample
from vision.engine.deployment import Deployment, Run
from vision.engine.errors import ConfigError
from vision.engine.exported import Given, name_of
from vision.engine.folding import deployed
from vision.engine.prediction import Picture
from vision.engine.registry import register
from vision.engine.task import Batch, Losses, Metric, StepContext, Task


@register("spiking_classification")
class SpikingClassification(Task):
    r"""A spiking network that names the class of an image or of an event recording.

    The loss is the sum over time steps of :math:`E[t]` on the output of each step, the mean over samples: cross-entropy
    of the output spikes (or logits), or :math:`\frac 1 2 \sum_k (s_k - y_k)^2`; under ``osstop`` the cross-entropy of
    the readout after the last step alone. The class is the one whose neuron fired most; of equal counts the first.

    Args:
        data: images with labels, or event recordings.
        network: one of the spiking networks.
        rule: ``stop``, ``osstop`` (one-shot), ``ottt``, ``sltt`` or ``bptt``.
        learn: any of W (weights), T (thresholds) and L (leaks); W alone for ``ottt`` and ``sltt``.
        updates: ``accumulated`` is one a batch, from the sum over its time steps; ``online`` is one after every time
            step, while states and traces keep what the old parameters left. Of ``stop``, ``ottt`` and ``sltt``.
        loss: ``ce`` or ``mse``.
        encoding: of static images: ``direct`` shows them at every step, ``poisson`` as random spikes (for images in
            [0, 1]), ``rows`` a row of pixels a step. Event recordings are fed frame by frame.
        reduction: of the gradients of thresholds and leaks over the neurons that share one: ``mean`` or ``sum``.
        learn_output_neuron: whether T and L hold for the output neurons too.
        neuron_lr: learning rate of thresholds and leaks, as a multiple of that of the weights; without weight
            decay.
        threshold_min: thresholds are kept at or above it, above 0.
        leak_max: leaks are kept in [0, leak_max].
        checkpointing: compute each layer again while backpropagating; less memory, more time.

    Raises:
        ConfigError: options that contradict each other, or a network that does not fit the data.

    Deviation: quoted from others the paper keeps thresholds above 1e-3 and leaks in [0, 1], and lets the output neurons
        learn theirs; ours are 0.1, 0.99 and not, since cross-entropy on binary spikes drives these to their bounds.
    """

    online: ClassVar[bool] = True
    network: SpikingNetwork
    data: ClassificationData | EventData

    def __init__(
        self,
        data: DataModule,
        network: SpikingNetwork,
        rule: Rule = "stop",
        learn: Learn = "WTL",
        loss: Literal["ce", "mse"] = "ce",
        encoding: Encoding = "direct",
        reduction: Reduction = "mean",
        learn_output_neuron: bool = False,
        neuron_lr: float = 1.0,
        threshold_min: float = 0.1,
        leak_max: float = 0.99,
        checkpointing: bool = False,
        updates: Literal["accumulated", "online"] = "accumulated",
    ) -> None:
        super().__init__()
        if not isinstance(data, ClassificationData | EventData):
            raise ConfigError(
                f"data: spiking_classification takes images or event recordings, not {type(data).__name__}"
            )
        if not threshold_min > 0 or not 0 <= leak_max <= 1 or not neuron_lr > 0:
            raise ConfigError(
                f"task: threshold_min {threshold_min}, leak_max {leak_max} and neuron_lr {neuron_lr}; "
                "expected above 0, in [0, 1] and above 0"
            )
        if rule == "osstop" and network.output != "leaky":
            raise ConfigError(
                f"task.rule: osstop reads leaky logits; set task.network.output=leaky, not {network.output}"
            )
        if rule == "osstop" and loss != "ce":
            raise ConfigError("task.loss: osstop has one cross-entropy; leave task.loss out")
        if updates == "online" and rule in ("bptt", "osstop"):
            raise ConfigError(
                f"task.updates: online needs a loss after every time step, and {rule} has one a batch; "
                "set task.updates=accumulated, or task.rule to stop, ottt or sltt"
            )
        if isinstance(data, EventData) and encoding != "direct":
            raise ConfigError(f"task.encoding: '{encoding}' is for static images; event recordings are frames already")
        if encoding == "poisson" and isinstance(data, ClassificationData) and data.normalise:
            raise ConfigError("task.encoding: poisson needs intensities in [0, 1]; set data.normalise=false")
        _require_fit(network, data, encoding)
        set_rule(network, rule, learn, reduction, learn_output_neuron)
        network.checkpointing = checkpointing
        self.data, self.network, self.rule, self.loss, self.encoding = data, network, rule, loss, encoding
        self.updates_each_pass = updates == "online"
        self.neuron_lr, self.threshold_min, self.leak_max = neuron_lr, threshold_min, leak_max
        self._images = Classification(data, nn.Identity()) if isinstance(data, ClassificationData) else None

    # -- training ------------------------------------------------------------------------------------------------

    def inputs(self, batch: Batch) -> Tensor:
        """What the network sees of a batch, ``[N, T, C, H, W]``.

        Raises:
            SequenceError: frames that are not ``[N, T, 2, H, W]`` of the samples of the batch.
        """
        if isinstance(self.data, EventData):
            frames: Tensor = batch["frames"]
            if frames.ndim != 5 or len(frames) != len(batch["id"]):
                raise SequenceError(
                    f"frames of shape {list(frames.shape)} for {len(batch['id'])} samples; expected [N, T, 2, H, W]"
                )
            return frames
        images: Tensor = batch["image"]
        if self.encoding == "rows":
            return rows(images)
        if self.encoding == "poisson":
            return poisson(images, self.network.steps, None if self.training else batch["id"])
        return direct(images, self.network.steps)

    def criterion(self, output: Tensor, labels: Tensor) -> Losses:
        """The loss of one step's output ``[N, C]``, a mean over samples."""
        output = output.float() if output.dtype != torch.float64 else output
        if self.loss == "mse":
            target = F.one_hot(labels, output.shape[1]).to(output)
            return {"squared_error": 0.5 * (output - target).square().sum(1).mean()}
        return {"cross_entropy": F.cross_entropy(output, labels)}

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        steps, labels = self.network.sequence(self.inputs(batch)), batch["label"]
        self.network.reset(len(steps))
        try:
            if self.rule in ("bptt", "osstop"):
                yield self._at_once(steps, labels) | self._noted()
                return
            for place, x in enumerate(steps, start=1):
                losses = self.criterion(self.network.step(x), labels)
                yield losses | (self._noted() if place == len(steps) else {})
        finally:
            self.network.reset()

    def _at_once(self, steps: Tensor, labels: Tensor) -> Losses:
        total: Losses = {}
        for place, x in enumerate(steps, start=1):
            output = self.network.step(x)
            if self.rule == "osstop" and place < len(steps):
                continue  # its graph ends with it; states and traces go on
            for name, value in self.criterion(output, labels).items():
                total[name] = total[name] + value if name in total else value
        return total

    @torch.no_grad()
    def _noted(self) -> Losses:
        """Thresholds and leaks that learn, for the record."""
        found: Losses = {}
        for name, node in neurons(self.network.body).items():
            if node.v_threshold.requires_grad:
                found[f"_threshold/{name}"] = node.v_threshold.detach().mean()
            if node.leak.requires_grad:
                found[f"_leak/{name}"] = node.leak.detach().clone()
        return found

    def after_step(self, context: StepContext) -> None:
        constrain(self.network, self.threshold_min, self.leak_max)

    def parameter_groups(self) -> list[dict[str, Any]]:
        weights, thresholds, leaks = learnable(self.network)
        own: dict[str, Any] = {"weight_decay": 0.0, "lr_scale": self.neuron_lr}
        groups: list[dict[str, Any]] = [{"params": weights}, {"params": thresholds, **own}, {"params": leaks, **own}]
        return [group for group in groups if group["params"]]

    # -- evaluation ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, batch: Batch) -> list[SpikeScores]:
        x = self.inputs(batch)
        with watched(self.network, len(x), x.shape[1]) as seen:
            outputs = self.network.run(x).float()
        return self._scores(batch, outputs, seen)

    def predict_exported(self, batch: Batch, run: Run) -> list[SpikeScores]:
        """The same answers; how layers fired is not seen from outside, and left empty."""
        static = not isinstance(self.data, EventData) and self.encoding != "poisson"
        (outputs,) = run("model", batch["image"] if static else self.inputs(batch))
        return self._scores(batch, outputs.float(), Activity())

    def drive_exported(self, batch: Batch, run: Run) -> dict[str, Tensor]:
        """``step`` over all time steps, from states of zero on those that it gives: its outputs ``[T, N, C]``."""
        frames = self.network.sequence(self.inputs(batch))
        states: Sequence[Tensor] = Step(self.network).first_states(frames[0])
        outputs = []
        for frame in frames:
            output, *states = run("step", frame.contiguous(), *states)
            outputs.append(output)
        return {"step": torch.stack(outputs)}

    def _scores(self, batch: Batch, outputs: Tensor, seen: Activity) -> list[SpikeScores]:
        found = scores_of(batch["id"], outputs.cpu().numpy(), self.network.output, self.data.classes)
        if not seen.neurons:
            return found
        layers, weights = self._layers(seen), np.array(list(seen.neurons.values()), float)
        rasters = {name: raster.cpu().numpy() for name, raster in seen.rasters.items()}
        for place, (each, rates, operations) in enumerate(
            zip(found, _columns(seen.rates), _columns(seen.operations), strict=True)
        ):
            each.firing_rate = float(np.average(list(rates.values()), weights=weights))
            each.operations, each.rates, each.layers = operations, rates, layers
            each.rasters = {layer: raster[place] for layer, raster in rasters.items()}
        return found

    def _layers(self, seen: Activity) -> Layers:
        nodes = neurons(self.network.body)
        return Layers(
            dict(seen.neurons),
            {name: float(node.v_threshold.detach().mean()) for name, node in nodes.items()},
            {name: float(node.leak.detach()) for name, node in nodes.items()},
            dict(seen.macs),
            dict(seen.analogue),
        )

    def metric(self) -> Metric:
        return SpikingMetric(self.data.classes)

    def exported_metric(self, dataset: "Dataset[Sample]") -> Metric:
        return ClassificationMetric(self.data.classes)

    def deployment(self, folded: bool = True) -> Deployment:
        """Two graphs, ``model`` over all time steps and ``step``; random spikes (``poisson``) are drawn outside."""
        size, channels = self.data.image_size, self.data.in_channels
        images = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0))
        events = isinstance(self.data, EventData)
        steps = self.data.frames if isinstance(self.data, EventData) else self.network.steps
        shown = direct(images, steps).round() if events or self.encoding == "poisson" else images
        encoding: Encoding = "rows" if self.encoding == "rows" and not events else "direct"
        example, kind = shown.contiguous(), "image" if shown.ndim == 4 else "frames"
        forget(self.network)
        sequences = rows(example) if encoding == "rows" else example
        network = deployed(self.network, lambda network: Step(network)(network.sequence(sequences)[0]), folded)
        return Deployment(graphs(network, example, kind, encoding), self.before(), self.after())

    def example_input(self) -> Tensor:
        size, channels = self.data.image_size, self.data.in_channels
        if isinstance(self.data, EventData):
            return torch.zeros(1, self.data.frames, channels, size, size)
        return (
            rows(torch.zeros(1, channels, size, size))
            if self.encoding == "rows"
            else torch.zeros(1, channels, size, size)
        )

    def pictures(self, batch: Batch) -> list[Picture]:
        if self._images is not None:
            return self._images.pictures(batch)
        return [event_picture(frames) for frames in batch["frames"].float().cpu().numpy()]

    def truths(self, batch: Batch) -> list[str]:
        return [self.data.classes[int(label)] for label in batch["label"]]

    def read_input(self, given: Given | Events, name: str | None = None) -> Sample:
        name = name or name_of(given)
        if self._images is not None:
            assert not isinstance(given, Events)
            return self._images.read_input(given, name)
        assert isinstance(self.data, EventData)
        return {"id": name, "frames": self.data.read(given, name)}

    def before(self) -> dict[str, Any]:
        """How an image or a recording becomes the network's input, for what runs without PyTorch."""
        if self._images is not None:
            drawn = self.encoding == "poisson"
            return self._images.before() | {"encoding": self.encoding, "steps": self.network.steps if drawn else None}
        assert isinstance(self.data, EventData)
        height, width = self.data.sensor
        return {
            "type": "frames", "frames": self.data.frames, "height": height, "width": width, "size": self.data.size,
            "split_by": self.data.split_by, "duration": self.data.duration,
        }  # fmt: skip

    def after(self) -> dict[str, Any]:
        """What the outputs of all steps mean, for what runs without PyTorch."""
        return {"type": "spikes", "classes": list(self.data.classes), "output": self.network.output}


def _require_fit(network: SpikingNetwork, data: ClassificationData | EventData, encoding: Encoding) -> None:
    """A network with the data's classes and inputs.

    Raises:
        ConfigError: it has others.
    """
    if network.num_classes != len(data.classes):
        raise ConfigError(
            f"task.network gives {network.num_classes} classes and the data has {len(data.classes)}; "
            f"set task.network.classes={len(data.classes)}"
        )
    if network.in_channels not in (None, data.in_channels):
        raise ConfigError(
            f"task.network takes {network.in_channels} channels and the data gives {data.in_channels}; "
            f"set task.network.in_channels={data.in_channels}"
        )
    if network.in_channels is None:
        rows_seen = 1 if encoding == "rows" else data.image_size
        given = data.in_channels * rows_seen * data.image_size
        if network.inputs != given:
            raise ConfigError(
                f"task.network takes {network.inputs} inputs and a step of the data has {given}; "
                f"set task.network.inputs={given}"
            )


def _columns(values: dict[str, Tensor]) -> list[dict[str, float]]:
    """Values by layer ``[N]`` as one dictionary a sample."""
    lists = {name: value.tolist() for name, value in values.items()}
    count = len(next(iter(lists.values()), []))
    return [{name: value[place] for name, value in lists.items()} for place in range(count)]
