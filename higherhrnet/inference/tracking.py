"""Following people through a video: the same person keeps its number, joints stop trembling."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..assignment import linear_sum_assignment
from ..evaluation.oks import similarity
from ..poses import ABSENT, Poses
from ..skeleton import Skeleton

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class OneEuro:
    """Settings of the One Euro filter (Casiez et al. 2012): slow joints are smoothed, fast ones
    followed.

    Attributes:
        cutoff: Hz, of a joint at rest; lower trembles less.
        beta: Hz for each body height per second of speed; higher lags less.
    """

    cutoff: float = 1.0
    beta: float = 4.0
    speed_cutoff: float = 1.0


@dataclass
class _Track:
    number: int
    time: float
    xy: Vector
    present: npt.NDArray[np.bool_]
    tag: Vector
    area: float
    velocity: Vector  # (2,) pixels a second, of the whole body
    smooth: Vector
    speed: Vector  # (K, 2) pixels a second, smoothed


@dataclass
class Tracker:
    """Call :meth:`update` with the people of every frame, in order.

    A person is paired with who was last seen where it is (OKS, after the body's motion) and with a
    like tag, by Hungarian matching.

    Attributes:
        skeleton: gives the sigmas.
        least: lowest OKS of a pair.
        tag_weight: how much the tag counts beside the OKS; tags further than 1 apart differ fully.
        patience: seconds for which a person who is not seen keeps its number.
        smoothing: of joints; None leaves them as found.
    """

    skeleton: Skeleton
    least: float = 0.1
    tag_weight: float = 0.3
    patience: float = 1.0
    smoothing: OneEuro | None = None
    _tracks: list[_Track] = field(default_factory=list)
    _next: int = 0

    def update(self, poses: Poses, time: float) -> Poses:
        """The same people with their numbers, and smoothed if that is wanted.

        Args:
            poses: people of a frame.
            time: of the frame, seconds, not before the last.
        """
        self._tracks = [t for t in self._tracks if time - t.time <= self.patience]
        numbers = np.full(len(poses), -1)
        places = poses.xy.copy()
        present = poses.visibility > ABSENT
        areas = poses.areas
        for person, track in self._pairs(poses, present, areas, time):
            numbers[person] = track.number
            places[person] = self._follow(track, poses, person, areas[person], time)
        # The most confident newcomer gets the lowest number.
        for person in np.argsort(-poses.person_score, kind="stable"):
            if numbers[person] < 0:
                numbers[person] = self._next
                self._tracks.append(_Track(
                    self._next, time, poses.xy[person].copy(), present[person], poses.tag[person],
                    float(areas[person]), np.zeros(2), poses.xy[person].copy(),
                    np.zeros_like(poses.xy[person]),
                ))  # fmt: skip
                self._next += 1
        if self.smoothing is None:
            return replace(poses, track=numbers)
        return replace(poses, track=numbers, xy=places)

    def _pairs(
        self, poses: Poses, present: npt.NDArray[np.bool_], areas: Vector, time: float
    ) -> list[tuple[int, _Track]]:
        if not self._tracks or not len(poses):
            return []
        value = np.zeros((len(poses), len(self._tracks)))
        allowed = np.zeros(value.shape, bool)
        for column, track in enumerate(self._tracks):
            expected = track.xy + track.velocity * (time - track.time)
            common = present & track.present
            # The sigmas are annotators' precision; between two frames people move more: doubled.
            alike = similarity(
                expected, poses.xy, 4 * (areas + track.area) / 2, self.skeleton.sigmas, common
            )
            allowed[:, column] = alike >= self.least
            value[:, column] = alike
            if poses.tag.shape[1] and poses.tag.shape[1] == track.tag.shape[0]:
                apart = np.linalg.norm(poses.tag - track.tag, axis=1) / track.tag.shape[0] ** 0.5
                value[:, column] += self.tag_weight * (1 - np.minimum(apart, 1.0))
        rows, columns = linear_sum_assignment(np.where(allowed, -value, 1e3))
        return [
            (int(row), self._tracks[column])
            for row, column in zip(rows, columns, strict=True)
            if allowed[row, column]
        ]

    def _follow(self, track: _Track, poses: Poses, person: int, area: float, time: float) -> Vector:
        """Bring a track up to date; returns the person's smoothed joints (K, 2)."""
        xy, present = poses.xy[person], poses.visibility[person] > ABSENT
        # A time that does not rise tells nothing about speeds.
        still = time <= track.time
        step = max(time - track.time, 1e-6)
        common = present & track.present
        if common.any() and not still:
            motion = np.median(xy[common] - track.xy[common], axis=0) / step
            track.velocity = 0.5 * track.velocity + 0.5 * motion
        smooth = xy.copy()
        if self.smoothing is not None:
            settings = self.smoothing
            speed = (xy - track.smooth) / step
            keep = _share(settings.speed_cutoff, step)
            if not still:
                track.speed = np.where(
                    common[:, None], keep * speed + (1 - keep) * track.speed, 0.0
                )
            bodies = np.linalg.norm(track.speed, axis=1) / area**0.5
            share = _share(settings.cutoff + settings.beta * bodies, step)[:, None]
            smooth = np.where(common[:, None], share * xy + (1 - share) * track.smooth, xy)
        # Joints that are missing now stay where the body has carried them.
        carried = track.xy + track.velocity * step
        track.xy = np.where(present[:, None], xy, carried)
        track.smooth = np.where(present[:, None], smooth, carried)
        track.present = present | track.present
        track.tag = 0.8 * track.tag + 0.2 * poses.tag[person]
        track.area, track.time = 0.5 * track.area + 0.5 * area, time
        return np.where(present[:, None], smooth, xy)


def _share(cutoff: float | Vector, step: float) -> Vector:
    """How much of the new value a low pass of this cutoff (Hz) takes after a step (seconds)."""
    angle = 2 * np.pi * np.asarray(cutoff, float) * step
    return np.asarray(angle / (angle + 1))
