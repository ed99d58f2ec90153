"""Videos in and out."""

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vision.engine.errors import ConfigError, DataError
from vision.engine.video import Video, VideoWriter

av = pytest.importorskip("av")


def scene(number: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """A smooth picture that says which frame it is by its brightness."""
    ramp = np.linspace(0, 60, width)[None, :, None]
    return np.broadcast_to(40 + 12 * number + ramp, (height, width, 3)).astype(np.uint8)


def written(path: Path, count: int = 9, **size: int) -> Path:
    with VideoWriter(path, Fraction(25)) as writer:
        for number in range(count):
            writer.write(scene(number, **size))
    return path


def test_frames_come_back_in_order_with_their_times(tmp_path: Path) -> None:
    video = Video(written(tmp_path / "a.mp4"))
    frames = list(video)
    assert video.rate == 25
    assert [frame.number for frame in frames] == list(range(9))
    assert [frame.seconds for frame in frames] == pytest.approx([n / 25 for n in range(9)], abs=1e-6)
    for frame in frames:
        assert frame.picture.shape == (48, 64, 3)
        assert frame.picture.dtype == np.uint8
        assert np.abs(frame.picture.astype(int) - scene(frame.number)).mean() < 3


def test_odd_sides_are_cut_by_a_pixel(tmp_path: Path) -> None:
    (frame, *_) = Video(written(tmp_path / "a.mp4", height=49, width=65))
    assert frame.picture.shape == (48, 64, 3)


def test_a_video_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), VideoWriter(tmp_path / "a.mp4", Fraction(25)) as writer:
        writer.write(scene(0))
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match=r"a\.mp4: no frame was written"), VideoWriter(tmp_path / "a.mp4", Fraction(25)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video at all, only words")
    with pytest.raises(DataError, match=r"a\.mp4: not a readable video"):
        Video(tmp_path / "a.mp4")
    whole = written(tmp_path / "b.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.mp4: "):
        list(Video(tmp_path / "cut.mp4"))


def test_without_pyav_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"videos need PyAV.*triptych\[video\]"):
        Video(path)
