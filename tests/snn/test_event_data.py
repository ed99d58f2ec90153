"""Event data sets: splits, frames, spikingjelly's folders, and the recordings at hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from snn.event_data import CIFAR10DVS, NMNIST, DVS128Gesture, EventData, EventsNpz
from snn.recordings import packed
from tests.snn.test_events import pack
from vision.engine.errors import ConfigError, DataError


def many(path: Path, count: int = 60, classes: int = 3, **changes: Any) -> Path:
    """Recordings of ten events each."""
    rng = np.random.default_rng(0)
    total = 10 * count
    return pack(
        path, x=rng.integers(0, 5, total).astype("u1"), y=rng.integers(0, 6, total).astype("u1"),
        p=np.packbits(rng.integers(0, 2, total)), dt=np.full(total, 3, np.int32), offsets=np.arange(0, total + 1, 10),
        label=(np.arange(count) % classes).astype("u1"), sample_id=np.arange(count), is_test=changes.get("is_test"),
    )  # fmt: skip


def npz_data(path: Path, **arguments: Any) -> EventsNpz:
    return EventsNpz(**{"root": str(path), "height": 6, "width": 5, "num_classes": 3, "frames": 4} | arguments)


def ids(dataset: Any) -> list[str]:
    return [dataset[k]["id"] for k in range(len(dataset))]


def test_splits_hold_each_recording_once_and_each_class_in_proportion(tmp_path: Path) -> None:
    data = npz_data(many(tmp_path / "set.npz"))
    train, val, test = data.train(), data.val(), data.test()
    assert test is not None
    assert [len(d) for d in (train, val, test)] == [43, 5, 12]  # type: ignore[arg-type]
    assert len({*ids(train), *ids(val), *ids(test)}) == 60
    labels = [int(test[k]["label"]) for k in range(12)]
    assert np.bincount(labels).tolist() == [4, 4, 4]


def test_the_files_own_test_recordings_are_kept_apart(tmp_path: Path) -> None:
    flags = (np.arange(60) >= 50).astype("u1")
    data = npz_data(many(tmp_path / "set.npz", is_test=flags))
    assert ids(data.test()) == [f"set/{k:05d}" for k in range(50, 60)]
    assert len(data.train()) + len(data.val()) == 50  # type: ignore[arg-type]


def test_samples_are_frames_of_counts(tmp_path: Path) -> None:
    data = npz_data(many(tmp_path / "set.npz"), size=8, limit=6)
    sample = data.train()[0]
    assert sample["frames"].shape == (4, 2, 8, 8) and sample["frames"].dtype == torch.float32
    assert len(data.train()) == 6  # type: ignore[arg-type]
    plain = npz_data(many(tmp_path / "set.npz")).train()[0]["frames"]
    assert plain.shape == (4, 2, 6, 5) and plain.sum() == 10


def test_training_frames_are_augmented_and_others_are_not(tmp_path: Path) -> None:
    data = npz_data(many(tmp_path / "set.npz"), augment=("roll",))
    torch.manual_seed(0)
    train, val = data.train(), data.val()
    assert any(not torch.equal(train[0]["frames"], train[0]["frames"]) for _ in range(5))
    assert torch.equal(val[0]["frames"], val[0]["frames"])


def test_a_users_recording_is_read_as_the_sets_are(tmp_path: Path) -> None:
    data = npz_data(many(tmp_path / "set.npz"))
    recording = packed(tmp_path / "set.npz", 6, 5, 3)[0].read(4)
    np.savez(tmp_path / "mine.npz", t=recording.t, x=recording.x, y=recording.y, p=recording.p)
    assert torch.equal(data.read(str(tmp_path / "mine.npz"), "mine.npz"), data.frames_of(recording))
    np.savez(tmp_path / "mine.npz", t=recording.t, x=recording.x + 5, y=recording.y, p=recording.p)
    with pytest.raises(DataError, match=r"mine\.npz: event \d+ has x = \d; expected 0 to 4"):
        data.read(str(tmp_path / "mine.npz"), "mine.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frames": 0}, "data.frames: 0 time steps; expected 1 or more"),
        ({"duration": 0}, "data.duration: 0 us"),
        ({"size": 0}, "data.size: 0 pixels"),
        ({"limit": 0}, "data.limit: 0 is below 1"),
        ({"validation": -0.1}, "data.validation: -0.1 is neither"),
        ({"split_by": "times"}, "data.split_by: 'times'; expected number or time"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        npz_data(tmp_path, **arguments)


def test_splits_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path = many(tmp_path / "set.npz")
    with pytest.raises(DataError, match=r"data\.validation is 0, so there is no validation split"):
        npz_data(path, validation=0.0).val()
    assert len(npz_data(path, validation=0.0).train()) == 48  # type: ignore[arg-type]
    assert npz_data(path, test_share=0.0).test() is None
    with pytest.raises(DataError, match="holds 0 npz files, expected one"):
        npz_data(tmp_path / "..", height=6).train()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds 0 npz files"):
        npz_data(tmp_path / "empty").train()


# -- the sets that spikingjelly lists ----------------------------------------------------------------------------------


def write(path: Path, sensor: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y = rng.integers(0, sensor, (2, 50))
    np.savez(path, t=np.sort(rng.integers(0, 999, 50)), x=x, y=y, p=rng.integers(0, 2, 50))


@pytest.fixture
def cifar10_dvs(tmp_path: Path) -> Path:
    """Two hundred and ten recordings of two classes, numbered as the official ones."""
    for name in ("airplane", "bird"):
        for number in range(105):
            write(tmp_path / "events_np" / name / f"cifar10_{name}_{number}.npz", 128, number)
    return tmp_path


def test_cifar10_dvs_is_split_as_it_is_told(cifar10_dvs: Path) -> None:
    held = {}
    for split in ("first_90", "random_90", "tebn"):
        data = CIFAR10DVS(root=str(cifar10_dvs), split=split, frames=2)  # type: ignore[arg-type]
        train, test = data.parts()
        assert test is not None and not set(train.ids) & set(test.ids) and len(train) + len(test) == 210
        held[split] = [(path.parent.name, int(path.stem.split("_")[-1])) for path in test.files]
    assert sorted(held["tebn"]) == [(name, n) for name in ("airplane", "bird") for n in range(100)]
    in_order = sorted(map(str, range(105)))  # of file names, as spikingjelly has it
    last = sorted(int(n) for n in in_order[95:])
    assert sorted(held["first_90"]) == [(name, n) for name in ("airplane", "bird") for n in last]
    assert len(held["random_90"]) == 21
    assert [name for name, _ in held["random_90"]].count("bird") in (10, 11)


def test_the_first_90_percent_are_spikingjellys(cifar10_dvs: Path) -> None:
    from spikingjelly.datasets.cifar10_dvs import CIFAR10DVS as Theirs
    from spikingjelly.datasets.utils import split_to_train_test_set

    theirs = Theirs(cifar10_dvs)
    train, test = split_to_train_test_set(0.9, theirs, 2)
    ours = CIFAR10DVS(root=str(cifar10_dvs), split="first_90").parts()
    for own, other in zip(ours, (train, test), strict=True):
        assert own is not None
        assert {str(path) for path in own.files} == {theirs.samples[k][0] for k in other.indices}


def test_frames_of_a_library_set(cifar10_dvs: Path) -> None:
    sample = CIFAR10DVS(root=str(cifar10_dvs), split="tebn", frames=3, validation=0.0).train()[0]
    assert sample["frames"].shape == (3, 2, 48, 48)
    assert sample["id"].startswith("events_np/airplane/cifar10_airplane_")


@pytest.mark.parametrize(("kind", "sensor", "classes"), [(NMNIST, 34, 10), (DVS128Gesture, 128, 11)])
def test_sets_with_official_parts(kind: type[Any], sensor: int, classes: int, tmp_path: Path) -> None:
    for part, count in (("train", 3), ("test", 1)):
        for label in range(classes):
            for number in range(count):
                write(tmp_path / "events_np" / part / str(label) / f"{number}.npz", sensor, number)
    data: EventData = kind(root=str(tmp_path), frames=2, validation=classes)
    test = data.test()
    assert test is not None
    assert (len(data.train()), len(data.val()), len(test)) == (2 * classes, classes, classes)  # type: ignore[arg-type]
    assert data.train()[0]["frames"].shape == (2, 2, sensor, sensor)
    assert sorted(int(test[k]["label"]) for k in range(classes)) == list(range(classes))
    assert len(data.classes) == classes and data.image_size == sensor


def test_a_folder_without_the_official_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"holds none of events_np, extract and download; put the official files of NMNIST"
    ):
        NMNIST(root=str(tmp_path)).train()
    (tmp_path / "download").mkdir()
    with pytest.raises(DataError, match="spikingjelly cannot prepare NMNIST"):
        NMNIST(root=str(tmp_path)).train()


def test_a_corrupt_recording_is_named(cifar10_dvs: Path) -> None:
    path = cifar10_dvs / "events_np" / "bird" / "cifar10_bird_104.npz"
    path.write_bytes(path.read_bytes()[:100])
    dataset = CIFAR10DVS(root=str(cifar10_dvs), split="tebn", validation=0.0).train()
    with pytest.raises(DataError, match=r"cifar10_bird_104\.npz: truncated or damaged"):
        [dataset[k] for k in range(10)]


# -- real recordings ---------------------------------------------------------------------------------------------------


@pytest.mark.data
def test_every_real_recording_of_nmnist_holds(data_root: Path) -> None:
    data = EventsNpz(root=str(data_root / "nmnist"), validation=0.0)
    train, test = data.parts()
    assert test is not None and (len(train), len(test)) == (1000, 100)
    assert train.ids[0].endswith("/00001") and test.ids[0].endswith("/60001")
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert torch.bincount(test.labels).tolist() == [8, 14, 8, 11, 14, 7, 10, 15, 2, 11]
    counts = [len(recordings.read(k)) for recordings in (train, test) for k in range(len(recordings))]
    assert sum(counts) == 4_518_827 and (min(counts), max(counts)) == (1069, 7152)
    assert data.frames_of(train.read(0)).sum() == counts[0]


@pytest.mark.data
def test_every_real_gesture_holds(data_root: Path) -> None:
    found, test = packed(data_root / "dvs_gesture10" / "dvs_gesture10_events.npz", 128, 128, 11)
    assert test is None and len(found) == 10
    assert sum(len(found.read(k)) for k in range(10)) == 1_206_710
