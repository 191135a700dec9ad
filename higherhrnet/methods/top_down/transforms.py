"""Top-down training views: the box of one person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ... import geometry
from ...datasets.transforms import View, draw_color_factors
from ...poses import ABSENT
from ...structures import Sample


@dataclass(frozen=True)
class PersonView:
    """The published top-down augmentation: a person's box, scaled, rotated and perhaps flipped.

    Attributes:
        shape: (H, W) of the view, pixels.
        upper: (K,) which joints belong to the upper half of a body; none for animals.
        scale: lowest and highest growth of the box: normal about their middle, with half of the
            range as standard deviation.
        rotation: standard deviation of the rotation, degrees; at most twice as much either way.
        rotation_probability: probability of rotating.
        half_body: probability of showing the upper or the lower half of a body of more than
            eight labeled joints.
        flip: probability of a horizontal flip.
        color: as in :class:`RandomView`.
        padding: growth of the box.
    """

    shape: tuple[int, int]
    upper: tuple[bool, ...]
    scale: tuple[float, float] = (0.65, 1.35)
    rotation: float = 45.0
    rotation_probability: float = 0.6
    half_body: float = 0.3
    flip: float = 0.5
    color: float = 0.0
    padding: float = 1.25

    def __call__(self, sample: Sample, rng: np.random.Generator) -> View:
        """A view of the sample's first person."""
        image_width = sample.image.shape[1]
        x, y, w, h = sample.boxes[0]
        center, (extent, _) = geometry.box_crop((x, y, w, h), self.shape, self.padding)
        labeled = sample.poses.visibility[0] > ABSENT
        upper = np.array(self.upper)
        if labeled.sum() > _WHOLE and upper.any() and rng.random() < self.half_body:
            half = half_body(sample.poses.xy[0], labeled, upper, rng.normal() < 0.5, self.shape)
            if half is not None:
                center, extent = half
        low, high = self.scale
        extent *= np.clip(rng.normal((low + high) / 2, (high - low) / 2), low, high)
        limit = 2 * self.rotation
        turn = np.clip(rng.normal(0, self.rotation), -limit, limit)
        degrees = float(turn) if rng.random() <= self.rotation_probability else 0.0
        if rng.random() < self.flip:
            # The published code flips the image before it cuts the crop.
            center = (image_width - 1 - center[0], center[1])
            crop = geometry.person_crop(center, extent, self.shape, degrees)
            affine = crop @ geometry.horizontal_flip(image_width)
        else:
            affine = geometry.person_crop(center, extent, self.shape, degrees)
        return View(affine, draw_color_factors(self.color, rng))


@dataclass(frozen=True)
class BoxView:
    """A person's box as testing shows it, nothing left to chance."""

    shape: tuple[int, int]
    padding: float = 1.25

    def __call__(self, sample: Sample, rng: np.random.Generator) -> View:
        """The same view every time; ``rng`` is not used."""
        x, y, w, h = sample.boxes[0]
        center, (extent, _) = geometry.box_crop((x, y, w, h), self.shape, self.padding)
        return View(geometry.person_crop(center, extent, self.shape))


_WHOLE = 8
"""A body of more labeled joints than this may be shown by halves."""


def half_body(
    xy: npt.NDArray[np.float64],
    labeled: npt.NDArray[np.bool_],
    upper: npt.NDArray[np.bool_],
    prefer_upper: bool,
    shape: tuple[int, int],
) -> tuple[tuple[float, float], float] | None:
    """Center and width of a crop of half a body (Wang et al. 2018), or None if it has no half.

    Args:
        xy: (K, 2) pixels.
        labeled: (K,) which of them there are.
        upper: (K,) which belong to the upper half.
        prefer_upper: show the upper half if more than two of its joints are labeled; otherwise
            the lower if it has so many, else the upper.
        shape: (H, W) of the view, whose aspect ratio the crop gets.
    """
    above, below = xy[labeled & upper], xy[labeled & ~upper]
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
