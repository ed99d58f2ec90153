"""The plain reading that DHRNet is timed against gives what DHRNet gives; its documents keep to the schema."""

import torch
from torch import nn

from benchmarks.collect import check
from benchmarks.dhrnet_inference import Ours, Plain, people_of
from vision.pose.dhrnet import DHRNet, People


def test_both_ways_give_the_same_heatmaps() -> None:
    torch.manual_seed(0)
    network = DHRNet(keypoints=5, backbone="hrnet_w18_small", channels=12)
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
