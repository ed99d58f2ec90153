"""The classification task: loss and figures against closed forms and scikit-learn, pictures against the files."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss
from torch import Tensor, nn

from vision.classification.digits import Digits
from vision.classification.folder import ImageFolder
from vision.classification.networks import MLP, DigitsCNN
from vision.classification.scores import Scores
from vision.classification.task import Classification, ClassificationMetric
from vision.engine.errors import ConfigError, DataError
from vision.engine.task import Batch, StepContext
from vision.report.figures import TRUTH, WRONG

BEGIN = StepContext(step=0, total_steps=10, epoch=0)


def digits(**arguments: Any) -> Classification:
    torch.manual_seed(0)
    smoothing = arguments.pop("label_smoothing", 0.0)
    return Classification(Digits(limit=40, **arguments), DigitsCNN(width=8), smoothing)


def batch_of(task: Classification, count: int) -> Batch:
    dataset = task.val_data()
    return task.collate([dataset[index] for index in range(count)])


@torch.no_grad()
def predicted(task: Classification, batch: Batch) -> list[Scores]:
    return task.eval().predict(batch)


class Says(nn.Module):
    """Gives the logits it is told, whatever it sees."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits[: len(images)]


# -- loss ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_is_the_mean_cross_entropy_with_the_smoothed_label(smoothing: float) -> None:
    task = digits(label_smoothing=smoothing).eval()
    batch = batch_of(task, 5)
    (losses,) = task.training_step(batch, BEGIN)
    p = torch.softmax(task.network(batch["image"]).detach().double(), 1)
    q = torch.full_like(p, smoothing / 10)
    q[torch.arange(5), batch["label"]] += 1 - smoothing
    assert losses.keys() == {"cross_entropy"}
    assert float(losses["cross_entropy"].detach()) == pytest.approx(float(-(q * p.log()).sum(1).mean()), rel=1e-5)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_out_of_range_is_refused(smoothing: float) -> None:
    with pytest.raises(ConfigError, match=r"task\.label_smoothing: -?[\d.]+ is outside \[0, 1\)"):
        digits(label_smoothing=smoothing)


def test_a_network_of_other_classes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"gives 7 classes and the data has 10; set task\.network\.classes=10"):
        Classification(Digits(), DigitsCNN(classes=7))
    Classification(Digits(), nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))  # does not say how many it gives


# -- predictions ---------------------------------------------------------------------------------------------------


def test_a_prediction_names_the_five_most_probable_classes() -> None:
    task = digits()
    batch = batch_of(task, 8)
    for scores, logits in zip(predicted(task, batch), task.network(batch["image"]), strict=True):
        p = torch.softmax(logits.detach().double(), 0).numpy()
        order = np.argsort(-p)
        assert list(scores.probabilities) == [str(k) for k in order[:5]]
        assert list(scores.probabilities.values()) == pytest.approx(p[order[:5]].tolist(), rel=1e-4)
        assert scores.label == str(order[0])
        assert scores.confidence == pytest.approx(p.max(), rel=1e-4)
        said = scores.to_dict()
        assert said.keys() == {"id", "label", "confidence", "probabilities"}
        assert said["confidence"] == round(scores.confidence, 6)


def test_fewer_classes_than_five_are_all_named(tmp_path: Path) -> None:
    data = two_classes(tmp_path)
    task = Classification(data, MLP(3 * 8 * 8, [], 2))
    (scores,) = predicted(task, batch_of(task, 1))
    assert set(scores.probabilities) == {"cat", "dog"}
    assert sum(scores.probabilities.values()) == pytest.approx(1)


# -- figures -------------------------------------------------------------------------------------------------------


def test_figures_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    data = Digits(limit=40)
    dataset = data.val()
    logits = torch.from_numpy(rng.normal(0, 2, (40, 10)).astype(np.float32))
    task = Classification(data, Says(logits))
    batch = task.collate([dataset[index] for index in range(40)])
    metric = task.metric()
    metric.update(predicted(task, batch), batch)
    figures, labels = metric.compute(), batch["label"].numpy()
    p = torch.softmax(logits.double(), 1).numpy()
    p /= p.sum(1, keepdims=True)
    assert figures.keys() == {"accuracy", "top5", "nll", "ece"}
    assert figures["accuracy"] == pytest.approx(accuracy_score(labels, p.argmax(1)))
    assert figures["top5"] == pytest.approx(
        np.mean([y in row for y, row in zip(labels, np.argsort(-p)[:, :5], strict=True)])
    )
    assert figures["nll"] == pytest.approx(log_loss(labels, p, labels=range(10)), rel=1e-5)
    table = metric.tables(metric.ordered())["confusion"]
    assert table["values"] == confusion_matrix(labels, p.argmax(1), labels=range(10)).tolist()
    assert table["labels"] == [str(k) for k in range(10)]


