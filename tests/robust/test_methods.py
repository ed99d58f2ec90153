"""Label calibration, APART and data quality as recipes: trained, resumed, as pipelines, and with mistakes in them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from robust.adversarial import AdversarialClassification, Attack
from robust.apart_task import ApartClassification
from robust.calibrated import LabelCalibration
from robust.calibration import calibration_loss
from robust.calibration_search import CalibrationSearch
from robust.stability_rank import StabilityRank, agreement
from robust.threat import ThreatModel
from tools.train import main as train
from vision.classification import Digits, DigitsCNN
from vision.classification.preact_resnet import PreActResNet
from vision.classification.subset import read_subset, save_subset
from vision.engine.checkpoint import read_resume, read_weights, save_weights
from vision.engine.config import from_tree
from vision.engine.errors import CheckpointError, ConfigError, DataError, UserError
from vision.engine.task import StepContext

NOW = StepContext(0, 10, 0)
THREAT = ThreatModel(eps=0.1)


def digits(**options: Any) -> Digits:
    return Digits(**{"normalise": False, "limit": 40, **options})


def a_batch(data: Digits, count: int = 8) -> dict[str, Any]:
    dataset = data.train()
    samples = [dataset[i] for i in range(count)]
    return {
        "id": [s["id"] for s in samples],
        "image": torch.stack([s["image"] for s in samples]),
        "label": torch.stack([s["label"] for s in samples]),
    }


def teacher_file(path: Path, seed: int = 0, width: int = 4) -> str:
    torch.manual_seed(seed)
    task = AdversarialClassification(digits(), DigitsCNN(width=width))
    save_weights(path, task.network, {})
    return str(path)


@pytest.mark.parametrize("loss", ["hinton", "soft_label"])
def test_the_student_minimises_the_calibrated_loss_on_its_own_attacked_images(tmp_path: Path, loss: str) -> None:
    files = [teacher_file(tmp_path / f"{i}.safetensors", i) for i in range(2)]
    data, batch = digits(), a_batch(digits())
    task = LabelCalibration(data, DigitsCNN(width=4), files, 1.5, 0.8, loss, attack=Attack(2), threat=THREAT)  # type: ignore[arg-type]
    state = dict(task.state_dict())
    task.before_training()
    task.train()
    assert task.state_dict().keys() == state.keys(), "teachers are in no checkpoint"
    assert not any(teacher.training or p.requires_grad for teacher in task._teachers for p in teacher.parameters())
    torch.manual_seed(0)
    attacked = task.attacked(batch)
    found = task.losses(batch, attacked, NOW)["calibrated"]
    teachers = [AdversarialClassification(digits(), DigitsCNN(width=4)).network for _ in files]
    for teacher, file in zip(teachers, files, strict=True):
        from safetensors.torch import load_file

        teacher.load_state_dict(load_file(file))
        teacher.eval()
    expected = calibration_loss(
        task.network(attacked),
        [t(attacked) for t in teachers],
        batch["label"],
        1.5,
        0.8,
        loss,  # type: ignore[arg-type]
    )
    torch.testing.assert_close(found, expected)
    assert 0 < (attacked - batch["image"]).abs().max() <= 0.1 + 1e-6


def test_the_trades_student(tmp_path: Path) -> None:
    file = teacher_file(tmp_path / "t.safetensors")
    data, batch = digits(), a_batch(digits())
    task = LabelCalibration(data, DigitsCNN(width=4, norm="none"), [file], 2.0, 0.5, method="trades", beta=6.0,
                            teacher_network=DigitsCNN(width=4), threat=THREAT)  # fmt: skip
    task.before_training()
    attacked = (batch["image"] + 0.05).clamp(0, 1)
    losses = task.losses(batch, attacked, NOW)
    clean, logits = task.network(batch["image"]), task.network(attacked)
    p = (task._teachers[0](attacked) / 2).softmax(1)
    kl = (clean.softmax(1) * (clean.log_softmax(1) - logits.log_softmax(1))).sum(1).mean()
    trades = F.cross_entropy(clean, batch["label"]) + 6 * kl
    torch.testing.assert_close(losses["trades"], 0.5 * trades)
    torch.testing.assert_close(losses["teacher"], -0.5 * 4 * (p * (logits / 2).log_softmax(1)).sum(1).mean())


def test_mistakes_in_calibration_are_named(tmp_path: Path) -> None:
    file = teacher_file(tmp_path / "t.safetensors")
    with pytest.raises(ConfigError, match="teacher gives 7 classes and the student 10"):
        LabelCalibration(digits(), DigitsCNN(), [file], teacher_network=DigitsCNN(classes=7))
    with pytest.raises(ConfigError, match="name at least one weights file"):
        LabelCalibration(digits(), DigitsCNN(), [])
    with pytest.raises(ConfigError, match="temperature: -1"):
        LabelCalibration(digits(), DigitsCNN(), [file], temperature=-1)
    with pytest.raises(ConfigError, match="soft_label is a cross-entropy"):
        LabelCalibration(digits(), DigitsCNN(), [file], loss="soft_label", method="trades")
    save_weights(tmp_path / "seven.safetensors", DigitsCNN(width=4, classes=7), {})
    with pytest.raises(ConfigError, match="teacher gives 7 classes and the student 10"):
        LabelCalibration(digits(), DigitsCNN(width=4), [str(tmp_path / "seven.safetensors")]).before_training()
    with pytest.raises(CheckpointError, match="another shape"):
        LabelCalibration(digits(), DigitsCNN(width=8), [file]).before_training()


def recipe(tmp_path: Path, task: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": "run",
        "output": str(tmp_path),
        "data": {"type": "digits", "normalise": False, "limit": 40, "test_share": 0.5, **more.pop("data", {})},
        "task": task,
        "optimizer": {"type": "sgd", "lr": 0.05},
        "trainer": {"epochs": 2, "batch_size": 16, "workers": 0, **more.pop("trainer", {})},
        **more,
    }


def run(tmp_path: Path, tree: dict[str, Any], *options: str) -> Path:
    file = tmp_path / "recipe.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(from_tree(tree).yaml)
    assert train([str(file), *options]) == 0
    return tmp_path / tree["name"]


SMALL = {"type": "digits_cnn", "width": 4}
QUICK = {"threat": {"eps": 0.1}, "attack": {"steps": 2}, "judge": {"steps": 2, "start": "zero"}}
APART = {
    "type": "apart", "network": SMALL, "layers": ["layers.3"], "strength_lr": 1e-4,
    "threat": {"eps": 0.1}, "judge": {"steps": 2, "start": "zero"},
}  # fmt: skip


def test_apart_trains_and_its_strengths_move_and_stay_out_of_the_optimiser(tmp_path: Path) -> None:
    data = digits(augment=(), crop_padding=1)
    task = ApartClassification(data, PreActResNet(4, (4, 6), 1, 10, 1), ["stages.*.conv1"], strength_lr=1e-3)
    task.before_training()
    task.train()
    batch = a_batch(data)
    before = task.strengths()
    assert list(before) == ["step", "start_scale", "stages.0.0.conv1", "stages.1.0.conv1"]
    strengths = {id(p) for p in task.apart.parameters()}
    assert not any(id(p) in strengths for group in task.parameter_groups() for p in group["params"])
    assert task.directions is not None
    start = task.directions.values.copy()
    context = StepContext(5, 10, 0)
    (losses,) = task.training_step(batch, context)
    losses["cross_entropy"].backward()
    task.after_step(context)
    assert all(value != before[name] for name, value in task.strengths().items())
    moved = np.abs(task.directions.values - start).reshape(len(start), -1).max(axis=1) > 0
    rows = {name: place for place, name in enumerate(data.train().images.ids)}  # type: ignore[attr-defined]
    assert set(np.flatnonzero(moved)) == {rows[name] for name in batch["id"]}
    assert np.abs(task.directions.values).max() <= 1


def test_a_new_run_draws_directions_anew_where_a_file_is_there_and_a_resumed_one_keeps_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, data = tmp_path / "omega.npy", digits(augment=(), crop_padding=1)
    batch = a_batch(data)

    def begun(step: int) -> np.ndarray:
        torch.manual_seed(0)
        task = ApartClassification(data, DigitsCNN(width=4), directions=str(file))
        task.before_training()
        list(task.train().training_step(batch, StepContext(step, 10, 0)))
        assert task.directions is not None
        return np.array(task.directions.values)

    first = begun(0)
    assert 0 < np.abs(first).max() < 0.01 and not caplog.records
    np.save(file, np.full_like(first, 0.5))
    assert (begun(3) == 0.5).all() and not caplog.records
    np.testing.assert_array_equal(begun(0), first)
    assert "drawn anew" in caplog.text


def test_apart_resumes_exactly(tmp_path: Path) -> None:
    """A whole run, and one that is killed and goes on: the same weights, strengths and directions."""
    whole = run(tmp_path / "a", recipe(tmp_path / "a", APART, trainer={"epochs": 3}, schedule={"type": "triangular"}))
    tree = recipe(tmp_path / "b", APART, trainer={"epochs": 3, "save_every_steps": 2}, schedule={"type": "triangular"})
    import vision.engine.trainer as engine

    class Killed(BaseException):
        pass

    kept = engine.Trainer.update

    def killed(self: Any, *given: Any) -> None:
        if self.progress.step == 5:
            raise Killed
        kept(self, *given)

    engine.Trainer.update = killed  # type: ignore[method-assign]
    try:
        with pytest.raises(Killed):
            run(tmp_path / "b", tree)
    finally:
        engine.Trainer.update = kept  # type: ignore[method-assign]
    again = run(tmp_path / "b", tree, "--resume")
    a, b = (read_resume(folder / "checkpoints" / "last.resume")["task"] for folder in (whole, again))
    assert a.keys() == b.keys()
    for name, value in a.items():
        for mine, other in zip(_tensors(value), _tensors(b[name]), strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=0, msg=name)


def _tensors(value: Any) -> list[torch.Tensor]:
    return list(value.values()) if isinstance(value, dict) else [value]


def test_mistakes_in_apart_are_named() -> None:
    with pytest.raises(ConfigError, match=r"set data.augment: \[\]"):
        ApartClassification(digits(augment=("crop",)), DigitsCNN())
    with pytest.raises(ConfigError, match=r"no module 'network\.layer\.3'"):
        ApartClassification(digits(), DigitsCNN(), ["layer.3"])
    with pytest.raises(ConfigError, match="8/255 was likely meant"):
        ApartClassification(digits(), DigitsCNN(), eps=8)
    with pytest.raises(ConfigError, match="cycles 0 1 or more"):
        ApartClassification(digits(), DigitsCNN(), cycles=0)
    with pytest.raises(ConfigError, match="'zero' goes with network_lr"):
        ApartClassification(digits(), DigitsCNN(), zero_grad="zero")


def test_teacher_search_student_is_one_recipe_that_resumes(tmp_path: Path) -> None:
    tree = recipe(tmp_path, {"type": "adversarial_classification", "method": "pgd", "network": SMALL, **QUICK})
    name, output = tree.pop("name"), tree.pop("output")
    student = {"type": "label_calibration", "network": SMALL, **QUICK, "teachers": ["${stages.teacher.best}"]}
    found = {key: f"${{stages.search.result.{key}}}" for key in ("temperature", "weight")}
    search = {"type": "calibration_search", "teacher": "${stages.teacher.run}", "attack": {"steps": 2}}
    stages = [
        {"name": "teacher"},
        {"name": "search", "step": search},
        {"name": "student", "task": {**student, **found}},
    ]
    tree = {"name": name, "output": output, **tree, "stages": stages}
    assert run(tmp_path, tree, "--dry-run").exists() is False
    folder = run(tmp_path, tree)
    calibration = json.loads((folder / "search" / "calibration.json").read_text())
    assert calibration["split"] == "val" and calibration["train_accuracy"] >= 0.9
    assert (folder / "search" / "surface.png").stat().st_size > 5000
    caches = sorted(p.name[:10] for p in (folder / "search" / "logits").iterdir())
    assert caches == ["best_train", "best_val_0"[:9] + caches[1][9:], "last_val_0"[:9] + caches[2][9:]]
    done = json.loads((folder / "student" / "done.json").read_text())
    assert done["config"]["task"]["weight"] == "${stages.search.result.weight}"
    before = [p.stat().st_mtime_ns for p in sorted((folder / "search" / "logits").iterdir())]
    (folder / "search" / "done.json").unlink()
    (folder / "student" / "done.json").unlink()
    run(tmp_path, tree, "--resume")
    assert before == [p.stat().st_mtime_ns for p in sorted((folder / "search" / "logits").iterdir())], "attacked again"


@pytest.mark.slow
def test_a_pipeline_killed_in_every_stage_ends_with_the_same_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def tree(folder: Path) -> dict[str, Any]:
        made = recipe(folder, {"type": "adversarial_classification", "network": SMALL, **QUICK})
        student = {"type": "label_calibration", "network": SMALL, **QUICK, "teachers": ["${stages.teacher.best}"]}
        found = {key: f"${{stages.search.result.{key}}}" for key in ("temperature", "weight")}
        search = {"type": "calibration_search", "teacher": "${stages.teacher.run}", "attack": {"steps": 1}}
        stages = [{"name": "teacher"}, {"name": "search", "step": search}, {"name": "student", "task": student | found}]
        return {**made, "stages": stages}

    whole = run(tmp_path / "whole", tree(tmp_path / "whole"))
    places = [(AdversarialClassification, "after_epoch"), (CalibrationSearch, "_logits"), (LabelCalibration, "losses")]
    for number, (cls, name) in enumerate(places):
        kept, calls = getattr(cls, name), []

        def killed(self: Any, *given: Any, kept: Any = kept, calls: list[int] = calls) -> Any:
            calls.append(1)
            if len(calls) == 2:
                raise Killed
            return kept(self, *given)

        with monkeypatch.context() as patch:
            patch.setattr(cls, name, killed)
            with pytest.raises(Killed):
                run(tmp_path / "cut", tree(tmp_path / "cut"), *(["--resume"] if number else []))
    cut = run(tmp_path / "cut", tree(tmp_path / "cut"), "--resume")
    for stage in ("teacher", "student"):
        a, b = (read_weights(folder / stage / "checkpoints" / "last.safetensors").tensors for folder in (whole, cut))
        assert all(torch.equal(a[name], b[name]) for name in a), stage


def test_tracked_runs_make_subsets_that_runs_train_on(tmp_path: Path) -> None:
    task = {"type": "adversarial_classification", "method": "pgd", "network": SMALL, **QUICK}
    tree = recipe(tmp_path, task)
    name, output = tree.pop("name"), tree.pop("output")
    tracked = {"track_stability": True}
    ranking = {"type": "stability_rank", "runs": ["${stages.profile0.run}", "${stages.profile1.run}"], "count": 20}
    stages = [
        {"name": "profile0", "seed": 0, "task": tracked},
        {"name": "profile1", "seed": 1, "task": tracked},
        {"name": "rank", "step": ranking},
        {"name": "friendly", "data": {"subset": "${stages.rank.result.friendly}"}},
    ]
    tree = {"name": name, "output": output, **tree, "stages": stages}
    run(tmp_path, tree, "--dry-run")
    folder = run(tmp_path, tree)
    chosen = {kind: read_subset(folder / "rank" / f"{kind}.txt", 1797) for kind in ("friendly", "problematic")}
    assert not set(chosen["friendly"]) & set(chosen["problematic"])
    with np.load(folder / "rank" / "seed0.npz") as first, np.load(folder / "rank" / "rank.npz") as merged:
        trained = first["count_wrong"] >= 0
        assert trained.sum() == 40 and first["count_wrong"].max() <= 2
        assert np.array_equal(np.isnan(merged["rank"]), ~trained)
        assert set(chosen["friendly"]) <= set(np.flatnonzero(trained))
    summary = json.loads((folder / "rank" / "data_quality.json").read_text())
    assert summary["classes"]["friendly"] == [2] * 10 and len(summary["spearman_between_runs"]) == 1
    later = StabilityRank([str(folder / "profile0")], count=20, start_epoch=1)
    (tmp_path / "later").mkdir()
    later.run(tmp_path / "later")
    with np.load(tmp_path / "later" / "seed0.npz") as again:
        assert again["count_wrong"].max() <= 1 and set(np.unique(again["stability"][trained])) <= {0.0, 1.0}
    with pytest.raises(DataError, match="2 epochs have finished, none counts from 2 on"):
        StabilityRank([str(folder / "profile0")], count=20, start_epoch=2).run(tmp_path / "none")
    state = read_resume(folder / "friendly" / "checkpoints" / "last.resume")
    assert state["samples"] == 20


def test_subsets_leave_held_out_images_held_out(tmp_path: Path) -> None:
    everything = np.arange(1797)
    save_subset(tmp_path / "all.txt", everything)
    plain, chosen = digits(limit=None), digits(limit=None, subset=str(tmp_path / "all.txt"))
    assert chosen.train().images.ids == plain.train().images.ids  # type: ignore[attr-defined]
    assert chosen.val().images.ids == plain.val().images.ids  # type: ignore[attr-defined]
    places = [int(name.split("/")[1]) for name in plain.train().images.ids[:5]]  # type: ignore[attr-defined]
    for form in ("five.npy", "five.npz"):
        path = tmp_path / form
        np.save(path, places) if form.endswith("npy") else np.savez(path, indices=places)
        five = digits(limit=None, subset=str(path)).train()
        assert five.images.ids == plain.train().images.ids[:5]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\n1797\n", "1797 is out of range"),
        ("3\n5\n3\n", "3 stands 2 times"),
        ("a\n", "be read"),
        ("", "expected one"),
    ],
)
def test_mistakes_in_index_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "subset.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        digits(subset=str(tmp_path / "subset.txt")).train()
    with pytest.raises(DataError, match="no such index file"):
        digits(subset=str(tmp_path / "none.txt")).train()


def test_an_untracked_run_cannot_be_ranked(tmp_path: Path) -> None:
    task = {"type": "adversarial_classification", "method": "fgsm", "network": SMALL, "judge": {"steps": 1}}
    folder = run(tmp_path, recipe(tmp_path, task, trainer={"epochs": 1}))
    step = {"name": "rank", "step": {"type": "stability_rank", "runs": [str(folder)]}}
    with pytest.raises(UserError, match=r"task\.track_stability: true"):
        run(tmp_path, {"name": "ranked", "output": str(tmp_path), "stages": [step]})


def test_agreement_is_spearmans() -> None:
    a = np.array([0.0, 0.25, np.nan, 0.5, 0.75])
    assert agreement(a, a) == pytest.approx(1)
    assert agreement(a, np.array([0.75, 0.5, 0.1, 0.25, 0.0])) == pytest.approx(-1)
