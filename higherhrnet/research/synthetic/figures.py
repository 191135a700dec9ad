"""Drawn people: a skeleton that stands somewhere, and the strokes that make a figure of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ... import geometry
from ...poses import ABSENT, REFINED, SEEN
from ...skeleton import COCO

PARTS = ("head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")
"""What a figure's pixels belong to, numbered from 1."""
_HEAD, _TORSO, _UPPER_ARM, _LOWER_ARM, _UPPER_LEG, _LOWER_LEG = range(1, len(PARTS) + 1)
Vector = npt.NDArray[np.float64]
Color = tuple[int, int, int]


def stand(rng: np.random.Generator, height: float, middle: tuple[float, float]) -> Vector:
    """(17, 2) joints of a standing, waving, striding figure, seen from the front or the back."""
    front = 1.0 if rng.random() < 0.75 else -1.0
    across = front * rng.uniform(0.7, 1.0)  # a person's left is right in the image, from front

    def limb(
        start: Vector, lengths: tuple[float, float], side: float, spread: float, bend: float
    ) -> list[Vector]:
        angle = np.deg2rad(spread)
        first = start + lengths[0] * np.array([side * np.sin(angle), np.cos(angle)])
        angle += np.deg2rad(bend)
        return [first, first + lengths[1] * np.array([side * np.sin(angle), np.cos(angle)])]

    joints = np.zeros((len(COCO), 2))
    head = np.array([rng.uniform(-0.02, 0.02), -0.43])
    joints[0] = head + np.array([0.0, 0.015])
    for side, eye, ear, shoulder, elbow, hip, knee in (
        (1, 1, 3, 5, 7, 11, 13),
        (-1, 2, 4, 6, 8, 12, 14),
    ):
        lateral = side * across
        joints[eye] = head + np.array([0.025 * lateral, -0.01])
        joints[ear] = head + np.array([0.055 * lateral, 0.0])
        joints[shoulder] = (0.11 * lateral, -0.31)
        joints[hip] = (0.07 * lateral, 0.02)
        bend = rng.uniform(-20, 110)
        joints[elbow], joints[elbow + 2] = limb(
            joints[shoulder], (0.16, 0.15), np.sign(lateral), rng.uniform(-5, 130), bend
        )
        joints[knee], joints[knee + 2] = limb(
            joints[hip], (0.24, 0.23), np.sign(lateral), rng.uniform(-5, 40), -rng.uniform(0, 50)
        )
    turned = geometry.rotation(rng.uniform(-20, 20), (0.0, 0.0))
    placed = geometry.translation(*middle) @ geometry.scaling(height) @ turned
    return geometry.apply(placed, joints)


def with_visibility(joints: Vector, mine: npt.NDArray[np.bool_]) -> Vector:
    """(17, 3): 2 where the figure itself is to be seen, 1 behind something, 0 off the image."""
    height, width = mine.shape
    cells = np.rint(joints).astype(int)
    on = (cells >= 0).all(axis=1) & (cells[:, 0] < width) & (cells[:, 1] < height)
    seen = np.zeros(len(joints), bool)
    seen[on] = mine[cells[on, 1], cells[on, 0]]
    visibility = np.where(on, np.where(seen, SEEN, REFINED), ABSENT)
    return np.concatenate([np.where(on[:, None], joints, 0), visibility[:, None]], axis=1)


