"""A drawn video: figures walk to and fro, past each other, with known joints and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ... import geometry
from ...poses import Poses
from .figures import Vector, draw_background, draw_figure, stand, with_visibility

_LEAST_SEEN = 0.3
"""Of a figure of which less is to be seen no one can say where it is."""


@dataclass(frozen=True)
class Moment:
    """A frame.

    Attributes:
        time: seconds.
        image: (H, W, 3) uint8 RGB.
        poses: who is to be seen; ``track`` is each figure's number.
    """

    time: float
    image: npt.NDArray[np.uint8]
    poses: Poses


@dataclass(frozen=True)
class _Walker:
    """Poses between which the limbs swing, and a path across the image."""

    poses: tuple[Vector, Vector]
    y: float
    x: float
    speed: float
    pace: float
    seed: int

    def joints(self, time: float, size: int) -> Vector:
        """(17, 2) at a time."""
        swing = 0.5 + 0.5 * np.sin(2 * np.pi * self.pace * time)
        pose = (1 - swing) * self.poses[0] + swing * self.poses[1]
        # To the edge and back: a triangle wave between 10 and 90 % of the width.
        phase = (self.x + self.speed * time) % 2
        x = 0.1 + 0.8 * (phase if phase < 1 else 2 - phase)
        return geometry.apply(geometry.translation(x * size, self.y), pose)


@dataclass(frozen=True)
class SyntheticVideo:
    """Frames by number; the same seed gives the same video.

    Attributes:
        people: how many walk.
        seconds: how long.
        rate: frames a second.
        size: side of the square frames, pixels, as in the drawn images.
        seed: of all random numbers.
    """

    people: int = 4
    seconds: float = 10.0
    rate: int = 25
    size: int = 256
    seed: int = 0

    def __len__(self) -> int:
        return round(self.seconds * self.rate)

    def __iter__(self) -> Iterator[Moment]:
        rng = np.random.default_rng(self.seed)
        background = draw_background(rng, self.size)
        people = sorted((self._person(rng) for _ in range(self.people)), key=lambda w: w.y)
        for number in range(len(self)):
            time = number / self.rate
            image = background.copy()
            owner = np.zeros(image.shape[:2], np.int32)
            joints = [person.joints(time, self.size) for person in people]
            for figure, (person, xy) in enumerate(zip(people, joints, strict=True), 1):
                # The same seed in every frame: a figure keeps its clothes.
                brush_seed = np.random.default_rng(person.seed)
                draw_figure(image, owner, np.zeros_like(owner, np.uint8), xy, figure, brush_seed)
            noisy = image + rng.normal(0, 4, image.shape)
            yield Moment(
                time, np.clip(noisy, 0, 255).astype(np.uint8), _visible_poses(joints, owner)
            )

    def _person(self, rng: np.random.Generator) -> _Walker:
        height = rng.uniform(0.4, 0.6) * self.size
        facing = int(rng.integers(1 << 30))
        poses = [stand(np.random.default_rng(facing), height, (0.0, 0.0))]
        while len(poses) < 2:
            other = stand(rng, height, (0.0, 0.0))
            alike = np.sign(other[5, 0] - other[6, 0]) == np.sign(poses[0][5, 0] - poses[0][6, 0])
            if alike:
                poses.append(other)
        return _Walker(
            poses=(poses[0], poses[1]),
            y=self.size - 0.55 * height - rng.uniform(0, 0.25) * self.size,
            x=rng.uniform(0, 2),
            speed=rng.uniform(0.05, 0.25),
            pace=rng.uniform(0.4, 0.9),
            seed=int(rng.integers(1 << 30)),
        )


def _visible_poses(joints: list[Vector], owner: npt.NDArray[np.int32]) -> Poses:
    keypoints, numbers = [], []
    for figure, xy in enumerate(joints, 1):
        mine = owner == figure
        if mine.sum() >= _LEAST_SEEN * 0.12 * np.ptp(xy[:, 1]) ** 2:
            keypoints.append(with_visibility(xy, mine))
            numbers.append(figure)
    poses = Poses.from_annotations(np.array(keypoints).reshape(len(keypoints), -1, 3))
    return replace(poses, track=np.array(numbers, np.int64))
