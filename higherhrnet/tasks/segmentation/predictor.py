"""Images → label maps: several scales and the mirror image averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ...datasets.label_maps import Labels, colorize
from .networks import LogitNetwork

Image = npt.NDArray[np.uint8]
_NUMBERS = 1 << 24
"""Probabilities that are in memory at a time, of each view."""


@dataclass(frozen=True)
class SegmentationPredictor:
    """A segmentation network with its test protocol (Wang et al. 2020, sec. 5: several scales and
    flips, their class probabilities averaged).

    Attributes:
        network: (H, W, 3) uint8 → (C, h, w) logits.
        scales: by which the image is resized.
        flip: average with the mirror image.
        short_side: images are resized to it first; 0 leaves them.
        align_corners: how logits are brought up to the image.
    """

    network: LogitNetwork
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    short_side: int = 0
    align_corners: bool = True

    @torch.inference_mode()
    def __call__(self, image: Image) -> Labels:
        """(H, W) uint8 class numbers. Probabilities are there for some rows at a time: those of a
        photograph and 81 classes would fill the memory."""
        views, (height, width) = self._views(image), image.shape[:2]
        rows = max(_NUMBERS // (len(views[0].logits) * width), 1)
        strips = (slice(first, first + rows) for first in range(0, height, rows))
        labels = [self._mean(views, strip).argmax(dim=0).byte().cpu().numpy() for strip in strips]
        return np.asarray(np.concatenate(labels), dtype=np.uint8)

    @torch.inference_mode()
    def probabilities(self, image: Image) -> npt.NDArray[np.float32]:
        """(C, H, W) probability of every class."""
        mean: npt.NDArray[np.float32] = self._mean(self._views(image), slice(None)).cpu().numpy()
        return mean

    def _mean(self, views: Sequence[_View], rows: slice) -> torch.Tensor:
        """(C, rows, W) mean probability over the views."""
        total = sum(view.upsample(rows).softmax(dim=0) for view in views)
        assert isinstance(total, torch.Tensor)
        return total / len(views)

    def _views(self, image: Image) -> list[_View]:
        flips = [False, True] if self.flip else [False]
        return [self._view(image, scale, flipped) for scale in self.scales for flipped in flips]

    def _view(self, image: Image, scale: float, flipped: bool) -> _View:
        size = image.shape[0], image.shape[1]
        factor = scale * (self.short_side / min(size) if self.short_side else 1.0)
        canvas, shape = self.network.shape.place(image, factor)
        seen = np.ascontiguousarray(canvas[:, ::-1]) if flipped else canvas
        logits = self.network(seen)
        logits = logits.flip(2) if flipped else logits
        down, across = (
            self._weights(logits.shape[n + 1], canvas.shape[n], shape[n], size[n]) for n in (0, 1)
        )
        return _View(logits, down.to(logits.device), across.to(logits.device))

    def _weights(self, maps: int, canvas: int, view: int, image: int) -> torch.Tensor:
        """(image, maps) how pixels along one side are made of the maps': brought to the canvas, cut
        to the view, brought to the image."""
        weights = _interpolate(torch.eye(maps), canvas, self.align_corners)[:view]
        return weights if view == image else _interpolate(weights, image, False)


@dataclass(frozen=True)
class _View:
    """What the network saw in one view of an image.

    Attributes:
        logits: (C, h, w).
        down: (H, h) how the image's rows are made of these.
        across: (W, w) and its columns.
    """

    logits: torch.Tensor
    down: torch.Tensor
    across: torch.Tensor

    def upsample(self, rows: slice) -> torch.Tensor:
        """(C, rows, W) logits of some rows of the image."""
        return self.down[rows] @ self.logits @ self.across.T


def _interpolate(weights: torch.Tensor, length: int, align_corners: bool) -> torch.Tensor:
    """(n, m) brought to (length, m), linearly along the first side."""
    sides = F.interpolate(weights.T[None], length, mode="linear", align_corners=align_corners)
    return sides[0].T


def upsample(logits: torch.Tensor, size: tuple[int, ...], align_corners: bool) -> torch.Tensor:
    """(B, C, h, w) brought to (H, W), bilinearly."""
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=align_corners)


def draw_labels(
    image: Image, labels: Labels, opacity: float = 0.55, has_background: bool = True
) -> Image:
    """The image with the classes' colors over it; a background, class 0, stays as it is."""
    colors = colorize(labels if has_background else labels + 1).astype(np.float32)
    share = np.where(labels > 0, opacity, 0.0 if has_background else opacity)[..., None]
    mixed = image * (1 - share) + colors * share
    drawn = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    edges = labels != cv2.erode(labels, np.ones((3, 3), np.uint8))
    drawn[edges] = 255
    return drawn
