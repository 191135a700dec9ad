"""The pixel that suits a person's missing joint best, found exactly by branch and bound.

The published refinement scans a whole map for every missing joint of every person. Here a block of
pixels is worth at most its highest score minus the rounded distance from the person's tag to the
range of the block's tags, so that few blocks are looked into. All people who miss the same joint
are served together, while its maps are in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..heatmaps import Scores

Map = npt.NDArray[np.float32]
Tags = npt.NDArray[np.float32]
_Indices = npt.NDArray[np.int64]

_SIDE = 16
"""Of the blocks that are bounded together, pixels."""
_AT_ONCE = 256
"""Blocks looked into together: bounds the memory."""


@dataclass(frozen=True)
class Axis:
    """Linear interpolation along one axis, pixel edges aligned: pixel i of the larger map lies
    between source pixels ``low[i]`` and ``high[i]`` at ``weight[i]``."""

    low: _Indices
    high: _Indices
    weight: npt.NDArray[np.float32]

    @classmethod
    def of(cls, size: int, source: int) -> Axis:
        """From ``source`` pixels to ``size``."""
        at = np.maximum((np.arange(size) + 0.5) * (source / size) - 0.5, 0.0)
        low = np.minimum(at.astype(np.int64), source - 1)
        weight = (at - low).astype(np.float32)
        return cls(low, np.minimum(low + 1, source - 1), weight)


class Search:
    """Where score - round(tag distance) is highest on an image's maps.

    Args:
        heatmaps: (K, H, W).
        tags: (T, K or 1, h, w), interpolated to the heatmaps' size.
    """

    def __init__(self, heatmaps: npt.NDArray[np.float32], tags: Tags) -> None:
        self._heatmaps, self._tags = heatmaps, tags
        self._shape = height, width = heatmaps.shape[1], heatmaps.shape[2]
        self._rest = (-height % _SIDE, -width % _SIDE)
        self._windows = (_under(height, tags.shape[2]), _under(width, tags.shape[3]))
        # One joint's tags after the other's, in the same memory.
        self._large = np.zeros(
            (len(tags), height + self._rest[0], width + self._rest[1]), np.float32
        )

    def best(self, joint: int, means: Tags) -> _Indices:
        """For each question the first pixel with the highest score - round(tag distance).

        Args:
            joint: which is missing.
            means: (Q, T) the mean tags of the people who miss it.

        Returns:
            (Q,) flat indices y * W + x.
        """
        heatmap = self._heatmaps[joint]
        tags = self._tags[:, min(joint, self._tags.shape[1] - 1)]
        resize_bilinear_into(tags, self._large[:, : self._shape[0], : self._shape[1]])
        if any(self._rest):  # pixels that no person can prefer
            around = ((0, self._rest[0]), (0, self._rest[1]))
            heatmap = np.pad(heatmap, around, constant_values=-np.inf)
        maps = _cut(heatmap[None])[0], _cut(self._large)
        # Bounds come from the tags as the network gave them: interpolation stays between them.
        low, high = (
            np.stack([self._extreme(extreme, tag) for tag in tags])[:, None]
            for extreme in (cv2.erode, cv2.dilate)
        )
        center = means.T[:, :, None]
        outside = np.maximum(low - center, center - high)
        np.maximum(outside, 0, out=outside)
        # A rounding error must not cost the best block: be a hair more hopeful.
        nearest = np.sqrt(np.einsum("tqb,tqb->qb", outside, outside)) - np.float32(1e-4)
        bounds = _highest(heatmap) - np.rint(np.maximum(nearest, 0))
        first = bounds.argmax(axis=1)
        value, index = self._look(maps, first, means)
        bounds[np.arange(len(first)), first] = -np.inf
        query, block = np.nonzero(bounds >= value[:, None])
        if len(query) > _AT_ONCE:
            order = np.argsort(-bounds[query, block], kind="stable")
            query, block = query[order], block[order]
        for start in range(0, len(query), _AT_ONCE):
            q, b = query[start : start + _AT_ONCE], block[start : start + _AT_ONCE]
            open_ = bounds[q, b] >= value[q]
            if not open_.any():
                continue
            q, b = q[open_], b[open_]
            found, where = self._look(maps, b, means[q])
            # Of each question the best answer comes first, and of equal ones the first pixel.
            order = np.lexsort((where, -found, q))
            q, leader = np.unique(q[order], return_index=True)
            found, where = found[order][leader], where[order][leader]
            better = (found > value[q]) | ((found == value[q]) & (where < index[q]))
            value[q[better]], index[q[better]] = found[better], where[better]
        return index

    def _extreme(self, extreme: Callable[..., Any], tag: Map) -> Map:
        """(blocks,) the least or most of a map (h, w) of tags under each block."""
        (rows, down), (columns, across) = self._windows
        # The window's first pixel is its anchor; beyond the border there is nothing.
        tag = extreme(tag, np.ones((down, 1), np.uint8), anchor=(0, 0))[rows]
        tag = extreme(tag, np.ones((1, across), np.uint8), anchor=(0, 0))[:, columns]
        return tag.ravel()

    def _look(
        self, maps: tuple[Map, Tags], blocks: _Indices, means: Tags
    ) -> tuple[Scores, _Indices]:
        """Highest value in each block (N,) for means (N, T), and the first flat index with it."""
        heatmap, tags = maps
        down, across = np.divmod(blocks, heatmap.shape[1])
        difference = tags[:, down, across] - means.T[:, :, None, None]
        distance = np.sqrt(np.einsum("tnyx,tnyx->nyx", difference, difference))
        values = (heatmap[down, across] - np.rint(distance)).reshape(len(blocks), -1)
        at = values.argmax(axis=1)
        y, x = np.divmod(at, _SIDE)
        indices = (_SIDE * down + y) * self._shape[1] + _SIDE * across + x
        return values[np.arange(len(at)), at], indices


def _cut(maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(C, H, W) → a view (C, H / side, W / side, side, side)."""
    c, height, width = maps.shape
    return maps.reshape(c, height // _SIDE, _SIDE, width // _SIDE, _SIDE).swapaxes(2, 3)


def _highest(heatmap: Map) -> Map:
    """(blocks,) the highest of each block of a map (H, W)."""
    rows = heatmap.reshape(-1, _SIDE, heatmap.shape[1]).max(axis=1)
    highest: Map = rows.reshape(len(rows), -1, _SIDE).max(axis=2)
    return highest.ravel()


def _under(size: int, source: int) -> tuple[_Indices, int]:
    """First source pixel under each block of ``size`` pixels, and the most of them under one."""
    axis = Axis.of(size, source)
    starts = np.arange(0, size, _SIDE)
    ends = np.minimum(starts + _SIDE, size) - 1
    first = axis.low[starts]
    return first, int((axis.high[ends] - first).max()) + 1


def resize_bilinear(
    maps: npt.NDArray[np.float32], shape: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Bilinear resize of (C, h, w) to (C, H, W), pixel edges aligned."""
    if maps.shape[1:] == shape:
        return maps
    larger = np.empty((len(maps), *shape), np.float32)
    resize_bilinear_into(maps, larger)
    return larger


def resize_bilinear_into(maps: npt.NDArray[np.float32], into: npt.NDArray[np.float32]) -> None:
    """Like :func:`resize_bilinear`, into given memory (C, H, W)."""
    for source, target in zip(maps, into, strict=True):
        size = (target.shape[1], target.shape[0])
        cv2.resize(source, size, dst=target, interpolation=cv2.INTER_LINEAR)
