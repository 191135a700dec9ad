"""What is exported of a segmentation network."""

from __future__ import annotations

import torch
from torch import nn

from ...models.normalization import MEAN, STD
from .predictor import upsample


class SegmentationGraph(nn.Module):
    """(B, H, W, 3) uint8 RGB, H and W multiples of 32 → labels and logits.

    Args:
        network: in evaluation mode; half precision, if it is cast, is its own affair.
        align_corners: how logits are brought up to the image.
    """

    def __init__(self, network: nn.Module, align_corners: bool) -> None:
        super().__init__()
        self.network, self.align_corners = network, align_corners
        self.dtype = torch.float32
        self.mean = nn.Buffer(torch.tensor(MEAN).view(1, 3, 1, 1))
        self.std = nn.Buffer(torch.tensor(STD).view(1, 3, 1, 1))

    def cast(self, dtype: torch.dtype) -> None:
        """Compute the network in another type; what comes before and after stays float32."""
        self.network.to(dtype)
        self.dtype = dtype

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, H, W) int32 class numbers, and (B, C, H/4, W/4) float32 logits."""
        x = (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        logits = self.network(x.to(self.dtype)).float()
        whole = upsample(logits, (images.shape[1], images.shape[2]), self.align_corners)
        return whole.argmax(dim=1).to(torch.int32), logits
