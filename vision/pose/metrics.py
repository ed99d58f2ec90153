"""The metric of pose estimation: one small record a prediction; rescoring, suppression and evaluation over all."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from vision.engine.errors import ConfigError, DataError
from vision.engine.task import Batch, Metric
from vision.pose.coco_eval import CROWDING, Evaluator, Found, Style, Truth, evaluate, evaluator_in_use
from vision.pose.errors_by_joint import KINDS, joint_errors
from vision.pose.oks import SURE, extent, oks_nms, rescored
from vision.pose.pckh import LEFT_OUT, PCKh, pckh
from vision.pose.records import Instance, PoseSet

ScoreRule = Literal["rescore", "given"]
_FIGURES = ("AP50", "AP75", "AR", "AR50", "AR75")


@dataclass(frozen=True)
class PoseRecord:
    """What scoring needs to know of one prediction; arrays as in :class:`~vision.pose.prediction.Poses`.

    Attributes:
        id: the sample's.
        image_id: the image's.
        keypoints: x, y in pixels of the image and score, float32, ``[P, K, 3]``.
        scores: of each pose, ``[P]``.
        boxes: left, top, width and height, ``[P, 4]``; ``[0, 4]`` where there are none.
        box_scores: ``[P]``, or ``[0]``.
    """

    id: str
    image_id: int
    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    box_scores: NDArray[np.float32]


class PoseMetric(Metric):
    """Average precision and recall of poses by object keypoint similarity; of MPII, PCKh.

    Calling this class gives the metric of ``style``: itself, :class:`CrowdPoseMetric` or :class:`PCKhMetric`.

    Args:
        ground_truth: the data set that is judged, with all its images.
        nms: OKS above which the less sure of two poses of an image is left out; None keeps all.
        score_rule: ``rescore`` takes box score times the mean of the joint scores above 0.2 for the score of a pose;
            ``given`` takes that of the prediction.
        style: ``coco``, also for OCHuman and AP-10K, ``crowdpose`` or ``pckh``; by default that of the data set the
            skeleton is named after.
        evaluator: as :func:`vision.pose.coco_eval.evaluate`; which one was used stands in the tables.

    Raises:
        ConfigError: an unknown style or score rule, or an ``nms`` outside [0, 1].
        DataError: ``pckh`` for people whose head size is not known.
    """

    primary: ClassVar[str] = "AP"
    others: ClassVar[Mapping[str, str]] = dict.fromkeys((*_FIGURES, "APM", "APL", "ARM", "ARL"), "max")
    style: ClassVar[Style] = "coco"

    def __new__(cls, ground_truth: PoseSet, *_: Any, style: str | None = None, **__: Any) -> "PoseMetric":
        named = style or {"crowdpose": "crowdpose", "mpii": "pckh"}.get(ground_truth.skeleton.name, "coco")
        if named not in STYLES:
            raise ConfigError(f"style: got '{style}', expected one of {', '.join(STYLES)}")
        return super().__new__(STYLES[named] if cls is PoseMetric else cls)

    def __init__(
        self,
        ground_truth: PoseSet,
        nms: float | None = 0.9,
        score_rule: ScoreRule = "rescore",
        *,
        style: Literal["coco", "crowdpose", "pckh"] | None = None,
        evaluator: Evaluator = "auto",
    ) -> None:
        super().__init__()
        if nms is not None and not 0 <= nms <= 1:
            raise ConfigError(f"nms: got {nms}, expected an OKS in [0, 1], or null to keep all poses")
        if score_rule not in ("rescore", "given"):
            raise ConfigError(f"score_rule: got '{score_rule}', expected 'rescore' or 'given'")
        self.ground_truth, self.skeleton = ground_truth, ground_truth.skeleton
        self.nms, self.score_rule, self.evaluator = nms, score_rule, evaluator

    def measure(self, prediction: Any, batch: Batch, position: int) -> PoseRecord:
        keypoints = np.asarray(prediction.keypoints, dtype=np.float32)
        if keypoints.shape[1:] != (self.skeleton.count, 3):
            raise DataError(
                f"{prediction.id}: poses of shape {list(keypoints.shape)}, expected "
                f"{[len(keypoints), self.skeleton.count, 3]} for the skeleton '{self.skeleton.name}'"
            )
        if not (np.isfinite(keypoints).all() and np.isfinite(prediction.scores).all()):
            raise DataError(f"{prediction.id}: its poses hold numbers that are not finite; its network is broken")
        if self.score_rule == "rescore" and len(prediction.box_scores) != len(keypoints):
            raise DataError(f"{prediction.id}: its poses come without box scores; set score_rule to 'given'")
        return PoseRecord(
            prediction.id, int(prediction.image_id), keypoints,
            *(np.asarray(getattr(prediction, name), dtype=np.float32) for name in ("scores", "boxes", "box_scores")),
        )  # fmt: skip

    @cached_property
    def truth(self) -> Truth:
        """The ground truth as arrays."""
        return Truth.from_coco(self.ground_truth.to_coco())

    def found(self, records: list[PoseRecord]) -> Found:
        """The poses of all records that count, with the scores they are ranked by."""
        keypoints = np.concatenate([np.zeros((0, self.skeleton.count, 3)), *(r.keypoints for r in records)])
        images = np.repeat(np.array([r.image_id for r in records], np.int64), [len(r.keypoints) for r in records])
        scores = np.concatenate([np.zeros(0), *(self._scores(r) for r in records)])
        found = Found.of(images, keypoints, scores)
        if self.nms is None:
            return found
        areas = np.concatenate([np.zeros(0), *(_areas(r) for r in records)])
        kept = [
            rows[oks_nms(found.keypoints[rows], scores[rows], areas[rows], self.skeleton.sigmas, self.nms)]
            for rows in found.rows.values()
        ]
        rows = np.sort(np.concatenate([np.zeros(0, dtype=np.intp), *kept]))
        return Found(images[rows], found.keypoints[rows], scores[rows], found.areas[rows])

    def _scores(self, record: PoseRecord) -> NDArray[np.floating]:
        if self.score_rule == "given":
            return record.scores
        return rescored(record.box_scores, record.keypoints[..., 2])

    def score(self, records: list[PoseRecord]) -> dict[str, float]:
        """``AP``, ``AP50``, ``AR`` and the others; what is undefined, since nobody of that size is there, is left out.

        Raises:
            DataError: nobody with a labelled joint is annotated, or as :func:`vision.pose.coco_eval.evaluate`.
        """
        figures = evaluate(self.truth, self.found(records), self.skeleton.sigmas, self.style, self.evaluator)
        if "AP" not in figures:
            raise DataError(f"{self.ground_truth.source}: nobody has a labelled joint, so that AP is not defined")
        return figures

    def tables(self, records: list[PoseRecord]) -> dict[str, Any]:
        """How it was scored, and the kinds of errors at each joint."""
        found = self.found(records)
        total = sum(len(r.keypoints) for r in records)
        rule = f"box score x mean of the joint scores above {SURE}" if self.score_rule == "rescore" else "as predicted"
        dropped = "not used" if self.nms is None else f"{total - len(found.image)} (above {self.nms})"
        rows = [
            ["evaluated by", evaluator_in_use(self.evaluator)],
            ["images", str(len(self.truth.images))],
            ["people with labelled joints", str(len(self.ground_truth.people))],
            ["score of a pose", rule],
            ["poses", str(total)],
            ["left out by OKS-NMS", dropped],
        ]
        return {"scoring": _table("Scoring", ["what", "value"], rows), "errors_by_joint": self._errors(found)}

    def _errors(self, found: Found) -> dict[str, Any]:
        errors = joint_errors(self.truth, found, self.skeleton.sigmas, self.skeleton.flip_index)
        names = [*self.skeleton.joints, "all"]
        counts = np.concatenate([errors.counts, errors.counts.sum(0, keepdims=True)])
        similarity = np.append(errors.similarity, errors.similarity.sum())
        rows: list[list[Any]] = []
        for name, each, alike in zip(names, counts, similarity, strict=True):
            labelled = int(each.sum())
            shares = [float(value) / labelled if labelled else None for value in (alike, *each)]
            rows.append([name, labelled, *shares])
        title = f"Joints of the {errors.found} of {errors.people} people that a pose was matched to, shares"
        return _table(title, ["joint", "labelled", "similarity", *KINDS], rows)


class CrowdPoseMetric(PoseMetric):
    """CrowdPose's figures: areas are 0.53 of the box, and images are told by their crowding."""

    others: ClassVar[Mapping[str, str]] = dict.fromkeys((*_FIGURES, *(f"AP_{level}" for level in CROWDING)), "max")
    style: ClassVar[Style] = "crowdpose"

    @cached_property
    def truth(self) -> Truth:
        document = self.ground_truth.to_coco()
        for person in document["annotations"]:
            del person["area"]  # the share of the box stands in for it
        return Truth.from_coco(document)


