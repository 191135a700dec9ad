"""Videos and cameras in, annotated videos out (PyAV; the ``video`` extra).

Frames come upright and with their times, one at a time; what is written keeps the times and the
sound.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..files import whole

Image = npt.NDArray[np.uint8]
_CODECS = ("libx264", "mpeg4")
_SOUNDS = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "alac"})
"""What an .mp4 can hold as it is."""


@dataclass(frozen=True)
class Frame:
    """One moment of a video.

    Attributes:
        number: from 0, broken ones counted.
        time: seconds from the start.
        image: (H, W, 3) uint8 RGB; None if the frame is broken.
        fault: the sentence that says what is broken.
    """

    number: int
    time: float
    image: Image | None
    fault: str = ""

    def picture(self) -> Image:
        """The image.

        Raises:
            ValueError: there is none.
        """
        if self.image is None:
            raise ValueError(self.fault)
        return self.image


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise ValueError("videos need PyAV: pip install av") from error
    av.logging.set_level(av.logging.PANIC)
    return av


_RESTART = 0.5
"""Seconds by which a clock that goes back has started anew; by less, a frame is out of place."""
_LEAST = 1e-3
"""Seconds between two frames, where the file has two at one time."""


class VideoFile:
    """A video file to be read once, from its beginning.

    Attributes:
        path: the file.
        rate: frames a second, on average.
        count: frames, as far as the file tells; 0 if it does not.
        origin: the file's time at the first frame, seconds; known when that has been read.

    Raises:
        ValueError: PyAV is not installed, or the file is missing or holds no video.
    """

    def __init__(self, path: Path) -> None:
        av = _av()
        self.path = path
        if not path.is_file():
            raise ValueError(f"video '{path}' does not exist")
        try:
            self._container = av.open(_address(path))
        except (av.error.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValueError(f"video '{path}' cannot be read: {reason}") from error
        if not self._container.streams.video:
            self._container.close()
            raise ValueError(f"'{path}' holds no video")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self.origin = 0.0
        self.rate = Fraction(self._stream.average_rate or self._stream.guessed_rate or 25)
        self.count = int(self._stream.frames)
        if not self.count and self._container.duration:
            self.count = round(float(self.rate) * self._container.duration / av.time_base)

    def __iter__(self) -> Iterator[Frame]:
        """Every frame in order, at times that rise, also where the file's own clock starts anew
        (files put one behind the other); a broken one says why it has no image."""
        av = _av()
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
                    reason = error.strerror or str(error)
                    where = f"'{self.path}', frame {number} ({last:.2f} s)"
                    yield Frame(number, last, None, f"{where}: {reason}")
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
                        elif now - start < last - _RESTART:
                            start = now - following
                        last = max(now - start, last + _LEAST) if number else now - start
                    yield Frame(number, last, _upright(frame))
                    number += 1
        finally:
            self._container.close()


def _address(path: Path) -> str:
    """For FFmpeg, which takes what stands before a colon in a relative name for a protocol."""
    return str(path.absolute())


def _fitted(image: Image, height: int, width: int) -> Image:
    """The whole picture in the middle of a black canvas."""
    factor = min(height / image.shape[0], width / image.shape[1])
    size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = cv2.resize(image, size)
    return canvas


def _upright(frame: Any) -> Image:
    image: Image = frame.to_ndarray(format="rgb24")
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


class Camera:
    """A camera by number, watched until the caller stops.

    Raises:
        ValueError: it cannot be opened.
    """

    count = 0
    origin = 0.0

    def __init__(self, number: int) -> None:
        self.number = number
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise ValueError(f"camera {number} cannot be opened")
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


class VideoWriter:
    """A context that writes an .mp4 whole or not at all; what was written before Ctrl-C counts.

    Args:
        path: file to (over)write.
        rate: frames a second.
        sound: video whose sound is kept, if it has any that an .mp4 can hold.

    Attributes:
        mute: why there is sound that is not kept; empty where there is none or all is well.
        origin: the sound's time at the first frame, seconds; to be set before that is added.

    Raises:
        ValueError: PyAV is not installed.
        OSError: the file cannot be written.
    """

    _CLOCK = 60000  # ticks a second; MPEG-4 allows no more than 65,535

    def __init__(self, path: Path, rate: Fraction, sound: Path | None = None) -> None:
        self._av = _av()
        self.path = path
        self._rate = rate
        self._sound_path = sound
        self._last = -1
        self._stream: Any = None
        self._sound: Iterator[Any] | None = None
        self.mute = ""
        self.origin = 0.0
        self._waiting: Any = None

    def __enter__(self) -> VideoWriter:
        self._whole = whole(self.path)
        self._partial = self._whole.__enter__()
        try:
            self._container = self._av.open(str(self._partial), "w", format="mp4")
            self._stream = self._new_stream()
            self._open_sound()
        except BaseException as error:
            self._whole.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _new_stream(self) -> Any:
        for name in _CODECS:
            with suppress(ValueError, self._av.error.FFmpegError):
                stream = self._container.add_stream(name, rate=self._rate)
                stream.codec_context.time_base = Fraction(1, self._CLOCK)
                stream.pix_fmt = "yuv420p"
                if name == "libx264":
                    stream.options = {"preset": "veryfast", "crf": "20"}
                return stream
        raise OSError(f"could not write '{self.path}': no encoder among {', '.join(_CODECS)}")

    def _open_sound(self) -> None:
        """The sound's packets are copied as they are; sound that mp4 cannot hold is left out.

        Frame times count from the first frame that can be decoded; the sound moves with them."""
        if self._sound_path is None:
            return
        source = self._av.open(_address(self._sound_path))
        if not source.streams.audio:
            source.close()
            return
        stream = source.streams.audio[0]
        kind = stream.codec_context.name
        if kind.removesuffix("float") not in _SOUNDS:
            source.close()
            self.mute = f"its sound ({kind}) cannot be kept in an .mp4 and is left out"
            return
        self._sound_stream = self._container.add_stream_from_template(stream)
        self._sound = self._packets(source, stream)

    def _packets(self, source: Any, stream: Any) -> Iterator[Any]:
        shift: int | None = None
        last = step = 0
        try:
            for packet in source.demux(stream):
                if packet.dts is None or packet.pts is None:
                    continue
                if shift is None:
                    shift = round(self.origin / packet.time_base)
                elif (
                    packet.dts - shift < last - _RESTART / packet.time_base
                ):  # the file's clock starts anew, as the frames' does
                    shift = packet.dts - last - step
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                last, step = packet.dts, packet.duration or 1
                if packet.dts * packet.time_base > -0.1:  # encoders begin a little early
                    yield packet
        finally:
            source.close()

    def add(self, image: Image, seconds: float) -> None:
        """A frame (H, W, 3) uint8 RGB and its time; times must rise. A frame of another size than
        the first is fitted into that."""
        height, width = image.shape[0] + image.shape[0] % 2, image.shape[1] + image.shape[1] % 2
        if self._last < 0:
            self._stream.width, self._stream.height = width, height
        elif (width, height) != (self._stream.width, self._stream.height):
            width, height = self._stream.width, self._stream.height
            image = _fitted(image, height, width)
        if image.shape[:2] != (height, width):  # the encoder wants even sides
            image = np.asarray(
                cv2.copyMakeBorder(
                    image, 0, height - image.shape[0], 0, width - image.shape[1],
                    cv2.BORDER_REPLICATE,
                ),
                np.uint8,
            )  # fmt: skip
        frame = self._av.VideoFrame.from_ndarray(image, format="rgb24")
        self._last = max(round(seconds * self._CLOCK), self._last + 1)
        frame.pts, frame.time_base = self._last, Fraction(1, self._CLOCK)
        self._mux(partial(self._stream.encode, frame))
        self._copy_sound(seconds)

    def _copy_sound(self, until: float) -> None:
        while self._sound is not None:
            packet = self._waiting or next(self._sound, None)
            self._waiting = None
            if packet is None:
                self._sound = None
            elif float(packet.dts * packet.time_base) > until:
                self._waiting = packet
                return
            else:
                packet.stream = self._sound_stream
                self._mux(partial(iter, [packet]))

    def _mux(self, make: Callable[[], Any]) -> None:
        try:
            for packet in make():
                self._container.mux(packet)
        except self._av.error.FFmpegError as error:
            raise OSError(error.errno, error.strerror) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._last >= 0 and kind is None:
            try:
                self._mux(self._stream.encode)
                self._copy_sound(self._last / self._CLOCK + 1 / float(self._rate))
                self._container.close()
            except (OSError, self._av.error.FFmpegError) as failure:
                self._whole.__exit__(type(failure), failure, failure.__traceback__)
                raise
        else:
            with suppress(Exception):
                self._container.close()
            if kind is None:  # no frame ever came
                self._partial.unlink(missing_ok=True)
                return
        self._whole.__exit__(kind, error, trace)
