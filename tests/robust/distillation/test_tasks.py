"""Teachers and students as tasks: losses against their parts, resuming, averaging, diagnostics, bad input."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robust.adversarial import AdversarialClassification
from robust.averaging import WeightAverage
from robust.distillation import (
    Distillation,
    IndexedDataset,
    LossWeights,
    Regularisation,
    RegularisedClassification,
    Regularisers,
    Seen,
    Taps,
    lipschitz_penalty,
    soft_label_loss,
)
from robust.distillation.comparison import as_markdown, compare
from robust.distillation.diagnostics import diagnose, total_variation
from tests.engine import harness
from vision.classification import Digits, DigitsCNN, load_weights
from vision.engine.checkpoint import read_resume, save_resume, save_weights
from vision.engine.config import load
from vision.engine.distributed import World
from vision.engine.errors import CheckpointError, ConfigError
from vision.engine.registry import build, entries
from vision.engine.run import RunFolder
from vision.engine.task import StepContext
from vision.engine.train import make_trainer, train_recipe

WORLD = World(torch.device("cpu"))
START = StepContext(0, 4, 0)


def _data(**options: Any) -> Digits:
    return Digits(limit=24, **options)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    torch.manual_seed(5)
    path = tmp_path / "teacher.safetensors"
    save_weights(path, DigitsCNN(width=8), {})
    return str(path)


def _student(weights: str, **options: Any) -> Distillation:
    torch.manual_seed(0)
    data = options.pop("data", None) or _data()
    task = Distillation(data, options.pop("network", DigitsCNN(width=4)), DigitsCNN(width=8), weights, **options)
    task.before_training()
    return task


def _batch(task: Any, count: int = 6) -> dict[str, Any]:
    data = task.train_data()
    batch: dict[str, Any] = task.collate([data[i] for i in range(count)])
    return batch


def test_kd_is_half_labels_and_half_soft_labels_of_a_teacher_that_stays_in_eval(weights: str) -> None:
    task = _student(weights)
    task.train()
    batch = _batch(task)
    teacher = DigitsCNN(width=8)
    load_weights(teacher, weights)
    before = {name: value.clone() for name, value in task.teacher.network.state_dict().items()}
    losses = next(task.training_step(batch, START))
    with torch.no_grad():
        soft = teacher.eval()(batch["image"])
        logits = task.network.train()(batch["image"])
    assert losses["cross_entropy"].item() == pytest.approx(0.5 * F.cross_entropy(logits, batch["label"]).item())
    assert losses["soft_labels"].item() == pytest.approx(0.5 * soft_label_loss(logits, soft, 4.0).item(), rel=1e-5)
    assert not task.teacher.network.training
    assert all(torch.equal(value, before[name]) for name, value in task.teacher.network.state_dict().items())
    assert not any("teacher" in name for name in task.state_dict())
    assert not any(p.requires_grad for p in task.teacher.network.parameters())


@pytest.mark.parametrize("name", [entry.name for entry in entries("distiller")])
def test_every_distiller_trains_a_student(name: str, weights: str) -> None:
    """After one update of the student by gradients alone the loss on the same batch is smaller."""
    block: dict[str, Any] = {"type": name}
    if name == "crd":
        block["negatives"] = 20
    if name in ("fsp", "kdsvd"):  # they ask for equal channels
        network, options = DigitsCNN(width=8), {}
    else:
        network, options = DigitsCNN(width=4), {}
    if name == "fsp":
        stem = Taps(stem="layers.0")
        options = {"student_taps": stem, "teacher_taps": stem}
    task = _student(weights, distiller=block, network=network, **options)
    task.train()
    batch = _batch(task, 12)
    for epoch in {0, task.distiller.initial_epochs}:
        losses = next(task.training_step(batch, StepContext(0, 4, epoch)))
        parts = {key: value for key, value in losses.items() if not key.startswith("_")}
        assert parts and all(torch.isfinite(value) and not value.ndim for value in parts.values())
        task.zero_grad()
        sum(parts.values()).backward()  # type: ignore[union-attr]
        found = [p.grad for p in task.parameters() if p.grad is not None]
        assert found and all(torch.isfinite(g).all() for g in found)
        assert sum(float(g.abs().sum()) for g in found) > 0


def test_a_distillers_own_layers_are_trained_and_kept_for_resuming(weights: str) -> None:
    task = _student(weights, distiller={"type": "vid"})
    learned = {id(p) for p in task.distiller.layers.parameters()}
    assert learned and learned <= {id(p) for group in task.parameter_groups() for p in group["params"]}
    assert any(name.startswith("learned.") for name in task.state_dict())
    assert not any("learned" in name for name in task.network.state_dict())


def test_cached_logits_are_the_teachers_and_it_is_asked_once(weights: str) -> None:
    cached, fresh = _student(weights, cache_teacher=True), _student(weights)
    batch = _batch(cached)
    first = next(cached.training_step(batch, START))["soft_labels"]
    assert first.item() == pytest.approx(next(fresh.training_step(batch, START))["soft_labels"].item(), rel=1e-5)
    cached.teacher.network = nn.Identity()  # who asks it now gets no logits
    assert torch.isfinite(next(cached.training_step(batch, START))["soft_labels"])


SPIKING = {"type": "spiking_mlp", "inputs": 64, "hidden": [24], "steps": 3, "output": "logits"}
TIMM = {"type": "timm", "model": "test_resnet", "in_channels": 1}
SMALL = {"type": "digits_cnn", "width": 8}


@pytest.mark.parametrize("distiller", ["kd", "pkt"])
@pytest.mark.parametrize(
    ("student", "teacher"), [(SPIKING, SMALL), (SMALL, SPIKING), (TIMM, SMALL), (SMALL, TIMM)], ids=str
)
def test_timm_and_spiking_networks_learn_and_teach(
    student: dict[str, Any], teacher: dict[str, Any], distiller: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network, master = (build({"classes": 10, **block}, "network") for block in (student, teacher))
    save_weights(tmp_path / "teacher.safetensors", master, {})
    task = Distillation(_data(), network, master, str(tmp_path / "teacher.safetensors"), {"type": distiller})
    task.before_training()
    task.train()
    optimizer = torch.optim.Adam(task.parameter_groups(), lr=3e-3)
    batch, values = _batch(task, 12), []
    for step in range(8):
        losses = next(task.training_step(batch, StepContext(step, 8, 0)))
        total = torch.stack([value for name, value in losses.items() if not name.startswith("_")]).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        values.append(total.item())
    assert min(values[4:]) < values[0]


def test_distillers_compute_in_float32_under_autocast(weights: str) -> None:
    """The distance of RKD is a difference of near numbers: in bfloat16 it would be off by percents."""
    task = _student(weights, distiller={"type": "rkd"}, network=DigitsCNN(width=4, norm="none"))
    batch, read = _batch(task, 12), []
    own = task.distiller.losses

    def noted(student: Seen, teacher: Seen, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        read.append((student, teacher))
        return own(student, teacher, batch)

    task.distiller.losses = noted  # type: ignore[method-assign]
    with torch.autocast("cpu", torch.bfloat16):
        found = next(task.training_step(batch, START))["rkd_distance"].item()
    (student, teacher) = read[0]
    gaps = []
    for rows in (student.pooled, teacher.pooled):
        exact = rows.detach().double().numpy()
        apart = np.linalg.norm(exact[:, None] - exact[None], axis=2)
        gaps.append(apart / apart[apart > 0].mean())
    off = np.abs(gaps[0] - gaps[1])
    assert found == pytest.approx(25 * np.mean(np.where(off < 1, off**2 / 2, off - 0.5)), rel=1e-4)


def test_what_contradicts_a_cache(weights: str) -> None:
    with pytest.raises(ConfigError, match="must see the same augmented image"):
        _student(weights, cache_teacher=True, data=_data(augment=("crop",)))
    with pytest.raises(ConfigError, match="'vid' reads more than logits"):
        _student(weights, cache_teacher=True, distiller={"type": "vid"})


def test_initial_epochs_leave_some_to_the_student(weights: str) -> None:
    task = _student(weights, distiller={"type": "factor", "initial_epochs": 3})
    for step in range(2):  # two updates an epoch
        task.before_step(StepContext(step, 8, 0))
    task.after_epoch(1)  # four epochs
    task.before_step(StepContext(1, 6, 0))
    with pytest.raises(ConfigError, match=r"task.distiller.initial_epochs: 3 of 3 epochs .* set it below 3"):
        task.after_epoch(1)


def test_bad_students(weights: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task.teacher gives logits \[7\] and the data has 10 classes"):
        Distillation(_data(), DigitsCNN(width=4), DigitsCNN(classes=7), weights)
    with pytest.raises(ConfigError, match=r"task.student_taps: 'layer.2': DigitsCNN has no such module"):
        _student(weights, distiller={"type": "attention"}, student_taps=Taps(("layer.2",)))
    with pytest.raises(ConfigError, match=r"fitnet.stage: 9"):
        _student(weights, distiller={"type": "fitnet", "stage": 9})
    with pytest.raises(ConfigError, match=r"task.temperature: 0"):
        _student(weights, temperature=0.0)
    with pytest.raises(ConfigError, match=r"task.weights"):
        Distillation(_data(), DigitsCNN(width=4), DigitsCNN(width=8), weights, weights=LossWeights(kd=-1.0))
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        _student(str(tmp_path / "nothing.safetensors"))
    with pytest.raises(ConfigError, match=r"kdsvd needs equally many channels: 'layers.2' of the student gives"):
        _student(weights, distiller={"type": "kdsvd"})
    with pytest.raises(ConfigError, match=r"nothing is registered as 'atention'.*'attention'"):
        _student(weights, distiller={"type": "atention"})


# -- teachers --------------------------------------------------------------------------------------------------------


def test_the_teachers_loss_is_the_sum_of_its_terms() -> None:
    torch.manual_seed(0)
    task = RegularisedClassification(_data(), DigitsCNN(width=4), Regularisers(lipschitz=1e-3, consistency=0.5))
    task.before_training()
    task.train()
    batch = _batch(task)
    losses = next(task.training_step(batch, START))
    assert losses["lipschitz"].item() == pytest.approx(1e-3 * lipschitz_penalty(task.network).item())
    assert losses["consistency"].item() == 0
    before = task.regularisation.bank.table[:6].clone()  # type: ignore[union-attr]
    task.before_step(StepContext(4, 8, 1))  # four updates an epoch, so the run has two epochs
    batch["image"] = batch["image"].flip(-1)
    again = next(task.training_step(batch, StepContext(4, 8, 1)))
    p = task.network(batch["image"]).softmax(1)
    expected = 0.5 * (p - before).square().sum(1).mean().item()  # 0.5 * 2 / 2 in the last epoch
    assert again["consistency"].item() == pytest.approx(expected, rel=1e-5)


def _recipe(tmp_path: Path, task: str, epochs: int = 3) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"""\
name: run
data: {{type: digits, limit: 24}}
task: {task}
optimizer: {{type: sgd, lr: 0.05}}
trainer: {{epochs: {epochs}, batch_size: 8}}
output: {tmp_path}
""")
    return path


SPIKING_TEACHER = {**SPIKING, "hidden": [16]}
"""Its linear layers hold the traces of their inputs, and so are no leaves."""
EFFICIENT = {**TIMM, "model": "test_efficientnet"}
"""Nor are its BatchNorms, which hold their activations."""


@pytest.mark.parametrize("block", [SPIKING_TEACHER, TIMM, EFFICIENT, SMALL], ids=str)
def test_any_network_can_be_a_regularised_teacher(block: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = build({"classes": 10, **block}, "network")
    task = RegularisedClassification(_data(), network, Regularisers(lipschitz=1e-3))
    task.before_training()
    task.train()
    batch = _batch(task)
    losses = next(task.training_step(batch, START))
    expected = 0.0
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            expected += module.weight.abs().sum().item()
        elif isinstance(module, nn.Linear):
            expected += module.weight.abs().sum(0).max().item()
        elif isinstance(module, nn.BatchNorm2d):
            scales = module.weight.abs() / (module.running_var + module.eps).sqrt()  # type: ignore[operator]
            expected += scales.max().item()
    assert expected > 0
    assert losses["lipschitz"].item() == pytest.approx(1e-3 * expected, rel=1e-4)
    table = task.regularisation.bank.table  # type: ignore[union-attr]
    torch.testing.assert_close(table[:6].sum(1), torch.ones(6))
    assert table[6:].abs().sum() == 0


class RegularisedAttack(AdversarialClassification):
    """Another classification task that switches the terms on."""

    def train_data(self) -> Any:
        return IndexedDataset(super().train_data())

    def before_training(self) -> None:
        super().before_training()
        self.terms = Regularisation(Regularisers(lipschitz=1e-3), 24, 10)

    def before_step(self, context: StepContext) -> None:
        self.terms.before_step(context)

    def losses(self, batch: Any, attacked: torch.Tensor, context: StepContext) -> Any:
        logits = self.trained(attacked)
        return super().losses(batch, attacked, context) | self.terms.losses(self.trained, logits, batch)


def test_another_classification_task_switches_the_terms_on() -> None:
    """Two epochs of adversarial training: the bank holds what attacked images got, and comes with the task's state."""
    torch.manual_seed(0)
    data = _data(normalise=False)
    task = RegularisedAttack(data, DigitsCNN(width=4, norm="none"), "fgsm")
    trainer = harness.make_trainer(task, epochs=2, batch_size=24)
    harness.updates(trainer, 1)
    first = task.terms.bank.table.clone()  # type: ignore[union-attr]
    torch.testing.assert_close(first.sum(1), torch.ones(24))
    samples = [task.train_data()[place] for place in range(24)]
    batch = task.collate(samples)
    p = task.trained(task.attacked(batch)).softmax(1).detach()
    harness.updates(trainer, 1)
    assert task.terms.bank.epoch == 2  # type: ignore[union-attr]
    table = task.state_dict()["terms.bank.table"]
    torch.testing.assert_close(table, first + (p - first) / 3, rtol=1e-4, atol=1e-5)


