"""Images as callers have them → (H, W, 3) uint8 RGB.

Files, encoded bytes, arrays, Pillow images and torch tensors. Neither Pillow nor torch is imported:
what a caller brings is known by its methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from .images import decode, read_image, turn_upright

Image = npt.NDArray[np.uint8]
ImageLike = Any
"""A path; bytes or a file object of an image file; an array (H, W), (H, W, 1), (H, W, 3) or
(H, W, 4); a Pillow image; a torch tensor (3, H, W), (1, H, W) or (4, H, W). Arrays and tensors are
uint8 0..255, or floats 0..1."""
_CHANNELS = (1, 3, 4)


def to_pixels(image: ImageLike, channel_order: str = "RGB") -> Image:
    """An image of any kind as (H, W, 3) uint8 RGB. Gray is repeated, transparency left out.

    Args:
        image: see :data:`ImageLike`.
        channel_order: ``RGB``, or ``BGR`` for arrays and tensors as OpenCV has them. Files, bytes
            and Pillow images say themselves what they are.

    Raises:
        UserError: it cannot be read, or is no image.
    """
    if channel_order not in ("RGB", "BGR"):
        raise UserError(f"channel_order is RGB or BGR, not {channel_order!r}")
    if isinstance(image, str | Path):
        if "://" in str(image) or Path(image).is_dir():
            what = "folder" if Path(image).is_dir() else "address"
            raise UserError(
                f"'{image}' is a {what}; a predictor takes images: list them, or use "
                "higherhrnet predict"
            )
        return read_image(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode(bytes(image), "the given bytes", upright=True)
    if hasattr(image, "getexif") and hasattr(image, "convert"):
        return _from_pillow(image)
    if callable(getattr(image, "read", None)):
        name, data = str(getattr(image, "name", "the given file")), image.read()
        if not isinstance(data, bytes):
            raise UserError(f"'{name}' is opened as text; open it with mode 'rb'")
        return decode(data, name, upright=True)
    if _is_tensor(image):
        values = _channels_last(_to_array(image))
    elif isinstance(image, np.ndarray):
        values = image
    else:
        raise UserError(f"an image must be {_KINDS}, not {type(image).__name__}")
    pixels = _to_bytes(values)
    return pixels[:, :, ::-1] if channel_order == "BGR" else pixels


_KINDS = (
    "a file, encoded bytes, a Pillow image, a torch tensor (3, H, W), or an (H, W, 3) array of "
    "uint8 0..255 or floats 0..1"
)


def as_several(images: Any) -> Sequence[ImageLike] | None:
    """The images of a list, a tuple or a batch with four dimensions; None for a single image."""
    if isinstance(images, list | tuple):
        return images
    if (isinstance(images, np.ndarray) or _is_tensor(images)) and images.ndim == 4:
        return list(images)
    return None


def is_single(images: Any) -> bool:
    """Whether it is one image, of any kind."""
    if isinstance(images, str | Path | bytes | bytearray | memoryview):
        return True
    if isinstance(images, np.ndarray) or _is_tensor(images):
        return bool(images.ndim < 4)
    return hasattr(images, "getexif") or callable(getattr(images, "read", None))


def keep_pixels(image: ImageLike) -> ImageLike:
    """The image, copied where the caller may write into its memory again."""
    if isinstance(image, np.ndarray):
        return image.copy()
    return image.clone() if _is_tensor(image) else image


def _is_tensor(image: Any) -> bool:
    return hasattr(image, "detach") and hasattr(image, "cpu") and hasattr(image, "clone")


def _to_array(tensor: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(tensor.detach().cpu().numpy())
    except TypeError:  # bfloat16, which NumPy has not
        return np.asarray(tensor.detach().cpu().float().numpy())


def _channels_last(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(C, H, W) → (H, W, C); (H, W) and tensors that have their channels last stay."""
    if values.ndim == 3 and values.shape[0] in _CHANNELS:
        return values.transpose(1, 2, 0)
    return values


def _to_bytes(values: npt.NDArray[Any]) -> Image:
    """An array of pixels → (H, W, 3) uint8.

    Raises:
        UserError: its shape or numbers are not those of an image.
    """
    shape = values.shape
    is_image = values.ndim == 2 or (values.ndim == 3 and shape[2] in _CHANNELS)
    if not is_image or values.size == 0:
        raise UserError(f"an image must be {_KINDS}, not an array {shape} {values.dtype}")
    if values.dtype == np.uint8:
        pixels = values
    elif np.issubdtype(values.dtype, np.floating):
        low, high = float(values.min()), float(values.max())
        if not 0 <= low <= high <= 1:  # NaN, too
            raise UserError(
                f"an image of {values.dtype} must have values in 0..1, and this one has "
                f"{low:g}..{high:g}; give uint8 for 0..255, and undo a normalization"
            )
        pixels = np.rint(255 * values).astype(np.uint8)
    else:
        raise UserError(f"an image must be {_KINDS}, not an array of {values.dtype}")
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]


def _from_pillow(image: Any) -> Image:
    """Upright, as the file would be read."""
    if image.mode.startswith(("I", "F")):
        raise UserError(
            f"a Pillow image of mode {image.mode} has more than 8 bits; give its file, or "
            "image.point(...).convert('L')"
        )
    try:
        # Pillow turns TIFF while it decodes, and the orientation is 1 then.
        pixels = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"a Pillow image cannot be decoded: {error}") from error
    orientation = image.getexif().get(0x0112, 1)
    return np.ascontiguousarray(turn_upright(pixels, orientation))
