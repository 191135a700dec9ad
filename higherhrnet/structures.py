"""The contract between data, codec and loss: what each hands to the next.

``Sample`` → (codec) → ``KeypointIndices`` → ``Batch`` → (to the device, codec) → ``Targets``. B
images, K joints, P people, S the side of a square input, s a head's stride. What a network gives is
in ``outputs.py``. Those that travel to a device or through ``torch.compile`` and DDP are named
tuples, which torch takes apart by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from .geometry import Affine
from .poses import Poses

T = TypeVar("T")


NOT_COUNTED = 255
"""In a mask: pixels of which nobody knows."""


@dataclass(frozen=True)
class Silhouettes:
    """All people of an image, with keypoints or not, for heads beside those of the keypoints.

    Attributes:
        mask: (H, W) uint8, 1 where people are, 0 where nobody is, :data:`NOT_COUNTED` else.
        boxes: (P, 4) float64 left, top, right, bottom, from the image's upper left edge.
    """

    mask: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """One image, seen whole or through a transform.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        poses: the annotated people in this image's pixels.
        boxes: (P, 4) float64 x, y, w, h of each of them, in this image's pixels.
        valid: (H, W) uint8, 1 where the loss counts: inside the original image and outside
            crowd regions and people without keypoints.
        id: the data set's name of the image.
        affine: original image → this image.
        annotated: (K,) which joints the data set annotates; None for all. Where a joint is not
            annotated, that nobody has it says nothing.
        silhouettes: where they are wanted.
    """

    image: npt.NDArray[np.uint8]
    poses: Poses
    boxes: npt.NDArray[np.float64]
    valid: npt.NDArray[np.uint8]
    id: int | str
    affine: Affine
    annotated: npt.NDArray[np.bool_] | None = None
    silhouettes: Silhouettes | None = None


ALL_ANNOTATED = torch.ones(1, dtype=torch.uint8)
"""Broadcast over joints and images: nothing is left out."""


def map_tensors(value: T, function: Callable[[torch.Tensor], torch.Tensor]) -> T:
    """A tensor, or a (named) tuple of them at any depth, with the function applied to each."""
    given: Any = value
    if isinstance(given, torch.Tensor):
        mapped: Any = function(given)
        return mapped
    parts = [map_tensors(part, function) for part in given]
    mapped = type(given)(*parts) if hasattr(given, "_fields") else tuple(parts)
    return mapped


class KeypointIndices(NamedTuple):
    """Where people are on a view: all that travels to the device beside its pixels.

    Attributes:
        indices: per head ([B,] P, K) int64, flat index y * width + x of each joint on the head's
            maps, -1 where absent or outside; a top-down codec counts a border with them.
        valid: ([B,] H/s, W/s) uint8 for the finest head's stride s, 1 where the loss counts.
        annotated: ([B,] K or 1) uint8, 1 for joints that the image's data set annotates.
        offsets: per head ([B,] P, K, 2) float32 x, y from each joint's pixel to its exact place, at
            most half a pixel; none where joints are drawn on pixels.
        masks: none, or one ([B,] H/4, W/4) uint8 as in :class:`Silhouettes`.
        boxes: none, or one ([B,] P, 4) float32 left, top, right, bottom, pixels of the view; a box
            without extent is none.
    """

    indices: tuple[torch.Tensor, ...]
    valid: torch.Tensor
    annotated: torch.Tensor = ALL_ANNOTATED
    offsets: tuple[torch.Tensor, ...] = ()
    masks: tuple[torch.Tensor, ...] = ()
    boxes: tuple[torch.Tensor, ...] = ()


class Targets(NamedTuple):
    """What a network should predict, one entry a head.

    Attributes:
        heatmaps: per head (B, K, H/s, W/s) float32 in 0..1.
        weights: per head float32, 1 where the loss counts, else 0: (B, 1, H/s, W/s) bottom-up,
            where regions are ignored, (B, K, 1, 1) top-down, where joints are.
        indices, annotated, masks, boxes: as in :class:`KeypointIndices`.
    """

    heatmaps: tuple[torch.Tensor, ...]
    weights: tuple[torch.Tensor, ...]
    indices: tuple[torch.Tensor, ...]
    annotated: torch.Tensor = ALL_ANNOTATED
    masks: tuple[torch.Tensor, ...] = ()
    boxes: tuple[torch.Tensor, ...] = ()


class PackedImages(NamedTuple):
    """Whole images of any sizes that the device is to warp into views.

    Attributes:
        pixels: (bytes,) uint8, each image's (H, W, 3) RGB one after another; empty where the
            device holds all images already.
        start: (B,) int64, first byte of each image there.
        shape: (B, 2) int64, H and W of each image.
        affine: (B, 2, 3) float64, view pixel → image pixel.
    """

    pixels: torch.Tensor
    start: torch.Tensor
    shape: torch.Tensor
    affine: torch.Tensor


class Batch(NamedTuple):
    """What the loader yields.

    Attributes:
        images: (B, 3, H, W) uint8 RGB views, or the images that they are to be made from.
        keypoints: heatmap indices of their people.
        color: (B, 3) float32 factors of brightness, contrast and saturation; 1 changes nothing.
        ids: the data set's names of the images.
    """

    images: torch.Tensor | PackedImages
    keypoints: KeypointIndices
    color: torch.Tensor
    ids: tuple[int | str, ...]
