"""Aggregation and maps on the network's device, as tensors: only candidates leave it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ...device_constants import constant
from ...outputs import View
from ...skeleton import Skeleton
from ..heatmaps import PUBLISHED, Indices, Peaks, Scores, SubPixel, gaussian_blur_on_device
from .aggregation import finest_shape, split_tags, used_outputs
from .maps import Best
from .refinement import Tags

Shape = tuple[int, int]
_AT_ONCE = 2**26
"""Tags looked at together: bounds the memory."""


class DeviceMaps:
    """Maps on the network's device.

    Args:
        heatmaps: (K, H, W) float32 of the final size.
        tags: (T, K or 1, h, w) float32.
        sub_pixel: from pixels to points.
    """

    def __init__(
        self, heatmaps: torch.Tensor, tags: torch.Tensor, sub_pixel: SubPixel = PUBLISHED
    ) -> None:
        self.heatmaps = heatmaps
        self._tags = tags
        self._sub_pixel = sub_pixel

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.heatmaps.shape[1], self.heatmaps.shape[2]

    @cached_property
    def _for_patches(self) -> torch.Tensor:
        if not self._sub_pixel.blurs:
            return self.heatmaps
        return gaussian_blur_on_device(self.heatmaps[None], self._sub_pixel.sigma)[0]

    @cached_property
    def _large_tags(self) -> torch.Tensor:
        """(T, K or 1, H, W)."""
        if tuple(self._tags.shape[2:]) == self.shape:
            return self._tags
        return F.interpolate(self._tags, size=self.shape, mode="bilinear", align_corners=False)

    def peaks(self, threshold: float, most: int) -> list[Peaks]:
        """See :class:`AggregatedMaps`; one transfer."""
        joints, (_, width) = len(self.heatmaps), self.shape
        highest = F.max_pool2d(self.heatmaps[None], 5, stride=1, padding=2)[0]
        kept = torch.where((self.heatmaps == highest), self.heatmaps, -torch.inf).flatten(1)
        counts = (kept > threshold).sum(dim=1)
        score, flat = kept.topk(min(most, kept.shape[1]), dim=1)
        number = torch.arange(joints, device=flat.device)[:, None].expand_as(flat)
        parts = self._at(number.reshape(-1), flat.reshape(-1))
        packed = torch.cat([parts, counts.repeat_interleave(flat.shape[1])[:, None]], dim=1)
        rows = packed.view(joints, flat.shape[1], -1).cpu().numpy()
        scores, indices = score.cpu().numpy(), flat.cpu().numpy()
        found = []
        for joint in range(joints):
            strong = scores[joint] > threshold
            xy = np.stack([indices[joint] % width, indices[joint] // width], axis=1)[strong]
            location = self._sub_pixel.locate(xy, rows[joint, strong, 1:10].reshape(-1, 3, 3))
            tags = rows[joint, strong, 10:-1].astype(np.float32)
            dropped = int(rows[joint, 0, -1]) - len(xy)
            found.append(Peaks(xy, scores[joint, strong], location, tags, dropped))
        return found

    def read(self, joints: npt.NDArray[np.int64], indices: Indices) -> tuple[Scores, Tags]:
        """See :class:`AggregatedMaps`."""
        device = self.heatmaps.device
        flat = torch.from_numpy(indices[:, 1] * self.shape[1] + indices[:, 0]).to(device)
        parts = self._at(torch.from_numpy(joints).to(device), flat).cpu().numpy()
        return parts[:, 0].astype(np.float32), parts[:, 10:].astype(np.float32)

    def best(self, joints: npt.NDArray[np.int64], means: Tags) -> Best:
        """See :class:`AggregatedMaps`; all questions at once, a few maps at a time."""
        device = self.heatmaps.device
        asked = torch.from_numpy(joints).to(device)
        wanted = torch.from_numpy(means).to(device)
        tag_maps = self._large_tags
        flat = []
        cells_each = self._tags.shape[0] * self.shape[0] * self.shape[1]
        most = max(1, min(32, _AT_ONCE // cells_each))
        for first in range(0, len(joints), most):
            j = asked[first : first + most]
            near = tag_maps[:, j.clamp(max=tag_maps.shape[1] - 1)].movedim(0, 1)
            distance = (near - wanted[first : first + most, :, None, None]).square().sum(1).sqrt()
            flat.append((self.heatmaps[j] - distance.round()).flatten(1).argmax(dim=1))
        where = torch.cat(flat) if flat else torch.zeros(0, dtype=torch.int64, device=device)
        parts = self._at(asked, where).cpu().numpy()
        found = where.cpu().numpy()
        indices = np.stack([found % self.shape[1], found // self.shape[1]], axis=1)
        locations = self._sub_pixel.locate(indices, parts[:, 1:10].reshape(-1, 3, 3))
        return indices, parts[:, 0].astype(np.float32), locations

    def _at(self, joints: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
        """(M, 10 + T) score, the scores around for :class:`SubPixel`, and tags of joints at flat
        indices."""
        height, width = self.shape
        x, y = flat % width, flat // width
        patches = [
            self._for_patches[joints, (y + dy).clamp(0, height - 1), (x + dx).clamp(0, width - 1)]
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        ]
        tag_maps = self._large_tags
        tags = tag_maps[:, joints.clamp(max=tag_maps.shape[1] - 1), y, x]
        return torch.cat([torch.stack([self.heatmaps[joints, y, x], *patches]), tags]).T

    def dense_heatmaps(self) -> npt.NDArray[np.float32]:
        """See :class:`AggregatedMaps`."""
        return self.heatmaps.cpu().numpy()

    def dense_tags(self) -> npt.NDArray[np.float32]:
        """See :class:`AggregatedMaps`."""
        return self._tags[0].cpu().numpy()


def aggregate_on_device(
    by_scale: Sequence[Sequence[View]],
    for_tags: Sequence[View],
    skeleton: Skeleton,
    shape: Shape,
    with_heatmaps: Sequence[bool],
    blur_sigma: float,
    sub_pixel: SubPixel,
) -> DeviceMaps:
    """See :func:`aggregation.aggregate_views`."""
    device = by_scale[0][0].outputs.heatmaps[0].device
    flip = constant(tuple(skeleton.flip_indices.tolist()), device, torch.int64)

    def upright(view: View, maps: torch.Tensor) -> torch.Tensor:
        maps = maps.float()
        if not view.flipped:
            return maps
        return (maps[:, flip] if maps.shape[1] == len(skeleton) else maps).flip(3)

    def resize(maps: torch.Tensor, size: Shape) -> torch.Tensor:
        if tuple(maps.shape[2:]) == size:
            return maps
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)

    def mean(parts: Iterable[torch.Tensor]) -> torch.Tensor:
        return torch.stack(list(parts)).mean(dim=0)

    at_scales = []
    for views in by_scale:
        heads = [
            mean(upright(view, view.outputs.heatmaps[h]) for view in views)
            for h in used_outputs(views[0], with_heatmaps)
        ]
        finest = finest_shape(views[0])
        at_scales.append(resize(mean(resize(head, finest) for head in heads), shape))
    tags = [
        resize(upright(view, tag), finest_shape(view))
        for view in for_tags
        for tag in split_tags(view, skeleton)
    ]
    total = mean(at_scales)
    return DeviceMaps(
        (gaussian_blur_on_device(total, blur_sigma) if blur_sigma else total)[0],
        torch.cat(tags),
        sub_pixel,
    )
