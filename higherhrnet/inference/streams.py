"""Live input: cameras of the network, streams and images of web servers."""

from __future__ import annotations

import logging
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import UserError
from ..io.atomic import atomic_write
from .video import Frame, import_pyav, upright_image

_log = logging.getLogger(__name__)
_ADDRESS = re.compile(r"(rtsps?|https?)://", re.IGNORECASE)
_LARGEST = 200 << 20
"""Bytes of an image."""
_TIMEOUT = 10.0
"""Seconds until a server must answer, and between two frames."""
_PATIENCE = 60.0
"""Seconds for which a stream that broke off is tried again."""


def is_address(name: str) -> bool:
    """Whether an input is an address of the network."""
    return _ADDRESS.match(name) is not None


def hide_password(address: str) -> str:
    """An address for messages and files."""
    return re.sub(r"://[^/@]*@", "://", address)


def fetch_image(address: str, folder: Path) -> Path | None:
    """Save the image at a web address in a folder; None if there is a stream or a video.

    Raises:
        UserError: nothing answers, or it is a web page.
    """
    if not address.lower().startswith("http"):
        return None
    shown = hide_password(address)
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT) as response:
            kind = response.headers.get_content_type()
            if kind in ("text/html", "application/xhtml+xml"):
                raise UserError(f"'{shown}' is a web page, no image and no stream")
            if not kind.startswith("image/"):
                return None
            data = response.read(_LARGEST + 1)
    except (OSError, HTTPException, ValueError) as error:
        is_status = isinstance(error, urllib.error.HTTPError)
        reason = error if is_status else getattr(error, "reason", None) or error
        raise UserError(f"'{shown}' cannot be read: {reason}") from error
    if len(data) > _LARGEST:
        raise UserError(f"'{shown}' has more than {_LARGEST >> 20} MiB")
    name = Path(unquote(urlsplit(address).path)).name or "image"
    if "." not in name:
        name += "." + kind.removeprefix("image/").partition("+")[0]
    file = folder / re.sub(r"[^\w.-]", "_", name)
    with atomic_write(file) as partial:
        partial.write_bytes(data)
    return file


class Stream:
    """A stream or video at an address.

    Of a live one only the newest frame is given, however long the caller takes, and it is connected
    to again when it breaks off. A video that has an end is read to it, frame by frame.

    Args:
        address: ``rtsp://…`` or ``http(s)://…``.
        patience: seconds for which a live stream that broke off is tried again.

    Raises:
        UserError: PyAV is not installed, nothing answers, or there is no video.
    """

    count = announced = 0
    length = origin = 0.0

    def __init__(self, address: str, patience: float = _PATIENCE) -> None:
        self._address, self._patience = address, patience
        self.name = hide_password(address)
        self._container = self._open()
        stream = self._container.streams.video[0]
        self.rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        self.is_live = not self._container.duration

    def __iter__(self) -> Iterator[Frame]:
        """Frames with the seconds since the first one."""
        if self.is_live:
            yield from _Newest(self._live_frames())
        else:
            yield from self._frames(self._container, 0)

    def _open(self) -> Any:
        av = import_pyav()
        options = {"rtsp_transport": "tcp"} if self._address.lower().startswith("rtsp") else {}
        try:
            container = av.open(self._address, options=options, timeout=_TIMEOUT)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"stream '{self.name}' cannot be opened: {reason}") from error
        if not container.streams.video:
            container.close()
            raise UserError(f"stream '{self.name}' holds no video")
        container.streams.video[0].thread_type = "AUTO"
        return container

    def _frames(self, container: Any, number: int) -> Iterator[Frame]:
        av = import_pyav()
        start = time.perf_counter()
        try:
            for frame in container.decode(video=0):
                seconds = time.perf_counter() - start
                if not self.is_live and frame.time is not None:
                    seconds = float(frame.time)
                yield Frame(number, seconds, upright_image(frame))
                number += 1
        except av.error.FFmpegError as error:
            _log.info("stream '%s' broke off: %s", self.name, error.strerror or error)
        finally:
            container.close()

    def _live_frames(self) -> Iterator[Frame]:
        """Frames of one connection after the other."""
        begun = time.perf_counter()
        number, container = 0, self._container
        while container is not None:
            for frame in self._frames(container, number):
                yield Frame(number, time.perf_counter() - begun, frame.image)
                number += 1
            container = self._reconnect()

    def _reconnect(self) -> Any:
        """A new connection; None if there was none for long enough."""
        deadline, wait = time.perf_counter() + self._patience, 0.5
        while time.perf_counter() < deadline:
            _log.info("stream '%s' ended; connecting again", self.name)
            time.sleep(wait)
            wait = min(2 * wait, 8.0)
            with suppress(UserError):
                return self._open()
        _log.error("stream '%s' did not come back within %.0f s", self.name, self._patience)
        return None


class _Newest:
    """What an iterator gave last, read by a thread of its own."""

    def __init__(self, frames: Iterator[Frame]) -> None:
        self._frames = frames
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._error: BaseException | None = None
        self._ended = self._closed = False

    def __iter__(self) -> Iterator[Frame]:
        thread = threading.Thread(target=self._read, name="stream", daemon=True)
        thread.start()
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._newest is not None or self._ended)
                    frame, self._newest = self._newest, None
                if frame is not None:
                    yield frame
                elif self._error is not None:
                    raise self._error
                else:
                    return
        finally:
            self._closed = True

    def _read(self) -> None:
        try:
            for frame in self._frames:
                with self._changed:
                    self._newest = frame
                    self._changed.notify()
                if self._closed:
                    break
        except BaseException as error:  # raised again in the caller's thread
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify()
