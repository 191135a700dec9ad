"""The plain ways: what the fast paths are measured against, and proved equal to in the tests.

Written as the formulas read, one picture, person and joint at a time, as the first published
implementations worked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from .. import geometry
from ..codecs import tags as tagging
from ..codecs.bottom_up import BottomUpCodec
from ..codecs.heatmaps import Peaks, quarter_shift, smoothed
from ..fields import Head, Sample, View
from ..models.pixels import MEAN, STD
from ..poses import ABSENT
from ..skeleton import Skeleton

Joints = Sequence[Sequence[Sequence[int]]]
"""Per picture, person and joint a flat cell, -1 where there is none."""


def tag_losses(tags: torch.Tensor, joints: Joints) -> tuple[torch.Tensor, torch.Tensor]:
    """Pull and push (B,) with a loop over pictures, people and joints (Newell et al. 2017)."""
    pulls, pushes = [], []
    for picture, people in zip(tags.flatten(2), joints, strict=True):
        means: list[torch.Tensor] = []
        pull = picture.sum() * 0
        for person in people:
            read = [picture[k, cell] for k, cell in enumerate(person) if cell >= 0]
            if not read:
                continue
            stacked = torch.stack(read)
            means.append(stacked.mean())
            pull = pull + ((stacked - means[-1]) ** 2).mean()
        count = len(means)
        pulls.append(pull / max(count, 1))
        if count < 2:
            pushes.append(picture.sum() * 0)
            continue
        centres = torch.stack(means)
        closeness = torch.exp(-((centres - centres[:, None]) ** 2))
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
    """A training item as float arrays: normalised picture, heatmaps and mask for every head.

    Returns:
        the arrays, and the bytes that they take on their way to the main process.
    """
    image = geometry.warp(sample.image, affine, (size, size))
    scaled = ((image / np.float32(255) - MEAN) / STD).astype(np.float32)
    arrays = [np.ascontiguousarray(scaled.transpose(2, 0, 1))]
    poses = sample.poses.warp(affine)
    if geometry.is_mirrored(affine):
        poses = poses.exchanged(skeleton)
    for head in heads:
        side = size // head.stride
        to_map = geometry.map_affine(head.stride, geometry.is_mirrored(affine))
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


@dataclass(frozen=True)
class PlainMaps:
    """Dense maps of the published decoding: heatmaps (K, H, W), tags (K or 1, H, W, T)."""

    heatmaps: npt.NDArray[np.float32]
    tags: npt.NDArray[np.float32]


def merge(
    views: Sequence[View],
    skeleton: Skeleton,
    shape: tuple[int, int] | None,
    aggregate: bool = True,
    smooth: float = 0.0,
) -> PlainMaps:
    """Every view's maps enlarged to the full size, mirrored back, averaged and stacked there."""
    tag_scale = min((view.scale for view in views), key=lambda scale: abs(np.log(scale)))
    scales = list(dict.fromkeys(view.scale for view in views))
    total: torch.Tensor | None = None
    tags: list[torch.Tensor] = []
    for scale in scales:
        parts = [_upright(v, skeleton, shape, aggregate) for v in views if v.scale == scale]
        heat = torch.stack([part for part, _ in parts]).mean(dim=0)
        total = heat if total is None else total + _resize(heat, total.shape[2:])
        if scale == tag_scale:
            tags += [_resize(tag, total.shape[2:]) for _, view_tags in parts for tag in view_tags]
    assert total is not None
    stacked = torch.stack(tags, dim=-1)[0].float().cpu().numpy()
    heatmaps = (total / len(scales))[0].float().cpu().numpy()
    if smooth:
        heatmaps = np.stack([smoothed(heat, smooth) for heat in heatmaps])
    return PlainMaps(heatmaps, stacked)


def _upright(
    view: View, skeleton: Skeleton, shape: tuple[int, int] | None, aggregate: bool
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    outputs = view.outputs
    finest = outputs.heatmaps[-1].shape[2:]
    heat = [_resize(maps, finest) for maps in outputs.heatmaps]
    tags = [_resize(tag, finest) for tag in outputs.tags if tag.shape[1]]
    if view.mirrored:
        flip = torch.from_numpy(skeleton.flip).to(heat[0].device)
        heat = [maps.flip(3)[:, flip] for maps in heat]
        tags = [tag.flip(3) if tag.shape[1] == 1 else tag.flip(3)[:, flip] for tag in tags]
    merged = torch.stack(heat).mean(dim=0) if aggregate else heat[-1]
    if shape is None:
        return merged, tags
    return _resize(merged, shape), [_resize(tag, shape) for tag in tags]


def _resize(maps: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    if tuple(maps.shape[2:]) == tuple(shape):
        return maps
    return F.interpolate(maps, size=tuple(shape), mode="bilinear", align_corners=False)


def find_peaks(maps: PlainMaps, threshold: float, most: int) -> list[Peaks]:
    """Full-size max-pool, equality, top-k (Cheng et al. 2020, code)."""
    heat = torch.from_numpy(maps.heatmaps)
    highest = F.max_pool2d(heat[None], 5, 1, 2)[0]
    kept = (heat * (highest == heat)).flatten(1)
    scores, places = kept.topk(min(most, kept.shape[1]), dim=1)
    found = []
    width = heat.shape[2]
    for joint in range(len(heat)):
        strong = scores[joint] > threshold
        flat = places[joint][strong].numpy()
        xy = np.stack([flat % width, flat // width], axis=1)
        shifted = quarter_shift(maps.heatmaps, np.full(len(xy), joint), xy) + 0.5
        tags = maps.tags[min(joint, len(maps.tags) - 1), xy[:, 1], xy[:, 0]]
        found.append(Peaks(xy, scores[joint][strong].numpy(), shifted, tags))
    return found


def refine(people: tagging.People, maps: PlainMaps) -> None:
    """Every missing joint of every person: a scan of the whole map."""
    for person in range(len(people.score)):
        found = people.score[person] > 0
        mean = people.tags[person, found].mean(axis=0)
        for joint in np.flatnonzero(~found).tolist():
            heat, tags = maps.heatmaps[joint], maps.tags[min(joint, len(maps.tags) - 1)]
            distance = ((tags - mean[None, None, :]) ** 2).sum(axis=2) ** 0.5
            y, x = np.unravel_index(np.argmax(heat - np.round(distance)), heat.shape)
            if heat[y, x] > 0:
                xy = np.array([[x, y]])
                people.xy[person, joint] = xy[0]
                shifted = quarter_shift(maps.heatmaps, np.array([joint]), xy)
                people.place[person, joint] = shifted[0] + 0.5
                people.score[person, joint] = heat[y, x]


def decode(maps: PlainMaps, codec: BottomUpCodec) -> tuple[tagging.People, npt.NDArray[np.float64]]:
    """People on the maps, joints sub-pixel in ``place``, and their scores."""
    peaks = find_peaks(maps, codec.threshold, codec.most_candidates)
    people = tagging.assembled(peaks, codec.group(peaks))
    score = people.score.mean(axis=1).astype(np.float64) if len(people.score) else np.zeros(0)
    if codec.refine:
        refine(people, maps)
    return people, score