def test_a_soteacher_fits_less_is_less_sure_and_has_smaller_layers() -> None:
    """What the terms are for, beside plain cross-entropy, on real digits."""
    found = []
    for terms in ({"lipschitz": 0.0, "consistency": 0.0}, {"lipschitz": 3e-3, "consistency": 1.0}):
        torch.manual_seed(0)
        data = Digits(limit=120, augment=("crop",), crop_padding=1)
        task = RegularisedClassification(data, DigitsCNN(width=8), Regularisers(**terms))  # type: ignore[arg-type]
        trainer = harness.make_trainer(task, epochs=12, batch_size=24)
        harness.updates(trainer, trainer.total)
        found.append(diagnose(task))
    plain, ours = found
    assert ours["train_nll"] > plain["train_nll"]
    assert ours["train_confidence"] < plain["train_confidence"]
    assert ours["lipschitz_sum"] < plain["lipschitz_sum"]


TEACHER = "{type: regularised_classification, network: {type: digits_cnn, width: 4}, regularise: {ranking: 1.0}%s}"


def test_a_resumed_teacher_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    recipe = load(_recipe(tmp_path, TEACHER % "")).recipe()
    whole = make_trainer(recipe, WORLD)
    _epochs(whole, 0, 3)
    begun = make_trainer(recipe, WORLD)
    _epochs(begun, 0, 2)
    resumed = make_trainer(recipe, WORLD)
    resumed.task.load_state_dict(begun.task.state_dict())
    resumed.optimizer.load_state_dict(begun.optimizer.state_dict())
    resumed.progress = begun.progress
    _epochs(resumed, 2, 3)
    bank = whole.task.regularisation.bank  # type: ignore[union-attr]
    assert torch.equal(resumed.task.regularisation.bank.table, bank.table)  # type: ignore[union-attr]
    for one, other in zip(whole.task.parameters(), resumed.task.parameters(), strict=True):
        assert torch.equal(one, other)


