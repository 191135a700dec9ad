"""Image files: from bytes to pixels, as stored, upright, or as annotated."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import UserError

MAX_INPUT_PIXELS = 1 << 24
"""Of a network's input: 4096 x 4096."""
MAX_PIXELS = 2**28
"""Pixels of the largest image that is read: 0.8 GB as RGB, and below all limits of OpenCV's."""


class Header(NamedTuple):
    """What is written at the beginning of an image file.

    Attributes:
        size: (H, W) of the pixels as stored.
        orientation: EXIF's, 1 to 8; 5 to 8 exchange the sides, 1 leaves the image as it is.
        frames: images in the file, of an animation or of several pages.
    """

    size: tuple[int, int]
    orientation: int = 1
    frames: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """(H, W) as viewers show it."""
        return self.size[::-1] if self.orientation in _TURNED else self.size


_TURNED = frozenset({5, 6, 7, 8})
_EXIF_ORIENTATION = 0x0112


def read_image(path: str | Path, upright: bool = True) -> npt.NDArray[np.uint8]:
    """Read an image file as (H, W, 3) uint8 RGB; see :func:`decode`.

    By default upright, which is how a predictor sees the file.

    Raises:
        UserError: the file is missing, truncated or not an image.
    """
    return decode(read_file(Path(path)), str(path), upright)


