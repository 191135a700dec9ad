"""Very many images: lists, folders, tar shards (WebDataset) and object stores, cut into units.

A unit is a tar archive, or some hundred images. It is read, predicted and written as a whole, so
that whoever does it again after a kill writes the same file again.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ..errors import UserError
from .inputs import IMAGE_SUFFIXES, VIDEO_SUFFIXES

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_TAR = (".tar", ".tar.gz", ".tgz")


class UnreadError(UserError):
    """An image or archive could not be read now: a store that does not answer, a broken archive."""


@dataclass(frozen=True)
class Unit:
    """What is predicted as a whole.

    Attributes:
        images: paths or addresses; of a tar archive none.
        archive: path or address of a tar archive; empty for images.
    """

    images: tuple[str, ...] = ()
    archive: str = ""

    @property
    def name(self) -> str:
        """The same for the same content, whoever makes it and when."""
        text = "\n".join((self.archive, *self.images))
        return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]

    def read(self) -> Iterator[tuple[str, bytes | UnreadError]]:
        """Name and bytes of each image; or why it cannot be read.

        Raises:
            UnreadError: the archive cannot be opened, or breaks off.
        """
        if self.archive:
            yield from _read_archive(self.archive)
            return
        for image in self.images:
            yield image, _read_file(image)


def list_units(
    sources: str | Path | Iterable[str | Path],
    size: int = 256,
    done: frozenset[str] = frozenset(),
    recursive: bool = True,
) -> list[Unit]:
    """Everything that is to be predicted, in a fixed order.

    Args:
        sources: files, folders, globs, ``*.tar`` archives (``{0000..0099}`` counts), text files
            with one path a line (``@list.txt``), and addresses of whatever fsspec reads
            (``s3://bucket/folder``, ``gs://…``, ``memory://…``).
        size: images of a unit.
        done: images that are left out, by name, and archives.
        recursive: look into folders' subfolders.

    Raises:
        UserError: a source does not exist, or there are no images.
    """
    listed = [sources] if isinstance(sources, str | Path) else sources
    archives: dict[str, None] = {}
    images: dict[str, None] = {}
    for source in listed:
        found = [name for entry in _expand(str(source)) for name in _list(entry, recursive)]
        if not found:
            raise UserError(f"'{source}' holds no images and no tar archives")
        for name in found:
            (archives if name.lower().endswith(_TAR) else images)[name] = None
    units = [Unit(archive=archive) for archive in archives if archive not in done]
    left = [image for image in images if stored_name(image) not in done]
    units += [Unit(tuple(left[at : at + size])) for at in range(0, len(left), size)]
    return units


def stored_name(name: str) -> str:
    """A file's name as text that can be written: bytes that are no UTF-8 are escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def _expand(source: str, within_list: bool = False) -> Iterator[str]:
    """``shard-{0000..0002}.tar`` → three; ``@list.txt`` → its lines."""
    if source.startswith("@") and not within_list:
        try:
            lines = Path(source[1:]).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"list '{source[1:]}' cannot be read: {error}") from error
        for line in lines:
            if line.strip():
                yield from _expand(line.strip(), within_list=True)
        return
    ranges = _BRACES.findall(source)
    for numbers in product(*(range(int(a), int(b) + 1) for a, b in ranges)):
        text = source
        for (first, _), number in zip(ranges, numbers, strict=True):
            text = _BRACES.sub(str(number).zfill(len(first)), text, count=1)
        yield text


def _is_address(source: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]*://", source) is not None


def _list(source: str, recursive: bool) -> Sequence[str]:
    """Images and archives below a path or an address."""
    if _is_address(source):
        return _list_store(source, recursive)
    path = Path(os.path.abspath(Path(source).expanduser()))  # noqa: PTH100  links are kept apart
    if path.suffix == ".txt" and path.is_file():
        raise UserError(f"'{source}' is no image; as a list of images write @{source}")
    if path.is_file():
        if path.suffix.lower() in VIDEO_SUFFIXES:
            raise UserError(f"'{source}' is a video: higherhrnet predict takes these")
        return [str(path)]
    if path.is_dir():
        found = path.rglob("*") if recursive else path.iterdir()
    elif any(letter in source for letter in "*?["):
        found = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    else:
        raise UserError(f"'{source}' does not exist")
    return sorted(str(file) for file in found if _is_wanted(str(file)) and file.is_file())


def _is_wanted(name: str) -> bool:
    return name.lower().endswith(_TAR) or Path(name).suffix.lower() in IMAGE_SUFFIXES


def _list_store(source: str, recursive: bool) -> Sequence[str]:
    files, path = _open_store(source)
    try:
        if any(letter in path for letter in "*?["):
            found = files.glob(path)
        elif files.isfile(path):
            found = [path]
        else:
            found = files.find(path) if recursive else files.ls(path, detail=False)
    except Exception as error:  # each store has errors of its own
        raise UserError(f"'{source}' cannot be listed: {error}") from error
    if not found:
        raise UserError(f"'{source}' does not exist, or is empty")
    return sorted(files.unstrip_protocol(name) for name in found if _is_wanted(name))


def _open_store(address: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as error:
        raise UserError(
            f"'{address}': addresses need fsspec: pip install \"higherhrnet[dataset]\""
        ) from error
    try:
        files, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise UserError(f"'{address}' cannot be opened: {error}") from error
    return files, str(path)


def _read_file(name: str) -> bytes | UnreadError:
    try:
        if not _is_address(name):
            return Path(name).read_bytes()
        files, path = _open_store(name)
        data: bytes = files.cat_file(path)
        return data
    except Exception as error:  # each store has errors of its own
        return UnreadError(f"could not read '{name}': {error}")


def _read_archive(name: str) -> Iterator[tuple[str, bytes]]:
    """Images of a tar archive, one after another, as ``ARCHIVE/NAME``."""
    with ExitStack() as stack:
        try:
            if _is_address(name):
                files, path = _open_store(name)
                file = stack.enter_context(files.open(path, "rb"))
            else:
                file = stack.enter_context(Path(name).open("rb"))
            archive = stack.enter_context(tarfile.open(fileobj=file, mode="r|*"))
        except Exception as error:  # each store has errors of its own
            raise UnreadError(f"could not read '{name}': {error}") from error
        while True:
            try:
                member = archive.next()
                if member is None:
                    return
                content = archive.extractfile(member) if member.isfile() else None
                wanted = Path(member.name).suffix.lower() in IMAGE_SUFFIXES
                data = content.read() if content is not None and wanted else None
                if data is not None and len(data) < member.size:
                    raise EOFError(f"'{member.name}' is cut")
            except Exception as error:  # a broken archive, or a store that stopped answering
                raise UnreadError(f"archive '{name}' breaks off: {error}") from error
            if data is not None:
                yield f"{name}/{member.name}", data