STUDENT = """\
{type: distillation, network: {type: digits_cnn, width: 4}, teacher: {type: digits_cnn, width: 8},
  teacher_weights: WEIGHTS, distiller: {type: DISTILLER}}"""


@pytest.mark.parametrize("distiller", ["crd, negatives: 20", "factor, initial_epochs: 1", "sskd, initial_epochs: 2"])
def test_a_resumed_student_goes_on_as_if_it_had_not_stopped(distiller: str, weights: str, tmp_path: Path) -> None:
    """With its memory and the distiller's own layers, within the initial stage or behind it."""
    block = STUDENT.replace("WEIGHTS", weights).replace("DISTILLER", distiller)
    recipe = load(_recipe(tmp_path, block)).recipe()
    whole, begun = make_trainer(recipe, WORLD), make_trainer(recipe, WORLD)
    _epochs(whole, 0, 3)
    _epochs(begun, 0, 1)
    resumed = make_trainer(recipe, WORLD, RunFolder.create(tmp_path / "run", "name: run\n", "0"))
    begun.run = resumed.run
    begun._save()
    resumed.resume()
    _epochs(resumed, 1, 3)
    assert harness.same(whole.task.state_dict(), resumed.task.state_dict())


def test_an_early_stopped_teacher_is_the_standard_run_at_that_epoch(tmp_path: Path) -> None:
    block = "{type: classification, network: {type: digits_cnn, width: 4}}\n"
    block += "schedule: {type: multistep, milestones: [2]}"
    long, short = (make_trainer(load(_recipe(tmp_path, block, epochs)).recipe(), WORLD) for epochs in (4, 2))
    _epochs(long, 0, 2)
    _epochs(short, 0, 2)
    assert harness.same(long.task.state_dict(), short.task.state_dict())
    assert long.optimizer.param_groups[0]["lr"] == 0.05
    _epochs(long, 2, 3)
    assert long.optimizer.param_groups[0]["lr"] == pytest.approx(0.005)  # the first epoch behind the milestone


