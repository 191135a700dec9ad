"""The top-down codec: one person ↔ heatmaps of a crop (HRNet, Sun et al. 2019, sec. 3 and 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch

from .. import geometry
from ..boxes import Boxes
from ..constants import constant
from ..fields import Head, Marks, Targets, View
from ..geometry import Affine
from ..poses import ABSENT, SEEN, Poses
from ..skeleton import Skeleton
from .heatmaps import cells_of, smoothed

Maps = npt.NDArray[np.float32]
Decoding = Literal["quarter", "parabola", "dark"]


@dataclass(frozen=True)
class CropMaps:
    """Heatmaps of a picture's crops, averaged over views.

    Attributes:
        heatmaps: (N, K, h, w) float32.
        to_picture: N affines, map cells → picture pixels.
        shape: (H, W) of the picture.
    """

    heatmaps: Maps
    to_picture: Sequence[Affine]
    shape: tuple[int, int]

    def dense_heat(self) -> Maps:
        """(K, H/2, W/2) the crops' heatmaps where they lie in the picture, for pictures."""
        half = geometry.scaling(0.5)
        height, width = self.shape[0] // 2 + 1, self.shape[1] // 2 + 1
        total = np.zeros((self.heatmaps.shape[1], height, width), np.float32)
        for maps, affine in zip(self.heatmaps, self.to_picture, strict=True):
            for joint, heat in enumerate(maps):
                there = cv2.warpAffine(heat, (half @ affine)[:2], (width, height))
                np.maximum(total[joint], there, out=total[joint])
        return total

    def dense_tags(self) -> None:
        """There are none."""


