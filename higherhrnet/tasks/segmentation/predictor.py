"""Images → label maps: several scales and the mirror image averaged."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from ...datasets.crops import pad_to_multiple, resize
from ...datasets.label_maps import Labels, colorize
from ..inputs import STRIDE, autocast, send_image

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SegmentationPredictor:
    """A segmentation network with its test protocol (Wang et al. 2020, sec. 5: several scales and
    flips, their class probabilities averaged).

    Attributes:
        model: (B, 3, H, W) normalized images → (B, C, h, w) logits; in evaluation mode.
        device: where it is.
        scales: by which the image is resized.
        flip: average with the mirror image.
        short_side: images are resized to it first; 0 leaves them.
        align_corners: how logits are brought up to the image.
        precision: ``auto``, ``fp32`` or ``bf16``.
    """

    model: nn.Module
    device: torch.device
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    short_side: int = 0
    align_corners: bool = True
    precision: str = "auto"

    def __call__(self, image: Image) -> Labels:
        """(H, W) uint8 class numbers."""
        return self.probabilities(image).argmax(axis=0).astype(np.uint8)

    @torch.inference_mode()
    def probabilities(self, image: Image) -> npt.NDArray[np.float32]:
        """(C, H, W) probability of every class."""
        views = [(scale, flipped) for scale in self.scales for flipped in {False, self.flip}]
        total = sum(self._view(image, scale, flipped) for scale, flipped in views)
        assert isinstance(total, torch.Tensor)
        mean: npt.NDArray[np.float32] = (total / len(views)).cpu().numpy()
        return mean

    def _view(self, image: Image, scale: float, flipped: bool) -> torch.Tensor:
        size = image.shape[0], image.shape[1]
        factor = scale * (self.short_side / min(size) if self.short_side else 1.0)
        height, width = (max(round(side * factor), 1) for side in size)
        resized = resize(image, (height, width))
        canvas = pad_to_multiple(resized, STRIDE)
        x = send_image(canvas, self.device)
        with autocast(self.device, self.precision):
            logits = self.model(x.flip(3) if flipped else x)
        logits = logits.float().flip(3) if flipped else logits.float()
        whole = upsample(logits, canvas.shape[:2], self.align_corners)[..., :height, :width]
        if (height, width) != size:
            whole = upsample(whole, size, False)
        return whole[0].softmax(dim=0)


def upsample(logits: torch.Tensor, size: tuple[int, ...], align_corners: bool) -> torch.Tensor:
    """(B, C, h, w) brought to (H, W), bilinearly."""
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=align_corners)


def draw_labels(image: Image, labels: Labels, opacity: float = 0.55) -> Image:
    """The image with the classes' colors over it; the background stays as it is."""
    colors = colorize(labels).astype(np.float32)
    share = np.where(labels > 0, opacity, 0.0)[..., None]
    mixed = image * (1 - share) + colors * share
    drawn = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    edges = labels != cv2.erode(labels, np.ones((3, 3), np.uint8))
    drawn[edges] = 255
    return drawn
