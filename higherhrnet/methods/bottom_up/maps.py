"""Aggregated maps of one image, enlarged to the size at which people are sought.

Both classes give the same: where the peaks are, what score and tags are at given pixels, and
which pixel suits a person's missing joint best. :class:`HostMaps` uses OpenCV on the
processor; :class:`DeviceMaps` keeps everything on the network's device, and only candidates
leave it. Tags stay at the size that the network gave them and are interpolated where they are read.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ..heatmaps import (
    PUBLISHED,
    Indices,
    Locations,
    Peaks,
    Scores,
    SubPixel,
    cut_patches,
    gaussian_blur,
    gaussian_blur_on_device,
    host_peaks,
)
from .refinement import Axis, Search, Tags

_AT_ONCE = 2**26
"""Tags looked at together on a device: bounds the memory."""
Best = tuple[Indices, Scores, Locations]
"""For each question: index (Q, 2), score (Q,), sub-pixel location (Q, 2)."""


class AggregatedMaps(Protocol):
    """Aggregated maps of an image: K heatmaps of ``shape``, T tags for every joint and pixel."""

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""

    def peaks(self, threshold: float, most: int) -> list[Peaks]:
        """For each joint its at most ``most`` local maxima above ``threshold``, best first."""

    def read(self, joints: npt.NDArray[np.int64], indices: Indices) -> tuple[Scores, Tags]:
        """Score (M,) and tags (M, T) of joints (M,) at pixels (M, 2)."""

    def best(self, joints: npt.NDArray[np.int64], means: Tags) -> Best:
        """For each question (joint, mean tag (T,)) the first pixel with the highest
        score - round(tag distance)."""

    def dense_heatmaps(self) -> npt.NDArray[np.float32]:
        """(K, H, W), for images."""

    def dense_tags(self) -> npt.NDArray[np.float32]:
        """(K or 1, h, w), the first of the T tags as the network gave it, for images."""


class HostMaps:
    """Maps in memory.

    Args:
        heatmaps: (K, h, w) float32, the average of all views, of the final size.
        tags: (T, K or 1, h', w') float32, the views' tags.
        sub_pixel: from pixels to points.
    """

    def __init__(
        self,
        heatmaps: npt.NDArray[np.float32],
        tags: npt.NDArray[np.float32],
        sub_pixel: SubPixel = PUBLISHED,
    ) -> None:
        self.heatmaps = heatmaps
        self.tags = tags
        self.sub_pixel = sub_pixel

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.heatmaps.shape[1], self.heatmaps.shape[2]

    @cached_property
    def _axes(self) -> tuple[Axis, Axis]:
        height, width = self.shape
        return Axis.of(height, self.tags.shape[2]), Axis.of(width, self.tags.shape[3])

    @cached_property
    def _for_patches(self) -> npt.NDArray[np.float32]:
        if not self.sub_pixel.blurs:
            return self.heatmaps
        return np.stack([gaussian_blur(heatmap, self.sub_pixel.sigma) for heatmap in self.heatmaps])

    def _locate(self, joints: npt.NDArray[np.int64], indices: Indices) -> Locations:
        return self.sub_pixel.locate(indices, cut_patches(self._for_patches, joints, indices))

    def peaks(self, threshold: float, most: int) -> list[Peaks]:
        """See :class:`AggregatedMaps`."""
        hottest = [host_peaks(heatmap, threshold, most) for heatmap in self.heatmaps]
        counts = [len(indices) for indices, _, _ in hottest]
        joints = np.repeat(np.arange(len(counts)), counts)
        indices = np.concatenate([indices for indices, _, _ in hottest])
        locations = self._locate(joints, indices)
        _, tags = self.read(joints, indices)
        ends = np.cumsum(counts)[:-1]
        parts = zip(hottest, np.split(locations, ends), np.split(tags, ends), strict=True)
        return [Peaks(xy, score, location, tag, more) for (xy, score, more), location, tag in parts]

    def read(self, joints: npt.NDArray[np.int64], indices: Indices) -> tuple[Scores, Tags]:
        """See :class:`AggregatedMaps`."""
        x, y = indices[:, 0], indices[:, 1]
        rows, columns = self._axes
        maps = np.minimum(joints, self.tags.shape[1] - 1)
        wy, wx = rows.weight[y], columns.weight[x]
        y0, y1, x0, x1 = rows.low[y], rows.high[y], columns.low[x], columns.high[x]
        t = self.tags
        above = t[:, maps, y0, x0] * (1 - wx) + t[:, maps, y0, x1] * wx
        below = t[:, maps, y1, x0] * (1 - wx) + t[:, maps, y1, x1] * wx
        return self.heatmaps[joints, y, x], (above * (1 - wy) + below * wy).T

    def best(self, joints: npt.NDArray[np.int64], means: Tags) -> Best:
        """See :class:`AggregatedMaps`."""
        flat = np.zeros(len(joints), np.int64)
        search = Search(self.heatmaps, self.tags)
        for joint in np.unique(joints).tolist():
            rows = joints == joint
            flat[rows] = search.best(joint, means[rows])
        indices = np.stack([flat % self.shape[1], flat // self.shape[1]], axis=1)
        score = self.heatmaps[joints, indices[:, 1], indices[:, 0]]
        return indices, score, self._locate(joints, indices)

    def dense_heatmaps(self) -> npt.NDArray[np.float32]:
        """See :class:`AggregatedMaps`."""
        return self.heatmaps

    def dense_tags(self) -> npt.NDArray[np.float32]:
        """See :class:`AggregatedMaps`."""
        return self.tags[0]


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
