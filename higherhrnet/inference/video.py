"""Videos and cameras: frames upright and with their times, one at a time (PyAV; the ``video``
extra)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..io.images import check_size

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Frame:
    """One moment of a video.

    Attributes:
        number: from 0, broken ones counted.
        time: seconds from the start.
        image: (H, W, 3) uint8 RGB; None if the frame is broken.
        error: the sentence that says what is broken.
    """

    number: int
    time: float
    image: Image | None
    error: str = ""

    def require_image(self) -> Image:
        """The image.

        Raises:
            UserError: there is none.
        """
        if self.image is None:
            raise UserError(self.error)
        return self.image


def import_pyav() -> Any:
    """The library.

    Raises:
        UserError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise UserError("videos need PyAV: pip install 'higherhrnet[video]'") from error
    av.logging.set_level(av.logging.PANIC)
    return av


_SQUARE = 0.002
"""Pixels so near to a square, by rounding of the ratio, are left as they are."""
_WIDEST_PIXEL = 8.0
"""Ratios beyond are a mistake of the file."""
_RESTART = 0.5
"""Seconds by which a clock that goes back has started anew; by less, a frame is out of place."""
_LEAST = 1e-3
"""Seconds between two frames, where the file has two at one time."""


def zero_time(start: float, now: float, last: float, following: float) -> float:
    """The file's time, seconds, that counts as 0: as before, or anew where its clock starts anew
    (files put one behind the other).

    Args:
        start: what counted as 0 so far.
        now: the file's time of a frame or packet.
        last: time of the one before it, counted from 0.
        following: when this one is due if it follows that one.
    """
    return now - following if now - start < last - _RESTART else start


class VideoFile:
    """A video file to be read once, from its beginning.

    Attributes:
        path: the file.
        shape: (H, W) of its frames, before they are turned; zeros if it does not tell.
        rate: frames a second, on average.
        count: frames, as far as the file tells or its length lets guess; 0 if it does not.
        announced: frames that the file says it holds; 0 if it does not.
        length: seconds that the file says its images last; 0 if it does not.
        origin: the file's time at the first frame, seconds; known when that has been read.

    Raises:
        UserError: PyAV is not installed, or the file is missing or holds no video.
    """

    def __init__(self, path: Path) -> None:
        av = import_pyav()
        self.path = path
        if not path.is_file():
            raise UserError(f"video '{path}' does not exist")
        try:
            self._container = av.open(ffmpeg_path(path))
        except (av.error.FFmpegError, OSError, ValueError) as error:  # also of damaged names in it
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"video '{path}' cannot be read: {reason}") from error
        if not self._container.streams.video:
            self._container.close()
            raise UserError(f"'{path}' holds no video")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        context = self._stream.codec_context
        if context is None:
            self._container.close()
            raise UserError(f"video '{path}' has a codec that FFmpeg does not know")
        self.shape = (int(context.height or 0), int(context.width or 0))
        if all(self.shape):
            check_size(self.shape, f"video '{path}'")
        self.origin = 0.0
        self.rate = Fraction(self._stream.average_rate or self._stream.guessed_rate or 25)
        self.count = self.announced = int(self._stream.frames)
        seconds = (self._container.duration or 0) / av.time_base
        self.length = _length(self._stream)
        if not self.length and len(self._container.streams) == 1:  # else sound may last longer
            self.length = seconds
        if not self.count:
            self.count = round(float(self.rate) * (self.length or seconds))

    def __iter__(self) -> Iterator[Frame]:
        """Every frame in order, at times that rise, also where the file's own clock starts anew
        (files put one behind the other); a broken one says why it has no image."""
        av = import_pyav()
        number, last = 0, 0.0
        start: float | None = None
        packets = self._container.demux(self._stream)
        try:
            while True:
                try:
                    packet = next(packets, None)
                    if packet is None:
                        return
                    frames = packet.decode()
                except av.error.EOFError:
                    return
                except av.error.FFmpegError as error:
                    yield self._broken_frame(number, last, error.strerror or str(error))
                    number += 1
                    continue
                for frame in frames:
                    following = last + 1 / float(self.rate) if number else 0.0
                    if frame.time is None:  # where it should be
                        last = following
                    else:
                        now = float(frame.time)
                        if start is None:
                            start = self.origin = now - following
                        start = zero_time(start, now, last, following)
                        last = max(now - start, last + _LEAST) if number else now - start
                    if frame.is_corrupt:
                        yield self._broken_frame(number, last, "its data is damaged")
                    else:
                        yield Frame(number, last, upright_image(frame, self._pixel_ratio()))
                    number += 1
        finally:
            self._container.close()

    def _pixel_ratio(self) -> float:
        """Width of a pixel by its height, as DV and DVD have it; 1 where the file does not tell."""
        for source in (self._stream, self._stream.codec_context):
            if ratio := float(source.sample_aspect_ratio or 0):
                return ratio if 1 / _WIDEST_PIXEL <= ratio <= _WIDEST_PIXEL else 1.0
        return 1.0

    def _broken_frame(self, number: int, seconds: float, reason: str) -> Frame:
        where = f"'{self.path}', frame {number} ({seconds:.2f} s)"
        return Frame(number, seconds, None, f"{where}: {reason}")


def _length(stream: Any) -> float:
    """Seconds that the file says a stream lasts; Matroska writes them as HH:MM:SS.fraction."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    try:
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return 3600 * float(hours) + 60 * float(minutes) + float(seconds)
    except (KeyError, ValueError):
        return 0.0


def ffmpeg_path(path: Path) -> str:
    """For FFmpeg, which takes what is before a colon in a relative name for a protocol."""
    return str(path.absolute())


def upright_image(frame: Any, pixel_ratio: float = 1.0) -> Image:
    """The frame as players show it: with square pixels, and turned."""
    image: Image = frame.to_ndarray(format="rgb24")
    if abs(pixel_ratio - 1) > _SQUARE:
        width = max(round(image.shape[1] * pixel_ratio), 1)
        image = np.asarray(cv2.resize(image, (width, image.shape[0])), np.uint8)
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


class Camera:
    """A camera by number, watched until the caller stops.

    Raises:
        UserError: it cannot be opened.
    """

    count = announced = 0
    length = origin = 0.0

    def __init__(self, number: int) -> None:
        self.number = number
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise UserError(f"camera {number} cannot be opened")
        self.rate = Fraction(round(self._capture.get(cv2.CAP_PROP_FPS)) or 30)

    def __iter__(self) -> Iterator[Frame]:
        """What it sees now; ends when it is unplugged."""
        start = time.perf_counter()
        number = 0
        try:
            while True:
                there, image = self._capture.read()
                if not there:
                    return
                yield Frame(number, time.perf_counter() - start, image[..., ::-1].copy())
                number += 1
        finally:
            self._capture.release()
