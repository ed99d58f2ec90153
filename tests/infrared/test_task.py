"""The tasks of TBC-Net: what the SCM does to a step, what is refused, what is found, scored, drawn and read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.engine.harness import make_trainer, same, state, updates
from vision.engine.checkpoint import save_weights
from vision.engine.errors import CheckpointError, ConfigError, DataError
from vision.engine.task import StepContext
from vision.infrared.data import InfraredImages
from vision.infrared.losses import TBCLoss
from vision.infrared.metrics import match_targets, score
from vision.infrared.modules import InfraredData, InfraredSynthetic, ScmScenes
from vision.infrared.reading import InfraredSample
from vision.infrared.roc import curve_record, roc
from vision.infrared.targets import Count, Targets
from vision.infrared.task import InfraredTargets, TargetCounting, TargetMetric
from vision.infrared.tbcnet import SCM, TBCNet
from vision.report.figures import FOUND, TRUTH

SCENES = InfraredSynthetic(patch=48, size=64, scenes=3, length=8)
BEGIN = StepContext(step=0, total_steps=10, epoch=0)


def scm_file(folder: Path, classes: int = 5) -> Path:
    torch.manual_seed(0)
    path = folder / "scm.safetensors"
    scm = SCM(classes)
    with torch.no_grad():
        scm.train()(torch.rand(4, 1, 48, 48))  # running statistics that are no identity
    save_weights(path, scm, {"network": "SCM", "task": "target_counting"})
    return path


def targets(data: InfraredData = SCENES, network: nn.Module | None = None, **arguments: Any) -> InfraredTargets:
    torch.manual_seed(1)
    options = {"semantic": False, **arguments}
    return InfraredTargets(data, network or TBCNet("lite", data.in_channels), **options)


def crops(task: InfraredTargets, count: int = 4) -> dict[str, Any]:
    torch.manual_seed(2)
    dataset = task.data.train()
    return task.collate([dataset[index] for index in range(count)])


@torch.no_grad()
def predicted(task: InfraredTargets, *samples: dict[str, Any]) -> list[Targets]:
    return task.eval().predict(task.collate(list(samples)))


class Reads(nn.Module):
    """Not a network: the logit of a pixel is its gray value, drawn away from 0.5."""

    def __init__(self, gain: float = 40.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (x - 0.5)


FIXED = InfraredSynthetic(normalise="dataset", mean=0.0, std=1.0)
"""Data whose normalisation changes nothing, so that :class:`Reads` sees gray values."""


# -- the semantic constraint ---------------------------------------------------------------------------------------


def test_a_step_of_the_second_stage_leaves_the_scm_as_it_was_and_has_its_gradient(tmp_path: Path) -> None:
    task = targets(semantic=True, weights=(0.0, 0.0, 0.0, 1.0), semantic_warmup=0.0, scm=scm_file(tmp_path))
    trainer = make_trainer(task, steps=6, batch_size=4, log_every=1)
    assert task.scm is not None
    scm, tem = state(task.scm), state(task.network)  # type: ignore[arg-type]
    reached: list[float] = []

    def watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        inputs[0].register_hook(lambda gradient: reached.append(float(gradient.abs().sum())))

    task.scm.register_forward_pre_hook(watch)
    updates(trainer, 3)
    assert same(state(task.scm), scm)  # type: ignore[arg-type]
    assert not task.scm.training
    assert len(reached) == 3
    assert min(reached) > 0
    # nothing but the semantic term trains here: what changed, changed through the SCM
    changed = [name for name, value in task.network.state_dict().items() if not torch.equal(value, tem[name])]
    assert {"head.weight", "stem.0.weight"} <= set(changed)
    given = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert not given & {id(p) for p in task.scm.parameters()}


def test_the_losses_of_a_step_are_those_of_the_joint_loss(tmp_path: Path) -> None:
    task = targets(semantic=True, loss="paper", scm=scm_file(tmp_path)).eval()
    trainer = make_trainer(task, steps=6)
    batch = crops(task)
    context = StepContext(step=5, total_steps=10, epoch=0)
    (found,) = trainer.task.training_step(batch, context)
    expected = TBCLoss((1.0, 1.0, 0.5, 0.1))(
        task.network(batch["image"]), batch["mask"], batch["count"], task.scm, progress=0.5
    )
    assert found.keys() == expected.keys() == {"region", "structure", "background", "semantic"}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


@pytest.mark.parametrize(
    ("arguments", "terms"),
    [
        ({"loss": "paper"}, {"region", "structure", "background"}),
        ({"loss": "softiou"}, {"region"}),
        ({"weights": (1.0, 0.0, 0.05, 0.1)}, {"region", "background"}),
        ({"weights": (1.0, 0.5, 0.0, 0.1), "region": "l1_plain"}, {"region", "structure"}),
    ],
)
def test_terms_are_switched_off_by_their_weights(arguments: dict[str, Any], terms: set[str]) -> None:
    task = targets(**arguments)
    (losses,) = task.training_step(crops(task), BEGIN)
    assert losses.keys() == terms


def test_the_intensity_layer_is_trained_on_where_it_is_asked_for() -> None:
    data = InfraredSynthetic(patch=48, length=8, target_mode="intensity")
    task = targets(data, weights=(1.0, 0.0, 0.0, 0.0), region="l1_plain").eval()
    batch = crops(task)
    assert not torch.equal(batch["intensity"], batch["mask"])
    (losses,) = task.training_step(batch, BEGIN)
    expected = (task.network(batch["image"]).sigmoid() - batch["intensity"]).abs().mean()
    torch.testing.assert_close(losses["region"], expected)


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"semantic": True}, r"task\.scm is missing.*configs/infrared/scm\.yaml.*task\.semantic=false"),
        ({"semantic": True, "loss": "softiou"}, r"task\.scm is missing"),
        ({"scm": Path("scm.safetensors")}, r"task\.scm is given but the semantic term is off"),
        (
            {"semantic": True, "weights": (1.0, 0.5, 0.0, 0.0), "scm": Path("scm.safetensors")},
            r"task\.scm is given but the semantic term is off",
        ),
        (
            {"network": TBCNet(in_channels=2)},
            r"takes 2 channels and the data gives 1; set task\.network\.in_channels=1",
        ),
        (
            {"data": InfraredSynthetic(high_pass=True), "network": TBCNet()},
            r"takes 1 channels and the data gives 2; set task\.network\.in_channels=2 or change data\.high_pass",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        targets(**arguments)


def test_weights_of_another_scm_are_refused_before_training(tmp_path: Path) -> None:
    file = scm_file(tmp_path, classes=2)
    with pytest.raises(CheckpointError, match=r"scm\.safetensors: holds the weights of another network.*classifier\.2"):
        make_trainer(targets(semantic=True, scm=file), steps=1)
    make_trainer(targets(semantic=True, scm=file, scm_classes=2), steps=1)
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors: no such checkpoint"):
        make_trainer(targets(semantic=True, scm=tmp_path / "nowhere.safetensors"), steps=1)


def test_judging_and_predicting_need_no_scm(tmp_path: Path) -> None:
    """The SCM constrains training only: a trained TEM is used where its SCM no longer lies."""
    task = targets(semantic=True, scm=tmp_path / "gone.safetensors")
    assert [prediction.id for prediction in predicted(task, task.val_data()[0])] == ["val_000"]
    with pytest.raises(CheckpointError, match=r"gone\.safetensors: no such checkpoint"):
        make_trainer(task, steps=1)


def test_the_high_pass_channel_reaches_the_network() -> None:
    task = targets(InfraredSynthetic(patch=48, length=8, high_pass=True))
    assert task.example_input().shape == (1, 2, 256, 256)
    assert crops(task)["image"].shape == (4, 2, 48, 48)
    (losses,) = task.training_step(crops(task), BEGIN)
    assert all(torch.isfinite(value) for value in losses.values())


# -- what is found -------------------------------------------------------------------------------------------------


def planted(size: tuple[int, int] = (40, 56)) -> np.ndarray:
    """Two bright rectangles of 2x3 and 1x1 pixels and one that is too faint."""
    image = np.full(size, 0.2, dtype=np.float32)
    image[10:12, 20:23] = 0.9
    image[30, 5] = 0.7
    image[25:27, 40:42] = 0.45
    return image


def sample_of(image: np.ndarray, name: str = "planted") -> dict[str, Any]:
    return {"id": name, "image": FIXED.transform(image), "raw": torch.from_numpy(image)}


def test_planted_targets_are_found_where_they_are() -> None:
    (found,) = predicted(targets(FIXED, Reads()), sample_of(planted()))
    assert [(d.row, d.col, d.area) for d in found.detections] == [(10.5, 21.0, 6), (30.0, 5.0, 1)]
    expected = [1 / (1 + np.exp(-40 * (gray - 0.5))) for gray in (0.9, 0.7)]
    assert [d.score for d in found.detections] == pytest.approx(expected, rel=1e-5)
    assert found.to_dict() == {
        "id": "planted",
        "threshold": 0.5,
        "detections": [
            {"row": d.row, "col": d.col, "area": d.area, "score": d.score} for d in found.detections
        ],
    }  # fmt: skip
    assert found.probability.shape == (40, 56)


@pytest.mark.parametrize(
    ("options", "areas"),
    [({}, [6, 1]), ({"min_area": 2}, [6]), ({"threshold": 0.1}, [6, 1, 4]), ({"threshold": 1.0}, [])],
)
def test_threshold_and_smallest_area_decide_what_is_found(options: dict[str, Any], areas: list[int]) -> None:
    (found,) = predicted(targets(FIXED, Reads(), **options), sample_of(planted()))
    assert [d.area for d in found.detections] == areas


def test_images_of_different_sizes_are_predicted_as_each_alone() -> None:
    task = targets().eval()
    rng = np.random.default_rng(0)
    samples = [sample_of(rng.random(size, dtype=np.float32), str(size)) for size in ((33, 47), (64, 48), (17, 130))]
    together = predicted(task, *samples)
    alone = [predicted(task, sample)[0] for sample in samples]
    for one, other, sample in zip(together, alone, samples, strict=True):
        assert one.probability.shape == tuple(sample["raw"].shape)
        np.testing.assert_allclose(one.probability, other.probability, rtol=1e-4, atol=1e-6)


def test_circles_surround_what_was_found_and_the_outline_what_is_true() -> None:
    task, sample = targets(FIXED, Reads()), sample_of(planted())
    (found,), (picture,) = predicted(task, sample), task.pictures(task.collate([sample]))
    np.testing.assert_allclose(picture[..., 0], planted() * 255, atol=0.6)
    truth = np.zeros((40, 56), dtype=bool)
    truth[10:12, 20:23] = True
    drawn = found.draw(picture, truth)
    height, width, scale = 40 * 6, 56 * 6, 6  # the shorter side becomes at least 240 pixels
    shown = drawn[-height:, :width]
    orange, green = (np.argwhere((shown == np.array(colour)).all(axis=2)) for colour in (FOUND, TRUTH))
    for detection in found.detections:
        centre = np.array([detection.row, detection.col]) * scale + (scale - 1) / 2
        distances = np.linalg.norm(orange - centre, axis=1)
        assert np.sum(np.abs(distances - (10 + scale)) < 1) > 60, "a circle of that radius has some 100 pixels"
    rows, columns = np.argwhere(truth).T
    assert green.min(axis=0).tolist() == [rows.min() * scale - 1, columns.min() * scale - 1]
    assert green.max(axis=0).tolist() == [(rows.max() + 1) * scale, (columns.max() + 1) * scale]
    assert found.draw(picture).shape == drawn.shape


@pytest.mark.parametrize(
    ("low", "high", "shown"), [(0.1, 0.2, (0, 255)), (0.1, 0.9, (26, 230)), (0.4, 0.4, (102, 102))]
)
def test_an_image_of_a_narrow_range_is_shown_so_that_it_can_be_seen(
    low: float, high: float, shown: tuple[int, int]
) -> None:
    raw = torch.linspace(low, high, 40 * 56).reshape(40, 56)
    (picture,) = targets().pictures({"raw": [raw]})
    assert (picture.min(), picture.max()) == pytest.approx(shown, abs=1)
    assert (np.diff(picture[..., 0].reshape(-1).astype(int)) >= 0).all()


# -- what is scored ------------------------------------------------------------------------------------------------


def scored() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Images, masks and probability maps, with hits, misses, false alarms and an image without any target."""
    rng = np.random.default_rng(3)
    for index in range(5):
        raw = rng.random((40, 40), dtype=np.float32) * 0.3
        mask = np.zeros((40, 40), dtype=bool)
        if index != 4:
            mask[8:11, 8 : 10 + index] = mask[25:27, 25:27] = True
        p = np.clip(rng.random((40, 40)) * 0.4 + np.roll(mask, index, axis=1) * 0.6, 0, 1).astype(np.float32)
        yield raw + mask * 0.5, mask, p


