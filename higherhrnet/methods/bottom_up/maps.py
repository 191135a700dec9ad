"""Aggregated maps of one image, enlarged to the size at which people are sought.

They tell where the peaks are, what score and tags are at given pixels, and which pixel suits a
person's missing joint best. :class:`HostMaps` uses OpenCV on the processor; ``device_maps.py``
keeps everything on the network's device, and only candidates leave it. Tags stay at the size that
the network gave them and are interpolated where they are read.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..heatmaps import (
    PUBLISHED,
    Indices,
    Locations,
    Peaks,
    Scores,
    SubPixel,
    cut_patches,
    gaussian_blur,
    host_peaks,
)
from .refinement import Axis, Search, Tags

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
