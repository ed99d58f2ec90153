"""The single-stage task: everyone in an image at once, without boxes."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset, Subset

from vision.engine.data import Sample
from vision.engine.deployment import Deployment, Run
from vision.engine.errors import ConfigError
from vision.engine.exported import Given, name_of
from vision.engine.folding import deployed
from vision.engine.prediction import Picture, Regions
from vision.engine.registry import register
from vision.engine.task import Batch, Losses, Metric, StepContext, Task
from vision.pose.crops import inverse, mapped
from vision.pose.data import MEAN, STD
from vision.pose.dhrnet import DHRNet, People, probability
from vision.pose.exported import number_of, read_photograph
from vision.pose.halves import ExportedDHRNet, graphs
from vision.pose.images import read_rgb
from vision.pose.losses_single_stage import contrast_loss, focal_loss
from vision.pose.metrics import PoseMetric
from vision.pose.oks import extent, oks_nms
from vision.pose.peaks import decode_poses
from vision.pose.prediction import OnDemand, Poses
from vision.pose.single_stage_data import SingleStageData, WholeImages, rows_of
from vision.pose.targets import Annotated, encode

log = logging.getLogger(__name__)

SMALL_BATCH = 8
"""Images that BatchNorm should see at once; below, the numbers of this family of networks are known not to hold."""

Found = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Joints ``[P, K, 3]`` in pixels of the image, with scores, and scores of poses ``[P]``."""


def _normalises(module: nn.Module) -> bool:
    """Whether a layer takes statistics of the batch."""
    return isinstance(module, _BatchNorm) and module.training


def _processes(norm: nn.Module) -> int:
    """How many processes a BatchNorm takes its statistics over."""
    return dist.get_world_size() if hasattr(norm, "_over_processes") and dist.is_initialized() else 1


def people_of(batch: Batch) -> Annotated:
    """The annotated people of a batch of training samples, as one."""
    counts = [len(joints) for joints in batch["joints"]]
    device = batch["image"].device
    rows = {key: torch.cat(rows_of(batch, key)) for key in ("joints", "labelled", "radius", "centres", "centred")}
    starts = np.cumsum([0, *counts[:-1]]).tolist()
    return Annotated(
        **rows,
        image=torch.repeat_interleave(torch.tensor(counts)).to(device, non_blocking=True),
        count=len(counts),
        chosen=torch.cat([own + start for own, start in zip(rows_of(batch, "chosen"), starts, strict=True)]),
        coords=torch.cat(rows_of(batch, "coords")),
    )


