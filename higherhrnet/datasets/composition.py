"""Training images made of several: mosaics, and people pasted from other images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from .. import geometry
from ..poses import REFINED, SEEN, Poses
from ..structures import Sample
from .base import PoseDataset
from .transforms import warp_sample

Mask = npt.NDArray[np.bool_]


class OutlinedDataset(PoseDataset, Protocol):
    """A data set that also knows the outlines of people."""

    def outlines(self, index: int) -> list[Mask | None]:
        """(H, W) of each labeled person of an image, in the order of its poses."""


@dataclass(frozen=True)
class Composition:
    """How images are combined before a view of them is chosen.

    Attributes:
        mosaic: probability that four images become one (Bochkovskiy et al. 2020, YOLOv4, sec. 3.3):
            more surroundings, and smaller people.
        paste: probability that people of another image are pasted over the image (Ghiasi et al.
            2021, sec. 3), where their outlines are known: more people, who hide each other.
    """

    mosaic: float = 0.0
    paste: float = 0.0

    def __call__(self, dataset: PoseDataset, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample, combined with others of the data set or as it is."""
        if self.paste and rng.random() < self.paste:
            other = int(rng.integers(len(dataset)))
            sample = paste_people(sample, dataset, other, rng)
        if self.mosaic and rng.random() < self.mosaic:
            others = rng.integers(len(dataset), size=3)
            sample = make_mosaic([sample, *(dataset.sample(int(o)) for o in others)], dataset)
        return sample


def make_mosaic(samples: Sequence[Sample], dataset: PoseDataset) -> Sample:
    """Four images in a square of two by two, each within a quarter of the first one's size.

    What the quarters leave free is black and does not count in the loss. A joint that one of the
    images does not annotate counts nowhere.
    """
    height, width = samples[0].image.shape[:2]
    canvas = (2 * height, 2 * width)
    parts = []
    for number, sample in enumerate(samples):
        own_height, own_width = sample.image.shape[:2]
        scale = min(height / own_height, width / own_width)
        row, column = divmod(number, 2)
        # Each image touches the middle of the mosaic.
        left = width if column else width - scale * own_width
        top = height if row else height - scale * own_height
        affine = geometry.translation(left, top) @ geometry.scaling(scale)
        parts.append(warp_sample(sample, affine, canvas, dataset.skeleton))
    known = [sample.annotated for sample in samples if sample.annotated is not None]
    return Sample(
        image=np.maximum.reduce([part.image for part in parts]),
        poses=Poses.concatenate([part.poses for part in parts]),
        boxes=np.concatenate([part.boxes for part in parts]),
        valid=np.maximum.reduce([part.valid for part in parts]),
        id=samples[0].id,
        affine=geometry.identity(),
        annotated=np.logical_and.reduce(known) if known else None,
    )


def paste_people(
    sample: Sample, dataset: PoseDataset, index: int, rng: np.random.Generator
) -> Sample:
    """The sample with the outlined people of another image before it, where a shift by chance puts
    them.

    Joints that they cover count as hidden. Where the other set does not know outlines, or annotates
    other joints, the sample stays as it is.
    """
    outlines = getattr(dataset, "outlines", None)
    masks = outlines(index) if outlines is not None else []
    people = [row for row, mask in enumerate(masks) if mask is not None]
    if not people:
        return sample
    other = dataset.sample(index)
    if not _annotate_alike(sample, other):
        return sample
    height, width = sample.image.shape[:2]
    own_height, own_width = other.image.shape[:2]
    scale = min(height / own_height, width / own_width) * rng.uniform(0.5, 1.0)
    dx = rng.uniform(-0.3, 0.3) * width + (width - scale * own_width) / 2
    dy = rng.uniform(-0.3, 0.3) * height + (height - scale * own_height) / 2
    affine = geometry.translation(dx, dy) @ geometry.scaling(scale)
    moved = warp_sample(other, affine, (height, width), dataset.skeleton)
    cover = np.zeros((own_height, own_width), np.uint8)
    for row in people:
        cover |= np.asarray(masks[row], np.uint8)
    cover = np.asarray(
        cv2.warpAffine(cover, affine[:2], (width, height), flags=cv2.INTER_NEAREST), np.uint8
    )
    pasted = moved.poses.select(people).within((height, width))
    return replace(
        sample,
        image=np.where(cover[..., None] > 0, moved.image, sample.image),
        poses=Poses.concatenate([_hide(sample.poses, cover), pasted]),
        boxes=np.concatenate([sample.boxes, moved.boxes[people]]),
        valid=np.where(cover > 0, 1, sample.valid).astype(np.uint8),
    )


def _annotate_alike(one: Sample, other: Sample) -> bool:
    if one.annotated is None or other.annotated is None:
        return one.annotated is other.annotated
    return bool((one.annotated == other.annotated).all())


def _hide(poses: Poses, cover: npt.NDArray[np.uint8]) -> Poses:
    """The same people, their visible joints under the cover marked as hidden."""
    height, width = cover.shape
    x = np.clip(np.rint(poses.xy[..., 0]).astype(int), 0, width - 1)
    y = np.clip(np.rint(poses.xy[..., 1]).astype(int), 0, height - 1)
    hidden = (cover[y, x] > 0) & (poses.visibility == SEEN)
    return replace(poses, visibility=np.where(hidden, REFINED, poses.visibility).astype(np.int8))
