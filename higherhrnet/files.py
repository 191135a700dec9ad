"""Writing files whole or not at all."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LONGEST = 255
"""Bytes in a file name, as file systems have it."""


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yields a temporary name beside ``path`` and renames it when the block ends well.

    An error in the block (full disk, Ctrl-C) leaves an older ``path`` as it was and nothing
    half-written behind.

    Raises:
        OSError: the file cannot be written; the message names it.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    if len(os.fsencode(partial.name)) > _LONGEST:
        partial = path.with_name(f".{zlib.crc32(os.fsencode(path.name)):08x}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"could not write '{path}': {reason}") from error
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    with whole(path) as partial:
        partial.write_text(json.dumps(value, allow_nan=False) + "\n")