def test_the_figures_are_those_of_the_metrics_over_all_images() -> None:
    metric, threshold = TargetMetric(), 0.6
    matches, curves = [], []
    for index, (raw, mask, p) in enumerate(scored()):
        batch = {"mask": torch.from_numpy(mask)[None], "raw": torch.from_numpy(raw)[None]}
        metric.update([Targets(f"{index}", [], p, threshold)], batch)
        matches.append(match_targets(p > threshold, mask, image=raw))
        curves.append(curve_record(p, mask))
    figures, expected = metric.compute(), score(matches)
    assert 0 < expected["IoU"] < 1
    assert 0 < expected["Pd"] < 1
    for name in ("IoU", "nIoU", "Pd", "Fa", "Fa_legacy", "pixAcc", "F1", "false_regions"):
        assert figures[name] == expected[name], name
    assert figures["AUC_pixel"] == roc(curves)["AUC_pixel"]
    intersection = sum(int(((p > threshold) & mask).sum()) for _, mask, p in scored())
    union = sum(int(((p > threshold) | mask).sum()) for _, mask, p in scored())
    assert figures["IoU"] == pytest.approx(intersection / union)
    tables = metric.tables(metric.ordered())
    for name in ("by_size", "by_contrast"):
        assert sum(row[2] for row in tables[name]["rows"]) == 8, "every target is in one bin"


