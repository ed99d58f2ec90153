"""Frames of a video file in and out, through PyAV (the extra ``video``)."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from vision.engine.errors import ConfigError, DataError
from vision.engine.files import replacing
from vision.engine.prediction import Picture

VIDEOS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")
"""What a file must end in to be taken for a video."""


@dataclass(frozen=True)
class Frame:
    """One frame of a video.

    Attributes:
        number: from 0.
        seconds: when it is shown.
        picture: turned as a player shows it.
    """

    number: int
    seconds: float
    picture: Picture


def _library() -> Any:
    try:
        import av
    except ImportError as error:
        raise ConfigError("videos need PyAV: python -m pip install 'triptych[video]', or 'av'") from error
    return av


class Video:
    """The frames of a video file, in order.

    Args:
        path: the file.

    Attributes:
        rate: frames a second.

    Raises:
        ConfigError: PyAV is not installed.
        DataError: no readable video; it is named.
    """

    def __init__(self, path: Path) -> None:
        av = _library()
        self.path = path
        try:
            with av.open(str(path)) as container:
                streams = container.streams.video
                if not streams:
                    raise DataError(f"{path}: holds no pictures")
                self.rate = Fraction(streams[0].average_rate or 25)
        except av.error.FFmpegError as error:
            raise DataError(f"{path}: not a readable video ({error.strerror or error})") from error

    def __iter__(self) -> Iterator[Frame]:
        """Decodes the frames one by one.

        Raises:
            DataError: the file breaks off or is damaged.
        """
        av = _library()
        try:
            with av.open(str(self.path)) as container:
                for number, frame in enumerate(container.decode(video=0)):
                    picture = frame.to_ndarray(format="rgb24")
                    turned = np.rot90(picture, round(frame.rotation / 90) % 4)
                    seconds = frame.time if frame.time is not None else float(number / self.rate)
                    yield Frame(number, float(seconds), np.ascontiguousarray(turned))
        except av.error.FFmpegError as error:
            raise DataError(f"{self.path}: cannot be decoded further ({error.strerror or error})") from error


class VideoWriter:
    """Writes pictures of one size as an MP4 file, H.264; whole or not at all.

    Sides are cut to even numbers, as the format asks for.

    Args:
        path: the file, which ends in ``.mp4``.
        rate: frames a second.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self.path, self.rate = path, rate
        self._replacing = replacing(path)
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> "VideoWriter":
        temporary = self._replacing.__enter__()
        self._container = _library().open(str(temporary), "w", format="mp4")
        return self

    def write(self, picture: Picture) -> None:
        """Adds a frame, uint8 ``[H, W, 3]``."""
        height, width = (side - side % 2 for side in picture.shape[:2])
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self.rate)
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
            self._stream.options = {"crf": "20"}
        frame = _library().VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            if error is None:
                self._end()
        except BaseException as own:
            self._replacing.__exit__(type(own), own, own.__traceback__)
            raise
        return self._replacing.__exit__(kind, error, trace)

    def _end(self) -> None:
        if self._stream is None:
            raise DataError(f"{self.path}: no frame was written")
        self._container.mux(self._stream.encode())
        self._container.close()
