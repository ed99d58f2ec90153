"""The metric from predictions to figures: rescoring, suppression, styles, and what it refuses."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vision.engine.errors import ConfigError, DataError
from vision.engine.registry import build
from vision.pose.annotations import ImageRecord, Instance, PoseSet, read_pose_set
from vision.pose.coco_eval import Found, Truth, evaluate
from vision.pose.crops import PADDING, crop_matrix, mapped, region, to_image
from vision.pose.keypoints import Skeleton, skeleton
from vision.pose.metrics import CrowdPoseMetric, PCKhMetric, PoseMetric
from vision.pose.prediction import Poses

THREE = Skeleton("three", ("left", "right", "tail"), (("left", "right"),), (), (0.05, 0.05, 0.1))


def people(figure: Skeleton = THREE, images: int = 4, **extra: Any) -> PoseSet:
    """Two people an image, 300 px apart; the last image is empty."""
    rng = np.random.default_rng(0)
    found = PoseSet(figure, {}, {}, Path("made.json"))
    for image in range(images):
        index = {"crowdIndex": (image + 0.5) / images}
        found.images[image] = ImageRecord(image, Path(f"{image}.jpg"), 640, 480, index)
        found.instances[image] = []
        for person in range(2 if image < images - 1 else 0):
            joints = np.full((figure.count, 3), 2, np.float32)
            joints[:, :2] = rng.uniform(0, 100, (figure.count, 2)) + 300 * person
            box = (300.0 * person, 300.0 * person, 100.0, 100.0)
            found.instances[image].append(Instance(2 * image + person, image, box, joints, 5000.0, False, dict(extra)))
    return found


def prediction(person: Instance, figure: Skeleton, shift: float = 0, sure: float = 0.8, box_score: float = 1) -> Poses:
    assert person.keypoints is not None
    joints = person.keypoints.copy()
    joints[:, 0] += shift
    joints[:, 2] = sure
    return Poses(
        f"{person.image_id}/{person.id}", person.image_id, joints[None], np.array([0.5], np.float32),
        np.array([person.box], np.float32), np.array([box_score], np.float32), figure,
    )  # fmt: skip


def fed(metric: PoseMetric, predictions: list[Poses]) -> PoseMetric:
    """As the engine does: in batches, some in another process."""
    other = type(metric)(metric.ground_truth, metric.nms, metric.score_rule)
    other.update(predictions[1::2], {})
    metric.update(predictions[::2], {})
    metric.merge(pickle.loads(pickle.dumps(other.records)))
    return metric


def test_perfect_answers() -> None:
    truth = people()
    metric = fed(PoseMetric(truth), [prediction(p, THREE) for p in truth.people])
    figures = metric.compute()
    assert figures == pytest.approx({**figures, "AP": 1, "AP50": 1, "AR": 1, "APM": 1})
    assert "APL" not in figures  # nobody is that large
    assert set(figures) <= {metric.primary, *metric.others}
    table = metric.tables(metric.ordered())["errors_by_joint"]
    assert table["columns"] == ["joint", "labelled", "similarity", "good", "jitter", "inversion", "swap", "miss"]
    assert table["rows"] == [
        [name, n, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0] for name, n in (("left", 6), ("right", 6), ("tail", 6), ("all", 18))
    ]
    scoring = dict(metric.tables(metric.ordered())["scoring"]["rows"])
    assert scoring["evaluated by"].startswith("faster-coco-eval")
    assert (scoring["images"], scoring["poses"]) == ("4", "6")


def test_order_and_batches_do_not_matter() -> None:
    truth = people()
    shifts = np.random.default_rng(1).uniform(0, 12, 6)
    answers = [prediction(p, THREE, s, 0.3 + s / 30) for p, s in zip(truth.people, shifts, strict=True)]
    one, two = fed(PoseMetric(truth), answers), fed(PoseMetric(truth), answers[::-1])
    assert one.compute() == two.compute()
    assert one.tables(one.ordered()) == two.tables(two.ordered())
    assert PoseMetric(truth, evaluator="pycocotools").score(one.ordered()) == pytest.approx(one.compute(), abs=1e-12)


def test_rescoring_and_suppression() -> None:
    """A worse copy of each pose: kept, it costs precision; suppressed or ranked low, it does not."""
    truth = people()
    good = [prediction(p, THREE, 0.0, 0.9, box_score=0.5) for p in truth.people]
    # Copies come first (0.63 against 0.45) and match up to an OKS of 0.77; to each other the two are alike to 0.88.
    copies = [prediction(p, THREE, 6.0, 0.7, box_score=0.9) for p in truth.people]
    for copy in copies:
        copy.id += "copy"
    figures = {nms: fed(PoseMetric(truth, nms=nms), good + copies).compute()["AP"] for nms in (None, 0.9, 0.5)}
    assert figures == pytest.approx({None: 0.8, 0.9: 0.8, 0.5: 0.6})
    for each in good + copies:
        each.scores[:] = 0.9 if each in good else 0.1
    given = {nms: fed(PoseMetric(truth, nms=nms, score_rule="given"), good + copies) for nms in (None, 0.5)}
    assert given[None].compute()["AP"] == pytest.approx(1)
    dropped = dict(given[0.5].tables(given[0.5].ordered())["scoring"]["rows"])["left out by OKS-NMS"]
    assert dropped == "6 (above 0.5)"


def test_scores_of_poses() -> None:
    truth = people()
    answer = prediction(truth.people[0], THREE, box_score=0.5)
    answer.keypoints[0, :, 2] = [0.9, 0.3, 0.2]
    metric = PoseMetric(truth)
    metric.update([answer], {})
    assert metric.found(metric.ordered()).scores == pytest.approx([0.5 * 0.6])
    given = PoseMetric(truth, score_rule="given")
    given.update([answer], {})
    assert given.found(given.ordered()).scores == pytest.approx([0.5])


def test_people_of_a_whole_image() -> None:
    """A single-stage prediction: several people, no boxes; suppression goes by the extent of the joints."""
    truth = people()
    answers = []
    for image, persons in truth.instances.items():
        parts = [prediction(p, THREE) for p in persons] * 2
        joined = Poses.joined(str(image), image, parts, THREE)
        joined.boxes, joined.box_scores = joined.boxes[:0], joined.box_scores[:0]
        answers.append(joined)
    with pytest.raises(DataError, match="its poses come without box scores"):
        fed(PoseMetric(truth), answers)
    metric = fed(PoseMetric(truth, nms=0.8, score_rule="given"), answers)
    assert len(metric.found(metric.ordered()).image) == 6
    assert metric.compute()["AP"] == pytest.approx(1)


def test_crowdpose() -> None:
    figure = skeleton("crowdpose")
    truth = people(figure)
    metric = PoseMetric(truth)
    assert isinstance(metric, CrowdPoseMetric) and metric.mode_of("AP_hard") == "max"
    answers = [prediction(p, figure, shift=200 * (p.image_id == 0)) for p in truth.people]
    figures = fed(metric, answers).compute()
    assert (figures["AP_easy"], figures["AP_medium"]) == pytest.approx((0, 1))  # indices .125, .375, .625
    assert "AP_hard" not in figures  # the image of .875 has nobody in it
    assert set(figures) <= {metric.primary, *metric.others}
    with pytest.raises(ConfigError, match="'APM'"):
        metric.mode_of("APM")


def test_pckh() -> None:
    figure = skeleton("mpii")
    truth = people(figure, head=20.0)
    metric = PoseMetric(truth)
    assert isinstance(metric, PCKhMetric)
    assert (metric.primary, metric.mode_of("PCKh@0.1")) == ("PCKh", "max")
    answers = [prediction(p, figure, shift=[0, 5, 10.1][p.id % 3]) for p in truth.people]
    figures = fed(metric, answers).compute()
    assert figures == pytest.approx({"PCKh": 4 / 6, "PCKh@0.1": 2 / 6})
    table = metric.tables(metric.ordered())["pckh_by_joint"]
    assert table["rows"][0] == ["right_ankle", 6, pytest.approx(4 / 6), pytest.approx(2 / 6)]
    assert table["title"] == "PCKh by joint; the mean leaves out pelvis and thorax"
    assert PoseMetric(truth, style="coco").primary == "AP"


def test_pckh_refuses() -> None:
    figure = skeleton("mpii")
    with pytest.raises(DataError, match=r"made.json: 6 of 6 people have no head size"):
        PoseMetric(people(figure))
    truth = people(figure, head=20.0)
    answers = [prediction(p, figure) for p in truth.people]
    with pytest.raises(DataError, match="5 of 6 people were predicted"):
        fed(PoseMetric(truth), answers[:5]).compute()
    answers[2].boxes = answers[2].boxes + 7
    with pytest.raises(DataError, match=r"set data\.boxes: truth"):
        fed(PoseMetric(truth), answers).compute()


def test_refused() -> None:
    truth = people()
    with pytest.raises(ConfigError, match=r"style: got 'mpii'"):
        PoseMetric(truth, style="mpii")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"nms: got 3"):
        PoseMetric(truth, nms=3)
    with pytest.raises(ConfigError, match=r"score_rule"):
        PoseMetric(truth, score_rule="best")  # type: ignore[arg-type]
    metric = PoseMetric(truth)
    answer = prediction(truth.people[0], THREE)
    answer.keypoints[0, 1, 0] = np.inf
    with pytest.raises(DataError, match="0/0: its poses hold numbers that are not finite"):
        metric.update([answer], {})
    with pytest.raises(DataError, match="expected \\[1, 3, 3\\] for the skeleton 'three'"):
        metric.update([prediction(people(skeleton("coco")).people[0], skeleton("coco"))], {})
    elsewhere = prediction(truth.people[0], THREE)
    elsewhere.image_id = 99
    metric.update([elsewhere], {})
    with pytest.raises(DataError, match="such as image 99"):
        metric.compute()
    empty = PoseSet(THREE, truth.images, {key: [] for key in truth.images}, truth.source)
    with pytest.raises(DataError, match=r"made\.json: nobody has a labelled joint"):
        PoseMetric(empty).compute()


@pytest.mark.data
def test_real_predictions_through_the_metric(data_root: Path) -> None:
    """Rows of a results file as predictions: the figures of the file, when nothing is suppressed."""
    folder = data_root / "golden_eval"
    expected = json.loads((folder / "expected.json").read_text())["mmpose_coco4"]
    document, rows = (json.loads((folder / expected[key]).read_text()) for key in ("gt", "dt"))
    figure = skeleton("coco")
    truth = PoseSet(figure, {}, {}, folder / expected["gt"])
    for image in document["images"]:
        truth.images[image["id"]] = ImageRecord(image["id"], Path(image["file_name"]), image["width"], image["height"])
        truth.instances[image["id"]] = []
    for row in document["annotations"]:
        joints = np.array(row["keypoints"], np.float32).reshape(17, 3)
        truth.instances[row["image_id"]].append(
            Instance(row["id"], row["image_id"], tuple(row["bbox"]), joints, row["area"], bool(row["iscrowd"]))
        )
    metric = PoseMetric(truth, nms=None, score_rule="given")
    for number, row in enumerate(rows):
        joints = np.array(row["keypoints"]).reshape(1, 17, 3)
        answer = Poses(
            f"{row['image_id']}/{number}", row["image_id"], joints, np.array([row["score"]]), np.zeros((0, 4)),
            np.zeros(0), figure,
        )  # fmt: skip
        metric.update([answer], {})
    figures = metric.compute()
    assert list(figures.values()) == pytest.approx(expected["pycocotools_2_0_11"], abs=1e-3)  # records are float32
    table = metric.tables(metric.ordered())["errors_by_joint"]
    assert table["rows"][-1][0] == "all" and table["rows"][-1][3] > 0.7


@pytest.mark.data
def test_true_joints_of_real_people(data_root: Path) -> None:
    """Everyone predicted where they are: AP 1, whatever crowds and unlabelled people are about."""
    truth = read_pose_set("coco", data_root / "coco_keypoints", "val2017")
    metric = PoseMetric(truth, nms=None)
    metric.update([prediction(p, truth.skeleton) for p in truth.people], {})
    figures = metric.compute()
    assert figures == pytest.approx(dict.fromkeys(figures, 1.0)) and len(figures) == 10
    there = Truth.from_coco(truth.to_coco())
    assert len(truth.people) == 422 and len(there.images) == 192
    assert evaluate(there, Found.from_rows([]), truth.skeleton.sigmas)["AP"] == 0


@pytest.mark.data
@pytest.mark.parametrize(("name", "least"), [("udp_heatmap", 0.999), ("simcc", 0.999), ("quarter_heatmap", 0.98)])
def test_from_boxes_through_the_codec_to_average_precision(data_root: Path, name: str, least: float) -> None:
    """Crops, targets, decoding, the way back and scoring agree: a network that is right scores near 1.

    Some annotated joints lie outside the padded true box, where no top-down network can find them; they are left out.
    """
    truth = read_pose_set("coco", data_root / "coco_keypoints", "val2017")
    codec, size = build({"type": name}, "codec", input_size=(192, 256)), (192, 256)
    for person in truth.people:
        inside = mapped(crop_matrix(*region(person.box, size, PADDING), size), person.keypoints[:, :2])
        person.keypoints[((inside < 0) | (inside > np.array(size) - 1)).any(-1)] = 0
    regions = [region(p.box, size, PADDING) for p in truth.people]
    joints = [
        mapped(crop_matrix(*each, size), p.keypoints[:, :2]) for each, p in zip(regions, truth.people, strict=True)
    ]
    centre, sides = (torch.from_numpy(np.stack(each)).float() for each in zip(*regions, strict=True))
    visible = torch.from_numpy(np.stack([p.keypoints[:, 2] for p in truth.people]))
    targets = codec.encode(torch.from_numpy(np.stack(joints)).float(), visible)
    decoded, scores = codec.decode(targets["heatmap"] if "heatmap" in targets else (targets["x"], targets["y"]))
    placed = torch.cat([to_image(decoded, centre, sides, size), scores[..., None]], -1).numpy()
    metric = PoseMetric(truth)
    for person, pose in zip(truth.people, placed, strict=True):
        answer = prediction(person, truth.skeleton)
        answer.keypoints = pose[None]
        metric.update([answer], {})
    assert metric.compute()["AP"] > least
