"""Image files: their bytes from a folder or a zip archive, and from bytes to pixels."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import UserError

_DAMAGED = (zipfile.BadZipFile, OSError, zlib.error, EOFError, RuntimeError)
"""What reading an archive may raise; RuntimeError if it is encrypted or packed in unknown ways."""


class Store:
    """Images by file name, from a folder or from a zip archive (as COCO is distributed).

    In an archive a name is found with or without one leading folder (if no other entry would be
    found by it too), so that ``train2017.zip``
    serves ``000000000009.jpg`` from ``train2017/000000000009.jpg``.

    Args:
        path: the folder, or a ``.zip`` file.

    Raises:
        UserError: there is no such folder or archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, str] | None = None
        # An open archive belongs to one process: workers that share a file position read garbage.
        self._open: tuple[int, zipfile.ZipFile] | None = None
        if path.suffix == ".zip" and path.is_file():
            try:
                names = self._archive().namelist()
            except _DAMAGED as error:
                raise UserError(f"image archive '{path}' cannot be read: {error}") from error
            inner = [(name.partition("/")[2], name) for name in names]
            often = Counter(short for short, _ in inner)  # train/1.jpg and val/1.jpg are no 1.jpg
            self._entries = {short: name for short, name in inner if often[short] == 1}
            self._entries |= {name: name for name in names}
        elif not path.is_dir():
            raise UserError(f"image folder '{path}' does not exist")

    def holds(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return (self.path / name).is_file() if self._entries is None else name in self._entries

    def read(self, name: str) -> bytes:
        """The file's bytes.

        Raises:
            UserError: it is missing or cannot be read.
        """
        if self._entries is None:
            return _read(self.path / name)
        if name not in self._entries:
            raise UserError(f"image '{name}' is not in '{self.path}'")
        try:
            return self._archive().read(self._entries[name])
        except _DAMAGED as error:
            raise UserError(f"image '{self.path}/{name}' cannot be read: {error}") from error

    def image(self, name: str) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, as stored; see :func:`decode`."""
        return decode(self.read(name), str(self.path / name))

    def _archive(self) -> zipfile.ZipFile:
        if self._open is None or self._open[0] != os.getpid():
            self._open = os.getpid(), zipfile.ZipFile(self.path)
        return self._open[1]

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_open": None}


def read_image(path: str | Path, upright: bool = True) -> npt.NDArray[np.uint8]:
    """Read an image file as (H, W, 3) uint8 RGB; see :func:`decode`.

    By default upright, which is how a predictor sees the file.

    Raises:
        UserError: the file is missing, truncated or not an image.
    """
    return decode(_read(Path(path)), str(path), upright)


def decode(data: bytes, name: str, upright: bool = False) -> npt.NDArray[np.uint8]:
    """Bytes of an image file → (H, W, 3) uint8 RGB.

    Args:
        data: JPEG, PNG, or whatever else OpenCV reads.
        name: what error messages call it.
        upright: turn the image as its EXIF orientation says, as viewers do; otherwise it is
            given as stored, which is what COCO's annotations refer to.

    Raises:
        UserError: the data are truncated or not an image.
    """
    if _is_truncated(data):
        # OpenCV would decode what is there and leave the rest gray.
        raise UserError(f"image '{name}' is truncated")
    flags = cv2.IMREAD_COLOR_RGB | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:  # larger than OpenCV is willing to decode
        image = None
    if image is None:
        raise UserError(f"image '{name}' cannot be decoded")
    return np.asarray(image, dtype=np.uint8)


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise UserError(f"image '{path}' does not exist")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"image '{path}' cannot be read: {error.strerror}") from error


def _is_truncated(data: bytes) -> bool:
    """Whether a JPEG has no end marker, or a PNG no end chunk."""
    if data.startswith(b"\xff\xd8"):
        return not data.endswith(b"\xff\xd9") and not _jpeg_ends(data)
    return data.startswith(b"\x89PNG") and b"IEND" not in data


_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
"""What ends a scan: in it 0xFF is followed by 0 (escaped) or is a restart marker."""
_JPEG_END, _JPEG_ALONE = 0xD9, (0x01, 0xD8)


def _jpeg_ends(data: bytes) -> bool:
    """Go from segment to segment, so that neither a thumbnail inside one nor what cameras append
    (a video, a depth map) is taken for the image's own end."""
    position = 2
    while (found := _JPEG_MARKER.search(data, position)) is not None:
        marker, position = found[1][0], found.end()
        if marker == _JPEG_END:
            return True
        if marker not in _JPEG_ALONE:  # a segment: its length is written in front of it
            position += int.from_bytes(data[position : position + 2], "big")
    return False
