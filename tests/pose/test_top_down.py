"""The top-down task: training and flip test against their definitions, and what it says to a user."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.contract.cases import people
from vision.engine.errors import ConfigError, DataError
from vision.engine.registry import build
from vision.engine.seeding import seed_generators
from vision.engine.task import StepContext
from vision.pose.crops import to_image
from vision.pose.samples import PEOPLE, sample_people
from vision.pose.top_down import TopDown

predicted = torch.no_grad()(TopDown.predict)
BEGIN = StepContext(0, 10, 0)
SIZE = (32, 48)


class Told(nn.Module):
    """Answers with what it is given beforehand, batch after batch."""

    def __init__(self, *answers: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.answers, self.seen = list(answers), []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return self.answers.pop(0) * self.scale


def task(network: nn.Module | None = None, **options: Any) -> TopDown:
    torch.manual_seed(0)
    data = build(people(), "data")
    block = {"type": "mamkpd_t", "input_size": list(SIZE), "drop_path": 0.0}
    return TopDown(data, network if network is not None else build(block, "network"), **options)


def batch_of(made: TopDown, count: int = 3, split: str = "val") -> dict[str, Any]:
    dataset = getattr(made, f"{split}_data")()
    samples = []
    for index in range(count):
        seed_generators(index)
        samples.append(dataset[index])
    return made.collate(samples)


def test_the_loss_is_the_weighted_mean_square_of_heatmaps() -> None:
    made = task(Told(torch.zeros(3, 17, 12, 8)), codec={"type": "udp_heatmap", "sigma": 1.0})
    batch = batch_of(made)
    (losses,) = made.training_step(batch, BEGIN)
    grid = torch.stack(torch.meshgrid(torch.arange(12.0), torch.arange(8.0), indexing="ij")[::-1], -1)
    total = 0.0
    for joints, visible in zip(batch["keypoints"], batch["visible"], strict=True):
        for joint, labelled in zip(joints, visible, strict=True):
            place = joint * torch.tensor([7 / 31, 11 / 47])
            distance = ((grid - place) ** 2).sum(-1)
            near = ((grid - (place + 0.5).floor()).abs() <= 3).all(-1)
            total += float((torch.exp(-distance / 2) * near * (labelled > 0)).square().sum())
    assert float(losses["udp_heatmap"].detach()) == pytest.approx(total / (3 * 17 * 12 * 8), rel=1e-4)


def test_the_perfect_answer_gives_the_annotated_joints_back() -> None:
    made = task(flip_test=False)
    batch = batch_of(made)
    perfect = made.codec.encode(batch["keypoints"], batch["visible"])["heatmap"]
    made.network = Told(perfect)
    for prediction, truth in zip(predicted(made, batch), made.truths(batch), strict=True):
        seen = truth[0, :, 2] > 0
        inside = seen & (prediction.keypoints[0, :, 2] > 0.5)
        assert inside.sum() >= 15
        assert np.abs(prediction.keypoints[0, inside, :2] - truth[0, inside, :2]).max() < 0.3
        assert prediction.boxes.shape == (1, 4)
        assert prediction.scores[0] == pytest.approx(prediction.keypoints[0, inside, 2].mean(), abs=1e-3)


def test_the_flip_test_averages_with_the_mirrored_answer_of_the_mirrored_image() -> None:
    """Two answers of my own: the second is for the mirrored crop, so it is mirrored and its sides swapped first."""
    generator = torch.Generator().manual_seed(3)
    plain, mirrored = torch.rand(2, 17, 12, 8, generator=generator), torch.rand(2, 17, 12, 8, generator=generator)
    network = Told(plain, mirrored)
    made = task(network)
    batch = batch_of(made, 2)
    found = predicted(made, batch)
    assert torch.equal(network.seen[0], batch["image"])
    assert torch.equal(network.seen[1], batch["image"].flip(3))
    swapped = mirrored.clone()
    for left, right in made.skeleton.flip_pairs:
        a, b = made.skeleton.joints.index(left), made.skeleton.joints.index(right)
        swapped[:, [a, b]] = mirrored[:, [b, a]]
    joints, scores = made.codec.decode((plain + swapped.flip(3)) / 2)
    placed = to_image(joints, batch["center"], batch["scale"], SIZE)
    for i, prediction in enumerate(found):
        np.testing.assert_allclose(prediction.keypoints[0, :, :2], placed[i].numpy(), rtol=1e-5)
        np.testing.assert_allclose(prediction.keypoints[0, :, 2], scores[i].numpy(), rtol=1e-5)


@pytest.mark.parametrize("codec", ["udp_heatmap", "quarter_heatmap", "simcc"])
def test_with_the_flip_test_a_mirrored_crop_gives_mirrored_joints(codec: str) -> None:
    """Whatever the network is: its average over a crop and its mirror image cannot tell which is which."""
    block = {"type": "mamkpd_t", "input_size": list(SIZE), "decoder": "simcc" if codec == "simcc" else "deconv"}
    made = task(build(block, "network"), codec={"type": codec}).eval()
    batch = batch_of(made, 2)
    with torch.no_grad():
        output = [made.network(batch["image"]), made.network(batch["image"].flip(3))]
        flip = made.skeleton.flip_index
        first = made.codec.average([output[0], made.codec.flipped(output[1], flip)])
        second = made.codec.average([output[1], made.codec.flipped(output[0], flip)])
        (a, _), (b, _) = made.codec.decode(made.codec.flipped(first, flip)), made.codec.decode(second)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-2)


def test_a_batch_without_targets_is_told_and_not_only_trained_on(caplog: pytest.LogCaptureFixture) -> None:
    made = task(Told(torch.zeros(2, 17, 12, 8), torch.zeros(2, 17, 12, 8)))
    batch = batch_of(made, 2)
    with caplog.at_level(logging.WARNING):
        list(made.training_step(batch, BEGIN))
        assert caplog.text == ""
        batch["visible"] = torch.zeros_like(batch["visible"])
        (losses,) = made.training_step(batch, BEGIN)
    assert "update 1: nothing to learn from" in caplog.text
    assert batch["id"][0] in caplog.text
    assert float(losses["udp_heatmap"].detach()) == 0.0


def test_weight_decay_leaves_out_what_it_would_harm() -> None:
    made = task()
    decayed, plain = made.parameter_groups()
    assert "weight_decay" not in decayed
    assert plain["weight_decay"] == 0.0
    names = {id(p): name for name, p in made.network.named_parameters()}
    left_out = {names[id(p)] for p in plain["params"]}
    assert {name.rpartition(".")[2] for name in left_out} >= {"A_logs", "Ds", "dt_projs_bias", "bias"}
    assert all(p.ndim > 1 for p in decayed["params"])
    assert not any(names[id(p)].endswith(("bias", "A_logs", "Ds")) for p in decayed["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(names)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"keypoints": 16, "input_size": [32, 48]}, "keypoints 16, and the data has 17; set task.network.keypoints=17"),
        ({"input_size": [64, 64]}, r"for input_size \[64,64\], and the data has \[32,48\]"),
    ],
)  # fmt: skip
def test_a_network_that_does_not_fit_the_data(network: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        task(build({"type": "mamkpd_t", **network}, "network"))


def test_a_users_picture_is_one_person_or_one_a_box(tmp_path: Path) -> None:
    made = task().eval()
    path = tmp_path / "people12.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(path)
    (whole,) = made.read_inputs(str(path))
    assert whole["box"].tolist() == [0, 0, 90, 60]
    assert whole["scale"].tolist() == pytest.approx([112.5, 168.75])
    two = made.read_inputs(str(path), lambda picture, name: [((5, 6, 20, 30), 0.9), ((40, 2, 30, 30), 0.5)])
    assert [sample["id"] for sample in two] == [f"{path}/0", f"{path}/1"]
    assert two[0]["center"].tolist() == [15, 21]
    predictions = predicted(made, made.collate(two))
    assert [p.image_id for p in predictions] == [12, 12]
    whole_image = made.together(str(path), 12, predictions)
    assert whole_image.keypoints.shape == (2, 17, 3)
    assert whole_image.box_scores.tolist() == pytest.approx([0.9, 0.5])


def test_a_users_picture_is_turned_as_a_viewer_shows_it(tmp_path: Path) -> None:
    made = task()
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    (sample,) = made.read_inputs(str(tmp_path / "turned.jpg"))
    assert sample["box"].tolist() == [0, 0, 20, 40]
    assert made.pictures(made.collate([sample]))[0].shape == (40, 20, 3)


def test_a_picture_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a\.png: cannot be decoded"):
        task().read_inputs(str(tmp_path / "a.png"))


def test_the_samples_are_three_people_with_joints_inside_their_boxes() -> None:
    data = sample_people()
    truth = data.ground_truth("val")
    assert {image.path.name for image in truth.images.values()} == {
        "astronaut.jpg", "cameraman.jpg", "grace_hopper.jpg"
    }  # fmt: skip
    assert all(name.name in (PEOPLE / "README.md").read_text() for name in (PEOPLE / "images").iterdir())
    for person in truth.people:
        x, y, w, h = person.box
        seen = person.keypoints[person.keypoints[:, 2] > 0]
        assert len(seen) >= 7
        assert ((seen[:, 0] >= x) & (seen[:, 0] <= x + w) & (seen[:, 1] >= y) & (seen[:, 1] <= y + h)).all()
    assert not any(report.problems for report in data.reports.values())
