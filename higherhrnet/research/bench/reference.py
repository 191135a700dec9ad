"""Reference implementations that benchmarks measure against and tests compare with.

Written as the formulas read, with loops over images, people and joints, as the first published
implementations work.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ... import geometry
from ...models.normalization import MEAN, STD
from ...outputs import Head
from ...poses import ABSENT
from ...skeleton import Skeleton
from ...structures import Sample

Joints = Sequence[Sequence[Sequence[int]]]
"""Per image, person and joint the flat heatmap index, -1 where there is none."""


def tag_losses(tags: torch.Tensor, joints: Joints) -> tuple[torch.Tensor, torch.Tensor]:
    """Pull and push (B,) with a loop over images, people and joints (Newell et al. 2017)."""
    pulls, pushes = [], []
    for image, people in zip(tags.flatten(2), joints, strict=True):
        means: list[torch.Tensor] = []
        pull = image.sum() * 0
        for person in people:
            read = [image[k, index] for k, index in enumerate(person) if index >= 0]
            if not read:
                continue
            stacked = torch.stack(read)
            means.append(stacked.mean())
            pull = pull + ((stacked - means[-1]) ** 2).mean()
        count = len(means)
        pulls.append(pull / max(count, 1))
        if count < 2:
            pushes.append(image.sum() * 0)
            continue
        centers = torch.stack(means)
        closeness = torch.exp(-((centers - centers[:, None]) ** 2))
        pushes.append(0.5 * (closeness.sum() - count) / (count * (count - 1)))
    return torch.stack(pulls), torch.stack(pushes)


def heatmap_loss(
    prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Masked squared error (B,), mean after mean, the mask written out for every joint."""
    loss = ((prediction.float() - target) ** 2) * weight.expand_as(prediction)
    return loss.mean(dim=3).mean(dim=2).mean(dim=1)


def item(
    sample: Sample, affine: geometry.Affine, size: int, heads: Sequence[Head], skeleton: Skeleton
) -> tuple[list[npt.NDArray[np.float32]], int]:
    """A training item as float arrays: normalized image, heatmaps and mask for every head.

    Returns:
        the arrays, and the bytes that they take on their way to the main process.
    """
    image = geometry.warp(sample.image, affine, (size, size))
    scaled = ((image / np.float32(255) - MEAN) / STD).astype(np.float32)
    arrays = [np.ascontiguousarray(scaled.transpose(2, 0, 1))]
    poses = sample.poses.warp(affine)
    if geometry.is_flipped(affine):
        poses = poses.swap_sides(skeleton)
    for head in heads:
        side = size // head.stride
        to_map = geometry.map_affine(head.stride, geometry.is_flipped(affine))
        xy = geometry.apply(to_map, poses.xy)
        arrays.append(heatmaps(xy, poses.visibility > ABSENT, side))
        small = geometry.scaling(1 / head.stride) @ affine
        mask = cv2.warpAffine(sample.valid.astype(np.float32), small[:2], (side, side))
        arrays.append((mask > 0.5).astype(np.float32))
    return arrays, sum(array.nbytes for array in arrays)


def heatmaps(
    xy: npt.NDArray[np.floating], present: npt.NDArray[np.bool_], side: int, sigma: int = 2
) -> npt.NDArray[np.float32]:
    """(K, side, side) Gaussians, each clipped to the map before it is drawn."""
    radius = 3 * sigma + 1
    x = np.arange(0, 2 * radius + 1, dtype=float)
    gaussian = np.exp(-((x - radius) ** 2 + (x[:, None] - radius) ** 2) / (2 * sigma**2))
    maps = np.zeros((xy.shape[1], side, side), np.float32)
    for person in range(xy.shape[0]):
        for joint in range(xy.shape[1]):
            if not present[person, joint]:
                continue
            cx, cy = int(xy[person, joint, 0]), int(xy[person, joint, 1])
            if not (0 <= cx < side and 0 <= cy < side):
                continue
            left, top = cx - radius, cy - radius
            a, b = max(0, left), min(left + 2 * radius + 1, side)
            c, d = max(0, top), min(top + 2 * radius + 1, side)
            window = maps[joint, c:d, a:b]
            window[...] = np.maximum(window, gaussian[c - top : d - top, a - left : b - left])
    return maps
