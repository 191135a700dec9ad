"""What clients send: bytes with limits, forms, numbers."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ..errors import UserError
from ..inference.video import VideoFile
from ..io.images import decode, read_size


@dataclass(frozen=True)
class Limits:
    """What clients may ask for.

    Attributes:
        queue: images that wait or are worked on.
        body: bytes of an image's request.
        video: bytes of a video's.
        pixels: of an image.
        inputs: pixels of the network's inputs for an image, all views together.
        seconds: for an image's bytes, from its last byte to its answer, and of silence.
        upload: seconds for a video's bytes.
        videos: at the same time.
        clients: live connections at the same time.
    """

    queue: int = 64
    body: int = 20 << 20
    video: int = 500 << 20
    pixels: int = 50_000_000
    inputs: int = 16_000_000
    seconds: float = 60.0
    upload: float = 300.0
    videos: int = 1
    clients: int = 8


async def read_parts(request: Request, most: int, seconds: float) -> AsyncIterator[bytes]:
    """A request's body, piece by piece; its size and its time have limits.

    Raises:
        HTTPException: it is too large.
        TimeoutError: it takes too long.
    """
    too_large = HTTPException(413, f"more than {most:,} bytes")
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > most:
        raise too_large
    size, deadline = 0, time.monotonic() + seconds
    stream = request.stream()
    while True:
        try:
            part = await asyncio.wait_for(anext(stream), max(deadline - time.monotonic(), 0))
        except StopAsyncIteration:
            return
        size += len(part)
        if size > most:
            raise too_large
        yield part


async def read_image_bytes(request: Request, limits: Limits) -> bytes:
    """The bytes of an image, from the body or from the first file of a form."""
    parts = [part async for part in read_parts(request, limits.body, limits.seconds)]
    body = b"".join(parts)
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        return body
    found = _first_file(kind, body)
    if found is None:
        raise HTTPException(400, "the form holds no file")
    return found


_MOST_PARTS = 20
"""Of a form that are looked at."""


def _first_file(kind: str, body: bytes) -> bytes | None:
    """The first file of a multipart form (RFC 7578); None if there is none."""
    found = re.search(r'boundary=(?:"([^"]+)"|([^;\s]+))', kind)
    if found is None:
        return None
    limit = b"--" + (found[1] or found[2]).encode("latin-1", "replace")
    start = body.find(limit)
    for _ in range(_MOST_PARTS):
        end = body.find(b"\r\n" + limit, start + len(limit))
        if start < 0 or end < 0:
            return None
        head, blank, payload = body[start + len(limit) : end].partition(b"\r\n\r\n")
        if blank and (b"filename=" in head or b"image/" in head):
            return payload
        start = end + 2
    return None


def decode_image(data: bytes, most: int) -> npt.NDArray[np.uint8]:
    """Bytes → (H, W, 3) uint8 RGB; nothing larger than ``most`` pixels is decoded.

    Raises:
        UserError: they are no image of a known kind, or a larger one.
    """
    if not data:
        raise UserError("the request holds no image")
    size = read_size(data)
    if size is None:
        raise UserError("the request is no image of a known kind: send JPEG, PNG or WebP")
    if size[0] * size[1] > most:
        raise UserError(f"the image has {size[1]}x{size[0]} pixels; this server takes {most:,}")
    try:
        return decode(data, "request", upright=True)
    except MemoryError as error:
        raise UserError("there is not enough memory for an image of this size") from error


def open_video(path: Path, most: int) -> VideoFile:
    """A video of a request, whose frames have at most so many pixels.

    Raises:
        UserError: it is none, or a larger one.
    """
    try:
        video = VideoFile(path)
    except UserError as error:
        raise UserError(str(error).replace(f"'{path}'", "of the request")) from error
    if video.shape[0] * video.shape[1] > most:
        raise UserError(
            f"the video has {video.shape[1]}x{video.shape[0]} pixels, which is too much"
        )
    return video


def read_number(query: Mapping[str, str], name: str) -> float | None:
    """A number of the query, if it is there.

    Raises:
        HTTPException: it is no finite number.
    """
    if name not in query:
        return None
    try:
        value = float(query[name])
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise HTTPException(400, f"{name} '{query[name]}' is no number")
    return value