def test_averaging_goes_on_with_the_batch_size_of_before_a_stop(tmp_path: Path) -> None:
    """A run that stops before the last, smaller batch of an epoch renews statistics as one in one go."""
    path = _recipe(tmp_path, TEACHER % ", swa_start: 0", epochs=1)
    path.write_text(path.read_text().replace("batch_size: 8", "batch_size: 10"))  # 10, 10 and 4 of 24
    recipe = load(path).recipe()
    tasks = []
    for stop in (None, 2):
        trainer = make_trainer(recipe, WORLD)
        harness.updates(trainer, stop or 3)
        if stop:
            state, progress, optimizer = trainer.task.state_dict(), trainer.progress, trainer.optimizer.state_dict()
            trainer = make_trainer(recipe, WORLD)
            trainer.task.load_state_dict(state)
            trainer.optimizer.load_state_dict(optimizer)
            trainer.progress = progress
            harness.updates(trainer, 1)
        trainer.task.after_epoch(1)
        tasks.append(trainer.task)
    assert harness.same(tasks[0].state_dict(), tasks[1].state_dict())


def _epochs(trainer: Any, first: int, last: int) -> None:
    class Silent:
        def train(self, *args: Any) -> None: ...
        def due(self, step: int) -> bool:
            return False

    for epoch in range(first, last):
        trainer.task.train()
        shares = trainer.plan.shares(epoch)
        batches = trainer.batches(shares, epoch)
        for update in shares:
            trainer.update(update, batches, Silent())
        trainer.task.after_epoch(epoch + 1)


