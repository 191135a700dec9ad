"""Live input: cameras of the network, streams and images of web servers."""

from __future__ import annotations

import base64
import logging
import re
import shutil
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
from .inputs import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_address
from .video import Frame, Image, import_pyav, upright_image

_log = logging.getLogger(__name__)
_TIMEOUT = 10.0
"""Seconds until a server must answer, and between two frames."""
_PATIENCE = 60.0
_PLAYLISTS = frozenset(
    ("application/vnd.apple.mpegurl", "application/x-mpegurl", "audio/mpegurl", "audio/x-mpegurl",
     "application/dash+xml")
)  # fmt: skip
"""What names the parts of a stream (HLS, DASH)."""
_SUFFIXES = {
    "video/quicktime": "mov", "video/x-matroska": "mkv", "video/x-msvideo": "avi",
}  # fmt: skip
"""Of types whose name is not that of their files."""
_LONGEST_STEM, _LONGEST_SUFFIX = 100, 10
"""Of the name of a file that is fetched; file systems take 255 bytes."""
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 8.0
"""Seconds between two tries to connect again."""


def hide_password(address: str) -> str:
    """An address for messages and files: without user, password and query."""
    assert is_address(address), address
    scheme, _, rest = address.partition("://")
    path, _, query = rest.partition("?")
    return f"{scheme}://{path.rpartition('@')[2]}" + ("?…" if query else "")


def fetch_file(address: str, folder: Path, number: int) -> Path | None:
    """Save the image or video at a web address in a folder; None if there is a live stream.

    Args:
        address: ``http(s)://…``; others are streams.
        folder: where it goes.
        number: begins its name, so that two cameras' ``snapshot.jpg`` stay apart.

    Raises:
        UserError: nothing answers, or it is a web page, or it broke off.
    """
    if not address.lower().startswith("http"):
        return None
    shown = hide_password(address)
    try:
        with urllib.request.urlopen(_request(address), timeout=_TIMEOUT) as response:
            kind = response.headers.get_content_type()
            if kind in ("text/html", "application/xhtml+xml"):
                raise UserError(f"'{shown}' is a web page, no image and no stream")
            size = response.headers.get("Content-Length")
            if kind in _PLAYLISTS or (size is None and not kind.startswith("image/")):
                return None  # without an end
            file = folder / _file_name(address, number, kind)
            with atomic_write(file) as partial, partial.open("wb") as target:
                shutil.copyfileobj(response, target)
                if size is not None and target.tell() != int(size):
                    raise UserError(f"'{shown}' broke off; try again")
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ValueError) as e:
        raise UserError(f"'{shown}' cannot be read: {_reason(e, address)}") from e
    return file


def _request(address: str) -> urllib.request.Request:
    """A request whose user and password go where HTTP has them (RFC 7617)."""
    scheme, _, rest = address.partition("://")
    place, slash, path = rest.partition("/")
    user, _, host = place.rpartition("@")
    request = urllib.request.Request(f"{scheme}://{host}{slash}{path}")
    if user:
        token = base64.b64encode(unquote(user).encode()).decode()
        # Not for the host that a redirect may lead to.
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


def _file_name(address: str, number: int, kind: str) -> str:
    name = re.sub(r"[^\w.-]", "_", Path(unquote(urlsplit(address).path)).name).strip(".") or "file"
    what = kind.partition("/")[0]
    known = {"image": IMAGE_SUFFIXES, "video": VIDEO_SUFFIXES}.get(what, frozenset())
    if "." not in name or (known and Path(name).suffix.lower() not in known):
        name += "." + _SUFFIXES.get(kind, kind.partition("/")[2].partition("+")[0])
    path = Path(name)
    return f"{number}_{path.stem[:_LONGEST_STEM]}{path.suffix[:_LONGEST_SUFFIX]}"


def _reason(error: Exception, address: str) -> str:
    """Why, without what the address keeps secret."""
    is_status = isinstance(error, urllib.error.HTTPError)
    reason = str(error if is_status else getattr(error, "reason", None) or error)
    secret = address.partition("://")[2].rpartition("@")[0]
    return reason.replace(secret, "…") if secret else reason


class Stream:
    """A live stream at an address.

    Only the newest frame is given, however long the caller takes, and it is connected to again when
    it breaks off. (What has an end is a file: :func:`fetch_file`.)

    Args:
        address: ``rtsp://…`` or ``http(s)://…``.
        patience: seconds without a frame after which a stream that broke off is given up.

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

    def __iter__(self) -> Iterator[Frame]:
        """Frames with the seconds since the first one."""
        yield from _Newest(self._frames())

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

    def _frames(self) -> Iterator[Frame]:
        """Frames of one connection after the other."""
        begun = last = time.perf_counter()
        number, wait = 0, _FIRST_WAIT
        container: Any = self._container
        while True:
            for image in self._images(container):
                last, wait = time.perf_counter(), _FIRST_WAIT
                yield Frame(number, last - begun, image)
                number += 1
            container = None
            while container is None:
                if time.perf_counter() - last > self._patience:
                    _log.error("stream '%s' did not come back", self.name)
                    return
                _log.info("stream '%s' ended; connecting again", self.name)
                time.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
                with suppress(UserError):
                    container = self._open()

    def _images(self, container: Any) -> Iterator[Image]:
        """What one connection gives."""
        av = import_pyav()
        try:
            for frame in container.decode(video=0):
                yield upright_image(frame)
        except av.error.FFmpegError as error:
            _log.info("stream '%s': %s", self.name, error.strerror or error)
        finally:
            container.close()


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
