"""Files from the network: resumed where they broke off, checked, whole or not at all."""

from __future__ import annotations

import hashlib
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock
from tqdm import tqdm

from ..errors import UserError, WriteError

_PIECE = 1 << 20


def download(
    url: str, file: Path, check: Callable[[Path], None] = lambda path: None, resume: bool = True
) -> None:
    """Fetch a file, going on where an earlier try stopped; several processes take turns, and all
    but the first find it there.

    Args:
        url: where it is.
        file: where it goes, once it is whole.
        check: raises ``UserError`` if what came is damaged; that is removed then.
        resume: go on with what came before. A file that cannot be checked is better fetched anew:
            the server may have another one by now.

    Raises:
        OSError: the network or the disk failed; the part that came is kept as ``FILE.partial``.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock")):
        if not file.is_file():
            _download(url, file, check, resume)


def _download(url: str, file: Path, check: Callable[[Path], None], resume: bool) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"'{url}' is no address of a web server (http or https)")
    partial = file.with_name(file.name + ".partial")
    if not resume:
        partial.unlink(missing_ok=True)
    start = partial.stat().st_size if partial.is_file() else 0
    total = 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            _check_response(url, response, start)
            if start and response.status != 206:  # the server sends all of it again
                start = 0
            if response.headers.get("Content-Length"):
                total = start + int(response.headers["Content-Length"])
            bar = tqdm(
                total=total or None, initial=start, unit="B", unit_scale=True, desc=file.name
            )
            with partial.open("ab" if start else "wb") as target, bar:
                while piece := response.read(_PIECE):
                    target.write(piece)
                    bar.update(len(piece))
    except urllib.error.HTTPError as error:
        size = (error.headers.get("Content-Range") or "").rpartition("/")[2]
        if error.code == 416 and size.isdigit() and int(size) < start:
            partial.unlink()  # more than the server has cannot be a part of it: another file
            return _download(url, file, check, resume)
        if error.code != 416 or size not in ("", str(start)):  # 416: all of it is here already
            raise WriteError(
                f"could not fetch '{url}': {error}; try again, or download it by hand to '{file}'"
            ) from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise WriteError(
            f"could not fetch '{url}': {reason}; try again, or download it by hand to '{file}'"
        ) from error
    except OSError as error:
        raise WriteError(f"could not write '{partial}': {error.strerror or error}") from error
    if not partial.stat().st_size:
        partial.unlink()
        raise WriteError(f"'{url}' is empty; try again later")
    if total and partial.stat().st_size != total:
        again = "it goes on where it stopped" if resume else "it starts anew"
        raise WriteError(f"'{url}' broke off; try again, {again}")
    try:
        check(partial)
    except UserError:
        partial.unlink()
        raise
    partial.replace(file)


def _check_response(url: str, response: Any, start: int) -> None:
    """That a server answers what was asked for.

    Raises:
        UserError: it sends a page, packed bytes, or a part that is not the one that is missing.
    """
    headers = response.headers
    if urlsplit(response.url).scheme not in ("http", "https"):
        raise UserError(f"'{url}' leads to '{response.url}', which is no web server")
    kind = (headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise UserError(f"'{url}' answers with a web page, not with the file; open it in a browser")
    packed = (headers.get("Content-Encoding") or "identity").strip().lower()
    if packed != "identity":
        raise UserError(f"'{url}' sends the file packed ({packed}), which was not asked for")
    if response.status == 206:
        begins = re.match(r"bytes (\d+)-", headers.get("Content-Range") or "")
        if not start or begins is None or int(begins[1]) != start:
            raise UserError(f"'{url}' sends a part of the file that was not asked for; try again")
    elif response.status != 200:
        raise UserError(f"'{url}' answers with status {response.status}, not with the file")


def digest_of(file: Path, kind: str = "sha256") -> str:
    """Hexadecimal digest of a file, ``md5`` or ``sha256``."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with file.open("rb") as source:
        while piece := source.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def verify(file: Path, checksum: str, kind: str = "md5") -> None:
    """Compare a file with its checksum, or with as many first digits of it as are known.

    Args:
        file: to be read.
        checksum: hexadecimal digits; none compares nothing.
        kind: ``md5`` or ``sha256``.

    Raises:
        UserError: they differ.
    """
    if not checksum:
        return
    found = digest_of(file, kind)
    if not found.startswith(checksum):
        raise UserError(
            f"'{file}' has {kind} {found[: max(len(checksum), 8)]}, not {checksum}: it is damaged; "
            "try again"
        )