def test_a_bank_of_another_size_on_resume(tmp_path: Path) -> None:
    def teacher(limit: int) -> RegularisedClassification:
        task = RegularisedClassification(Digits(limit=limit), DigitsCNN(width=4))
        task.before_training()
        return task

    with pytest.raises(CheckpointError, match="has 24 samples and 10 classes, this one 20 and 10"):
        teacher(20).load_state_dict(teacher(24).state_dict())


def test_a_bank_of_another_size_is_refused_by_a_resumed_run(tmp_path: Path) -> None:
    """The state of a run over as many samples, whose bank has another number of classes."""
    recipe = load(_recipe(tmp_path, TEACHER % "")).recipe()
    run = RunFolder.create(tmp_path / "run", "name: run\n", "0")
    trainer = make_trainer(recipe, WORLD, run)
    trainer._save()
    state = read_resume(run.resume_state)
    state["task"]["regularisation.bank.table"] = torch.zeros(24, 7)
    save_resume(run.resume_state, {key: value for key, value in state.items() if key != "format"})
    with pytest.raises(CheckpointError, match=r"bank.table|24 samples and 7 classes"):
        make_trainer(recipe, WORLD, run).resume()


def test_averaged_weights_are_judged_and_teach(tmp_path: Path) -> None:
    config = load(_recipe(tmp_path, TEACHER % ", swa_start: 1"))
    outcome = train_recipe(config, tmp_path / "run", False, WORLD)
    assert outcome["result"]["test"]["accuracy"] > 0
    run = RunFolder(tmp_path / "run")
    task = Distillation(_data(), DigitsCNN(width=4), DigitsCNN(width=4), str(run.last))
    task.before_training()
    judged = WeightAverage(DigitsCNN(width=4))
    load_weights(judged, run.last)
    image = torch.randn(2, 1, 8, 8)
    assert int(judged.count) == 2
    torch.testing.assert_close(task.teacher.look(image).logits, judged.eval()(image))
    wrong = Distillation(_data(), DigitsCNN(width=4), DigitsCNN(width=8), str(run.last))
    with pytest.raises(CheckpointError, match="averaged weights are another network's"):
        wrong.before_training()


