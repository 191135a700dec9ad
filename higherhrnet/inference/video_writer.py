"""Annotated videos out: what is written keeps the frames' times and the sound (PyAV)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from ..errors import WriteError
from ..io.atomic import atomic_write
from .video import Image, ffmpeg_path, import_pyav, zero_time

_CODECS = ("libx264", "mpeg4")
_SOUNDS = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "alac"})
"""What an .mp4 can hold as it is."""


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
        UserError: PyAV is not installed.
        OSError: the file cannot be written.
    """

    _CLOCK = 60000  # ticks a second; MPEG-4 allows no more than 65,535

    def __init__(self, path: Path, rate: Fraction, sound: Path | None = None) -> None:
        self._av = import_pyav()
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
        self._whole = atomic_write(self.path)
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
        raise WriteError(f"could not write '{self.path}': no encoder among {', '.join(_CODECS)}")

    def _open_sound(self) -> None:
        """The sound's packets are copied as they are; sound that mp4 cannot hold is left out.

        Frame times count from the first frame that can be decoded; the sound moves with them."""
        if self._sound_path is None:
            return
        source = self._av.open(ffmpeg_path(self._sound_path))
        if not source.streams.audio:
            source.close()
            return
        stream = source.streams.audio[0]
        # FFmpeg has no decoder for every codec; then there is no context, and no name.
        kind = getattr(stream.codec_context, "name", None) or "of an unknown codec"
        if kind.removesuffix("float") not in _SOUNDS:
            source.close()
            self.mute = f"its sound ({kind}) cannot be kept in an .mp4 and is left out"
            return
        self._sound_stream = self._container.add_stream_from_template(stream)
        self._sound = self._packets(source, stream)

    def _packets(self, source: Any, stream: Any) -> Iterator[Any]:
        # The first packet is not behind another, however early it is.
        start, last, following = self.origin, -math.inf, 0.0
        try:
            for packet in source.demux(stream):
                if packet.dts is None or packet.pts is None:
                    continue
                tick, now = packet.time_base, float(packet.dts * packet.time_base)
                start = zero_time(start, now, last, following)
                shift = round(start / tick)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                last = float(packet.dts * tick)
                following = float((packet.dts + (packet.duration or 1)) * tick)
                if last > -0.1:  # encoders begin a little early
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
            image = _fit(image, height, width)
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
            raise WriteError(error.errno, error.strerror) from error

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


def _fit(image: Image, height: int, width: int) -> Image:
    """The whole image in the middle of a black canvas."""
    factor = min(height / image.shape[0], width / image.shape[1])
    size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = cv2.resize(image, size)
    return canvas
