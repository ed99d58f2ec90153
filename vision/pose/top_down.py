"""The top-down task: a network that finds the joints of the one person in a box."""

import logging
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from vision.engine.data import Sample
from vision.engine.deployment import Deployment, images_graph
from vision.engine.errors import ConfigError
from vision.engine.exported import Given, name_of
from vision.engine.folding import deployed
from vision.engine.prediction import Picture, Regions
from vision.engine.recipe import Block
from vision.engine.registry import OfKind, build, register
from vision.engine.task import Batch, Losses, Metric, StepContext, Task
from vision.pose.codecs import Codec
from vision.pose.crops import crop_matrix, region, to_image
from vision.pose.data import MEAN, STD, TopDownCrops, TopDownData, annotated, as_input
from vision.pose.exported import number_of, read_photograph
from vision.pose.images import read_rgb
from vision.pose.metrics import PoseMetric
from vision.pose.network import parameter_groups
from vision.pose.oks import rescored
from vision.pose.people import whole_picture
from vision.pose.prediction import OnDemand, Poses
from vision.pose.warping import warped

log = logging.getLogger(__name__)


@register("top_down_pose")
class TopDown(Task):
    r"""Pose estimation of the one person in a box: targets, loss and decoding are a codec's, the rest a network's.

    At evaluation the network also sees the mirror image, whose output is mirrored back and averaged (flip test). A
    pose's score is that of its box times the mean score of its joints above 0.2.

    Args:
        data: crops of people.
        network: gives the codec's output, heatmaps ``[N, K, h, w]`` or SimCC's two rows of bins.
        codec: block of a registered codec.
        flip_test: average with the mirror image when predicting.
        nms: poses of an image that are as similar as this OKS, and less sure, count as the same person and are left
            out when scoring; null keeps all.

    Raises:
        ConfigError: a network of another number of joints or input size than the data's, or a codec that does not fit.
        CheckpointError: before training begins, where the network's weights to start from are another network's.
    """

    data: TopDownData

    def __init__(
        self,
        data: TopDownData,
        network: nn.Module,
        codec: Annotated[Block, OfKind("codec")] | None = None,
        flip_test: bool = True,
        nms: float | None = 0.9,
    ) -> None:
        super().__init__()
        self.data, self.network, self.flip_test, self.nms = data, network, flip_test, nms
        self.skeleton = data.skeleton
        block = codec or {"type": "udp_heatmap"}
        self.codec: Codec = build(block, "codec", input_size=data.input_size)
        self._loss = str(block["type"])
        _require_same("keypoints", getattr(network, "keypoints", None), self.skeleton.count)
        _require_same("input_size", getattr(network, "input_size", None), data.input_size)

    def before_training(self) -> None:
        begin = getattr(self.network, "before_training", None)
        if callable(begin):  # weights to start from, where the network was given some
            begin()

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        targets = self.codec.encode(batch["keypoints"], batch["visible"])
        if not bool((targets["weight"] > 0).any()):
            log.warning(
                "update %d: nothing to learn from: no joint of the batch is labelled and inside its crop: %s",
                context.step + 1, ", ".join(map(str, batch["id"][:8])),
            )  # fmt: skip
        yield {self._loss: self.codec.loss(self.network(batch["image"]), targets)}

    def predict(self, batch: Batch) -> list[Poses]:
        images = batch["image"]
        output = self.network(images)
        if self.flip_test:
            mirrored = self.codec.flipped(self.network(images.flip(-1)), self.skeleton.flip_index)
            output = self.codec.average([output, mirrored])
        joints, scores = self.codec.decode(output)
        placed = to_image(joints, batch["center"].to(joints), batch["scale"].to(joints), self.data.input_size)
        keypoints = torch.cat([placed, scores[..., None]], dim=-1).float().cpu().numpy()
        boxes, box_scores = batch["box"].float().cpu().numpy(), _array(batch["box_score"])
        sure = rescored(box_scores, keypoints[..., 2]).astype(np.float32)
        return [
            Poses(
                name, int(batch["image_id"][i]), keypoints[i : i + 1], sure[i : i + 1],
                boxes[i : i + 1], box_scores[i : i + 1], self.skeleton,
            )
            for i, name in enumerate(batch["id"])
        ]  # fmt: skip

    def metric(self) -> Metric:
        return self.metric_for(self.val_data())

    def metric_for(self, dataset: "Dataset[Sample]") -> Metric:
        if isinstance(dataset, Subset):  # the first of them
            crops = dataset.dataset
            assert isinstance(crops, TopDownCrops)
            images = {crops.subjects[i].image.id for i in dataset.indices}
            return PoseMetric(crops.ground_truth.only(images), nms=self.nms)
        assert isinstance(dataset, TopDownCrops)
        return PoseMetric(dataset.ground_truth, nms=self.nms)

    def example_input(self) -> Tensor:
        return torch.zeros(1, 3, *self.data.input_size[::-1])

    def calibration_data(self) -> "Dataset[Sample]":
        """Crops of the people to train on, not augmented."""
        kept = self.data.ground_truth("train")
        return self.data.crops(annotated(kept), kept)

    def deployment(self, folded: bool = True) -> Deployment:
        width, height = self.data.input_size
        example = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
        network = deployed(self.network, lambda network: network(example), folded)
        with torch.no_grad():
            outputs = ("columns", "rows") if isinstance(network(example), tuple) else ("heatmaps",)
        graph = images_graph(network, example, outputs, any_size=False)  # crops have the input's size
        return Deployment((graph,), self.before(), self.after())

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Two groups: weight decay leaves out biases, norms, and what the network names (``no_weight_decay``)."""
        return parameter_groups(self.network)

    def pictures(self, batch: Batch) -> Sequence[Picture]:
        if "picture" in batch:
            return list(batch["picture"])
        return OnDemand(lambda index: read_rgb(batch["file"][index], self.data.orientation), len(batch["file"]))

    def truths(self, batch: Batch) -> list[NDArray[np.float32]]:
        """The labelled joints of each sample, ``[1, K, 3]``, pixels of the image; all 0 in a detector's box."""
        if "keypoints" not in batch:
            return []
        placed = to_image(batch["keypoints"], batch["center"], batch["scale"], self.data.input_size)
        joints = torch.cat([placed, batch["visible"][..., None]], dim=-1).float().cpu().numpy()
        return [joints[i : i + 1] for i in range(len(joints))]

    def read_input(self, given: Given, name: str | None = None) -> Sample:
        return self.read_inputs(given, None, name)[0]

    def read_inputs(self, given: Given, regions: Regions | None = None, name: str | None = None) -> list[Sample]:
        """A sample for each box; a file is turned by its EXIF orientation, as a viewer shows it."""
        name = name or name_of(given)
        return self._samples(read_photograph(given, name), name, regions)

    def frame_inputs(self, frame: Picture, name: str, number: int, regions: Regions | None = None) -> list[Sample]:
        return self._samples(frame, name, regions)

    def _samples(self, picture: Picture, name: str, regions: Regions | None) -> list[Sample]:
        """A sample for each box of a picture; without regions, one of the whole picture, whose id is its name."""
        found = (regions or whole_picture)(picture, name)
        size, samples = self.data.input_size, []
        for number, (box, score) in enumerate(found):
            centre, sides = region(box, size, self.data.padding)
            samples.append({
                "id": name if regions is None else f"{name}/{number}",
                "image": as_input(warped(picture, crop_matrix(centre, sides, size), size)),
                "center": torch.from_numpy(centre.astype(np.float32)),
                "scale": torch.from_numpy(sides.astype(np.float32)),
                "image_id": number_of(name),
                "box": torch.tensor(box, dtype=torch.float32),
                "box_score": score,
                "picture": picture,
            })  # fmt: skip
        return samples

    def together(self, name: str, number: int | None, predictions: list[Any]) -> Poses:
        return Poses.joined(name, number_of(name) if number is None else number, predictions, self.skeleton)

    def before(self) -> dict[str, Any]:
        """How the person in a box becomes the network's input, for what runs without PyTorch."""
        size, padding = list(self.data.input_size), self.data.padding
        return {"type": "crop", "input_size": size, "padding": padding, "mean": list(MEAN), "std": list(STD)}

    def after(self) -> dict[str, Any]:
        """How the network's output is decoded, for what runs without PyTorch."""
        return {**self.codec.after(), "flip_test": self.flip_test, "skeleton": self.skeleton.plain()}


def _array(values: Any) -> NDArray[np.float32]:
    return torch.as_tensor(values).float().cpu().numpy()


def _require_same(field: str, given: Any, wanted: Any) -> None:
    if given is not None and _plain(given) != _plain(wanted):
        given, wanted = (str(_plain(v)).replace(" ", "").replace("(", "[").replace(")", "]") for v in (given, wanted))
        raise ConfigError(
            f"task.network is for {field} {given}, and the data has {wanted}; set task.network.{field}={wanted}"
        )


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, Sequence) else value
