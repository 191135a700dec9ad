"""Writing files whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import WriteError

_LONGEST = 255
"""Bytes in a file name, as file systems have it."""


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields a temporary name beside ``path`` and renames it when the block ends well.

    An error in the block (full disk, Ctrl-C) leaves an older ``path`` as it was and nothing
    half-written behind.

    Raises:
        OSError: the file cannot be written; the message names it.
    """
    path = Path(os.path.realpath(path))  # a link stays one; what it points to is written
    if path.exists() and not path.is_file():
        raise WriteError(f"could not write '{path}': it is {_kind(path)}")
    blocking = next((part for part in path.parents if part.is_file()), None)
    if blocking is not None:
        raise WriteError(f"could not write '{path}': '{blocking}' is no folder")
    partial = path.with_name(f".{path.name}.partial")
    if len(os.fsencode(partial.name)) > _LONGEST:
        partial = path.with_name(f".{zlib.crc32(os.fsencode(path.name)):08x}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(f"could not write '{path}': {reason}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside ``path`` and renames it when the block ends well; what is in
    it is removed otherwise.

    Args:
        path: new, or an empty folder.

    Raises:
        OSError: it cannot be written; the message names it.
    """
    path = Path(os.path.realpath(path))
    partial = path.with_name(f".{path.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if path.is_dir():
            path.rmdir()
        partial.rename(path)
    except WriteError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(f"could not write '{path}': {reason}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _kind(path: Path) -> str:
    return "a folder" if path.is_dir() else "a device or the like, no file"


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(value, allow_nan=False) + "\n")
