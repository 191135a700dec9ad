"""Merged maps of one picture, enlarged to the size at which people are sought.

Both classes answer the same questions: where are the peaks, what are heat and tags at these
cells, which cell suits a person's missing joint best. :class:`HostMaps` uses OpenCV on the
processor; :class:`DeviceMaps` keeps everything on the network's device, and only candidates
leave it. Tags stay at the size that the network gave them and are interpolated where they are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from .heatmaps import Cells, Peaks, Places, Scores, host_peaks, quarter_shift

Tags = npt.NDArray[np.float32]
Best = tuple[Cells, Scores, Places]
"""For each question: cell (Q, 2), heat (Q,), sub-pixel place (Q, 2)."""

_BLOCK = 16
"""Side of the blocks that are bounded together, cells."""
_AT_ONCE = 64
"""Blocks looked into together."""


class Maps(Protocol):
    """Merged maps of a picture: K heatmaps of ``shape``, and T tags for every joint and cell."""

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""

    def peaks(self, threshold: float, most: int) -> list[Peaks]:
        """For each joint its at most ``most`` local maxima above ``threshold``, best first."""

    def read(self, joints: npt.NDArray[np.int64], cells: Cells) -> tuple[Scores, Tags]:
        """Heat (M,) and tags (M, T) of joints (M,) at cells (M, 2)."""

    def best(self, joints: npt.NDArray[np.int64], means: Tags) -> Best:
        """For each question (joint, mean tag (T,)) the first cell with the highest
        heat - round(tag distance)."""

    def dense_heat(self) -> npt.NDArray[np.float32]:
        """(K, H, W), for pictures."""

    def dense_tags(self) -> npt.NDArray[np.float32]:
        """(K or 1, h, w), the first of the T tags as the network gave it, for pictures."""


@dataclass(frozen=True)
class _Axis:
    """Linear interpolation along one axis, pixel edges aligned: cell i of ``size`` lies between
    source cells ``low[i]`` and ``high[i]`` at ``weight[i]``."""

    low: npt.NDArray[np.int64]
    high: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float32]

    @classmethod
    def of(cls, size: int, source: int) -> _Axis:
        at = np.maximum((np.arange(size) + 0.5) * (source / size) - 0.5, 0.0)
        low = np.minimum(at.astype(np.int64), source - 1)
        weight = (at - low).astype(np.float32)
        return cls(low, np.minimum(low + 1, source - 1), weight)


class HostMaps:
    """Maps in memory.

    Args:
        heatmaps: (K, h, w) float32, the average of all views; enlarged by :meth:`enlarged`.
        tags: (T, K or 1, h', w') float32, the views' tags.
    """

    def __init__(self, heatmaps: npt.NDArray[np.float32], tags: npt.NDArray[np.float32]) -> None:
        self.heatmaps = heatmaps
        self.tags = tags

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.heatmaps.shape[1], self.heatmaps.shape[2]

    @cached_property
    def _axes(self) -> tuple[_Axis, _Axis]:
        height, width = self.shape
        return _Axis.of(height, self.tags.shape[2]), _Axis.of(width, self.tags.shape[3])

    def peaks(self, threshold: float, most: int) -> list[Peaks]:
        """See :class:`Maps`."""
        found = []
        for joint, heat in enumerate(self.heatmaps):
            cells, score, dropped = host_peaks(heat, threshold, most)
            _, tags = self.read(np.full(len(cells), joint), cells)
            found.append(Peaks(cells, score, quarter_shift(heat, cells) + 0.5, tags, dropped))
        return found

    def read(self, joints: npt.NDArray[np.int64], cells: Cells) -> tuple[Scores, Tags]:
        """See :class:`Maps`."""
        x, y = cells[:, 0], cells[:, 1]
        rows, columns = self._axes
        maps = np.minimum(joints, self.tags.shape[1] - 1)
        wy, wx = rows.weight[y], columns.weight[x]
        y0, y1, x0, x1 = rows.low[y], rows.high[y], columns.low[x], columns.high[x]
        t = self.tags
        above = t[:, maps, y0, x0] * (1 - wx) + t[:, maps, y0, x1] * wx
        below = t[:, maps, y1, x0] * (1 - wx) + t[:, maps, y1, x1] * wx
        return self.heatmaps[joints, y, x], (above * (1 - wy) + below * wy).T

    def best(self, joints: npt.NDArray[np.int64], means: Tags) -> Best:
        """See :class:`Maps`. Branch and bound over blocks: a block's value is at most its highest
        heat minus the rounded distance from the mean to the range of the block's tags, so that
        few blocks are looked into."""
        cells = np.zeros((len(joints), 2), np.int64)
        score = np.zeros(len(joints), np.float32)
        places = np.zeros((len(joints), 2))
        for joint in np.unique(joints).tolist():
            rows = np.flatnonzero(joints == joint)
            tags = self.tags[:, min(joint, self.tags.shape[1] - 1)]
            blocks = _Blocks(self.heatmaps[joint], tags, self._axes)
            cells[rows] = [blocks.search(means[row]) for row in rows]
            xy = cells[rows]
            score[rows] = self.heatmaps[joint, xy[:, 1], xy[:, 0]]
            places[rows] = quarter_shift(self.heatmaps[joint], xy) + 0.5
        return cells, score, places

    def dense_heat(self) -> npt.NDArray[np.float32]:
        """See :class:`Maps`."""
        return self.heatmaps

    def dense_tags(self) -> npt.NDArray[np.float32]:
        """See :class:`Maps`."""
        return self.tags[0]


class _Blocks:
    """One joint's heat and tags, cut into blocks with bounds on what is inside.

    Args:
        heat: (H, W).
        tags: (T, h, w).
        axes: how rows and columns of the map lie on those of the tags.
    """

    def __init__(
        self,
        heat: npt.NDArray[np.float32],
        tags: npt.NDArray[np.float32],
        axes: tuple[_Axis, _Axis],
    ) -> None:
        self._shape = height, width = heat.shape
        rest = (-height % _BLOCK, -width % _BLOCK)
        large = enlarged(tags, (height, width))
        if any(rest):  # cells that nobody can prefer
            heat = np.pad(heat, ((0, rest[0]), (0, rest[1])), constant_values=-np.inf)
            large = np.pad(large, ((0, 0), (0, rest[0]), (0, rest[1])))
        self._across = heat.shape[1] // _BLOCK
        self._heat, self._tags = _cut(heat[None])[0], _cut(large)
        by_rows = heat.reshape(-1, _BLOCK, heat.shape[1]).max(axis=1)
        self._highest = by_rows.reshape(len(by_rows), -1, _BLOCK).max(axis=2)
        # Bounds come from the tags as the network gave them: interpolation stays between them.
        rows, columns = (
            _span(axis, size) for axis, size in zip(axes, (height, width), strict=True)
        )
        window = np.ones((rows[1], columns[1]), np.uint8)
        starts = np.ix_(rows[0], columns[0])
        self._low = np.stack([cv2.erode(tag, window, anchor=(0, 0))[starts] for tag in tags])
        self._high = np.stack([cv2.dilate(tag, window, anchor=(0, 0))[starts] for tag in tags])

    def search(self, mean: Tags) -> tuple[int, int]:
        """First cell (x, y) with the highest heat - round(distance to the mean tag)."""
        centre = mean[:, None, None]
        outside = np.maximum(np.maximum(self._low - centre, centre - self._high), 0)
        # A rounding error must not cost the best block: be a hair more hopeful.
        nearest = np.maximum(np.sqrt((outside * outside).sum(axis=0)) - 1e-4, 0)
        bounds = (self._highest - np.round(nearest)).ravel()
        value, cell = self._look(np.array([bounds.argmax()]), mean)
        left = np.flatnonzero(bounds >= value)
        if len(left) > _AT_ONCE:
            left = left[np.argsort(-bounds[left], kind="stable")]
        for first in range(0, len(left), _AT_ONCE):
            some = left[first : first + _AT_ONCE]
            some = some[bounds[some] >= value]
            if len(some) == 0:
                break
            found, where = self._look(some, mean)
            if found > value or (found == value and where < cell):
                value, cell = found, where
        return cell % self._shape[1], cell // self._shape[1]

    def _look(self, blocks: npt.NDArray[np.int64], mean: Tags) -> tuple[np.float32, int]:
        """Highest value in these blocks, and the first flat cell that has it."""
        down, across = blocks // self._across, blocks % self._across
        difference = self._tags[:, down, across] - mean[:, None, None, None]
        distance = np.sqrt(np.einsum("tnyx,tnyx->nyx", difference, difference))
        values = self._heat[down, across] - np.round(distance)
        highest = values.max()
        block, y, x = np.nonzero(values == highest)
        rows, columns = _BLOCK * down[block] + y, _BLOCK * across[block] + x
        return highest, int((rows * self._shape[1] + columns).min())


def _cut(maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(C, H, W) → a view (C, H / b, W / b, b, b)."""
    c, height, width = maps.shape
    shape = (c, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    return maps.reshape(shape).swapaxes(2, 3)


def _span(axis: _Axis, size: int) -> tuple[npt.NDArray[np.int64], int]:
    """First source cell under each block, and the most source cells under one."""
    starts = np.arange(0, size, _BLOCK)
    ends = np.minimum(starts + _BLOCK, size) - 1
    first = axis.low[starts]
    return first, int((axis.high[ends] - first).max()) + 1


class DeviceMaps:
    """Maps on the network's device.

    Args:
        heatmaps: (K, H, W) float32 of the final size.
        tags: (T, K or 1, h, w) float32.
    """

    def __init__(self, heatmaps: torch.Tensor, tags: torch.Tensor) -> None:
        self.heatmaps = heatmaps
        self._tags = tags

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.heatmaps.shape[1], self.heatmaps.shape[2]

    @cached_property
    def _large_tags(self) -> torch.Tensor:
        """(T, K or 1, H, W)."""
        if tuple(self._tags.shape[2:]) == self.shape:
            return self._tags
        return F.interpolate(self._tags, size=self.shape, mode="bilinear", align_corners=False)

    def peaks(self, threshold: float, most: int) -> list[Peaks]:
        """See :class:`Maps`; one transfer."""
        joints, (_, width) = len(self.heatmaps), self.shape
        highest = F.max_pool2d(self.heatmaps[None], 5, stride=1, padding=2)[0]
        kept = torch.where((self.heatmaps == highest), self.heatmaps, -torch.inf).flatten(1)
        counts = (kept > threshold).sum(dim=1)
        score, flat = kept.topk(min(most, kept.shape[1]), dim=1)
        number = torch.arange(joints, device=flat.device)[:, None].expand_as(flat)
        parts = self._at(number.reshape(-1), flat.reshape(-1))
        packed = torch.cat([parts, counts.repeat_interleave(flat.shape[1])[:, None]], dim=1)
        rows = packed.view(joints, flat.shape[1], -1).cpu().numpy()
        scores, cells = score.cpu().numpy(), flat.cpu().numpy()
        found = []
        for joint in range(joints):
            strong = scores[joint] > threshold
            xy = np.stack([cells[joint] % width, cells[joint] // width], axis=1)[strong]
            shift, tags = rows[joint, strong, 1:3], rows[joint, strong, 3:-1]
            dropped = int(rows[joint, 0, -1]) - len(xy)
            found.append(
                Peaks(
                    xy, scores[joint, strong], xy + shift.astype(np.float64) + 0.5,
                    tags.astype(np.float32), dropped,
                )
            )  # fmt: skip
        return found

    def read(self, joints: npt.NDArray[np.int64], cells: Cells) -> tuple[Scores, Tags]:
        """See :class:`Maps`."""
        device = self.heatmaps.device
        flat = torch.from_numpy(cells[:, 1] * self.shape[1] + cells[:, 0]).to(device)
        parts = self._at(torch.from_numpy(joints).to(device), flat).cpu().numpy()
        return parts[:, 0].astype(np.float32), parts[:, 3:].astype(np.float32)

    def best(self, joints: npt.NDArray[np.int64], means: Tags) -> Best:
        """See :class:`Maps`; all questions at once, a few maps at a time."""
        device = self.heatmaps.device
        asked = torch.from_numpy(joints).to(device)
        wanted = torch.from_numpy(means).to(device)
        tag_maps = self._large_tags
        flat = []
        for first in range(0, len(joints), 32):
            j = asked[first : first + 32]
            near = tag_maps[:, j.clamp(max=tag_maps.shape[1] - 1)].movedim(0, 1)
            distance = (near - wanted[first : first + 32, :, None, None]).square().sum(1).sqrt()
            flat.append((self.heatmaps[j] - distance.round()).flatten(1).argmax(dim=1))
        where = torch.cat(flat) if flat else torch.zeros(0, dtype=torch.int64, device=device)
        parts = self._at(asked, where).cpu().numpy()
        found = where.cpu().numpy()
        cells = np.stack([found % self.shape[1], found // self.shape[1]], axis=1)
        places = cells + parts[:, 1:3].astype(np.float64) + 0.5
        return cells, parts[:, 0].astype(np.float32), places

    def _at(self, joints: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
        """(M, 3 + T) heat, quarter shift x and y, and tags of joints at flat cells."""
        height, width = self.shape
        x, y = flat % width, flat // width
        heat = self.heatmaps
        right, left = (heat[joints, y, (x + d).clamp(0, width - 1)] for d in (1, -1))
        below, above = (heat[joints, (y + d).clamp(0, height - 1), x] for d in (1, -1))
        tag_maps = self._large_tags
        tags = tag_maps[:, joints.clamp(max=tag_maps.shape[1] - 1), y, x]
        shift_x, shift_y = (right > left).float() * 0.5 - 0.25, (below > above).float() * 0.5 - 0.25
        return torch.cat([torch.stack([heat[joints, y, x], shift_x, shift_y]), tags]).T

    def dense_heat(self) -> npt.NDArray[np.float32]:
        """See :class:`Maps`."""
        return self.heatmaps.cpu().numpy()

    def dense_tags(self) -> npt.NDArray[np.float32]:
        """See :class:`Maps`."""
        return self._tags[0].cpu().numpy()


def enlarged(maps: npt.NDArray[np.float32], shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Bilinear resize of (C, h, w) to (C, H, W), pixel edges aligned."""
    if maps.shape[1:] == shape:
        return maps
    larger = np.empty((len(maps), *shape), np.float32)
    for source, target in zip(maps, larger, strict=True):
        cv2.resize(source, (shape[1], shape[0]), dst=target, interpolation=cv2.INTER_LINEAR)
    return larger
