"""Adversarial training: losses against recorded values, averaging in closed form, refusals, and a run that resumes."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from robust.adversarial import AdversarialClassification, Attack, AttackedScores, trades_loss
from robust.attacks import pgd
from robust.averaging import WeightAverage, renew_statistics
from robust.threat import ThreatModel
from vision.classification import Digits, DigitsCNN, Normalised
from vision.engine.errors import ConfigError
from vision.engine.task import Batch, StepContext

CONTEXT = StepContext(0, 10, 0)


def digits() -> Digits:
    return Digits(normalise=False, limit=40)


def batch_of(task: AdversarialClassification, size: int = 8) -> Batch:
    data = task.val_data()
    return task.collate([data[i] for i in range(size)])


@pytest.mark.data
def test_trades_loss_equals_the_recorded_one(
    recorded: dict[str, NDArray[np.float64]], recorded_network: nn.Module
) -> None:
    clean, attacked = (recorded_network(torch.from_numpy(recorded[k])) for k in ("x_pixel", "trades_x_adv_pixel"))
    found = trades_loss(clean, attacked, torch.from_numpy(recorded["y"]), beta=6.0)
    assert float(found.detach()) == pytest.approx(2.799070808820084, rel=1e-9)


@pytest.mark.parametrize(("method", "steps"), [("pgd", 10), ("fgsm", 1)])
def test_the_loss_is_the_cross_entropy_of_attacked_images(method: str, steps: int) -> None:
    task = AdversarialClassification(digits(), DigitsCNN(norm="none"), method=method)  # type: ignore[arg-type]
    batch = batch_of(task)
    torch.manual_seed(3)
    (losses,) = task.training_step(batch, CONTEXT)
    torch.manual_seed(3)
    threat, start = ThreatModel(), "random" if steps > 1 else "zero"
    step_size = 2 / 255 if steps > 1 else 8 / 255
    attacked = pgd(task.network, batch["image"], batch["label"], threat, steps=steps, step_size=step_size, start=start)
    assert torch.equal(losses["cross_entropy"], F.cross_entropy(task.network(attacked), batch["label"]))
    clean = F.cross_entropy(task.network(batch["image"]), batch["label"])
    assert losses["cross_entropy"].item() > clean.item()


def test_standard_training_attacks_nothing_and_is_plain_cross_entropy() -> None:
    task = AdversarialClassification(digits(), DigitsCNN(norm="none"), method="standard")
    batch = batch_of(task)
    (losses,) = task.training_step(batch, CONTEXT)
    assert torch.equal(losses["cross_entropy"], F.cross_entropy(task.network(batch["image"]), batch["label"]))


def test_clean_share_mixes_the_two_losses() -> None:
    task = AdversarialClassification(digits(), DigitsCNN(norm="none"), clean_share=0.25)
    batch = batch_of(task)
    attacked = task.attacked(batch)
    losses = task.losses(batch, attacked, CONTEXT)
    clean, hard = (F.cross_entropy(task.network(x), batch["label"]) for x in (batch["image"], attacked))
    total = sum(v for k, v in losses.items() if not k.startswith("_"))
    assert torch.allclose(torch.as_tensor(total), 0.25 * clean + 0.75 * hard)


def test_a_step_leaves_mode_and_statistics_to_the_loss_alone() -> None:
    task = AdversarialClassification(digits(), DigitsCNN(), method="pgd").train()
    list(task.training_step(batch_of(task), CONTEXT))
    norm = next(m for m in task.network.modules() if isinstance(m, nn.BatchNorm2d))
    assert task.network.training and int(norm.num_batches_tracked) == 1  # the attack's ten passes do not count


def test_normalisation_lies_in_the_network() -> None:
    task = AdversarialClassification(digits(), DigitsCNN(norm="none"))
    assert isinstance(task.network, Normalised)
    assert task.network.mean.flatten().tolist() == pytest.approx(task.data.mean)
    image = torch.rand(2, 1, 8, 8)
    plain = task.network.network((image - 0.3053) / 0.3760)
    assert torch.allclose(task.network(image), plain, atol=1e-6)


def test_predictions_tell_both_sides_and_files_without_labels_the_clean_one() -> None:
    task = AdversarialClassification(digits(), DigitsCNN(norm="none")).eval()
    batch = batch_of(task)
    with torch.no_grad():
        found = task.predict(batch)
        assert all(isinstance(s, AttackedScores) and s.attacked_logits is not None for s in found)
        del batch["label"]
        assert "attacked_label" not in task.predict(batch)[0].to_dict()


def test_robust_figures_are_those_of_the_attacked_logits() -> None:
    task = AdversarialClassification(digits(), DigitsCNN(norm="none")).eval()
    batch, metric = batch_of(task, 20), task.metric()
    with torch.no_grad():
        metric.update(task.predict(batch), batch)
    attacked = pgd(task.network, batch["image"], batch["label"], ThreatModel(), start="zero")
    right = (task.network(attacked).argmax(1) == batch["label"]).double().mean()
    assert metric.compute()["robust_accuracy"] == pytest.approx(float(right))
    assert metric.primary == "robust_accuracy" and set(metric.others) <= set(metric.compute())


def test_the_average_is_the_mean_of_the_weights_and_is_used_in_eval_mode_only() -> None:
    torch.manual_seed(0)
    average = WeightAverage(nn.Linear(3, 2)).train()
    seen: list[Tensor] = []
    for _ in range(4):
        with torch.no_grad():
            average.trained.weight.normal_()
        seen.append(average.trained.weight.detach().clone())
        average.add()
    mean = torch.stack(seen).mean(0)
    assert torch.allclose(average.average.weight, mean, atol=1e-6)
    x = torch.rand(5, 3)
    assert torch.equal(average(x), average.trained(x))
    assert torch.equal(average.eval()(x), average.average(x))
    assert all(not p.requires_grad for p in average.average.parameters())


def test_an_average_of_nothing_is_the_trained_network_also_after_loading() -> None:
    average, x = WeightAverage(nn.Linear(3, 2)).eval(), torch.rand(2, 3)
    with torch.no_grad():
        average.trained.weight.add_(1)
    assert torch.equal(average(x), average.trained(x))
    average.add()
    fresh = WeightAverage(nn.Linear(3, 2))
    fresh.load_state_dict(average.state_dict())
    assert torch.equal(fresh.eval()(x), average(x)) and int(fresh.count) == 1


def test_renewed_statistics_are_those_of_all_samples() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(3).eval()
    data = torch.randn(10, 3, dtype=torch.float32) * 4 + 2
    renew_statistics(norm, data.split(4))  # 4, 4 and 2 samples
    assert torch.allclose(norm.running_mean, data.mean(0), atol=1e-5)
    expected = (data[:4].var(0) * 4 + data[4:8].var(0) * 4 + data[8:].var(0) * 2) / 10
    assert torch.allclose(norm.running_var, expected, atol=1e-4)
    assert not norm.training and norm.momentum == 0.1


def test_averaging_begins_after_the_named_epoch_and_leaves_training_as_it_was() -> None:
    task = AdversarialClassification(digits(), DigitsCNN(), swa_start=2).train()
    assert isinstance(task.network, WeightAverage)
    before = copy.deepcopy(task.network.trained.state_dict())
    for epoch, count in ((1, 0), (2, 0), (3, 1), (4, 2)):
        task.after_epoch(epoch)
        assert int(task.network.count) == count
    after = task.network.trained.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    names = {id(p) for group in task.parameter_groups() for p in group["params"]}
    assert names == {id(p) for p in task.network.trained.parameters()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "standard", "attack": Attack()}, "makes no attack"),
        ({"method": "trades", "attack": Attack()}, "set loss: kl"),
        ({"method": "fgsm", "attack": Attack(steps=2)}, "takes 1 step"),
        ({"method": "trades", "clean_share": 0.5}, "its own loss"),
        ({"clean_share": 1.5}, "within"),
        ({"beta": -1.0}, "0 or more"),
        ({"swa_start": -1}, "below 0"),
        ({"track_in_eval": True}, "track_stability: true"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AdversarialClassification(digits(), DigitsCNN(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "-1 steps"),
        ({"restarts": 0}, "0 restarts"),
        ({"step_size": float("nan")}, "no length"),
        ({"start": "one"}, "zero, random"),
        ({"start": "zero", "restarts": 2}, "repeat"),
        ({"start": "zero", "loss": "kl"}, "no gradient"),
        ({"loss": "hinge"}, "unknown"),
        ({"loss": "targeted"}, "needs a target"),
    ],
)
def test_an_attack_that_makes_no_sense_is_refused_before_anything_runs(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Attack(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("in_eval", [False, True])
def test_samples_are_tracked_by_the_pass_that_trains_or_in_eval_mode(in_eval: bool) -> None:
    torch.manual_seed(0)
    task = AdversarialClassification(
        digits(), DigitsCNN(width=4), attack=Attack(steps=2, start="zero"), track_stability=True, track_in_eval=in_eval
    )
    task.before_training()
    data = task.train_data()
    batch = task.collate([data[i] for i in range(8)])
    attacked = task.eval().attacked(batch)
    with torch.no_grad():
        passes = {False: copy.deepcopy(task.network).train()(attacked), True: task.network.eval()(attacked)}
    assert not torch.equal(passes[False].argmax(1), passes[True].argmax(1))  # the two would be told apart
    list(task.train().training_step(batch, CONTEXT))
    assert task.stability is not None and task.stability.tracker is not None
    begun = task.stability.tracker.begun()
    assert begun["right"][begun["seen"]].sum() == int((passes[in_eval].argmax(1) == batch["label"]).sum())
    assert task.network.training


def test_normalised_data_is_refused_with_the_fix() -> None:
    with pytest.raises(ConfigError, match="normalise: false"):
        AdversarialClassification(Digits(), DigitsCNN())


def test_a_run_that_was_killed_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tools.train import main
    from vision.engine.checkpoint import read_weights

    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "name: r\n"
        "task: {type: adversarial_classification, network: {type: digits_cnn, width: 4}, method: trades, swa_start: 1,"
        " attack: {steps: 2, loss: kl}, judge: {steps: 2, start: zero}}\n"
        "data: {type: digits, normalise: false, limit: 40}\n"
        "optimizer: {type: sgd, lr: 0.05}\n"
        "trainer: {epochs: 3, batch_size: 20, device: cpu}\n"
    )
    assert main([str(recipe), f"output={tmp_path / 'whole'}"]) == 0
    epoch = AdversarialClassification.after_epoch

    def killed(self: AdversarialClassification, number: int) -> None:
        if number == 3:
            raise KeyboardInterrupt
        epoch(self, number)

    monkeypatch.setattr(AdversarialClassification, "after_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        main([str(recipe), f"output={tmp_path / 'cut'}"])
    monkeypatch.setattr(AdversarialClassification, "after_epoch", epoch)
    assert main([str(recipe), f"output={tmp_path / 'cut'}", "--resume"]) == 0
    whole, cut = (
        read_weights(tmp_path / w / "r" / "checkpoints" / "last.safetensors").tensors for w in ("whole", "cut")
    )
    assert int(whole["count"]) == 2
    assert all(torch.equal(whole[k], cut[k]) for k in whole)


def test_averaging_takes_the_batches_of_an_epoch_whatever_this_process_saw() -> None:
    """Resumed before an epoch's last, smaller batch, or as one of several processes, a task has seen others' shares."""
    task = AdversarialClassification(digits(), DigitsCNN(), swa_start=0).train()
    sizes: list[int] = []
    task.network.average.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))  # type: ignore[union-attr]
    for seen in (20, 3):  # one process, then a share of a batch
        for step in (0, 1):
            context = StepContext(step, 4, 0)
            batch = task.collate([task.train_data()[index] for index in range(seen)])
            task.before_step(context)
            for losses in task.training_step(batch, context):
                assert losses
        task.after_epoch(1)
        assert sizes == [20, 20]  # 40 images, two updates an epoch
        sizes.clear()
