"""Recordings of event cameras: reading, checking, and adding events up to frames. Nothing here needs PyTorch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vision.classification.npz import DAMAGED
from vision.engine.errors import DataError
from vision.engine.prediction import Picture

SplitBy = Literal["number", "time"]


@dataclass(frozen=True)
class Events:
    """The events of one recording, in order of time.

    Attributes:
        t: microseconds, integers, shape ``[E]``, not falling.
        x: column of each, from 0 at the left.
        y: row of each, from 0 at the top.
        p: polarity of each: 0 for OFF (darker), 1 for ON (brighter).
    """

    t: NDArray[Any]
    x: NDArray[Any]
    y: NDArray[Any]
    p: NDArray[Any]

    def __len__(self) -> int:
        return len(self.t)


def checked(events: Events, height: int, width: int, name: str) -> Events:
    """The events, where they can be those of a camera of that size.

    Raises:
        DataError: no events, arrays of different lengths, times that fall, coordinates outside the sensor, or a
            polarity other than 0 and 1. It names the recording and the first bad event.
    """
    lengths = {key: len(getattr(events, key)) for key in ("t", "x", "y", "p")}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{count} {key}" for key, count in lengths.items())
        raise DataError(f"{name}: truncated: it has {told}; expected as many of each")
    if not len(events):
        raise DataError(f"{name}: has no events; remove it")
    falls = np.flatnonzero(np.diff(events.t.astype(np.int64)) < 0)
    if len(falls):
        at = int(falls[0]) + 1
        raise DataError(
            f"{name}: event {at} is at {events.t[at]} us, before event {at - 1} at {events.t[at - 1]} us; sort by time"
        )
    for values, most, axis in ((events.x, width, "x"), (events.y, height, "y"), (events.p, 2, "p")):
        wide = values.astype(np.int64)
        outside = np.flatnonzero((wide < 0) | (wide >= most))
        if len(outside):
            at = int(outside[0])
            raise DataError(
                f"{name}: event {at} has {axis} = {values[at]}; expected 0 to {most - 1} on a sensor of "
                f"{height} rows and {width} columns"
            )
    return events


def read_events(path: Path) -> Events:
    """The events of an npz file with arrays ``t``, ``x``, ``y`` and ``p``, as spikingjelly writes them; not checked.

    Raises:
        DataError: no such file, a truncated or damaged one, or one that holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in ("t", "x", "y", "p")}
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except KeyError as error:
        raise DataError(f"{path}: has no array {error}; expected t, x, y and p") from error
    except DAMAGED as error:
        raise DataError(f"{path}: truncated or damaged: {error}") from error
    for key, array in arrays.items():
        if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or array.dtype == bool):
            raise DataError(f"{path}: '{key}' is {array.dtype} {list(array.shape)}, expected integers [E]")
    return Events(**arrays)


def given_events(given: Any, name: str) -> Events:
    """The events that a user gives: an npz file, as :func:`read_events`, or :class:`Events`; not checked.

    Raises:
        DataError: something else, or a file that cannot be read.
    """
    if isinstance(given, str | Path):
        return read_events(Path(given))
    if isinstance(given, Events):
        return given
    raise DataError(f"{name}: got {type(given).__name__}, expected an npz file of events, or Events")


def to_frames(
    events: Events,
    frames: int,
    height: int,
    width: int,
    split_by: SplitBy = "number",
    duration: int | None = None,
) -> NDArray[np.float32]:
    r"""Counts of events by frame, polarity and pixel.

    With E events from :math:`t_0` to :math:`t_1`, event i lies in frame

    .. math::
        \min(\lfloor i / \lfloor E/T \rfloor \rfloor, T - 1), \quad
        \min(\lfloor (t_i - t_0) / \lfloor (t_1 - t_0)/T \rfloor \rfloor, T - 1), \quad
        \lfloor (t_i - t_0) / d \rfloor

    for ``number``, ``time`` and a ``duration`` d, as in spikingjelly's integration.

    Args:
        events: checked.
        frames: T.
        height: of the sensor, rows.
        width: of the sensor, columns.
        split_by: frames of equal numbers of events, or of equal times.
        duration: microseconds in a frame, instead: what comes after T frames is left out, and a shorter recording ends
            in empty frames.

    Returns:
        Float32, shape ``[T, 2, H, W]``.

    Raises:
        DataError: fewer than one frame, or a duration that is not above 0.
    """
    if frames < 1:
        raise DataError(f"frames: {frames} time steps; expected 1 or more")
    if duration is not None and duration < 1:
        raise DataError(f"duration: {duration} us; expected 1 or more")
    count, since = len(events), events.t.astype(np.int64) - int(events.t[0])
    if duration is not None:
        frame = since // duration
    elif split_by == "number":
        frame = np.arange(count) // max(count // frames, 1) if count >= frames else np.full(count, frames - 1)
    else:
        length = int(since[-1]) // frames
        frame = since // length if length else np.full(count, frames - 1)
    inside = frame < frames if duration is not None else np.ones(count, bool)
    frame = np.minimum(frame, frames - 1)
    place = ((frame * 2 + events.p.astype(np.int64)) * height + events.y.astype(np.int64)) * width
    place = (place + events.x.astype(np.int64))[inside]
    found = np.bincount(place, minlength=frames * 2 * height * width)
    return found.reshape(frames, 2, height, width).astype(np.float32)


def at_size(frames: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Frames ``[..., H, W]`` at ``size x size`` pixels, each the nearest of the old ones, as PyTorch's ``nearest``."""
    rows, columns = (
        np.minimum((np.arange(size, dtype=np.float32) * np.float32(side / size)).astype(np.int64), side - 1)
        for side in frames.shape[-2:]
    )
    return frames[..., rows[:, None], columns]


def event_picture(frames: NDArray[np.float32]) -> Picture:
    """Events of all frames ``[T, 2, H, W]`` as one picture: ON red, OFF blue, on white; the more, the darker."""
    counts = frames.sum(0)
    off, on = np.sqrt(counts / max(float(counts.max()), 1.0))
    picture = np.stack([1 - off, 1 - np.maximum(on, off), 1 - on], -1)
    return np.rint(picture * 255).astype(np.uint8)
