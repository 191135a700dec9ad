"""Images by file name, from a folder or a zip archive."""

from __future__ import annotations

import lzma
import multiprocessing
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import UserError
from .images import Header, decode_annotated, read_file, read_header

DAMAGED = (
    zipfile.BadZipFile, OSError, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError,
)  # fmt: skip
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
            except DAMAGED as error:
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

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those of the names that have no file; of a folder by its listing, read once."""
        if self._entries is not None:
            return [name for name in names if name not in self._entries]
        listed = {entry.name for entry in os.scandir(self.path)}
        return [name for name in names if name not in listed and not self.holds(name)]

    def read(self, name: str) -> bytes:
        """The file's bytes.

        Raises:
            UserError: it is missing or cannot be read.
        """
        if self._entries is None:
            return read_file(self.path / name)
        if name not in self._entries:
            raise UserError(f"image '{name}' is not in '{self.path}'")
        try:
            return self._archive().read(self._entries[name])
        except DAMAGED as error:
            raise UserError(f"image '{self.path}/{name}' cannot be read: {error}") from error

    def image(self, name: str, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB as stored, or of the annotated size; see :func:`decode_annotated`."""
        data = self.read(name)
        return decode_annotated(data, str(self.path / name), size)

    def header(self, name: str) -> Header | None:
        """Size and orientation without decoding; None if they cannot be read."""
        try:
            if self._entries is None:
                with (self.path / name).open("rb") as file:
                    return read_header(file)
            with self._archive().open(self._entries[name]) as file:
                return read_header(file)
        except (KeyError, UserError, *DAMAGED):
            return None

    def _archive(self) -> zipfile.ZipFile:
        if self._open is None or self._open[0] != os.getpid():
            self._open = os.getpid(), zipfile.ZipFile(self.path)
        return self._open[1]

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_open": None}


_store: Store | None = None
"""Of a process of :func:`find_broken`."""


def find_broken(
    store: Store, entries: Sequence[tuple[str, tuple[int, int] | None]], processes: int
) -> Iterator[str]:
    """Decode images in processes of their own; in their order why each cannot be read, or an empty
    string.

    Args:
        store: where they are.
        entries: names and annotated sizes (H, W).
        processes: how many decode.

    Raises:
        UserError: a decoder crashed over one of them.
    """
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawned, _open_store, (store,)) as pool:
        try:
            yield from pool.map(_why_broken, entries, chunksize=16)
        except BrokenProcessPool as error:
            raise UserError(f"a decoder crashed over an image in '{store.path}'") from error


def _open_store(store: Store) -> None:
    global _store
    _store = store
    cv2.setNumThreads(1)


def _why_broken(entry: tuple[str, tuple[int, int] | None]) -> str:
    assert _store is not None
    try:
        _store.image(*entry)
    except UserError as error:
        return str(error)
    return ""
