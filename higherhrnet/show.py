"""Pictures for people: poses drawn on the picture, and maps laid over it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from .files import whole
from .poses import ABSENT, Poses
from .skeleton import Side, Skeleton

Image = npt.NDArray[np.uint8]

COLOURS = {
    Side.LEFT: (0, 190, 255),
    Side.RIGHT: (255, 120, 30),
    Side.CENTRE: (190, 255, 80),
}
"""RGB of the person's left, right and middle, apart for colour-blind eyes too."""

_SUB = 4  # OpenCV draws at 1/16 pixel when coordinates are shifted by four bits


def draw(image: Image, poses: Poses, skeleton: Skeleton) -> Image:
    """The picture with people on it.

    Limbs are coloured by side and as wide as suits the person's size; a dark rim keeps them
    visible on any background. A joint that refine filled in (or that is annotated as hidden) is
    a hollow ring, a limb to it is thin.
    """
    canvas = image.copy()
    for person in np.argsort(poses.person_score):
        xy, visibility = poses.xy[person], poses.visibility[person]
        width = _limb_width(poses.boxes[person], image.shape[:2])
        present = visibility > ABSENT
        for rim in (True, False):
            for a, b in skeleton.limbs:
                if present[a] and present[b]:
                    sure = not poses.filled[person][[a, b]].any()
                    thickness = width if sure else max(1, width // 2)
                    colour = (20, 20, 20) if rim else COLOURS[_limb_side(skeleton, a, b)]
                    _line(canvas, xy[a], xy[b], colour, thickness + (2 if rim else 0))
        for joint in np.flatnonzero(present):
            colour = COLOURS[skeleton.sides[joint]]
            radius = max(2, round(width * 0.9))
            if poses.filled[person][joint]:
                _dot(canvas, xy[joint], radius, (20, 20, 20), 3)
                _dot(canvas, xy[joint], radius, colour, 1)
            else:
                _dot(canvas, xy[joint], radius + 1, (20, 20, 20), -1)
                _dot(canvas, xy[joint], radius, colour, -1)
    return canvas


def heat(image: Image, values: npt.NDArray[np.floating]) -> Image:
    """A map (h, w) as colours over the darkened picture, from its lowest to its highest value."""
    height, width = image.shape[:2]
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low if high > low else 1.0)
    grey = cv2.resize((255 * scaled).astype(np.uint8), (width, height))
    coloured = cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)[..., ::-1]
    return np.asarray(cv2.addWeighted(image, 0.4, np.ascontiguousarray(coloured), 0.6, 0), np.uint8)


def _limb_width(box: npt.NDArray[np.float64], picture: tuple[int, ...]) -> int:
    """Pixels: 2 % of the person's larger side, at least 2 and at most 1.5 % of the picture."""
    return round(float(np.clip(0.02 * max(box[2:]), 2, max(2.0, 0.015 * max(picture)))))


def _limb_side(skeleton: Skeleton, a: int, b: int) -> Side:
    """A limb belongs to a side if one end does and the other does not contradict."""
    sides = {skeleton.sides[a], skeleton.sides[b]} - {Side.CENTRE}
    return sides.pop() if len(sides) == 1 else Side.CENTRE


def _fixed(point: npt.NDArray[np.float64]) -> tuple[int, int]:
    x, y = np.clip(point, -1e5, 1e5) * (1 << _SUB)
    return round(float(x)), round(float(y))


def _line(
    canvas: Image,
    a: npt.NDArray[np.float64],
    b: npt.NDArray[np.float64],
    colour: tuple[int, int, int],
    thickness: int,
) -> None:
    cv2.line(canvas, _fixed(a), _fixed(b), colour, thickness, cv2.LINE_AA, _SUB)


def _dot(
    canvas: Image,
    centre: npt.NDArray[np.float64],
    radius: int,
    colour: tuple[int, int, int],
    thickness: int,
) -> None:
    cv2.circle(canvas, _fixed(centre), radius << _SUB, colour, thickness, cv2.LINE_AA, _SUB)


def save(path: Path, image: Image) -> None:
    """Write a picture in the format of its suffix, whole or not at all."""
    done, encoded = cv2.imencode(path.suffix, image[..., ::-1])
    assert done
    with whole(path) as partial:
        partial.write_bytes(encoded.tobytes())