def test_the_threshold_of_the_task_is_that_of_its_figures() -> None:
    sample = InfraredSample("a", planted(), planted() > 0.4)
    image = InfraredImages([sample], FIXED.transform)[0]
    for threshold, iou in ((0.5, 7 / 11), (0.1, 1.0)):
        task = targets(FIXED, Reads(), threshold=threshold)
        metric = task.metric()
        metric.update(predicted(task, image), task.collate([image]))
        assert metric.compute()["IoU"] == pytest.approx(iou)


# -- what is read --------------------------------------------------------------------------------------------------


def test_a_file_of_odd_size_and_sixteen_bits_is_read_as_its_eight_bit_copy(tmp_path: Path) -> None:
    gray = np.rint(planted((37, 53)) * 255).astype(np.uint8)
    Image.fromarray(gray).save(tmp_path / "8.png")
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "16.png")
    task = targets().eval()
    shallow, deep = (task.read_input(str(tmp_path / f"{bits}.png")) for bits in (8, 16))
    assert deep["image"].shape == (1, 37, 53)
    torch.testing.assert_close(deep["image"], shallow["image"])
    (found,) = predicted(task, deep)
    assert found.probability.shape == (37, 53)
    assert found.id == str(tmp_path / "16.png")


def test_a_file_is_read_as_the_training_images_were(tmp_path: Path) -> None:
    """A camera of 14 bits in files of 16: what is white in training is white in prediction."""
    from vision.infrared.modules import InfraredFolder

    Image.fromarray(np.full((32, 32), 2**14 - 1, dtype=np.uint16)).save(tmp_path / "white.png")
    data = InfraredFolder(root=str(tmp_path), bits=14)
    sample = targets(data).read_input(str(tmp_path / "white.png"))
    assert float(sample["raw"].min()) == 1.0


