"""The joint loss: golden values, closed forms, SSIM against its definition window by window."""

import numpy as np
import pytest
import torch
from torch import Tensor

from vision.infrared.losses import (
    HEAD_BIAS,
    TBCLoss,
    background_suppression,
    l1_plain,
    l1_region,
    semantic_weight,
    soft_iou,
    ssim,
)
from vision.infrared.tbcnet import SCM, TBCNet, freeze


def golden_pair() -> tuple[Tensor, Tensor]:
    target = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    target[..., 10:13, 20:22] = 1
    probability = torch.full_like(target, 0.1)
    probability[target > 0] = 0.7
    probability[..., 3, 4] = 0.9
    return probability, target


def waves() -> tuple[Tensor, Tensor]:
    index = torch.arange(1024, dtype=torch.float64)
    return tuple(((0.37 * index + phase).sin() + 1).div(2).view(1, 1, 32, 32) for phase in (0.0, 0.5))  # type: ignore[return-value]


def brute_force_ssim(x: np.ndarray, y: np.ndarray, zero_padded: bool) -> float:
    """The definition window by window, weighted moments written out."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    if zero_padded:
        x, y = np.pad(x, 5), np.pad(y, 5)
    values = []
    for row in range(x.shape[0] - 10):
        for column in range(x.shape[1] - 10):
            a, b = x[row : row + 11, column : column + 11], y[row : row + 11, column : column + 11]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            variance_a, variance_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
            values.append(luminance * (2 * covariance + 9e-4) / (variance_a + variance_b + 9e-4))
    return float(np.mean(values))


def test_golden_terms() -> None:
    probability, target = golden_pair()
    assert l1_region(probability, target).item() == pytest.approx(0.401953125, abs=1e-9)
    assert 1 - ssim(probability, target).item() == pytest.approx(0.9538740669410011, abs=1e-9)
    assert background_suppression(probability, target).item() == pytest.approx(1.83, abs=1e-9)
    assert l1_plain(probability, target).item() == pytest.approx((6 * 0.3 + 0.9 + 1017 * 0.1) / 1024, abs=1e-12)


def test_golden_sum_from_logits() -> None:
    probability, target = golden_pair()
    losses = TBCLoss((1.0, 1.0, 1.0, 0.0))(probability.logit(), target)
    assert list(losses) == ["region", "structure", "background"]
    assert sum(losses.values()).item() == pytest.approx(0.401953125 + 0.9538740669410011 + 1.83, abs=1e-9)  # type: ignore[union-attr]


def test_golden_ssim() -> None:
    x, y = waves()
    assert ssim(x, y).item() == pytest.approx(0.8667436078774831, abs=1e-9)
    assert ssim(x, y, padding="valid").item() == pytest.approx(0.8583944035924888, abs=1e-9)
    assert ssim(x, x).item() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("padding", ["zero", "valid"])
def test_ssim_equals_its_definition(padding: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((13, 17)), rng.random((13, 17))
    pair = torch.from_numpy(x)[None, None], torch.from_numpy(y)[None, None]
    value = ssim(*pair, padding=padding).item()  # type: ignore[arg-type]
    assert value == pytest.approx(brute_force_ssim(x, y, padding == "zero"), abs=1e-9)


def test_ssim_stays_in_single_precision_under_autocast() -> None:
    x, y = (wave.float() for wave in waves())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = ssim(x, y)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(0.8667436078774831, abs=1e-5)


def test_terms_are_averaged_over_images_not_pooled() -> None:
    probability, target = golden_pair()
    other = torch.full_like(probability, 0.25)
    batch_p, batch_t = torch.cat((probability, other)), torch.cat((target, torch.zeros_like(target)))
    for term in (l1_region, background_suppression):
        expected = (term(probability, target) + term(other, torch.zeros_like(target))) / 2
        torch.testing.assert_close(term(batch_p, batch_t), expected)


def test_soft_iou_pools_the_batch() -> None:
    probability, target = golden_pair()
    overlap, mass = 6 * 0.7, 6 * 0.7 + 0.9 + 1017 * 0.1
    single = soft_iou(probability, target).item()
    assert single == pytest.approx(1 - (overlap + 1) / (mass + 6 - overlap + 1), abs=1e-12)
    pair = soft_iou(probability.repeat(2, 1, 1, 1), target.repeat(2, 1, 1, 1)).item()
    assert pair == pytest.approx(1 - (2 * overlap + 1) / (2 * (mass + 6 - overlap) + 1), abs=1e-12)


def test_empty_masks_have_the_closed_form() -> None:
    probability = torch.rand(3, 1, 24, 20, dtype=torch.float64)
    empty = torch.zeros_like(probability)
    torch.testing.assert_close(l1_region(probability, empty), probability.mean())
    torch.testing.assert_close(background_suppression(probability, empty), probability.square().sum() / 3)


@pytest.mark.parametrize("preset", ["paper", "balanced", "softiou"])
@pytest.mark.parametrize("extreme", [-200.0, 0.0, 200.0])
def test_empty_masks_and_saturated_logits_stay_finite(preset: str, extreme: float) -> None:
    logits = torch.full((2, 1, 32, 32), extreme, requires_grad=True)
    loss = TBCLoss.preset(preset)  # type: ignore[arg-type]
    losses = loss(logits, torch.zeros(2, 1, 32, 32), torch.tensor([0, 0]), freeze(SCM()))
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert torch.isfinite(total) and logits.grad is not None and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("region", ["l1", "l1_plain", "softiou"])
def test_gradient_equals_finite_differences(region: str) -> None:
    torch.manual_seed(0)
    target = (torch.rand(2, 1, 6, 6, dtype=torch.float64) > 0.8).double()
    logits = torch.randn(2, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    loss = TBCLoss((1.0, 0.5, 0.05, 0.0), region=region)  # type: ignore[arg-type]
    assert torch.autograd.gradcheck(lambda z: torch.stack(list(loss(z, target).values())).sum(), (logits,))


def test_semantic_term_is_weighted_cross_entropy() -> None:
    torch.manual_seed(0)
    scm = freeze(SCM())
    logits, count = torch.randn(3, 1, 32, 32), torch.tensor([0, 2, 9])
    value = TBCLoss((0.0, 0.0, 0.0, 0.5))(logits, torch.zeros(3, 1, 32, 32), count, scm, progress=0.1)["semantic"]
    class_probability = scm(logits.sigmoid()).softmax(dim=1)
    expected = -class_probability[[0, 1, 2], [0, 2, 4]].log().mean() * 0.5 * 0.5
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize(
    ("progress", "start", "expected"),
    [(0, 0, 0), (0.1, 0, 0.05), (0.2, 0, 0.1), (1, 0, 0.1), (0.29, 0.3, 0), (0.4, 0.3, 0.05), (0.6, 0.3, 0.1)],
)
def test_semantic_weight_ramps(progress: float, start: float, expected: float) -> None:
    assert semantic_weight(progress, 0.1, start=start) == pytest.approx(expected)


def test_semantic_weight_without_warmup_is_a_step() -> None:
    assert semantic_weight(0.0, 0.1, warmup=0.0) == 0.1
    assert semantic_weight(0.49, 0.1, start=0.5, warmup=0.0) == 0.0


def test_names_of_the_terms_do_not_change_during_training() -> None:
    loss = TBCLoss.preset("softiou")
    arguments = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16), torch.tensor([0]), freeze(SCM())
    early, late = loss(*arguments, progress=0.0), loss(*arguments, progress=1.0)
    assert list(early) == list(late) == ["region", "semantic"]
    assert early["semantic"].item() == 0 and late["semantic"].item() > 0


def test_presets_are_those_of_the_specification() -> None:
    assert TBCLoss.preset("paper").weights == (1.0, 1.0, 0.5, 0.1)
    assert TBCLoss.preset("balanced").weights == TBCLoss().weights == (1.0, 0.5, 0.05, 0.1)
    assert TBCLoss.preset("balanced", semantic=False).weights == (1.0, 0.5, 0.05, 0.0)
    assert TBCLoss.preset("softiou").semantic_start == 0.3
    assert HEAD_BIAS == {"paper": -4.0, "balanced": -2.0, "softiou": -2.0}


def test_a_missing_scm_is_an_error_not_a_silent_skip() -> None:
    logits = torch.zeros(1, 1, 16, 16)
    with pytest.raises(ValueError, match="SCM"):
        TBCLoss()(logits, logits)
    assert not TBCLoss.preset("softiou", semantic=False).needs_scm


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, -1.0, 0.0, 0.0)])
def test_bad_weights_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="weights"):
        TBCLoss(weights)  # type: ignore[arg-type]


def test_four_images_are_learnt_by_heart() -> None:
    torch.manual_seed(0)
    target = torch.zeros(4, 1, 32, 32)
    for index, (row, column) in enumerate([(6, 8), (20, 5), (14, 24), (25, 25)]):
        target[index, 0, row : row + 3, column : column + 3] = 1
    image = 0.3 * torch.randn(4, 1, 32, 32) + 2 * target
    network = TBCNet()
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    loss = TBCLoss.preset("softiou", semantic=False)
    for _ in range(80):
        optimiser.zero_grad()
        torch.stack(list(loss(network(image), target).values())).sum().backward()
        optimiser.step()
    with torch.no_grad():
        found = network.eval().probability(image) > 0.5
    overlap = (found & (target > 0)).sum().item()
    union = (found | (target > 0)).sum().item()
    assert overlap / union > 0.9
