"""DHRNet in two halves for export: they are the network, in torch.export and in ONNX, for any number of people."""

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.pose.test_dhrnet import small
from vision.pose.dhrnet import ImageStage, PeopleStage
from vision.pose.peaks import find_centres
from vision.pose.relations import Attention


def test_the_two_halves_for_export_are_the_whole() -> None:
    network = small()
    image = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        whole = network.detect(image)
        features, centres, shared = ImageStage(network)(image)
        coords, _, scores = find_centres(centres)
        vectors = features[0, :, coords[:, 0], coords[:, 1]].T
        heatmaps = PeopleStage(network)(shared, vectors, coords)
    assert torch.equal(coords, whole.people.coords)
    assert torch.equal(scores, whole.people.scores)
    torch.testing.assert_close(heatmaps, whole.heatmaps)


@pytest.mark.slow
def test_the_first_half_is_exported() -> None:
    stage = ImageStage(small()).float()
    program = torch.export.export(stage, (torch.randn(1, 3, 64, 96),)).module()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(program(image), stage(image))


@pytest.mark.parametrize("attention", ["release", "keys"])
def test_the_second_half_is_exported_for_any_number_of_people(attention: Attention) -> None:
    stage = PeopleStage(small(attention)).float()
    example = (torch.randn(1, 12, 16, 24), torch.randn(3, 240), torch.randint(16, (3, 2)))
    people = torch.export.Dim("people", min=1, max=200)
    program = torch.export.export(stage, example, dynamic_shapes=({}, {0: people}, {0: people})).module()
    for n in (1, 2, 7):
        inputs = (torch.randn(1, 12, 16, 24), torch.randn(n, 240), torch.randint(16, (n, 2)))
        with torch.no_grad():
            torch.testing.assert_close(program(*inputs), stage(*inputs))


def model_of(stage: nn.Module, inputs: tuple[Tensor, ...], sizes: Any = None) -> Any:
    """The stage in ONNX, as a session that runs it; skips where the packages are missing."""
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name, reason=f"no {name}")
    runtime = pytest.importorskip("onnxruntime", reason="no onnxruntime")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about itself
        program = torch.onnx.export(stage, inputs, dynamo=True, opset_version=18, dynamic_shapes=sizes, verbose=False)
    assert program is not None
    return runtime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])


def ran(session: Any, *inputs: Tensor) -> list[Tensor]:
    named = zip(session.get_inputs(), inputs, strict=True)
    return [torch.from_numpy(t) for t in session.run(None, {slot.name: t.numpy() for slot, t in named})]


@pytest.mark.slow
def test_onnx_has_the_maps_that_the_network_has() -> None:
    exact = small().double()
    with torch.no_grad():
        exact.train().features(torch.randn(4, 3, 64, 96, dtype=torch.float64))  # statistics that keep maps in range
    stage = ImageStage(exact.eval())
    session = model_of(copy.deepcopy(stage).float(), (torch.randn(1, 3, 64, 96),))
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for found, expected in zip(ran(session, image), stage(image.double()), strict=True):
            torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["release", "keys"])
def test_onnx_has_the_heatmaps_of_any_number_of_people(attention: Attention) -> None:
    stage = PeopleStage(small(attention))
    people = torch.export.Dim("people", min=1, max=200)
    example = (torch.randn(1, 12, 16, 24), torch.randn(4, 240), torch.randint(16, (4, 2)))
    session = model_of(copy.deepcopy(stage).float(), example, ({}, {0: people}, {0: people}))
    for count in (1, 3, 7, 30):
        shared, vectors, coords = torch.randn(1, 12, 16, 24), torch.randn(count, 240), torch.randint(16, (count, 2))
        (found,) = ran(session, shared, vectors, coords)
        with torch.no_grad():
            expected = stage(shared.double(), vectors.double(), coords)
        torch.testing.assert_close(found.double(), expected, rtol=0.0, atol=2e-5)
