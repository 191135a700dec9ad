"""What is exported of a classifier."""

from __future__ import annotations

import torch

from ...models.image_network import ImageNetwork


class ClassificationGraph(ImageNetwork):
    """(B, H, W, 3) uint8 RGB → (B, C) float32 logits."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        """Of views, as training and testing cut them from images."""
        return (self.network(self.normalized(images)).float(),)