def test_files_that_are_no_input_are_named(tmp_path: Path) -> None:
    small, colour = tmp_path / "small.png", tmp_path / "colour.png"
    Image.fromarray(np.zeros((15, 64), dtype=np.uint8)).save(small)
    Image.fromarray(np.dstack([np.full((32, 32), v, np.uint8) for v in (250, 0, 90)])).save(colour)
    with pytest.raises(DataError, match=r"small\.png: 15x64 pixels; at least 16"):
        targets().read_input(str(small))
    with pytest.raises(DataError, match=r"colour\.png: a colour image"):
        targets().read_input(str(colour))
    with pytest.raises(DataError, match=r"nothing\.png: no such file"):
        targets().read_input(str(tmp_path / "nothing.png"))


# -- counting ------------------------------------------------------------------------------------------------------


def counting(classes: int = 4) -> TargetCounting:
    torch.manual_seed(0)
    return TargetCounting(ScmScenes(size=64, length=8, held_out=4), SCM(classes))


def test_counts_beyond_the_last_class_are_of_the_last_class() -> None:
    task = counting(classes=3).eval()
    batch = {"id": ["a", "b"], "image": torch.rand(2, 1, 64, 64), "count": torch.tensor([5, 1])}
    (losses,) = task.training_step(batch, BEGIN)
    logits = task.network(batch["image"]).log_softmax(1)
    torch.testing.assert_close(losses["cross_entropy"], -(logits[0, 2] + logits[1, 1]) / 2)
    metric = task.metric()
    metric.update([Count("a", 2, [0, 0, 1]), Count("b", 0, [1, 0, 0])], batch)
    assert metric.compute() == {"accuracy": 0.5, "accuracy_1": 0.0, "accuracy_2": 1.0}
    table = metric.tables(metric.ordered())["confusion"]
    assert table["labels"] == ["0", "1", "2+"]
    assert table["values"] == [[0, 0, 0], [1, 0, 0], [0, 0, 1]]


def test_probabilities_are_those_of_the_logits() -> None:
    task = counting().eval()
    dataset = task.val_data()
    batch = task.collate([dataset[index] for index in range(3)])
    with torch.no_grad():
        found, expected = task.predict(batch), task.network(batch["image"]).softmax(1)
    for count, row in zip(found, expected, strict=True):
        assert count.probabilities == pytest.approx(row.tolist(), abs=1e-6)
        assert count.label == int(row.argmax())


def test_only_an_scm_counts() -> None:
    with pytest.raises(ConfigError, match=r"task\.network: expected scm, got TBCNet"):
        TargetCounting(ScmScenes(), TBCNet())