def read_annotated(path: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """An image file as annotations of this size (H, W) mean it; see :func:`decode_annotated`."""
    return decode_annotated(read_file(path), str(path), size)


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
    try:
        size = read_size(data)
    except UserError as error:
        raise UserError(f"image '{name}': {error}") from error
    if size is not None:
        check_size(size, f"image '{name}'")
    keep = 0 if upright else cv2.IMREAD_IGNORE_ORIENTATION
    if _may_be_deep(data):
        image = _decode_deep(data, keep, name)
    else:
        image = _imdecode(data, cv2.IMREAD_COLOR_RGB | keep)
        if upright and image is not None and data[4:12] == b"ftypavif":  # OpenCV does not turn it
            header = read_header(BytesIO(data), count=False)
            image = turn_upright(image, header.orientation if header else 1)
    if image is None:
        raise UserError(f"image '{name}' cannot be decoded")
    check_size(image.shape[:2], f"image '{name}'")
    return np.asarray(image, np.uint8)


def turn_upright(image: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """An image as its EXIF orientation wants it to be shown."""
    if orientation in _TURNED:
        image = np.swapaxes(image, 0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def _imdecode(data: bytes, flags: int) -> npt.NDArray[Any] | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:  # larger than OpenCV is willing to decode, or of a kind that it is not
        return None


def _may_be_deep(data: bytes) -> bool:
    """Whether a file may have more than 8 bits a channel: a PNG that says so, or a
    kind that does not say it at its beginning."""
    if data.startswith(b"\x89PNG"):
        return data[24:25] == b"\x10"
    return data.startswith(_DEEP)


_DEEP = (
    b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"P2", b"P3", b"P5", b"P6",
    b"\0\0\0\x0cjP", b"\xffO\xffQ",
)  # fmt: skip
"""How TIFF, PNM and JPEG 2000 begin."""


def _decode_deep(data: bytes, keep: int, name: str) -> npt.NDArray[np.uint8] | None:
    # As BGR: OpenCV 5.0 spoils 16-bit TIFF that is read as RGB.
    image = _imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | keep)
    if image is None:  # floats are read as they are or not at all
        image = _imdecode(data, cv2.IMREAD_UNCHANGED)
    if image is None:
        return None
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    rgb = image[..., 2::-1]
    return np.ascontiguousarray(rgb if rgb.dtype == np.uint8 else _to_8_bits(rgb, name))


_OVERSHOOT = 2.0
"""Floats of 0..1 that were resampled pass 1 a little."""


def _to_8_bits(image: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    """Scientific and medical cameras' ranges, by the brightest pixel: 10, 12 and 14 bits are stored
    in 16, and looked black if the upper 8 were taken; floats are 0..1 or 0..255."""
    if not np.isfinite(image).all() or image.min() < 0:
        raise UserError(
            f"image '{name}' holds values that are no brightness (negative or not finite)"
        )
    most = float(image.max(initial=0))
    if image.dtype.kind == "f":
        if most > 256:
            raise UserError(f"image '{name}' holds floats up to {most:g}; 0..1 or 0..255 are read")
        scaled = image * (255 if most <= _OVERSHOOT else 1)
        return np.asarray(np.rint(np.clip(scaled, 0, 255)), np.uint8)
    bits = next((b for b in (8, 10, 12, 14, 16) if most < 2**b), int(most).bit_length())
    return np.asarray(image >> (bits - 8), np.uint8)


@cache
def _pillow() -> Any:
    """Pillow, without its warnings of sizes and damaged metadata: nothing is decoded by it. None
    where it is not installed."""
    try:
        from PIL import Image
    except ImportError:
        return None

    warnings.filterwarnings("ignore", module="PIL")
    return Image


def read_header(file: IO[bytes], count: bool = True) -> Header | None:
    """Size, orientation and number of images of an open file; None if Pillow cannot tell.

    Args:
        file: at its beginning.
        count: count images; 1 otherwise.

    Raises:
        UserError: it claims far more pixels than are read.
    """
    pillow = _pillow()
    if pillow is None:
        return None
    try:
        with pillow.open(file) as image:
            # A PNG's would be looked for behind its pixels, which are decoded for it.
            known = image.format != "PNG" or "exif" in image.info
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1) if known else 1
            if image.format == "TIFF":  # is turned by every reader, and so is its size
                orientation = 1
            frames = getattr(image, "n_frames", 1) if count else 1
            return Header((image.height, image.width), orientation, frames)
    except pillow.DecompressionBombError as error:  # beyond a limit of its own, larger than ours
        raise UserError(f"it claims more than {MAX_PIXELS // 10**6} million pixels") from error
    except Exception:  # arbitrary bytes make the readers raise nearly anything
        return None


def read_size(data: bytes) -> tuple[int, int] | None:
    """(H, W) that the beginning of a file claims, before anything is decoded; None if unknown."""
    if data.startswith(b"\x89PNG") and len(data) >= 24:
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    if data.startswith(b"\xff\xd8") and (size := _jpeg_size(data)) is not None:
        return size
    header = read_header(BytesIO(data), count=False)
    return header.size if header else None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(H, W) from the first start-of-frame segment (ITU-T T.81, B.2.2)."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return (
                int.from_bytes(data[at + 5 : at + 7], "big"),
                int.from_bytes(data[at + 7 : at + 9], "big"),
            )
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def check_size(size: Sequence[int], what: str) -> None:
    """That an image (H, W) is neither empty nor larger than anything that is worked with.

    Raises:
        UserError: it is.
    """
    if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
        raise UserError(
            f"{what} has {size[1]}x{size[0]} pixels; from 1 to {MAX_PIXELS // 10**6} million are "
            "read"
        )


def count_frames(path: Path) -> int:
    """Images in a file, of an animation or of several pages; 1 if that is not known."""
    with path.open("rb") as file:
        header = read_header(file)
    return header.frames if header else 1


def decode_annotated(data: bytes, name: str, size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    """Bytes of an image file → (H, W, 3) uint8 RGB, the pixels that annotations of this size mean.

    Those as stored, as COCO's annotations mean them; turned as EXIF says if it is the upright image
    that has the annotated size; enlarged or shrunk to it if the sides have its ratio. Where the
    annotation's width and height are exchanged, the image is given as stored.

    Args:
        size: (H, W) as annotated, or None if it is not known.

    Raises:
        UserError: the data are damaged, or neither size nor ratio fit.
    """
    image = decode(data, name)
    if size is None or image.shape[:2] == size:
        return image
    header = read_header(BytesIO(data))
    if header is not None and header.orientation in _TURNED:
        upright = decode(data, name, upright=True)
        if upright.shape[:2] == size or _same_ratio(upright.shape, size):
            image = upright
    elif image.shape[:2] == size[::-1]:
        return image
    if image.shape[:2] == size:
        return image
    if not _same_ratio(image.shape, size):
        raise UserError(
            f"image '{name}' has {image.shape[1]}x{image.shape[0]} pixels, but its annotation says "
            f"{size[1]}x{size[0]}"
        )
    check_size(size, f"image '{name}' by its annotation")
    shrinks = size[0] < image.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size[::-1], interpolation=method), dtype=np.uint8)


def fits_annotation(header: Header, size: tuple[int, int]) -> str:
    """How an image meets its annotated size (H, W): ``same``, ``upright`` (as EXIF turns it),
    ``exchanged`` (the annotation's sides), ``resized`` or ``other``."""
    if header.size == size:
        return "same"
    if header.orientation in _TURNED:
        if header.upright == size:
            return "upright"
        if _same_ratio(header.upright, size):
            return "resized"
    elif header.size == size[::-1]:
        return "exchanged"
    return "resized" if _same_ratio(header.size, size) else "other"


def _same_ratio(shape: Sequence[int], size: tuple[int, int]) -> bool:
    """Whether an image of one size can be the other one resized, sides rounded to pixels."""
    return abs(shape[1] * size[0] - shape[0] * size[1]) <= max(*shape[:2], *size)


def read_file(path: Path) -> bytes:
    """A file's bytes; ``UserError`` says that it is missing or cannot be read."""
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