@register("single_stage_pose")
class SingleStagePose(Task):
    r"""Poses of everyone in an image by one pass, with DHRNet or CID.

    .. math:: L = w_1 L_{everyone} + w_2 L_{contrast} + w_3 L_{people}

    with focal losses on the maps that all people share (joints and centres; regions without labels left out) and on
    those of each person (joints without labels left out), and a contrast between the people of an image. The losses
    are ratios of sums over the images of a pass, as released, so that several processes or accumulated passes do not
    exactly make the update of one large batch.

    At test time the mirror image is looked at too (flip test), and of poses that are alike the surest is kept.

    Args:
        data: whole images.
        network: ``dhrnet`` or ``cid``.
        flip_test: average with the mirror image.
        nms: poses of an image that are as similar as this OKS, and less sure, count as the same person; null keeps
            all. 0.8 for COCO and CrowdPose, 0.7 for OCHuman.
        loss_weights: :math:`w_1, w_2, w_3`.
        max_people: people of a pass that are trained on one by one; more are drawn at random.

    Raises:
        ConfigError: a network of another number of joints than the data's, or one that is not single-stage.

    Source: the released code.
    """

    data: SingleStageData
    network: DHRNet

    def __init__(
        self,
        data: SingleStageData,
        network: nn.Module,
        flip_test: bool = True,
        nms: float | None = 0.8,
        loss_weights: tuple[float, float, float] = (1.0, 1.0, 4.0),
        max_people: int = 200,
    ) -> None:
        super().__init__()
        if not isinstance(network, DHRNet):
            raise ConfigError(f"task.network: expected dhrnet or cid, got {type(network).__name__}")
        if nms is not None and not 0 <= nms <= 1:
            raise ConfigError(f"task.nms: got {nms}, expected an OKS in [0, 1], or null to keep all poses")
        if max_people < 1:
            raise ConfigError(f"task.max_people: got {max_people}, expected at least 1")
        self.data, self.network, self.skeleton = data, network, data.skeleton
        if network.keypoints != self.skeleton.count:
            raise ConfigError(
                f"task.network has keypoints {network.keypoints} and the data {self.skeleton.count}; "
                f"set task.network.keypoints={self.skeleton.count}"
            )
        self.flip_test, self.nms, self.loss_weights, self.max_people = flip_test, nms, loss_weights, max_people
        self._warned = False

    def before_training(self) -> None:
        self.network.before_training()

    # -- training ----------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        annotated = people_of(batch).limited(self.max_people)
        self._look_at(batch, annotated, context)
        features = self.network.features(batch["image"])
        targets = encode(annotated, (features.shape[-2], features.shape[-1]))
        everyone = focal_loss(probability(self.network.maps(features)), targets.everyone, batch["mask"])
        people = People(targets.coords, targets.image, features.new_ones(len(targets.image)))
        vectors = self.network.vectors(features, people)
        own = focal_loss(probability(self.network.heatmaps(features, people, vectors)), targets.people, targets.weight)
        losses = {"everyone": everyone, "contrast": contrast_loss(vectors, targets.image), "people": own}
        yield {name: w * losses[name] for name, w in zip(losses, self.loss_weights, strict=True)}

    def _look_at(self, batch: Batch, annotated: Annotated, context: StepContext) -> None:
        """Warns of what makes training fail quietly: nobody in a batch, or a batch too small for BatchNorm."""
        if not len(annotated.chosen):
            log.warning(
                "update %d: nobody in the batch is large enough and inside the square, so that only the background is "
                "learnt: %s", context.step + 1, ", ".join(map(str, batch["id"][:8])),
            )  # fmt: skip
        if self._warned or len(batch["id"]) >= SMALL_BATCH:
            return
        self._warned = True
        seen = [len(batch["id"]) * _processes(m) for m in self.network.modules() if _normalises(m)]
        if seen and min(seen) < SMALL_BATCH:
            log.warning(
                "BatchNorm sees %d images at a time, fewer than %d: this family of networks is known to lose accuracy "
                "then; take a larger trainer.batch_size, fewer trainer.accumulate passes, or trainer.sync_batchnorm "
                "with several processes", min(seen), SMALL_BATCH,
            )  # fmt: skip

    # -- prediction --------------------------------------------------------------------------------------------------

    def predict(self, batch: Batch) -> list[Poses]:
        found = self._found(list(batch["image"]), list(batch["matrix"]))
        parts = [[each] for each in found]
        for own, views in zip(parts, batch["more"], strict=True):
            own += self._found([view["image"] for view in views], [view["matrix"] for view in views])
        return [
            self._poses(name, int(image_id), own)
            for name, image_id, own in zip(batch["id"], batch["image_id"], parts, strict=True)
        ]

    def _found(self, images: Sequence[Tensor], matrices: Sequence[Tensor]) -> list[Found]:
        """The poses of each image, in its own pixels; images of one size are looked at together."""
        found: dict[int, Found] = {}
        for size in dict.fromkeys(image.shape for image in images):
            positions = [i for i, image in enumerate(images) if image.shape == size]
            flip = self.skeleton.flip_index if self.flip_test else None
            heatmaps, people = self.network.detect(torch.stack([images[i] for i in positions]), flip)
            joints, scores = decode_poses(heatmaps.float(), people.scores.float(), self.network.search.kernel)
            each, own, sure = (x.cpu().numpy() for x in (people.image, joints, scores))
            for place, i in enumerate(positions):
                mine = own[each == place]
                mine[..., :2] = mapped(inverse(matrices[i].cpu().numpy()), mine[..., :2])
                found[i] = mine, sure[each == place]
        return [found[i] for i in range(len(images))]

    def _poses(self, name: str, image_id: int, parts: Sequence[Found]) -> Poses:
        joints, scores = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        if self.nms is not None:
            kept = oks_nms(joints, scores, extent(joints), self.skeleton.sigmas, self.nms)
            joints, scores = joints[kept], scores[kept]
        none = np.zeros((0, 4), dtype=np.float32)
        return Poses(name, image_id, joints, scores, none, none[:, 0], self.skeleton)

    def metric(self) -> Metric:
        return self.metric_for(self.val_data())

    def metric_for(self, dataset: "Dataset[Sample]") -> Metric:
        if isinstance(dataset, Subset):  # some of them
            whole = dataset.dataset
            assert isinstance(whole, WholeImages)
            truth = whole.ground_truth.only({whole.image_ids[i] for i in dataset.indices})
            return PoseMetric(truth, nms=None, score_rule="given")
        assert isinstance(dataset, WholeImages)
        return PoseMetric(dataset.ground_truth, nms=None, score_rule="given")

    def example_input(self) -> Tensor:
        return torch.zeros(1, 3, self.data.size, self.data.size)

    def deployment(self, folded: bool = True) -> Deployment:
        """Two graphs: an image to features, centres and shared map; people of one image to their heatmaps."""
        images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
        network = deployed(self.network, lambda network: network.features(images), folded)
        return Deployment(graphs(network, images), self.before(), self.after())

    def calibration_data(self) -> "Dataset[Sample]":
        """The images of the training split, whole, as they are looked at when predicting."""
        return self.data.whole_train()

    def predict_exported(self, batch: Batch, run: Run) -> list[Poses]:
        kept = self.network
        self.network = cast(DHRNet, ExportedDHRNet(run, kept))
        try:
            return self.predict(batch)
        finally:
            self.network = kept

    def pictures(self, batch: Batch) -> Sequence[Picture]:
        if "picture" in batch:
            return list(batch["picture"])
        return OnDemand(lambda index: read_rgb(batch["file"][index], self.data.orientation), len(batch["file"]))

    def truths(self, batch: Batch) -> list[NDArray[np.float32]]:
        """The labelled people of each image, ``[P, K, 3]``, pixels of the image."""
        return [joints.cpu().numpy() for joints in batch["keypoints"]] if "keypoints" in batch else []

    def read_input(self, given: Given, name: str | None = None) -> Sample:
        name = name or name_of(given)
        return self._sample(read_photograph(given, name), name)

    def frame_inputs(self, frame: Picture, name: str, number: int, regions: Regions | None = None) -> list[Sample]:
        if regions is not None:
            raise ConfigError("a single-stage network looks at whole images; leave out --boxes")
        return [self._sample(frame, name)]

    def _sample(self, picture: Picture, name: str) -> Sample:
        return {**self.data.sample_of(picture, name, number_of(name)), "picture": picture}

    def together(self, name: str, number: int | None, predictions: list[Any]) -> Poses:
        found: Poses = predictions[0]
        return Poses.joined(name, number_of(name) if number is None else number, [found], self.skeleton)

    def before(self) -> dict[str, Any]:
        """How an image becomes the network's input, for what runs without PyTorch."""
        scales = list(self.data.test_scales)
        return {"type": "whole", "short": self.data.short, "scales": scales, "mean": list(MEAN), "std": list(STD)}

    def after(self) -> dict[str, Any]:
        """How people and their joints are found in the networks' outputs, for what runs without PyTorch."""
        search = self.network.search
        return {
            "type": "single_stage", "most": search.most, "threshold": search.threshold, "kernel": search.kernel,
            "flip_test": self.flip_test, "nms": self.nms, "skeleton": self.skeleton.plain(),
        }  # fmt: skip
