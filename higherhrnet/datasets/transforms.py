"""Training views: what chance decides about a picture, as one affine and one colour change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from .. import geometry
from ..fields import Sample
from ..geometry import Affine
from ..poses import ABSENT, Poses
from ..skeleton import Skeleton


@dataclass(frozen=True)
class View:
    """One way of looking at a picture.

    Attributes:
        affine: picture → view.
        colour: factors of brightness, contrast and saturation.
    """

    affine: Affine
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)


class Transform(Protocol):
    """Draws views; all chance comes from ``rng``."""

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the views, pixels."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> View:
        """A view of a sample; of its picture only the size matters, not the pixels."""


@dataclass(frozen=True)
class RandomView:
    """The published augmentation: a turned, shifted, scaled and perhaps mirrored square.

    The published training crops a square of the picture's short side times a random factor.

    Attributes:
        size: side of the view, pixels.
        scale: lowest and highest factor of the crop's side.
        rotation: largest turn either way, degrees.
        shift: largest shift of the crop's centre either way, fraction of its side.
        centre: "picture" (published), or "person": the mean of the labelled joints of a person
            chosen at random, which keeps small crops from missing everybody.
        mirror: probability of mirroring.
        colour: largest relative change of brightness, contrast and saturation; 0 is as published.
    """

    size: int
    scale: tuple[float, float] = (0.75, 1.5)
    rotation: float = 30.0
    shift: float = 0.2
    mirror: float = 0.5
    colour: float = 0.0
    centre: str = "picture"

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the views."""
        return self.size, self.size

    def __call__(self, sample: Sample, rng: np.random.Generator) -> View:
        """A view of the picture."""
        height, width = sample.image.shape[:2]
        side = min(height, width) * rng.uniform(*self.scale)
        degrees = rng.uniform(-self.rotation, self.rotation)
        dx, dy = rng.uniform(-self.shift, self.shift, 2) * side
        x, y = width / 2, height / 2
        if self.centre == "person":
            x, y = _someone(sample.poses, rng, (x, y))
        centre = (x + dx, y + dy)
        affine = geometry.square_crop(centre, side, self.shape, degrees)
        if rng.random() < self.mirror:
            affine = geometry.mirror(self.size) @ affine
        return View(affine, _colour(self.colour, rng))


def _someone(
    poses: Poses, rng: np.random.Generator, nobody: tuple[float, float]
) -> tuple[float, float]:
    """The middle of one of the people, each as likely; ``nobody`` if none has a labelled joint."""
    labelled = poses.visibility > ABSENT
    people = np.flatnonzero(labelled.any(axis=1))
    if not len(people):
        return nobody
    person = rng.choice(people)
    x, y = poses.xy[person][labelled[person]].mean(axis=0).tolist()
    return x, y


@dataclass(frozen=True)
class CentredView:
    """The whole picture on a square canvas, nothing left to chance."""

    size: int

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the views."""
        return self.size, self.size

    def __call__(self, sample: Sample, rng: np.random.Generator) -> View:
        """The same view every time; ``rng`` is not used."""
        height, width = sample.image.shape[:2]
        centre = (width / 2, height / 2)
        return View(geometry.square_crop(centre, max(height, width), self.shape))


@dataclass(frozen=True)
class PersonView:
    """The published top-down augmentation: a person's box, scaled, turned and perhaps mirrored.

    Attributes:
        shape: (H, W) of the view, pixels.
        upper: (K,) which joints belong to the upper half of a body; none for animals.
        scale: lowest and highest growth of the box: normal about their middle, with half of the
            range as standard deviation.
        rotation: standard deviation of the turn, degrees; at most twice as much either way.
        turned: probability of turning.
        half_body: probability of showing the upper or the lower half of a body of more than
            eight labelled joints.
        mirror: probability of mirroring.
        colour: as in :class:`RandomView`.
        padding: growth of the box.
    """

    shape: tuple[int, int]
    upper: tuple[bool, ...]
    scale: tuple[float, float] = (0.65, 1.35)
    rotation: float = 45.0
    turned: float = 0.6
    half_body: float = 0.3
    mirror: float = 0.5
    colour: float = 0.0
    padding: float = 1.25

    def __call__(self, sample: Sample, rng: np.random.Generator) -> View:
        """A view of the sample's first person."""
        picture_width = sample.image.shape[1]
        x, y, w, h = sample.boxes[0]
        centre, (extent, _) = geometry.box_crop((x, y, w, h), self.shape, self.padding)
        labelled = sample.poses.visibility[0] > ABSENT
        upper = np.array(self.upper)
        if labelled.sum() > _WHOLE and upper.any() and rng.random() < self.half_body:
            half = half_body(sample.poses.xy[0], labelled, upper, rng.normal() < 0.5, self.shape)
            if half is not None:
                centre, extent = half
        low, high = self.scale
        extent *= np.clip(rng.normal((low + high) / 2, (high - low) / 2), low, high)
        limit = 2 * self.rotation
        turn = np.clip(rng.normal(0, self.rotation), -limit, limit)
        degrees = float(turn) if rng.random() <= self.turned else 0.0
        if rng.random() < self.mirror:
            # The published code mirrors the picture before it cuts the crop.
            centre = (picture_width - 1 - centre[0], centre[1])
            crop = geometry.person_crop(centre, extent, self.shape, degrees)
            affine = crop @ geometry.mirror(picture_width)
        else:
            affine = geometry.person_crop(centre, extent, self.shape, degrees)
        return View(affine, _colour(self.colour, rng))


