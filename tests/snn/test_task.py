"""The task under the trainer: it learns, by every rule; precision, accumulation, resuming; what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from snn.event_data import EventsNpz
from snn.events import event_picture
from snn.networks import spiking_mlp, spiking_resnet18, spiking_vgg11
from snn.neurons import SequenceError
from snn.rules import neurons
from snn.task import SpikingClassification
from tests.engine.harness import fit, largest_difference, make_trainer, new_run, same, state, updates
from tests.engine.toy import PointsData
from tests.snn.test_event_data import many
from vision.classification import Digits
from vision.engine.errors import ConfigError
from vision.engine.evaluation import evaluate
from vision.engine.recipe import TrainerOptions
from vision.engine.task import StepContext

BEGIN = StepContext(0, 10, 0)
KINDS = ("weight", "bias")


def digits(hidden: int = 32, steps: int = 4, output: str = "spikes", **arguments: Any) -> SpikingClassification:
    torch.manual_seed(0)
    data = Digits(limit=100, **({"normalise": False} if arguments.get("encoding") == "poisson" else {}))
    network = spiking_mlp(64, [hidden], 10, steps=steps, output=output)  # type: ignore[arg-type]
    return SpikingClassification(data, network, **arguments)


def batch_of(task: SpikingClassification, count: int = 6) -> dict[str, Any]:
    data = task.train_data()
    return task.collate([data[k] for k in range(count)])


RULES = [("stop", "WTL", "spikes"), ("osstop", "WTL", "leaky"), ("ottt", "W", "spikes"), ("sltt", "W", "spikes"),
         ("bptt", "WTL", "spikes")]  # fmt: skip


@pytest.mark.parametrize(("rule", "learn", "output"), RULES)
@pytest.mark.parametrize("loss", ["ce", "mse"])
def test_every_rule_learns_digits_under_the_trainer(rule: str, learn: str, output: str, loss: str) -> None:
    if (rule, loss) == ("osstop", "mse"):
        return
    task = digits(rule=rule, learn=learn, output=output, loss=loss)
    options = TrainerOptions(epochs=1)
    before = evaluate(task, task.val_data(), make_trainer(task, epochs=1).world, options).metrics["accuracy"]
    adam = lambda groups: torch.optim.Adam(groups, lr=5e-3)  # noqa: E731
    trainer = make_trainer(task, optimizer=adam, epochs=25, batch_size=25, evaluate_every=25)
    fit(trainer)
    after = evaluate(task, task.val_data(), trainer.world, options).metrics["accuracy"]
    assert after > max(before, 0.1) + 0.4, (before, after)


def test_a_step_yields_the_loss_of_every_time_step() -> None:
    task = digits(steps=5)
    batch = batch_of(task)
    found = []
    for losses in task.training_step(batch, BEGIN):
        found.append(losses)
        losses["cross_entropy"].backward()
    assert len(found) == 5
    task.network.reset(5)
    expected = [F.cross_entropy(task.network.step(batch["image"]), batch["label"]) for _ in range(5)]
    torch.testing.assert_close(torch.stack([f["cross_entropy"] for f in found]), torch.stack(expected))
    assert set(found[-1]) == {"cross_entropy", "_threshold/neuron1", "_leak/neuron1"}
    assert all(set(f) == {"cross_entropy"} for f in found[:-1])


@pytest.mark.parametrize(("rule", "learn", "output"), RULES)
def test_passes_of_each_rule(rule: str, learn: str, output: str) -> None:
    task = digits(rule=rule, learn=learn, output=output)
    found = list(task.training_step(batch_of(task), BEGIN))
    assert len(found) == (4 if rule in ("stop", "ottt", "sltt") else 1)
    assert task.online


def test_the_squared_error_is_half_the_distance_to_one_hot() -> None:
    task = digits(loss="mse")
    output, labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]), torch.tensor([0, 2])
    assert task.criterion(output, labels)["squared_error"].item() == pytest.approx(0.5)


def test_groups_have_their_own_rate_and_no_decay() -> None:
    task = digits(neuron_lr=10.0)
    trainer = make_trainer(
        task, optimizer=lambda groups: torch.optim.SGD(groups, lr=0.02, weight_decay=0.1), steps=3, batch_size=8
    )
    updates(trainer, 1)
    groups = trainer.optimizer.param_groups
    assert [g["lr"] for g in groups] == pytest.approx([0.02, 0.2, 0.2])
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0, 0.0]
    assert [len(g["params"]) for g in groups] == [4, 1, 1]
    everything = digits(learn_output_neuron=True)
    assert [len(g["params"]) for g in everything.parameter_groups()] == [4, 2, 2]  # type: ignore[arg-type]
    assert len(digits(learn="T").parameter_groups()) == 1


def test_thresholds_and_leaks_stay_in_their_range_and_the_output_neurons_as_they_were() -> None:
    task = digits(neuron_lr=1000.0)
    trainer = make_trainer(task, steps=5, batch_size=20)
    updates(trainer, 5)
    hidden, output = neurons(task.network.body).values()
    assert hidden.v_threshold.item() >= 0.0999 and 0 <= hidden.leak.item() <= 0.9901
    assert (hidden.v_threshold.item(), hidden.leak.item()) != (1.0, 0.5)
    assert (output.v_threshold.item(), output.leak.item()) == (1.0, 0.5)


def weights(trainer: Any) -> dict[str, Tensor]:
    return state(trainer.task)


def test_accumulated_passes_are_one_batch() -> None:
    found = []
    for accumulate in (1, 3):
        trainer = make_trainer(digits(), steps=4, batch_size=10, accumulate=accumulate)
        updates(trainer, 4)
        found.append(weights(trainer))
    assert largest_difference(*found) < 1e-5


def weights_only(network: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def test_online_updates_are_those_of_a_loop_written_by_hand() -> None:
    task = digits(updates="online", neuron_lr=10.0)
    trainer = make_trainer(task, steps=3, batch_size=10, clip_norm=0.5)
    batches = [task.collate([task.train_data()[k] for k in s[0].indices]) for s in trainer.plan.shares(0)[:3]]
    network = digits().network
    hidden = neurons(network.body)["neuron1"]
    own = [hidden.v_threshold, hidden.leak]
    others = [network.get_parameter(f"body.{layer}.{kind}") for layer in ("linear1", "linear") for kind in KINDS]
    optimizer = torch.optim.SGD([{"params": others}, {"params": own, "lr": 0.5}], lr=0.05, momentum=0.9)
    for batch in batches:
        network.reset(4)
        for _ in range(4):
            F.cross_entropy(network.step(batch["image"]), batch["label"]).backward()
            torch.nn.utils.clip_grad_norm_([*others, *own], 0.5)
            optimizer.step()
            optimizer.zero_grad()
            hidden.leak.data.clamp_(0, 0.99)
            hidden.v_threshold.data.clamp_(0.1)
    before = weights_only(task.network)
    updates(trainer, 3)
    expected, found = weights_only(network), weights_only(task.network)
    assert trainer.progress.step == 3, "a step is a batch"
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7)
    assert max(float((found[name] - before[name]).abs().max()) for name in found) > 1e-2


def test_online_updates_that_hardly_move_are_the_accumulated_ones() -> None:
    """With a learning rate towards zero all steps see the same parameters; with a large one they do not."""
    moved: dict[tuple[str, float], dict[str, Tensor]] = {}
    for how in ("accumulated", "online"):
        for rate in (1e-4, 0.5):
            task = digits(updates=how, reduction="sum")
            before = weights_only(task.network)
            sgd = lambda groups, rate=rate: torch.optim.SGD(groups, lr=rate)  # noqa: E731
            updates(make_trainer(task, optimizer=sgd, steps=1, batch_size=20), 1)
            moved[how, rate] = {n: (p - before[n]) / rate for n, p in weights_only(task.network).items()}

    def apart(rate: float) -> float:
        pairs = [(moved["accumulated", rate][name], moved["online", rate][name]) for name in moved["online", rate]]
        return max(float((a - b).norm() / a.norm()) for a, b in pairs if a.norm() > 0)

    assert apart(1e-4) < 0.02 < 0.1 < apart(0.5)


@pytest.mark.parametrize(("rule", "learn"), [("stop", "WTL"), ("ottt", "W"), ("sltt", "W")])
def test_online_updates_learn_by_every_rule_that_has_them(rule: str, learn: str) -> None:
    task = digits(rule=rule, learn=learn, updates="online")
    adam = lambda groups: torch.optim.Adam(groups, lr=2e-3)  # noqa: E731
    trainer = make_trainer(task, optimizer=adam, epochs=15, batch_size=25, evaluate_every=15, ema=0.5)
    fit(trainer)
    assert trainer.progress.best is not None and trainer.progress.best > 0.5
    node = neurons(task.network.body)["neuron1"]
    assert node.v_threshold.item() > 0.0999 and 0 <= node.leak.item() <= 0.9901


def test_online_updates_of_a_batch_in_parts_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.accumulate: 2 with a task that updates after every backward pass"):
        make_trainer(digits(updates="online"), steps=2, batch_size=10, accumulate=2)


@pytest.mark.parametrize("how", ["accumulated", "online"])
def test_resuming_in_the_middle_of_an_epoch_is_bitwise_the_whole_run(tmp_path: Path, how: str) -> None:
    def trainer(folder: str) -> Any:
        options = {"epochs": 3, "batch_size": 30, "ema": 0.9, "save_every_steps": 2}
        return make_trainer(digits(encoding="poisson", updates=how), new_run(tmp_path / folder), **options)

    whole = fit(trainer("whole"))
    part = trainer("part")
    updates(part, 6)  # of four in an epoch
    part._save()
    again = fit(trainer("part"), resume=True)
    assert same(weights(whole), weights(again))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("how", ["accumulated", "online"])
def test_mixed_precision_learns_with_wide_parameters(precision: str, how: str) -> None:
    task = digits(updates=how)
    trainer = make_trainer(task, steps=6, batch_size=20, precision=precision)
    before = weights(trainer)
    updates(trainer, 6)
    after = weights(trainer)
    assert all(value.dtype == torch.float32 and torch.isfinite(value).all() for value in after.values())
    assert largest_difference(before, after) > 1e-3


def test_checkpointing_is_the_same_training() -> None:
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        task = SpikingClassification(
            Digits(limit=40), spiking_vgg11(in_channels=1, width=4, steps=2), checkpointing=checkpointing
        )
        trainer = make_trainer(task, steps=3, batch_size=8)
        updates(trainer, 3)
        found.append(weights(trainer))
    assert same(*found)


def test_an_interrupted_step_leaves_no_state() -> None:
    task = digits()
    steps = task.training_step(batch_of(task), BEGIN)
    next(steps)
    steps.close()
    list(task.training_step(batch_of(task, 3), BEGIN))


def test_of_equal_counts_the_first_class_is_taken() -> None:
    task = digits()
    for node in neurons(task.network).values():
        node.v_threshold.data.fill_(1e6)
    for prediction in task.eval().predict(batch_of(task)):
        assert (prediction.label, prediction.answers, prediction.decided) == ("0", ["0"] * 4, 1)
        assert prediction.firing_rate == 0 and prediction.confidence == pytest.approx(0.1)


# -- inputs ------------------------------------------------------------------------------------------------------------


def test_rows_come_one_a_step() -> None:
    data = Digits(limit=20, normalise=False)
    task = SpikingClassification(data, spiking_mlp(8, [16], 10), encoding="rows")
    batch = batch_of(task)
    x = task.inputs(batch)
    assert x.shape == (6, 8, 1, 1, 8)
    for t in range(8):
        assert torch.equal(x[:, t, 0, 0], batch["image"][:, 0, t])
    assert task.network(task.example_input()).shape == (1, 10)


def test_random_spikes_have_the_pixels_rate_and_do_not_change_an_evaluation() -> None:
    task = digits(encoding="poisson", steps=2000)
    batch = batch_of(task)
    torch.manual_seed(0)
    x = task.train().inputs(batch)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert (x.mean(1) - batch["image"]).abs().max() < 0.06
    assert not torch.equal(task.inputs(batch), x)
    alone = {k: v[2:3] for k, v in batch.items()}
    assert torch.equal(task.eval().inputs(batch)[2:3], task.inputs(alone))


def test_event_recordings_are_fed_frame_by_frame(tmp_path: Path) -> None:
    data = EventsNpz(root=str(many(tmp_path / "set.npz")), height=6, width=5, num_classes=3, frames=4, size=8)
    task = SpikingClassification(data, spiking_mlp(128, [16], 3))
    batch = batch_of(task)
    assert torch.equal(task.inputs(batch), batch["frames"])
    assert len(list(task.training_step(batch, BEGIN))) == 4
    assert task.network(task.example_input()).shape == (1, 3)
    predictions = task.eval().predict(batch)
    assert [len(p.answers) for p in predictions] == [4] * 6
    picture = predictions[0].draw(task.pictures(batch)[0], task.truths(batch)[0])
    assert picture.dtype.name == "uint8" and picture.shape[2] == 3
    wrong = {**batch, "frames": batch["frames"].transpose(0, 1)}
    with pytest.raises(
        SequenceError, match=r"frames of shape \[4, 6, 2, 8, 8\] for 6 samples; expected \[N, T, 2, H, W\]"
    ):
        list(task.training_step(wrong, BEGIN))


def test_a_picture_of_events_shows_polarities_in_colour() -> None:
    frames = torch.zeros(2, 2, 2, 2)
    frames[:, 1, 0, 0], frames[:, 0, 1, 1] = 2, 2
    picture = event_picture(frames.numpy())
    assert picture[0, 0].tolist() == [255, 0, 0] and picture[1, 1].tolist() == [0, 0, 255]
    assert picture[0, 1].tolist() == [255, 255, 255]


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": "osstop"}, r"osstop reads leaky logits; set task\.network\.output=leaky, not spikes"),
        ({"rule": "osstop", "output": "leaky", "loss": "mse"}, r"osstop has one cross-entropy"),
        (
            {"rule": "bptt", "updates": "online"},
            r"updates: online needs a loss after every time step, and bptt has one",
        ),
        ({"rule": "osstop", "output": "leaky", "updates": "online"}, r"and osstop has one a batch"),
        ({"rule": "ottt"}, r"teaches weights only; set learn: W"),
        ({"threshold_min": 0.0}, r"threshold_min 0\.0"),
        ({"leak_max": 1.2}, r"leak_max 1\.2"),
        ({"neuron_lr": 0.0}, r"neuron_lr 0\.0"),
    ],
)
def test_options_that_contradict_each_other_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        digits(**arguments)


def test_networks_and_data_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes images or event recordings, not PointsData"):
        SpikingClassification(PointsData(), spiking_mlp(64, [8], 7))
    with pytest.raises(ConfigError, match=r"gives 7 classes and the data has 10; set task\.network\.classes=10"):
        SpikingClassification(Digits(), spiking_mlp(64, [8], 7))
    with pytest.raises(ConfigError, match=r"takes 3 channels and the data gives 1; set task\.network\.in_channels=1"):
        SpikingClassification(Digits(), spiking_resnet18(width=4))
    with pytest.raises(
        ConfigError, match=r"takes 8 inputs and a step of the data has 64; set task\.network\.inputs=64"
    ):
        SpikingClassification(Digits(), spiking_mlp(8, [8], 10))
    with pytest.raises(ConfigError, match=r"takes 64 inputs and a step of the data has 8"):
        SpikingClassification(Digits(), spiking_mlp(64, [8], 10), encoding="rows")
    with pytest.raises(ConfigError, match=r"poisson needs intensities in \[0, 1\]; set data\.normalise=false"):
        SpikingClassification(Digits(), spiking_mlp(64, [8], 10), encoding="poisson")
    events = EventsNpz(root=str(tmp_path), height=6, width=6, num_classes=3)
    with pytest.raises(ConfigError, match=r"'rows' is for static images; event recordings are frames already"):
        SpikingClassification(events, spiking_mlp(72, [8], 3), encoding="rows")
