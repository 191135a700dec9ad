"""Heatmaps: draw Gaussians at joints ↔ find peaks, sub-pixel.

The published pair: joints are truncated to whole pixels and a Gaussian is drawn there; a peak is
moved a quarter pixel towards its higher neighbor and then by +0.5. Its bias (-0.25 pixel on ideal
maps) is part of the published numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # decoding needs no PyTorch; what does imports it
    import torch

Indices = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Locations = npt.NDArray[np.float64]


def truncate_to_indices(xy: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Map coordinates (..., 2) → whole pixels, truncated towards zero as published."""
    return xy.astype(np.int64)


def inside(indices: npt.NDArray[np.int64], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """(...,) whether pixels (..., 2) x, y lie on a map of ``shape`` (H, W)."""
    x, y = indices[..., 0], indices[..., 1]
    on_map: npt.NDArray[np.bool_] = (x >= 0) & (y >= 0) & (x < shape[1]) & (y < shape[0])
    return on_map


def kernel(sigma: float) -> npt.NDArray[np.float64]:
    """The Gaussian: 6 sigma + 3 pixels a side, 1 in the middle."""
    radius = 3 * sigma + 1
    x = np.arange(0, 6 * sigma + 3) - radius
    gaussian: npt.NDArray[np.float64] = np.exp(-(x**2 + x[:, None] ** 2) / (2 * sigma**2))
    return gaussian


@cache
def _window(sigma: float) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in kernel(sigma).tolist())


