"""Targets and losses of single-stage networks against golden values, closed forms and a plain drawing loop."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.pose.golden_single_stage import fill, golden_images
from vision.pose.dhrnet import DHRNet, People, probability
from vision.pose.losses_single_stage import contrast_loss, focal_loss
from vision.pose.targets import (
    Annotated,
    box_radius,
    centres_of,
    chosen_people,
    encode,
    gaussian_radius,
    gaussians,
)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (10, 10, 2.7332005), (30, 20, 6.5812458), (50, 100, 18.3896268), (60, 40, 13.1624915), (127, 127, 34.7116467),
        (1, 1, 0.2733201),
    ],
)  # fmt: skip
def test_golden_radius(height: float, width: float, expected: float) -> None:
    assert gaussian_radius(height, width) == pytest.approx(expected, abs=6e-8)


BOX = np.array([[0, 0], [40, 0], [0, 60], [40, 60]], dtype=float)


def one_map(x: float, y: float, size: int = 128) -> Tensor:
    radius = torch.tensor(box_radius(BOX, size))
    return gaussians(torch.tensor([x, y], dtype=torch.float64), radius, torch.tensor(True), (size, size))


def test_golden_heatmaps() -> None:
    heatmap = one_map(10.9, 20.2)
    assert float(heatmap.sum()) == pytest.approx(125.50041, abs=2e-5)
    assert int((heatmap > 0).sum()) == 648
    expected = [0.905955, 0.975611, 1, 0.975611, 0.905955, 0.800737]
    assert heatmap[20, 8:14].tolist() == pytest.approx(expected, abs=1e-6)
    corner = one_map(0.5, 0.4)
    assert float(corner.sum()) == pytest.approx(37.51554, abs=1e-5)
    assert int((corner > 0).sum()) == 196
    assert not one_map(130, 5).any()
    assert not one_map(5, -1.0).any()


def drawn_by_hand(x: int, y: int, radius: int, size: int) -> Tensor:
    result = torch.zeros(size, size)
    sigma = (2 * radius + 1) / 6
    for row in range(max(y - radius, 0), min(y + radius + 1, size)):
        for column in range(max(x - radius, 0), min(x + radius + 1, size)):
            result[row, column] = math.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * sigma**2))
    return result


def test_gaussians_are_those_of_a_plain_loop() -> None:
    points = torch.tensor([[3.7, 4.2], [0.0, 11.9], [11.0, 0.3], [6.0, 6.0]])
    radius = torch.tensor([3, 0, 5, 30])
    found = gaussians(points, radius, torch.tensor([True] * 4), (12, 12))
    for heatmap, (x, y), r in zip(found, points.tolist(), radius.tolist(), strict=True):
        torch.testing.assert_close(heatmap, drawn_by_hand(int(x), int(y), r, 12))
        assert float(heatmap.max()) == 1.0  # exactly: that is how the loss knows a peak
    assert not gaussians(points, radius, torch.tensor([False] * 4), (12, 12)).any()


def test_a_turned_box_has_the_radius_of_its_sides() -> None:
    cos, sin = math.cos(0.5), math.sin(0.5)
    turned = (BOX - [20, 30]) @ np.array([[cos, sin], [-sin, cos]]) + 60
    assert box_radius(turned, 128) == box_radius(BOX + 30, 128) == int(gaussian_radius(60, 40))
    assert box_radius(BOX - 200, 128) == 0


def annotated(**changes: Tensor) -> Annotated:
    """Three people in two images, the second image's first."""
    fields = {
        "joints": torch.tensor([[[2.0, 3.0], [5.0, 5.0]], [[2.0, 3.0], [1.0, 1.0]], [[6.0, 6.0], [-4.0, 2.0]]]),
        "labelled": torch.tensor([[True, True], [True, False], [True, True]]),
        "radius": torch.tensor([2, 3, 1]),
        "centres": torch.tensor([[3.0, 4.0], [2.0, 3.0], [1.0, 4.0]]),
        "centred": torch.tensor([True, False, True]),
        "image": torch.tensor([1, 0, 1]),
        "chosen": torch.tensor([2, 0]),
        "coords": torch.tensor([[4, 1], [4, 3]]),
    }
    return Annotated(count=2, **{**fields, **changes})  # type: ignore[arg-type]


