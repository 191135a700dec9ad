"""Plane geometry of images: the one place where coordinates are given a meaning.

**Convention.** x runs right, y runs down, in pixels. The center of the top-left pixel is the
point (0, 0), so an image W pixels wide covers x from -0.5 to W - 0.5. Points are ``(x, y)``,
shapes ``(H, W)``, and an :data:`Affine` is a 3x3 float64 matrix that carries *source points to
target points*; ``b @ a`` does a first. OpenCV's warps use the same convention.

The published HigherHRNet and HRNet protocols place their views by the rules below
(:func:`fit_view`, :func:`square_crop`, :func:`box_crop`). They scale about the corner (0, 0)
rather than about pixel edges, a shift of half a pixel that belongs to the published numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from .errors import UserError

Affine: TypeAlias = npt.NDArray[np.float64]
_LONGEST_SIDE = 2**15 - 2
Points: TypeAlias = npt.NDArray[np.floating]


def identity() -> Affine:
    """The affine that leaves every point where it is."""
    return np.eye(3)


def scaling(x_factor: float, y_factor: float | None = None) -> Affine:
    """Scale about the point (0, 0), by the same factor both ways unless two are given."""
    return np.diag([x_factor, x_factor if y_factor is None else y_factor, 1.0])


def translation(dx: float, dy: float) -> Affine:
    """Shift by (dx, dy) pixels."""
    return np.array([[1.0, 0.0, dx], [0.0, 1.0, dy], [0.0, 0.0, 1.0]])


def rotation(degrees: float, center: tuple[float, float]) -> Affine:
    """Rotate about ``center``; positive turns what is seen counter-clockwise (y runs down)."""
    radians = np.deg2rad(-degrees)
    cosine, sine = np.cos(radians), np.sin(radians)
    turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    return translation(*center) @ turn @ translation(-center[0], -center[1])


def horizontal_flip(width: float) -> Affine:
    """Exchange left and right of an image ``width`` pixels wide; its own inverse."""
    return np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def is_flipped(affine: Affine) -> bool:
    """Whether the affine turns a left hand into a right one."""
    return bool(np.linalg.det(affine[:2, :2]) < 0)


def invert(affine: Affine) -> Affine:
    """The affine that brings every point back."""
    return np.asarray(np.linalg.inv(affine), dtype=np.float64)


def apply(affine: Affine, points: Points) -> npt.NDArray[np.float64]:
    """Carry points (..., 2) through the affine; float64."""
    moved: npt.NDArray[np.float64] = points @ affine[:2, :2].T + affine[:2, 2]
    return moved


def warp(
    image: npt.NDArray[np.uint8],
    affine: Affine,
    shape: tuple[int, int],
    nearest: bool = False,
    border: Sequence[int] | int = 0,
) -> npt.NDArray[np.uint8]:
    """Draw ``image`` (H, W) or (H, W, C) through the affine on a canvas of ``shape`` (H, W).

    Args:
        image: what is drawn.
        affine: image → canvas.
        shape: (H, W) of the canvas.
        nearest: take the nearest pixel, as for labels; else bilinear.
        border: what the image does not cover.

    Raises:
        UserError: a side of the image is longer than OpenCV's warp takes.
    """
    height, width = shape
    if max(image.shape[:2]) > _LONGEST_SIDE:  # some versions take it, and some of these wrongly
        raise UserError(
            f"an image of {image.shape[1]}x{image.shape[0]} pixels is too long to be warped: no "
            f"side may exceed {_LONGEST_SIDE}; cut it into parts"
        )
    if min(height, width) < 1 or max(height, width) > _LONGEST_SIDE:
        raise UserError(
            f"an image of {image.shape[1]}x{image.shape[0]} pixels would be warped to "
            f"{width}x{height}; from 1 to {_LONGEST_SIDE} pixels a side are made"
        )
    flags = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    warped = cv2.warpAffine(image, affine[:2], (width, height), flags=flags, borderValue=border)
    return np.asarray(warped, dtype=np.uint8)


def place_center(
    center: tuple[float, float], scale: Affine, shape: tuple[int, int], degrees: float = 0.0
) -> Affine:
    """Bring ``center`` to the middle (W/2, H/2) of a canvas, scaled, then turned."""
    height, width = shape
    middle = (width / 2, height / 2)
    affine = translation(*middle) @ scale @ translation(-center[0], -center[1])
    return affine if degrees == 0 else rotation(degrees, middle) @ affine


def fit_view(
    image: tuple[int, int], input_size: int, scale: float, smallest_scale: float
) -> tuple[tuple[int, int], Affine]:
    """Where the published test protocol places a whole image for one test scale.

    The short side becomes ``input_size`` (rounded up to a multiple of 64 at the smallest scale
    of the list), the long side follows and is rounded *up* to a multiple of 64 at the smallest
    scale; larger scales are multiples of that. The image is scaled without distortion so that
    its width (if it is the short side) or height fits, and centerd on the whole pixel nearest
    to its middle.

    Args:
        image: (H, W) of the image.
        input_size: short side of the input at scale 1, pixels.
        scale: the test scale, > 0.
        smallest_scale: smallest scale of the list that is tested.

    Returns:
        (H, W) of the network's input, and the affine image → input.
    """
    height, width = image
    unit = int((smallest_scale * input_size + 63) // 64 * 64)
    short, long = min(height, width), max(height, width)
    short_out = _scale_side(unit, scale, smallest_scale)
    long_out = int((unit / short * long + 63) // 64 * 64)
    long_out = _scale_side(long_out, scale, smallest_scale)
    shape = (long_out, short_out) if width < height else (short_out, long_out)
    return shape, fit_map(image, shape, shape)


def _scale_side(side: int, scale: float, smallest_scale: float) -> int:
    """Cut to whole pixels as published, but not where only rounding makes it a pixel less: three
    times 448 is 1344, although 448 * 2.4 / 0.8 is a little below."""
    return int(side * scale / smallest_scale + 1e-6)


def fit_map(image: tuple[int, int], view: tuple[int, int], shape: tuple[int, int]) -> Affine:
    """Image → a map (H, W) of what :func:`fit_view` placed on a view (H, W)."""
    height, width = image
    # The image's extent that the view's width shows: all of it in portrait; in landscape as
    # much as the rounded-up long side asks for, the rest of the canvas staying black.
    extent = width if width < height else view[1] / view[0] * height
    center = (int(width / 2.0 + 0.5), int(height / 2.0 + 0.5))
    return place_center(center, scaling(shape[1] / extent), shape)


def fit_inside(image: tuple[int, int], view: tuple[int, int], shape: tuple[int, int]) -> Affine:
    """Image → a map (H, W) of a view (H, W) of any aspect ratio that shows all of the image."""
    height, width = image
    extent = max(float(width), view[1] / view[0] * height)
    center = (int(width / 2.0 + 0.5), int(height / 2.0 + 0.5))
    return place_center(center, scaling(shape[1] / extent), shape)


def square_crop(
    center: tuple[float, float], side: float, shape: tuple[int, int], degrees: float = 0.0
) -> Affine:
    """Affine of the published training view: a square of ``side`` px fills the canvas, turned.

    A canvas (H, W) that is not square stretches the image, as the published code does.
    """
    height, width = shape
    return place_center(center, scaling(width / side, height / side), shape, degrees)


def box_crop(
    box: tuple[float, float, float, float],
    shape: tuple[int, int],
    padding: float = 1.25,
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Center and extent of the top-down view of a person box.

    The box is grown to the canvas's aspect ratio, then by ``padding`` (HRNet, Sun et al. 2019,
    sec. 4: a fixed aspect ratio of 4:3, extended box).

    Args:
        box: (x, y, w, h) in image pixels.
        shape: (H, W) of the network's input.
        padding: growth of both sides.

    Returns:
        (x, y) of the center and (w, h) of the padded extent, pixels.
    """
    x, y, w, h = box
    aspect = shape[1] / shape[0]
    if w > aspect * h:
        h = w / aspect
    elif w < aspect * h:
        w = h * aspect
    center = (x + box[2] * 0.5, y + box[3] * 0.5)
    return center, (w * padding, h * padding)


def person_crop(
    center: tuple[float, float], width: float, shape: tuple[int, int], degrees: float = 0.0
) -> Affine:
    """Affine of a top-down view ``width`` image pixels wide; positive degrees turn the crop."""
    return place_center(center, scaling(shape[1] / width), shape, degrees)


def exact_map_affine(stride: int) -> Affine:
    """Input pixels → pixels of a map at 1/``stride`` whose first pixel covers the input's first
    ``stride``; the same for flipped inputs."""
    return translation(-0.5, -0.5) @ scaling(1.0 / stride) @ translation(0.5, 0.5)


def map_affine(stride: int, flipped: bool) -> Affine:
    """Input pixels → pixels of a map at 1/``stride``, as the published training places joints.

    Map pixels are input pixels divided by the stride (no half-pixel shift), and the published code
    flips every map about *its own* middle column. An image that was flipped at full size is
    therefore (stride - 1) / stride map pixels further left. The two cases are off the pixel-center
    convention by the same amount in opposite directions.
    """
    affine = scaling(1.0 / stride)
    if flipped:
        affine = translation(-(stride - 1) / stride, 0.0) @ affine
    return affine
