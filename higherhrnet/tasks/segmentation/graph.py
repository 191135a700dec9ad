"""What is exported of a segmentation network."""

from __future__ import annotations

import torch
from torch import nn

from ...models.image_network import ImageNetwork
from .predictor import upsample


class SegmentationGraph(ImageNetwork):
    """(B, H, W, 3) uint8 RGB, H and W multiples of 32 → labels and logits.

    Args:
        network: in evaluation mode.
        align_corners: how logits are brought up to the image.
    """

    def __init__(self, network: nn.Module, align_corners: bool) -> None:
        super().__init__(network)
        self.align_corners = align_corners

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, H, W) int32 class numbers, and (B, C, H/4, W/4) float32 logits."""
        logits = self.network(self.normalized(images)).float()
        whole = upsample(logits, (images.shape[1], images.shape[2]), self.align_corners)
        return whole.argmax(dim=1).to(torch.int32), logits