@dataclass(frozen=True)
class BoxView:
    """A person's box as testing shows it, nothing left to chance."""

    shape: tuple[int, int]
    padding: float = 1.25

    def __call__(self, sample: Sample, rng: np.random.Generator) -> View:
        """The same view every time; ``rng`` is not used."""
        x, y, w, h = sample.boxes[0]
        centre, (extent, _) = geometry.box_crop((x, y, w, h), self.shape, self.padding)
        return View(geometry.person_crop(centre, extent, self.shape))


_WHOLE = 8
"""A body of more labelled joints than this may be shown by halves."""


def half_body(
    xy: npt.NDArray[np.float64],
    labelled: npt.NDArray[np.bool_],
    upper: npt.NDArray[np.bool_],
    prefer_upper: bool,
    shape: tuple[int, int],
) -> tuple[tuple[float, float], float] | None:
    """Centre and width of a crop of half a body (Wang et al. 2018), or None if it has no half.

    Args:
        xy: (K, 2) pixels.
        labelled: (K,) which of them there are.
        upper: (K,) which belong to the upper half.
        prefer_upper: show the upper half if more than two of its joints are labelled; otherwise
            the lower if it has so many, else the upper.
        shape: (H, W) of the view, whose aspect ratio the crop gets.
    """
    above, below = xy[labelled & upper], xy[labelled & ~upper]
    take_upper = (prefer_upper and len(above) > 2) or len(below) <= 2
    half = above if take_upper else below
    if len(half) < 2:
        return None
    w, h = half.max(axis=0) - half.min(axis=0)
    if max(w, h) <= 0:
        return None
    _, (width, _) = geometry.box_crop((0.0, 0.0, float(w), float(h)), shape, padding=1.5)
    x, y = half.mean(axis=0)
    return (float(x), float(y)), width


def _colour(change: float, rng: np.random.Generator) -> tuple[float, float, float]:
    if not change:
        return 1.0, 1.0, 1.0
    brightness, contrast, saturation = rng.uniform(1 - change, 1 + change, 3).tolist()
    return brightness, contrast, saturation


def moved(
    sample: Sample,
    affine: Affine,
    shape: tuple[int, int],
    skeleton: Skeleton,
    beyond: bool = False,
) -> tuple[Poses, npt.NDArray[np.uint8]]:
    """People and valid mask (H, W) through an affine; a mirroring one exchanges joints.

    Args:
        sample: a picture with its people.
        affine: picture → canvas.
        shape: (H, W) of the canvas.
        skeleton: the sample's.
        beyond: whether the mask is valid beyond the picture's edges too.
    """
    poses = sample.poses.warp(affine)
    if geometry.is_mirrored(affine):
        poses = poses.exchanged(skeleton)
    valid = cv2.warpAffine(
        sample.valid, affine[:2], shape[::-1], flags=cv2.INTER_NEAREST, borderValue=int(beyond)
    )
    return poses, np.asarray(valid, dtype=np.uint8)


def warped(
    sample: Sample,
    affine: Affine,
    shape: tuple[int, int],
    skeleton: Skeleton,
    beyond: bool = False,
) -> Sample:
    """The whole sample through an affine onto a canvas of ``shape`` (H, W); see :func:`moved`."""
    poses, valid = moved(sample, affine, shape, skeleton, beyond)
    return Sample(
        image=geometry.warp(sample.image, affine, shape),
        poses=poses,
        boxes=_moved_boxes(sample.boxes, affine),
        valid=valid,
        id=sample.id,
        affine=affine @ sample.affine,
    )


def _moved_boxes(boxes: npt.NDArray[np.float64], affine: Affine) -> npt.NDArray[np.float64]:
    """The upright boxes (P, 4) around the corners of moved ones."""
    unit = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    moved = geometry.apply(affine, boxes[:, None, :2] + unit * boxes[:, None, 2:])
    low = moved.min(axis=1)
    return np.concatenate([low, moved.max(axis=1) - low], axis=1)
