"""Strokes: people on an image, from plain arrays."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from .skeleton import Side, Skeleton

Image = npt.NDArray[np.uint8]
Color = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]
"""Left, top, right, bottom, the last pixels included."""

COLORS = {
    Side.LEFT: (0, 190, 255),
    Side.RIGHT: (255, 120, 30),
    Side.CENTER: (190, 255, 80),
}
"""RGB of the person's left, right and middle, apart for color-blind eyes too."""

_RIM = (20, 20, 20)
_SUB = 4  # OpenCV draws at 1/16 pixel when coordinates are shifted by four bits


def draw_people(
    image: Image,
    xy: npt.NDArray[np.float64],
    present: npt.NDArray[np.bool_],
    sure: npt.NDArray[np.bool_],
    skeleton: Skeleton,
    labels: Sequence[str] = (),
    rims: Sequence[Color] = (),
) -> None:
    """Draw people onto an image, the first one at the bottom.

    Args:
        image: (H, W, 3) uint8 RGB, drawn on.
        xy: (N, K, 2) joints, pixels.
        present: (N, K) which joints there are.
        sure: (N, K) false makes a joint a hollow ring and limbs to it thin.
        labels: what is written above each person.
        rims: the outline of each person, and the ground of the label; dark if not given.
    """
    above: list[tuple[int, str, float, float, Color]] = []
    for person, joints in enumerate(xy):
        here = present[person]
        if not here.any():
            continue
        low, high = joints[here].min(axis=0), joints[here].max(axis=0)
        width = _limb_width(float((high - low).max()), image.shape[:2])
        rim = rims[person] if rims else _RIM
        for outline in (True, False):
            for a, b in skeleton.limbs:
                if here[a] and here[b]:
                    thickness = width if sure[person, [a, b]].all() else max(1, width // 2)
                    color = rim if outline else limb_color(skeleton, a, b)
                    _line(image, joints[a], joints[b], color, thickness + (2 if outline else 0))
        for joint in np.flatnonzero(here):
            color = joint_color(skeleton, int(joint))
            radius = max(2, round(width * 0.9))
            if sure[person, joint]:
                _dot(image, joints[joint], radius + 1, rim, -1)
                _dot(image, joints[joint], radius, color, -1)
            else:
                _dot(image, joints[joint], radius, rim, 3)
                _dot(image, joints[joint], radius, color, 1)
        if labels:
            label = labels[person]
            x, y = float(low[0] + high[0]) / 2, float(low[1]) - 2 * width
            above.append((len(label), label, x, y, rim))
    taken: list[Rectangle] = []
    # On top of all people, and in the numbers' order, which stays the same from frame to frame.
    for _, label, x, y, rim in sorted(above):
        taken.append(write(image, label, x, y, rim, taken))


def color_of(number: int) -> Color:
    """A strong color for a person's number; neighbors in number are far apart in hue."""
    hue = int(number * 0.618034 * 180) % 180
    color = cv2.cvtColor(np.array([[[hue, 200, 230]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    return int(color[0]), int(color[1]), int(color[2])


def write(
    image: Image,
    text: str,
    x: float,
    y: float,
    ground: Color = _RIM,
    taken: Sequence[Rectangle] = (),
) -> Rectangle:
    """Put a line of text above (x, y), centerd, on a ground; kept inside the image, and above or
    else below what is taken, as long as there is room. Returns what it covers."""
    height, width = image.shape[:2]
    size = max(0.4, 0.0009 * max(height, width))
    weight = max(1, round(1.6 * size))
    (w, h), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, weight)
    left = int(np.clip(x - w / 2, 2, max(width - w - 2, 2)))
    foot = int(np.clip(y, h + 4, height - below - 2))

    def rectangle_at(foot: int) -> Rectangle:
        return left - 2, foot - h - 3, left + w + 2, foot + below

    free = foot
    for other in sorted(taken, key=lambda rectangle: -rectangle[1]):  # upwards
        if _overlap(rectangle_at(free), other):
            free = other[1] - below - 1
    if free < h + 4:
        free = foot
        for other in sorted(taken, key=lambda rectangle: rectangle[3]):  # downwards
            if _overlap(rectangle_at(free), other):
                free = other[3] + h + 4
    if h + 4 <= free <= height - below - 2:
        foot = free
    ends = rectangle_at(foot)
    cv2.rectangle(image, ends[:2], ends[2:], ground, -1)
    dark = sum(ground) > 330
    color = (0, 0, 0) if dark else (255, 255, 255)
    cv2.putText(
        image, text, (left, foot), cv2.FONT_HERSHEY_SIMPLEX, size, color, weight, cv2.LINE_AA
    )
    return ends


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]


def _limb_width(extent: float, image: tuple[int, ...]) -> int:
    """Pixels: 2 % of the person's larger side, at least 2 and at most 1.5 % of the image."""
    return round(float(np.clip(0.02 * extent, 2, max(2.0, 0.015 * max(image)))))


def joint_color(skeleton: Skeleton, joint: int) -> Color:
    return skeleton.colors[joint] if skeleton.colors else COLORS[skeleton.sides[joint]]


def limb_color(skeleton: Skeleton, a: int, b: int) -> Color:
    return skeleton.colors[b] if skeleton.colors else COLORS[_limb_side(skeleton, a, b)]


def _limb_side(skeleton: Skeleton, a: int, b: int) -> Side:
    """A limb belongs to a side if one end does and the other does not contradict."""
    sides = {skeleton.sides[a], skeleton.sides[b]} - {Side.CENTER}
    return sides.pop() if len(sides) == 1 else Side.CENTER


def _to_fixed_point(point: npt.NDArray[np.float64]) -> tuple[int, int]:
    x, y = np.clip(point, -1e5, 1e5) * (1 << _SUB)
    return round(float(x)), round(float(y))


def _line(
    canvas: Image,
    a: npt.NDArray[np.float64],
    b: npt.NDArray[np.float64],
    color: Color,
    thickness: int,
) -> None:
    cv2.line(canvas, _to_fixed_point(a), _to_fixed_point(b), color, thickness, cv2.LINE_AA, _SUB)


def _dot(
    canvas: Image, center: npt.NDArray[np.float64], radius: int, color: Color, thickness: int
) -> None:
    cv2.circle(canvas, _to_fixed_point(center), radius << _SUB, color, thickness, cv2.LINE_AA, _SUB)
