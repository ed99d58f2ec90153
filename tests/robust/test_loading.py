"""Attacks on one image by ``robust.load(run).attacked``."""

from pathlib import Path

import numpy as np
import pytest
import torch

import robust
from robust.attacks import pgd
from robust.threat import ThreatModel
from vision.engine.config import load
from vision.engine.distributed import World
from vision.engine.errors import ConfigError
from vision.engine.train import dry_run, load_run

EPS = 0.15


@pytest.fixture(scope="module", params=[True, False], ids=["normalised by the data", "by the network"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one update, whose data or whose network normalises images."""
    folder = tmp_path_factory.mktemp("run")
    overrides = ["data.limit=64", "task.network.width=8", f"data.normalise={str(request.param).lower()}"]
    dry_run(load("digits_cnn", overrides), folder, False, World(torch.device("cpu")))
    return folder


@pytest.fixture
def digit() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.repeat(rng.integers(0, 256, (8, 8, 1), dtype=np.uint8), 3, axis=2)


def test_it_is_pgd_on_the_image_in_0_to_1(run: Path, digit: np.ndarray) -> None:
    classifier = robust.load(run, device="cpu")
    found = classifier.attacked(digit, 3, EPS, steps=7)
    task = load_run(run, "best", [])[2].eval()
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (task.data.mean, task.data.std))

    class InRange(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return task.network((x - mean) / std if task.data.normalise else x)

    image = torch.from_numpy(digit[None, None, ..., 0].astype(np.float32) / 255)
    expected = pgd(
        InRange(), image, torch.tensor([3]), ThreatModel(eps=EPS), steps=7, step_size=EPS / 4, start="zero"
    )  # fmt: skip
    np.testing.assert_allclose(found.image, expected[0].numpy(), atol=1e-6)
    np.testing.assert_array_equal(found.before, image[0].numpy())
    assert np.abs(found.image - found.before).max() <= EPS + 1e-6
    with torch.no_grad():
        logits = InRange()(expected)[0].numpy()
    np.testing.assert_allclose(found.scores.logits, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.clean.logits, classifier(digit).logits, rtol=1e-4, atol=1e-5)
    assert found.clean.label == classifier(digit).label


def test_labels_by_name_number_or_as_predicted(run: Path, digit: np.ndarray) -> None:
    classifier = robust.load(run, device="cpu")
    by_name, by_number = (classifier.attacked(digit, label, EPS, 2) for label in ("3", 3))
    np.testing.assert_array_equal(by_name.image, by_number.image)
    assert by_name.truth == "3"
    assert classifier.attacked(digit, None, EPS, 2).truth == classifier(digit).label
    with pytest.raises(ConfigError, match="no class is called 'three'"):
        classifier.attacked(digit, "three")
    with pytest.raises(ConfigError, match="label: 10 is no class; expected 0 to 9"):
        classifier.attacked(digit, 10)
    with pytest.raises(ConfigError, match="did you mean 8/255"):
        classifier.attacked(digit, 1, eps=8)


def test_no_radius_changes_nothing_and_the_numbers_tell_both(run: Path, digit: np.ndarray) -> None:
    found = robust.load(run, device="cpu").attacked(digit, 1, eps=0.0, steps=3)
    np.testing.assert_array_equal(found.image, found.before)
    assert found.to_dict()["clean"] == found.to_dict()["attacked"]
    assert found.draw().shape[1] == 3 * 200  # three pictures of 8 x 8 at 25 pixels each
