"""A reference decoder: the published code's steps, written out one image and person at a time.

The package's decoding is compared with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from higherhrnet.methods.bottom_up import grouping as tagging
from higherhrnet.methods.bottom_up.codec import BottomUpCodec
from higherhrnet.methods.heatmaps import Peaks, gaussian_blur
from higherhrnet.outputs import View
from higherhrnet.skeleton import Skeleton


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
    blur_sigma: float = 0.0,
) -> PlainMaps:
    """Every view's maps enlarged to the full size, mirrored back, averaged and stacked there."""
    tag_scale = min((view.scale for view in views), key=lambda scale: abs(np.log(scale)))
    scales = list(dict.fromkeys(view.scale for view in views))
    total: torch.Tensor | None = None
    tags: list[torch.Tensor] = []
    for scale in scales:
        parts = [_unflip(v, skeleton, shape, aggregate) for v in views if v.scale == scale]
        heatmap = torch.stack([part for part, _ in parts]).mean(dim=0)
        total = heatmap if total is None else total + _resize(heatmap, total.shape[2:])
        if scale == tag_scale:
            tags += [_resize(tag, total.shape[2:]) for _, view_tags in parts for tag in view_tags]
    assert total is not None
    stacked = torch.stack(tags, dim=-1)[0].float().cpu().numpy()
    heatmaps = (total / len(scales))[0].float().cpu().numpy()
    if blur_sigma:
        heatmaps = np.stack([gaussian_blur(heatmap, blur_sigma) for heatmap in heatmaps])
    return PlainMaps(heatmaps, stacked)


def _unflip(
    view: View, skeleton: Skeleton, shape: tuple[int, int] | None, aggregate: bool
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    outputs = view.outputs
    finest = outputs.heatmaps[-1].shape[2:]
    heatmap = [_resize(maps, finest) for maps in outputs.heatmaps]
    tags = [_resize(tag, finest) for tag in outputs.tags if tag.shape[1]]
    if view.flipped:
        flip = torch.from_numpy(skeleton.flip_indices).to(heatmap[0].device)
        heatmap = [maps.flip(3)[:, flip] for maps in heatmap]
        tags = [tag.flip(3) if tag.shape[1] == 1 else tag.flip(3)[:, flip] for tag in tags]
    merged = torch.stack(heatmap).mean(dim=0) if aggregate else heatmap[-1]
    if shape is None:
        return merged, tags
    return _resize(merged, shape), [_resize(tag, shape) for tag in tags]


def _resize(maps: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    if tuple(maps.shape[2:]) == tuple(shape):
        return maps
    return F.interpolate(maps, size=tuple(shape), mode="bilinear", align_corners=False)


def find_peaks(maps: PlainMaps, threshold: float, most: int) -> list[Peaks]:
    """Full-size max-pool, equality, top-k (Cheng et al. 2020, code)."""
    heatmap = torch.from_numpy(maps.heatmaps)
    highest = F.max_pool2d(heatmap[None], 5, 1, 2)[0]
    kept = (heatmap * (highest == heatmap)).flatten(1)
    scores, places = kept.topk(min(most, kept.shape[1]), dim=1)
    found = []
    width = heatmap.shape[2]
    for joint in range(len(heatmap)):
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
            heatmap, tags = maps.heatmaps[joint], maps.tags[min(joint, len(maps.tags) - 1)]
            distance = ((tags - mean[None, None, :]) ** 2).sum(axis=2) ** 0.5
            y, x = np.unravel_index(np.argmax(heatmap - np.round(distance)), heatmap.shape)
            if heatmap[y, x] > 0:
                xy = np.array([[x, y]])
                people.xy[person, joint] = xy[0]
                shifted = quarter_shift(maps.heatmaps, np.array([joint]), xy)
                people.location[person, joint] = shifted[0] + 0.5
                people.score[person, joint] = heatmap[y, x]


def decode(maps: PlainMaps, codec: BottomUpCodec) -> tuple[tagging.People, npt.NDArray[np.float64]]:
    """People on the maps, joints sub-pixel in ``place``, and their scores."""
    peaks = find_peaks(maps, codec.threshold, codec.max_candidates)
    people = tagging.assemble_people(peaks, codec.group(peaks))
    score = people.score.mean(axis=1).astype(np.float64) if len(people.score) else np.zeros(0)
    if codec.refine:
        refine(people, maps)
    return people, score


def quarter_shift(
    heatmaps: npt.NDArray[np.float32], joints: npt.NDArray[np.int64], xy: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Pixels (M, 2) of joints' (M,) maps (K, H, W), a quarter pixel towards the right (lower)
    neighbor if it is the higher one, else to the other side; border pixels are repeated."""
    _, height, width = heatmaps.shape
    x, y = xy[:, 0], xy[:, 1]
    right = heatmaps[joints, y, np.minimum(x + 1, width - 1)]
    left = heatmaps[joints, y, np.maximum(x - 1, 0)]
    below = heatmaps[joints, np.minimum(y + 1, height - 1), x]
    above = heatmaps[joints, np.maximum(y - 1, 0), x]
    return xy + np.stack(
        [np.where(right > left, 0.25, -0.25), np.where(below > above, 0.25, -0.25)], axis=1
    )
