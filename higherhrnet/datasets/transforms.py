"""Training views: what chance decides about an image, as one affine and one color change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from .. import geometry
from ..geometry import Affine
from ..poses import Poses
from ..skeleton import Skeleton
from ..structures import NOT_COUNTED, Sample, Silhouettes

_LEAST_SEEN = 0.2
"""A box of which less remains in a view is not searched for there."""
_LEAST_SIDE = 2.0
"""Nor one that is so narrow there, pixels."""


@dataclass(frozen=True)
class View:
    """One way of looking at an image.

    Attributes:
        affine: image → view.
        color: factors of brightness, contrast and saturation.
    """

    affine: Affine
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)


class Transform(Protocol):
    """Draws views; all chance comes from ``rng``."""

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the views, pixels."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> View:
        """A view of a sample; of its image only the size matters, not the pixels."""


def draw_color_factors(change: float, rng: np.random.Generator) -> tuple[float, float, float]:
    if not change:
        return 1.0, 1.0, 1.0
    brightness, contrast, saturation = rng.uniform(1 - change, 1 + change, 3).tolist()
    return brightness, contrast, saturation


def warp_annotations(
    sample: Sample,
    affine: Affine,
    shape: tuple[int, int],
    skeleton: Skeleton,
    padding_in_loss: bool = False,
) -> tuple[Poses, npt.NDArray[np.uint8]]:
    """People and valid mask (H, W) through an affine; a flipping one swaps left and right joints.

    Args:
        sample: an image with its people.
        affine: image → canvas.
        shape: (H, W) of the canvas.
        skeleton: the sample's.
        padding_in_loss: whether the mask is valid beyond the image's edges too.
    """
    poses = sample.poses.warp(affine)
    if geometry.is_flipped(affine):
        poses = poses.swap_sides(skeleton)
    valid = cv2.warpAffine(
        sample.valid,
        affine[:2],
        shape[::-1],
        flags=cv2.INTER_NEAREST,
        borderValue=int(padding_in_loss),
    )
    return poses, np.asarray(valid, dtype=np.uint8)


def warp_sample(
    sample: Sample,
    affine: Affine,
    shape: tuple[int, int],
    skeleton: Skeleton,
    padding_in_loss: bool = False,
) -> Sample:
    """The whole sample through an affine onto a canvas of ``shape`` (H, W); see
    :func:`warp_annotations`."""
    poses, valid = warp_annotations(sample, affine, shape, skeleton, padding_in_loss)
    annotated = sample.annotated
    if annotated is not None and geometry.is_flipped(affine):
        annotated = annotated[skeleton.flip_indices]
    return Sample(
        image=geometry.warp(sample.image, affine, shape),
        poses=poses,
        boxes=_moved_boxes(sample.boxes, affine),
        valid=valid,
        id=sample.id,
        affine=affine @ sample.affine,
        annotated=annotated,
    )


def clip_boxes(
    boxes: npt.NDArray[np.float64], shape: tuple[int, int]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Boxes cut at a view's edges, and which of them are still to be searched for."""
    limits = np.array([shape[1], shape[0]] * 2, float)
    cut = np.clip(boxes, 0, limits)
    sides, whole = cut[:, 2:] - cut[:, :2], boxes[:, 2:] - boxes[:, :2]
    seen = sides.prod(axis=1) >= _LEAST_SEEN * whole.prod(axis=1)
    return cut, seen & (sides >= _LEAST_SIDE).all(axis=1)


def warp_silhouettes(
    silhouettes: Silhouettes, affine: Affine, shape: tuple[int, int], stride: int = 4
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """The mask at 1/``stride`` and the boxes of a view, those cut at its edges.

    A turned box is that of the ellipse inside it: the upright box around its corners would be far
    larger than the person (Kalra et al. 2021).

    Args:
        silhouettes: of the image.
        affine: image → view, between centers of pixels.
        shape: (H, W) of the view.
        stride: of the mask.
    """
    small = (shape[0] // stride, shape[1] // stride)
    to_map = geometry.exact_map_affine(stride) @ affine
    mask = geometry.warp(silhouettes.mask, to_map, small, nearest=True, border=NOT_COUNTED)
    low, high = silhouettes.boxes[:, :2] - 0.5, silhouettes.boxes[:, 2:] - 0.5
    center = geometry.apply(affine, (low + high) / 2) + 0.5
    half = np.sqrt((((high - low) / 2) ** 2) @ (affine[:2, :2] ** 2).T)
    boxes = np.concatenate([center - half, center + half], axis=1)
    cut, seen = clip_boxes(boxes, shape)
    return mask, cut[seen]


def _moved_boxes(boxes: npt.NDArray[np.float64], affine: Affine) -> npt.NDArray[np.float64]:
    """The upright boxes (P, 4) around the corners of moved ones."""
    unit = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    corners = geometry.apply(affine, boxes[:, None, :2] + unit * boxes[:, None, 2:])
    low = corners.min(axis=1)
    return np.concatenate([low, corners.max(axis=1) - low], axis=1)