def test_a_batch_is_encoded_person_by_person_and_by_the_maximum() -> None:
    found = encode(annotated(), (8, 8))
    first = torch.maximum(drawn_by_hand(2, 3, 2, 8), drawn_by_hand(6, 6, 1, 8))
    torch.testing.assert_close(found.everyone[1, 0], first)
    torch.testing.assert_close(found.everyone[0, 0], drawn_by_hand(2, 3, 3, 8))
    assert not found.everyone[0, 1:].any()  # a joint that is not labelled, and someone without a centre
    torch.testing.assert_close(
        found.everyone[1, 2], torch.maximum(drawn_by_hand(3, 4, 2, 8), drawn_by_hand(1, 4, 1, 8))
    )
    torch.testing.assert_close(found.people[0, 0], drawn_by_hand(6, 6, 1, 8))
    assert not found.people[0, 1].any()  # labelled, but beyond the map: an empty target that counts
    assert found.weight.flatten(1).tolist() == [[1, 1], [1, 1]]
    assert found.image.tolist() == [1, 1]
    assert found.coords.tolist() == [[4, 1], [4, 3]]
    hidden = encode(annotated(chosen=torch.tensor([1, 0])), (8, 8))
    assert hidden.weight.flatten(1).tolist() == [[1, 0], [1, 1]]  # a joint that is not labelled does not count


def test_nobody_is_encoded_too() -> None:
    none = {
        name: getattr(annotated(), name)[:0]
        for name in ("joints", "labelled", "radius", "centres", "centred", "image", "chosen", "coords")
    }
    found = encode(annotated(**none), (8, 8))
    assert found.everyone.shape == (2, 3, 8, 8) and not found.everyone.any()
    assert found.people.shape == (0, 2, 8, 8)


