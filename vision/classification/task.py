"""The plain classification task: cross-entropy on images, judged by accuracy, NLL and calibration."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vision.classification import metrics
from vision.classification.data import ClassificationData
from vision.classification.pixels import Pixels, as_input, brought_to, read_pixels
from vision.classification.scores import SHOWN, Scores, scores_of
from vision.engine.data import Sample
from vision.engine.deployment import Deployment, images_graph
from vision.engine.errors import ConfigError
from vision.engine.exported import Given, name_of
from vision.engine.folding import deployed, takes_any_size
from vision.engine.prediction import Picture
from vision.engine.registry import register
from vision.engine.task import Batch, Losses, Metric, StepContext, Task


class ClassificationMetric(Metric):
    """Top-1 and top-5 accuracy, negative log-likelihood, expected calibration error and the confusion matrix."""

    primary = "accuracy"
    others: ClassVar[dict[str, str]] = {"top5": "max", "nll": "min", "ece": "min"}

    def __init__(self, classes: list[str]) -> None:
        super().__init__()
        self.classes = classes

    def measure(self, prediction: Scores, batch: Batch, position: int) -> tuple[NDArray[np.float32], int]:
        return prediction.logits, int(batch["label"][position])

    def score(self, records: list[Any]) -> dict[str, float]:
        logits, labels = _stacked(records)
        figures = {"accuracy": metrics.top_k(logits, labels, 1)}
        if len(self.classes) > SHOWN:
            figures["top5"] = metrics.top_k(logits, labels, 5)
        return figures | {"nll": metrics.nll(logits, labels), "ece": metrics.ece(logits, labels)}

    def tables(self, records: list[Any]) -> dict[str, Any]:
        logits, labels = _stacked(records)
        if len(self.classes) > 100:
            return {}
        matrix = metrics.confusion_matrix(logits, labels)
        return {
            "confusion": {
                "type": "matrix",
                "title": "Confusion (rows: true class, columns: predicted)",
                "labels": self.classes,
                "values": matrix.tolist(),
            }
        }


def _stacked(records: list[Any]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return np.stack([logits for logits, _ in records]), np.array([label for _, label in records], dtype=np.int64)


@register("classification")
class Classification(Task):
    """A network that names the class of an image, trained by cross-entropy with the assigned label.

    Args:
        data: images with labels.
        network: gives one logit a class.
        label_smoothing: share of each label spread evenly over all classes, in [0, 1).

    Raises:
        ConfigError: the network's classes are not the data's.
    """

    data: ClassificationData

    def __init__(self, data: ClassificationData, network: nn.Module, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"task.label_smoothing: {label_smoothing} is outside [0, 1)")
        given, wanted = getattr(network, "num_classes", None), len(data.classes)
        if given is not None and given != wanted:
            raise ConfigError(
                f"task.network gives {given} classes and the data has {wanted}; set task.network.classes={wanted}"
            )
        self.data, self.network, self.label_smoothing = data, network, label_smoothing

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        logits = self.network(batch["image"])
        yield {"cross_entropy": F.cross_entropy(logits, batch["label"], label_smoothing=self.label_smoothing)}

    def predict(self, batch: Batch) -> list[Scores]:
        logits = self.network(batch["image"]).float().cpu().numpy()
        return scores_of(batch["id"], logits, self.data.classes)

    def metric(self) -> Metric:
        return ClassificationMetric(self.data.classes)

    def example_input(self) -> Tensor:
        return torch.zeros(1, self.data.in_channels, self.data.image_size, self.data.image_size)

    def deployment(self, folded: bool = True) -> Deployment:
        example = torch.rand(2, *self.example_input().shape[1:], generator=torch.Generator().manual_seed(0))
        network = deployed(self.network, lambda network: network(example), folded)
        graph = images_graph(network, example, ("logits",), takes_any_size(network, example))
        return Deployment((graph,), self.before(), self.after())

    def pictures(self, batch: Batch) -> list[Picture]:
        images = batch["image"].float().cpu()
        if self.data.normalise:
            mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (self.data.mean, self.data.std))
            images = images * std + mean
        pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        return [np.repeat(p, 3, axis=2) if p.shape[2] == 1 else p for p in pixels]

    def truths(self, batch: Batch) -> list[str]:
        return [self.data.classes[int(label)] for label in batch["label"]]

    def read_input(self, given: Given, name: str | None = None) -> Sample:
        name = name or name_of(given)
        return {"id": name, "image": torch.from_numpy(as_input(self.shown(given, name), *self._statistics))}

    def shown(self, given: Given, name: str) -> Pixels:
        """A user's image at the size of the data's, uint8 ``[H, W, C]``.

        Raises:
            DataError: it cannot be read.
        """
        return self._shown(read_pixels(given, name, self.data.in_channels))

    def before(self) -> dict[str, Any]:
        """How an image becomes the network's input, for what runs without PyTorch.

        Raises:
            ConfigError: a data set that brings images to their size in a way of its own.
        """
        data = self.data
        if data.resize == "stretch" and data.prepare(train=False):
            raise ConfigError(
                f"data: {type(data).__name__} prepares images in a way of its own, which an exported file cannot hold; "
                "let its 'resize' say stretch or short_side in place of 'prepare'"
            )
        mean, std = self._statistics
        return {
            "type": "image", "size": data.image_size, "channels": data.in_channels, "resize": data.resize,
            "mean": None if mean is None else list(mean), "std": None if std is None else list(std),
        }  # fmt: skip

    def after(self) -> dict[str, Any]:
        """What the network's output means, for what runs without PyTorch."""
        return {"type": "classes", "classes": list(self.data.classes)}

    @property
    def _statistics(self) -> tuple[Sequence[float] | None, Sequence[float] | None]:
        """Mean and deviation of each channel; None where images are not normalised."""
        return (self.data.mean, self.data.std) if self.data.normalise else (None, None)

    def _shown(self, pixels: Pixels) -> Pixels:
        """A user's image at the size of the data's."""
        size = self.data.image_size
        if pixels.shape[:2] == (size, size):
            return pixels
        transforms = self.data.prepare(train=False)
        if not transforms:
            return brought_to(pixels, size, "stretch")
        image = torch.from_numpy(pixels).permute(2, 0, 1)
        for transform in transforms:
            image = transform(image)
        return image.permute(1, 2, 0).numpy()