def draw_gaussians(
    indices: torch.Tensor,
    shape: tuple[int, int],
    sigma: float,
    offsets: torch.Tensor | None = None,
) -> torch.Tensor:
    """Draw a Gaussian at every joint, joint by joint the maximum over people.

    One scatter on any device: no loop, and nothing is read back from the device.

    Args:
        indices: (B, P, K) int64 flat indices y * W + x; -1 leaves a joint out.
        shape: (H, W) of the maps.
        sigma: in pixels; a whole number, so that the kernel has a middle.
        offsets: (B, P, K, 2) float32 x, y from each joint's pixel to the Gaussian's center, at most
            half a pixel; None draws it on the pixel, as published.

    Returns:
        (B, K, H, W) float32 in 0..1.
    """
    import torch

    from ..device_constants import constant

    batch, _, joints = indices.shape
    window = constant(_window(sigma), indices.device)
    side = len(window)
    if offsets is not None:
        at = torch.arange(side, device=indices.device) - side // 2
        along = torch.exp(-((at - offsets.reshape(-1, 2, 1)) ** 2) / (2 * sigma**2))
        window = along[:, 1, :, None] * along[:, 0, None, :]  # (B P K, side, side)
    margin = side // 2
    # On a canvas padded by the kernel's radius every Gaussian is whole: nothing is clipped. Absent
    # joints are drawn on a strip behind the last map.
    height, width = shape[0] + 2 * margin, shape[1] + 2 * margin
    size = batch * joints * height * width
    maps = torch.arange(batch * joints, device=indices.device).view(batch, 1, joints)
    corner = (maps * height + indices // shape[1]) * width + indices % shape[1]
    corner = torch.where(indices >= 0, corner, size)
    step = torch.arange(side, device=indices.device)
    offsets = step[:, None] * width + step
    locations = (corner.view(-1, 1) + offsets.view(1, -1)).view(-1)
    values = window.reshape(-1, side * side).expand(corner.numel(), -1).reshape(-1)
    canvas = torch.zeros(size + side * width, device=indices.device)
    canvas.scatter_reduce_(0, locations, values, "amax")
    return canvas[:size].view(batch, joints, height, width)[
        :, :, margin : margin + shape[0], margin : margin + shape[1]
    ]


def gaussian_blur(heatmap: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
    """A map (H, W) under a Gaussian of ``sigma`` pixels, cut at three sigma; borders reflect."""
    side = 2 * int(3 * sigma) + 1
    return np.asarray(cv2.GaussianBlur(heatmap, (side, side), sigma), np.float32)


def gaussian_blur_on_device(heatmaps: torch.Tensor, sigma: float) -> torch.Tensor:
    """Maps (B, K, H, W), H and W above 3 sigma, under the Gaussian of :func:`gaussian_blur`."""
    from torch.nn import functional as F

    radius = int(3 * sigma)
    taps = cv2.getGaussianKernel(2 * radius + 1, sigma, cv2.CV_32F)[:, 0].tolist()
    wide = F.pad(heatmaps, (radius, radius, radius, radius), mode="reflect")
    # Sums of shifted maps: a convolution would be rounded to 10 bits on some GPUs (TF32).
    for axis in (2, 3):
        side = heatmaps.shape[axis]
        wide = sum(tap * wide.narrow(axis, at, side) for at, tap in enumerate(taps))
    return wide


@dataclass(frozen=True)
class Peaks:
    """Local maxima of one joint's heatmap, best first: candidates for people.

    Attributes:
        xy: (M, 2) int64 pixels.
        score: (M,) float32 score.
        location: (M, 2) float64, where the joint is more exactly; see :class:`SubPixel`.
        tags: (M, T) float32 tags read there.
        dropped: further maxima beyond the most that were wanted.
    """

    xy: Indices
    score: Scores
    location: Locations
    tags: npt.NDArray[np.float32]
    dropped: int = 0


def host_peaks(
    heatmap: npt.NDArray[np.float32], threshold: float, most: int, window: int = 5
) -> tuple[Indices, Scores, int]:
    """The pixels of a map (H, W) that are the maximum of their ``window`` x ``window`` surrounding.

    Args:
        heatmap: one joint's map.
        threshold: pixels must be higher than this.
        most: at most so many, the best first.
        window: odd side of the surrounding, pixels.

    Returns:
        pixels (M, 2), score (M,), and how many more there were.
    """
    height, width = heatmap.shape
    flat = heatmap.reshape(-1)
    hot = np.flatnonzero(flat > threshold)
    if len(hot) == 0:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.float32), 0
    # Most pixels have a higher direct neighbor; only what is left is compared with the whole
    # window. Beyond the border there is nothing: the border pixel stands in.
    x = hot % width
    left, right = flat[hot - (x > 0)], flat[hot + (x < width - 1)]
    hot = hot[flat[hot] >= np.maximum(left, right)]
    y = hot // width
    above, below = flat[hot - width * (y > 0)], flat[hot + width * (y < height - 1)]
    hot = hot[flat[hot] >= np.maximum(above, below)]
    around = np.arange(window) - window // 2
    y = np.clip(hot[:, None] // width + around, 0, height - 1)
    x = np.clip(hot[:, None] % width + around, 0, width - 1)
    highest = heatmap[y[:, :, None], x[:, None, :]].max(axis=(1, 2))
    hot = hot[flat[hot] == highest]
    score = flat[hot]
    best = np.argsort(-score, kind="stable")[:most]
    indices = np.stack([hot[best] % width, hot[best] // width], axis=1)
    return indices, score[best], len(hot) - len(best)


_FAINT = 1e-10
Patches = npt.NDArray[np.floating]
"""(M, 3, 3) scores around M pixels."""


def cut_patches(
    heatmaps: npt.NDArray[np.float32], joints: npt.NDArray[np.int64], xy: Indices
) -> npt.NDArray[np.float32]:
    """(M, 3, 3) scores around pixels (M, 2) of joints' (M,) maps (K, H, W); beyond the border there
    is the border pixel itself."""
    _, height, width = heatmaps.shape
    around = np.arange(-1, 2)
    x = np.clip(xy[:, :1] + around, 0, width - 1)
    y = np.clip(xy[:, 1:] + around, 0, height - 1)
    return heatmaps[joints[:, None, None], y[:, :, None], x[:, None, :]]


def quarter_offset(patches: Patches) -> Locations:
    """(M, 2) a quarter pixel towards the right (lower) neighbor if it is the higher one, else to
    the other side, as published."""
    right = patches[:, 1, 2] > patches[:, 1, 0]
    below = patches[:, 2, 1] > patches[:, 0, 1]
    return np.where(np.stack([right, below], axis=1), 0.25, -0.25)


def parabola_offset(patches: Patches) -> Locations:
    """(M, 2) along each axis: a Gaussian's logarithm is a parabola, whose top is exact."""
    slope, curve, _ = _log_derivatives(patches)
    return _bound_step(-slope / np.minimum(curve, -_FAINT))


def dark_offset(patches: Patches) -> Locations:
    """(M, 2) Newton's step to the top of the logarithm (Zhang et al. 2020, eq. 4 to 9), of patches
    from maps that are blurred by their Gaussian.

    Second differences are taken over one pixel; the authors' code takes them over two.
    """
    slope, curve, cross = _log_derivatives(patches)
    determinant = curve[:, 0] * curve[:, 1] - cross**2
    step = np.stack(
        [cross * slope[:, 1] - curve[:, 1] * slope[:, 0],
         cross * slope[:, 0] - curve[:, 0] * slope[:, 1]], axis=1,
    ) / np.where(determinant > _FAINT, determinant, np.inf)[:, None]  # fmt: skip
    return _bound_step(step)


def _log_derivatives(patches: Patches) -> tuple[npt.NDArray[np.float64], ...]:
    """Of the scores' logarithms: first (M, 2) and second (M, 2) along each axis, and mixed (M,)."""
    log = np.log(np.maximum(patches, _FAINT).astype(np.float64))
    middle = log[:, 1, 1]
    left, right, above, below = log[:, 1, 0], log[:, 1, 2], log[:, 0, 1], log[:, 2, 1]
    slope = np.stack([right - left, below - above], axis=1) / 2
    curve = np.stack([right + left - 2 * middle, below + above - 2 * middle], axis=1)
    cross = (log[:, 2, 2] - log[:, 0, 2] - log[:, 2, 0] + log[:, 0, 0]) / 4
    return slope, curve, cross


def _bound_step(step: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A top further than a pixel from the highest one is noise's."""
    return np.where((np.abs(step) <= 1).all(axis=1, keepdims=True), step, 0.0)


OFFSETS: dict[str, Callable[[Patches], Locations]] = {
    "quarter": quarter_offset,
    "parabola": parabola_offset,
    "dark": dark_offset,
}


@dataclass(frozen=True)
class SubPixel:
    """From a peak's pixel to a point; the defaults are published.

    Attributes:
        decoding: the offset from the highest pixel; see :data:`OFFSETS`.
        center: then added to both coordinates: 0.5 undoes the truncation of joints to pixels.
        sigma: of the blur before ``dark``, pixels.
    """

    decoding: str = "quarter"
    center: float = 0.5
    sigma: float = 2.0

    def locate(self, xy: Indices, patches: Patches) -> Locations:
        """Pixels (M, 2) and the scores around them → points (M, 2)."""
        return xy + OFFSETS[self.decoding](patches) + self.center

    @property
    def blurs(self) -> bool:
        """Whether patches are to be cut from maps blurred by ``sigma``."""
        return self.decoding == "dark"


PUBLISHED = SubPixel()
