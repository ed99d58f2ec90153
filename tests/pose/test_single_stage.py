"""The single-stage data and task: dots as an oracle of every map, poses from true heatmaps, and input that is bad."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from pycocotools import mask as rle

from tests.pose.stick_people import person, small_set, unlabelled, write_people
from vision.engine.errors import ConfigError, DataError
from vision.engine.registry import build
from vision.engine.seeding import seed_generators
from vision.engine.sync_batchnorm import convert_batchnorm
from vision.engine.task import StepContext
from vision.pose.dhrnet import Detections, DHRNet, People, Search
from vision.pose.records import Instance
from vision.pose.single_stage import SingleStagePose, people_of
from vision.pose.single_stage_data import SingleStageData, TrainingSquares, WholeImages, corners_of, ignored
from vision.pose.targets import box_radius, gaussians
from vision.pose.whole_images import SingleStageAugmentation

BEGIN = StepContext(step=0, total_steps=10, epoch=0)
STILL = SingleStageAugmentation(scale=(1, 1), rotation=0, translation=0, flip=0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("people"))


def data_of(root: Path, **options: Any) -> SingleStageData:
    return SingleStageData(root=str(root), val_split="val2017", **{"size": 128, **options})


def network_of(**options: Any) -> DHRNet:
    torch.manual_seed(0)
    return DHRNet(backbone="hrnet_w18_small", channels=16, output_size=32, **options)


def task_of(data: SingleStageData, **options: Any) -> SingleStagePose:
    return SingleStagePose(data, network_of(), **options)


def drawn(dataset: Any, index: int, seed: int) -> dict[str, Any]:
    seed_generators(seed)
    return dict(dataset[index])


# -- training squares ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_every_joint_lies_on_its_dot_however_the_square_is_turned(root: Path, flip: float) -> None:
    data = data_of(root, augmentation=SingleStageAugmentation(scale=(0.9, 1.6), flip=flip))
    dataset, seen = data.train(), 0
    flip_index = data.skeleton.flip_index
    for index in range(4):
        for seed in range(5):
            sample = drawn(dataset, index, seed)
            red = sample["image"][0] * 0.229 + 0.485
            green = (sample["image"][1] * 0.224 + 0.456) * 255
            for joints, labelled in zip(sample["joints"], sample["labelled"], strict=True):
                for k, (x, y) in enumerate((joints * 4).round().int().tolist()):
                    if not labelled[k] or not (8 <= x < 120 and 8 <= y < 120):
                        continue
                    window = (slice(y - 5, y + 6), slice(x - 5, x + 6))
                    assert red[window].max() > 0.8
                    expected = 90 + 9 * (flip_index[k] if flip else k)
                    bright = red[window] > 0.9
                    if bright.any():
                        seen += 1
                        assert (green[window][bright] - expected).abs().min() < 12
    assert seen > 100


def test_a_sample_has_what_the_task_needs(root: Path) -> None:
    sample = drawn(data_of(root, augmentation=STILL).train(), 0, 0)
    assert sample["id"] == "1"
    assert sample["image"].shape == (3, 128, 128) and sample["image"].dtype == torch.float32
    assert sample["mask"].shape == (1, 32, 32)
    assert sample["joints"].shape == (2, 17, 2) and sample["labelled"].shape == (2, 17)
    assert sample["labelled"][1].sum() == 15
    # the square is the middle 120 pixels of 160x120: 128 / 120 pixels a pixel, 20 of them cut off on the left
    torch.testing.assert_close(sample["joints"][0, 0], torch.tensor([(60 - 20) * 32 / 120, (60 - 36) * 32 / 120]))
    torch.testing.assert_close(sample["centres"][0], sample["joints"][0].mean(0))
    shown = sample["labelled"][1]
    torch.testing.assert_close(sample["centres"][1], sample["joints"][1][shown].mean(0))
    assert sample["centred"].tolist() == [True, True]
    assert sample["chosen"].tolist() == [1, 0]  # the smaller box first
    moved = sample["coords"].flip(1) - sample["centres"][sample["chosen"]].int()
    assert moved.abs().max() <= 1


@pytest.mark.parametrize("index", range(3))
def test_a_mirrored_square_is_the_mirror_of_the_square(index: int, root: Path) -> None:
    """Cell x becomes 31 - x, joints change sides, and whoever is masked is masked on the other side."""
    data = [data_of(root, augmentation=SingleStageAugmentation(flip=flip)) for flip in (0.0, 1.0)]
    swap = data[0].skeleton.flip_index
    for seed in range(3):
        plain, mirrored = (drawn(each.train(), index, seed) for each in data)
        torch.testing.assert_close(mirrored["image"], plain["image"].flip(-1))
        assert torch.equal(mirrored["mask"], plain["mask"].flip(-1))
        assert torch.equal(mirrored["labelled"], plain["labelled"][:, swap])
        expected = torch.stack((31 - plain["joints"][:, swap, 0], plain["joints"][:, swap, 1]), dim=2)
        shown = mirrored["labelled"]
        torch.testing.assert_close(mirrored["joints"][shown], expected[shown], rtol=0.0, atol=1e-4)
        centres = torch.stack((31 - plain["centres"][:, 0], plain["centres"][:, 1]), dim=1)
        torch.testing.assert_close(mirrored["centres"], centres, rtol=0.0, atol=1e-4)
        everyone = data[0].ground_truth("train").instances[index + 1]
        people = [each for each in everyone if each.labelled]
        for someone, joints, radius in zip(people, plain["joints"], mirrored["radius"], strict=True):
            corners = mapped_as(someone.keypoints[:, :2], joints.numpy(), corners_of(someone))
            corners[:, 0] = 31 - corners[:, 0]
            assert radius == box_radius(corners[[1, 0, 3, 2]], 32), "its first corner is the mirrored top left"


def mapped_as(before: Any, after: Any, points: Any) -> Any:
    """Points taken through the affine map that takes ``before`` to ``after``."""
    fit, *_ = np.linalg.lstsq(np.column_stack([before, np.ones(len(before))]), after, rcond=None)
    return np.column_stack([points, np.ones(len(points))]) @ fit


def test_small_people_have_no_centre_but_for_crowdpose(root: Path) -> None:
    big, small = data_of(root, augmentation=STILL), data_of(root, augmentation=STILL, smallest_area=5200.0)
    boxes = [56.0 * 88, 42.0 * 66]
    assert all(box * (128 / 120) ** 2 > 1024 for box in boxes)
    assert boxes[0] < 5200 < boxes[0] * (128 / 120) ** 2, "areas are those in the square"
    assert drawn(big.train(), 0, 0)["centred"].tolist() == [True, True]
    sample = drawn(small.train(), 0, 0)
    assert sample["centred"].tolist() == [True, False]
    assert sample["chosen"].tolist() == [0]
    assert sample["joints"].shape[0] == 2  # whose joints are still learnt


def test_samples_follow_from_the_generators_alone(root: Path) -> None:
    dataset = data_of(root).train()
    first, again, other = (drawn(dataset, 0, seed) for seed in (3, 3, 4))
    assert all(torch.equal(first[k], again[k]) for k in first if k != "id")
    assert not torch.equal(first["image"], other["image"])


def test_people_without_labels_are_masked_out(root: Path) -> None:
    sample = drawn(data_of(root, augmentation=STILL).train(), 2, 0)
    mask = sample["mask"][0].bool()
    expected = torch.ones(120, 160, dtype=torch.bool)
    expected[20:100, 90:140] = False
    middle = expected[2::4, 22:140:4][:30, :30]  # about the cell's middles
    assert (mask[:30, :30] == middle).float().mean() > 0.9
    assert not mask[10, 22] and mask[10, 5]


def test_crowds_polygons_and_boxes_are_masked_alike() -> None:
    box, whole = (10.0, 5.0, 20.0, 12.0), np.zeros((40, 50), dtype=np.uint8)
    whole[5:17, 10:30] = 1
    corners = [10, 5, 30, 5, 30, 17, 10, 17]
    compressed = rle.encode(np.asfortranarray(whole))
    changes = np.flatnonzero(np.diff(np.concatenate([[0], whole.T.ravel(), [0]]))).tolist()
    plain = {"size": [40, 50], "counts": np.diff([0, *changes, whole.size]).tolist()}
    unlabelled_person = np.zeros((17, 3), dtype=np.float32)
    for crowd, outline in (
        (True, compressed),
        (True, plain),
        (False, [corners]),
        (False, [[1, 2], corners]),
        (False, None),
    ):
        extra = {"segmentation": outline} if outline is not None else {}
        found = ignored([Instance(1, 1, box, unlabelled_person, 240.0, crowd, extra)], 50, 40)
        assert (found == whole.astype(bool)).all(), outline
    labelled = np.full((17, 3), 2, dtype=np.float32)
    assert not ignored([Instance(1, 1, box, labelled, 240.0)], 50, 40).any()


def test_a_batch_of_people_keeps_to_its_images(root: Path) -> None:
    data = data_of(root, augmentation=STILL)
    task = task_of(data)
    samples = [drawn(data.train(), index, 0) for index in (1, 0, 2)]
    found = people_of(task.collate(samples))
    assert found.image.tolist() == [0, 1, 1, 2]
    assert found.chosen.tolist() == [0, 2, 1, 3]
    assert found.count == 3
    assert torch.equal(found.coords, torch.cat([s["coords"] for s in samples]))


# -- the task --------------------------------------------------------------------------------------------------------


def test_a_training_step_yields_the_weighted_losses(root: Path) -> None:
    data = data_of(root)
    task, other = task_of(data), task_of(data, loss_weights=(2.0, 0.5, 1.0))
    batch = task.collate([drawn(data.train(), index, 0) for index in range(4)])
    (losses,), (weighted,) = (list(t.eval().training_step(batch, BEGIN)) for t in (task, other))
    assert list(losses) == ["everyone", "contrast", "people"]
    for name, factor in (("everyone", 2), ("contrast", 0.5), ("people", 0.25)):
        torch.testing.assert_close(weighted[name], losses[name] * factor)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in task.parameters())


class Oracle(DHRNet):
    """Knows the true joints: its heatmaps are peaks where they are."""

    def __init__(self, task: SingleStagePose, dataset: WholeImages) -> None:
        torch.nn.Module.__init__(self)
        self.keypoints, self.search, self.dataset = 17, Search(), dataset

    def detect(self, images: torch.Tensor, flip_index: list[int] | None = None) -> Detections:
        maps, owner = [], []
        height, width = images.shape[-2] // 4, images.shape[-1] // 4
        for place, image in enumerate(images):
            people, matrix = next(
                (sample["keypoints"], view["matrix"])
                for sample in self.dataset
                for view in (sample, *sample["more"])
                if view["image"].shape == image.shape and torch.equal(view["image"], image)
            )
            for joints in people:
                placed = joints[:, :2].double() @ matrix[:, :2].T + matrix[:, 2]
                cells = (placed - 2) / 4
                near = cells.round()
                radius = torch.full((17,), 3)
                peaks = gaussians(near, radius, torch.ones(17, dtype=torch.bool), (height, width))
                lean = (cells - near).sign() * 0.5  # tells the side that the true place is on
                peaks += 0.1 * gaussians(near + lean * 2, radius, torch.ones(17, dtype=torch.bool), (height, width))
                maps.append(peaks)
                owner.append(place)
        people = People(torch.zeros(len(owner), 2).long(), torch.tensor(owner).long(), torch.full((len(owner),), 0.9))
        return Detections(torch.stack(maps) if maps else torch.zeros(0, 17, height, width), people)


def score_of(task: SingleStagePose, dataset: WholeImages, size: int = 2) -> dict[str, float]:
    metric = task.metric_for(dataset)
    for start in range(0, len(dataset), size):
        batch = task.collate([dataset[i] for i in range(start, min(start + size, len(dataset)))])
        metric.update(task.predict(batch), batch)
    return metric.compute()


def test_true_heatmaps_come_back_as_the_true_poses(root: Path) -> None:
    data = data_of(root, size=256)
    task, dataset = task_of(data), data.val()
    assert isinstance(dataset, WholeImages)
    task.network = Oracle(task, dataset)
    figures = score_of(task, dataset)
    assert figures["AP"] > 0.97
    assert figures["AR"] > 0.97


@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_poses_of_another_scale_lie_where_those_of_the_first_do(root: Path, scale: float) -> None:
    """Alone they are the true ones; beside the others, those alike are told once."""
    data = data_of(root, size=256, test_scales=(scale,))
    dataset = data.val()
    assert isinstance(dataset, WholeImages)
    assert {s["image"].shape for s in dataset}.isdisjoint(s["more"][0]["image"].shape for s in dataset)
    task = task_of(data, nms=0.5)
    task.network = oracle = Oracle(task, dataset)
    both = score_of(task, dataset)
    batch = task.collate([dataset[i] for i in range(3)])
    assert [len(p.scores) for p in task.predict(batch)] == [2, 1, 0]
    known, shapes = oracle.detect, {s["image"].shape for s in dataset}
    oracle.detect = lambda images, flip=None: known(images[: 0 if images[0].shape in shapes else None], flip)  # type: ignore[method-assign]
    alone = score_of(task, dataset)
    assert both["AP"] > 0.9 and alone["AP"] > 0.9


def test_poses_that_are_alike_are_told_once(root: Path) -> None:
    task = task_of(data_of(root))
    joints = np.random.default_rng(0).uniform(0, 100, (1, 17, 3)).astype(np.float32)
    parts = [(joints, np.array([0.5], np.float32)), (joints + 1, np.array([0.7], np.float32))]
    assert task._poses("a", 1, parts).scores.tolist() == pytest.approx([0.7])
    task.nms = None
    assert task._poses("a", 1, parts).scores.tolist() == pytest.approx([0.5, 0.7])


def test_images_of_any_sizes_in_one_batch_are_predicted_as_alone(root: Path) -> None:
    data = data_of(root)
    task, dataset = task_of(data), data.val()
    generator = torch.Generator().manual_seed(0)
    for p in (*task.network.gfd.parameters(), *task.network.iia.parameters()):
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=p[0].numel() ** -0.5, generator=generator)
        else:
            torch.nn.init.zeros_(p)
    for norm in task.network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():  # statistics that keep features in range
        task.train().network.features(torch.stack([dataset[i]["image"] for i in (0, 2)]))
    task.double().eval()
    samples = [{**dataset[i], "image": dataset[i]["image"].double()} for i in range(3)]
    with torch.no_grad():
        together = task.predict(task.collate(samples))
        alone = [task.predict(task.collate([sample]))[0] for sample in samples]
    assert sum(len(p.scores) for p in together) > 3
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a.keypoints, b.keypoints, atol=1e-4)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-6)


def test_a_users_photograph_is_looked_at_whole(root: Path) -> None:
    task = task_of(data_of(root))
    file = root / "images" / "val2017" / "000000000011.png"
    batch = task.collate(task.read_inputs(str(file)))
    with torch.no_grad():
        found = task.together(str(file), 11, task.eval().predict(batch))
    assert found.image_id == 11
    assert np.array_equal(task.pictures(batch)[0], np.asarray(Image.open(file)))
    with pytest.raises(ConfigError, match="boxes"):
        task.read_inputs(str(file), lambda picture, name: [])


def test_a_small_batch_is_warned_of_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = data_of(root)
    task = task_of(data).train()
    batch = task.collate([drawn(data.train(), index, 0) for index in range(4)])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            list(task.training_step(batch, BEGIN))
    assert caplog.text.count("BatchNorm sees 4 images at a time, fewer than 8") == 1


@pytest.mark.parametrize(
    ("images", "synchronised", "processes", "seen"),
    [(7, False, 1, 7), (8, False, 1, None), (4, False, 4, 4), (4, True, 2, None), (3, True, 2, 6), (4, True, 1, 4)],
)
def test_the_warning_counts_the_images_that_batchnorm_sees(
    images: int, synchronised: bool, processes: int, seen: int | None, root: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    data = data_of(root)
    task = task_of(data).train()
    if synchronised:
        convert_batchnorm(task.network)
    monkeypatch.setattr(dist, "is_initialized", lambda: processes > 1)
    monkeypatch.setattr(dist, "get_world_size", lambda: processes)
    batch = task.collate([drawn(data.train(), index % 4, 0) for index in range(images)])
    with caplog.at_level(logging.WARNING):
        task._look_at(batch, people_of(batch), BEGIN)
    said = [r.getMessage() for r in caplog.records]
    assert [f"BatchNorm sees {seen} images at a time" in text for text in said] == [True] * (seen is not None)


def test_norms_that_stand_still_are_not_warned_of(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = data_of(root)
    task = task_of(data).eval()
    batch = task.collate([drawn(data.train(), 0, 0)])
    with caplog.at_level(logging.WARNING):
        task._look_at(batch, people_of(batch), BEGIN)
    assert "BatchNorm" not in caplog.text


def test_options_that_do_not_fit_are_refused(root: Path) -> None:
    data = data_of(root)
    with pytest.raises(ConfigError, match=r"task\.network\.keypoints=17"):
        SingleStagePose(data, network_of(keypoints=14))
    with pytest.raises(ConfigError, match="expected dhrnet or cid, got Linear"):
        SingleStagePose(data, torch.nn.Linear(1, 1))
    with pytest.raises(ConfigError, match=r"task\.nms"):
        task_of(data, nms=2.0)
    with pytest.raises(ConfigError, match=r"task\.max_people"):
        task_of(data, max_people=0)
    with pytest.raises(ConfigError, match="mpii"):
        SingleStageData(root="x", layout="mpii")
    with pytest.raises(ConfigError, match="multiple of 32"):
        build({"type": "pose_images", "root": "x", "size": 100}, "data")


# -- bad input -------------------------------------------------------------------------------------------------------


def odd_set(folder: Path) -> Path:
    crowd = {"iscrowd": 1, "segmentation": {"size": [120, 160], "counts": [0, 160 * 120]}}
    train = [
        ((160, 120), [person(1, 1, 60, 60, 4)]),
        ((160, 120), []),
        ((160, 120), [unlabelled(2, 2, [10, 10, 80, 80])]),
        ((160, 120), [unlabelled(3, 3, [0, 0, 160, 120], **crowd)]),
        ((160, 120), [person(100 + i, 4, 20 + 8 * i, 60, 3.4) for i in range(16)]),
    ]
    return write_people(folder, {"train2017": train, "val2017": [((160, 120), [person(50, 50, 60, 60, 4)])]})


def test_images_without_anyone_labelled_are_not_trained_on(tmp_path: Path) -> None:
    """Nobody at all, nobody with a visible joint, and nothing but a crowd."""
    assert [int(key) for key in data_of(odd_set(tmp_path)).ground_truth("train").images] == [1, 4]


def test_images_that_nobody_is_labelled_in_are_judged_without_harm(tmp_path: Path) -> None:
    """Nobody, nobody visible, or a crowd alone: what is found there counts as COCO says, and nothing fails."""
    crowd = {"iscrowd": 1, "segmentation": {"size": [120, 160], "counts": [0, 160 * 120]}}
    val: list[tuple[tuple[int, int], list[dict[str, Any]]]] = [
        ((160, 120), [person(50, 50, 60, 60, 4)]),
        ((160, 120), []),
        ((160, 120), [unlabelled(51, 51, [10, 10, 80, 80])]),
        ((160, 120), [unlabelled(52, 52, [0, 0, 160, 120], **crowd)]),
    ]
    root = write_people(tmp_path, {"train2017": [((160, 120), [person(1, 1, 60, 60, 4)])], "val2017": val})
    data = data_of(root, size=256)
    task, dataset = task_of(data), data.val()
    assert isinstance(dataset, WholeImages) and len(dataset) == 4
    assert [len(sample["keypoints"]) for sample in dataset] == [1, 0, 0, 0]
    task.network = Oracle(task, dataset)
    assert score_of(task, dataset)["AP"] > 0.97
    task = task_of(data)  # fresh weights, whose threshold of 0 finds someone everywhere
    task.network.search = Search(most=3, threshold=0.0)
    with torch.no_grad():
        assert 0 <= score_of(task.eval(), dataset)["AP"] <= 1


def test_nobody_inside_the_square_trains_on_the_background_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_people(
        tmp_path,
        {
            "train2017": [((400, 120), [person(1, 1, 30, 60, 4)]), ((400, 120), [person(2, 2, 360, 60, 4)])],
            "val2017": [((160, 120), [person(50, 50, 60, 60, 4)])],
        },
    )
    data = data_of(root, augmentation=STILL)
    task = task_of(data).train()
    batch = task.collate([drawn(data.train(), index, 0) for index in range(2)])
    with caplog.at_level(logging.WARNING):
        (losses,) = task.training_step(batch, BEGIN)
    assert "nobody in the batch" in caplog.text
    assert all(torch.isfinite(value) for value in losses.values())
    assert losses["contrast"].item() == losses["people"].item() == 0
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for p in task.parameters())  # as several processes need it


def test_more_people_than_the_cap_are_trained_on_and_found(tmp_path: Path) -> None:
    data = data_of(odd_set(tmp_path), augmentation=STILL)
    task = task_of(data, max_people=5).train()
    batch = task.collate([drawn(data.train(), index, 0) for index in range(2)])
    assert len(people_of(batch).chosen) > 5
    seen: list[int] = []
    heatmaps = task.network.heatmaps
    task.network.heatmaps = lambda f, p, v=None: seen.append(len(p.image)) or heatmaps(f, p, v)  # type: ignore[method-assign,func-returns-value]
    list(task.training_step(batch, BEGIN))
    assert seen == [5]
    task.network.search = Search(most=3, threshold=0.0)
    sample = data.val()[0]
    with torch.no_grad():
        assert len(task.eval().predict(task.collate([sample]))[0].scores) <= 3


def test_an_image_smaller_than_the_stride_is_enlarged(tmp_path: Path) -> None:
    Image.fromarray(np.full((3, 2, 3), 200, np.uint8)).save(tmp_path / "tiny.png")
    task = task_of(data_of(small_set(tmp_path)))
    batch = task.collate([task.read_input(str(tmp_path / "tiny.png"))])
    assert batch["image"].shape == (1, 3, 192, 128)
    with torch.no_grad():
        assert np.isfinite(task.eval().predict(batch)[0].keypoints).all()


def test_an_image_that_is_too_long_is_refused_by_name(tmp_path: Path, root: Path) -> None:
    """Enlarged to the input's shorter side it would take gigabytes."""
    task = task_of(data_of(root))
    for size in ((99, 3), (3, 99)):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / "line.png")
        with pytest.raises(DataError, match=rf"line\.png: {size[1]}x{size[0]} pixels.*32 times"):
            task.read_input(str(tmp_path / "line.png"))
    Image.fromarray(np.zeros((2, 64, 3), np.uint8)).save(tmp_path / "line.png")
    assert task.read_input(str(tmp_path / "line.png"))["image"].shape == (3, 128, 64 * 64)