def test_top_5_is_left_out_where_it_says_nothing_and_a_matrix_where_nobody_can_read_it() -> None:
    few = ClassificationMetric(["a", "b", "c", "d", "e"])
    few.records = {"x": (np.eye(5, dtype=np.float32)[1], 1)}
    assert few.compute().keys() == {"accuracy", "nll", "ece"}
    many = ClassificationMetric([str(k) for k in range(101)])
    many.records = {"x": (np.eye(101, dtype=np.float32)[1], 1)}
    assert many.tables(many.ordered()) == {}


# -- pictures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalise", [True, False])
def test_pictures_are_the_images_before_normalisation(normalise: bool) -> None:
    task = digits(normalise=normalise)
    batch = batch_of(task, 4)
    for name, picture in zip(batch["id"], task.pictures(batch), strict=True):
        original = np.rint(load_digits().images[int(name.removeprefix("digits/"))] * (255 / 16))
        for channel in range(3):
            np.testing.assert_array_equal(picture[..., channel], original)
    assert task.truths(batch) == [str(int(label)) for label in batch["label"]]


def test_colours_are_in_order(tmp_path: Path) -> None:
    task = Classification(two_classes(tmp_path), MLP(3 * 8 * 8, [], 2))
    batch = batch_of(task, 2)
    colours = {"cat": (250, 100, 0), "dog": (0, 50, 200)}
    for name, picture in zip(task.truths(batch), task.pictures(batch), strict=True):
        assert picture[4, 4].tolist() == list(colours[name])


def test_a_drawing_is_green_where_the_label_is_right_and_red_where_it_is_not() -> None:
    scores = Scores("a", "3", 0.87, {"3": 0.87}, np.zeros(10, np.float32))
    image = np.full((8, 8, 3), 77, np.uint8)
    drawn = {truth: scores.draw(image, truth) for truth in ("3", "5", None)}
    for truth, colour in (("3", TRUTH), ("5", WRONG)):
        assert tuple(drawn[truth][0, 0]) == colour, "the band's corner"
        assert (drawn[truth][-112:] == 77).all(), "the image below it is whole"
    assert tuple(drawn[None][0, 0]) not in (TRUTH, WRONG)


# -- files ---------------------------------------------------------------------------------------------------------


def two_classes(folder: Path, size: tuple[int, int] = (8, 8)) -> ImageFolder:
    """Two colours with some texture, so that resizing and cropping show."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, colour in (("cat", (250, 100, 0)), ("dog", (0, 50, 200))):
            (folder / split / name).mkdir(parents=True)
            for index in range(2):
                pixels = np.broadcast_to(np.array(colour, np.uint8), (*size, 3)).copy()
                pixels[:2] = rng.integers(0, 255, (2, size[1], 3))
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    return ImageFolder(root=str(folder), size=8)


@pytest.mark.parametrize("size", [(8, 8), (16, 24), (30, 11)])
def test_a_users_file_is_what_the_data_set_makes_of_it(tmp_path: Path, size: tuple[int, int]) -> None:
    data = two_classes(tmp_path, size)
    task = Classification(data, MLP(3 * 8 * 8, [], 2))
    dataset = data.val()
    for index in range(4):
        sample = dataset[index]
        read = task.read_input(str(tmp_path / sample["id"]))
        torch.testing.assert_close(read["image"], sample["image"])
        assert read["id"] == str(tmp_path / sample["id"])


def test_a_file_of_another_size_and_kind_is_brought_to_the_networks(tmp_path: Path) -> None:
    grey = np.kron(np.rint(load_digits().images[3] * (255 / 16)).astype(np.uint8), np.ones((4, 4), np.uint8))
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey).convert("RGBA").save(tmp_path / "rgba.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    task = digits()
    read = [task.read_input(str(tmp_path / f"{name}.png"))["image"] for name in ("grey", "rgba", "palette")]
    assert all(image.shape == (1, 8, 8) for image in read)
    torch.testing.assert_close(read[1], read[0])
    torch.testing.assert_close(read[2], read[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.asarray(Image.fromarray(grey).resize((8, 8), Image.Resampling.BILINEAR)) / 255
    assert np.abs(read[0][0].numpy() * 0.3760 + 0.3053 - expected).max() < 0.02


def test_files_that_are_no_input_are_named(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "text.png").write_text("no image")
    for name, said in (("deep", "expected 8 bits"), ("text", "cannot be decoded"), ("none", "cannot be decoded")):
        with pytest.raises(DataError, match=rf"{name}\.png: .*{said}"):
            digits().read_input(str(tmp_path / f"{name}.png"))