def test_more_people_than_the_cap_are_drawn_at_random_in_order() -> None:
    many = annotated(chosen=torch.arange(3).repeat(100), coords=torch.arange(600).view(300, 2))
    torch.manual_seed(0)
    limited = many.limited(200)
    assert len(limited.chosen) == len(limited.coords) == 200
    assert (limited.coords[1:, 0] > limited.coords[:-1, 0]).all()
    assert torch.equal(limited.chosen, (limited.coords[:, 0] // 2) % 3)
    assert annotated().limited(2).chosen.tolist() == [2, 0]


def test_the_centre_is_the_mean_of_labelled_joints() -> None:
    joints = np.array([[[0.0, 0.0], [10.0, 4.0], [99.0, 99.0]], [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]])
    labelled = np.array([[True, True, False], [False, False, False]])
    assert centres_of(joints, labelled).tolist() == [[5.0, 2.0], [0.0, 0.0]]


def test_people_are_chosen_by_area_and_a_cell_is_taken_once() -> None:
    centres = np.array([[5.0, 5.0], [5.0, 5.0], [30.0, 2.0], [7.9, 0.2], [2.0, 2.0]])
    centred = np.array([True, True, True, True, False])
    areas = np.array([9.0, 1.0, 2.0, 5.0, 3.0])

    class Still:
        def integers(self, low: int, high: int, size: int) -> np.ndarray:
            return np.zeros(size, dtype=int)

    people, cells = chosen_people(centres, centred, areas, 8, Still())  # type: ignore[arg-type]
    assert people == [1, 3]
    assert cells == [(5, 5), (0, 7)]


def test_centres_move_by_one_cell_and_never_off_the_map() -> None:
    seen = set()
    for seed in range(200):
        people, cells = chosen_people(
            np.array([[0.0, 3.0]]), np.array([True]), np.array([1.0]), 8, np.random.default_rng(seed)
        )
        assert people == [0]
        seen |= set(cells)
    assert seen == {(row, column) for row in (2, 3, 4) for column in (0, 1)}


def test_a_centre_that_would_leave_the_map_moves_neither_way() -> None:
    class Moving:
        def integers(self, low: int, high: int, size: int) -> np.ndarray:
            assert (low, high, size) == (-1, 2, 2)
            return np.array([-1, 1])

    centres = np.array([[0.0, 3.0], [5.0, 7.0], [5.0, 3.0]])
    people, cells = chosen_people(centres, np.ones(3, dtype=bool), np.arange(3.0), 8, Moving())  # type: ignore[arg-type]
    assert people == [0, 1, 2]
    assert cells == [(3, 0), (7, 5), (4, 4)]


# -- losses ----------------------------------------------------------------------------------------------------------


def focal_inputs() -> tuple[Tensor, Tensor]:
    prediction = (0.5 + 0.4 * torch.sin(torch.arange(96, dtype=torch.float64))).view(2, 3, 4, 4)
    truth = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    truth[0, 0, 1, 1], truth[0, 0, 1, 2], truth[1, 2, 3, 3], truth[1, 1, 0, 0] = 1, 0.6, 1, 0.9
    return prediction, truth


def test_golden_focal_loss() -> None:
    prediction, truth = focal_inputs()
    mask = torch.ones(2, 1, 4, 4, dtype=torch.float64)
    mask[0, :, 2:] = 0
    assert float(focal_loss(prediction, truth)) == pytest.approx(24.21907032, abs=6e-9)
    assert float(focal_loss(prediction, truth, mask)) == pytest.approx(17.68772326, abs=6e-9)
    assert float(focal_loss(prediction, torch.zeros_like(truth))) == pytest.approx(49.23303478, abs=6e-9)


def test_masked_cells_have_no_gradient() -> None:
    prediction, truth = focal_inputs()
    mask = torch.ones(2, 1, 4, 4, dtype=torch.float64)
    mask[0, :, 2:] = 0
    prediction.requires_grad_()
    focal_loss(prediction, truth, mask).backward()
    assert prediction.grad is not None
    assert not prediction.grad[0, :, 2:].any()
    assert prediction.grad[1].all()


def test_golden_contrast() -> None:
    vectors = (1 + 0.5 * torch.sin(0.9 * torch.arange(24, dtype=torch.float64) ** 1.5)).view(4, 6)
    total = contrast_loss(vectors, torch.zeros(4, dtype=torch.int64)) * 4
    assert float(total) == pytest.approx(1.66660347, abs=6e-9)


def test_contrast_is_within_images_and_a_mean_over_people() -> None:
    torch.manual_seed(0)
    vectors, image = torch.randn(7, 5, dtype=torch.float64), torch.tensor([2, 0, 2, 1, 0, 2, 2])
    sums = sum(contrast_loss(vectors[image == i], image[image == i]) * int((image == i).sum()) for i in range(3))
    torch.testing.assert_close(contrast_loss(vectors, image), torch.as_tensor(sums) / 7)
    assert contrast_loss(vectors[:1], image[:1]) == 0


def test_contrast_of_nobody_is_zero_with_a_gradient() -> None:
    vectors = torch.zeros(0, 5, requires_grad=True)
    loss = contrast_loss(vectors, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert float(loss.detach()) == 0
    assert vectors.grad is not None


def test_golden_training_losses() -> None:
    """The whole forward pass of training: network, targets and all three losses."""
    network = fill(DHRNet())
    assert isinstance(network, DHRNet)
    coords, image = torch.tensor([[5, 7], [20, 11], [16, 16]]), torch.tensor([0, 0, 1])
    everyone = torch.zeros(2, 18, 32, 32, dtype=torch.float64)
    people = torch.zeros(3, 17, 32, 32, dtype=torch.float64)
    for k in range(17):
        everyone[:, k, k + 3, k + 5], everyone[:, k, k + 3, k + 6] = 1, 0.5
        for person, p in enumerate((0, 1, 0)):
            people[person, k, k + 3 + p, k + 5], people[person, k, k + 3 + p, k + 6] = 1, 0.5
    for (y, x), i in zip(coords.tolist(), image.tolist(), strict=True):
        everyone[i, 17, y, x], everyone[i, 17, y + 1, x] = 1, 0.6
    mask = torch.ones(2, 1, 32, 32, dtype=torch.float64)
    mask[0, :, 24:] = 0
    weight = torch.ones(3, 17, 1, 1, dtype=torch.float64)
    weight[0, 4] = 0
    with torch.no_grad():
        features = network.features(golden_images())
        found = People(coords, image, torch.ones(3))
        vectors = network.vectors(features, found)
        losses = [
            focal_loss(probability(network.maps(features)), everyone, mask),
            contrast_loss(vectors, image),
            focal_loss(probability(network.heatmaps(features, found, vectors)), people, weight),
        ]
    assert [float(value) for value in losses] == pytest.approx([153.86258991, 0.43939647, 178.63178197], abs=6e-9)
    assert float(losses[0] + losses[1] + 4 * losses[2]) == pytest.approx(868.82911426, abs=2e-8)