def test_a_broken_photograph_is_named(tmp_path: Path, root: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        task_of(data_of(root)).read_input(str(tmp_path / "broken.jpg"))


# -- real photographs ------------------------------------------------------------------------------------------------


def test_real_people_come_back_from_true_heatmaps(data_root: Path) -> None:
    data = SingleStageData(root=str(data_root / "coco_keypoints"), size=512, eval_images=8, look="none")
    dataset = data.test()
    assert isinstance(dataset, WholeImages)
    task = task_of(data)
    task.network = Oracle(task, dataset)
    assert score_of(task, dataset, 1)["AP"] > 0.9


def test_real_squares_hold_people(data_root: Path) -> None:
    data = SingleStageData(root=str(data_root / "coco_keypoints"), size=256, train_images=8, look="none")
    dataset = data.train()
    assert isinstance(dataset, TrainingSquares)
    samples = [drawn(dataset, index, 0) for index in range(len(dataset))]
    assert sum(len(s["chosen"]) for s in samples) >= 4
    assert all(int(c.min()) >= 0 and int(c.max()) < 64 for s in samples if len(c := s["coords"]))
    found = people_of(task_of(data).collate(samples))
    assert len(found.image) == sum(len(s["joints"]) for s in samples)


def test_crowdpose_is_read_from_either_folder_and_knows_no_smallest_person(tmp_path: Path) -> None:
    everyone = {
        "images": [{"id": 7, "file_name": "7.png", "width": 160, "height": 120, "crowdIndex": 0.3}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "bbox": [70, 50, 12, 20], "iscrowd": 0, "num_keypoints": 14,
             "keypoints": [75, 60, 2] * 14},
        ],
        "categories": [{"id": 1, "name": "person", "keypoints": [str(i) for i in range(14)], "skeleton": []}],
    }  # fmt: skip
    for folder in ("anno", "annotations"):
        root = tmp_path / folder
        (root / folder).mkdir(parents=True)
        (root / "images").mkdir()
        (root / folder / "crowdpose_train.json").write_text(json.dumps(everyone))
        Image.fromarray(np.zeros((120, 160, 3), np.uint8)).save(root / "images" / "7.png")
        data = SingleStageData(
            root=str(root), layout="crowdpose", train_splits=("train",), val_split="train", overfit=True, size=128,
            augmentation=STILL,
        )  # fmt: skip
        sample = drawn(data.train(), 0, 0)
        assert sample["centred"].tolist() == [True]
        assert sample["joints"].shape == (1, 14, 2)