def test_bad_regularisers() -> None:
    for options in ({"lipschitz": -1.0}, {"consistency": -1.0}, {"temperature": 0.0}):
        with pytest.raises(ConfigError, match="regularise"):
            Regularisers(**options)
    with pytest.raises(ConfigError, match=r"task.swa_start"):
        RegularisedClassification(_data(), DigitsCNN(width=4), swa_start=-1)


# -- judging ---------------------------------------------------------------------------------------------------------


def test_diagnostics_of_a_network_that_knows_nothing() -> None:
    task = RegularisedClassification(_data(augment=("crop",), crop_padding=1), DigitsCNN(width=4))
    nn.init.zeros_(task.network.linear.weight)  # type: ignore[arg-type, union-attr]
    nn.init.zeros_(task.network.linear.bias)  # type: ignore[arg-type, union-attr]
    found = diagnose(task)
    assert found["val_nll"] == pytest.approx(np.log(10))
    assert found["train_confidence"] == pytest.approx(0.1)
    assert found["view_distance"] == 0
    assert found["view_agreement"] == 1
    assert found["lipschitz_sum"] == pytest.approx(lipschitz_penalty(task.network).item())
    assert list(found["lipschitz"])[-1] == "linear"


def test_diagnostics_by_formula_on_images_at_equal_distances() -> None:
    torch.manual_seed(0)
    task = RegularisedClassification(_data(), DigitsCNN(width=4))
    found = diagnose(task, limit=5)
    data = task.train_data()
    batch = task.collate([data[place] for place in (0, 6, 12, 17, 23)])  # of 24
    with torch.no_grad():
        logits = task.network.eval()(batch["image"])
    assert found["train_nll"] == pytest.approx(F.cross_entropy(logits, batch["label"]).item(), rel=1e-5)
    assert found["train_confidence"] == pytest.approx(logits.softmax(1).amax(1).mean().item(), rel=1e-5)
    assert found["view_distance"] == 0  # nothing is augmented
    val = task.val_data()
    batch = task.collate([val[place] for place in range(len(val))])  # type: ignore[arg-type]
    with torch.no_grad():
        logits = task.network(batch["image"])
    assert found["val_nll"] == pytest.approx(F.cross_entropy(logits, batch["label"]).item(), rel=1e-5)
    assert found["val_accuracy"] == pytest.approx((logits.argmax(1) == batch["label"]).float().mean().item())


def test_views_differ_where_images_are_augmented() -> None:
    torch.manual_seed(0)
    task = RegularisedClassification(_data(augment=("crop",), crop_padding=2), DigitsCNN(width=8))
    assert diagnose(task)["view_distance"] > 0
    assert total_variation(np.array([[0.0, 50.0]]), np.array([[50.0, 0.0]])) == pytest.approx(1)


def test_paired_differences_over_seeds() -> None:
    seeds = [{"standard/kd": 0.5, "ours/kd": 0.6}, {"standard/kd": 0.7, "ours/kd": 0.7}]
    base, ours = (row.to_dict() for row in compare(seeds, "standard"))
    assert base["difference"] == 0
    assert ours["difference"] == pytest.approx(0.05)
    assert ours["difference_std"] == pytest.approx(np.std([0.1, 0.0], ddof=1))
    assert "| ours | kd | 2 | 65.00 ± 7.07 | +5.00 ± 7.07 |" in as_markdown(compare(seeds, "standard"), "standard")
    with pytest.raises(ConfigError, match="there is no 'standard/at'"):
        compare([{"standard/kd": 0.5, "ours/at": 0.5}], "standard")
    with pytest.raises(ConfigError, match="expected a name like standard/kd"):
        compare([{"kd": 0.5}], "standard")
