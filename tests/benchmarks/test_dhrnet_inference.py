"""The plain reading that DHRNet is timed against gives what DHRNet gives; its documents keep to the schema."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.collect import check
from benchmarks.dhrnet_inference import Ours, Plain, people_of
from vision.pose.dhrnet import DHRNet, People


@pytest.mark.parametrize("dual_path", [True, False])
def test_both_ways_give_the_same_heatmaps(dual_path: bool) -> None:
    torch.manual_seed(0)
    network = DHRNet(keypoints=5, backbone="hrnet_w18_small", channels=12, dual_path=dual_path)
    for module in (*network.gfd.modules(), network.iia.keypoint_center_conv):
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.inference_mode():
        network.double().train().features(images)
        plain = Plain(network.eval())
        people = People(torch.tensor([[3, 4], [9, 20], [15, 0]]), torch.tensor([0, 0, 1]), torch.ones(3))
        expected = plain.whole(images, people)
        found = Ours(network).whole(images, people)  # folds BatchNorm, so it comes last
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("dual_path", "count", "expected"),
    [
        (True, 1, 0.42), (True, 5, 1.14), (True, 10, 2.13), (True, 30, 7.14), (False, 1, 0.30), (False, 10, 0.69),
        (False, 30, 1.56),
    ],
)  # fmt: skip
def test_the_plain_reading_makes_the_multiply_adds_of_the_release(dual_path: bool, count: int, expected: float) -> None:
    """As counted on its own modules, W32 at 512x512 pixels, in units of 1e9: what is timed against is no straw man."""
    with torch.device("meta"):
        network, features = DHRNet(dual_path=dual_path).eval(), torch.randn(1, 480, 128, 128)
    people = people_of(count, torch.device("cpu"))
    with FlopCounterMode(display=False) as counter:
        heatmaps = Plain(network).people_part(features, people._replace(coords=people.coords.to("meta")))
    assert heatmaps.shape == (count, 17, 128, 128)
    assert counter.get_total_flops() / 2e9 == pytest.approx(expected, abs=0.005)


def test_people_have_places_of_their_own() -> None:
    people = people_of(30, torch.device("cpu"))
    assert len({tuple(cell) for cell in people.coords.tolist()}) == 30
    assert people.coords.min() >= 0 and people.coords.max() < 128


def test_a_document_of_its_form_keeps_to_the_schema() -> None:
    row = {"what": "a", "against": "b", "ours": 1.0, "theirs": 2.0, "ratio": 0.5, "aim": 0.77, "repeats": 3}
    error = {"what": "c", "value": 1e-6, "aim": 1e-4}
    machine = {"cpu": "x", "cores": 1, "gpus": []}
    about = {"command": "d", "better": "lower", "machine": machine, "commit": None, "date": None}
    check({"kind": "comparison", "title": "e", "unit": "ms", "rows": [row], "errors": [error], **about}, "f")