@dataclass(frozen=True)
class TopDownCodec:
    """Published encoding and decoding; the defaults are the published settings.

    Attributes:
        skeleton: the K joints.
        heads: the network's one output.
        sigma: of the stamped Gaussians, cells.
        decoding: from the hottest cell to a point: ``quarter`` of a cell towards the higher
            neighbour (published), the top of a ``parabola`` through the logarithms of the
            neighbours, or ``dark`` (Zhang et al. 2020): the same in both directions together, on
            a map smoothed by the Gaussian that it was made with.
        shift_mirrored: move the mirrored view's maps one cell to the right (published), by about
            what mirroring pixels instead of cells misplaces them.
        least_heat: joints above this count for the person's score.
    """

    skeleton: Skeleton
    heads: tuple[Head, ...]
    sigma: float = 2.0
    decoding: Decoding = "quarter"
    shift_mirrored: bool = True
    least_heat: float = 0.2

    @property
    def _radius(self) -> int:
        return int(3 * self.sigma)

    @property
    def _border(self) -> int:
        """Cells beside the map in which a joint still counts; the published code counts the first
        one at the low edges from which nothing reaches the map."""
        return self._radius + 1

    @cached_property
    def _kernel(self) -> tuple[tuple[float, ...], ...]:
        """(2 r + 2, 2 r + 2) the Gaussian, with a last row and column of zeros."""
        # In float32, as the published code has it: the last digits of the exponential differ.
        x = np.arange(-self._radius, self._radius + 1, dtype=np.float32)
        gaussian = np.exp(-(x**2 + x[:, None] ** 2) / (2 * self.sigma**2))
        return tuple(tuple(row) for row in np.pad(gaussian, (0, 1)).tolist())

    def mark(self, poses: Poses, valid: npt.NDArray[np.uint8], mirrored: bool = False) -> Marks:
        """Where the first person's joints fall on the map.

        A joint outside the crop still leaves the rim of its Gaussian inside, so that cells are
        counted on the map with a border as wide as the Gaussian's radius.

        Args:
            poses: the person, in the crop's pixels.
            valid: (H, W) as the bottom-up codec has it; the published loss ignores no region.
            mirrored: whether the view is; it makes no difference here.
        """
        stride, border = self.heads[0].stride, self._border
        shape = (valid.shape[0] // stride, valid.shape[1] // stride)
        cells = cells_of(poses.xy[:1] / stride + 0.5) + border
        wide = shape[1] + 2 * border
        last = np.array([shape[1], shape[0]]) + border + self._radius - 1
        inside = ((cells >= 0) & (cells <= last)).all(axis=2)
        there = inside & (poses.visibility[:1] > ABSENT)
        flat = np.where(there, cells[..., 1] * wide + cells[..., 0], -1)
        mask = np.ascontiguousarray(valid[::stride, ::stride])
        return Marks((torch.from_numpy(flat),), torch.from_numpy(mask))

    def encode(self, marks: Marks) -> Targets:
        """Targets of a batch of marked crops, on the marks' device."""
        cells = marks.cells[0][:, 0]  # (B, K)
        height, width = marks.valid.shape[1:]
        border, radius = self._border, self._radius
        wide = width + 2 * border
        x, y = cells % wide - border, cells // wide - border
        none = 2 * radius + 1

        def along(position: torch.Tensor, size: int) -> torch.Tensor:
            """(B, K, size) row of the kernel for each cell of one axis; the last is 0."""
            row = torch.arange(size, device=cells.device) - position[..., None] + radius
            return torch.where((row >= 0) & (row < none), row, none)

        there = cells >= 0
        rows = torch.where(there[..., None], along(y, height), none)
        kernel = constant(self._kernel, cells.device)
        heatmaps = kernel[rows[..., :, None], along(x, width)[..., None, :]]
        return Targets((heatmaps,), (there[..., None, None].float(),), marks.cells)

    def merge(self, views: Sequence[View]) -> Maps:
        """(N, K, h, w) the mean of the network's answers to the crops and to the mirrored crops."""
        total: torch.Tensor | None = None
        for view in views:
            maps = view.outputs.heatmaps[0].float()
            if view.mirrored:
                flip = torch.from_numpy(self.skeleton.flip).to(maps.device)
                maps = maps[:, flip].flip(3)
                if self.shift_mirrored:
                    maps = torch.cat([maps[..., :1], maps[..., :-1]], dim=3)
            total = maps if total is None else total + maps
        assert total is not None
        averaged: Maps = (total / len(views)).cpu().numpy()
        return averaged

    def decode(self, heatmaps: Maps, to_picture: Sequence[Affine], boxes: Boxes) -> Poses:
        """People in picture pixels, one for each box.

        A person's score is the box's times the mean heat of the joints above ``least_heat``. A
        joint without any heat is absent and stays where it was looked for, as published.

        Args:
            heatmaps: (N, K, h, w).
            to_picture: N affines, map cells → picture pixels.
            boxes: N of them.
        """
        place, heat = self.points(heatmaps)
        xy = [geometry.apply(a, p) for a, p in zip(to_picture, place, strict=True)]
        sure = heat > self.least_heat
        mean = np.where(sure, heat, 0).sum(axis=1) / np.maximum(sure.sum(axis=1), 1)
        people = len(heatmaps)
        visibility = np.where(heat > 0, SEEN, ABSENT).astype(np.int8)
        return Poses(
            xy=np.reshape(xy, (people, len(self.skeleton), 2)),
            score=np.maximum(heat, 0.0).astype(np.float64),
            person_score=boxes.score * mean,
            visibility=visibility,
            tag=np.zeros((people, 0)),
            track=np.full(people, -1),
        )

    def points(self, heatmaps: Maps) -> tuple[npt.NDArray[np.float64], Maps]:
        """(N, K, 2) where each map (N, K, h, w) is hottest, in cells, and (N, K) the heat there.

        Maps without any heat above 0 give (0, 0), as published.
        """
        count, joints, height, width = heatmaps.shape
        flat = heatmaps.reshape(count, joints, height * width)
        cell = flat.argmax(axis=2)
        heat = np.take_along_axis(flat, cell[..., None], axis=2)[..., 0]
        cell = np.where(heat > 0, cell, 0)
        x, y = cell % width, cell // width
        xy = np.stack([x, y], axis=2).astype(np.float64)
        # The published code leaves the outermost two cells at the low edges as they are.
        inner = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
        n, k = np.nonzero(inner)
        field = heatmaps if self.decoding != "dark" else _smoothed(heatmaps, self.sigma)
        xy[n, k] += _OFFSETS[self.decoding](field[n, k], x[n, k], y[n, k])
        return xy, heat


Cell = npt.NDArray[np.int64]
_FAINT = 1e-10


def _quarter(maps: Maps, x: Cell, y: Cell) -> npt.NDArray[np.float64]:
    """(M, 2) a quarter of a cell along each axis of maps (M, h, w) at cells x, y."""
    m = np.arange(len(maps))
    slope = [maps[m, y, x + 1] - maps[m, y, x - 1], maps[m, y + 1, x] - maps[m, y - 1, x]]
    return np.stack([np.sign(side) * 0.25 for side in slope], axis=1).astype(np.float64)


def _parabola(maps: Maps, x: Cell, y: Cell) -> npt.NDArray[np.float64]:
    """(M, 2) along each axis: a Gaussian's logarithm is a parabola, whose top is exact."""
    slope, curve, _ = _derivatives(maps, x, y)
    return _bounded(-slope / np.minimum(curve, -_FAINT))


def _dark(maps: Maps, x: Cell, y: Cell) -> npt.NDArray[np.float64]:
    """(M, 2) Newton's step to the top of the logarithm (Zhang et al. 2020, eq. 4 to 9).

    Second differences are taken over one cell; the authors' code takes them over two.
    """
    slope, curve, cross = _derivatives(maps, x, y)
    determinant = curve[:, 0] * curve[:, 1] - cross**2
    step = np.stack(
        [cross * slope[:, 1] - curve[:, 1] * slope[:, 0],
         cross * slope[:, 0] - curve[:, 0] * slope[:, 1]], axis=1,
    ) / np.where(determinant > _FAINT, determinant, np.inf)[:, None]  # fmt: skip
    return _bounded(step)


def _derivatives(maps: Maps, x: Cell, y: Cell) -> tuple[npt.NDArray[np.float64], ...]:
    """Of the maps' logarithms: first (M, 2) and second (M, 2) along each axis, and mixed (M,)."""
    m = np.arange(len(maps))

    def log(dx: int, dy: int) -> npt.NDArray[np.float64]:
        return np.log(np.maximum(maps[m, y + dy, x + dx], _FAINT).astype(np.float64))

    middle = log(0, 0)
    left, right, above, below = log(-1, 0), log(1, 0), log(0, -1), log(0, 1)
    slope = np.stack([right - left, below - above], axis=1) / 2
    curve = np.stack([right + left - 2 * middle, below + above - 2 * middle], axis=1)
    cross = (log(1, 1) - log(1, -1) - log(-1, 1) + log(-1, -1)) / 4
    return slope, curve, cross


def _bounded(step: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A top further than a cell from the hottest one is noise's."""
    return np.where((np.abs(step) <= 1).all(axis=1, keepdims=True), step, 0.0)


def _smoothed(heatmaps: Maps, sigma: float) -> Maps:
    """Each map (N, K, h, w) blurred by the Gaussian and brought back to its height."""
    smooth = np.empty_like(heatmaps)
    for index in np.ndindex(heatmaps.shape[:2]):
        blurred = smoothed(heatmaps[index], sigma)
        smooth[index] = blurred * (heatmaps[index].max() / max(float(blurred.max()), _FAINT))
    return smooth


_OFFSETS: dict[str, Callable[[Maps, Cell, Cell], npt.NDArray[np.float64]]] = {
    "quarter": _quarter,
    "parabola": _parabola,
    "dark": _dark,
}