class PCKhMetric(PoseMetric):
    """PCKh of people in their true boxes: the share of joints within half, and a tenth, of the head's size."""

    primary: ClassVar[str] = "PCKh"
    others: ClassVar[Mapping[str, str]] = {"PCKh@0.1": "max"}

    def __init__(self, ground_truth: PoseSet, *arguments: Any, **options: Any) -> None:
        super().__init__(ground_truth, *arguments, **options)
        headless = [person for person in ground_truth.people if not person.extra.get("head", 0) > 0]
        if headless:
            raise DataError(
                f"{ground_truth.source}: {len(headless)} of {len(ground_truth.people)} people have no head size, which "
                "PCKh needs; of MPII's JSON files, only valid.json with gt_valid.mat beside it tells it"
            )

    def _judged(self, records: list[PoseRecord]) -> PCKh:
        people = {f"{person.image_id}/{person.id}": person for person in self.ground_truth.people}
        strangers = [r.id for r in records if not _in_true_box(r, people.get(r.id))]
        if strangers or len(records) != len(people):
            raise DataError(
                f"{len(records) - len(strangers)} of {len(people)} people were predicted in their true box, and "
                f"{len(strangers)} boxes are others{f', such as {strangers[0]}' if strangers else ''}; PCKh is defined "
                "for each person in the true box: set data.boxes: truth"
            )
        truth = np.array([people[r.id].keypoints for r in records], dtype=np.float64)
        heads = np.array([people[r.id].extra["head"] for r in records], dtype=np.float64)
        return pckh(np.concatenate([r.keypoints for r in records])[..., :2], truth, heads, self.skeleton.joints)

    def score(self, records: list[PoseRecord]) -> dict[str, float]:
        """``PCKh`` (at half of the head's size) and ``PCKh@0.1``, in [0, 1].

        Raises:
            DataError: a person without exactly one prediction in the true box, or as :func:`vision.pose.pckh.pckh`.
        """
        mean = self._judged(records).mean.tolist()
        return dict(zip(("PCKh", "PCKh@0.1"), mean, strict=True))

    def tables(self, records: list[PoseRecord]) -> dict[str, Any]:
        """PCKh of each joint."""
        judged = self._judged(records)
        rows = [
            [name, int(count), *(None if np.isnan(share) else float(share) for share in shares)]
            for name, count, shares in zip(self.skeleton.joints, judged.labelled, judged.by_joint.T, strict=True)
        ]
        left_out = " and ".join(name for name in self.skeleton.joints if name in LEFT_OUT)
        title = "PCKh by joint" + (f"; the mean leaves out {left_out}" if left_out else "")
        return {"pckh_by_joint": _table(title, ["joint", "labelled", "PCKh", "PCKh@0.1"], rows)}


STYLES: dict[str, type[PoseMetric]] = {"coco": PoseMetric, "crowdpose": CrowdPoseMetric, "pckh": PCKhMetric}
"""The metrics by style."""


def _areas(record: PoseRecord) -> NDArray[np.floating]:
    """The sizes of poses that suppression compares by: of their boxes, else of the extent of their joints."""
    if len(record.boxes) == len(record.keypoints):
        return record.boxes[:, 2] * record.boxes[:, 3]
    return extent(record.keypoints)


def _in_true_box(record: PoseRecord, person: Instance | None) -> bool:
    return person is not None and record.boxes.shape == (1, 4) and np.allclose(record.boxes[0], person.box, atol=0.01)


def _table(title: str, columns: list[str], rows: list[list[Any]]) -> dict[str, Any]:
    return {"type": "bins", "title": title, "columns": columns, "rows": rows}
