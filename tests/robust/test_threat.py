"""The ball, its projection and its refusals."""

import pytest
import torch

from robust.threat import ThreatModel
from vision.engine.errors import ConfigError, DataError


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.4)])
def test_projection_keeps_what_is_inside_and_brings_back_what_is_not(norm: str, eps: float) -> None:
    torch.manual_seed(0)
    threat, images = ThreatModel(norm, eps), torch.rand(20, 3, 4, 4, dtype=torch.float64)
    wild = threat.project(images + torch.randn_like(images), images)
    threat.check(wild, images)
    assert float(threat.size(wild, images).max()) <= eps + 1e-12
    assert torch.allclose(threat.project(wild, images), wild, atol=1e-15)


def test_linf_projection_is_the_nearest_point() -> None:
    images, given = torch.tensor([[0.2, 0.95]]), torch.tensor([[0.5, 1.5]])
    assert torch.allclose(ThreatModel(eps=0.1).project(given, images), torch.tensor([[0.3, 1.0]]))


def test_l2_projection_keeps_the_direction() -> None:
    images = torch.full((1, 2), 0.5)
    found = ThreatModel("l2", 0.1).project(images + torch.tensor([[0.3, -0.4]]), images)
    assert torch.allclose(found, torch.tensor([[0.56, 0.42]]))


def test_random_starts_fill_the_ball_evenly() -> None:
    torch.manual_seed(0)
    images = torch.full((20000, 2), 0.5, dtype=torch.float64)
    linf = ThreatModel(eps=0.1).random_start(images) - images
    assert torch.allclose(linf.var(0), torch.full((2,), 0.2**2 / 12, dtype=torch.float64), rtol=0.05)
    l2 = ThreatModel("l2", 0.1).random_start(images) - images
    inside = float((l2.norm(dim=1) < 0.05).double().mean())
    assert inside == pytest.approx(0.25, abs=0.02)  # a disk of half the radius has a quarter of the area


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_check_sees_a_step_out_of_ball_or_range(norm: str) -> None:
    threat, images = ThreatModel(norm, 0.1), torch.full((2, 3), 0.95)
    for wrong in (images - 0.11, images + 0.06, images * float("nan")):
        with pytest.raises(RuntimeError):
            threat.check(wrong, images)


def test_eps_in_0_to_255_is_refused_with_its_likely_meaning() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 8/255 = 0\.031373"):
        ThreatModel(eps=8)
    for eps in (8, 128):
        with pytest.raises(ConfigError, match=f"did you mean {eps}/255"):
            ThreatModel("l2", eps=eps)
    assert ThreatModel("l2", eps=3.0).eps == 3.0
    for eps in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="not a radius"):
            ThreatModel(eps=eps)
    for low, high in ((1.0, 0.0), (0.0, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(ConfigError, match="is empty or endless"):
            ThreatModel(low=low, high=high)
    with pytest.raises(ConfigError, match="linf or l2"):
        ThreatModel("l1")  # type: ignore[arg-type]


def test_images_outside_the_range_are_refused() -> None:
    with pytest.raises(DataError, match="not normalised"):
        ThreatModel().check_images(torch.randn(2, 3, 4, 4))
    ThreatModel().check_images(torch.rand(2, 3, 4, 4))
    ThreatModel().check_images(torch.rand(0, 3, 4, 4))
