"""Bottom-up training views: squares of a whole image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ... import geometry
from ...datasets.transforms import View, draw_color_factors
from ...poses import ABSENT, Poses
from ...structures import Sample


@dataclass(frozen=True)
class RandomView:
    """The published augmentation: a rotated, shifted, scaled and perhaps flipped square.

    The published training crops a square of the image's short side times a random factor.

    Attributes:
        size: side of the view, pixels.
        scale: lowest and highest factor of the crop's side.
        rotation: largest rotation either way, degrees.
        shift: largest shift of the crop's center either way, fraction of its side.
        center: "image" (published), or "person": the mean of the labeled joints of a person
            chosen at random, which keeps small crops from missing all people.
        flip: probability of a horizontal flip.
        color: largest relative change of brightness, contrast and saturation; 0 is as published.
    """

    size: int
    scale: tuple[float, float] = (0.75, 1.5)
    rotation: float = 30.0
    shift: float = 0.2
    flip: float = 0.5
    color: float = 0.0
    center: str = "image"

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the views."""
        return self.size, self.size

    def __call__(self, sample: Sample, rng: np.random.Generator) -> View:
        """A view of the image."""
        height, width = sample.image.shape[:2]
        side = min(height, width) * rng.uniform(*self.scale)
        degrees = rng.uniform(-self.rotation, self.rotation)
        dx, dy = rng.uniform(-self.shift, self.shift, 2) * side
        x, y = width / 2, height / 2
        if self.center == "person":
            x, y = _someone(sample.poses, rng, (x, y))
        center = (x + dx, y + dy)
        affine = geometry.square_crop(center, side, self.shape, degrees)
        if rng.random() < self.flip:
            affine = geometry.horizontal_flip(self.size) @ affine
        return View(affine, draw_color_factors(self.color, rng))


def _someone(
    poses: Poses, rng: np.random.Generator, default: tuple[float, float]
) -> tuple[float, float]:
    """The middle of one of the people, each as likely; ``default`` if none has a labeled joint."""
    labeled = poses.visibility > ABSENT
    people = np.flatnonzero(labeled.any(axis=1))
    if not len(people):
        return default
    person = rng.choice(people)
    x, y = poses.xy[person][labeled[person]].mean(axis=0).tolist()
    return x, y


@dataclass(frozen=True)
class CenteredView:
    """The whole image on a square canvas, nothing left to chance."""

    size: int

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the views."""
        return self.size, self.size

    def __call__(self, sample: Sample, rng: np.random.Generator) -> View:
        """The same view every time; ``rng`` is not used."""
        height, width = sample.image.shape[:2]
        center = (width / 2, height / 2)
        return View(geometry.square_crop(center, max(height, width), self.shape))
