"""Two processes (gloo) against one: gradients, weights, scores, exchanges, and how they end together."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.forks import Forks
from tests.engine.harness import CPU, largest_difference, same, seeded_task, state
from tests.engine.processes import TRAININGS, judged, normed, trained
from tests.engine.toy import OnlineRegression
from vision.engine.checkpoint import read_resume, read_weights
from vision.engine.distributed import World, pick_device
from vision.engine.errors import DataError, DeviceError
from vision.engine.recorder import read_metrics

Results = list[dict[str, Any]]


# -- exchanges -------------------------------------------------------------------------------------------------------


def test_flags_and_objects(two: Results) -> None:
    ranks = [each["exchanged"] for each in two]
    assert [each["any"] for each in ranks] == [[False, True, True, True]] * 2
    assert [each["gather"] for each in ranks] == [[{"rank": 0}, {"rank": 1}], None]
    assert [each["share"] for each in ranks] == [("from", 0)] * 2
    assert [each["mean"] for each in ranks] == [{"a": 0.5, "b": 1.0, "c": 1.5}] * 2


def test_a_mistake_at_the_first_process_is_told_in_all(two: Results) -> None:
    assert [each["exchanged"]["said"] for each in two] == [
        ("DataError", "no such folder"),
        ("UserError", "no such folder"),
    ]
    assert [each["exchanged"]["done"] for each in two] == [[0], []]


def test_gradients_are_averaged_and_absent_ones_stay_absent(two: Results) -> None:
    for each in two:
        everyone, one_process, nobody = each["exchanged"]["gradients"]
        assert torch.equal(everyone, torch.full((2, 3), 2.0))
        assert torch.equal(one_process, torch.arange(4.0, dtype=torch.float64) / 2)
        assert nobody is None


def test_state_comes_from_the_first_process(two: Results) -> None:
    for each in two:
        assert same(each["exchanged"]["state"], state(seeded_task(network=normed)))
        assert same(each["exchanged"]["online"], state(seeded_task(seed=0, kind=OnlineRegression)))


def test_one_process_exchanges_with_itself() -> None:
    assert CPU.any(True) and not CPU.any(False)
    assert CPU.gather(3) == [3] and CPU.share(3) == 3 and CPU.mean({"a": 2.0}) == {"a": 2.0}
    with pytest.raises(DataError):
        CPU.first(lambda: (_ for _ in ()).throw(DataError("x")))  # type: ignore[arg-type, return-value]


# -- training --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("one")
    return {name: trained(name, CPU, folder) for name in TRAININGS}


@pytest.mark.parametrize("name", TRAININGS)
def test_two_processes_train_as_one(two: Results, one: dict[str, dict[str, Any]], name: str) -> None:
    alone = one[name]
    for each in two:
        together = each["trained"][name]
        assert together["parallel"] is (not TRAININGS[name][0].online)
        for ours, theirs in zip(together["gradients"], alone["gradients"], strict=True):
            assert ours.keys() == theirs.keys()
            for parameter, gradient in theirs.items():
                if gradient is None:
                    assert ours[parameter] is None, parameter
                else:
                    assert torch.allclose(ours[parameter], gradient, rtol=1e-4, atol=1e-6), parameter
        assert largest_difference(together["weights"], alone["weights"]) < 1e-5
        assert together["progress"].step == alone["progress"].step
        assert together["progress"].best == pytest.approx(alone["progress"].best, rel=1e-4)
    assert same(*(each["trained"][name]["weights"] for each in two))
    if alone["average"] is not None:
        assert largest_difference(two[1]["trained"][name]["average"], alone["average"]) < 1e-5


@pytest.mark.parametrize("name", TRAININGS)
def test_two_processes_record_what_one_does(two: Results, one: dict[str, dict[str, Any]], name: str) -> None:
    import json

    lines = [[json.loads(line) for line in each] for each in (two[0]["trained"][name]["metrics"], one[name]["metrics"])]
    assert two[1]["trained"][name]["metrics"] is None
    assert len(lines[0]) == len(lines[1]) > 3
    for together, alone in zip(*lines, strict=True):
        assert together.keys() == alone.keys() and together["step"] == alone["step"]
        if together["kind"] == "train":
            assert together["loss"] == pytest.approx(alone["loss"], rel=1e-3)


@pytest.mark.parametrize("size", [1, 4, 11])
def test_evaluation_is_exactly_the_same(two: Results, size: int) -> None:
    """In batches of 3: with one sample the second process has none."""
    assert [each["judged"][size][0] for each in two] == [judged(size, CPU)[0]] * 2
    assert two[0]["judged"][size] == judged(size, CPU)


def test_what_is_judged_is_what_is_saved(two: Results, two_folder: Path) -> None:
    """Without SyncBN each process has running statistics of its own; they must agree before an evaluation."""
    for name in ("whole", "parts"):
        task = seeded_task(network=normed)
        task.network.load_state_dict(read_weights(two_folder / name / "checkpoints/best.safetensors").tensors)
        task.eval()
        data = task.val_data()
        with torch.no_grad():
            values = task.network(torch.stack([data[i]["x"] for i in range(11)])).squeeze(1)
        error = sum(abs(float(v) - float(data[i]["y"])) for i, v in enumerate(values)) / 11
        best = [line for line in read_metrics(two_folder / name / "metrics.jsonl") if line.get("best")]
        assert best[-1]["metrics"]["error"] == pytest.approx(error, rel=1e-6)


def test_a_resumed_run_of_two_processes_is_the_uninterrupted_one(two: Results, two_folder: Path) -> None:
    for file in ("last", "best"):
        a, b = (two_folder / name / f"checkpoints/{file}.safetensors" for name in ("whole", "parts"))
        assert a.read_bytes() == b.read_bytes()


# -- ends ------------------------------------------------------------------------------------------------------------


def test_a_signal_to_one_process_ends_both_after_the_same_update(two: Results, two_folder: Path) -> None:
    assert [each["stopped"]["step"] for each in two] == [(3, "")] * 2
    assert [each["stopped"]["evaluation"] for each in two] == [(4, "")] * 2
    for when, step in (("step", 3), ("evaluation", 4)):
        assert read_resume(two_folder / when / "checkpoints/last.resume")["progress"]["step"] == step
        events = [line for line in read_metrics(two_folder / when / "metrics.jsonl") if line["kind"] == "event"]
        assert [event["message"] for event in events] == ["stopped: SIGTERM"]


def test_a_parameter_without_a_gradient_is_named(forks: Forks, tmp_path: Path) -> None:
    for process in forks.run("tests.engine.processes", tmp_path, "idle", size=2):
        assert process.status == 2 and "Traceback" not in process.said
        assert "error: Idle: no gradient reaches idle; with several processes every parameter needs one" in process.said


@pytest.mark.parametrize("name", ["corrupt", "nan"])
def test_a_failure_of_one_process_ends_both_without_a_traceback(forks: Forks, tmp_path: Path, name: str) -> None:
    other, failed = forks.run("tests.engine.processes", tmp_path, name, size=2)
    said = "img/0003.png: truncated image" if name == "corrupt" else "step 0: a loss is not finite (square=nan)"
    assert failed.status == 2 and f"error: {said}" in failed.said and "Traceback" not in failed.said
    assert other.status == 2 and "Traceback" not in other.said
    assert "error: process 0: another process of the run ended; it says why" in other.said


# -- devices ---------------------------------------------------------------------------------------------------------


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("auto", 1) == torch.device("cuda", 1)
    assert pick_device("cuda:0", 1) == torch.device("cuda", 0)
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(DeviceError, match=r"'cuda' \(GPU 2\) was asked for and 2 GPUs are visible"):
        pick_device("cuda", 2)


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:3"):
        with pytest.raises(DeviceError, match=rf"trainer.device: '{name}' .* and 0 GPUs are visible; use device=cpu"):
            pick_device(name)


@pytest.mark.parametrize("name", ["gpu", "tpu0", "xpu", "meta", ""])
def test_a_device_that_does_not_exist(name: str) -> None:
    with pytest.raises(DeviceError, match=rf"trainer.device: '{name}' is not"):
        pick_device(name)


def test_the_same_processes_on_another_device() -> None:
    world = World(torch.device("meta"), rank=1, size=2).on("cpu")
    assert (world.device, world.rank, world.size) == (torch.device("cpu"), 1, 2)