def draw_background(rng: np.random.Generator, size: int) -> npt.NDArray[np.uint8]:
    """Blurred noise of several grain sizes over a gradient, with a few flat shapes."""
    ramp = np.linspace(0, 1, size)[:, None, None]
    image = rng.uniform(40, 200, 3) * (1 - ramp) + rng.uniform(40, 200, 3) * ramp
    image = np.broadcast_to(image, (size, size, 3)).astype(np.float32)
    for cells in (4, 12, 40):
        grain = rng.normal(0, 60 / cells**0.5, (cells, cells, 3)).astype(np.float32)
        image = image + cv2.resize(grain, (size, size), interpolation=cv2.INTER_CUBIC)
    canvas = np.ascontiguousarray(np.clip(image, 0, 255).astype(np.uint8))
    for _ in range(rng.integers(0, 6)):
        corner, extent = rng.integers(0, size, 2), rng.integers(5, size // 3, 2)
        color = _color(rng, 30, 220)
        if rng.random() < 0.5:
            cv2.rectangle(canvas, corner.tolist(), (corner + extent).tolist(), color, -1)
        else:
            angle = float(rng.uniform(0, 180))
            cv2.ellipse(
                canvas, corner.tolist(), extent.tolist(), angle, 0, 360, color, -1, cv2.LINE_AA
            )
    return canvas


@dataclass(frozen=True)
class _Brush:
    """Paints a figure and marks the painted pixels as its own, and of which part they are."""

    image: npt.NDArray[np.uint8]
    owner: npt.NDArray[np.int32]
    parts: npt.NDArray[np.uint8]
    number: int

    def disc(self, part: int, center: Vector, radius: int, color: Color) -> None:
        cv2.circle(self.image, _at(center), radius, color, -1)
        cv2.circle(self.owner, _at(center), radius, self.number, -1)
        cv2.circle(self.parts, _at(center), radius, part, -1)

    def stick(self, part: int, start: Vector, end: Vector, thickness: int, color: Color) -> None:
        cv2.line(self.image, _at(start), _at(end), color, thickness)
        cv2.line(self.owner, _at(start), _at(end), self.number, thickness)
        cv2.line(self.parts, _at(start), _at(end), part, thickness)
        # Light falls from the left: a thin lighter streak shades the limb.
        shift = np.array([-0.25, -0.1]) * thickness
        streak = (_at(start + shift), _at(end + shift))
        cv2.line(
            self.image, *streak, _scale_color(color, 1.25), max(1, thickness // 3), cv2.LINE_AA
        )

    def patch(self, part: int, corners: Vector, color: Color) -> None:
        points = np.array([_at(corner) for corner in corners])
        cv2.fillConvexPoly(self.image, points, color)
        cv2.fillConvexPoly(self.owner, points, self.number)
        cv2.fillConvexPoly(self.parts, points, part)


def draw_figure(
    image: npt.NDArray[np.uint8],
    owner: npt.NDArray[np.int32],
    parts: npt.NDArray[np.uint8],
    joints: Vector,
    number: int,
    rng: np.random.Generator,
) -> None:
    """Paint a figure; mark its pixels with its number, and with the numbers of :data:`PARTS`."""
    brush = _Brush(image, owner, parts, number)
    height = float(np.linalg.norm(joints[[11, 12]].mean(0) - joints[0]) / 0.435)
    tone = rng.choice([(240, 205, 180), (200, 150, 115), (120, 80, 60)])
    skin = _scale_color(tone, rng.uniform(0.8, 1.1))
    shirt, trousers, hair = _color(rng, 30, 230), _color(rng, 20, 180), _color(rng, 10, 110)
    from_front = joints[5, 0] > joints[6, 0]

    def bone(part: int, a: int, b: int, width: float, color: Color) -> None:
        brush.stick(part, joints[a], joints[b], max(2, round(width * height)), color)

    for hip, knee, ankle in ((11, 13, 15), (12, 14, 16)):
        bone(_LOWER_LEG, knee, ankle, 0.055, trousers)
        bone(_UPPER_LEG, hip, knee, 0.075, trousers)
        brush.disc(_LOWER_LEG, joints[ankle], max(2, round(0.03 * height)), hair)
    head = joints[[3, 4]].mean(0)
    radius = max(3, round(0.065 * height))
    brush.stick(_HEAD, joints[[5, 6]].mean(0), head, max(2, round(0.05 * height)), skin)
    brush.patch(_TORSO, joints[[5, 6, 12, 11]], shirt)
    for a, b in ((5, 6), (5, 11), (6, 12)):
        bone(_TORSO, a, b, 0.07, shirt)
    bone(_TORSO, 11, 12, 0.07, trousers)
    for shoulder, elbow, wrist in ((5, 7, 9), (6, 8, 10)):
        bone(_UPPER_ARM, shoulder, elbow, 0.055, shirt)
        bone(_LOWER_ARM, elbow, wrist, 0.04, skin)
    for ear in (3, 4):
        brush.disc(_HEAD, joints[ear], max(1, radius // 4), skin)
    brush.disc(_HEAD, head, radius, skin if from_front else hair)
    if from_front:
        brow = _at(head - np.array([0.0, 0.55 * radius]))
        cv2.ellipse(image, brow, (radius, max(1, radius // 2)), 0, 180, 360, hair, -1, cv2.LINE_AA)
        small = max(1, radius // 5)
        for eye in (1, 2):
            cv2.circle(image, _at(joints[eye]), small, (250, 250, 250), -1)
            cv2.circle(image, _at(joints[eye]), max(1, small // 2), (20, 20, 40), -1)
        cv2.circle(image, _at(joints[0]), small, _scale_color(skin, 0.7), -1)


def draw_object(
    image: npt.NDArray[np.uint8],
    owner: npt.NDArray[np.int32],
    parts: npt.NDArray[np.uint8],
    joints: Vector,
    rng: np.random.Generator,
) -> None:
    """Something with an edge in front of part of the figure; it belongs to no one."""
    low, high = joints.min(axis=0), joints.max(axis=0)
    middle = rng.uniform(low, high)
    half = rng.uniform(0.08, 0.22, 2) * (high - low).max()
    color = _color(rng, 30, 220)
    corners = (_at(middle - half), _at(middle + half))
    cv2.rectangle(image, *corners, color, -1)
    cv2.rectangle(image, *corners, _scale_color(color, 0.6), 1)
    cv2.rectangle(owner, *corners, 0, -1)
    cv2.rectangle(parts, *corners, 0, -1)


def _at(point: Vector) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _color(rng: np.random.Generator, low: int, high: int) -> Color:
    r, g, b = rng.integers(low, high, 3).tolist()
    return r, g, b


def _scale_color(color: Any, factor: float) -> Color:
    r, g, b = (min(255, int(channel * factor)) for channel in color)
    return r, g, b
