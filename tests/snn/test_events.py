"""Events: what is read and refused, frames against a loop and against spikingjelly, augmentation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from snn.event_augment import MOST_PIXELS, event_augmentations, one_of, roll, rotate, shear
from snn.events import Events, checked, read_events, to_frames
from snn.recordings import packed
from vision.engine.errors import ConfigError, DataError

H, W = 6, 5


def events(count: int = 200, seed: int = 0, **changes: Any) -> Events:
    rng = np.random.default_rng(seed)
    arrays = {
        "t": np.sort(rng.integers(50, 10_000, count)), "x": rng.integers(0, W, count).astype(np.uint8),
        "y": rng.integers(0, H, count).astype(np.uint8), "p": rng.integers(0, 2, count).astype(np.uint8),
    }  # fmt: skip
    return Events(**(arrays | changes))


def by_loop(e: Events, frame_of: Any, frames: int) -> np.ndarray:
    found = np.zeros((frames, 2, H, W), np.float32)
    for i in range(len(e)):
        frame = frame_of(i)
        if frame is not None:
            found[frame, e.p[i], e.y[i], e.x[i]] += 1
    return found


@pytest.mark.parametrize("count", [200, 203, 7, 3])
def test_frames_of_equal_numbers(count: int) -> None:
    e, frames = events(count), 7
    share = count // frames
    expected = by_loop(e, lambda i: min(i // share, frames - 1) if share else frames - 1, frames)
    assert np.array_equal(to_frames(e, frames, H, W), expected)
    assert expected.sum() == count


@pytest.mark.parametrize("count", [200, 1])
def test_frames_of_equal_times(count: int) -> None:
    e, frames = events(count), 7
    share = (int(e.t[-1]) - int(e.t[0])) // frames
    expected = by_loop(e, lambda i: min(int(e.t[i] - e.t[0]) // share, frames - 1) if share else frames - 1, frames)
    assert np.array_equal(to_frames(e, frames, H, W, "time"), expected)


@pytest.mark.parametrize("frames", [3, 30])
def test_frames_of_a_duration_leave_out_what_comes_later_and_end_empty(frames: int) -> None:
    e = events()
    expected = by_loop(e, lambda i: k if (k := int(e.t[i] - e.t[0]) // 700) < frames else None, frames)
    found = to_frames(e, frames, H, W, duration=700)
    assert np.array_equal(found, expected)
    assert (found.sum() < 200) == (frames == 3)
    assert frames == 3 or found[-1].sum() == 0


@pytest.mark.parametrize("split_by", ["number", "time"])
def test_frames_are_spikingjellys(split_by: str) -> None:
    from spikingjelly.datasets.utils import integrate_events_by_fixed_duration, integrate_events_by_fixed_frames_number

    e = events(997)
    as_dictionary = {key: getattr(e, key) for key in "txyp"}
    theirs = integrate_events_by_fixed_frames_number(as_dictionary, split_by, 9, H, W)
    assert np.array_equal(to_frames(e, 9, H, W, split_by), theirs)  # type: ignore[arg-type]
    theirs = integrate_events_by_fixed_duration(as_dictionary, 701, H, W)
    assert np.array_equal(to_frames(e, len(theirs), H, W, duration=701), theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"t": np.arange(199)}, r"clip: truncated: it has 199 t, 200 x, 200 y, 200 p"),
        (
            {"t": np.r_[np.arange(150), 5, np.arange(151, 200)]},
            r"event 150 is at 5 us, before event 149 at 149 us; sort",
        ),
        ({"x": np.full(200, 5)}, r"event 0 has x = 5; expected 0 to 4 on a sensor of 6 rows and 5 columns"),
        ({"y": np.r_[np.zeros(199, int), 6]}, r"event 199 has y = 6; expected 0 to 5"),
        ({"x": np.r_[np.zeros(10, int), -1, np.zeros(189, int)]}, r"event 10 has x = -1"),
        ({"p": np.full(200, 2)}, r"event 0 has p = 2; expected 0 to 1"),
    ],
)
def test_what_no_camera_gives_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        checked(events(**changes), H, W, "clip")


def test_an_empty_recording_is_refused() -> None:
    empty = np.zeros(0, int)
    with pytest.raises(DataError, match="clip: has no events"):
        checked(Events(empty, empty, empty, empty), H, W, "clip")


@pytest.mark.parametrize(("frames", "duration", "what"), [(0, None, "frames: 0"), (4, 0, "duration: 0 us")])
def test_no_frames_are_refused(frames: int, duration: int | None, what: str) -> None:
    with pytest.raises(DataError, match=f"{what}.*; expected 1 or more"):
        to_frames(events(), frames, H, W, duration=duration)


# -- files -----------------------------------------------------------------------------------------------------------


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    e = events()
    np.savez(tmp_path / "a.npz", t=e.t, x=e.x, y=e.y, p=e.p.astype(bool))
    found = read_events(tmp_path / "a.npz")
    assert all(np.array_equal(getattr(found, key), getattr(e, key)) for key in "txyp")


def test_files_that_hold_no_events_are_refused(tmp_path: Path) -> None:
    path, e = tmp_path / "a.npz", events()
    with pytest.raises(DataError, match="there is no such file"):
        read_events(path)
    np.savez(path, t=e.t, x=e.x, y=e.y)
    with pytest.raises(DataError, match=r"has no array .*'?p.*expected t, x, y and p"):
        read_events(path)
    np.savez(path, t=e.t.astype(float), x=e.x, y=e.y, p=e.p)
    with pytest.raises(DataError, match=r"'t' is float64 \[200\], expected integers \[E\]"):
        read_events(path)
    np.savez(path, t=np.array([{}]), x=e.x, y=e.y, p=e.p)
    with pytest.raises(DataError, match="damaged"):
        read_events(path)
    np.savez(path, t=e.t, x=e.x, y=e.y, p=e.p)
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"a\.npz: truncated or damaged"):
            read_events(path)


def pack(path: Path, **changes: Any) -> Path:
    """Three recordings of 4, 1 and 5 events."""
    arrays: dict[str, Any] = {
        "x": np.arange(10, dtype=np.uint8) % W, "y": np.arange(10, dtype=np.uint8) % H,
        "p": np.packbits(np.arange(10) % 2 == 0), "dt": np.full(10, 3, np.int32), "offsets": np.array([0, 4, 5, 10]),
        "label": np.array([0, 1, 2], "u1"), "sample_id": np.array([7, 8, 60001]), "is_test": np.array([0, 0, 1], "u1"),
    }  # fmt: skip
    arrays |= changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def test_packed_recordings(tmp_path: Path) -> None:
    found, test = packed(pack(tmp_path / "set.npz"), H, W, 3)
    assert found.ids == ["set/00007", "set/00008", "set/60001"]
    assert test is not None and test.tolist() == [False, False, True]
    last = found.read(2)
    assert last.t.tolist() == [3, 6, 9, 12, 15]
    assert last.x.tolist() == [0, 1, 2, 3, 4]
    assert last.p.tolist() == [0, 1, 0, 1, 0]
    taken = found.take(np.array([2, 0]))
    assert taken.ids == ["set/60001", "set/00007"] and taken.labels.tolist() == [2, 0]
    assert taken.read(0).t.tolist() == last.t.tolist()
    with pytest.raises(IndexError):
        found.read(3)
    assert packed(pack(tmp_path / "set.npz", is_test=None, sample_id=None), H, W, 3)[1] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offsets": np.array([0, 4, 10])}, "3 labels need 4 offsets, not 3"),
        (
            {"offsets": np.array([0, 4, 5, 12])},
            "'offsets' do not rise from 0 to the 10 events of 'x'; the file is truncated",
        ),
        ({"offsets": np.array([0, 5, 4, 10])}, "'offsets' do not rise"),
        ({"y": np.zeros(9, np.uint8)}, "not of the same 10 events; the file is truncated"),
        ({"dt": np.zeros(9, np.int32)}, "not of the same 10 events"),
        ({"p": np.zeros(1, np.uint8)}, "not of the same 10 events"),
        ({"label": None}, "has no array 'label'"),
        ({"label": np.array([0, 1, 3], np.uint8)}, r"label"),
        ({"is_test": np.zeros(2, np.uint8)}, "must have a value for each of the 3 labels"),
    ],
)
def test_packs_that_do_not_hold_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        packed(pack(tmp_path / "set.npz", **changes), H, W, 3)


def test_a_truncated_pack_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "set.npz")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"set\.npz"):
        packed(path, H, W, 3)
    with pytest.raises(DataError, match=r"there is no such file; check data\.root"):
        packed(tmp_path / "none.npz", H, W, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dt": np.r_[np.full(6, 3), -4, np.full(3, 3)].astype(np.int32)}, "before event"),
        ({"x": np.full(10, 9, "u1")}, "x = 9"),
    ],
)
def test_packed_events_are_checked_when_they_are_read(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    found, _ = packed(pack(tmp_path / "set.npz", **changes), H, W, 3)
    with pytest.raises(DataError, match=rf"set/60001: .*{message}"):
        found.read(2)


# -- augmentation ----------------------------------------------------------------------------------------------------

FRAMES = torch.from_numpy(to_frames(events(4000), 3, H, W))


def test_a_flip_mirrors_every_second_time() -> None:
    torch.manual_seed(0)
    (flip,) = event_augmentations(("flip",))
    found = [flip(FRAMES) for _ in range(40)]
    same = [torch.equal(f, FRAMES) for f in found]
    assert 8 < sum(same) < 32
    assert all(torch.equal(f, FRAMES.flip(-1)) for f, kept in zip(found, same, strict=True) if not kept)


def test_a_roll_keeps_every_event_and_moves_all_frames_alike() -> None:
    torch.manual_seed(0)
    wide = torch.zeros(3, 2, 40, 40)
    wide[:, :, 20, 20] = torch.arange(6.0).view(3, 2)
    reached = set()
    for _ in range(300):
        moved = roll(wide)
        assert moved.sum() == wide.sum()
        (row,), (column,) = (axis.unique().tolist() for axis in moved[1:].nonzero().T[-2:])
        reached.add((row - 20, column - 20))
        assert torch.equal(moved[:, :, row, column], wide[:, :, 20, 20])
    assert {r for r, _ in reached} == {c for _, c in reached} == set(range(-MOST_PIXELS, MOST_PIXELS + 1))


@pytest.mark.parametrize("change", [rotate, shear, one_of])
def test_other_movements_keep_counts_whole_and_frames_alike(change: Any) -> None:
    torch.manual_seed(1)
    same = FRAMES[:1].expand(3, -1, -1, -1)
    for _ in range(10):
        moved = change(same)
        assert moved.shape == same.shape
        assert torch.equal(moved[0], moved[1]) and torch.equal(moved[0], moved[2])
        assert set(moved.unique().tolist()) <= set(FRAMES.unique().tolist()) | {0.0}


def test_augmentation_follows_from_the_generator() -> None:
    changes = event_augmentations(("flip", "roll", "rotate", "shear", "one_of"))
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        moved = FRAMES
        for change in changes:
            moved = change(moved)
        found.append(moved)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    with pytest.raises(ConfigError, match=r"data.augment: no 'spin'; expected any of flip, roll"):
        event_augmentations(("spin",))
