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
from ..poses import Poses
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
    def size(self) -> int:
        """Side of the views, pixels."""

    def __call__(self, shape: tuple[int, int], rng: np.random.Generator) -> View:
        """A view of a picture of (H, W) pixels."""


@dataclass(frozen=True)
class RandomView:
    """The published augmentation: a turned, shifted, scaled and perhaps mirrored square.

    The published training crops a square of the picture's short side times a random factor.

    Attributes:
        size: side of the view, pixels.
        scale: lowest and highest factor of the crop's side.
        rotation: largest turn either way, degrees.
        shift: largest shift of the crop's centre either way, fraction of its side.
        mirror: probability of mirroring.
        colour: largest relative change of brightness, contrast and saturation; 0 is as published.
    """

    size: int
    scale: tuple[float, float] = (0.75, 1.5)
    rotation: float = 30.0
    shift: float = 0.2
    mirror: float = 0.5
    colour: float = 0.0

    def __call__(self, shape: tuple[int, int], rng: np.random.Generator) -> View:
        """A view of a picture of (H, W) pixels."""
        height, width = shape
        side = min(height, width) * rng.uniform(*self.scale)
        degrees = rng.uniform(-self.rotation, self.rotation)
        dx, dy = rng.uniform(-self.shift, self.shift, 2) * side
        centre = (width / 2 + dx, height / 2 + dy)
        affine = geometry.square_crop(centre, side, (self.size, self.size), degrees)
        if rng.random() < self.mirror:
            affine = geometry.mirror(self.size) @ affine
        brightness, contrast, saturation = (
            rng.uniform(1 - self.colour, 1 + self.colour, 3).tolist() if self.colour else (1, 1, 1)
        )
        return View(affine, (brightness, contrast, saturation))


@dataclass(frozen=True)
class CentredView:
    """The whole picture on a square canvas, nothing left to chance."""

    size: int

    def __call__(self, shape: tuple[int, int], rng: np.random.Generator) -> View:
        """The same view every time; ``rng`` is not used."""
        height, width = shape
        centre = (width / 2, height / 2)
        return View(geometry.square_crop(centre, max(height, width), (self.size, self.size)))


def moved(
    sample: Sample, affine: Affine, size: int, skeleton: Skeleton
) -> tuple[Poses, npt.NDArray[np.uint8]]:
    """People and valid mask (size, size) through an affine; a mirroring one exchanges joints."""
    poses = sample.poses.warp(affine)
    if geometry.is_mirrored(affine):
        poses = poses.exchanged(skeleton)
    valid = cv2.warpAffine(sample.valid, affine[:2], (size, size), flags=cv2.INTER_NEAREST)
    return poses, np.asarray(valid, dtype=np.uint8)


def warped(sample: Sample, affine: Affine, size: int, skeleton: Skeleton) -> Sample:
    """The whole sample through an affine onto a square canvas."""
    poses, valid = moved(sample, affine, size, skeleton)
    return Sample(
        image=geometry.warp(sample.image, affine, (size, size)),
        poses=poses,
        valid=valid,
        id=sample.id,
        affine=affine @ sample.affine,
    )
