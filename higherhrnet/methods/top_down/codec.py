"""The top-down codec: one person ↔ heatmaps of a crop (HRNet, Sun et al. 2019, sec. 3 and 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from ... import geometry
from ...boxes import Boxes
from ...geometry import Affine
from ...outputs import Head, View, to_host
from ...poses import ABSENT, SEEN, Poses
from ...skeleton import Skeleton
from ..heatmaps import (
    OFFSETS,
    Locations,
    Patches,
    cut_patches,
    gaussian_blur,
    truncate_to_indices,
)

if TYPE_CHECKING:  # decoding needs no PyTorch; encoding imports it
    import torch

    from ...structures import KeypointIndices, Targets

Maps = npt.NDArray[np.float32]


@dataclass(frozen=True)
class CropMaps:
    """Heatmaps of an image's crops, averaged over views.

    Attributes:
        heatmaps: (N, K, h, w) float32.
        to_image: N affines, heatmap pixels → image pixels.
        shape: (H, W) of the image.
    """

    heatmaps: Maps
    to_image: Sequence[Affine]
    shape: tuple[int, int]

    def dense_heatmaps(self) -> Maps:
        """(K, H/2, W/2) the crops' heatmaps where they lie in the image, for images."""
        half = geometry.scaling(0.5)
        height, width = self.shape[0] // 2 + 1, self.shape[1] // 2 + 1
        total = np.zeros((self.heatmaps.shape[1], height, width), np.float32)
        for maps, affine in zip(self.heatmaps, self.to_image, strict=True):
            for joint, heatmap in enumerate(maps):
                there = cv2.warpAffine(heatmap, (half @ affine)[:2], (width, height))
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
        sigma: of the Gaussians, heatmap pixels.
        decoding: from the highest pixel to a point: ``quarter`` of a pixel towards the higher
            neighbor (published), the top of a ``parabola`` through the logarithms of the
            neighbors, or ``dark`` (Zhang et al. 2020): the same in both directions together, on
            a map smoothed by the Gaussian that it was made with.
        shift_heatmap: move the flipped view's maps one pixel to the right (published), by about
            what flipping an image instead of its maps misplaces them.
        in_vis_threshold: joints above this count for the person's score.
    """

    skeleton: Skeleton
    heads: tuple[Head, ...]
    sigma: float = 2.0
    decoding: str = "quarter"
    shift_heatmap: bool = True
    in_vis_threshold: float = 0.2

    def to_dict(self) -> dict[str, Any]:
        """Plain values of all but the skeleton."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "skeleton"}
        return values | {"heads": [vars(head) for head in self.heads]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], skeleton: Skeleton) -> TopDownCodec:
        """Inverse of :meth:`to_dict`."""
        heads = tuple(Head(**head) for head in values["heads"])
        return cls(**dict(values) | {"skeleton": skeleton, "heads": heads})

    @property
    def _radius(self) -> int:
        return int(3 * self.sigma)

    @property
    def _border(self) -> int:
        """Pixels beside the map in which a joint still counts; the published code counts the first
        one at the low edges from which nothing reaches the map."""
        return self._radius + 1

    @cached_property
    def _kernel(self) -> tuple[tuple[float, ...], ...]:
        """(2 r + 2, 2 r + 2) the Gaussian, with a last row and column of zeros."""
        # In float32, as the published code has it: the last digits of the exponential differ.
        x = np.arange(-self._radius, self._radius + 1, dtype=np.float32)
        gaussian = np.exp(-(x**2 + x[:, None] ** 2) / (2 * self.sigma**2))
        return tuple(tuple(row) for row in np.pad(gaussian, (0, 1)).tolist())

    def index_keypoints(
        self, poses: Poses, valid: npt.NDArray[np.uint8], flipped: bool = False
    ) -> KeypointIndices:
        """Where the first person's joints fall on the map.

        A joint outside the crop still leaves the rim of its Gaussian inside, so that pixels are
        counted on the map with a border as wide as the Gaussian's radius.

        Args:
            poses: the person, in the crop's pixels.
            valid: (H, W) as the bottom-up codec has it; the published loss ignores no region.
            flipped: whether the view is; it makes no difference here.
        """
        import torch

        from ...structures import KeypointIndices

        stride, border = self.heads[0].stride, self._border
        shape = (valid.shape[0] // stride, valid.shape[1] // stride)
        indices = truncate_to_indices(poses.xy[:1] / stride + 0.5) + border
        wide = shape[1] + 2 * border
        last = np.array([shape[1], shape[0]]) + border + self._radius - 1
        inside = ((indices >= 0) & (indices <= last)).all(axis=2)
        there = inside & (poses.visibility[:1] > ABSENT)
        flat = np.where(there, indices[..., 1] * wide + indices[..., 0], -1)
        mask = np.ascontiguousarray(valid[::stride, ::stride])
        return KeypointIndices((torch.from_numpy(flat),), torch.from_numpy(mask))

    def encode(self, keypoints: KeypointIndices) -> Targets:
        """Targets of a batch of indexed crops, on the device of the indices."""
        import torch

        from ...device_constants import constant
        from ...structures import Targets

        indices = keypoints.indices[0][:, 0]  # (B, K)
        height, width = keypoints.valid.shape[1:]
        border, radius = self._border, self._radius
        wide = width + 2 * border
        x, y = indices % wide - border, indices // wide - border
        none = 2 * radius + 1

        def along(position: torch.Tensor, size: int) -> torch.Tensor:
            """(B, K, size) row of the kernel for each pixel of one axis; the last is 0."""
            row = torch.arange(size, device=indices.device) - position[..., None] + radius
            return torch.where((row >= 0) & (row < none), row, none)

        there = indices >= 0
        rows = torch.where(there[..., None], along(y, height), none)
        kernel = constant(self._kernel, indices.device)
        heatmaps = kernel[rows[..., :, None], along(x, width)[..., None, :]]
        return Targets((heatmaps,), (there[..., None, None].float(),), keypoints.indices)

    def aggregate(self, views: Sequence[View]) -> Maps:
        """(N, K, h, w) the mean of the network's outputs for the crops and to the flipped crops."""
        total: Maps | None = None
        for view in views:
            maps = to_host(view.outputs.heatmaps[0])
            if view.flipped:
                maps = maps[:, self.skeleton.flip_indices, :, ::-1]
                if self.shift_heatmap:
                    maps = np.concatenate([maps[..., :1], maps[..., :-1]], axis=3)
            total = maps if total is None else total + maps
        assert total is not None
        return total / np.float32(len(views))

    def decode(self, heatmaps: Maps, to_image: Sequence[Affine], boxes: Boxes) -> Poses:
        """People in image pixels, one for each box.

        A person's score is the box's times the mean score of the joints above
        ``in_vis_threshold``. A joint without any score is absent and keeps its location, as
        published.

        Args:
            heatmaps: (N, K, h, w).
            to_image: N affines, heatmap pixels → image pixels.
            boxes: N of them.
        """
        location, heatmap = self.points(heatmaps)
        xy = [geometry.apply(a, p) for a, p in zip(to_image, location, strict=True)]
        sure = heatmap > self.in_vis_threshold
        mean = np.where(sure, heatmap, 0).sum(axis=1) / np.maximum(sure.sum(axis=1), 1)
        people = len(heatmaps)
        visibility = np.where(heatmap > 0, SEEN, ABSENT).astype(np.int8)
        return Poses(
            xy=np.reshape(xy, (people, len(self.skeleton), 2)),
            score=np.maximum(heatmap, 0.0).astype(np.float64),
            person_score=boxes.score * mean,
            visibility=visibility,
            tag=np.zeros((people, 0)),
            track=np.full(people, -1),
        )

    def points(self, heatmaps: Maps) -> tuple[npt.NDArray[np.float64], Maps]:
        """Where each map (N, K, h, w) is highest, (N, K, 2) heatmap pixels, and the scores (N, K).

        Maps without any value above 0 give (0, 0), as published.
        """
        count, joints, height, width = heatmaps.shape
        flat = heatmaps.reshape(count, joints, height * width)
        index = flat.argmax(axis=2)
        heatmap = np.take_along_axis(flat, index[..., None], axis=2)[..., 0]
        index = np.where(heatmap > 0, index, 0)
        x, y = index % width, index // width
        xy = np.stack([x, y], axis=2).astype(np.float64)
        # The published code leaves the outermost two pixels at the low edges as they are.
        inner = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
        n, k = np.nonzero(inner)
        field = heatmaps if self.decoding != "dark" else _blur(heatmaps, self.sigma)
        maps = field.reshape(count * joints, height, width)
        pixels = np.stack([x[n, k], y[n, k]], axis=1)
        xy[n, k] += _OFFSETS[self.decoding](cut_patches(maps, n * joints + k, pixels))
        return xy, heatmap


def _quarter(patches: Patches) -> Locations:
    """(M, 2) a quarter of a pixel along each axis; none where both neighbors are equal."""
    slope = [patches[:, 1, 2] - patches[:, 1, 0], patches[:, 2, 1] - patches[:, 0, 1]]
    return np.stack([np.sign(side) * 0.25 for side in slope], axis=1).astype(np.float64)


def _blur(heatmaps: Maps, sigma: float) -> Maps:
    """Each map (N, K, h, w) blurred by the Gaussian and brought back to its height."""
    blurred_maps = np.empty_like(heatmaps)
    for index in np.ndindex(heatmaps.shape[:2]):
        blurred = gaussian_blur(heatmaps[index], sigma)
        peak = max(float(blurred.max()), _FAINT)
        blurred_maps[index] = blurred * (heatmaps[index].max() / peak)
    return blurred_maps


_FAINT = 1e-10
_OFFSETS = {**OFFSETS, "quarter": _quarter}
