"""Training views: random affines composed into one, and one warp."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .. import geometry
from ..fields import Sample
from ..geometry import Affine
from ..skeleton import Skeleton


def warped(sample: Sample, affine: Affine, size: int, skeleton: Skeleton) -> Sample:
    """The sample through an affine onto a square canvas; a mirroring affine exchanges joints."""
    valid = cv2.warpAffine(sample.valid, affine[:2], (size, size), flags=cv2.INTER_NEAREST)
    poses = sample.poses.warp(affine)
    if geometry.is_mirrored(affine):
        poses = poses.exchanged(skeleton)
    return Sample(
        image=geometry.warp(sample.image, affine, (size, size)),
        poses=poses,
        valid=np.asarray(valid, dtype=np.uint8),
        id=sample.id,
        affine=affine @ sample.affine,
    )


@dataclass(frozen=True)
class RandomView:
    """The published augmentation: a turned, shifted, scaled and perhaps mirrored square.

    The published training crops a square of the picture's short side times a random factor.

    Attributes:
        skeleton: whose joints are exchanged by the mirror.
        size: side of the view, pixels.
        scale: lowest and highest factor of the crop's side.
        rotation: largest turn either way, degrees.
        shift: largest shift of the crop's centre either way, fraction of its side.
        mirror: probability of mirroring.
        colour: largest relative change of brightness, contrast and saturation; 0 is as published.
    """

    skeleton: Skeleton
    size: int
    scale: tuple[float, float] = (0.75, 1.5)
    rotation: float = 30.0
    shift: float = 0.2
    mirror: float = 0.5
    colour: float = 0.0

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """One view; all chance comes from ``rng``."""
        height, width = sample.image.shape[:2]
        side = min(height, width) * rng.uniform(*self.scale)
        degrees = rng.uniform(-self.rotation, self.rotation)
        dx, dy = rng.uniform(-self.shift, self.shift, 2) * side
        shape = (self.size, self.size)
        centre = (width / 2 + dx, height / 2 + dy)
        affine = geometry.square_crop(centre, side, shape, degrees)
        if rng.random() < self.mirror:
            affine = geometry.mirror(self.size) @ affine
        view = warped(sample, affine, self.size, self.skeleton)
        return self._coloured(view, rng) if self.colour else view

    def _coloured(self, view: Sample, rng: np.random.Generator) -> Sample:
        brightness, contrast, saturation = rng.uniform(1 - self.colour, 1 + self.colour, 3)
        image = view.image.astype(np.float32) * brightness
        image = (image - image.mean()) * contrast + image.mean()
        grey = image.mean(axis=2, keepdims=True)
        image = grey + (image - grey) * saturation
        pixels = np.clip(image, 0, 255).astype(np.uint8)
        return Sample(pixels, view.poses, view.valid, view.id, view.affine)


@dataclass(frozen=True)
class CentredView:
    """The whole picture on a square canvas, nothing left to chance."""

    skeleton: Skeleton
    size: int

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The same view every time; ``rng`` is not used."""
        height, width = sample.image.shape[:2]
        affine = geometry.square_crop(
            (width / 2, height / 2), max(height, width), (self.size, self.size)
        )
        return warped(sample, affine, self.size, self.skeleton)
