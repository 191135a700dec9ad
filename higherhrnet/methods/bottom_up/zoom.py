"""A second look at each person: cut out of the image, brought to one size, and shown to the same
network again.

A bottom-up network sees people at the sizes that the image gives them, and places joints best at
the sizes it was trained on. Grouping by tags says who is where; a second look at everybody alone,
brought to one size, says better where the joints are. It is the scale normalization that top-down
networks owe much of their accuracy to (Xiao et al. 2018, sec. 3), without a second network. The
published protocol has no such thing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ... import geometry
from ...evaluation.oks import closeness, similarity
from ...geometry import Affine
from ...outputs import View
from ...poses import ABSENT, SEEN, Poses
from .maps import AggregatedMaps

Array = npt.NDArray[np.float64]

_PADDING = 1.85
"""Side of a crop relative to the longer side of the box around a person's joints."""
_LEAST_SCORE = 0.05
"""People who score less are not worth a second look."""
_ALIKE = 0.2
"""Similarity (OKS) from which somebody in a crop is the person it was cut out for."""
_AGREES = 0.5
"""Closeness, as OKS has it, from which two places of a joint are averaged."""
_ROUNDED = 8
"""Widths of crops are multiples of it, pixels."""
_SMALLEST = 24.0
"""Shortest side of a crop before padding, pixels: joints that lie together say nothing of size."""


class Crop(NamedTuple):
    """What of an image is cut out for a person: center (x, y) and width, pixels of the image."""

    center: tuple[float, float]
    width: float

    def to_canvas(self, shape: tuple[int, int]) -> Affine:
        """Pixels of the image → those of an input, or of maps, (H, W)."""
        return geometry.person_crop(self.center, self.width, shape)


@dataclass(frozen=True)
class Look:
    """What the network saw of M people at one size.

    Attributes:
        shape: (H, W) of its inputs.
        crops: M, what of the image each input shows.
        views: M, of each crop as it is and flipped.
    """

    shape: tuple[int, int]
    crops: list[Crop]
    views: list[list[View]]


@dataclass(frozen=True)
class Zoomed:
    """What the network saw of an image, and then of each person in it.

    Attributes:
        poses: N people of the first look.
        maps: of the first look.
        rows: M of the people, who were looked at again.
        looks: at these, one a size.
    """

    poses: Poses
    maps: AggregatedMaps
    rows: npt.NDArray[np.int64]
    looks: list[Look]


def choose_people(poses: Poses) -> npt.NDArray[np.int64]:
    """Rows of the people who get a second look."""
    return np.flatnonzero(poses.person_score >= _LEAST_SCORE)


def crop_of(poses: Poses, row: int, shape: tuple[int, int]) -> Crop:
    """What of an image is cut out for a person, for an input (H, W): all joints that were found as
    peaks, and as much around them. In whole pixels, so that runtimes whose first looks differ in
    the last digits cut out the same."""
    joints = poses.xy[row][poses.visibility[row] == SEEN]
    low, high = joints.min(axis=0), joints.max(axis=0)
    center, side = (low + high) / 2, max(*(high - low), _SMALLEST)
    box = (*(center - side / 2), side, side)
    (x, y), (width, _) = geometry.box_crop(box, shape, _PADDING)
    return Crop((round(x), round(y)), _ROUNDED * math.ceil(width / _ROUNDED))


def combine(
    poses: Poses,
    rows: npt.NDArray[np.int64],
    looks: Sequence[Sequence[Poses]],
    sigmas: Sequence[float],
) -> Poses:
    """The people of the first look, as the second ones see them.

    A joint goes where it is surest of all looks, to the mean of the places that agree with it,
    weighted by score. A joint's score is the mean over the looks, 0 where one saw it elsewhere; a
    person's is half the mean over the looks, 0 where one saw nobody alike, and half the mean of the
    joints' new scores.

    Args:
        poses: N people of the first look.
        rows: M of them, who were looked at again.
        looks: for each further look everybody who was found in each of the M crops, in pixels of
            the image.
        sigmas: of the joints.
    """
    xy, score, visibility = poses.xy.copy(), poses.score.copy(), poses.visibility.copy()
    person_score = poses.person_score.copy()
    areas = poses.drop_keypoints(poses.visibility != SEEN).areas
    for number, row in enumerate(rows.tolist()):
        same = [poses.select([row])]
        for look in looks:
            found = _find(same[0], look[number], float(areas[row]), sigmas)
            if found is not None:
                same.append(found)
        joints = _combine_joints(same, float(areas[row]), sigmas)
        xy[row], score[row], visibility[row] = joints
        person_score[row] = sum(one.person_score[0] for one in same)
    score[rows] /= 1 + len(looks)
    # Half for how sure the looks are of the person, half for how far they agree on the joints. Who
    # was not worth a second look comes behind.
    person_score /= 1 + len(looks)
    person_score[rows] = (person_score[rows] + score[rows].mean(axis=1)) / 2
    return replace(poses, xy=xy, score=score, person_score=person_score, visibility=visibility)


def _find(person: Poses, found: Poses, area: float, sigmas: Sequence[float]) -> Poses | None:
    """Whoever is most like a person."""
    if not len(found):
        return None
    counted = np.repeat(person.visibility == SEEN, len(found), axis=0)
    areas = np.full(len(found), area)
    alike = similarity(person.xy[0], found.xy, areas, sigmas, counted)
    best = int(alike.argmax())
    return found.select([best]) if alike[best] >= _ALIKE else None


def _combine_joints(
    same: Sequence[Poses], area: float, sigmas: Sequence[float]
) -> tuple[Array, Array, npt.NDArray[np.int8]]:
    """Places (K, 2), summed scores (K,) and visibility (K,) of several looks at one person."""
    xy = np.concatenate([one.xy for one in same])
    visibility = np.concatenate([one.visibility for one in same])
    present = visibility > ABSENT
    score = np.where(present, np.concatenate([one.score for one in same]), -1.0)
    joints = np.arange(xy.shape[1])
    best = score.argmax(axis=0)
    close = closeness(xy[best, joints], xy, np.full(len(xy), area), sigmas)
    agrees = (close >= _AGREES) & present
    weight = np.where(agrees, np.maximum(score, 1e-6), 0.0)
    total = weight.sum(axis=0)
    mean = (weight[..., None] * xy).sum(axis=0) / np.maximum(total, 1e-12)[:, None]
    return (
        np.where(total[:, None] > 0, mean, 0.0),
        np.where(agrees, score, 0.0).sum(axis=0),
        np.where(agrees, visibility, ABSENT).max(axis=0).astype(np.int8),
    )
